"""The published finding on the networks it was made with (Won et al. 2023): unique concepts of released ResNet-50s."""

from mixaug_jax.papers.released.table import KEYS, STAGE

__all__ = ["KEYS", "STAGE"]
