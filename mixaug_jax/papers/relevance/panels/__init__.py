"""Explanations by pictures, and readers of them: does a panel tell which attributes a network goes by? (Sixt et al. 2022.)

Each entry of `PANELS` is `f(net, pictures, key, *, options) -> Panel`; a new one is one function and one line.
"""

from mixaug_jax.papers.relevance.panels.kinds import PANELS
from mixaug_jax.papers.relevance.panels.panel import Panel, Pictures
from mixaug_jax.papers.relevance.panels.panel_keys import KEYS
from mixaug_jax.papers.relevance.panels.panel_stage import STAGE

__all__ = ["KEYS", "PANELS", "STAGE", "Panel", "Pictures"]
