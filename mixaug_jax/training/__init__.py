"""Training: `step.py` has the pure per-device steps, `loop.py` the loop from a config to a checkpoint."""

from mixaug_jax.models.build import build_model, build_preprocess
from mixaug_jax.training.loop import Interrupted, check, train
from mixaug_jax.training.step import (
    EvalMetrics,
    State,
    build_optimizer,
    eval_step,
    init_state,
    learning_rate,
    state_shapes,
    train_step,
)
from mixaug_jax.training.writers import TensorBoard, Writer

__all__ = [
    "EvalMetrics",
    "Interrupted",
    "State",
    "TensorBoard",
    "Writer",
    "build_model",
    "build_optimizer",
    "build_preprocess",
    "check",
    "eval_step",
    "init_state",
    "learning_rate",
    "state_shapes",
    "train",
    "train_step",
]
