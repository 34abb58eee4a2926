"""How config.mix mixes a batch on a device, and what it needs for that: hidden features, a network to look at."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from mixaug_jax import mixing
from mixaug_jax.core import checks, entries
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.data import parts_wanted
from mixaug_jax.mixing import labels
from mixaug_jax.models import build, layer_maps
from mixaug_jax.models import weights as weights_lib
from mixaug_jax.models.wrapped import Wrapped, no_hidden_layers


def mixed(
    key: Any, images: Any, targets: Any, *, config: ml_collections.ConfigDict, shard: Any, net: Any = ()
):  # fmt: skip
    """Mixes a batch by config.mix, or as many of its first examples as mix.share says (DropMix, arXiv 2307.09136).

    Args:
      key: the micro-batch's key, equal on all devices.
      images: [B,H,W,C] float32, normalized.
      targets: [B,K] float32.
      config: resolved settings.
      shard: this device's index.
      net: what a mixer that looks at a network sees; () for all others.

    Returns:
      images, targets (or `labels.Pending`), and what the model is to call on hidden features (of a mixer that takes `active`),
      or None.
    """
    if config.mix.name == "none":
        return images, targets, None
    entry, d = mixing.MIXERS[config.mix.name], config.data
    available = {"shard": shard, "mean": tuple(d.mean), "std": tuple(d.std), "net": net}
    mixer = mixing.bound(entry, mixing.own_options(config.mix), available)
    count = _mixed_count(config, len(images))

    def first(x: Any):
        return x if count == len(x) else x[:count]

    def completed(mixed: Any, x: Any):
        if isinstance(mixed, labels.Pending):
            seen = jnp.ones((len(x), *mixed.mask.shape[1:]), mixed.mask.dtype)
            rest = labels.Pending(x, x, seen)
            return jax.tree.map(completed, mixed, rest)
        return mixed if count == len(x) else jnp.concatenate([mixed, x[count:]])

    some = first(targets)
    if not mixes_features(config):
        out = mixer(key, first(images), some)
        return completed(out[0], images), completed(out[1], targets), None
    # A mixer of hidden features: it is called at each candidate layer, and active at the one that is drawn.
    layers, deepest = _candidates(config)
    # No shard in this key, so all devices draw the same layer.
    key, layer_key = jax.random.split(key)
    chosen = jax.random.randint(layer_key, (), 0, len(layers))

    def at(layer: str):
        return {"deepest": layer == deepest} if "deepest" in entries.keywords(entry) else {}

    def hidden(layer: Any, h: Any):
        if layer not in layers:
            return h
        active = chosen == layers.index(layer)
        return completed(mixer(key, first(h), some, active=active, **at(layer))[0], h)

    # The same key gives the same partners at every layer, so labels are mixed once.
    both = mixer(key, first(images), some, **at("input"))[1]
    return hidden("input", images), completed(both, targets), hidden


def _mixed_count(config, batch):
    """How many of a device's examples are mixed."""
    share = mixing.batch_share(config.mix)
    count = round(share * batch)
    if share < 1 and count < 2:
        raise ValueError(
            f"mix.share={share:g} of the {batch} images that a device mixes at once is {count}; mixing needs 2 at least"
        )
    return count


def _candidates(config):
    """The places where a mixer of hidden features may mix, "input" or layers, and the last layer with a map."""
    model = build.build_model(config)
    if isinstance(model, Wrapped):
        raise ValueError(no_hidden_layers(model.name))
    places = config.mix.get("layers", mixing.options(config.mix.name).get("layers"))
    if places is None:
        return ("input", *model.hidden_layers), ""
    checks.choices("mix.layers", places, ("input", "last", *model.layers))
    net = build.as_net(config, model, build.variable_shapes(model, config))
    size = (config.data.size, config.data.size, len(config.data.mean))
    last = layer_maps.map_layers(net, jax.ShapeDtypeStruct(size, jnp.float32))[-1]
    found = tuple(last if place == "last" else place for place in places)
    # Of a place drawn twice over, one draw would mix labels and no features.
    if not found or len(set(found)) < len(found):
        raise ValueError(f"mix.layers must be places where to mix, each once; got {tuple(places)}")
    return found, last


def mixes_features(config: ml_collections.ConfigDict) -> bool:
    """Whether config.mix mixes hidden features, of a network that has to be there for it."""
    name = config.mix.name
    return name != "none" and "active" in entries.keywords(mixing.MIXERS[name])


def looks_at_net(config: ml_collections.ConfigDict) -> bool:
    """Whether config.mix looks at a network."""
    name = config.mix.name
    return name != "none" and "net" in entries.keywords(mixing.MIXERS[name])


def reads_attention(config: ml_collections.ConfigDict) -> bool:
    """Whether labels are mixed by the attention of the network that is trained, on the mixed images."""
    return config.mix.get("label", "") == labels.ATTENTION


def needs_network(config: ml_collections.ConfigDict) -> bool:
    """Whether config.mix can be tried where there is a network alone: it mixes features of one, or looks at one."""
    return mixes_features(config) or looks_at_net(config)


def teacher(config: ml_collections.ConfigDict) -> Any:
    """The network in the file `mix.net`, or None where the mixer looks at the one that is trained, or at none.

    Raises:
      ValueError: no such file, a file that is refused (see `import_weights`), or a network of other images.
    """
    file = config.mix.get("net", "current")
    if not looks_at_net(config) or file in ("current", "ema"):
        return None
    net, d = weights_lib.import_weights(file), config.data
    seen = (net.preprocess.mean, net.preprocess.std)
    if seen != (tuple(d.mean), tuple(d.std)):
        raise ValueError(
            f"the network in mix.net={file!r} sees images normalized by mean and std {seen}; data.mean and data.std "
            f"are {(tuple(d.mean), tuple(d.std))}"
        )
    return net


def check_mixing(config: ml_collections.ConfigDict, teacher: Any = None) -> None:
    """Raises ValueError where the mixer refuses its options, these images or its network (`teacher`, or the one that is
    trained); compiles nothing."""
    d, classes = config.data, len(config.resolved.class_names)
    if reads_attention(config):
        _check_attention(config)
    net, model, shapes = teacher or (), None, ()
    if mixes_features(config) or (looks_at_net(config) and not net):
        model = build.build_model(config)
        shapes = build.variable_shapes(model, config)
    if looks_at_net(config) and not net:
        net = build.as_net(config, model, shapes)
    # A mixer only ever sees one device's share of one micro-batch.
    count = d.batch_size // config.train.accumulate // jax.device_count()

    def tried(net: Any, variables: Any, *batch: Any) -> Any:
        images, targets, hidden = mixed(*batch, config=config, shard=0, net=net)
        # What a mixer says of hidden features is only heard where it meets them.
        seen = model.apply(variables, images, hidden=hidden) if hidden else ()
        return images, targets, seen

    jax.eval_shape(
        tried,
        net,
        shapes,
        jax.random.key(0),
        jax.ShapeDtypeStruct((count, d.size, d.size, len(d.mean)), jnp.float32),
        jax.ShapeDtypeStruct((count, config.resolved.get("logits", classes)), jnp.float32),
    )


def _check_attention(config):
    if not getattr(build.build_model(config), "has_attention", False):
        raise ValueError(
            f"mix.label={labels.ATTENTION!r} needs a network with attention, as vit_micro or deit_small; "
            f"{config.resolved.model.name} has none"
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


def settled(
    targets: Any,
    batch: Mapping,
    classes: int,
    config: ml_collections.ConfigDict,
    attention: Any = None,
) -> Any:
    """Targets that a mixer left open, by what the batch or the network tells of its images; others as they are.

    Args:
      targets: [B,K], or `labels.Pending` ones, whose columns may be several blocks of all classes.
      batch: with parts [B,H,W], 1 + the class that a pixel tells of, 0: none.
      classes: in a block.
      config: of the run.
      attention: [B,n,n], under mix.label="attention": of the class token to the patches of the mixed images.
    """
    if not isinstance(targets, labels.Pending):
        return targets
    if attention is not None:
        kept = labels.attended_share(targets.mask, attention)
    elif "parts" in batch:
        kept = labels.kept_shares(targets.mask, batch["parts"], classes)
    else:
        raise ValueError(_no_parts(config))
    return labels.settle(targets, jnp.tile(kept, (1, targets.own.shape[-1] // kept.shape[-1])))
