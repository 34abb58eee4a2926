"""MaskMix (Zhao et al., MixPro, arXiv 2304.12043): random cells of a coarse grid come from another image.

    python -m mixaug_jax.main --config=configs/maskmix.py[:scenes|cifar10|cifar100|imagenet2012|folder|speech|markers|animals]

Expect: scenes: test accuracy 0.986 (seed 0). Not run on other sets at full length.
"""

from mixaug_jax import config


def get_config(data="scenes"):
    return config.get_config("maskmix", data)
