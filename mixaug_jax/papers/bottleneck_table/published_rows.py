"""The rows of the table: the explanations of Schulz et al. 2020 as their code makes them, and all other methods of the package.

Each is a method with options, and a function from raw attributions to maps. Two things differ from the code on purpose: its
factory gives the gradient under the name of saliency (the row here is the absolute maximum over channels, which exists there,
too), and its relevance propagation gives everything to negative contributions where alpha 1 and beta 0 are meant.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from mixaug_jax.attribution import METHODS, chunks, path, resampling, rules
from mixaug_jax.attribution.bottleneck import Options, fit_bottleneck
from mixaug_jax.attribution.target import input_gradient, replacement
from mixaug_jax.core import checks
from mixaug_jax.core.types import (
    Array,
    Attribution,
    Given,
    Image,
    Images,
    Indices,
    Label,
    Net,
    Seed,
)
from mixaug_jax.papers.bottleneck_table.signal_patterns import pattern_attribution

ALL = "all"  # as a row: every one
CLIP = (0.5, 99.5)  # percentiles
BOTTLENECKS = "bottleneck"
CONTROLS = "control"
BASELINES = "baseline"
OTHERS = "other"


@dataclasses.dataclass(frozen=True)
class Part:
    """A method that a row is made of.

    Attributes:
      method: a name in METHODS or a function like those there.
      options: of it.
      predicted: explains the class that the network predicts, whatever is asked for.
    """

    method: str | Callable
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    predicted: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
      name: of it.
      kind: "control", "baseline", "bottleneck" or "other", which is not in the paper.
      parts: what is computed.
      post: f(raw [N,h,w,C] of each part) -> maps [N,h,w].
      removed: options of the parts that are others where subsets are set to 0: occlusion then removes by 0, too.
    """

    name: str
    kind: str
    parts: tuple[Part, ...]
    post: Callable
    removed: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def path_gradients(
    net: Net, image: Image, label: Label, *, steps: int = 50, chunk: int = 8
) -> Attribution:
    """The mean of gradients on the way from the mean color, [h,w,C]: the paper's code of integrated gradients, which does not
    multiply by the way.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      steps: of a Riemann sum that ends at the image.
      chunk: gradients in memory at once; 0 is all.
    """
    image = checks.image(image)
    start = replacement(image, "mean")
    places, _ = path.nodes("right", steps)

    def f(indices: Indices) -> Images:
        x = start + jnp.float32(places)[indices].reshape(-1, 1, 1, 1) * (image - start)
        return input_gradient(net, x, label)

    return chunks.total(f, steps, chunk) / steps


def scaled_iba(
    net: Net,
    image: Image,
    label: Label,
    *,
    stats: Given = (),
    layer: str = "",
    variant: str = "paper",
    beta: float = 10.0,
    key: Seed = 0,
    chunk: int = 10,
) -> Attribution:
    """The per-sample bottleneck of the paper's code, whose cells are scaled to 0..1 before they are enlarged, [h,w,1].

    Args:
      net, image, label, stats, layer, variant, beta, key, chunk: as `attribution.bottleneck.iba`.
    """
    options = Options(layer, variant, beta, key=key, chunk=chunk)
    capacity, _ = fit_bottleneck(net, checks.image(image), label, stats, options)
    cells = capacity.sum(-1, keepdims=True)
    cells = (cells - cells.min()) / jnp.maximum(cells.max() - cells.min(), 1e-5)
    return resampling.enlarge(cells, image.shape[:2])


@dataclasses.dataclass(frozen=True)
class UnbiasedEpsilon(rules.Epsilon):
    """The epsilon rule without biases, as in the paper's code."""

    def __call__(self, linear: Callable, x: Any, kernel: Any, bias: Any, r: Any) -> Array:
        return super().__call__(linear, x, kernel, jnp.zeros_like(bias), r)


def mean(raw: np.ndarray) -> np.ndarray:
    """Over channels: [N,h,w,C] -> [N,h,w]."""
    return raw.mean(-1)


def total(raw: np.ndarray) -> np.ndarray:
    """Over channels: [N,h,w,C] -> [N,h,w]."""
    return raw.sum(-1)


def largest(raw: np.ndarray) -> np.ndarray:
    """The absolute maximum over channels: [N,h,w,C] -> [N,h,w]."""
    return np.abs(raw).max(-1)


def clipped(maps: np.ndarray) -> np.ndarray:
    """Maps [N,h,w] clipped to percentiles of each and divided by their sum; one that sums to 0 is only clipped."""
    low, high = np.percentile(maps, CLIP, axis=(1, 2), keepdims=True)
    maps = np.clip(maps, low, high)
    whole = maps.sum((1, 2), keepdims=True)
    return maps / np.where(whole == 0, 1, whole)


def of_maximum(raw: np.ndarray) -> np.ndarray:
    """Maps [N,h,w,1] divided by a little more than their maximum."""
    maps = raw[..., 0]
    return maps / (maps.max((1, 2), keepdims=True) + 1e-5)


def to_one(raw: np.ndarray) -> np.ndarray:
    """Maps [N,h,w,1] scaled to 0..1."""
    maps = raw[..., 0]
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return (maps - low) / np.maximum(high - low, 1e-5)


def _one(name, kind, method, post, options=None, *, predicted=False):
    return Row(name, kind, (Part(method, options or {}, predicted),), post)


def published(tiles: Sequence[int], betas: Sequence[float], layer: str = "") -> dict[str, Row]:
    """{name: row} of the paper's table.

    Args:
      tiles: sides of occluded windows.
      betas: of the per-sample bottleneck, which the published table has as beta/k.
      layer: of the per-sample bottleneck; "" is the middle one.
    """
    rows = [_one(name, CONTROLS, name, total) for name in ("random", "center", "sobel")]
    for side in tiles:
        options = {"window": side, "stride": side, "baseline": "mean"}
        row = _one(f"occlusion_{side}", BASELINES, "occlusion", total, options)
        # Subsets are set to 0 for sensitivity-n, which asks a map made by the same removal.
        rows.append(dataclasses.replace(row, removed={"baseline": "zero"}))
    guided, cam = Part("guided_backprop"), Part("gradcam", predicted=True)
    plus = rules.AlphaBeta(1.0, 0.0, use_bias=False)
    rows += [
        _one("gradient", BASELINES, "gradient", lambda raw: clipped(mean(raw))),
        _one("saliency", BASELINES, "gradient", lambda raw: clipped(largest(raw))),
        Row("guided_backprop", BASELINES, (guided,), largest),
        _one("pattern_attribution", BASELINES, pattern_attribution, total),
        _one("lrp_alpha1_beta0", BASELINES, "lrp", total, {"rule": plus}),
        _one("lrp_epsilon5", BASELINES, "lrp", total, {"rule": UnbiasedEpsilon(5.0)}),
        _one("integrated_gradients", BASELINES, path_gradients, mean),
        _one("smoothgrad", BASELINES, "smoothgrad", mean, {"samples": 50, "sigma": 0.15}),
        Row("gradcam", BASELINES, (cam,), of_maximum),
        Row("guided_gradcam", BASELINES, (guided, cam), lambda g, c: largest(g) * of_maximum(c)),
    ]
    # In the order of the published table: controls, baselines, then what the paper brings.
    for beta in betas:
        options = {"beta": float(beta), "layer": layer, "variant": "paper"}
        rows.append(_one(f"iba_{beta:g}", BOTTLENECKS, scaled_iba, total, options))
    rows.append(_one("iba_readout", BOTTLENECKS, "iba_readout", to_one))
    return {row.name: row for row in rows}


def unscaled(row: Row) -> Row:
    """A row with this package's maps: what a method gives, reduced over channels as suits it, and nothing rescaled."""
    ours = {path_gradients: "integrated_gradients", scaled_iba: "iba"}
    parts = tuple(dataclasses.replace(p, method=ours.get(p.method, p.method)) for p in row.parts)
    if row.name == "saliency":
        return row
    if len(parts) > 1:
        return other(row.name, row.kind)
    return dataclasses.replace(row, parts=parts, post=_reduced(parts[0].method))


def other(name: str, kind: str = OTHERS) -> Row:
    """A row of any method in METHODS with its default options, as a run explains by it."""
    return _one(name, kind, name, _reduced(name))


def _reduced(method):
    entry = METHODS.get(method, method) if isinstance(method, str) else method
    if getattr(entry, "signed", True):
        return total
    return lambda raw: np.abs(raw).sum(-1)


def chosen(names: Sequence[str], maps: str, known: Mapping[str, Row]) -> dict[str, Row]:
    """{name: row} of those that are asked for.

    Args:
      names: of `known` or METHODS; () is all of `known`, "all" every method of METHODS besides, those of attention left out.
      maps: "published" or "ours".
      known: of `published`.

    Raises:
      ValueError: an unknown name.
    """
    every = (*known, *(name for name in METHODS if name not in known))
    checks.choices("table.rows", names, (*every, ALL))
    # The table is of networks without attention.
    plain = tuple(n for n in every if not getattr(METHODS.get(n), "attention", False))
    wanted = plain if ALL in names else names or tuple(known)
    rows = {name: known[name] if name in known else other(name) for name in wanted}
    if maps == "ours":
        rows = {name: unscaled(row) for name, row in rows.items()}
    return rows


# Of the paper's table, from memory: (degradation 8 x 8, degradation 14 x 14, boxes). Nobody has checked them against the paper.
RECALLED = {
    "resnet50": {
        "random": (0.000, 0.000, 0.167), "occlusion_8": (0.162, 0.130, 0.296),
        "occlusion_14": (0.228, 0.231, 0.341), "gradient": (0.002, 0.005, 0.259),
        "saliency": (0.287, 0.305, 0.363), "guided_backprop": (0.491, 0.515, 0.388),
        "integrated_gradients": (0.401, 0.424, 0.372), "smoothgrad": (0.485, 0.502, 0.439),
        "gradcam": (0.536, 0.541, 0.465), "guided_gradcam": (0.565, 0.577, 0.468),
        "iba_1": (0.573, 0.573, 0.606), "iba_10": (0.572, 0.571, 0.620),
        "iba_100": (0.534, 0.535, 0.593), "iba_readout": (0.536, 0.536, 0.484),
    },
    "vgg16": {
        "random": (0.000, 0.000, 0.167), "occlusion_8": (0.267, 0.258, 0.312),
        "occlusion_14": (0.402, 0.404, 0.358), "gradient": (0.001, 0.005, 0.276),
        "saliency": (0.326, 0.362, 0.393), "guided_backprop": (0.460, 0.493, 0.373),
        "pattern_attribution": (0.440, 0.457, 0.404), "lrp_alpha1_beta0": (0.471, 0.486, 0.397),
        "lrp_epsilon5": (0.462, 0.467, 0.441), "integrated_gradients": (0.420, 0.453, 0.396),
        "smoothgrad": (0.438, 0.455, 0.399), "gradcam": (0.510, 0.517, 0.399),
        "guided_gradcam": (0.555, 0.576, 0.419), "iba_1": (0.581, 0.583, 0.566),
        "iba_10": (0.582, 0.588, 0.574), "iba_100": (0.542, 0.545, 0.568),
        "iba_readout": (0.490, 0.536, 0.437),
    },
}  # fmt: skip
