"""Concepts that a network is found to have: directions of its activations, shown by the images that have most of them.

Sixt et al. 2022 (arXiv 2204.11642) found them by PCA or by matrix factorization; so does Zhang et al. 2021 (arXiv 2006.15417).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.attribution.target import cam_layer
from mixaug_jax.core import checks
from mixaug_jax.core.types import Activations, Array, Count, Float, Net, RandomKey
from mixaug_jax.papers.relevance.panels import seen
from mixaug_jax.papers.relevance.panels.panel import Panel, PerImage, Pictures

FACTORIZATIONS = ("pca", "nmf")
STEPS = 200  # of Lee and Seung's updates
SHOWN = 0.1  # share of the positions of a concept's images that are not masked
GRAY = 128
_TINY = 1e-9


class Concepts(NamedTuple):
    """Directions of activations, and how a linear head on them repeats the network.

    Attributes:
      components: float32 [K,U].
      scores: float32 [N,h,w,K], how much of each concept there is at a position.
      weights: float32 [K], what a standard deviation of the mean score adds to the logit.
      agreement: the share of images for which the head's class is the network's.
      explained: the share of the activations' variance (of their squares for "nmf") that the components hold.
    """

    components: np.ndarray
    scores: np.ndarray
    weights: np.ndarray
    agreement: float
    explained: float


def find_concepts(
    activations: Activations,
    logits: PerImage,
    key: RandomKey,
    *,
    factorization: str = "pca",
    count: Count = 8,
) -> Concepts:
    """Factorizes activations at all positions, and fits the logit to the concepts' mean scores by least squares.

    Args:
      activations: [N,h,w,U] of a layer; not negative for "nmf".
      logits: [N] of the same images.
      key: of the first factors of "nmf".
      factorization: "pca", by the eigenvectors of the covariance, each with the sign that makes its largest mean score
        positive; or "nmf", non-negative, 200 multiplicative updates (Lee and Seung, Nature 401, 1999).
      count: of concepts, at most as many as units.

    Raises:
      ValueError: another factorization, too many concepts, negative activations for "nmf".
    """
    checks.choice("factorization", factorization, FACTORIZATIONS)
    images, height, width, units = activations.shape
    checks.count("count", count, 1, units)
    flat = np.asarray(activations, np.float64).reshape(-1, units)
    if factorization == "nmf":
        if flat.min() < 0:
            raise ValueError(
                "concepts by nmf need a layer without negative activations, as after a ReLU; use pca"
            )
        scores, components = _nmf(jnp.asarray(flat, jnp.float32), key, count)
        scores, components = np.asarray(scores, np.float64), np.asarray(components, np.float64)
        left, total = np.square(flat - scores @ components).sum(), np.square(flat).sum()
    else:
        centered = flat - flat.mean(0)
        values, vectors = np.linalg.eigh(centered.T @ centered)
        components = vectors[:, ::-1][:, :count].T
        scores = centered @ components.T
        # Eigenvalues rise, so the last ones are kept and the others are what is lost.
        left, total = values[:-count].sum(), values.sum()
    scores = scores.reshape(images, height, width, count)
    pooled = scores.mean((1, 2))
    if factorization == "pca":
        # The sign of a principal component is arbitrary: its largest score is made positive, as in nmf.
        signs = np.where(pooled.max(0) >= -pooled.min(0), 1, -1)
        scores, pooled, components = scores * signs, pooled * signs, components * signs[:, None]
    weights, agreement = _head(pooled, np.asarray(logits, np.float64))
    kinds = components.astype(np.float32), scores.astype(np.float32), weights.astype(np.float32)
    return Concepts(*kinds, agreement, 1 - float(left / max(total, _TINY)))


def _head(pooled, logits):
    spread = pooled.std(0)
    design = (pooled - pooled.mean(0)) / np.where(spread > _TINY, spread, 1)
    design = np.concatenate([design, np.ones((len(design), 1))], 1)
    solved = np.linalg.lstsq(design, logits, rcond=None)[0]
    return solved[:-1], float(((design @ solved > 0) == (logits > 0)).mean())


@functools.partial(jax.jit, static_argnums=2)
def _nmf(x: Float[Array, "n U"], key: RandomKey, count: int):
    """Factors [n,K] and [K,U] without negative values, whose product comes near x in the squares."""
    first, second = jax.random.split(key)
    size = jnp.sqrt(x.mean() / count)
    scores = size * jax.random.uniform(first, (len(x), count), minval=0.5, maxval=1.5)
    components = size * jax.random.uniform(second, (count, x.shape[1]), minval=0.5, maxval=1.5)

    def update(_, factors: tuple):
        w, h = factors
        h = h * (w.T @ x) / (w.T @ w @ h + _TINY)
        return w * (x @ h.T) / (w @ (h @ h.T) + _TINY), h

    return jax.lax.fori_loop(0, STEPS, update, (scores, components))


def concepts(
    net: Net,
    pictures: Pictures,
    key: RandomKey,
    *,
    factorization: str = "pca",
    count: Count = 8,
    layer: str = "",
    rows: Count = 10,
    max_images: Count = 500,
) -> Panel:
    """Shows each concept by the images with most of it, masked to the positions where it is.

    Rows are concepts in the order of their weight's size. Pixels are gray but for the tenth of each image's positions with the
    largest scores.

    Args:
      net: the network.
      pictures: to draw from.
      key: of the factorization "nmf".
      factorization, count: as of `find_concepts`.
      layer: whose activations; "": that of class activation maps.
      rows: of images a concept, which are the panel's columns.
      max_images: that are looked at, the first ones.

    Raises:
      ValueError: as of `find_concepts`, or another layer.
    """
    checks.count("rows", rows)
    layer = cam_layer(net, net.preprocess(pictures.images[0]), layer)
    images = pictures.images[:max_images]
    logits = pictures.logits[:max_images]
    found = find_concepts(
        seen.activations(net, images, layer), logits, key, factorization=factorization, count=count
    )
    order = np.argsort(-np.abs(found.weights), kind="stable")
    columns = min(rows, len(images))
    chosen = np.argsort(-found.scores.mean((1, 2))[:, order], 0, kind="stable")[:columns].T
    scores = np.moveaxis(found.scores, 3, 0)[order[:, None], chosen]  # [K,columns,h,w]
    shown = _masked(images[chosen], scores)
    names = tuple(
        f"speaks for {pictures.classes[int(found.weights[k] > 0)]} ({abs(found.weights[k]):.2f})"
        for k in order
    )
    known = pictures.attributes.shape[1]
    return Panel(
        "signs",
        shown,
        logits[chosen],
        tuple(f"image {c + 1}" for c in range(columns)),
        _caption(pictures.classes),
        rows=names,
        signs=found.weights[order],
        attributes=pictures.attributes[:max_images][chosen] if known else (),
        note=f"A linear head on the concepts repeats {100 * found.agreement:.0f} % of the network's decisions; they hold "
        f"{100 * found.explained:.0f} % of the variance of its activations.",
    )


def _masked(images, scores):
    """Images [K,C,S,S,3], gray but where a concept's scores [K,C,h,w] are among its largest `SHOWN`."""
    side = images.shape[2]
    large = np.asarray(jax.image.resize(scores, (*scores.shape[:2], side, side), "linear"))
    border = np.quantile(large, 1 - SHOWN, axis=(2, 3), keepdims=True)
    return np.where((large >= border)[..., None], images, GRAY).astype(np.uint8)


def _caption(classes):
    return (
        "Each row is one thing that the network has learned to see, with the parts of images that show most of it; the rest is "
        f"gray. A row speaks for {classes[0]} or for {classes[1]}, the first rows most."
    )
