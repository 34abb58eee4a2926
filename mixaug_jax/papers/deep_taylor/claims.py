"""What the study says: one table of numbers with intervals, and of each of the paper's claims whether it holds here.

A claim is judged by the parts of the study that are there; where none of them speaks of it, nothing is said.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from mixaug_jax.core import stats
from mixaug_jax.core.types import Float
from mixaug_jax.papers.deep_taylor import convergence

REPLICATES = 200
DIFFERENT = 0.25  # of maps between 0 and 1: above it a pixel differs
CLIP = (0.5, 99.5)  # percentiles of a set of maps
SHARES = ("in_region", "same_gradient", "segment", "not_negative", "without_root", "distance",
          "output_left")  # fmt: skip
Parts = Mapping[str, Mapping[str, np.ndarray]]  # {part of the study: {name: array}}


class Row(NamedTuple):
    """One number of the table.

    Attributes:
      part, quantity: of which part, and what it is.
      rule: or the way that relevance goes back; "" for none.
      reading: what a root removes, "activation" or "relevance"; of convergence the layer that it starts at; "" elsewhere.
      layer: a layer's name, or its number in the test bed; "" for the whole network.
      value: a mean of shares over inputs, else a median.
      low, high: its 95 % bootstrap interval over inputs; of convergence the percentiles 5 and 95 of the cosines themselves.
      inputs: how many count; 0 of products of matrices, which have none.
    """

    part: str
    quantity: str
    rule: str
    reading: str
    layer: str | int
    value: float
    low: float
    high: float
    inputs: int


class Claim(NamedTuple):
    """One of the paper's claims.

    Attributes:
      letter: a to g.
      claim: what the paper says.
      holds: "yes", "no" or "" where nothing here speaks of it.
      said: the sentence with the numbers.
    """

    letter: str
    claim: str
    holds: str
    said: str


def cosine(a: Float[np.ndarray, "N n"], b: Float[np.ndarray, "N n"]) -> Float[np.ndarray, " N"]:
    """Of the rows of two arrays; NaN where one is zero."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.where(lengths > 0, (a * b).sum(1) / np.where(lengths > 0, lengths, 1), np.nan)


def differing(maps: Float[np.ndarray, "N 2 h w"]) -> Float[np.ndarray, " N"]:
    """The share of pixels in which the maps of two classes differ.

    As published: absolute values, clipped at `CLIP` of the set and scaled to 0..1; the mean difference is taken away first.
    """
    maps = np.abs(maps)
    low, high = np.percentile(maps, CLIP)
    scaled = (np.clip(maps, low, high) - low) / max(high - low, 1e-30)
    change = scaled[:, 0] - scaled[:, 1]
    return (np.abs(change - change.mean((1, 2), keepdims=True)) > DIFFERENT).mean((1, 2))


def table(found: Parts) -> list[Row]:
    """Every number of the study."""
    rows = []
    for part, make in _ROWS.items():
        if part in found:
            rows += make(found[part])
    return rows


def _row(values, part, quantity, *, rule="", layer="", f: Callable = np.median) -> Row:
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return Row(part, quantity, rule, "", layer, np.nan, np.nan, np.nan, 0)
    draws = np.random.default_rng(0).integers(0, len(values), (REPLICATES, len(values)))
    low, high = stats.percentiles(f(values[draws], axis=1))
    value = float(f(values))
    ends = min(low, value), max(high, value)
    return Row(part, quantity, rule, "", layer, value, *map(float, ends), len(values))


def _bed_rows(bed) -> Iterator[Row]:
    for rule in _names(bed, "roots/"):
        for reading in ("activation", "relevance"):
            for name in SHARES:
                values = bed[f"roots/{rule}/{reading}/{name}"]
                for k, column in enumerate(values.T):
                    row = _row(column, "testbed", name, rule=rule, layer=k + 1, f=np.mean)
                    yield row._replace(reading=reading)
    output = bed["output"][:, 0]
    # The gradient beside the rules shows what a map that depends on the output looks like.
    for rule in (*_names(bed, "roots/"), "gradient"):
        own, other = bed[f"maps/{rule}"], bed[f"maps/{rule}/other"]
        near = cosine(own, bed["maps/gradient"])
        yield _row(near, "testbed", "cosine with gradient x input", rule=rule)
        yield _row(
            np.abs(cosine(own, other)), "testbed", "|cosine| of two outputs' maps", rule=rule
        )
    for rule in _names(bed, "full/"):
        for kind in ("published", "exact"):
            kept = bed[f"full/{rule}/{kind}"].sum(1) / output
            yield _row(kept, "testbed", f"share kept, full backward, {kind}", rule=rule)
        left = bed[f"recursive/{rule}/left"]
        yield _row(left, "testbed", "output left by recursive roots", rule=rule)
    yield _row(bed["sampled/kept"], "testbed", "share kept, sampled roots")
    # Sampling is slow, so there are fewer of these maps than inputs.
    few = len(bed["sampled/map"])
    near = cosine(bed["sampled/map"], bed["maps/gradient"][:few])
    yield _row(near, "testbed", "cosine with gradient x input, sampled roots")
    for name in ("widths", "lowest"):
        for k, column in enumerate(bed[f"regions/{name}"].T):
            yield _row(column, "testbed", f"region, {name}", layer=k + 1)
    for name in ("error", "slope", "apart"):
        yield _row(bed[f"drawing/{name}"], "testbed", f"drawing, {name}")


def _names(arrays, start):
    """The rules that a part has arrays of, in their order."""
    return dict.fromkeys(name.split("/")[1] for name in arrays if name.startswith(start))


def _draw_rows(drawn) -> Iterator[Row]:
    for target in dict.fromkeys(name.split("/")[0] for name in drawn):
        for name in ("error", "slope", "distance"):
            yield _row(drawn[f"{target}/{name}"], "draw", f"drawing, {name}", rule=target)
        for name in ("error", "slope", "admissible"):
            for k, column in enumerate(drawn[f"{target}/mild/{name}"].T):
                yield _row(column, "draw", f"mild drawing {k + 1}, {name}", rule=target)


def _region_rows(region) -> Iterator[Row]:
    rules = [str(rule) for rule in region["rules"]]
    for name, values in region.items():
        layer, _, quantity = name.rpartition("/")
        if quantity in ("same_pattern", "same_gradient", "inside", "distance"):
            for rule, one in zip(rules, np.moveaxis(values, 1, 0), strict=True):
                # The mean over an image's units; an image without any does not count.
                known = np.isfinite(one)
                means = np.where(known, one, 0).sum(1) / np.maximum(known.sum(1), 1)
                means = np.where(known.any(1), means, np.nan)
                yield _row(means, "region", quantity, rule=rule, layer=layer, f=np.mean)


def _csc_rows(csc) -> Iterator[Row]:
    places = [convergence.PERCENTILES.index(p) for p in (50, 5, 95)]
    for name, count in csc.items():
        kind, _, of = name.partition("/")
        if kind == "images":
            values = map(float, csc[of][places])
            yield Row("csc", "|cosine|", *of.split("/"), *values, int(count))
    for signs in convergence.SIGNS:
        for k, value in enumerate(csc[f"products/{signs}"]):
            yield Row(
                "csc", "|cosine|, matrix products", signs, "", k, float(value), np.nan, np.nan, 0
            )


def _class_rows(pairs) -> Iterator[Row]:
    for k, way in enumerate(map(str, pairs["ways"])):
        yield _row(pairs["all/cosine"][:, k], "class", "|cosine| of two classes' maps", rule=way)
        yield _row(pairs["all/ssim"][:, k], "class", "ssim of two classes' maps", rule=way)
        share = differing(pairs["all/maps"][:, k])
        yield _row(share, "class", "pixels that differ", rule=way, f=np.mean)


def _weight_rows(weights) -> Iterator[Row]:
    for name, values in weights.items():
        way, _, measure = name.partition("/")
        for k, column in enumerate(values.T):
            yield _row(column, "weights", measure, rule=way, layer=k + 1, f=np.mean)


_ROWS = {
    "testbed": _bed_rows,
    "draw": _draw_rows,
    "region": _region_rows,
    "csc": _csc_rows,
    "class": _class_rows,
    "weights": _weight_rows,
}


def judged(found: Parts) -> list[Claim]:
    """Claims (a) to (g) of the paper, each with whether it holds here."""
    rows = table(found)
    return [make(found, rows) for make in (_a, _b, _c, _d, _e, _f, _g)]


def _claim(letter, claim, holds, said) -> Claim:
    if not said:
        return Claim(letter, claim, "", "Nothing here speaks of it.")
    verdict = "Holds here" if holds else "Does not hold here"
    return Claim(letter, claim, "yes" if holds else "no", f"{verdict}: {'; '.join(said)}.")


def _pick(rows, **where) -> list[Row]:
    return [r for r in rows if all(getattr(r, name) == value for name, value in where.items())]


def _there(rows) -> list[float]:
    """The values of rows, those left out of which no input has one."""
    return [row.value for row in rows if np.isfinite(row.value)]


def _by_rule(rows) -> dict[str, float]:
    """{rule: value} of rows, those left out of which no input has one."""
    return {row.rule: row.value for row in rows if np.isfinite(row.value)}


def _span(values) -> str:
    low, high = min(values), max(values)
    return f"{low:.2g}" if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}"


def _a(found, rows):
    bed, said, holds = found.get("testbed"), [], True
    if bed:
        names = [name for name in bed if name.endswith("/exceptions")]
        wrong = sum(int(bed[name].sum()) for name in names)
        holds = wrong == 0
        said = [f"{wrong} roots with the input's ReLUs have another gradient, or another one on the way "
                f"({len(bed['output'])} inputs, {len(names)} kinds of roots)"]  # fmt: skip
    claim = "only roots in the input's linear region have its gradient, through all layers above"
    return _claim("a", claim, holds, said)


def _b(found, rows):
    bed, said, worst = found.get("testbed"), [], 0.0
    if bed:
        worst = float(np.max(bed["constant/error"]))
        said = [
            f"the recursion with one constant root a layer differs from it by at most {worst:.1g} of its largest value"
        ]
    claim = "with locally constant roots the recursion collapses to gradient x (input - root)"
    return _claim("b", claim, worst < 1e-5, said)


def _c(found, rows):
    said, holds = [], True
    if "testbed" in found:
        bed = found["testbed"]
        worst, same = float(np.max(bed["drawing/error"])), float(bed["drawing/same"].mean())
        # Both: a picture drawn with roots outside of the region would prove nothing.
        holds = worst < 1e-4 and same == 1
        said.append(f"a ramp is an explanation of the test bed to {worst:.1g} of its largest value, with {same:.0%} of "
                    f"the roots in "
                    "the region")  # fmt: skip
    for target in dict.fromkeys(name.split("/")[0] for name in found.get("draw", ())):
        # Where the region is narrower than float32 tells, the only root in it is the image, and nothing can be drawn.
        drawn = {name: found["draw"][f"{target}/{name}"] for name in ("error", "same", "distance")}
        wide = drawn["distance"] > 0
        if not wide.any():
            continue
        worst, same = float(np.max(drawn["error"][wide])), float(drawn["same"][wide].mean())
        holds = holds and worst < 1e-3 and same == 1
        what = "a letter" if target == "letter" else "another class's map"
        said.append(
            f"{what} is one of the network to {worst:.1g}, with {same:.0%} of the roots in the region "
            f"({wide.sum()} of {len(wide)} images have roots other than themselves in it)"
        )
    return _claim("c", "with roots that depend on the input, any map can be justified", holds, said)


def _d(found, rows):
    bed, changes = found.get("testbed", {}), []
    for rule in _names(bed, "full/"):
        published, exact = (bed[f"full/{rule}/{kind}"] for kind in ("published", "exact"))
        size = np.linalg.norm(exact, axis=1)
        change = np.linalg.norm(published - exact, axis=1)
        if (size > 0).any():
            changes.append((rule, float(np.median(change[size > 0] / size[size > 0]))))
    said = [
        f"leaving them out changes full backward maps by (median) {', '.join(f'{c:.1%} for {r}' for r, c in changes)}"
    ]
    claim = "derivatives of the roots' slopes belong to the recursion, and the published code drops them"
    return _claim("d", claim, any(change > 0.01 for _, change in changes), said if changes else [])


def _e(found, rows):
    bed, errors, said = found.get("testbed", {}), {}, []
    for rule in _names(bed, "full/"):
        lost = np.nan_to_num(bed[f"roots/{rule}/relevance/without_root"]).any(1)
        total, output = bed[f"maps/{rule}"].sum(1), bed["output"][:, 0]
        errors[rule] = float(np.max(np.abs(total / output - 1)[~lost], initial=0))
    kept = _there(_pick(rows, quantity="share kept, full backward, published"))
    if errors and kept:
        said = [f"the rules hand on all of the output (to {max(errors.values()):.1g}) wherever their roots lie, while a "
                f"recursion "
                f"that expands at these very roots keeps {_span(kept)} of it"]  # fmt: skip
    claim = "the rules in use take relevance for a constant and never look at a root"
    return _claim("e", claim, max(errors.values(), default=1) < 1e-5, said)


def _f(found, rows):
    said, inside = [], []
    for reading in ("activation", "relevance"):
        # A layer in which no active neuron has a root says nothing.
        hidden = _there(r for r in _pick(rows, part="testbed", quantity="in_region", reading=reading)
                        if r.rule != "zero" and r.layer != _deepest(rows))  # fmt: skip
        if hidden:
            inside += hidden
            said.append(f"{_span(hidden)} of the roots for the neuron's {reading} lie in the region, in the hidden "
                        "layers of the test bed")  # fmt: skip
    network = _there(_pick(rows, part="region", quantity="same_pattern"))
    if network:
        inside += network
        said.append(f"{_span(network)} in the layers of the network")
    return _claim(
        "f", "the roots of the rules leave the region", bool(inside) and min(inside) < 0.5, said
    )


def _deepest(rows):
    return max((r.layer for r in _pick(rows, part="testbed", quantity="in_region")), default=0)


def _g(found, rows):
    said, holds = [], []
    for part, name in (
        ("testbed", "|cosine| of two outputs' maps"),
        ("class", "|cosine| of two classes' maps"),
    ):
        of = _by_rule(_pick(rows, part=part, quantity=name))
        if "z_plus" in of and "gradient" in of:
            where = "the test bed" if part == "testbed" else "the network"
            said.append(f"two classes' maps of {where} have the median |cosine| {of['z_plus']:.3f} by z_plus and "
                        f"{of['gradient']:.3f} by "
                        "the gradient")  # fmt: skip
            # Large by itself, and larger than of a map that is known to depend on the output.
            holds.append(of["z_plus"] > 0.9 and of["z_plus"] > of["gradient"])
    weights = _by_rule(_pick(rows, part="weights", quantity="spearman", layer=1))
    if "z_plus" in weights and "gradient" in weights:
        said.append(f"with random logits' weights the rank correlation with the map before is {weights['z_plus']:.2f} "
                    f"by z_plus and "
                    f"{weights['gradient']:.2f} by the gradient")  # fmt: skip
        holds.append(weights["z_plus"] > weights["gradient"])
    return _claim(
        "g", "maps of the rules hardly depend on the class or on the upper layers", all(holds), said
    )
