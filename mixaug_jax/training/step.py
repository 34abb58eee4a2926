"""Training: per-device steps with the mixing inside, and the loop from a config to a checkpoint.

    train(get_config(method="cutmix"), "runs/cutmix")

`train_step` and `eval_step` are pure functions for one device; `devices_lib.pmap` maps them. Everything random follows from
(seed, step), so a run that was killed and started again ends with the same bits.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import clu.metrics
import flax
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from mixaug_jax import mixing
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import entries
from mixaug_jax.core.types import Tree
from mixaug_jax.data import parts_wanted, transforms
from mixaug_jax.data.speech import spectrogram
from mixaug_jax.mixing import labels
from mixaug_jax.models import build
from mixaug_jax.models.wrapped import Wrapped, no_hidden_layers
from mixaug_jax.training import losses

_MADE = np.uint32(
    2**32 - 2
)  # folded into a step's key for data that is made; mixing folds in devices and 2**32 - 1


@flax.struct.dataclass
class State:
    """What training carries from step to step; the same on every device.

    Attributes:
      step: int32, number of finished steps.
      variables: {"params", "batch_stats"}, float32.
      opt_state: of the optimizer.
      ema: the averaged variables, or {} where train.ema is 0.
    """

    step: Any
    variables: Any
    opt_state: Any
    ema: Any

    @property
    def evaluated(self) -> Any:
        """The variables that are evaluated and saved for later stages."""
        return self.ema or self.variables


@flax.struct.dataclass
class EvalMetrics(clu.metrics.Collection):
    """Sums over examples, merged batch by batch and divided once at the end."""

    loss: clu.metrics.Average.from_output("loss")
    accuracy: clu.metrics.Average.from_output("correct")


def learning_rate(config: ml_collections.ConfigDict) -> optax.Schedule:
    """Step number -> learning rate: linear warm-up, then constant, steps, or a cosine to 0.

    The schedule spans the steps after `resolved.rate_start`, which is 0 but for a run that has begun it anew.
    """
    start = config.resolved.get("rate_start", 0)
    schedule = _schedule(config.train, max(1, config.resolved.steps - start))
    return (lambda step: schedule(step - start)) if start else schedule


def _schedule(t, length):
    """The schedule of so many steps."""
    warm = round(t.warmup * length)
    after = max(1, length - warm)
    if t.schedule == "cosine":
        main = optax.cosine_decay_schedule(t.lr, after)
    else:
        drops = [round(b * length) for b in t.boundaries] if t.schedule == "step" else []
        # `main` starts counting after the warm-up; boundaries count from the start.
        main = optax.piecewise_constant_schedule(t.lr, {max(0, b - warm): t.decay for b in drops})
    if not warm:
        return main
    # From lr / warm, not from 0, which would waste the first step.
    warmup = optax.linear_schedule(t.lr / warm, t.lr, warm - 1)
    return optax.join_schedules([warmup, main], [warm])


def build_optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
    """SGD with momentum as PyTorch has it: the decay joins the gradient before the momentum, the rate multiplies last."""
    t = config.train
    sgd = optax.sgd(learning_rate(config), t.momentum or None, nesterov=t.nesterov)
    return optax.chain(optax.add_decayed_weights(t.weight_decay), sgd)


def _init(model, optimizer, config):
    def init(key: Any) -> State:
        view = config.resolved.preprocess
        variables = model.init(key, jnp.zeros((1, view.size, view.size, len(view.mean))))
        ema = variables if config.train.ema else {}
        return State(jnp.int32(0), variables, optimizer.init(variables["params"]), ema)

    return init


def state_shapes(model: Any, optimizer: Any, config: ml_collections.ConfigDict) -> State:
    """Shapes and dtypes of the state; computes nothing."""
    return jax.eval_shape(_init(model, optimizer, config), jax.random.key(0))


def init_state(model: Any, optimizer: Any, config: ml_collections.ConfigDict) -> State:
    """The state before the first step, replicated; its weights follow from config.seed."""
    key = jax.random.key(config.seed)
    lowered = jax.jit(_init(model, optimizer, config)).lower(key)
    return devices_lib.replicate(lowered.compile(devices_lib.quick_options())(key))


def mixed(key: Any, images: Any, targets: Any, *, config: ml_collections.ConfigDict, shard: Any):
    """Mixes a batch by config.mix.

    Args:
      key: the micro-batch's key, equal on all devices.
      images: [B,H,W,C] float32, normalized.
      targets: [B,K] float32.
      config: resolved settings.
      shard: this device's index.

    Returns:
      images, targets (or `labels.Pending`), and what the model is to call on hidden features (of a mixer that takes `active`),
      or None.
    """
    if config.mix.name == "none":
        return images, targets, None
    options = {k: v for k, v in config.mix.items() if k != "name"}
    entry, d = mixing.MIXERS[config.mix.name], config.data
    mixer = mixing.bound(
        entry, options, {"shard": shard, "mean": tuple(d.mean), "std": tuple(d.std)}
    )
    if not mixes_features(config):
        return *mixer(key, images, targets), None
    # A mixer of hidden features: it is called at each candidate layer, and active at the one that is drawn.
    model = build.build_model(config)
    if isinstance(model, Wrapped):
        raise ValueError(no_hidden_layers(model.name))
    layers = ("input", *model.hidden_layers)
    # No shard in this key, so all devices draw the same layer.
    key, layer_key = jax.random.split(key)
    chosen = jax.random.randint(layer_key, (), 0, len(layers))

    def hidden(layer: Any, h: Any):
        return mixer(key, h, targets, active=chosen == layers.index(layer))[0]

    # The same key gives the same partners at every layer, so labels are mixed once.
    return hidden("input", images), mixer(key, images, targets)[1], hidden


def mixes_features(config: ml_collections.ConfigDict) -> bool:
    """Whether config.mix mixes hidden features, of a network that has to be there for it."""
    name = config.mix.name
    return name != "none" and "active" in entries.keywords(mixing.MIXERS[name])


def check_mixing(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError where the mixer refuses its options or these images; compiles nothing."""
    d, classes = config.data, len(config.resolved.class_names)
    # A mixer only ever sees one device's share of one micro-batch.
    count = d.batch_size // config.train.accumulate // jax.device_count()
    jax.eval_shape(
        lambda key, images, targets: mixed(key, images, targets, config=config, shard=0)[:2],
        jax.random.key(0),
        jax.ShapeDtypeStruct((count, d.size, d.size, len(d.mean)), jnp.float32),
        jax.ShapeDtypeStruct((count, classes), jnp.float32),
    )


def check_label(config: ml_collections.ConfigDict, source: Any) -> None:
    """Raises ValueError where mix.label needs more of a batch than the training data tell; compiles nothing."""
    if not parts_wanted(config):
        return
    known = bool(source.class_parts)
    if source.make is not None:
        make = functools.partial(source.make, count=2)
        program = devices_lib.pmap(
            lambda key, arrays: make(key, arrays=arrays),
            in_specs=(devices_lib.REPLICATED, devices_lib.REPLICATED),
            out_specs=devices_lib.SHARDED,
        )
        known = "parts" in jax.eval_shape(program, jax.random.key(0), source.arrays)
    if not known:
        raise ValueError(_no_parts(config))


def _no_parts(config):
    return (
        f"mix.label={labels.VISIBLE!r} needs pictures whose pixels tell which class they show, which data.name="
        f"{config.data.name!r} does not have here; use markers, or another mix.label"
    )


def settled(targets: Any, batch: Mapping, classes: int, config: ml_collections.ConfigDict) -> Any:
    """Targets that a mixer left open, by what the batch tells of its images; others as they are.

    Args:
      targets: [B,K], or `labels.Pending` ones, whose columns may be several blocks of all classes.
      batch: with parts [B,H,W], 1 + the class that a pixel tells of, 0: none.
      classes: in a block.
      config: of the run.
    """
    if not isinstance(targets, labels.Pending):
        return targets
    if "parts" in batch:
        kept = labels.kept_shares(targets.mask, batch["parts"], classes)
    else:
        raise ValueError(_no_parts(config))
    return labels.settle(targets, jnp.tile(kept, (1, targets.own.shape[-1] // kept.shape[-1])))


def loss_fn(
    params: Tree,
    batch_stats: Tree,
    batch: Mapping,
    key: Any,
    *,
    model: Any,
    config: ml_collections.ConfigDict,
    shard: Any,
    fixed: Any = None,
):
    """The mean loss of one micro-batch; returns (loss, (batch_stats, share of right answers)). `fixed`: other variables."""
    d = config.data
    images = transforms.device_transform(
        batch["image"], batch["seed"], jitter=d.jitter, lighting=d.lighting, mean=d.mean, std=d.std
    )
    # Recordings are masked here, before they are mixed, as SpecAugment does with single ones.
    if "audio" in d and d.audio.masks:
        images = spectrogram.mask_bands_and_frames(
            images,
            batch["seed"],
            batch["valid"],
            masks=d.audio.masks,
            bands=d.audio.mask_bands,
            frames=d.audio.mask_frames,
        )
    targets, weights = losses.targets_of(batch, config)
    targets = losses.smoothed(targets, config.train)
    # Mixing draws the same on every device where a batch shares its draws; dropout never does.
    mix_key, dropout_key = jax.random.split(key)
    images, (targets, weights), hidden = _mixed_known(
        mix_key, images, targets, weights, batch=batch, config=config, shard=shard
    )
    logits, updated = model.apply(
        {**(fixed or {}), "params": params, "batch_stats": batch_stats},
        images,
        train=True,
        hidden=hidden,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.fold_in(dropout_key, shard)},
    )
    loss = losses.example_losses(logits, targets, weights, config.train.loss).mean()
    right = losses.right(logits, targets, weights, several="targets" in batch).mean()
    return loss, (updated.get("batch_stats", {}), right)


def _mixed_known(key, images, targets, weights, *, batch, config, shard):
    """`mixed` with unknown classes: images, (targets, weights), and the model's `hidden`."""
    classes = targets.shape[-1]
    if config.train.loss == "softmax":
        images, targets, hidden = mixed(key, images, targets, config=config, shard=shard)
        targets = settled(targets, batch, classes, config)
        return images, (targets, weights), hidden
    # Cross-entropy is linear in the target: an image of two gets each one's loss, as far as that is known, by its share. So
    # weights are mixed as targets are, and a class of which one partner knows nothing has the other's target.
    both = jnp.concatenate([targets * weights, weights], -1)
    images, both, hidden = mixed(key, images, both, config=config, shard=shard)
    targets, weights = jnp.split(settled(both, batch, classes, config), 2, -1)
    return images, (targets / jnp.where(weights > 0, weights, 1), weights), hidden


def train_step(
    state: State, batch: dict, *, model: Any, optimizer: Any, config: ml_collections.ConfigDict
) -> tuple[State, dict]:
    """One step on one device's share of the batch, for `devices_lib.pmap`.

    Args:
      state: replicated; its buffers may be donated.
      batch: image uint8 [B,h,w,C], label int32 [B], seed uint32 [B]; of recordings also valid bool [B,w]; of examples with
        several classes targets [B,K] in 0..1 and maybe weights [B,K], see `losses.example_losses`; under mix.label="visible"
        parts, see `settled`.
      model: linen module.
      optimizer: optax transformation.
      config: resolved settings.

    Returns:
      The new state, and float32 scalars {"loss", "accuracy"}, averaged over devices. Accuracy counts the class with the largest
      share of the mixed label; of examples with several classes, the share of those that are right. The loss is NaN where the
      new weights or batch statistics are not finite.
    """
    shard = jax.lax.axis_index(devices_lib.AXIS)
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)
    accumulate = config.train.accumulate
    # Collections of a user's module that are neither learned nor counted.
    fixed = {k: v for k, v in state.variables.items() if k not in ("params", "batch_stats")}
    given = {"model": model, "config": config, "shard": shard, "fixed": fixed}
    gradient = jax.value_and_grad(functools.partial(loss_fn, **given), has_aux=True)
    params = state.variables["params"]

    def micro_step(batch_stats: Tree, inputs: Any):
        index, micro_batch = inputs
        # Statistics run on through the micro-batches; the parameters stay those of the step.
        (loss, (batch_stats, right)), grads = gradient(
            params, batch_stats, micro_batch, jax.random.fold_in(key, index)
        )
        return batch_stats, (grads, {"loss": loss, "accuracy": right})

    batch_stats = state.variables.get("batch_stats", {})
    if accumulate == 1:
        batch_stats, (grads, metrics) = micro_step(batch_stats, (0, batch))
    else:
        micro = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), batch)
        batch_stats, (grads, metrics) = _scan_mean(
            micro_step, batch_stats, (jnp.arange(accumulate), micro)
        )
    # The only traffic between devices: one mean of everything that was computed on a share.
    grads, batch_stats, metrics = jax.lax.pmean((grads, batch_stats, metrics), devices_lib.AXIS)
    updates, opt_state = optimizer.update(grads, state.opt_state, params)
    variables = {**state.variables, "params": optax.apply_updates(params, updates)}
    if batch_stats:
        variables["batch_stats"] = batch_stats
    # A ReLU may lose a NaN on its way to the loss (see `devices.training_options`), but no gradient on its way to the weights.
    metrics["loss"] = jnp.where(_sound(variables), metrics["loss"], jnp.nan)
    ema = _averaged(state, variables, config.train.ema) if config.train.ema else {}
    return State(state.step + 1, variables, opt_state, ema), metrics


def made_step(
    state: State, arrays: Any, *, make: Callable, count: int, model: Any, optimizer: Any, config: ml_collections.ConfigDict
) -> tuple[State, dict]:  # fmt: skip
    """`train_step` on data that a source makes on the device.

    Args:
      state: as in `train_step`.
      arrays: what `make` is given, replicated.
      make: f(key, count, arrays) -> {"image": uint8 [count,h,w,C], "label": int32 [count]}; the key follows from the seed, the
        step and the device.
      count: examples of one device.
      model, optimizer, config: as in `train_step`.
    """
    step = jax.random.fold_in(jax.random.key(config.seed), state.step)
    key = jax.random.fold_in(jax.random.fold_in(step, _MADE), jax.lax.axis_index(devices_lib.AXIS))
    key, seeds = jax.random.split(key)
    batch = {"seed": jax.random.bits(seeds, (count,), jnp.uint32), **make(key, count, arrays)}
    return train_step(state, batch, model=model, optimizer=optimizer, config=config)


def _scan_mean(step, carry, inputs):
    """`lax.scan` that keeps the mean of what the steps return, not all of it."""
    count = len(jax.tree.leaves(inputs)[0])
    _, out = jax.eval_shape(step, carry, jax.tree.map(lambda x: x[0], inputs))
    total = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), out)

    def body(state: Any, x: Any):
        carry, total = state
        carry, out = step(carry, x)
        return (carry, jax.tree.map(jnp.add, total, out)), None

    (carry, total), _ = jax.lax.scan(body, (carry, total), inputs)
    return carry, jax.tree.map(lambda x: x / count, total)


def _sound(variables):
    """Whether everything is finite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(variables)]).all()


def _averaged(state: State, variables, decay: float):
    # A short memory at the start, so that the random weights are forgotten.
    step = state.step.astype(jnp.float32)
    rate = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda a, v: rate * a + (1 - rate) * v, state.ema, variables)


def eval_step(
    variables: Tree, batch: dict, *, model: Any, config: ml_collections.ConfigDict
) -> EvalMetrics:
    """Loss and accuracy of one device's share, gathered from all devices; rows with mask 0 do not count."""
    d = config.data
    images = transforms.device_transform(
        batch["image"], batch["seed"], jitter=0.0, lighting=0.0, mean=d.mean, std=d.std
    )
    logits = model.apply(variables, images, train=False)
    targets, weights = losses.targets_of(batch, config)
    loss = losses.example_losses(logits, targets, weights, config.train.loss)
    correct = losses.right(logits, targets, weights, several="targets" in batch)
    return EvalMetrics.gather_from_model_output(
        axis_name=devices_lib.AXIS, loss=loss, correct=correct, mask=batch["mask"]
    )
