"""Backward rules for the layers of a network: what flows back through a layer in place of its gradient.

Rules never change the forward pass. Those with settings are frozen dataclasses, so that two equal ones compile once.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Array
from mixaug_jax.models import binary

STABILIZER = 1e-6


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def replaced(
    forward: Callable, backward: Callable, *inputs: AnyArray
) -> Array | tuple[Array, Array]:
    """forward(*inputs), whose cotangent r goes back as backward(*inputs, r), a tuple of one array for each input."""
    return forward(*inputs)


def _run(forward, backward, *inputs):
    return forward(*inputs), inputs


def _go_back(forward, backward, inputs, r):
    return backward(*inputs, r)


replaced.defvjp(_run, _go_back)


def stabilize(z: AnyArray, epsilon: float = STABILIZER) -> Array:
    """z moved away from zero by epsilon; zero counts as positive."""
    return z + epsilon * jnp.where(z >= 0, 1, -1)


def share(f: Callable, inputs: tuple, r: AnyArray, epsilon: float = STABILIZER) -> Array:
    """Relevance r of z = f(*inputs), linear but for a bias, given to the inputs in proportion to what they add to z."""
    # x times its gradient is what x adds to z, so one transpose gives all shares.
    z, vjp = jax.vjp(f, *inputs)
    return sum(x * g for x, g in zip(inputs, vjp(r / stabilize(z, epsilon)), strict=True))


def _check(name, value):
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be finite and not negative; got {value}")


def _signed(x):
    return jnp.maximum(x, 0), jnp.minimum(x, 0)


@dataclasses.dataclass(frozen=True)
class Epsilon:
    """R_i = x_i w_ij / (z_j + epsilon sign(z_j)) R_j, Bach et al. 2015 eq. 58; epsilon in units of z.

    `use_bias=False` leaves the bias out of z, so that the inputs share all of R_j.
    """

    epsilon: float = STABILIZER
    use_bias: bool = True

    def __post_init__(self):
        _check("epsilon", self.epsilon)

    def __call__(
        self, linear: Callable, x: AnyArray, kernel: AnyArray, bias: AnyArray, r: AnyArray
    ) -> Array:
        bias = bias if self.use_bias else jnp.zeros_like(bias)
        return share(lambda x: linear(x, kernel, bias), (x,), r, self.epsilon)


@dataclasses.dataclass(frozen=True)
class Gamma:
    """Positive weights count (1 + gamma)-fold where z_j > 0 (Montavon et al. 2019, Layer-Wise Relevance Propagation).

    With inputs and outputs of both signs as in Andeol et al. 2021: what supports the sign of z_j counts more. `use_bias=False`
    leaves the bias out of the shares, not out of that sign.
    """

    gamma: float = 0.25
    use_bias: bool = True

    def __post_init__(self):
        _check("gamma", self.gamma)

    def __call__(
        self, linear: Callable, x: AnyArray, kernel: AnyArray, bias: AnyArray, r: AnyArray
    ) -> Array:
        z = linear(x, kernel, bias)
        # The bias belongs to the sum: one of the two parts carries it.
        none = jnp.zeros_like(bias)
        bias = bias if self.use_bias else none
        # Positive weights favored, or negative ones: which support z_j depends on the input's sign.
        more = [w + self.gamma * jnp.maximum(w, 0) for w in (kernel, bias)]
        less = [w + self.gamma * jnp.minimum(w, 0) for w in (kernel, bias)]

        def positive(p: AnyArray, n: AnyArray) -> Array:
            return linear(p, *more) + linear(n, less[0], none)

        def negative(p: AnyArray, n: AnyArray) -> Array:
            return linear(p, *less) + linear(n, more[0], none)

        above = share(positive, _signed(x), jnp.where(z > 0, r, 0))
        return above + share(negative, _signed(x), jnp.where(z < 0, r, 0))


@dataclasses.dataclass(frozen=True)
class AlphaBeta:
    """alpha times the share in the positive contributions minus beta times that in the negative ones.

    Bach et al. 2015, eq. 60; alpha - beta must be 1. Inputs may have both signs; a bias takes its share by its sign.
    `use_bias=False` leaves it out.
    """

    alpha: float = 2.0
    beta: float = 1.0
    use_bias: bool = True

    def __post_init__(self):
        _check("beta", self.beta)
        if not abs(self.alpha - self.beta - 1) <= 1e-6:
            raise ValueError(f"alpha - beta must be 1; got alpha {self.alpha} and beta {self.beta}")

    def __call__(
        self, linear: Callable, x: AnyArray, kernel: AnyArray, bias: AnyArray, r: AnyArray
    ) -> Array:
        none = jnp.zeros_like(bias)
        bias = bias if self.use_bias else none
        plus, minus = _signed(kernel)

        def positive(p: AnyArray, n: AnyArray) -> Array:
            return linear(p, plus, jnp.maximum(bias, 0)) + linear(n, minus, none)

        def negative(p: AnyArray, n: AnyArray) -> Array:
            return linear(p, minus, jnp.minimum(bias, 0)) + linear(n, plus, none)

        shared = self.alpha * share(positive, _signed(x), r)
        # The share in the negative contributions need not be computed.
        if self.beta == 0:
            return shared
        return shared - self.beta * share(negative, _signed(x), r)


@dataclasses.dataclass(frozen=True)
class ZPlus:
    """The z+ rule of deep Taylor decomposition, Montavon et al. 2017, for inputs of both signs: alpha 1, beta 0.

    In the paper biases have no share: `use_bias=False`.
    """

    use_bias: bool = True

    def __call__(
        self, linear: Callable, x: AnyArray, kernel: AnyArray, bias: AnyArray, r: AnyArray
    ) -> Array:
        return AlphaBeta(1.0, 0.0, self.use_bias)(linear, x, kernel, bias, r)


@dataclasses.dataclass(frozen=True)
class WSquared:
    """The w^2 rule, Montavon et al. 2017: in proportion to squared weights, for inputs without bounds.

    A bias takes the share of its square, as in zennit; it has none in the paper: `use_bias=False`.
    """

    use_bias: bool = True

    def __call__(
        self, linear: Callable, x: AnyArray, kernel: AnyArray, bias: AnyArray, r: AnyArray
    ) -> Array:
        # Shares of z(1) are those of the weights, whatever the input is.
        ones = jnp.ones_like(x)
        bias = bias if self.use_bias else jnp.zeros_like(bias)
        return share(lambda x: linear(x, jnp.square(kernel), jnp.square(bias)), (ones,), r)


@dataclasses.dataclass(frozen=True)
class Flat:
    """Relevance spread evenly over a neuron's inputs, Lapuschkin et al. 2019: for the first layer."""

    def __call__(
        self, linear: Callable, x: AnyArray, kernel: AnyArray, bias: AnyArray, r: AnyArray
    ) -> Array:
        ones, none = jnp.ones_like(x), jnp.zeros_like(bias)
        return share(lambda x: linear(x, jnp.ones_like(kernel), none), (ones,), r)


@dataclasses.dataclass(frozen=True)
class ZBox:
    """The z^B rule, Montavon et al. 2017: for inputs between `low` and `high`, one number each or one a channel.

    A dense layer's inputs are taken for pixels one after the other, channel after channel in each.
    """

    low: float | tuple[float, ...]
    high: float | tuple[float, ...]

    def __call__(
        self, linear: Callable, x: AnyArray, kernel: AnyArray, bias: AnyArray, r: AnyArray
    ) -> Array:
        low, high = (_spread(v, x, kernel.ndim == 2) for v in (self.low, self.high))
        plus, minus = _signed(kernel)
        none = jnp.zeros_like(bias)  # the bias itself cancels between the three terms

        def f(x: AnyArray, low: AnyArray, high: AnyArray) -> Array:
            return linear(x, kernel, none) - linear(low, plus, none) - linear(high, minus, none)

        return share(f, (x, low, high), r)


def _spread(value, x, dense):
    """One number, or one a channel, at every input."""
    value = jnp.asarray(value, x.dtype)
    inputs, channels = x.shape[-1], value.size
    # Only a dense layer has several pixels' channels as its inputs.
    if value.ndim and (inputs % channels if dense else inputs != channels):
        raise ValueError(
            f"the z_box rule has bounds of {channels} channels, and its layer has {inputs} inputs; it is for the first layer"
        )
    value = jnp.tile(value, inputs // channels) if value.ndim else value
    return jnp.broadcast_to(value, x.shape)


Rule = Epsilon | Gamma | AlphaBeta | ZPlus | WSquared | Flat | ZBox


@dataclasses.dataclass(frozen=True)
class ByLayer:
    """An affine rule that applies to each layer the rule that `rules` names for it."""

    rules: tuple[tuple[str, Callable], ...]

    def __call__(
        self, name: str, linear: Callable, x: AnyArray, kernel: AnyArray, bias: AnyArray
    ) -> Array:
        rule = dict(self.rules)[name]

        def backward(
            x: AnyArray, kernel: AnyArray, bias: AnyArray, r: AnyArray
        ) -> tuple[Array, Array, Array]:
            # Relevance takes the place of the gradient at the input; weights get none, as nothing is trained by it.
            relevance = rule(linear, x, kernel, bias, r)
            return relevance, jnp.zeros_like(kernel), jnp.zeros_like(bias)

        return replaced(linear, backward, x, kernel, bias)


@dataclasses.dataclass(frozen=True, eq=False)
class Recorder:
    """Rules that change nothing and note what goes by, in the order of the layers: logits stay the same to the bit.

    Where `sums` have the same signs and `winners` are the same, a ReLU network is the same linear function. Two recorders are
    never equal, so a program that makes one compiles for itself.

    Attributes:
      sums: what goes into each ReLU.
      winners: of each max pool, how much of a fixed weight each input wins: the same only where the same inputs win.
    """

    sums: list = dataclasses.field(default_factory=list)
    winners: list = dataclasses.field(default_factory=list)

    def act(self, name: str, x: AnyArray) -> Array:
        """The rule of a ReLU."""
        check_relu(name)
        self.sums.append(x)
        return jax.nn.relu(x)

    def pool(self, name: str, plain: Callable, x: AnyArray) -> Array:
        """The rule of a pool."""
        if name.rpartition(".")[2].startswith("max"):
            y, vjp = jax.vjp(plain, x)
            # Different weights for different outputs: a sum of ones could not tell which of them was won.
            weights = jnp.arange(1, y.size + 1, dtype=y.dtype).reshape(y.shape) / y.size
            self.winners.append(vjp(weights)[0])
        return plain(x)


def pass_act(name: str, x: AnyArray) -> Array:
    """Relevance goes through an activation unchanged; what a ReLU6 cuts off takes none of it."""
    if _is_sign(name):
        return binary.identity(x)
    if _is_cut(name):
        return jax.lax.stop_gradient(jax.nn.relu(x))
    return replaced(jax.nn.relu, lambda x, r: (r,), x)


def _is_cut(name):
    """Whether this is the ReLU that a ReLU6 subtracts; see `layers.StagedModel`."""
    return name.rpartition(".")[2] == "cut"


def _is_sign(name):
    """Whether this is a binarized network's activation; see `models.binary`."""
    return name.rpartition(".")[2].startswith("sign")


def check_relu(name: str) -> None:
    """Raises checks.UnsupportedError where a rule of a ReLU meets a sign."""
    if _is_sign(name):
        raise checks.UnsupportedError(
            f"{name} is a sign, whose rule may be clipped_act, bireal_act or identity_act of models.binary; this one is a "
            "ReLU's"
        )


def share_add(name: str, x: AnyArray, y: AnyArray) -> Array:
    """A residual sum shares relevance in proportion to its summands."""

    def backward(x: AnyArray, y: AnyArray, r: AnyArray) -> tuple[Array, Array]:
        part = r / stabilize(x + y)
        return x * part, y * part

    return replaced(jnp.add, backward, x, y)


def share_pool(name: str, plain: Callable, x: AnyArray) -> Array:
    """Max pooling gives relevance to the winner, average pooling in proportion to the inputs."""
    if name.rpartition(".")[2].startswith("max"):
        return plain(x)  # whose gradient already goes to the winner
    return replaced(plain, lambda x, r: (share(plain, (x,), r),), x)


def guided_act(name: str, x: AnyArray) -> Array:
    """Guided backpropagation: only positive gradients of positive inputs pass, and none where a ReLU6 cuts."""
    check_relu(name)
    if _is_cut(name):
        return jax.nn.relu(x)
    return replaced(jax.nn.relu, lambda x, r: (jnp.where(x > 0, jnp.maximum(r, 0), 0),), x)


def deconvnet_act(name: str, x: AnyArray) -> Array:
    """The deconvolutional network's ReLU: only positive gradients pass, whatever the input was; none where a ReLU6 cuts."""
    check_relu(name)
    if _is_cut(name):
        return jax.nn.relu(x)
    return replaced(jax.nn.relu, lambda x, r: (jnp.maximum(r, 0),), x)


def rescale_act(name: str, x: AnyArray) -> Array:
    """DeepLIFT's rescale rule, for x [2,...] = (image, baseline): the slope between the two instead of the derivative."""
    check_relu(name)

    def backward(x: AnyArray, r: AnyArray) -> tuple[Array]:
        slope = _ratio(
            jax.nn.relu(x[0]) - jax.nn.relu(x[1]), x[0] - x[1], (x[0] > 0).astype(x.dtype)
        )
        # The baseline's half of the batch is a companion and gets nothing.
        return (jnp.stack([r[0] * slope, jnp.zeros_like(r[0])]),)

    return replaced(jax.nn.relu, backward, x)


def rescale_pool(name: str, plain: Callable, x: AnyArray) -> Array:
    """DeepLIFT for pooling of x [2,...] = (image, baseline).

    Average pooling is linear. In max pooling a rise is owed to the image's winner, a fall to the baseline's, as in SHAP's and
    captum's code; so the difference is always shared out. Where several pixels win in the baseline, the image's winner is
    preferred (there the first one): with a constant baseline this is the gradient, as in the authors' code.
    """
    if not name.rpartition(".")[2].startswith("max"):
        return plain(x)

    def backward(x: AnyArray, r: AnyArray) -> tuple[Array]:
        image, start, r = x[:1], x[1:], r[:1]
        y, vjp = jax.vjp(plain, image)
        y_start, vjp_start = jax.vjp(plain, start)
        # The baseline at the image's winner, read by the transpose of the pool's own gradient.
        start_at_winner = jax.linear_transpose(vjp, y)((start,))[0]
        mine = (y >= y_start) | (start_at_winner >= y_start)
        owed = r * (y - y_start)
        shared = vjp(jnp.where(mine, owed, 0))[0] + vjp_start(jnp.where(mine, 0, owed))[0]
        slope = _ratio(shared, image - start, vjp(r)[0])
        return (jnp.concatenate([slope, jnp.zeros_like(slope)]),)

    return replaced(plain, backward, x)


def _ratio(numerator, denominator, otherwise):
    """numerator / denominator, and `otherwise` where image and baseline agree."""
    far = jnp.abs(denominator) > 1e-10
    return jnp.where(far, numerator / jnp.where(far, denominator, 1), otherwise)
