"""CutMix (Yun et al., arXiv 1905.04899): a box of another image is pasted, labels by area.

    python -m mixaug_jax.main --config=configs/cutmix.py[:scenes|cifar10|cifar100|imagenet2012|folder]

Expect: @@cutmix@@
"""

from mixaug_jax import config


def get_config(data="scenes"):
    return config.get_config("cutmix", data)
