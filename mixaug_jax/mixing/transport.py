"""Blocks of an image that move so that what is salient is shown: PuzzleMix's transport."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core.types import AnyArray, Array, Count, Float, Images, Int

_FAR = 1e6  # the cost of a move out of the image


def transported(
    shares: Float[AnyArray, "B M"],
    wanted: Float[AnyArray, "B M"],
    blocks: Count,
    *,
    cost: float = 0.8,
) -> Int[Array, "B M"]:
    """The block that moves to each place so that what is salient lies where it is shown, [B,M] of M = P x P; -1 for none.

    The published code's auction: each block bids for its cheapest place, the cheapest bidder keeps it, and every loser pays 1
    more for that place in the next round; after as many rounds as there are blocks on a side. Here it ends as soon as no block
    that has something to gain loses, since nothing changes after that.

    Args:
      shares: [B,P*P] of the blocks in reading order, of which those of the first `blocks` rows and columns count.
      wanted: [B,P*P], above 0 where the image is shown.
      blocks: on a side, at most P; may be traced.
      cost: of a move over the whole side.
    """
    places = shares.shape[-1]
    at = np.arange(places)
    row, col = np.divmod(at, math.isqrt(places))
    apart = (row[:, None] - row) ** 2 + (col[:, None] - col) ** 2
    outside = (row >= blocks) | (col >= blocks)
    way = cost * apart / jnp.square(jnp.asarray(blocks - 1, jnp.float32))
    way = jnp.where((outside[:, None] | outside) & (apart > 0), _FAR, way)
    costs = way - shares[:, :, None] * (wanted[:, None, :] > 0)

    def first(found: Array, axis: int):  # of those that are true: faster than argmin
        index = at[:, None] if axis == 1 else at
        return jnp.where(found, index, places).min(axis)

    def bids(costs: Array):
        best = costs.min(2)
        place = first(costs == best[:, :, None], 2)
        asked = place[:, :, None] == at
        # Who does not bid counts as 0, so that only a bid below it wins, or the first block's.
        value = jnp.where(asked, best[:, :, None], 0)
        winner = first(value == value.min(1, keepdims=True), 1)
        kept = jnp.take_along_axis(winner, place, 1) == at
        source = jnp.where(jnp.take_along_axis(place, winner, 1) == at, winner, -1)
        return source, asked & ~kept[:, :, None], (~kept & (best < 0)).any()

    def going(state: tuple):
        return (state[0] < blocks) & state[3]

    def again(state: tuple):
        turn, costs, _, _ = state
        source, lost, contested = bids(costs)
        return turn + 1, costs + lost, source, contested

    start = (jnp.int32(0), costs, jnp.full(shares.shape, -1), jnp.bool_(True))
    return jax.lax.while_loop(going, again, start)[2].astype(jnp.int32)


def moved(images: Images, source: Int[AnyArray, "B M"], blocks: Count) -> Images:
    """`images` with blocks of `source` [B,P*P] in their places (see `transported`); places without one become 0."""
    wide = math.isqrt(source.shape[-1])
    index = []
    for side in images.shape[1:3]:
        pixel = np.arange(side)
        index.append((pixel * blocks // side, pixel % (side // blocks), side // blocks))
    # Of each pixel its block, its place in the block, and how long a block is.
    (row, below, high), (col, right, long) = index
    chosen = source.reshape(-1, wide, wide)[:, row[:, None], col]
    from_row = chosen // wide * high + below[:, None]
    from_col = chosen % wide * long + right
    taken = jax.vmap(lambda image, r, c: image[r, c])(images, from_row, from_col)
    return jnp.where((chosen >= 0)[..., None], taken, 0)
