"""Attribution by redistributing an output layer by layer: DeepLIFT, relevance propagation, excitation backpropagation."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.attribution import rules
from mixaug_jax.attribution.target import nan_like, outputs, replacement
from mixaug_jax.core import checks
from mixaug_jax.core.types import Attribution, Baseline, Given, Image, Label
from mixaug_jax.models.net import Net, count_logits

ByLayer = tuple[tuple[str, Callable], ...]
# name: (rule of the first layer, of other convolutions, of dense layers), each a key of the settings in `lrp`. The last five
# are zennit's composites.
RULES = {
    "epsilon": ("epsilon", "epsilon", "epsilon"),
    "gamma": ("gamma", "gamma", "plain"),
    "alpha_beta": ("alpha_beta", "alpha_beta", "plain"),
    "z_plus": ("z_plus", "z_plus", "plain"),
    "w_squared": ("w_squared", "z_plus", "plain"),
    "flat": ("flat", "z_plus", "plain"),
    "z_box": ("z_box", "z_plus", "plain"),
    "epsilon_plus": ("z_plus", "z_plus", "plain"),
    "epsilon_plus_flat": ("flat", "z_plus", "plain"),
    "epsilon_alpha2_beta1": ("alpha_beta", "alpha_beta", "plain"),
    "epsilon_alpha2_beta1_flat": ("flat", "alpha_beta", "plain"),
    "epsilon_gamma_box": ("z_box", "gamma", "plain"),
}


def deeplift(net: Net, image: Image, label: Label, *, baseline: Baseline = "zero") -> Attribution:
    """DeepLIFT with the rescale rule, of the logit, signed [h,w,C] (Shrikumar et al. 2017, arXiv 1704.02685).

    Sums to the difference of the logit between image and baseline.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      baseline: "zero", "mean", "blur" or an array.

    Raises:
      ValueError: for a model whose layers have no rule fields.
    """
    image = checks.image(image)
    # Both run side by side, as one batch, so that a rule sees the image and the baseline at once.
    pair = jnp.stack([image, replacement(image, baseline)])
    ruled = net.with_rules(act=rules.rescale_act, pool=rules.rescale_pool)
    logit, slope = jax.value_and_grad(lambda x: outputs(ruled, x, label)[0])(pair)
    return nan_like(logit, slope[0] * (image - pair[1]))


def lrp(
    net: Net,
    image: Image,
    label: Label,
    *,
    rule: str | rules.Rule | Sequence = "z_plus",
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    alpha: float = 2.0,
    beta: float = 1.0,
    bounds: Given = (),
) -> Attribution:
    """Layer-wise relevance propagation of the logit, signed [h,w,C] (Bach et al. 2015, doi 10.1371/journal.pone.0130140).

    Batch norms are merged into the layers before them, which keeps relevance bounded (taken as layers of their own, as captum
    takes them and zennit without its canonizers, they blow it up). Activations pass relevance on, residual sums and average
    pools share it in proportion, max pools give it to the winner. Biases take their share: maps need not sum to the logit.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      rule: a name, a rule of `mixaug_jax.attribution.rules` for all layers, or pairs ((layer, rule), ...), one for each
        layer that has weights, of either: (("relu1", "z_box"), ("relu3", "gamma"), ("fc", rules.Epsilon())). A name in a pair
        means for what the layer holds what it means for that in the whole network. Names:
        "epsilon": everywhere.
        "gamma", "alpha_beta", "z_plus": in convolutions; dense layers have the epsilon rule at 1e-6, here and below.
        "w_squared", "flat", "z_box": in the first layer, z+ in other convolutions (Montavon et al. 2017, arXiv 1512.02479).
        "epsilon_plus", "epsilon_plus_flat", "epsilon_alpha2_beta1", "epsilon_alpha2_beta1_flat", "epsilon_gamma_box": zennit's
        composites of a rule for dense layers, one for convolutions and, where there is a third, one for the first layer.
      epsilon, gamma, alpha, beta: of the rules of those names.
      bounds: (low, high) of preprocessed pixels for "z_box", one number each or one a channel; () is what `net.preprocess`
        makes of black and white.

    Raises:
      ValueError: for an unknown rule or layer, or a network that normalizes before its convolutions, or has none and no
        dense layer.
    """
    image = checks.image(image)
    settings = Settings(epsilon, gamma, alpha, beta, bounds)
    return propagate(net, image, label, assigned(net, image, rule, settings))


@dataclasses.dataclass(frozen=True)
class Settings:
    """The numbers of the rules that have names; see `lrp`."""

    epsilon: float = 1e-6
    gamma: float = 0.25
    alpha: float = 2.0
    beta: float = 1.0
    bounds: Given = ()


def assigned(
    net: Net,
    image: Image,
    rule: str | rules.Rule | Sequence,
    settings: Settings = Settings(),
) -> ByLayer:
    """The rule of each conv and dense layer, as `propagate` takes them; computes nothing. Arguments and errors as `lrp`."""
    affine = _affine_parts(net, image)
    # Rules are frozen and equal by value, so that equal settings compile once.
    named = {
        "plain": rules.Epsilon(),
        "epsilon": rules.Epsilon(settings.epsilon),
        "gamma": rules.Gamma(settings.gamma),
        "alpha_beta": rules.AlphaBeta(settings.alpha, settings.beta),
        "z_plus": rules.ZPlus(),
        "w_squared": rules.WSquared(),
        "flat": rules.Flat(),
    }

    def ruled(rule: str | rules.Rule) -> ByLayer:
        if isinstance(rule, rules.Rule):
            return tuple((name, rule) for name, *_ in affine)
        checks.choice("rule", rule, tuple(RULES))
        # Only where asked for: the bounds need a network that says how it preprocesses.
        if "z_box" in RULES[rule]:
            named["z_box"] = rules.ZBox(*_bounds(net, image, settings.bounds))
        return _by_name(affine, [named[k] for k in RULES[rule]])

    if isinstance(rule, (tuple, list)):
        return _by_layer(net, affine, rule, ruled)
    return ruled(rule)


def excitation_backprop(
    net: Net, image: Image, label: Label, *, use_bias: bool = True
) -> Attribution:
    """Excitation backpropagation, not negative where the logit is not, [h,w,C] (Zhang et al. 2016, arXiv 1608.00507).

    Positive contributions in every layer. By default as zennit's composite: it starts from the logit, and positive biases take
    their share. The paper starts from 1 and has no biases: `use_bias=False`, divided by the logit, is its winning probability.
    At the image, inputs have both signs, and negative ones count with negative weights. zennit leaves the epsilon in a batch
    norm that it has merged, which scales what goes through by 1 / sqrt(1 + epsilon) at each: its maps are smaller.

    Args:
      net, image, label: see `mixaug_jax.attribution`.
      use_bias: whether biases take part, so that the map sums to less than the logit.

    Raises:
      ValueError: for a network that normalizes before its convolutions, or has none and no dense layer.
    """
    image = checks.image(image)
    rule = rules.AlphaBeta(1.0, 0.0, use_bias)
    return propagate(net, image, label, assigned(net, image, rule))


def propagate(net: Net, image: Image, label: Label, by_layer: ByLayer) -> Attribution:
    """Relevance of the label's logit at the image [h,w,C], under ((layer, rule), ...), one pair for each layer."""
    if count_logits(net, image.shape) == 1:
        net, label = _toward(net, by_layer[-1][0], label), 1
    ruled = propagating(net, by_layer)
    # What flows back starts as the logit itself, and rules hand it on as shares.
    logit, vjp = jax.vjp(lambda x: outputs(ruled, x, label), image[None])
    return nan_like(logit, vjp(logit)[0][0])


def propagating(net: Net, by_layer: ByLayer) -> Net:
    """The network whose gradients are relevances: under ((layer, rule), ...), and the rules of what has no weights."""
    return net.with_rules(
        affine=rules.ByLayer(by_layer),
        act=rules.pass_act,
        add=rules.share_add,
        pool=rules.share_pool,
    )


def _toward(net: Net, last: str, label: Label) -> Net:
    """A network of one logit as that whose logit is the class's own: for class 0 the last layer's weights change their sign.

    The sign cannot wait for the logit: rules that tell positive from negative weights need those that speak for the class.
    """
    checks.label(label, 2)
    sign = jnp.where(label == 1, 1.0, jnp.where(label == 0, -1.0, 0.0))
    params = net.variables["params"]
    turned = jax.tree.map(lambda w: sign * w, params[last])
    return dataclasses.replace(net, variables={**net.variables, "params": {**params, last: turned}})


@dataclasses.dataclass(frozen=True, eq=False)
class _Record:
    """An affine rule that notes the names of layers and the ranks of their kernels."""

    seen: list

    def __call__(self, name, linear, x, kernel, bias):
        self.seen.append((name, kernel.ndim))
        return linear(x, kernel, bias)


def _affine_parts(net: Net, image):
    """(name, layer, rank of the kernel) of each conv or dense layer, in order; nothing is computed."""
    found = []
    for layer in net.layers:
        # A layer's parts are those that come up first when the network is run as far as that layer.
        seen = []
        recorder = net.with_rules(affine=_Record(seen))
        jax.eval_shape(
            lambda x, recorder=recorder, layer=layer: recorder.features(x, layer), image[None]
        )
        known = {name for name, *_ in found}
        found += [(name, layer, rank) for name, rank in seen if name not in known]
    if not found:
        raise checks.UnsupportedError(
            f"{net.name} has no convolution and no dense layer of its own, so there is nothing that relevance could be "
            "propagated through"
        )
    return found


def _by_name(affine, chosen):
    first, conv, dense = chosen
    rules_of = [(name, dense if rank == 2 else conv) for name, _, rank in affine]
    return ((rules_of[0][0], first), *rules_of[1:])


def _by_layer(net, affine, pairs, ruled):
    if any(not isinstance(pair, (tuple, list)) or len(pair) != 2 for pair in pairs):
        raise ValueError(f"rule must be pairs of a layer and its rule; got {pairs!r}")
    for layer, _ in pairs:
        checks.choice("a layer of rule", layer, net.layers)
    chosen = {layer: dict(ruled(rule)) for layer, rule in pairs}
    missing = {layer for _, layer, _ in affine} - set(chosen)
    if missing:
        raise ValueError(f"rule names no rule for layer {', '.join(sorted(missing))}")
    return tuple((name, chosen[layer][name]) for name, layer, _ in affine)


def _bounds(net, image, bounds):
    """The lowest and the highest preprocessed value of each channel, as tuples."""
    if not checks.given(bounds):
        # Black and white, of the size that the network takes, so that resizing leaves them as they are.
        side = max(*image.shape[:2], getattr(net.preprocess, "size", 1))
        shape = (side, side, image.shape[-1])
        extremes = (np.full(shape, value, np.uint8) for value in (0, 255))
        bounds = [np.asarray(net.preprocess(extreme)).mean((0, 1)) for extreme in extremes]
    channels = image.shape[-1]
    try:
        low, high = (np.broadcast_to(np.asarray(b, float), channels) for b in bounds)
    except (TypeError, ValueError):
        raise ValueError(
            f"bounds must be (low, high), one number each or {channels}; got {bounds}"
        ) from None
    if not ((low < high) & np.isfinite(low) & np.isfinite(high)).all():
        raise ValueError(f"bounds must be low < high, and finite; got {bounds}")
    return tuple(low.tolist()), tuple(high.tolist())
