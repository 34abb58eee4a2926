"""RenderGAN (Sixt, Wild and Landgraf, arXiv 1611.01331): augmentations learned from unlabeled pictures, and what they teach.

    python -m mixaug_jax.main --config=configs/rendergan.py
    python -m mixaug_jax.main --config=configs/rendergan.py --config.markers.train=plain|handmade|labeled
    python -m mixaug_jax.main --config=configs/rendergan.py:cutmix --config.mix.label=visible    # any mixer, on the decoder
    python -m mixaug_jax.main --config=configs/rendergan.py:published                            # the published size; not run

The first one trains a generator, and a decoder on its pictures; --config.markers.gan=WORKDIR takes that of another run,
markers.train=poses|blur|lighting|background leaves what follows that link to hand-made ones, and markers.train=detail+labeled
mixes batches with labeled pictures. Each way to train needs a --workdir of its own. markers.generator=maps takes the published
networks in place of the small ones. The held pictures are rendered once (25,000 of 9 ms, on all cores) and kept.
docs/rendergan.md says more.

Expect: wrong bits of 12 on the 2,000 test pictures, 800 steps of each training, mean and 95 % t-interval over seeds 0 to 2:
plain 5.60 (5.42 to 5.78), handmade 4.02 (3.13 to 4.92), poses 3.56, blur 3.47, lighting 2.40, labeled 2.38, background 2.37,
detail 2.33 (1.98 to 2.67), detail+labeled 2.26; with train.steps=3000 of the decoder detail has 1.06 (.86 to 1.27). Guessing
gives 6.
"""

import math

from mixaug_jax import config
from mixaug_jax.config import keys
from mixaug_jax.papers import rendergan


def get_config(how="baseline"):
    """`how`: a mixer for the decoder's training; or "published", the published size, without one."""
    settings = config.get_config("baseline" if how == "published" else how, "markers")
    settings.stages = ("gan", "decode", "report")
    settings.data.train_split = "unlabeled"  # what is made comes in its place
    settings.train.steps = 800
    with settings.unlocked():
        settings.markers = keys.defaults("markers", rendergan.KEYS)
    if how == "published":
        settings.data.update(size=64, batch_size=128)
        settings.data.markers.spin = math.pi
        settings.markers.update(generator="maps", filters=64, batch_size=64, steps=35_000)
        settings.model.name = "decoder34"
        settings.train.update(steps=80_000, lr=0.01, warmup=0.0)
        settings.train.update(schedule="step", boundaries=(0.5,), decay=0.1)
    return settings
