"""What a score says about itself beyond its signature."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from mixaug_jax.core import checks, entries

KINDS = ("alignment", "faithfulness", "stability", "complexity")
_OF_A_MAP = ("heatmap", "attribution", "mask", "net", "image", "label")
_OF_A_METHOD = ("explain", "net", "image", "label")
_KEPT = 256  # records of plain functions


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A value that a score gives beside itself, of the same images.

    Attributes:
      f: f(values [N], examples) -> [N], NaN where an image does not count; `examples` has `masks` bool [N,h,w] and `difficult`
        bool [N].
      better: 1 where larger is better, -1 where smaller is, 0 where neither.
      title: in words.
      headline: whether a study's sentence judges it.
      view: whether it is another view of the score, which short tables leave out.
      scale: as that of a `Score`.
    """

    f: Callable
    better: int = 0
    title: str = ""
    headline: bool = False
    view: bool = True
    scale: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Score:
    """A score of an explanation, which is called like its function.

    The arguments by position tell what it is given: `heatmap` [h,w], or `attribution` [h,w,C] with its channels; `explain`,
    a function f(net, image, label); `mask` bool [h,w]; and the network, the image and the label.

    Attributes:
      f: for one example; gives a scalar, or a curve [T+1] whose area is the value.
      kind: one of `KINDS`; "" is what the arguments tell.
      better: 1 where larger is better, -1 where smaller is, 0 where neither; or a function of the options.
      title: in words; "" is the name.
      headline: whether a study's sentence judges it.
      scale: the least and the largest value that there can be, which no interval leaves; () says nothing. Of scores with an
        option `output` it holds for "prob".
      hits: whether values are 1 where the map's largest value lies right and 0 where it does not, which figures mark.
      measure: what a run computes of each example where that is more than the value; it takes what `f` takes.
      value: f(measured [N,...], options) -> [N], the value of each example from what was measured; None: scalars as they are,
        the area under curves.
      positions: of a curve's points: f(options, count) -> [count] rising; None: at equal distances from 0 to 1.
      axis: of a curve: what its positions are.
      also: {name: `Part`}, values that it gives beside itself.
      ties: whether it takes the largest values of a map first, tiles of the option `window` pixels where it has one, and equal
        ones in an arbitrary order, on which the curve then depends.
      summaries: {name: `Part`}, single numbers of many examples. Here a part's f(result), of the `scores`, `curves`, `pairs`
        and `labels` of all examples, gives those that count, bool [N], and a function of indices among them,
        g(places) -> float; or None where it has nothing to go by.
    """

    f: Callable
    kind: str = ""
    better: int | Callable[[Mapping], int] = 0
    title: str = ""
    headline: bool = False
    scale: tuple[float, ...] = ()
    hits: bool = False
    measure: Callable | None = None
    value: Callable | None = None
    positions: Callable | None = None
    axis: str = ""
    also: Mapping[str, Part] = dataclasses.field(default_factory=dict)
    ties: bool = False
    summaries: Mapping[str, Part] = dataclasses.field(default_factory=dict)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.f(*arguments, **options)

    @property
    def __name__(self) -> str:
        return self.f.__name__

    @property
    def __wrapped__(self) -> Callable:
        return self.f


@functools.lru_cache(_KEPT)
def as_score(entry: Callable) -> Score:
    """The record of an entry; of a plain function, one that says what its signature does.

    A function's record is kept, so that what was compiled for it serves the next call.
    """
    return entry if isinstance(entry, Score) else Score(entry)


def kind_of(score: Score) -> str:
    """The kind of a score: what its record says, or what its arguments tell.

    Raises:
      ValueError: a kind that is none of `KINDS`, or arguments of no known form.
    """
    given = entries.arguments(score)
    known = _OF_A_METHOD if given[:1] == ("explain",) else _OF_A_MAP
    # What a score looks at tells its kind, where it does not say so itself.
    if score.kind:
        kind = score.kind
    elif given[:1] == ("explain",):
        kind = "stability"
    elif "mask" in given:
        kind = "alignment"
    else:
        kind = "faithfulness" if "net" in given else "complexity"
    if given[:1] not in (("heatmap",), ("attribution",), ("explain",)) or not set(given) <= {
        *known
    }:
        raise ValueError(
            f"the score {score.__name__}({', '.join(given)}) has no known form: its first argument must be heatmap, "
            "attribution or explain, and the others of mask, net, image and label"
        )
    checks.choice(f"the kind of the score {score.__name__}", kind, KINDS)
    return kind


def facts(name: str, score: Score, options: Mapping[str, Any]) -> dict[str, dict]:
    """What tables, figures and studies need to know of a score with these options and of its parts, as JSON can hold it."""
    better = score.better(options) if callable(score.better) else score.better
    kind = kind_of(score)
    own = {
        "kind": kind,
        "better": better,
        "title": entries.title_of(score),
        "headline": score.headline,
    }
    bounded = options.get("output", "prob") == "prob"
    scale = list(score.scale) if bounded else []
    drawn = {
        "hits": score.hits,
        "axis": score.axis,
        "output": options.get("output", ""),
        "positions": [],
    }
    if score.positions is not None:
        drawn["positions"] = list(score.positions(options, 0))
    # A part that is no mere view of the score stands for it in short tables.
    replaced = any(not record.view for record in score.also.values())
    found = {name: own | drawn | {"view": replaced, "scale": scale}}
    for part, record in {**score.also, **score.summaries}.items():
        said = {"better": record.better, "title": record.title or part.replace("_", " ")}
        said |= {"headline": record.headline, "view": record.view}
        found[part] = own | said | {"scale": list(record.scale) if bounded else []}
    return found
