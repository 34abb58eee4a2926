"""RenderGAN (Sixt, Wild and Landgraf, arXiv 1611.01331): decoders of markers, and what they are trained on.

    python -m mixaug_jax.main --config=configs/rendergan.py --config.markers.train=plain|handmade
    python -m mixaug_jax.main --config=configs/rendergan.py --config.markers.train=labeled --config.data.train_split=labeled

The held pictures are rendered once (about 4 minutes on 2 cores) and kept. Each way to train needs a --workdir of its own.
"""

from mixaug_jax import config
from mixaug_jax.config import keys
from mixaug_jax.papers import rendergan


def get_config(data="markers"):
    settings = config.get_config("baseline", data)
    settings.stages = ("gan", "decode", "report")
    settings.data.train_split = "unlabeled"  # what is made comes in its place
    settings.train.steps = 800
    with settings.unlocked():
        settings.markers = keys.defaults("markers", rendergan.KEYS)
    return settings
