"""The table of a sweep of removals, and its summary on the console."""

from collections.abc import Sequence

import numpy as np

from mixaug_jax.core.types import Count
from mixaug_jax.occlusion.grid import Grid
from mixaug_jax.occlusion.outcomes import Outcome, Sweep

HEADER = (
    *("label", "ranking", "selection", "share", "value", "removal", "images"),
    *("accuracy_change", "accuracy_low", "accuracy_high", "rises"),
    *("loss_change", "loss_low", "loss_high", "first_order_loss_change"),
    *("leak_accuracy", "leak_accuracy_low", "leak_accuracy_high"),
    *("leak_loss", "leak_loss_low", "leak_loss_high"),
)


def rows(swept: Sweep, found: Outcome) -> list[list]:
    """A row for each label and cell of the grid, as `HEADER`.

    Equal numbers of `removal` are the same removal, which has several names. Changes of accuracy are
    shares, not points. A leak stands in the rows of the true label, where both labels were swept.
    """
    table = []
    for place in np.ndindex(found.accuracy.shape):
        label, cell = swept.labels[place[0]], place[1:]
        leak = [found.leak_accuracy[cell], *found.leak_accuracy_interval[cell]]
        leak += [found.leak_loss[cell], *found.leak_loss_interval[cell]]
        # Of two labels there is one leak, which would stand twice.
        given = label == "true" and np.isfinite(leak[0])
        numbers = [found.accuracy[place], *found.accuracy_interval[place]]
        loss = [found.loss[place], *found.loss_interval[place], found.first_order[place]]
        table.append(
            [
                *(label, *names(swept, cell), int(swept.index[cell]), found.images),
                *(f"{number:.6f}" for number in numbers),
                int(found.rises[place]),
                *(f"{number:.6g}" for number in loss),
                *(f"{number:.6g}" if given else "" for number in leak),
            ]
        )
    return table


def names(swept: Sweep, cell: Sequence[Count]) -> tuple[str, str, str, str]:
    """Ranking, selection, share and value of a cell of the grid."""
    grid = swept.grid
    ranking, selection, share, value = cell
    return (
        grid.rankings[ranking],
        grid.selections[selection],
        f"{grid.shares[share]:g}",
        grid.values[value],
    )


def summary(swept: Sweep, found: Outcome) -> str:
    """A few lines: whether accuracy rises, where most, and what chance and the label have to do with it."""
    # First what the changes are changes of.
    left = f", {found.left_out} left out (not finite)" if found.left_out else ""
    lines = [
        f"occlude: {found.images} images{left}; complete, accuracy {100 * found.clean_accuracy:.1f} %, "
        f"loss {found.clean_loss:.3f}"
    ]
    if found.clean_accuracy == 1:
        lines.append("  every complete image is recognized, so accuracy cannot rise")
    lines.append(f"  {same(swept, found)}")
    # How many rise, beside how many would by chance: of hundreds of intervals some always lie above 0.
    for k, label in enumerate(swept.labels):
        draws = found.by_chance[k]
        chance = f"by chance {draws.mean():.1f}, {draws.min():.0f} to {draws.max():.0f} in {len(draws)} draws"
        lines.append(
            f"  {of_loss(label)}: accuracy rises in {counted(swept, found, k)} "
            f"(95 % interval above 0; without any effect, {chance}; "
            f"p of the strongest {found.grid_p[k]:.2g}), the loss falls in {found.falling[k]}"
        )
        # The largest of many, with its interval; the p-value above is that of having looked for it.
        cell = np.unravel_index(found.accuracy[k].argmax(), found.accuracy[k].shape)
        low, high = 100 * found.accuracy_interval[k][cell]
        line = (
            f"    largest change {100 * found.accuracy[k][cell]:+.1f} points ({low:+.1f} to {high:+.1f}): "
            f"{_sentence(swept, cell)}; loss {found.loss[k][cell]:+.3f}, to first order "
            f"{found.first_order[k][cell]:+.3f}"
        )
        if label == "true" and np.isfinite(found.leak_accuracy[cell]):
            low, high = 100 * found.leak_accuracy_interval[cell]
            line += (
                f"; {100 * found.leak_accuracy[cell]:+.1f} points ({low:+.1f} to {high:+.1f}) of it come of "
                "knowing the label"
            )
        lines.append(line)
    return "\n".join(lines)


def of_loss(label: str) -> str:
    """Whose loss ranks what is removed."""
    whose = f"the {label} label" if label in ("true", "predicted") else f"class {label}"
    return f"ranked by the loss of {whose}"


def parts(grid: Grid) -> str:
    """What is removed, by its right name."""
    name = "pixels" if grid.window == (1, 1) else f"windows of {grid.window[0]} x {grid.window[1]}"
    return f"{name} in single channels" if grid.channels == "each" else name


def ranked(grid: Grid, ranking: str) -> str:
    """In which order what is removed."""
    name = parts(grid)
    return f"{name[:1].upper()}{name[1:]} in the order of {ranking.replace('_', ' ')}"


def counted(swept: Sweep, found: Outcome, label: int) -> str:
    """How many removals raise the accuracy when the label of that number ranks, of how many, in how many cells of the grid."""
    cells = int(found.rises[label].sum())
    return (
        f"{found.rising[label]} of {found.removals} different removals "
        f"({cells} of {swept.index.size} cells)"
    )


def same(swept: Sweep, found: Outcome) -> str:
    """Why fewer removals are counted than the grid has cells."""
    size, none = swept.index.size, int((swept.index == 0).sum())
    if size == found.removals:
        return f"All {size} cells of the grid are different removals."
    text = f"The grid has {size} cells and {found.removals} different removals: some cells are one removal under several names"
    # A share of less than half a pixel, or the negative ones of magnitudes.
    text += f", and {none} remove nothing" if none else ""
    return f"{text}. Each is counted once."


def _sentence(swept, cell):
    ranking, selection, share, value = names(swept, cell)
    which = "at random" if selection == "random" else f"{selection} by {ranking}"
    return f"{share} % {which}, replaced by {value}"
