"""Mixup (Zhang et al., arXiv 1710.09412): two images and their labels are blended.

    python -m mixaug_jax.main --config=configs/mixup.py[:scenes|cifar10|cifar100|imagenet2012|folder]

Expect: @@mixup@@
"""

from mixaug_jax import config


def get_config(data="scenes"):
    return config.get_config("mixup", data)
