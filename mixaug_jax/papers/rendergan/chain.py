"""The chain of augmentations that keep the label (RenderGAN, Sixt, Wild and Landgraf 2018, arXiv 1611.01331, section 3.3).

    pictures, penalties = through(CHAIN, tags, parameters)

Each link is f(x, parameters, tags) -> (x, penalty): pictures x [B,S,S], where -1 is black and 1 white; a dict of what a
generator sets; and what the renderer knows of the pictures. What the bits say is kept by what a link cannot do, not by what it
learns not to. Lengths are those of the published code at 64 pixels, in proportion to S; where code and paper differ, this is
the code.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from mixaug_jax.core.types import AnyArray, Array, Float, Scalar
from mixaug_jax.data.markers.tag_renderer import Tags
from mixaug_jax.data.markers.tags import SIDE

PENALTY = 15.0  # on what leaves its bounds
_BLUR, _LIGHT, _EDGE, _DETAIL = 2.0, 2.5, 0.66, 3.5  # widths of Gaussians
Pictures = Float[AnyArray, "B S S"]


@functools.lru_cache(maxsize=100)
def _weights(size: int, width: float) -> np.ndarray:
    """[size,size]: row i averages around i by a Gaussian; the border's pixels go on beyond it."""
    reach = int(np.ceil(3 * width))
    offsets = np.arange(-reach, reach + 1)
    each = np.exp(-(offsets**2) / (2 * width**2))
    at = np.clip(np.arange(size)[:, None] + offsets, 0, size - 1)
    found = np.zeros((size, size))
    np.add.at(found, (np.arange(size)[:, None], at), each / each.sum())
    return found.astype(np.float32)


def smooth(x: Pictures, width: Scalar) -> Pictures:
    """x [B,S,S] by a Gaussian of `width` pixels at 64 pixels; 0: as it is."""
    width = float(width) * x.shape[-1] / SIDE
    if not width:
        return x
    weights = jnp.asarray(_weights(x.shape[-1], width))
    return jnp.einsum("ir,brc,jc->bij", weights, x, weights, precision="highest")


def bounded(x: Float[Array, "..."], low: Scalar, high: Scalar) -> tuple[Float[Array, "..."], Float[Array, ""]]:  # fmt: skip
    """x cut to low..high, and a penalty on what was beyond, whose gradient leads back; it keeps links from saturating."""
    beyond = jnp.where(x > high, x - high, jnp.where(x < low, low - x, 0))
    return jnp.clip(x, low, high), PENALTY * beyond.mean()


def blur(x: Pictures, parameters: Mapping, tags: Tags) -> tuple[Pictures, Float[Array, ""]]:
    """Takes away a share of what is finer than a Gaussian: every picture is the same for all its pixels.

    Args:
      x: [B,S,S].
      parameters: {"share": [B] in 0..1}; 0 leaves the picture as it is (the code has a quarter at least).
      tags: not used.
    """
    share, penalty = bounded(parameters["share"], 0, 1)
    coarse = smooth(x, _BLUR)
    return coarse + (1 - share)[:, None, None] * (x - coarse), penalty


def lighting(x: Pictures, parameters: Mapping, tags: Tags) -> tuple[Pictures, Float[Array, ""]]:
    """Scales what is white and what is black, and shifts both, by maps too smooth to draw bits.

    Args:
      x: [B,S,S].
      parameters: {"black", "white": [B,S,S] in 0..2, "shift": [B,S,S] in -1..1}; 1, 1, 0 leave the picture as it is.
      tags: not used.
    """
    maps, penalty = {}, 0.0
    for name, low, high in (("black", 0, 2), ("white", 0, 2), ("shift", -1, 1)):
        maps[name], beyond = bounded(parameters[name], low, high)
        maps[name] = smooth(maps[name], _LIGHT)
        penalty += beyond
    white, black = (0.9 * maps[name] + 0.1 for name in ("white", "black"))
    lit = x * jnp.where(x >= 0, white, black) + 0.9 * maps["shift"]
    lit, beyond = bounded(lit, -1, 1)
    return lit, penalty + beyond


def background(x: Pictures, parameters: Mapping, tags: Tags) -> tuple[Pictures, Float[Array, ""]]:
    """Replaces what the marker does not cover.

    Args:
      x: [B,S,S].
      parameters: {"ground": [B,S,S] in -1..1}.
      tags: with `cover`; the code has a threshold of the picture in its place.
    """
    ground, penalty = bounded(parameters["ground"], -1, 1)
    # Blurred outwards only: a pixel that is covered all over stays as it is.
    beside = smooth(1 - tags.cover, _EDGE) * (tags.cover < 1)
    return x * (1 - beside) + ground * beside, penalty


def detail(x: Pictures, parameters: Mapping, tags: Tags) -> tuple[Pictures, Float[Array, ""]]:
    """Adds what is finer than the bits: of a map only its high frequencies.

    Args:
      x: [B,S,S].
      parameters: {"fine": [B,S,S] in -2..2}; 0 leaves the picture as it is.
      tags: not used.
    """
    fine, penalty = bounded(parameters["fine"], -2, 2)
    for _ in range(3):
        fine = fine - smooth(fine, _DETAIL)
    added, beyond = bounded(x + fine, -2, 2)
    return added, penalty + beyond


Link = Callable[[Array, Mapping, Tags], tuple[Array, Array]]
CHAIN: dict[str, Link] = {
    "blur": blur,
    "lighting": lighting,
    "background": background,
    "detail": detail,
}


def identity(tags: Tags) -> dict[str, dict]:
    """The parameters of each link that leave rendered pictures as they are."""
    flat = jnp.zeros_like(tags.tag)
    return {
        "blur": {"share": jnp.zeros(len(flat))},
        "lighting": {"black": flat + 1, "white": flat + 1, "shift": flat},
        "background": {"ground": tags.tag},
        "detail": {"fine": flat},
    }


def through(
    links: Mapping[str, Link], tags: Tags, parameters: Mapping, kept: Any = None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The pictures [B,S,S] after each link, by its name, in order, and the penalties.

    Args:
      links: of `CHAIN`, or others like them.
      tags: where the chain begins.
      parameters: of each link, or a function of the pictures so far that gives them.
      kept: [links] bool, those that are not left out; None: all are kept.
    """
    x, pictures, penalties = tags.tag, {}, {}
    for k, (name, link) in enumerate(links.items()):
        given = parameters[name]
        changed, penalties[name] = link(x, given(x) if callable(given) else given, tags)
        x = changed if kept is None else jnp.where(kept[k], changed, x)
        pictures[name] = x
    return pictures, penalties


def as_bytes(x: Float[AnyArray, "B h w"]) -> Array:
    """Pictures [B,h,w] in -1..1 as uint8 [B,h,w,1], as photographs are; what is beyond is cut."""
    return jnp.round(127.5 * (jnp.clip(x, -1, 1) + 1)).astype(jnp.uint8)[..., None]


def as_numbers(images: AnyArray) -> Array:
    """uint8 [B,S,S,1] as pictures [B,S,S] in -1..1."""
    return jnp.asarray(images)[..., 0].astype(jnp.float32) / 127.5 - 1
