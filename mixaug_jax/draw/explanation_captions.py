"""What the figures of explanations show, in words: captions, and texts for those who cannot see them."""

from collections.abc import Mapping, Sequence
from typing import Any

from mixaug_jax.core.stats import LEVEL


def overlays_caption(entries: Mapping[str, dict]) -> str:
    """What the overlays show, and how many maps of each method are empty.

    entries: {method: what its results say of it}, of entries.json.
    """
    text = (
        "Explanations on images. Before each row: the class that is explained, the predicted class with its probability, and "
        "the image. The brighter, the larger the positive attribution. White: the outline of the region to point at; the "
        "largest value is marked by a circle where it hits, by a cross where it misses."
    )
    counts = [
        f"{name.replace('_', ' ')} {entry['empty']} of {entry['images']}"
        for name, entry in entries.items()
        if entry.get("empty")
    ]
    return (
        f"{text} Maps that are zero everywhere or not finite: {', '.join(counts)}."
        if counts
        else text
    )


def overlays_alt(entries: Mapping[str, dict]) -> str:
    """The same for those who cannot see it."""
    names = ", ".join(name.replace("_", " ") for name in entries)
    return f"rows of images with their classes; beside each image its heat map by {names}"


def faithfulness_caption(entries: Mapping[str, dict]) -> str:
    """What `faithfulness` shows; `entries` as of `overlays_caption`."""
    first = next(iter(entries.values()), {})
    titles = [facts["title"] for facts in first.get("scores", {}).values() if facts.get("axis")]
    images = f" over {first['images']} images" if "images" in first else ""
    return (
        f"Faithfulness. Mean output of the explained class{images} while pixels are removed, or added, in the order of each "
        f"explanation ({', '.join(titles)}). Bands: {100 * LEVEL:g} % intervals by bootstrap over images, of the methods; "
        "gray: controls. The numbers are the areas below the curves."
    )


def faithfulness_alt(entries: Mapping[str, dict], scores: Sequence[Mapping[str, Any]]) -> str:
    """The same for those who cannot see it: the largest and the smallest area of each kind of curve.

    Args:
      entries: as of `overlays_caption`.
      scores: rows of scores.csv.
    """
    first, said = next(iter(entries.values()), {}), []
    for name, facts in first.get("scores", {}).items():
        rows = [row for row in scores if row["score"] == name and row["mean"] == row["mean"]]
        if facts.get("axis") and rows:
            low, high = (pick(rows, key=lambda row: row["mean"]) for pick in (min, max))
            ends = [f"{row['method'].replace('_', ' ')} {row['mean']:.3f}" for row in (low, high)]
            said.append(f"{facts['title']}: areas from {' to '.join(ends)}")
    return f"line charts; {'; '.join(said)}" if said else "line charts"
