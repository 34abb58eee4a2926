"""Attentive CutMix (Walawalkar et al., arXiv 2003.13048): the cells a network responds to stay, the rest is another image.

    python -m mixaug_jax.main --config=configs/attentivemix.py[:scenes|cifar10|cifar100|imagenet2012|folder|speech|markers]

Expect: scenes: test accuracy 0.978 (seed 0; docs/mixers.md). Not run on other sets at full length.
"""

from mixaug_jax import config


def get_config(data="scenes"):
    return config.get_config("attentivemix", data)
