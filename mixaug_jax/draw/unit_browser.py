"""The unit browser of a page: every unit of the dissected layers with its top images, filtered and sorted by a script."""

import base64
import dataclasses
import io
import json
import pathlib
import re
import types
import urllib.parse
from collections.abc import Mapping

import markupsafe
import numpy as np
import PIL.Image

from mixaug_jax.core import files
from mixaug_jax.core.types import Count
from mixaug_jax.dissection.removal_result import Intervention
from mixaug_jax.dissection.result import Dissection
from mixaug_jax.draw import page, templates, unit_facts, unit_pictures
from mixaug_jax.draw.unit_facts import short
from mixaug_jax.draw.unit_pictures import COLUMNS, SHEET, UnitPictures

_MOST = 3_500_000  # bytes of all layers on one page; a layer beyond them gets a page of its own


@dataclasses.dataclass(frozen=True)
class Browser:
    """What a page needs of its unit browser.

    Attributes:
      html: the browser, and links to the layers that are beside it.
      beside: {layer: file name} of the layers that have a page of their own.
    """

    html: markupsafe.Markup
    beside: dict[str, str]

    def address(self, layer: str, unit: Count) -> str:
        """Where a unit is opened, for a link."""
        return f"{urllib.parse.quote(self.beside.get(layer, ''))}#{anchor(layer, unit)}"

    def cell(self, row: Mapping[str, page.Cell], column: str) -> page.Cell:
        """A cell of a table with the column "layer": where it names a unit, a link to it."""
        if column not in ("unit", "best_unit"):
            return row[column]
        return page.Link(str(row[column]), self.address(row["layer"], row[column]))


def anchor(layer: str, unit: Count) -> str:
    """The part of an address after the # that opens a unit."""
    return urllib.parse.quote(f"unit-{layer}-{unit}", safe="")


def write(
    folder: pathlib.Path,
    results: Mapping[str, Dissection],
    pictures: Mapping[str, UnitPictures],
    removed: Mapping[str, Intervention] = types.MappingProxyType({}),
    *,
    most: int = _MOST,
) -> Browser:
    """The browser of all layers; those that would make the page too large are written to `folder` as units-<layer>.html.

    Args:
      folder: where the page is written.
      results: dissections by layer, in the network's order.
      pictures: by layer; units of a layer without are listed without images.
      removed: what becomes of the classes without each unit, by layer, of the same weights; without, units do not say.
      most: bytes of the data of all layers on the page.
    """
    data = {
        layer: as_json(result, pictures.get(layer), removed.get(layer))
        for layer, result in results.items()
    }
    # The deepest layer speaks for the run, so it is the first to have a place on the page.
    own, beside, left = {}, {}, most
    for layer in reversed(data):
        if len(data[layer]) <= left:
            own[layer] = data[layer]
            left -= len(data[layer])
        else:
            beside[layer] = f"units-{re.sub(r'[^A-Za-z0-9._-]', '_', layer)}.html"
    for layer, name in beside.items():
        text = _render({layer: data[layer]}, {layer: results[layer]}, {}, layer in removed)
        section = page.section("units", f"Units of {layer}", text)
        files.write_text(folder / name, page.document(f"Units of {layer}", [], [section]))
    own = {layer: own[layer] for layer in results if layer in own}
    beside = {layer: beside[layer] for layer in results if layer in beside}
    return Browser(_render(own, results, beside, any(k in removed for k in own)), beside)


def _render(data, results, beside, important):
    """The HTML of the layers in `data`, with links to those `beside`; `important`: whether units are sorted by it, too."""
    counts = {layer: len(results[layer].threshold) for layer in (*data, *beside)}
    return templates.render(
        "units.html",
        # "<" is written so that nothing in a name can end the script element.
        data={k: markupsafe.Markup(text.replace("<", "\\u003c")) for k, text in data.items()},
        caption=caption(results, sum(counts[layer] for layer in data)),
        important=important,
        categories=list(dict.fromkeys(c for k in data for c in results[k].categories)),
        links=[(layer, urllib.parse.quote(name), counts[layer]) for layer, name in beside.items()],
    )


def caption(results: Mapping[str, Dissection], units: int) -> str:
    """What the pictures show, in plain words."""
    found = next(iter(results.values()))
    top = found.top_images.shape[1]
    return (
        f"{units} units, measured on {len(found.indices)} images. Shown are the {top} images with a unit's largest "
        "activations: the image as the network saw it, and beside it the same, bright where the unit is above its threshold. "
        "The white line is the outline of the concept that the unit matches best. IoU is measured over all images, not over "
        "these alone."
    )


def as_json(
    result: Dissection, pictures: UnitPictures | None = None, removed: Intervention | None = None
) -> str:
    """A layer's units as JSON text: what the script of the page reads."""
    dead = unit_pictures.dead_units(result)
    facts = unit_facts.of_units(result, removed)
    area = result.tally.unit / max(1, result.pixels)
    names = [list(name) for name in result.names]
    shown, units = [], []
    for unit in range(len(dead)):
        one = {
            "unit": unit,
            "threshold": short(result.threshold[unit]),
            "area": short(area[unit]),
            "dead": bool(dead[unit]),
            "images": [],
            **facts[unit],
        }
        if pictures is not None and not dead[unit]:
            places = np.searchsorted(pictures.images, result.top_images[unit]).tolist()
            strength = map(short, result.top_activations[unit])
            inside = pictures.concept[unit].any((1, 2)).tolist()
            one["images"] = [list(row) for row in zip(places, strength, inside, strict=True)]
            one["first"] = len(shown) * len(places)  # number of its first mask
            shown.append(pictures.on[unit] + 2 * pictures.concept[unit].astype(np.uint8))
        units.append(one)
    data = {
        "layer": result.layer,
        "detects": min(result.options.iou),
        "names": names,
        "units": units,
        "columns": COLUMNS,
        "perSheet": SHEET,
        **unit_facts.of_layer(result, removed),
    }
    if pictures is not None:
        data |= {
            "size": list(pictures.size),
            "photos": [
                [int(i), name] for i, name in zip(pictures.images, pictures.names, strict=True)
            ],
            "sheets": [_address("webp", sheet.tobytes()) for sheet in pictures.sheets],
            "masks": _mask_sheets(np.concatenate(shown)) if shown else [],
        }
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)


def _address(kind, content) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _mask_sheets(masks) -> list[str]:
    """PNG sheets of [n,h,w] with 0..3, two bits a pixel: 1 where the unit is on, 2 where the concept is, 3 both."""
    height, width = masks.shape[1:]
    sheets = []
    for start in range(0, len(masks), SHEET):
        part = masks[start : start + SHEET]
        canvas = np.zeros((-(-len(part) // COLUMNS) * height, COLUMNS * width), np.uint8)
        for number, mask in enumerate(part):
            top, left = unit_pictures.place(number, (height, width))
            canvas[top : top + height, left : left + width] = mask
        picture = PIL.Image.fromarray(canvas, "P")
        # Grays that the script tells apart: 0, 85, 170, 255.
        picture.putpalette([gray for gray in (0, 85, 170, 255) for _ in range(3)])
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", bits=2, optimize=True)
        sheets.append(_address("png", buffer.getvalue()))
    return sheets
