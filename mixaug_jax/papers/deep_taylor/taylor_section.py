"""The study's part of a run's page, and which figures there are."""

import pathlib
from collections.abc import Callable, Mapping, Sequence

from mixaug_jax.core.stats import LEVEL
from mixaug_jax.core.types import Config
from mixaug_jax.draw import page
from mixaug_jax.draw.page import Interval, Table
from mixaug_jax.papers.deep_taylor import taylor_figures
from mixaug_jax.papers.deep_taylor.claims import Claim, Parts, Row

NAME, TITLE = "taylor", "What deep Taylor decomposition does"
_MOST = 60  # rows of the long table on the page
_CAPTIONS = {
    "taylor_plane": (
        "Roots on a network of two inputs. Each color is a direction of the gradient, so each patch is a linear "
        "region; arrows lead "
        "from an input to the roots of the active neurons of the first layer, by rule.",
        "colored patches with arrows from a point to its roots, one panel a rule",
    ),
    "taylor_regions": (
        "Roots in the linear region of their input. The share of active neurons' roots there, by rule and layer, mean "
        "over inputs; "
        "tested at 99.9 % of the way to the root. The rule called input is relevance in proportion to w times the input.",
        "bars of shares by rule and layer",
    ),
    "taylor_anything": (
        "Any picture is an explanation. With roots that stay where they are; the target; the explanation in closed "
        "form, by the slope "
        "of one neuron's root; and with mild slopes c |slope|^2, whose size is given in units of the layer's own derivative.",
        "an image, a target picture, and explanations that show it",
    ),
    "taylor_convergence": (
        "Cosine similarity convergence. Random relevances start at a layer and go down; lines are medians of |cosine| at a "
        "position. At 1 nothing is left of where they came from. Vectors with fewer than two channels that are not zero are "
        "left out. On the right, products of random matrices with the widths of VGG's layers.",
        "lines of the median cosine over layers, by way",
    ),
    "taylor_classes": (
        "Maps of two classes. Of one image by every way, channels summed, each divided by its largest absolute value.",
        "maps of the predicted and of another class, and their difference",
    ),
    "taylor_weights": (
        "Similarity to the trained network's map. Layers get random weights one after the other, from the logits down; "
        "means over "
        "images.",
        "lines of similarity over the number of layers with random weights, by way",
    ),
}


def rooted(rules: Sequence[str]) -> tuple[str, ...]:
    """Those of the rules that give each neuron a root of its own: all but zero."""
    return tuple(rule for rule in rules if rule != "zero")


def figures(
    taylor: Config, found: Parts, rows: Sequence[Row], layers: Sequence[str]
) -> dict[str, tuple[Callable, str]]:
    """{name: (what draws it, the part that it is of)} of the figures that the parts allow, in the order of the page."""
    draw, rules = taylor_figures, rooted(taylor.rules)
    every = {
        "taylor_plane": (lambda: draw.plane(rules, taylor.gamma), "testbed" if rules else ""),
        "taylor_regions": (lambda: draw.shares(rows), "region" if "region" in found else "testbed"),
        "taylor_anything": (lambda: draw.anything(found["draw"]), "draw"),
        "taylor_convergence": (lambda: draw.curves(found["csc"], layers), "csc"),
        "taylor_classes": (lambda: draw.two_classes(found["class"]), "class"),
        "taylor_weights": (
            lambda: draw.randomized(found["weights"], draw.levels(found["weights"], layers)),
            "weights",
        ),
    }
    return {name: one for name, one in every.items() if one[1] in found}


def write(
    workdir: pathlib.Path, rows: Sequence[Row], said: Sequence[Claim], drawn: Mapping[str, tuple]
) -> None:
    """Keeps the section for the page of the run; its figures are in the folder of the page."""
    folder = workdir / "report"
    verdicts = Table(
        "taylor_claims",
        "The paper's claims (Sixt and Landgraf 2022), and whether they hold here.",
        ("claim", "what it says", "holds here", "because"),
        [
            # A sentence begins with the claim's letter, which the table has in a column of its own.
            (f"({c.letter})", c.claim, c.holds or "not asked", c.said.partition(": ")[2] or c.said)
            for c in said
        ],
    )
    pictures = [
        page.figure(
            folder,
            name,
            _CAPTIONS[name][0],
            alt=_CAPTIONS[name][1],
            sheet=name in ("taylor_anything", "taylor_classes"),
        )
        for name in drawn
    ]
    cells = [
        (
            r.part,
            r.quantity,
            r.rule,
            r.reading,
            str(r.layer),
            Interval(r.value, r.low, r.high),
            r.inputs,
        )
        for r in rows
    ]
    caption = (
        f"Every number of the study: means of shares and medians of all else over inputs, with {100 * LEVEL:g} % "
        f"bootstrap intervals "
        "over them. Of convergence, the percentiles 5 and 95 stand in their place."
    )
    header = ("part", "quantity", "rule", "reading or start", "layer", "value", "inputs")
    numbers = page.table(folder, Table("taylor_numbers", caption, header, cells), most=_MOST)
    whole = page.folded("Table of all numbers", numbers, long=True)
    page.write_section(workdir, NAME, TITLE, page.table(folder, verdicts), *pictures, whole)
