"""A network that reads the attributes of an animal off any picture, and how well it does.

The released code's network predicts the angle itself; here yaw is a sine and a cosine.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mixaug_jax.core.types import Count, Dataset, Float, Label, Net
from mixaug_jax.data.animals.animal_pose import ATTRIBUTES, CIRCULAR, LIMITS
from mixaug_jax.papers.relevance import forward_passes

LEAST_R2 = 0.5  # an attribute that is read worse is left out
_STRAIGHT = tuple(name for name in ATTRIBUTES if name not in CIRCULAR)
OUTPUTS = 1 + len(_STRAIGHT) + 2 * len(CIRCULAR)  # the class, the attributes, sines and cosines


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """A trained reader.

    Attributes:
      net: with `OUTPUTS` logits, see `decoded`.
      error: {attribute: mean absolute error on held scenes}, of angles the shorter way round.
      r2: {attribute: share of the variance on held scenes that it explains}, of angles by 1 - cos.
      accuracy: of the class, on held scenes.
    """

    net: Net
    error: Mapping[str, float]
    r2: Mapping[str, float]
    accuracy: float

    @property
    def kept(self) -> tuple[str, ...]:
        """The attributes that it reads well enough."""
        return tuple(name for name in ATTRIBUTES if self.r2[name] >= LEAST_R2)

    @property
    def left_out(self) -> str:
        """One sentence about the other attributes; "" where there are none."""
        low = [f"{n} (R2 {self.r2[n]:.2f})" for n in ATTRIBUTES if n not in self.kept]
        return f"read too badly, and left out: {', '.join(low)}" if low else ""

    def read(
        self, source: Dataset, threads: Count = 4
    ) -> tuple[Float[np.ndarray, "N a"], Float[np.ndarray, " N"]]:
        """Attributes [N,10], in the order of `ATTRIBUTES`, and the logit [N] of the second class, of all examples.

        Args:
          source: examples with image, best a `data.Source`; a list of dicts will do.
          threads: that read.
        """
        return decoded(forward_passes.logits(self.net, source, "reading", threads=threads))


def encoded(values: Float[np.ndarray, " a"], label: Label) -> Float[np.ndarray, " outputs"]:
    """What the network is to give for an animal, float32: its class 0 or 1, attributes in -1..1, sine and cosine of yaw."""
    known = dict(zip(ATTRIBUTES, np.asarray(values, np.float64), strict=True))
    scaled = [2 * (known[n] - LIMITS[n][0]) / np.ptp(LIMITS[n]) - 1 for n in _STRAIGHT]
    turns = [f(known[n]) for n in CIRCULAR for f in (np.sin, np.cos)]
    return np.array([label, *scaled, *turns], np.float32)


def decoded(
    outputs: Float[np.ndarray, "N outputs"],
) -> tuple[Float[np.ndarray, "N a"], Float[np.ndarray, " N"]]:
    """The attributes [N,10] that outputs stand for, and the logit [N] of the second class."""
    found = {}
    for k, name in enumerate(_STRAIGHT, 1):
        low, high = LIMITS[name]
        found[name] = low + (outputs[:, k] + 1) / 2 * (high - low)
    for k, name in enumerate(CIRCULAR):
        at = 1 + len(_STRAIGHT) + 2 * k
        found[name] = np.arctan2(outputs[:, at], outputs[:, at + 1])
    return np.stack([found[name] for name in ATTRIBUTES], 1), outputs[:, 0]


def judged(net: Net, source: Dataset, threads: Count = 4) -> Evaluator:
    """A network with what it is worth on held scenes.

    Args:
      net: with `OUTPUTS` logits.
      source: examples with image, attributes and label.
      threads: that read.
    """
    values, logit = decoded(forward_passes.logits(net, source, "held scenes", threads=threads))
    true = np.stack([source[i]["attributes"] for i in range(len(source))])
    labels = np.array([source[i]["label"] for i in range(len(source))])
    error, r2 = {}, {}
    for k, name in enumerate(ATTRIBUTES):
        off, around = values[:, k] - true[:, k], true[:, k] - true[:, k].mean()
        # An angle that is off by a whole turn is right, and its mean is that of directions.
        if name in CIRCULAR:
            middle = np.angle(np.exp(1j * true[:, k]).mean())
            off, around = np.angle(np.exp(1j * off)), true[:, k] - middle
            squared, spread = 1 - np.cos(off), 1 - np.cos(around)
        else:
            squared, spread = off**2, around**2
        error[name] = float(np.abs(off).mean())
        r2[name] = float(1 - squared.mean() / max(float(spread.mean()), 1e-12))
    return Evaluator(net, error, r2, float(((logit > 0) == (labels == 1)).mean()))
