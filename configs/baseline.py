"""No mixing: what every augmentation is compared with."""

from mixaug_jax import config


def get_config(data="scenes"):
    return config.get_config("baseline", data)
