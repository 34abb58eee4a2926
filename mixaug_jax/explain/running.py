"""Methods and scores on many images, from a network and a data set.

maps = attribute(net, images, labels, "integrated_gradients")
results = evaluate(net, dataset, methods=("gradcam",), scores=("pointing_game", "deletion"))
results["gradcam"].scores["deletion"].mean(), results["random"].scores["deletion"].mean()
"""

from collections.abc import Mapping

import jax
import numpy as np

from mixaug_jax.attribution import METHODS, heatmap, iba_statistics
from mixaug_jax.attribution.bottleneck import DEPTH
from mixaug_jax.attribution.target import map_layer
from mixaug_jax.core import checks, walk
from mixaug_jax.explain import memory, programs
from mixaug_jax.explain import options as options_lib
from mixaug_jax.explain.evaluation import Evaluation
from mixaug_jax.explain.examples import Examples, finder, load_examples, on_devices
from mixaug_jax.explain.job import (
    NO_OPTIONS,
    Plan,
    features_shape,
    make_plan,
    needs_reference,
    settings_of,
    with_controls,
)
from mixaug_jax.explain.options import keywords, needs
from mixaug_jax.scores.agreement import correlation
from mixaug_jax.scores.faithfulness import auc

# What a score ranks or sums where it is not the heat map: every channel's sensitivity, or signed contributions.
_TAKES = {"infidelity": "raw", "sensitivity_n": "sum"}
# The share of the image that regions may cover in the papers of box_ratio (at most) and energy_pointing_game (less).
_IBA, _SCORE_CAM = 0.33, 0.5


def attribute(
    net,
    images,
    labels,
    method: str,
    *,
    options: Mapping = NO_OPTIONS,
    chunk: int = 0,
    memory_gb: float = 2.0,
    indices=(),
    devices=None,
) -> np.ndarray:
    """Attributions of many images by one method.

    Args:
      net: `models.Net`, or anything with its methods.
      images: [N,h,w,C] float32, preprocessed.
      labels: int [N], the classes to explain.
      method: a name in `attribution.METHODS`.
      options: of the method, arrays too. `key`, a seed, is folded with an image's index, so each image has its own draws.
      chunk: evaluations of the network at once on each device, which decides the memory; 0: as many as memory_gb holds. Results
        do not depend on it, but for rounding.
      memory_gb: a bound in GiB, see `memory.at_once`.
      indices: int [N], of the images in their data set; () is 0..N-1.
      devices: default all of this process.

    Returns:
      float32 [N,h,w,C] or [N,h,w,1], signed; see the method.

    Raises:
      ValueError: an unknown method or option, labels out of range, images that are not preprocessed, indices that are not one
        for each image, a negative chunk or memory_gb.
    """
    checks.choice("method", method, METHODS)
    options_lib.check_options({method: options})
    images, labels = np.asarray(images), np.asarray(labels)
    _check_images(net, images, labels)
    indices = np.asarray(indices) if np.size(indices) else np.arange(len(images))
    if indices.shape != labels.shape or indices.dtype.kind not in "iu":
        raise ValueError(
            f"indices must be integers [{len(images)}], got {indices.dtype} {list(indices.shape)}"
        )
    checks.count("chunk", chunk, 0)
    chunk = chunk or memory.at_once(net, images.shape[1:], memory_gb, 2 * images.nbytes)
    devices = walk.local(devices)
    rows = {"image": images, "label": labels.astype(np.int32), "index": indices.astype(np.int32)}
    task = programs.method_task(method, options, chunk, devices)
    return task.run(on_devices(net, devices), rows, method)


def _check_images(net, images, labels):
    checks.images(images)
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be integers [{len(images)}], got {labels.dtype} {list(labels.shape)}"
        )
    classes = jax.eval_shape(lambda net, x: net.logits(x), net, images[:1]).shape[-1]
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise ValueError(f"labels must be in 0..{classes - 1}, got {wrong[0]}")


def evaluate(
    net,
    dataset,
    *,
    methods: tuple[str, ...],
    scores: tuple[str, ...],
    options: Mapping = NO_OPTIONS,
    max_images: int = 0,
    label: str = "true",
    region: str = "auto",
    layer: str = "",
    reduce: str = "auto",
    seed: int = 0,
    reference=(),
    reference_images: int = 100,
    memory_gb: float = 2.0,
    threads: int = 4,
    devices=None,
) -> dict[str, Evaluation]:
    """Methods, and the controls beside them, on the images of a data set, each by all scores.

    Runs on devices of this process; in a job of several processes, call it in one of them.

    Args:
      net: `models.Net`, or anything with its methods, `model`, `variables` and `preprocess`.
      dataset: examples with image uint8 [H,W,3], label and, for scores of alignment, boxes or concepts, as `data.Source`.
      methods: names in METHODS; the controls are added.
      scores: names in SCORES.
      options, layer, reduce, seed: see `Plan` and `make_plan`.
      max_images: at most so many, spread evenly over the data set; 0: all.
      label, region: what is explained and where it is, see `examples.load_examples` and `regions.finder`.
      reference: images that expected_gradients starts from and that iba's statistics are of, such as the training set; () is
        the data set itself.
      reference_images: at most so many of them.
      memory_gb: a bound in GiB, see `memory.at_once`.
      threads: that read images.
      devices: default all of this process.

    Returns:
      {name: Evaluation}, the controls last.

    Raises:
      ValueError: an unknown name, an option outside its values, a layer that the network does not have, scores of alignment
        where the data set tells no place of anything.
    """
    checks.count("max_images", max_images, 0)
    checks.count("seed", seed, 0)
    names = with_controls(methods)
    plan = make_plan(
        net,
        dataset,
        scores=scores,
        options=options,
        layer=layer,
        reduce=reduce,
        seed=seed,
        max_images=max_images,
        memory_gb=memory_gb,
    )
    devices = walk.local(devices)
    find = finder(net, dataset, label, region)
    needed = any(needs_reference(name) for name in names)
    others = load_reference(net, reference or dataset, reference_images, threads) if needed else ()
    check(net, dataset, max_images, find, names, plan, others, devices=devices)
    examples = load_examples(
        net,
        dataset,
        find,
        max_images=max_images,
        label=label,
        batch_size=plan.at_once,
        threads=threads,
        devices=devices,
    )
    return {
        name: evaluate_method(net, examples, name, plan, others, devices=devices) for name in names
    }


def load_reference(net, dataset, max_images: int, threads: int) -> np.ndarray:
    """Preprocessed images [n,h,w,C], spread evenly over a data set."""

    def read(index):
        return net.preprocess(dataset[int(index)]["image"])

    return np.stack(list(walk.read_ahead(read, walk.spread(len(dataset), max_images), threads)))


def check(
    net, dataset, max_images: int, find, methods, plan: Plan, reference=(), *, devices=None
) -> None:
    """Traces everything for so many images of a data set; compiles and computes nothing.

    Args:
      net, dataset, max_images, methods, plan, reference, devices: as in `evaluate` and `evaluate_method`.
      find: how regions are found, from `examples.finder`.

    Raises:
      ValueError: what a method or a score cannot do on these images with these options.
    """
    if not find.kind:
        for score in plan.scores:
            if "mask" in needs(score):
                raise ValueError(
                    f"{score} needs to know where things are, and the data set has no boxes and no "
                    "concepts of the category object"
                )
    total = len(walk.spread(len(dataset), max_images))
    devices, shape = walk.local(devices), net.preprocess(dataset[0]["image"]).shape
    number = jax.ShapeDtypeStruct((), np.int32)
    heat = jax.ShapeDtypeStruct(shape[:2], np.float32)
    row = {"image": jax.ShapeDtypeStruct(shape, np.float32), "label": number, "index": number}
    row["mask"] = jax.ShapeDtypeStruct(shape[:2], bool)
    _map_task(plan, shape, devices).check(net, {"heat": heat, "mask": row["mask"]}, total)
    for score in _with_net(plan):
        task = programs.net_task(score, plan.of_score(score, shape), plan.at_once, devices)
        task.check(net, {**row, "map": heat}, total)
    for method in methods:
        if "stats" in keywords(method) and len(reference) < 2:
            raise ValueError(f"{method} needs at least 2 reference images, got {len(reference)}")
        given = plan.of_method(method) | _of_reference(net, method, reference, plan, False)
        programs.method_task(method, given, plan.at_once, devices).check(net, row, total)
        for score in _of_explanation(plan):
            task = _explain_task(score, method, given, plan, shape, devices)
            task.check(net, row, total)


def evaluate_method(
    net,
    examples: Examples,
    method: str,
    plan: Plan,
    reference=(),
    *,
    extra=NO_OPTIONS,
    devices=None,
) -> Evaluation:
    """One method on images, by all scores.

    Args:
      net: the network.
      examples: the images.
      method: its name.
      plan: how.
      reference: see `evaluate`; needed where `needs_reference`.
      extra: what else belongs to the settings.
      devices: default all of this process.
    """
    devices, shape = walk.local(devices), examples.images.shape[1:]
    settings = settings_of(net, examples, method, plan, reference, extra)
    net = on_devices(net, devices)
    rows = _rows(examples)
    given = plan.of_method(method) | _of_reference(net, method, reference, plan, True)
    raw = programs.method_task(method, given, plan.at_once, devices).run(net, rows, method)
    heat = np.asarray(heatmap(raw, options_lib.reduction(method, plan.reduce)))
    seen = {"heat": heat, "mask": rows["mask"]}
    found = _map_task(plan, shape, devices).run(net, seen, f"{method}, scores of its maps")
    for score in _with_net(plan):
        task = programs.net_task(score, plan.of_score(score, shape), plan.at_once, devices)
        found[score] = task.run(
            net, {**rows, "map": _taken(score, raw, heat)}, f"{method}, {score}"
        )
    for score in _of_explanation(plan):
        task = _explain_task(score, method, given, plan, shape, devices)
        found[score] = task.run(net, rows, f"{method}, {score}")
    return Evaluation(
        heat,
        examples.indices,
        examples.labels,
        examples.predicted,
        *_finished(found, examples, plan),
        settings,
    )


def _rows(examples):
    return {
        "image": examples.images,
        "label": examples.labels,
        "index": examples.indices,
        "mask": examples.masks,
    }


def _map_task(plan, shape, devices):
    scores = {
        score: {k: v for k, v in plan.of_score(score, shape).items() if k != "key"}
        for score in plan.scores
        if "net" not in needs(score)
    }
    return programs.map_task(scores, plan.at_once, devices)


def _with_net(plan):
    return [s for s in plan.scores if needs(s)[:2] == ("heatmap", "net")]


def _of_explanation(plan):
    return [s for s in plan.scores if needs(s)[0] == "explain"]


def _explain_task(score, method, given, plan, shape, devices):
    return programs.explain_task(
        score, plan.of_score(score, shape), method, given, plan.at_once, devices
    )


def _of_reference(net, method, reference, plan, compute):
    """The options of a method that come from other images; their shapes alone unless `compute`."""
    if "baselines" in keywords(method):
        return {"baselines": np.asarray(reference)}
    if "stats" not in keywords(method):
        return {}
    given = {k: v for k, v in plan.of_method(method).items() if k in ("layer", "variant")}
    if compute:
        size = plan.at_once
        batches = (reference[k : k + size] for k in range(0, len(reference), size))
        return {"stats": iba_statistics(net, batches, **given)}
    layer = map_layer(net, reference[0], given.get("layer", ""), DEPTH)
    shape = features_shape(net, reference[:1], layer)
    return {"stats": (np.zeros(shape, np.float32),) * 3}


def _taken(score, raw, heat):
    """What a score looks at."""
    takes = _TAKES.get(score, "heat")
    if takes == "raw" and raw.shape[-1] > 1:
        return raw
    return heat if takes == "heat" else raw.sum(-1)


def _finished(found, examples, plan):
    """Scores float64 [N], NaN where there is no region, curves float32 [N,T+1], and pairs float32 [N,2,sizes,samples]."""
    scores, curves, pairs = {}, {}, {}
    shown, share = examples.masks.any((1, 2)), examples.masks.mean((1, 2))
    subsets = {
        "pointing_game": ("pointing_game_difficult", examples.difficult),
        "box_ratio": ("box_ratio_small", share <= _IBA),
        "energy_pointing_game": ("energy_pointing_game_small", share < _SCORE_CAM),
    }
    for name in plan.scores:
        values = np.asarray(found[name])
        if name == "sensitivity_n":
            pairs[name] = values.swapaxes(0, 1)
            values = np.asarray(correlation(*values).mean(-1))
        if values.ndim == 2:
            curves[name] = values.astype(np.float32)
            values = np.asarray(auc(values, at=_places(name, plan)))
        values = values.astype(np.float64)
        if name == "completeness":
            values = np.abs(values)  # or images would cancel in the mean
        scores[name] = np.where(shown, values, np.nan) if "mask" in needs(name) else values
        if name in subsets:
            subset, kept = subsets[name]
            scores[subset] = np.where(kept, scores[name], np.nan)
        if name == "energy_pointing_game":
            scores["background_attribution"] = 1 - scores[name]
    return scores, curves, pairs


def _places(curve, plan):
    """Where a curve's points lie, () at equal distances."""
    if curve != "road":
        return ()
    fractions = plan.options.get("road", {}).get("fractions", keywords("road")["fractions"])
    return (0, *fractions)
