"""TokenMix (Liu et al., arXiv 2207.08409): rectangles of tokens come from another image, labels by scores of tokens.

    python -m mixaug_jax.main --config=configs/tokenmix.py[:scenes|cifar10|cifar100|imagenet2012|folder|speech]

`--config.mix.net=FILE` is a teacher, as published; `--config.mix.scores=attention` is for a vision transformer without one.

Expect: scenes: test accuracy 0.983 (seed 0, its own network in place of a teacher). Not run on other sets at full length.
"""

from mixaug_jax import config


def get_config(data="scenes"):
    return config.get_config("tokenmix", data)
