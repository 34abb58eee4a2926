"""Does a bottleneck explain better than other methods? The comparison table of Schulz et al. 2020, on any network."""

from mixaug_jax.papers.bottleneck_table.table_keys import KEYS
from mixaug_jax.papers.bottleneck_table.table_stage import STAGE

__all__ = ["KEYS", "STAGE"]
