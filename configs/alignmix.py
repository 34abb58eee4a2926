"""AlignMixup (Venkataramanan et al., arXiv 2103.15375): the input, or the last map after its nodes were aligned.

    python -m mixaug_jax.main --config=configs/alignmix.py[:scenes|cifar10|cifar100|imagenet2012|folder|speech|markers]

Expect: scenes: test accuracy 0.995 (seed 0; docs/mixers.md). Not run on other sets at full length.
"""

from mixaug_jax import config


def get_config(data="scenes"):
    return config.get_config("alignmix", data)
