"""PuzzleMix (Kim et al., arXiv 2009.06962): salient blocks of two images, by a cut and by transport.

    python -m mixaug_jax.main --config=configs/puzzlemix.py[:scenes|cifar10|cifar100|imagenet2012|folder|speech|markers]

Expect: scenes: test accuracy 0.990 (seed 0; docs/mixers.md). Not run on other sets at full length.
"""

from mixaug_jax import config


def get_config(data="scenes"):
    return config.get_config("puzzlemix", data)
