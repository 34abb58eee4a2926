"""A config of configs/rendergan.py that takes seconds."""

import importlib.util
import pathlib

PATH = pathlib.Path(__file__).parents[1] / "configs" / "rendergan.py"


def config(cache, train, method="baseline"):
    """16 pixels, few pictures, two steps; `train` is markers.train."""
    found = opened(method)
    found.markers.train = train
    found.markers.update(steps=2, batch_size=8, filters=2)
    found.data.dir = str(cache)
    found.data.update(size=16, batch_size=16)
    found.data.markers.update(unlabeled=16, labeled=64, validation=8, test=21)
    found.train.update(steps=2, log_every=1)
    found.model.width = 0.25
    found.eval.batch_size = 8
    return found


def opened(how):
    """What configs/rendergan.py gives."""
    spec = importlib.util.spec_from_file_location("rendergan_config", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(how)
