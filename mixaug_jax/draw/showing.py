"""Pictures for a notebook or a talk: heat maps over images, and two dissections side by side.

show(photos, {"gradcam": maps}, view=net.preprocess).savefig("overlays.png")
compare({"baseline": a, "cutmix": b}).figure().savefig("concepts.png")
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mixaug_jax.attribution import REDUCTIONS, heatmap
from mixaug_jax.core import checks
from mixaug_jax.core.types import Path, Preprocess, UInt8
from mixaug_jax.data import transforms
from mixaug_jax.dissection import pairs
from mixaug_jax.dissection.pairs import COUNTED, Comparison
from mixaug_jax.dissection.result import PER, Dissection, load
from mixaug_jax.draw import dissection_figures, explanation_figures

Found = Dissection | Path


def show(
    images: Any,
    heats: Any,
    *,
    titles: Sequence[str] = (),
    view: Preprocess | None = None,
    reduce: str = "sum",
) -> Figure:
    """Draws heat maps over their images: an image a row, a method a column, the brighter, the larger.

    Each map is scaled by the 99th percentile of its positive values; what is negative does not show, and a map without a
    positive value is said to be one.

    Args:
      images: uint8 [H,W,3], [H,W,1] or [H,W], or several of them, of any sizes.
      heats: a map [h,w] or an attribution [h,w,C] of the image, or [N,h,w] or [N,h,w,C] of N images; or a dict of these by
        the name to show. A map of another size than its image's is enlarged bilinearly.
      titles: what stands before each row; () for nothing.
      view: `net.preprocess`, where images are whole photographs and maps are of the part that a network sees of them.
      reduce: how the channels of an attribution become one map, see `attribution.heatmap`.

    Raises:
      ValueError: other shapes, other numbers of images and maps or titles, an unknown way to reduce.
    """
    checks.choice("reduce", reduce, REDUCTIONS)
    one = not isinstance(images, list | tuple) and _is_one(images)
    pixels = [_pixels(image, view) for image in ([images] if one else images)]
    named = heats if isinstance(heats, Mapping) else {"heat map": heats}
    maps = {name: _maps(name, heat, one, reduce) for name, heat in named.items()}
    for name, found in maps.items():
        if len(found) != len(pixels):
            raise ValueError(f"{len(pixels)} images and {len(found)} maps of {name}")
    if len(titles) not in (0, len(pixels)):
        raise ValueError(f"titles must be one for each of {len(pixels)} images; got {len(titles)}")
    sizes = [image.shape[:2] for image in pixels]
    fitted = {n: [_resized(m, s) for m, s in zip(v, sizes, strict=True)] for n, v in maps.items()}
    masks = [np.zeros(size, bool) for size in sizes]  # no region is known
    hits = {name: np.full(len(pixels), np.nan) for name in maps}
    return explanation_figures.sheet(pixels, masks, fitted, hits, titles)


def overlay(image: Any, heat: Any, *, reduce: str = "sum") -> UInt8[np.ndarray, "H W 3"]:
    """Draws one heat map over its image: the image in dim gray, what is positive in color over it.

    Args:
      image: uint8 [H,W,3], [H,W,1] or [H,W].
      heat: a map [h,w] or an attribution [h,w,C]; of another size than the image's it is enlarged bilinearly.
      reduce: how the channels of an attribution become one map, see `attribution.heatmap`.

    Raises:
      ValueError: other shapes, a map with NaN or infinite values, an unknown way to reduce.
    """
    checks.choice("reduce", reduce, REDUCTIONS)
    pixels = _pixels(image, None)
    (found,) = _maps("heat", heat, True, reduce)
    found = _resized(found, pixels.shape[:2])
    if not np.isfinite(found).all():
        raise ValueError("heat must be finite; it has NaN or infinite values")
    return explanation_figures.blend(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), found)


def _is_one(images):
    shape = np.shape(images)
    return len(shape) == 2 or (len(shape) == 3 and shape[-1] in (1, 3))


def _pixels(image, view):
    """uint8 [h,w,3 or 1], of the part that `view` leaves of an image."""
    image = np.asarray(image)
    if image.ndim == 2:
        image = image[..., None]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(
            f"images must be uint8 [H,W,3], [H,W,1] or [H,W]; got {image.dtype} {list(image.shape)}"
        )
    return image if view is None else transforms.seen_part({"image": image}, view)["image"]


def _maps(name, heats, one, reduce) -> list[np.ndarray]:
    """[n] maps [h,w] float32 of what was given for one image or for several."""
    if isinstance(heats, list | tuple):
        return [_map(name, heat, reduce) for heat in heats]
    heats = np.asarray(heats)
    if one and heats.ndim == 4 and len(heats) == 1:
        heats = heats[0]
    return [_map(name, heat, reduce) for heat in ([heats] if one else heats)]


def _map(name, heat, reduce):
    heat = np.asarray(heat, np.float32)
    if heat.ndim == 3:
        heat = np.asarray(heatmap(heat, reduce))
    if heat.ndim != 2:
        raise ValueError(f"a map of {name} must be [h,w] or [h,w,C]; got {list(heat.shape)}")
    return heat


def _resized(heat, size):
    """A map [h,w] bilinearly at another size, corners as pixel centers at the borders."""
    if heat.shape == size:
        return heat
    for axis, (old, new) in enumerate(zip(heat.shape, size, strict=True)):
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        high = np.minimum(low + 1, old - 1)
        heat = np.take(heat, low, axis) * (1 - share) + np.take(heat, high, axis) * share
    return heat.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Compared(Comparison):
    """A `Comparison` with what it compares, so that it can be shown.

    Attributes:
      names: see `Comparison`.
      categories: see there.
      iou: see there.
      difference: see there.
      interval: see there.
      results: the dissections, by name.
    """

    results: Mapping[str, Dissection]

    def figure(self, *, per: str = PER[0]) -> Figure:
        """Draws the unique concepts of all by category and IoU threshold, each beside its interval and what chance gives.

        Args:
          per: "unit" (each unit for its one best concept) or "category".
        """
        return dissection_figures.unique_concepts(self.results, per=per)

    def differences(self, *, per: str = PER[0]) -> Figure:
        """Draws the differences to the first with their paired intervals.

        Args:
          per: "unit" (each unit for its one best concept) or "category".
        """
        return dissection_figures.differences(self, per=per)

    def table(self, *, per: str = PER[0]) -> str:
        """Lines of text: unique concepts of all categories together, and the differences to the first with their intervals.

        Args:
          per: "unit" (each unit for its one best concept) or "category".
        """
        checks.choice("per", per, PER)
        p, w = PER.index(per), COUNTED.index("unique")
        first, *others = self.names
        lines = [f"unique concepts{'':9}" + "".join(f"{name:>28}" for name in self.names)]
        for t, threshold in enumerate(self.iou):
            base = int(self.results[first].unique(per)[t].sum())
            line = f"  IoU > {threshold:<16g}{base:>28}"
            for m, name in enumerate(others):
                count = int(self.results[name].unique(per)[t].sum())
                low, high = self.interval[m, p, w, t, -1]
                ends = "" if np.isnan(low) else f" ({low:+.1f} to {high:+.1f})"
                said = f"{count}, {self.difference[m, p, w, t, -1]:+d}{ends}"
                line += f"{said:>28}"
            lines.append(line)
        return "\n".join(lines)


def compare(
    results: Mapping[str, Found] | Found, other: Found | None = None, *, names: Sequence[str] = ()
) -> Compared:
    """Compares dissections of the same images by two networks or more: what is different to the first, with paired intervals.

    The answer has a table (`table()` as text, `to_frame()` for pandas) and figures (`figure()`, `differences()`).

    Args:
      results: dissections, or the paths of their .npz files, by the name to show; or the first of two.
      other: the second of two.
      names: of the two; () is "first" and "second".

    Raises:
      ValueError: fewer than two, or dissections of other images, concepts or options.
    """
    if not isinstance(results, Mapping):
        names = tuple(names) or ("first", "second")
        if other is None or len(names) != 2 or names[0] == names[1]:
            raise ValueError("compare takes two dissections and two names, or a dict of several")
        results = {names[0]: results, names[1]: other}
    loaded = {n: load(r) if isinstance(r, str | os.PathLike) else r for n, r in results.items()}
    found = pairs.compare(loaded)
    fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    return Compared(**fields, results=loaded)
