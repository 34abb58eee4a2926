"""The part of a study's page about single classes: whom mixing harms, beside what chance would show."""

import pathlib

import numpy as np

from mixaug_jax.core import stats
from mixaug_jax.core.types import Scalar
from mixaug_jax.draw import page, style
from mixaug_jax.draw.page import Interval, Table
from mixaug_jax.report.study import class_figures
from mixaug_jax.report.study.study_numbers import means_over
from mixaug_jax.study import class_sentences
from mixaug_jax.study.class_results import ClassEffect, ClassStudy
from mixaug_jax.study.results import Study

_TITLE = "Single classes"
_MOST = 100  # rows of a long table on the page


def section(
    study: Study, found: ClassStudy | None, folder: pathlib.Path, column: Scalar = 0.0
) -> str:
    """Sentences, tables and figures of `class_effects.compare`; "" for a study of one augmentation."""
    if not study.comparisons:
        return ""
    if found is None or not found.effects:
        text = "No two runs of one seed have predictions of single images (predictions.npz)."
        return page.section("classes", _TITLE, page.missing(text))
    parts = [page.paragraph(text) for text in class_sentences.of_study(found)]
    parts.append(page.table(folder, _counts(found)))
    # With few seeds or classes there is nothing that noise was taken from.
    tested = [effect for effect in found.effects if effect.shrunken]
    if tested:
        parts.append(_drawn(study, found, folder, column))
    parts += _scatter(study, found, folder, column)
    if len(tested) > 1:
        parts += _heat(found, tested, folder, column)
    parts += _confused(found, folder, column)
    parts += _links(found, folder)
    parts += _strengths(found, folder, column)
    table = page.table(folder, _by_class(found), most=_MOST)
    parts.append(page.folded("Every class", table, long=True))
    return page.section("classes", _TITLE, *parts)


def points(value: Scalar) -> float:
    """A share in points."""
    return float(100 * value)


def _ends(center, ends) -> Interval:
    return Interval(points(center), *(points(end) for end in ends))


def _null(values, scale=1.0) -> Interval | None:
    values = scale * np.asarray(values, np.float64)
    if np.isnan(values).all():
        return None
    return Interval(
        float(np.nanmean(values)), *map(float, np.nanpercentile(values, stats.PERCENTILES))
    )


def _counts(found) -> Table:
    """A row for each comparison."""
    caption = (
        "Effects on recall, in points. tau: standard deviation between classes of the true effect on these images, from "
        "products of different seeds; 0: the estimate is not positive. On other images: the same where the two seeds of a "
        "product see different halves of each class. p: of equal effects, by permutation, after Holm's "
        "correction. By chance: mean and 95 % range where the classes of every seed are shuffled and the mean effect "
        "stays. Losses forgiven: the share of the losses that vanishes if any class that the image shows counts as right."
    )
    header = (
        *("comparison", "mean effect", "tau", "tau on other images", "p after Holm"),
        "expected worse classes",
        *("classes that look worse", "by chance", "their mean loss", "loss by chance"),
        *("worst class", "worst by chance", "losses forgiven [%]"),
    )
    return Table("classes", caption, header, [_row(effect) for effect in found.effects])


def _row(effect: ClassEffect) -> tuple:
    seen = effect.observed
    first = (
        f"{effect.name} minus {effect.reference}",
        _ends(effect.overall[0], effect.overall[1:]),
    )
    worse, loss, worst = int(seen.worse[0]), points(seen.mean[0]), points(seen.worst[0])
    forgiven = points(effect.forgiven)
    # Few seeds: what was seen stands there, and no test beside it.
    if effect.found is None:
        return (*first, None, None, None, None, worse, None, loss, None, worst, None, forgiven)
    null = effect.null
    return (
        *first,
        _ends(effect.found.tau, effect.found.tau_interval),
        points(np.sqrt(max(effect.population, 0))) if np.isfinite(effect.population) else None,
        effect.p_holm,
        Interval(effect.shrunken.expected, *effect.shrunken.expected_interval),
        worse,
        _null(null.worse),
        loss,
        _null(null.mean, 100),
        worst,
        _null(null.worst, 100),
        forgiven,
    )


def _drawn(study, found, folder, column):
    style.save_figure(
        class_figures.caterpillar(study, found), folder / "class_effects", column=column
    )
    caption = (
        "Change of recall in each class. Filled: drawn to the mean by as much as it is noise, with 95 % intervals; "
        "colored: named as worse, with at most a tenth of the named ones expected to be wrong; hollow: as seen; gray: "
        "between which ends the sorted hollow ones lie if no class differs; dotted: mean effect."
    )
    alt = "dot plots of classes sorted by the effect; the numbers are in the table of every class"
    return page.figure(folder, "class_effects", caption, alt=alt)


def _scatter(study, found, folder, column):
    style.save_figure(class_figures.recalls(study, found), folder / "class_recalls", column=column)
    caption = (
        "Recall of each class with and without the augmentation. Means over seeds. Ellipse: how far a class of mean size "
        "and mean recall strays by the choice of its images."
    )
    alt = "scatter plots, a point for each class"
    return [page.figure(folder, "class_recalls", caption, alt=alt)]


def _heat(found, tested, folder, column):
    style.save_figure(class_figures.heat(found), folder / "class_heat", column=column)
    caption = "The effects without noise, all comparisons. Classes in the order of a clustering of the columns."
    alt = "a heat map of comparisons against classes"
    # The matrix is of all comparisons; the table has those that are drawn.
    places = [k for k, effect in enumerate(found.effects) if effect.shrunken]
    rows = [
        (tested[a].name, *(float(found.between[i, j]) for j in places))
        for a, i in enumerate(places)
    ]
    header = ("rank correlation", *(effect.name for effect in tested))
    said = (
        "Whether the same classes gain and lose. Rank correlations over classes between effects in one half of the seeds "
        "and in the other, mean over halves, so that no network is on both sides; on the diagonal, of an augmentation with "
        "itself."
    )
    table = page.table(folder, Table("class_agreement", said, header, rows))
    return [page.figure(folder, "class_heat", caption, alt=alt), table]


def _confused(found, folder, column):
    if not any(effect.confused for effect in found.effects):
        if not any(len(effect.seeds) >= stats.FEWEST_SEEDS for effect in found.effects):
            return []
        text = "No confusion of two classes changes in a way that stands out from the spread over seeds."
        return [page.paragraph(text)]
    style.save_figure(class_figures.confused(found), folder / "class_confusions", column=column)
    known = len(found.answers.shown)
    caption = (
        "Confusions that become more or less frequent. Hollow: under the reference; filled: under the augmentation; "
        "t-tests over seeds, false discovery rate 10 % over pairs with 20 errors or more. Colors are kinds: ambiguous (a "
        "tenth of the class's images show both), co-occurring (together more often than by chance), fine-grained (one "
        "superclass), unrelated."
    )
    # Label maps or boxes, which not all data have, tell what else an image shows.
    if not known:
        caption += " What images show besides their class is not known here, so the first two are not told."
    names = found.answers.classes
    rows = [
        (
            effect.name,
            names[one.true],
            names[one.taken],
            *(points(rate) for rate in one.rates),
            _ends(one.rates[1] - one.rates[0], one.interval),
            one.p,
            one.kind,
        )
        for effect in found.effects
        for one in effect.confused
    ]
    header = (
        "augmentation",
        "class",
        "taken for",
        "before [%]",
        "after [%]",
        "change",
        "p",
        "kind",
    )
    table = Table("class_confusions", "The same as a table.", header, rows)
    return [
        page.figure(
            folder, "class_confusions", caption, alt="dot plots; the numbers are in the table"
        ),
        page.folded("These confusions", page.table(folder, table, most=_MOST), long=True),
    ]


def _links(found, folder):
    rows = [
        (
            f"{effect.name} minus {effect.reference}",
            link.what,
            link.rho,
            link.classes,
            link.p,
            link.p_holm,
        )
        for effect in found.effects
        for link in effect.links
    ]
    if not rows:
        text = "Not compared with explanations and concepts of the same classes: ten classes or more with both are needed."
        return [page.missing(text)]
    caption = (
        "Do the classes that gain in recall change otherwise, too? Spearman's rank correlation over classes between the "
        "change of recall and that of another number of the same class; p by permutation, Holm's correction over this table."
    )
    header = ("comparison", "change of", "rank correlation", "classes", "p", "p after Holm")
    return [page.table(folder, Table("class_links", caption, header, rows))]


def _strengths(found, folder, column):
    parts = []
    by_name = {effect.name: effect for effect in found.effects}
    for number, one in enumerate(found.strengths):
        name = f"class_strengths_{number}"
        kept = np.flatnonzero(found.answers.sizes)
        drawn = class_figures.strengths(one, kept, found.answers.classes)
        style.save_figure(drawn, folder / name, column=column)
        caption = f"Recall over {one.key} ({one.line}). {means_over(one.recall.shape[1])} Gray: single classes."
        parts.append(page.figure(folder, name, caption, alt=f"line chart over {one.key}"))
        # The reference itself is on the line too, and has no effect to show.
        arms = [(v, by_name[n]) for v, n in zip(one.values, one.names, strict=True) if n in by_name]
        rows = [
            (
                f"{value:g}",
                _ends(effect.overall[0], effect.overall[1:]),
                _ends(effect.found.tau, effect.found.tau_interval) if effect.found else None,
                Interval(effect.shrunken.expected, *effect.shrunken.expected_interval)
                if effect.found
                else None,
            )
            for value, effect in arms
        ]
        if rows:
            reference = arms[0][1].reference
            said = f"The values of {one.key} ({one.line}) side by side, each minus {reference}, in points of recall."
            header = (one.key, "mean effect", "tau", "expected worse classes")
            parts.append(page.table(folder, Table(name, said, header, rows)))
    return parts


def _by_class(found) -> Table:
    names, sizes = found.answers.classes, found.answers.sizes
    rows = []
    for effect in found.effects:
        for k, m in enumerate(effect.classes):
            small = effect.shrunken
            rows.append(
                (
                    effect.name,
                    names[m],
                    int(sizes[m]),
                    points(effect.recall[0, k]),
                    _ends(effect.means[k, 0], effect.means[k, 1:]),
                    _ends(small.effect[k], small.ends[:, k]) if small else None,
                    float(small.worse[k]) if small else None,
                    ("yes" if effect.named[k] else "no") if small else None,
                    ("yes" if effect.by_tests[k] else "no") if small else None,
                )
            )
    header = (
        *("augmentation", "class", "images", "recall before [%]", "effect", "without noise"),
        *("probability of a loss", "named as worse", "by its own t-test"),
    )
    # Only of the kinds that the table has.
    over = {effect.interval_of for effect in found.effects}
    said = {
        "seeds": "t-intervals over seeds",
        "images": "over the images of these very networks, which says nothing of the method",
        "": "none, which two seeds do not bear",
    }
    intervals = "; ".join(said[kind] for kind in said if kind in over)
    caption = f"Every class, in points of recall. Intervals of the effect: {intervals}."
    empty = [names[m] for m in np.flatnonzero(sizes == 0)]
    if empty:
        caption += f" Left out, without test images: {', '.join(empty)}."
    return Table("every_class", caption, header, rows)
