"""No mixing: what every augmentation is compared with.

    python -m mixaug_jax.main --config=configs/baseline.py[:scenes|cifar10|cifar100|imagenet2012|folder]

Expect: @@baseline@@
"""

from mixaug_jax import config


def get_config(data="scenes"):
    return config.get_config("baseline", data)
