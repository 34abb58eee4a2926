"""Batchmixup (Yin et al., doi 10.18653/v1/2021.findings-acl.434): the last maps of a whole batch, in random means.

    python -m mixaug_jax.main --config=configs/batchmixup.py[:scenes|cifar10|cifar100|imagenet2012|folder|speech|markers]

Expect: scenes: test accuracy 0.862 (seed 0; docs/mixers.md). Not run on other sets at full length.
"""

from mixaug_jax import config


def get_config(data="scenes"):
    return config.get_config("batchmixup", data)
