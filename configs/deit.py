"""DeiT's recipe (Touvron et al., arXiv 2012.12877): AdamW, mixup or CutMix by a coin, smoothed labels, stochastic depth.

    python -m mixaug_jax.main --config=configs/deit.py[:scenes|cifar10|cifar100|imagenet2012|folder]
    python -m mixaug_jax.main --config=configs/deit.py:scenes,cutmix    # another method in the coin's place

The network is DeiT-S where images have 128 pixels or more, and vit_micro for smaller ones. Of the recipe RandAugment, random
erasing and repeated augmentation are not in here. The rate is 5e-4 for 512 images a step, in proportion to the batch, but 32
times that on small images, which have no stochastic depth either. Of the scenes there are 20,000, five times as many as for a
ResNet.

Expect: on the scenes, seed 0, test accuracy .977 without mixing (:scenes,baseline), .959 under CutMix, .964 with its
mix.label=attention; the coin itself and other sets: not run. 262 images a second on 2 cores, so 25 minutes.
"""

from mixaug_jax import config


def get_config(data="scenes"):
    data, _, method = data.partition(",")
    settings = config.get_config(method or "switch", data)
    large = settings.data.size >= 128
    settings.model.name = "deit_small" if large else "vit_micro"
    settings.model.update(width=1.0, stem="imagenet", drop_path=0.1 if large else 0.0)
    rate = 5e-4 * settings.data.batch_size / 512
    settings.train.update(optimizer="adamw", lr=rate if large else 32 * rate, weight_decay=0.05)
    settings.train.update(schedule="cosine", label_smoothing=0.1)
    settings.train.warmup = 5 / 300 if large else 0.1
    # A transformer has no convolutions to begin with, and learns slowly.
    settings.train.epochs = 300 if large else max(settings.train.epochs, 20)
    if data == "scenes":
        settings.data.scenes.train = 20_000
    settings.train.momentum = 0.9  # decay of AdamW's first moment
    # The last one of whose map something reaches the logits.
    settings.dissect.layers = ("block10",) if large else ("block4",)
    settings.intervene.layers = settings.dissect.layers
    return settings
