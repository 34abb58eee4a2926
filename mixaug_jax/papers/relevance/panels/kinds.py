"""The kinds of panels by name."""

from mixaug_jax.papers.relevance.panels.concept_rows import concepts
from mixaug_jax.papers.relevance.panels.flow_routes import counterfactual, flow_classifier
from mixaug_jax.papers.relevance.panels.logit_grid import attribution, grid
from mixaug_jax.papers.relevance.panels.nearest_scenes import oracle

PANELS = {
    "grid": grid,
    "oracle": oracle,
    "concepts": concepts,
    "attribution": attribution,
    # Made by a flow, which takes long to train.
    "counterfactual": counterfactual,
    "flow_classifier": flow_classifier,
}
