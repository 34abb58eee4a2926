"""Manifold mixup (Verma et al., arXiv 1806.05236): features are blended at a random stage.

    python -m mixaug_jax.main --config=configs/manifold_mixup.py[:DATA]

DATA is scenes, cifar10, cifar100, imagenet2012, folder, speech, markers or animals.

Expect: scenes: test accuracy 0.985 (seed 0). Not run on other sets at full length.
"""

from mixaug_jax import config


def get_config(data="scenes"):
    return config.get_config("manifold_mixup", data)
