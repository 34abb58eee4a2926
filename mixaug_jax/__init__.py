"""mixaug_jax: do mixed-sample augmentations make networks harder for people to understand?

The public names are flat and are imported when first used:

    import mixaug_jax
    config = mixaug_jax.get_config(method="cutmix", data="scenes")
    mixaug_jax.train(config, "runs/cutmix")
    net = mixaug_jax.load("runs/cutmix")
"""

import importlib

from mixaug_jax.core import __version__

_PUBLIC = {
    "get_config": "config",
    "run": "pipeline",
    "train": "training",
    "load": "training.checkpoint",
    "save": "training.checkpoint",
    "Net": "models",
    "import_weights": "models.weights",
    "dissect": "stages.keeping",
    "dissect_arrays": "dissection",
    "attribute": "explain.running",
    "evaluate": "stages.keeping",
    "compare": "draw.showing",
    "show": "draw.showing",
    "overlay": "draw.showing",
    "write_report": "report.writing",
    "run_study": "pipeline",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"mixaug_jax.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'mixaug_jax' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_PUBLIC])
