"""Cutout (DeVries & Taylor, arXiv 1708.04552): a square of the mean colour hides part of each image.

    python -m mixaug_jax.main --config=configs/cutout.py[:scenes|cifar10|cifar100|imagenet2012|folder]

Expect: @@cutout@@
"""

from mixaug_jax import config


def get_config(data="scenes"):
    return config.get_config("cutout", data)
