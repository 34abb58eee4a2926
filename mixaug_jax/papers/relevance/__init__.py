"""Which attribute of an animal does a network use? Interventions of Sixt et al. 2022 on a data set with known biases."""

from mixaug_jax.papers.relevance.relevance_keys import KEYS
from mixaug_jax.papers.relevance.relevance_stage import STAGE

__all__ = ["KEYS", "STAGE"]
