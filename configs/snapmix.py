"""SnapMix (Huang et al., arXiv 2012.04846): a box resized into a box, labels by the evidence in both.

    python -m mixaug_jax.main --config=configs/snapmix.py[:scenes|cifar10|cifar100|imagenet2012|folder|speech]

Expect: scenes: test accuracy 0.932 (seed 0; docs/mixers.md). Not run on other sets at full length.
"""

from mixaug_jax import config


def get_config(data="scenes"):
    return config.get_config("snapmix", data)
