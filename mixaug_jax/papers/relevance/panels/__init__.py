"""Explanations by pictures, and readers of them: does a panel tell which attributes a network goes by? (Sixt et al. 2022.)

Each entry is `f(net, pictures, key, *, options) -> Panel`; a new one is one function and one line.
"""

from mixaug_jax.papers.relevance.panels.concept_rows import concepts
from mixaug_jax.papers.relevance.panels.logit_grid import attribution, grid
from mixaug_jax.papers.relevance.panels.nearest_scenes import oracle
from mixaug_jax.papers.relevance.panels.panel import Panel, Pictures

PANELS = {
    "grid": grid,
    "oracle": oracle,
    "concepts": concepts,
    "attribution": attribution,
}

__all__ = ["PANELS", "Panel", "Pictures"]
