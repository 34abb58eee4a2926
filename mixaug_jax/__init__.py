"""mixaug_jax: do mixed-sample augmentations make networks harder for people to understand?

The public names are flat and are imported when first used:

    import mixaug_jax
    config = mixaug_jax.get_config(method="cutmix", data="scenes")
    mixaug_jax.train(config, "runs/cutmix")
    net = mixaug_jax.load("runs/cutmix")
"""

import importlib

__version__ = "0.1.0"

_PUBLIC = {
    "get_config": "config",
    "train": "training",
    "load": "checkpoint",
    "dissect": "dissection",
    "attribute": "evaluation.run",
    "evaluate": "evaluation.run",
    "write_report": "report.stage",
    "run_study": "study",
}

__all__ = [*_PUBLIC]


def __getattr__(name: str):
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"mixaug_jax.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'mixaug_jax' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_PUBLIC])
