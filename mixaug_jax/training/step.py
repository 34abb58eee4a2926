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

from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.types import Tree
from mixaug_jax.data import transforms
from mixaug_jax.data.speech import spectrogram
from mixaug_jax.models import build, vit
from mixaug_jax.training import losses
from mixaug_jax.training.mixing_batches import looks_at_net, mixed, reads_attention, settled

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
    """SGD with momentum as PyTorch has it: the decay joins the gradient before the momentum, the rate multiplies last.

    Or AdamW (Loshchilov and Hutter 2017, 1711.05101) with beta2 0.999 and epsilon 1e-8, whose decay leaves out biases, norms,
    positions and class tokens, as in DeiT's code.
    """
    t = config.train
    # Runs from before there was the key say nothing of it.
    if t.get("optimizer", "sgd") == "adamw":
        rate = learning_rate(config)
        return optax.adamw(rate, b1=t.momentum, weight_decay=t.weight_decay, mask=_decayed)
    sgd = optax.sgd(learning_rate(config), t.momentum or None, nesterov=t.nesterov)
    return optax.chain(optax.add_decayed_weights(t.weight_decay), sgd)


def _decayed(params):
    """Which parameters are kernels; "value" is a token or a position."""

    def is_kernel(path: Any, leaf: Any) -> bool:
        return leaf.ndim > 1 and getattr(path[-1], "key", "") != "value"

    return jax.tree_util.tree_map_with_path(is_kernel, params)


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


def loss_fn(
    params: Tree,
    others: Tree,
    batch: Mapping,
    key: Any,
    *,
    model: Any,
    config: ml_collections.ConfigDict,
    shard: Any,
    net: Any = None,
):
    """The mean loss of one micro-batch; returns (loss, (batch_stats, share of right answers)).

    `others`: the variables that are not differentiated, batch_stats among them. `net`: what
    the mixer looks at, where that is not the network as it is now.
    """
    if net is None and looks_at_net(config):
        # A constant of the loss, which is differentiated once and not through what the mixer saw.
        net = build.as_net(config, model, {**others, "params": jax.lax.stop_gradient(params)})
    images = _transformed(batch, config.data)
    targets, weights = losses.targets_of(batch, config)
    targets = losses.smoothed(targets, config.train)
    # Mixing draws the same on every device where a batch shares its draws; dropout never does.
    mix_key, dropout_key = jax.random.split(key)
    images, left_open, hidden = _mixed_known(
        mix_key, images, targets, weights, config=config, shard=shard, net=net or ()
    )
    logits, updated = model.apply(
        {**others, "params": params},
        images,
        train=True,
        hidden=hidden,
        mutable=["batch_stats", *((vit.SEEN,) if reads_attention(config) else ())],
        rngs={"dropout": jax.random.fold_in(dropout_key, shard)},
    )
    seen = _seen(model, updated) if reads_attention(config) else None
    targets, weights = _settled_known(left_open, weights, batch, config, seen)
    loss = losses.example_losses(logits, targets, weights, config.train.loss).mean()
    right = losses.right(logits, targets, weights, several="targets" in batch).mean()
    return loss, (updated.get("batch_stats", {}), right)


def _transformed(batch, d):
    """The images of a batch as they are mixed, by the section `data`."""
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
    return images


def _seen(model, updated):
    """How much the class token looks at each patch of the mixed images: a constant of the loss, as labels are."""
    attention = vit.attention_of(model, updated)
    return jax.lax.stop_gradient(vit.last_seen_patches(model, attention))


def _mixed_known(key, images, targets, weights, **given):
    """`mixed` with unknown classes: images, what `_settled_known` makes targets of, and the model's `hidden`."""
    if given["config"].train.loss == "softmax":
        return mixed(key, images, targets, **given)
    # Cross-entropy is linear in the target: an image of two gets each one's loss, as far as that is known, by its share. So
    # weights are mixed as targets are, and a class of which one partner knows nothing has the other's target.
    return mixed(key, images, jnp.concatenate([targets * weights, weights], -1), **given)


def _settled_known(left_open, weights, batch, config, attention=None):
    """(targets [B,K], weights) after what was mixed is settled, see `settled`."""
    classes = weights.shape[-1]
    targets = settled(left_open, batch, classes, config, attention)
    if config.train.loss == "softmax":
        return targets, weights
    targets, weights = jnp.split(targets, 2, -1)
    return targets / jnp.where(weights > 0, weights, 1), weights


def train_step(
    state: State,
    batch: dict,
    teacher: Any = None,
    *,
    model: Any,
    optimizer: Any,
    config: ml_collections.ConfigDict,
) -> tuple[State, dict]:
    """One step on one device's share of the batch, for `devices_lib.pmap`.

    Args:
      state: replicated; its buffers may be donated.
      batch: image uint8 [B,h,w,C], label int32 [B], seed uint32 [B]; of recordings also valid bool [B,w]; of examples with
        several classes targets [B,K] in 0..1 and maybe weights [B,K], see `losses.example_losses`; under mix.label="visible"
        parts, see `settled`.
      teacher: replicated, the network of `teacher` that the mixer looks at; None: see mix.net.
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
    if teacher is None and looks_at_net(config) and config.mix.get("net") == "ema":
        teacher = build.as_net(config, model, state.ema)
    given = {"model": model, "config": config, "shard": shard, "net": teacher}
    gradient = jax.value_and_grad(functools.partial(loss_fn, **given), has_aux=True)
    params = state.variables["params"]

    def micro_step(batch_stats: Tree, inputs: Any):
        index, micro_batch = inputs
        # Statistics run on through the micro-batches; the parameters stay those of the step.
        others = {**fixed, "batch_stats": batch_stats}
        (loss, (batch_stats, right)), grads = gradient(
            params, others, micro_batch, jax.random.fold_in(key, index)
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
    state: State,
    arrays: Any,
    teacher: Any = None,
    *,
    make: Callable,
    count: int,
    model: Any,
    optimizer: Any,
    config: ml_collections.ConfigDict,
) -> tuple[State, dict]:
    """`train_step` on data that a source makes on the device.

    Args:
      state: as in `train_step`.
      arrays: what `make` is given, replicated.
      teacher: as in `train_step`.
      make: f(key, count, arrays) -> {"image": uint8 [count,h,w,C], "label": int32 [count]}; the key follows from the seed, the
        step and the device.
      count: examples of one device.
      model, optimizer, config: as in `train_step`.
    """
    step = jax.random.fold_in(jax.random.key(config.seed), state.step)
    key = jax.random.fold_in(jax.random.fold_in(step, _MADE), jax.lax.axis_index(devices_lib.AXIS))
    key, seeds = jax.random.split(key)
    batch = {"seed": jax.random.bits(seeds, (count,), jnp.uint32), **make(key, count, arrays)}
    return train_step(state, batch, teacher, model=model, optimizer=optimizer, config=config)


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
