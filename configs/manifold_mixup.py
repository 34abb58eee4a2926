"""Manifold mixup (Verma et al., arXiv 1806.05236): features are blended at a random stage.

    python -m mixaug_jax.main --config=configs/manifold_mixup.py[:DATA]

DATA is scenes, cifar10, cifar100, imagenet2012, folder, speech, markers or animals.

Expect: not run on any set at full length.
"""

from mixaug_jax import config


def get_config(data="scenes"):
    return config.get_config("manifold_mixup", data)
