"""Mixers for other people's training loops: batches as a loader gives them, labels as integers."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import checks, entries
from mixaug_jax.core.types import AnyArray, Array, Count, Float, Images, Integer, Targets
from mixaug_jax.mixing.labels import Pending

Labels = Integer[AnyArray, " B"] | Float[AnyArray, "B K"]


def batch_mixer(
    mixer: Callable,
    *,
    num_classes: int,
    options: Mapping[str, Any] | tuple = (),
    seed: int = 0,
) -> Callable[[Count, Images, Labels], tuple[Images, Targets]]:
    """Makes a compiled f(step, images, labels) -> (images, targets) of a mixer, for a loop of one's own.

        mix = batch_mixer(MIXERS["cutmix"], num_classes=10, options={"alpha": 1.0})
        images, targets = mix(step, images, labels)

    A batch of another size compiles again, so let the loader drop the last one.

    Args:
      mixer: an entry of `MIXERS`, or a function of that form.
      num_classes: K.
      options: of the mixer, and what it needs of a run: {"net": net}, {"mean": ..., "std": ...}.
      seed: of all draws; those of a step are a function of the seed and the step.

    Returns:
      The function. `step` is an integer from 0 up to below 2**32; images [B,H,W,C] are floating point, normalized; labels are
      integers [B] in 0..K-1, or targets [B,K] whose rows sum to 1. The targets are float32 [B,K], for a loss that takes
      probabilities.

    Raises:
      ValueError: an option that the mixer does not have; of the function: labels out of range, and what the mixer says.
    """
    checks.count("num_classes", num_classes, 2)
    options = dict(options)
    known = entries.keywords(mixer)
    for name in options:
        checks.choice(f"an option of {entries.name_of(mixer)}", name, known)

    # What a mixer decides by while it is traced, its options, is fixed; a network is an argument, or its weights would be
    # constants of the program.
    @jax.jit
    def mixed(step: Integer[AnyArray, ""], images: Images, targets: Targets, net: Any):
        key = jax.random.fold_in(jax.random.key(seed), step)
        given = options | ({"net": net} if "net" in options else {})
        images, targets = mixer(key, images, targets, **given)
        if isinstance(
            targets, Pending
        ):  # only "visible" and "attention", which are no default, leave targets open
            raise ValueError(f"label={options['label']!r} needs the training step of this package")
        return images, targets

    def mix(step: Count, images: Images, labels: Labels) -> tuple[Images, Targets]:
        step = checks.count("step", step, 0, 2**32 - 1)
        targets = _targets(labels, num_classes)
        return mixed(np.uint32(step), jnp.asarray(images), targets, options.get("net", ()))

    return mix


def _targets(labels, num_classes) -> Float[Array, "B K"]:
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == num_classes:
        return jnp.asarray(labels, jnp.float32)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be integers [B] or targets [B,{num_classes}]; got {labels.dtype} {list(labels.shape)}"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"labels must lie in 0..{num_classes - 1}; got {labels.min()}..{labels.max()}"
        )
    return jax.nn.one_hot(labels, num_classes)
