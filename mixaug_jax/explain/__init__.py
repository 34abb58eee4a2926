"""Methods and scores on many images: `attribute` and `evaluate`, and how they are asked."""

from mixaug_jax.explain.evaluation import Evaluation, load, save, summarize
from mixaug_jax.explain.job import Options
from mixaug_jax.explain.running import attribute, evaluate

__all__ = ["Evaluation", "Options", "attribute", "evaluate", "load", "save", "summarize"]
