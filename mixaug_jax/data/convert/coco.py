"""COCO's JSON of objects (cocodataset.org, "Data format"): boxes, outlines and runs of pixels, categories and supercategories.

A mask has two numbers a pixel: the category (category "object", or "stuff" where the file says that it is no thing), and the
supercategory (category "supercategory"). Smaller objects lie over larger ones. Crowds are in the mask and have no box.
"""

import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from mixaug_jax.data.convert.outlines import fill_polygon, fill_runs
from mixaug_jax.data.convert.placing import Converted, largest, pictures_in, shape_of

_SLOT = 250  # concepts that two numbers a pixel have room for


def read_coco(path: pathlib.Path, pictures: pathlib.Path) -> Iterator[Converted]:
    """What the file says of each picture; a picture's class is the category that covers most of it.

    Args:
      path: instances_*.json, or another file of this form.
      pictures: the folder of the pictures, which are found by their names.

    Raises:
      ValueError: a file of another form, pictures that are missing; while iterating, an annotation that is wrong, by its id.
    """
    content = _content(path)
    categories = {c["id"]: c for c in content["categories"]}
    names, numbers = _names(categories)
    there, held = pictures_in(pictures), {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        where = f"{path}: annotation {annotation.get('id')}"
        if annotation.get("image_id") not in held:
            raise ValueError(
                f"{where} is of image {annotation.get('image_id')}, which is not there"
            )
        if annotation.get("category_id") not in categories:
            raise ValueError(
                f"{where} has the category {annotation.get('category_id')}, which is not there"
            )
        held[annotation["image_id"]].append(annotation)
    # By the name without its ending: pictures are often converted after they were annotated.
    for image in content["images"]:
        picture = there.get(pathlib.PurePosixPath(str(image["file_name"])).stem)
        if picture is None:
            raise ValueError(f"{path} has {image['file_name']}, which is not in {pictures}")
        found = [(a, categories[a["category_id"]]) for a in held[image["id"]]]
        try:
            yield _converted(picture, image, found, names, numbers)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise ValueError(f"{path}: image {image['id']}: {error}") from error


def _content(path):
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    # All that is used later is asked for here, so that a fault is said of the file and not of a line of ours.
    needed = {
        "images": ("id", "file_name", "height", "width"),
        "annotations": ("image_id", "category_id"),
        "categories": ("id", "name"),
    }
    for key, fields in needed.items():
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError(f"{path} is no JSON of COCO's form: {key} must be a list of objects")
        missing = [field for row in rows for field in fields if field not in row]
        if missing:
            raise ValueError(
                f"{path} is no JSON of COCO's form: one of its {key} has no {missing[0]}"
            )
        ids = [row[field] for row in rows for field in fields if field.endswith("id")]
        wrong = [
            given for given in ids if isinstance(given, bool) or not isinstance(given, int | str)
        ]
        if wrong:
            raise ValueError(
                f"{path}: {key} have the id {wrong[0]!r}, which must be a number or a text"
            )
        # Annotations refer to pictures and categories by number, and nothing refers to an annotation.
        if key != "annotations" and len(set(ids)) < len(ids):
            raise ValueError(f"{path}: two of its {key} have the same id")
    return content


def _names(categories) -> tuple[tuple, dict[Any, list[int]]]:
    """The concepts, entry 0 being none, and the numbers of each category: its own, and that of what it belongs to."""
    kinds = [
        (str(c["name"]), "object" if c.get("isthing", 1) else "stuff") for c in categories.values()
    ]
    above = [str(c.get("supercategory") or "") for c in categories.values()]
    names = list(dict.fromkeys((("none", "none"), *kinds)))
    groups = [(group, "supercategory") for group in dict.fromkeys(above) if group]
    if len(names) + len(groups) > _SLOT:
        groups = []
    names += groups
    numbers = {}
    for number, kind, group in zip(categories, kinds, above, strict=True):
        over = [names.index((group, "supercategory")) if group else 0] if groups else []
        numbers[number] = [names.index(kind), *over]
    return tuple(names), numbers


def _converted(picture, image, found, names, numbers):
    height, width = shape_of(picture)
    if [image["height"], image["width"]] != [height, width]:
        said = f"{image['height']} rows and {image['width']} columns"
        raise ValueError(f"it has {said}, and {picture} {height} and {width}")
    boxes, areas, layers = [], {}, []
    for annotation, category in found:
        name = str(category["name"])
        pixels = _pixels(annotation.get("segmentation"), height, width)
        area = 0.0
        if "bbox" in annotation:
            box = _box(annotation["bbox"], height, width)
            area = (box[2] - box[0]) * (box[3] - box[1])
            # A crowd's box holds many objects and what is between them, so it is the box of none.
            if not annotation.get("iscrowd"):
                boxes.append((name, *box))
        if pixels is not None:
            area = float(pixels.sum())
            layers.append((area, numbers[category["id"]], pixels))
        areas[name] = areas.get(name, 0.0) + area
    mask = None
    if layers:
        mask = np.zeros((height, width, len(layers[0][1])), np.int64)
        # The largest first, so that what lies in front of it stays seen.
        for _, own, pixels in sorted(layers, key=lambda layer: -layer[0]):
            mask[pixels] = own
    return Converted(picture, largest(areas), tuple(boxes), mask, names if layers else ())


def _box(box, height, width):
    """x, y, width, height as row0, col0, row1, col1, cut to the picture."""
    if not isinstance(box, list) or len(box) != 4 or not all(math.isfinite(x) for x in box):
        raise ValueError(f"a box must be x, y, width, height; got {str(box)[:60]}")
    x, y, across, down = map(float, box)
    cut = max(y, 0.0), max(x, 0.0), min(y + down, float(height)), min(x + across, float(width))
    if across <= 0 or down <= 0 or cut[0] >= cut[2] or cut[1] >= cut[3]:
        raise ValueError(
            f"the box {box} is empty or lies outside of {height} rows and {width} columns"
        )
    return cut


def _pixels(segmentation, height, width):
    """bool [H,W], or None where there is no mask."""
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        if segmentation.get("size") != [height, width]:
            raise ValueError(
                f"run lengths are of {segmentation.get('size')}, the image {[height, width]}"
            )
        return fill_runs(segmentation["counts"], height, width)
    if not isinstance(segmentation, list):
        raise ValueError(
            f"a segmentation must be polygons or run lengths; got {str(segmentation)[:60]}"
        )
    # Parts of one object, as where something stands before it.
    polygons = [fill_polygon(polygon, height, width) for polygon in segmentation]
    return np.any(polygons, axis=0)
