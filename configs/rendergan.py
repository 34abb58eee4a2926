"""RenderGAN (Sixt, Wild and Landgraf, arXiv 1611.01331): augmentations learned from unlabeled pictures, and what they teach.

    python -m mixaug_jax.main --config=configs/rendergan.py
    python -m mixaug_jax.main --config=configs/rendergan.py --config.markers.train=plain|handmade
    python -m mixaug_jax.main --config=configs/rendergan.py --config.markers.train=labeled --config.data.train_split=labeled

The first one trains a generator, and a decoder on its pictures; --config.markers.gan=WORKDIR takes that of another run,
and markers.train=poses|blur|lighting|background leaves what follows that link to hand-made ones. Each way to train needs a
--workdir of its own. The held pictures are rendered once (25,000 of 9 ms, on all cores) and kept.

Expect: wrong bits of 12 on the 2,000 test pictures, seed 0, 800 steps of each training: plain 5.68 (5.60 to 5.75),
handmade 4.43 (4.35 to 4.51), poses 3.31, detail 2.30 (2.22 to 2.37), and with train.steps=3000 of the decoder 1.09 (1.03 to
1.15); intervals are over pictures. Guessing gives 6.

The published size, not run: --config.data.size=64 --config.data.markers.spin=3.1416 --config.model.name=decoder34
--config.markers.filters=64 --config.markers.batch_size=64 --config.markers.steps=35000
"""

from mixaug_jax import config
from mixaug_jax.config import keys
from mixaug_jax.papers import rendergan


def get_config(method="baseline"):
    settings = config.get_config(method, "markers")
    settings.stages = ("gan", "decode", "report")
    settings.data.train_split = "unlabeled"  # what is made comes in its place
    settings.train.steps = 800
    with settings.unlocked():
        settings.markers = keys.defaults("markers", rendergan.KEYS)
    return settings
