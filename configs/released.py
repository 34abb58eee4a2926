"""The paper's own protocol (Won et al. 2023): unique concepts of five released ResNet-50s, beside the paper's numbers.

    python -m mixaug_jax.main --config=configs/released.py[:folder|imagenet2012] \
        --config.released.dir=CHECKPOINTS --config.data.dir=PHOTOS --config.dissect.segmenter=SEGMENTER

CHECKPOINTS holds baseline.pth.tar, cutout.pth.tar, mixup.pth.tar, cutmix.pth.tar and saliencymix.pth.tar (any ending of weights
will do, and so will folders of these names with one file each); SEGMENTER holds the encoder and the decoder of UPerNet. What is
missing is said with where its authors published it. In their place, files of your own, in any number:
--config.released.files=A.pth,B.safetensors,hf:timm/NAME. PHOTOS holds train/<class>/ and val/<class>/, whose images are scanned
(--config.dissect.split=train takes the others). The table goes to the console, to released.csv and to released.png. A run that
was stopped goes on with the same command.

Expect: not run here on the released files, which could not be had. The paper's numbers are in mixaug_jax/papers/released/; it
does not say which images it scanned.
"""

from mixaug_jax import config
from mixaug_jax.config import keys
from mixaug_jax.papers import released


def get_config(data="folder"):
    settings = config.get_config("baseline", data)
    settings.stages = ("released",)
    settings.model.name = "resnet50"  # the files decide; this is what they are expected to hold
    settings.data.size = 224
    settings.dissect.layers = ("layer4",)  # after its last ReLU
    settings.dissect.max_images = 0  # all
    settings.dissect.random_baseline = False
    with settings.unlocked():
        settings.released = keys.defaults("released", released.KEYS)
    return settings
