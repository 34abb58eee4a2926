"""The study's figures: numbers in, pictures out."""

import itertools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mixaug_jax.core.types import Float
from mixaug_jax.draw import style
from mixaug_jax.papers.deep_taylor import convergence, drawing, recursion, relu_stack
from mixaug_jax.papers.deep_taylor import roots as roots_lib
from mixaug_jax.papers.deep_taylor.claims import Row

PLANE_WIDTH, PLANE_SEED, PLANE_SCALE = 30, 2, 1.2  # of the network on a plane, as published
PLANE_POINT, PLANE_SIDE, PLANE_CELLS = (1.6, 1.3), 3.0, 240
READINGS = {
    "activation": "roots for the neuron's activation",
    "relevance": "roots for its relevance",
}
NARROW = 2.1  # inches of a small picture


def _colors(names: Sequence[str]) -> dict[str, str]:
    return {name: style.PALETTE[k % len(style.PALETTE)] for k, name in enumerate(names)}


def plane(rules: Sequence[str], gamma: float) -> Figure:
    """Roots on a network of two inputs: linear regions by their gradient, and arrows to the roots of first-layer neurons.

    Args:
      rules: any but zero, at least one.
      gamma: of that rule.
    """
    draw, sizes, stack = np.random.default_rng(PLANE_SEED), (2, PLANE_WIDTH, PLANE_WIDTH, 2), []
    for a, b in itertools.pairwise(sizes):
        limit = PLANE_SCALE * a**-0.5
        stack.append(
            relu_stack.Layer(draw.uniform(-limit, limit, (a, b)), draw.uniform(-limit, limit, b))
        )
    stack = recursion.explained(relu_stack.scaled(tuple(stack)), 0)
    ticks = np.linspace(0, PLANE_SIDE, PLANE_CELLS)
    grid = jnp.asarray(np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 2))
    slope = jax.jit(jax.vmap(jax.grad(lambda x: relu_stack.forward(stack, x)[0])))(grid)
    size = np.linalg.norm(slope, axis=1)
    # One color for each linear region: hue by the direction of its gradient, light by the size.
    hue = (np.arctan2(*np.asarray(slope).T) / (2 * np.pi)) % 1
    pixels = matplotlib.colors.hsv_to_rgb(
        np.stack([hue, np.full_like(hue, 0.35), 0.75 + 0.25 * size / max(size.max(), 1e-9)], -1)
    ).reshape(PLANE_CELLS, PLANE_CELLS, 3)
    figure = Figure((NARROW * len(rules) + 0.6, NARROW + 0.7), layout="constrained")
    x = jnp.asarray(PLANE_POINT)
    for panel, rule in zip(figure.subplots(1, len(rules), squeeze=False)[0], rules, strict=True):
        points, has, active = map(np.asarray, roots_lib.own_roots(rule, x, stack[0], gamma))
        panel.imshow(
            pixels, origin="lower", extent=(0, PLANE_SIDE, 0, PLANE_SIDE), interpolation="nearest"
        )
        # A neuron that is off is not explained, and one with no root has no arrow.
        for point in points[has & active]:
            panel.annotate(
                "",
                point,
                PLANE_POINT,
                arrowprops={"arrowstyle": "->", "lw": 0.8},
                annotation_clip=False,
            )
        panel.plot(*PLANE_POINT, "o", color="white", markeredgecolor="black")
        panel.set(xlim=(0, PLANE_SIDE), ylim=(0, PLANE_SIDE), title=rule, xlabel="input 1")
    figure.axes[0].set_ylabel("input 2")
    return figure


def shares(rows: Sequence[Row]) -> Figure:
    """The share of roots in the region by rule and layer: the test bed by both readings, and the network."""
    panels = [(title, [r for r in rows if (r.part, r.quantity, r.reading) == ("testbed", "in_region", reading)])
              for reading, title in READINGS.items()]  # fmt: skip
    panels.append(
        (
            "the network's units",
            [r for r in rows if (r.part, r.quantity) == ("region", "same_pattern")],
        )
    )
    panels = [(title, found) for title, found in panels if found]
    figure = Figure((3.3 * max(len(panels), 1), 2.8), layout="constrained")
    axes = figure.subplots(1, max(len(panels), 1), squeeze=False, sharey=True)[0]
    for panel, (title, found) in zip(axes, panels, strict=False):
        rules, layers = (
            list(dict.fromkeys(getattr(r, name) for r in found)) for name in ("rule", "layer")
        )
        wide = 0.8 / len(rules)
        # The bars of a layer stand side by side around its tick, one a rule.
        for k, (rule, color) in enumerate(_colors(rules).items()):
            own = [r for r in found if r.rule == rule]
            at = np.arange(len(own)) + (k - (len(rules) - 1) / 2) * wide
            ends = [[r.value - r.low for r in own], [r.high - r.value for r in own]]
            error = {"elinewidth": 0.8, "ecolor": style.INK}
            panel.bar(
                at, [r.value for r in own], wide, yerr=ends, color=color, label=rule, error_kw=error
            )
        panel.set_xticks(
            range(len(layers)), [f"layer {n}" if isinstance(n, int) else n for n in layers]
        )
        panel.set(title=title, ylim=(0, 1.05))
        panel.grid(axis="y", **style.GRID)
        panel.set_axisbelow(True)
    axes[0].set_ylabel("share in the region")
    style.add_legend(figure, axes[0])
    return figure


def anything(drawn: Mapping[str, np.ndarray]) -> Figure:
    """The first image, its explanation by roots that stay, the target, the explanations that show it, and the difference."""
    targets = list(dict.fromkeys(name.split("/")[0] for name in drawn))
    figure = Figure(
        (1.35 * (5 + len(drawing.PENALTIES)), 1.75 * len(targets)), layout="constrained"
    )
    axes = figure.subplots(len(targets), 5 + len(drawing.PENALTIES), squeeze=False)
    for row, target in zip(axes, targets, strict=True):
        own = {
            name.partition("/")[2]: values[0]
            for name, values in drawn.items()
            if name.startswith(f"{target}/")
        }
        maps = [own[name].sum(-1) for name in ("untouched", "target", "relevance")]
        maps += [maps[2] - maps[1], *own["mild/relevance"].sum(-1)]
        titles = ["roots that stay", "target", "closed form", "closed form\n- target"]
        titles += [
            f"mild, c = {c:g}\nslope {s:.2g}"
            for c, s in zip(drawing.PENALTIES, own["mild/slope"], strict=True)
        ]
        image = own["image"] - own["image"].min()
        row[0].imshow(image / max(image.max(), 1e-9), cmap="gray")
        row[0].set_title("image", fontsize=8)
        largest = np.abs(maps[1]).max()
        for k, (panel, one, title) in enumerate(zip(row[1:], maps, titles, strict=True)):
            # A drawing and its error on the target's scale; others have one of their own.
            limit = largest if k in (1, 2, 3) else np.abs(one).max()
            panel.imshow(one, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
            panel.set_title(title, fontsize=8)
        for panel in row:
            panel.set(xticks=[], yticks=[])
    return figure


def curves(csc: Mapping[str, np.ndarray], layers: Sequence[str]) -> Figure:
    """The median |cosine| from where relevances start down to the first layer, by way; and products of random matrices."""
    names = [name.split("/") for name in csc if name.count("/") == 2]
    ways, starts = (list(dict.fromkeys(name[k] for name in names)) for k in (0, 1))
    starts.sort(key=layers.index)
    figure = Figure((3.0 * (len(starts) + 1), 2.9), layout="constrained")
    axes = figure.subplots(1, len(starts) + 1, squeeze=False, sharey=True)[0]
    for panel, start in zip(axes, starts, strict=False):
        # From where it starts, downward: as relevance goes.
        below = list(layers[: layers.index(start) + 1])[::-1]
        for way, color in _colors(ways).items():
            found = [csc[f"{way}/{start}/{layer}"] for layer in below]
            middle = [f[convergence.PERCENTILES.index(50)] for f in found]
            panel.plot(range(len(below)), middle, "o-", color=color, markersize=3, label=way)
        panel.set_xticks(range(len(below)), below, rotation=45)
        panel.set_title(f"from {start} down")
        panel.grid(axis="y", **style.GRID)
    for signs, line in zip(convergence.SIGNS, ("-", "--", ":"), strict=True):
        axes[-1].plot(csc[f"products/{signs}"], line, color=style.INK, label=f"matrices: {signs}")
    chances = [convergence.chance(width) for width in convergence.VGG_WIDTHS]
    axes[-1].plot(chances, color=style.FAINT, linewidth=0.8, label="chance")
    axes[-1].set_title("products of random matrices")
    axes[-1].set_xlabel("matrices")
    axes[-1].legend(frameon=False, fontsize=8)
    axes[0].set(ylabel="median |cosine|", ylim=(0, 1.03))
    style.add_legend(figure, axes[0])
    return figure


def two_classes(pairs: Mapping[str, np.ndarray]) -> Figure:
    """The first image's maps of two classes by every way, and their difference."""
    ways, maps = list(map(str, pairs["ways"])), pairs["all/maps"][0]
    figure = Figure((1.35 * len(ways), 4.3), layout="constrained")
    for k, column in enumerate(figure.subplots(3, len(ways), squeeze=False).T):
        scaled = [m / max(np.abs(m).max(), 1e-30) for m in maps[k]]
        for panel, one in zip(column, (*scaled, scaled[0] - scaled[1]), strict=True):
            panel.imshow(one, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
            panel.set(xticks=[], yticks=[])
        column[0].set_title(ways[k].replace("_", " ").replace(" no", "\nno"), fontsize=8)
        column[2].set_xlabel(f"|cos| {pairs['all/cosine'][0, k]:.3f}", fontsize=8)
    left = [panel for panel in figure.axes if panel.get_subplotspec().is_first_col()]
    for panel, said in zip(left, ("predicted class", "another class", "difference"), strict=True):
        panel.set_ylabel(said, fontsize=8)
    return figure


def randomized(weights: Mapping[str, np.ndarray], names: Sequence[str]) -> Figure:
    """How alike maps stay as layers get random weights, from the logits down; means over images."""
    measures = list(dict.fromkeys(name.split("/")[1] for name in weights))
    ways = list(dict.fromkeys(name.split("/")[0] for name in weights))
    figure = Figure((3.6 * len(measures), 2.9), layout="constrained")
    axes = figure.subplots(1, len(measures), squeeze=False)[0]
    for panel, measure in zip(axes, measures, strict=True):
        for way, color in _colors(ways).items():
            values = weights[f"{way}/{measure}"].mean(0)
            panel.plot(
                range(len(values) + 1), [1, *values], "o-", color=color, markersize=3, label=way
            )
        panel.set_xticks(range(len(names) + 1), ["trained", *names], rotation=45)
        panel.set(ylabel=measure, xlabel="random weights down to")
        panel.grid(axis="y", **style.GRID)
    style.add_legend(figure, axes[0])
    return figure


def levels(
    weights: Mapping[str, Float[np.ndarray, "N layers"]], layers: Sequence[str]
) -> list[str]:
    """The layers that were given random weights, from the logits down: the last ones, where some have no weights."""
    number = next(iter(weights.values())).shape[1]
    return list(layers[::-1][:number])
