"""The stage `relevance` of a run on animals: which attributes its network uses, and whether explanations point at its class."""

import collections
import json
import pathlib

import numpy as np

from mixaug_jax import data
from mixaug_jax.core import checks, files, processes, say, walk
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.types import Config, Net, Path
from mixaug_jax.data.animals import animal_pairs, animal_samplers, animal_set
from mixaug_jax.data.animals.animal_pose import LEGAL
from mixaug_jax.explain import evaluation
from mixaug_jax.explain.examples import num_classes
from mixaug_jax.papers.relevance import (
    evaluator_training,
    forward_passes,
    relevance_keys,
    relevance_result,
    relevance_section,
)
from mixaug_jax.papers.relevance.relevance_result import Pointing, Result
from mixaug_jax.stages.base import Stage
from mixaug_jax.stages.checkpoints import each_checkpoint
from mixaug_jax.training import checkpoint

FOLDER = "relevance"
_ADVICE = "memory ran out; lower relevance.scenes"
_CLASSES = 2


def run(config: Config, workdir: Path, *, which: str = "latest", required: bool = True) -> None:
    """Draws each attribute of scenes again, and writes what that does to the network.

    Writes `relevance/` (`relevance/<step>/` for which="all"): relevance.npz, relevance.csv, the tables of the page (attributes,
    accuracy, bound; pointing, with pointing.npz, where there are explanations of the same weights; evaluator, where one is
    asked for), the figure `relevance_attributes`, and a section of the run's page. What is there for the same settings, scenes
    and weights is not computed again.

    Args:
      config: of a run on animals; the section `relevance`, which `configs/relevance.py` has, else its defaults.
      workdir: the run's working directory, with checkpoints.
      which: "latest", "best", "all" or a step's number.
      required: whether a network of other classes is an error; if not, a line says that it is left out.

    Raises:
      ValueError: settings that cannot work, no such checkpoint, a network of other classes.
      MemoryError, OSError: memory or disk ran out.
    """
    check(config)
    workdir = pathlib.Path(workdir).absolute()
    checkpoint.check_settings(workdir, config)
    checkpoint.steps(workdir, which)
    asked = relevance_keys.of_config(config)
    split = config.data[f"{asked.split}_split"]
    pairs = animal_set.pairs(config, split, asked.mode, asked.scenes)
    # Accuracy without the bias, which no split of the biased set can tell.
    plain = evaluator_training.unbiased(config, 1, asked.scenes)
    unbiased = animal_set.animals("test", plain)

    def work(net: Net, folder: pathlib.Path, step: int) -> None:
        classes = num_classes(net, unbiased)
        if classes != _CLASSES:
            sentence = f"the network has {classes} classes and the animals {_CLASSES}"
            if required:
                raise ValueError(f"relevance: {sentence}")
            say.line(f"relevance: left out, because {sentence}")
            return
        result = _kept(config, net, folder, pairs, unbiased)
        explained = workdir / "attribution" / folder.relative_to(workdir / FOLDER)
        pointing = _pointing(config, net, folder, explained)
        reader = evaluator_training.keep(config) if asked.evaluator else None
        if processes.is_main():
            relevance_section.write(config, workdir, folder, result, pointing, reader)

    with devices_lib.applied(config):
        each_checkpoint(workdir, which, FOLDER, _ADVICE, work)


def check(config: Config) -> None:
    """Raises ValueError for settings that cannot work."""
    asked = relevance_keys.of_config(config)
    relevance_keys.check_section(config, relevance_keys.SECTION, asked, relevance_keys.KEYS)


def _kept(config, net, folder, pairs, unbiased) -> Result:
    """The logits that are there for these settings and weights, or new ones."""
    path, settings = folder / relevance_result.FILE, _settings(config, net)
    found = files.load_if(relevance_result.load, path, settings) if processes.is_main() else None
    # The others cannot look for themselves: their view of a shared disk may be older.
    if processes.agreed(found is not None):
        return found
    threads = config.data.threads
    given = {}
    for name, scenes in pairs.items():
        logits = forward_passes.logits(net, scenes, f"relevance: {name}", threads=threads)
        given[name] = logits[:, 1] - logits[:, 0]
    free = forward_passes.logits(net, unbiased, "relevance: unbiased scenes", threads=threads)
    facts = {name: _facts(scenes) for name, scenes in pairs.items()}
    first, others = animal_pairs.ORIGINAL, [*pairs][1:]
    found = Result(
        original=given[first],
        values=facts[first][0],
        labels=facts[first][1],
        changed={name: given[name] for name in others},
        changed_values={name: facts[name][0] for name in others},
        unbiased=free[:, 1] - free[:, 0],
        unbiased_labels=_facts(unbiased)[1],
        settings=settings,
    )
    if processes.is_main():
        relevance_result.save(found, path)
    # So that no process goes on to what reads the file before it is there.
    devices_lib.barrier("relevance kept")
    return found


def _facts(scenes):
    """Attributes [N,10] and labels [N]."""
    examples = [scenes[i] for i in range(len(scenes))]
    values = np.stack([example["attributes"] for example in examples])
    return values, np.array([example["label"] for example in examples], np.int32)


def _settings(config, net) -> dict:
    """All that decides the logits, as JSON has it."""
    asked, own = relevance_keys.of_config(config), config.data.animals
    settings = {
        "weights": files.checksum(net.variables),
        "model": net.name,
        "view": repr(net.preprocess),
        "mode": asked.mode,
        "split": config.data[f"{asked.split}_split"],
        "scenes": asked.scenes,
        "animals": {name: own[name] for name in ("seed", "sampler", "ranges")},
        "unbiased": animal_samplers.unbiased(own.sampler, asked.mode),
        "size": config.data.size,
        "pixels": animal_pairs.VERSION,
        "precision": config.precision,
    }
    return json.loads(json.dumps(settings))


def _pointing(config, net, folder, explained) -> Pointing | None:
    """Where the explanations of these weights and of the section `explain`'s images point to.

    None where there are none, or their maps are no pictures' size.
    """
    if not processes.is_main():
        return None
    target = folder / relevance_result.POINTING
    # One of other weights or images would be taken for that of these.
    target.unlink(missing_ok=True)
    found = [one for path in sorted(explained.glob("*.npz")) if (one := _read(path, net))]
    split = config.data[f"{config.explain.split}_split"]
    scenes = data.open_source(split, config) if found and split else ()
    found = _of_images(config, len(scenes), found)
    if not found:
        return None
    # Where the head and the right arms are, of each image.
    legal = np.stack([np.isin(scenes[int(i)]["parts"], LEGAL) for i in found[0].indices])
    if any(one.heat.shape != legal.shape for one in found):
        say.line(
            "relevance: explanations are left out: their maps are of another size than pictures"
        )
        return None
    # The highest value alone, as in the pointing game: no threshold has to be chosen.
    image = np.arange(len(legal))
    tops = {one.method: one.heat.reshape(len(image), -1).argmax(1) for one in found}
    result = Pointing(
        hits={name: legal.reshape(len(image), -1)[image, top] for name, top in tops.items()},
        controls=tuple(one.method for one in found if one.kind == "control"),
        area=legal.mean((1, 2)),
        settings={name: found[0].settings[name] for name in ("weights", "examples")},
    )
    relevance_result.save_pointing(result, target)
    return result


def _of_images(config, count, found) -> list[evaluation.Evaluation]:
    """Those of the images and classes that the section `explain` names, of `count` scenes; a line says which are of others."""
    wanted = {name: config.explain[name] for name in ("split", "label")}
    indices = walk.spread(count, config.explain.max_images)
    kept = [
        one
        for one in found
        if wanted.items() <= one.settings.items() and np.array_equal(one.indices, indices)
    ]
    # Of equal numbers, pixels and regions may still differ: those that most of the methods were shown are kept.
    shown = collections.Counter(one.settings["examples"] for one in kept).most_common(1)
    kept = [one for one in kept if one.settings["examples"] == shown[0][0]]
    left = {one.method for one in found} - {one.method for one in kept}
    if left:
        say.line(
            f"relevance: {checks.listed(sorted(left))} left out: explained on other images or classes than explain.split, "
            "explain.max_images and explain.label say"
        )
    return kept


def _read(path, net):
    """Explanations of these weights, or None."""
    try:
        found = evaluation.load(path)
    except ValueError as error:
        say.line(f"relevance: {error}; it is left out")
        return None
    return found if found.settings.get("weights") == files.checksum(net.variables) else None


STAGE = Stage(
    run,
    check,
    "which attributes of animals a network uses (configs/relevance.py)",
    keys=(f"{relevance_keys.SECTION}.",),
)
