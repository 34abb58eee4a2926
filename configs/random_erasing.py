"""Random erasing (Zhong et al., arXiv 1708.04896): a rectangle of random area and shape is lost.

    python -m mixaug_jax.main --config=configs/random_erasing.py[:scenes|cifar10|cifar100|imagenet2012|folder|speech|markers]

Expect: scenes: test accuracy 0.964 (seed 0; docs/mixers.md). Not run on other sets at full length.
"""

from mixaug_jax import config


def get_config(data="scenes"):
    return config.get_config("random_erasing", data)
