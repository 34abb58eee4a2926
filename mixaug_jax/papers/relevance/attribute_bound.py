"""What attributes alone can tell of the class: exactly for the study's sampler, and by boosted trees for any.

A network sees pixels and not attributes; what trees on attributes make of the same pairs is what is left of the difference once
seeing costs nothing.
"""

from collections.abc import Mapping

import numpy as np

from mixaug_jax.core.types import AnyArray, Count, Float, Int
from mixaug_jax.data.animals import animal_samplers
from mixaug_jax.data.animals.animal_pose import ATTRIBUTES
from mixaug_jax.papers.relevance.attribute_relevance import Pairs

MISSING = "trees on attributes are left out: scikit-learn is not installed (pip install mixaug_jax[trees])"
# What trees are given, by name.
GIVEN = {
    "arm_position": ("arm_position",),
    "arm_position and obj_color": ("arm_position", "obj_color"),
    "arm_position, obj_color and spherical": ("arm_position", "obj_color", "spherical"),
    "all attributes": ATTRIBUTES,
}
_TRAINING, _HELD = 10_000, 2000  # draws, as released
_ENDS, _FREE, _LEAST, _STEEP = (0.48, 0.52), 0.15, 0.25, 2.5  # of the study's arms and colors


def exact(cells: Count = 4000) -> dict[str, float]:
    """The best accuracy on the study's sampler that arms alone, and arms with color, allow: integrals of the larger density.

    Shape adds nothing: where the arms overlap it is free. Nothing else knows the class.

    Args:
      cells: of the integrals, in each direction.

    Returns:
      {"arm_position": about 0.9615, "arm_position and obj_color": about 0.9942}.
    """
    arms = (np.arange(cells) + 0.5) / cells
    peaky, stretchy = (arms < _ENDS[1]) / _ENDS[1], (arms > _ENDS[0]) / (1 - _ENDS[0])
    alone = np.maximum(peaky, stretchy).mean() / 2
    color = (np.arange(cells) + 0.5) / cells
    both = 0.0
    for a, p, s in zip(arms, peaky, stretchy, strict=True):
        both += np.maximum(p * _density(color, 0.5 - a), s * _density(1 - color, a - 0.5)).mean()
    return {"arm_position": float(alone), "arm_position and obj_color": float(both / cells / 2)}


def _density(color, beyond):
    """Of the study's colors, of a class whose own end is 0, with arms `beyond` the middle on that class's side."""
    reach = np.clip(_LEAST + _STEEP * beyond, 1e-9, 1)
    return _FREE + (1 - _FREE) * (color < reach) / reach


def boosted(values: Float[AnyArray, "n k"], labels: Int[AnyArray, " n"], seed: Count = 0) -> object:
    """Gradient-boosted trees on attributes: 100 of depth 3, at the rate .05, as released (there by xgboost).

    Args:
      values: of those attributes that they are given.
      labels: 0 or 1.
      seed: of their draws.

    Raises:
      ImportError: scikit-learn is not installed.
    """
    # An extra; and it takes a second.
    from sklearn.ensemble import GradientBoostingClassifier

    trees = GradientBoostingClassifier(
        n_estimators=100, max_depth=3, learning_rate=0.05, random_state=seed
    )
    return trees.fit(np.asarray(values, np.float64), labels)


def told_by_trees(
    sampler: str, ranges: str, pairs: Pairs, seed: Count = 0
) -> tuple[Mapping[str, tuple[float, int]], Pairs]:
    """What boosted trees tell from attributes, on animals that nobody renders; and what they make of pairs.

    Args:
      sampler, ranges: of the animals.
      pairs: whose values they are shown.
      seed: of the draws.

    Returns:
      {what they are given: (accuracy, held animals)}, and the pairs with the logits of trees that are given everything.

    Raises:
      ImportError: scikit-learn is not installed.
    """
    rng = np.random.default_rng((seed, 1))
    draw = animal_samplers.SAMPLERS[sampler]
    values, labels = animal_samplers.draw_many(draw, rng, _TRAINING + _HELD, ranges)
    values = values.astype(np.float32)  # as the pairs have them
    found = {}
    for name, given in GIVEN.items():
        columns = [ATTRIBUTES.index(attribute) for attribute in given]
        trees = boosted(values[:_TRAINING, columns], labels[:_TRAINING], seed)
        right = trees.predict(values[_TRAINING:, columns]) == labels[_TRAINING:]
        found[name] = float(right.mean()), _HELD
    logits = {n: trees.decision_function(v) for n, v in pairs.changed_values.items()}
    return found, pairs._replace(original=trees.decision_function(pairs.values), changed=logits)
