"""Which attribute does a network use (Sixt et al. 2022, arXiv 2204.11642)? Trained on animals whose color is a shortcut.

    python -m mixaug_jax.main --config=configs/relevance.py
    python -m mixaug_jax.main --config=configs/relevance.py --config.data.animals.sampler=unbiased --workdir=runs/unbiased

The first command renders the study's animals, trains a network on them, explains it, draws each attribute of 1,000 test scenes
again, trains an evaluator that reads attributes off any picture, once for all runs, and has a simulated reader look at panels
of the network (docs/panels.md). The second one is its control: there the arms alone tell the class. Every augmentation takes
the same animals (configs/METHOD.py:animals, whose --stage=all measures the relevance, too), so a study compares them:

    python -m mixaug_jax.study --configs=configs/baseline.py:animals,configs/cutmix.py:animals --seeds=0,1,2

Expect: test accuracy 0.967 (seed 0); relevant are arm_position, 41 points of flips beside those by the background's color, and
obj_color, 6 points; accuracy on unbiased animals 0.918. Of the second command with 5 epochs: 0.929, and arm_position alone.
"""

from mixaug_jax import config
from mixaug_jax.config import keys
from mixaug_jax.papers import relevance
from mixaug_jax.papers.relevance import panels


def get_config(data="animals"):
    settings = config.get_config("baseline", data)
    settings.stages = ("train", "explain", "relevance", "panels", "report")
    with settings.unlocked():
        settings.relevance = keys.defaults("relevance", relevance.KEYS)
        settings.panels = keys.defaults("panels", panels.KEYS)
    settings.relevance.evaluator = True
    return settings
