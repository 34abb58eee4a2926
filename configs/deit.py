"""DeiT's recipe (Touvron et al., arXiv 2012.12877): AdamW, mixup or CutMix by a coin, smoothed labels, stochastic depth.

    python -m mixaug_jax.main --config=configs/deit.py[:scenes|cifar10|cifar100|imagenet2012|folder]

The network is DeiT-S where images have 128 pixels or more, and vit_micro for smaller ones. Of the recipe RandAugment, random
erasing and repeated augmentation are not in here. The rate is 5e-4 for 512 images a step, in proportion to the batch, but five
times that on small images, whose trainings are shorter.

Expect: not run at full length on any set.
"""

from mixaug_jax import config


def get_config(data="scenes"):
    settings = config.get_config("switch", data)
    large = settings.data.size >= 128
    settings.model.name = "deit_small" if large else "vit_micro"
    settings.model.width, settings.model.stem, settings.model.drop_path = 1.0, "imagenet", 0.1
    rate = 5e-4 * settings.data.batch_size / 512
    settings.train.update(optimizer="adamw", lr=rate if large else 5 * rate, weight_decay=0.05)
    settings.train.update(schedule="cosine", label_smoothing=0.1)
    settings.train.warmup = 5 / 300 if large else 0.1
    if large:
        settings.train.epochs = 300
    settings.train.momentum = 0.9  # decay of AdamW's first moment
    # The last one of whose map something reaches the logits.
    settings.dissect.layers = ("block10",) if large else ("block4",)
    return settings
