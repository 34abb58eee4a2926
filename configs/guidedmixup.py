"""GuidedMixup (Kang & Kim, arXiv 2306.16612): each pixel from the image in which it is the more salient.

    python -m mixaug_jax.main --config=configs/guidedmixup.py[:scenes|cifar10|cifar100|imagenet2012|folder|speech|markers]

Expect: scenes: test accuracy 0.971 (seed 0; docs/mixers.md). Not run on other sets at full length.
"""

from mixaug_jax import config


def get_config(data="scenes"):
    return config.get_config("guidedmixup", data)
