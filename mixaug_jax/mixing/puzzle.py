"""PuzzleMix: which blocks of an image come from its partner, by a cut, and where the salient ones move, by transport."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core import checks
from mixaug_jax.core.types import (
    AnyArray,
    Array,
    Count,
    Float,
    Images,
    Indices,
    Int,
    Net,
    Numbers,
    RandomKey,
    Targets,
)
from mixaug_jax.mixing import draws, maps
from mixaug_jax.mixing.cut import Unary, least_labels
from mixaug_jax.mixing.labels import MASK_LABELS, VISIBLE, Pending, masked_targets
from mixaug_jax.mixing.pixels import mix
from mixaug_jax.mixing.transport import moved, transported

Blocks = Float[AnyArray, "B n m"]
_EXACT = jax.lax.Precision.HIGHEST


class Energy(NamedTuple):
    """What PuzzleMix's labels minimize; label l of levels - 1 is the share of the partner in a block.

    Attributes:
      unary: float32 [B,n,n,levels].
      rows: float32 [B,n-1,n] > 0, weights between a block and the one below it.
      cols: float32 [B,n,n-1] > 0, to its right.
    """

    unary: Unary
    rows: Blocks
    cols: Blocks


@dataclasses.dataclass(frozen=True)
class Weighing:
    """How the energy of labels is weighed.

    Attributes:
      beta, gamma, eta: weights >= 0 of equal labels in neighbors, of borders therein, at most 1, and of the prior.
      levels: labels, 2 or 3.
      neighbor: pixels that are averaged at a border, or the largest divisor of a block's side below.

    Raises:
      ValueError: one out of its range.
    """

    beta: float = 1.2
    gamma: float = 0.5
    eta: float = 0.2
    levels: int = 3
    neighbor: int = 4

    def __post_init__(self):
        for name in ("beta", "eta"):
            checks.number(name, getattr(self, name), 0)
        checks.number("gamma", self.gamma, 0, 1)
        checks.choice("levels", self.levels, (2, 3))
        checks.count("neighbor", self.neighbor)


def puzzle_energy(
    images: Images,
    saliency: maps.Maps,
    partner: Indices,
    lam: Numbers,
    blocks: int,
    weighing: Weighing = Weighing(),
) -> Energy:
    """The energy of the labels of blocks x blocks.

    Kim et al., Puzzle Mix, arXiv 2009.06962, eq. 4, as in the published code. A block's label costs the saliency that it gives
    away, what the prior says of it (binomial, by lambda), and the steps of brightness at the borders that it makes.

    Args:
      images: [B,H,W,C] in 0..1.
      saliency: [B,H,W] >= 0.
      partner: int [B].
      lam: a scalar or [B], the wanted share of the image itself.
      blocks: of a side, a divisor of both sides.
      weighing: of the three parts, and how many labels there are.
    """
    levels = weighing.levels
    share = maps.shares(_block_means(saliency.astype(jnp.float32), blocks))
    own, other = share[partner], share  # what is lost where the image, or the partner, is taken
    weights = []
    for axis in (1, 2):
        base = weighing.beta / (16 * blocks)
        factor = weighing.gamma * weighing.beta / (16 * blocks)
        oo, op, po, pp = _borders(
            images.astype(jnp.float32), partner, blocks, weighing.neighbor, axis
        )
        # What a border costs by the labels beside it is, up to a constant, a cost of each side alone and one of unequal labels.
        first, second = ([(0, 0)] * 3 for _ in range(2))
        first[axis], second[axis] = (0, 1), (1, 0)
        own += factor / 2 * (jnp.pad(op + oo, first) + jnp.pad(po + oo, second))
        other += factor / 2 * (jnp.pad(po + pp, first) + jnp.pad(op + pp, second))
        weights.append(base + factor / 2 * (op + po - oo - pp))
    lam = jnp.asarray(lam, jnp.float32)
    unary = []
    for k in range(levels):
        t, rest = k / (levels - 1), levels - 1 - k
        chance = math.comb(levels - 1, k) * lam**rest * (1 - lam) ** k
        prior = -weighing.eta / blocks**2 * jnp.log(chance + 1e-8)
        unary.append((1 - t) * own + t * other + jnp.reshape(prior, (-1, 1, 1)))
    return Energy(jnp.stack(unary, -1), *weights)


def _block_means(x, blocks):
    """[B,H,W,...] -> [B,blocks,blocks,...]."""
    count, height, width, *rest = x.shape
    shape = (count, blocks, height // blocks, blocks, width // blocks, *rest)
    return x.reshape(shape).mean((2, 4))


def _borders(images, partner, blocks, neighbor, axis):
    """Mean steps over the borders between blocks along an axis, of image or partner on either side: oo, op, po, pp."""
    images = jnp.swapaxes(images, 1, 2) if axis == 2 else images
    count, height, width, channels = images.shape
    high, wide = (_fitting(side // blocks, neighbor) for side in (height, width))
    # The cells that touch a border: the last of a block and the first of the next.
    cells = images.reshape(count, blocks, height // blocks, width // wide, wide, channels)
    before = cells[:, :-1, -high:].mean((2, 4))
    after = cells[:, 1:, :high].mean((2, 4))

    def step(here: Array, there: Array):
        steps = jnp.abs(here - there).mean(-1).reshape(count, blocks - 1, blocks, -1).mean(-1)
        return jnp.swapaxes(steps, 1, 2) if axis == 2 else steps

    own = step(before, after)
    crossed = step(before, after[partner]), step(before[partner], after)
    return own, *crossed, own[partner]


def _fitting(side, length):
    """The largest divisor of `side` that is at most `length`."""
    return max(d for d in range(1, side + 1) if side % d == 0 and d <= max(length, 1))


class Cut(NamedTuple):
    """Which blocks come from the partner.

    Attributes:
      labels: int [B,P,P], of which the first `blocks` rows and columns count: l of levels - 1 parts come from the partner.
      blocks: of the labels on a side, may be traced.
      levels: number of labels.
    """

    labels: Int[AnyArray, "B P P"]
    blocks: Count
    levels: int = 3


class Moves(NamedTuple):
    """How blocks move.

    Attributes:
      places: of the blocks that move, on a side, a multiple of a cut's `blocks`, may be traced; 0: nothing moves.
      cost: see `transported`.
      width: the most that `places` can be; 0: as many as the labels.
    """

    places: Count = 0
    cost: float = 0.8
    width: int = 0


def puzzle_mix(
    images: Images,
    saliency: maps.Maps,
    partner: Indices,
    cut: Cut,
    moves: Moves = Moves(),  # noqa: B008 (it is a tuple)
) -> tuple[Images, Float[Array, " B"]]:
    """Images mixed by labels, after what is salient was moved to where it is shown.

    Args:
      images: [B,H,W,C].
      saliency: [B,H,W] >= 0.
      partner: int [B].
      cut: the labels.
      moves: of what is salient.

    Returns:
      (images [B,H,W,C], the shares of the images themselves [B]).
    """
    kept = 1 - cut.labels / (cut.levels - 1)
    lam = _at_pixels(kept, cut.blocks, images.shape[1:3])
    places = moves.places
    if isinstance(places, int) and places == 0:
        return mix(images, images[partner], lam[..., None]), lam.mean((1, 2))
    width = moves.width or cut.labels.shape[1]
    shares = maps.shares(_traced_means(saliency.astype(jnp.float32), places, width))
    at = np.arange(width) * cut.blocks // places
    shown = kept[:, at[:, None], at].reshape(len(images), -1)
    # Image and partner at once, each where it is shown.
    own = shares.reshape(len(images), -1)
    source = transported(
        jnp.concatenate([own, own[partner]]),
        jnp.concatenate([shown, 1 - shown]),
        places,
        cost=moves.cost,
    )
    here, there = jnp.split(source, 2)
    here, there = moved(images, here, places), moved(images[partner], there, places)
    return mix(here, there, lam[..., None]), lam.mean((1, 2))


def _at_pixels(grid, blocks, size):
    """[B,P,P] -> [B,H,W] of the first blocks x blocks."""
    row, col = (np.arange(side) * blocks // side for side in size)
    return grid[:, row[:, None], col]


def _traced_means(maps_, blocks, width):
    """Means [B,width,width] over traced blocks x blocks; 0 outside of them."""
    rows, cols = (
        (np.arange(side) * blocks // side == np.arange(width)[:, None]) * (blocks / side)
        for side in maps_.shape[1:]
    )
    return jnp.einsum("ph,bhw,qw->bpq", rows, maps_, cols, precision=_EXACT)


def puzzlemix(
    key: RandomKey,
    images: Images,
    targets: Targets,
    *,
    net: Net = (),
    shard: Count = 0,
    prob: float = 1.0,
    per: str = "batch",
    label: str = "mixed",
    alpha: float = 1.0,
    blocks: Sequence[int] = (2, 4, 8, 16),
    beta: float = 1.2,
    gamma: float = 0.5,
    eta: float = 0.2,
    levels: int = 3,
    neighbor: int = 4,
    transport: bool = True,
    transport_cost: float = 0.8,
    transport_block: int = 0,
    iterations: int = 100,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
) -> tuple[Images, Targets | Pending]:
    """Blocks of two images chosen so that what is salient in both is shown, and moved to where it is; labels mixed by area.

    Kim et al., Puzzle Mix, arXiv 2009.06962, as in the published code for ImageNet (cross-entropy; saliency by the network in
    evaluation mode): the number of blocks is drawn for each batch. The labels are the exact minimum up to 5e-4, where the
    published alpha-beta swap finds it in two of three grids and its integers overflow at one block with 8 % of the saliency.

    Args:
      key: the step's key, equal on all devices.
      images: [B,H,W,C] floating point, normalized.
      targets: [B,K] rows summing to 1.
      net: whose loss tells what is salient; filled in by the train step.
      shard: index of this device along the data axis.
      prob: probability of mixing.
      per: "batch" as published, one lambda and one coin for the batch; or "example". The number of blocks is the batch's.
      label: what becomes of the labels, see `mix_targets` and `masked_targets`. "visible" needs transport=False: a block that
        moves is seen elsewhere than its parts are known to be. A block that is half of each counts by half.
      alpha: lambda ~ Beta(alpha, alpha).
      blocks: the numbers of blocks on a side to draw from, at least 2; each divides both sides.
      beta, gamma, eta: weights >= 0 of equal labels in neighbors, of borders therein, at most 1, and of the prior.
      levels: labels of a block: 3 (all, half, nothing), or 2.
      neighbor: pixels that are averaged at a border, or the largest divisor of a block's side below.
      transport: whether blocks move.
      transport_cost: of a move over the whole side, beside a block's share of the saliency.
      transport_block: pixels of the blocks that move, or the largest divisor of a block's side below; 0 is the labels' own
        blocks. 4 is published for CIFAR; for ImageNet nothing moves.
      iterations: of the solver, see `cut.least_labels`.
      mean, std: one number a channel, what the images were normalized with.

    Returns:
      (images, targets), mixed in float32, in the types given; targets of label="visible" or "attention" are `Pending`.

    Raises:
      ValueError: an option out of range, arrays that do not fit, no network, or sides that the blocks do not divide.
    """
    checks.batch(images, targets)
    draws.check(prob, per)
    checks.choice("label", label, MASK_LABELS)
    if label == VISIBLE and transport:
        raise ValueError(
            "label='visible' needs blocks that stay where they are, and puzzlemix moves them; set transport=False"
        )
    checks.positive("alpha", alpha)
    weighing = Weighing(beta, gamma, eta, levels, neighbor)
    checks.number("transport_cost", transport_cost, 0)
    checks.count("transport_block", transport_block, 0)
    checks.count("iterations", iterations)
    checks.normalized(images, mean, std, (images.shape[3],))
    _check_blocks(images, blocks)
    sides = _places(images, blocks, transport_block) if transport else [0]
    maps.needed("puzzlemix", net)
    permutation, (amount, whether, number) = draws.streams(key, shard, per, 3)
    # Of the batch whatever `per` says, so from what no device has of its own.
    number = number if per == "batch" else draws.streams(key, 0, "batch", 3)[1][2]
    shape = draws.shape(per, images)
    lam = draws.lam(amount, alpha, shape)
    partner = jax.random.permutation(permutation, images.shape[0])
    chosen = jax.random.randint(number, (), 0, len(blocks))
    saliency = maps.gradient(net, images, targets)
    pixels = images.astype(jnp.float32) * jnp.asarray(std) + jnp.asarray(mean)
    # Each number of blocks has shapes of its own: all are padded to the largest, so that one of them can be drawn inside.
    padded = functools.partial(_padded_energy, width=max(blocks), weighing=weighing)
    energies = [functools.partial(padded, blocks=n) for n in blocks]
    energy = jax.lax.switch(chosen, energies, pixels, saliency, partner, lam)
    labels = least_labels(*energy, iterations=iterations)
    places = jnp.asarray(sides)[chosen] if transport else 0
    mixed, share = puzzle_mix(
        images,
        saliency,
        partner,
        Cut(labels, jnp.asarray(blocks)[chosen], levels),
        Moves(places, transport_cost, max(sides)),
    )
    on = jnp.broadcast_to(draws.coin(whether, prob, shape), share.shape)
    mixed = jnp.where(on[:, None, None, None], mixed, images)
    mask = _at_pixels(1 - labels / (levels - 1), jnp.asarray(blocks)[chosen], images.shape[1:3])
    mask = jnp.where(on[:, None, None], mask, 1)
    return mixed, masked_targets(targets, targets[partner], mask, jnp.where(on, share, 1), label)


def _padded_energy(*seen, blocks, width, weighing):
    """`puzzle_energy` on width x width, so that one solver serves all; what is outside costs nothing."""
    energy = puzzle_energy(*seen, blocks, weighing)
    more = width - blocks
    return tuple(jnp.pad(x, ((0, 0), (0, more), (0, more), (0, 0))[: x.ndim]) for x in energy)


def _check_blocks(images, blocks):
    if not isinstance(blocks, (tuple, list)):
        raise ValueError(f"blocks must be several numbers, as in (4,); got {checks.shown(blocks)}")
    if not blocks:
        raise ValueError("blocks must hold a number at least; got none")
    sides = images.shape[1:3]
    for n in blocks:
        checks.count("each of blocks", n, 2)
        if any(side % n for side in sides):
            raise ValueError(
                f"blocks must divide the sides of the images, {sides[0]} x {sides[1]} pixels; got {n}"
            )


def _places(images, blocks, transport_block):
    """The blocks that move on a side, for each number of blocks of labels."""
    sides, found = images.shape[1:3], []
    for n in blocks:
        counts = {side // _fitting(side // n, transport_block or side) for side in sides}
        if len(counts) > 1 or max(counts) > _MOST_PLACES:
            raise ValueError(
                f"transport_block={transport_block} makes {' or '.join(map(str, sorted(counts)))} blocks on a side of images "
                f"of {sides[0]} x {sides[1]} pixels; at most {_MOST_PLACES}, as many on both, can move (0: the labels' own)"
            )
        found.append(counts.pop())
    return found


_MOST_PLACES = 32  # costs of all moves of an image: 4 MB
