"""SaliencyMix (Uddin et al., arXiv 2006.01791): CutMix around the partner's most salient pixel.

    python -m mixaug_jax.main --config=configs/saliencymix.py[:scenes|cifar10|cifar100|imagenet2012|folder]

`--config.mix.variant=released` mixes as the published code does, whose boxes follow no saliency.

Expect: @@saliencymix@@
"""

from mixaug_jax import config


def get_config(data="scenes"):
    return config.get_config("saliencymix", data)
