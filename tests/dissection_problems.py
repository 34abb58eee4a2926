"""Activations and label maps with every kind of trap, and bilinear upsampling in float64."""

import numpy as np

KINDS = (
    "relu",
    "dead",
    "sparse",
    "tied",
    "signed",
    "constant",
    "huge",
    "tiny",
    "negative",
    "subnormal",
)


def make_activations(images, height, width, units, seed=0):
    """[N, h, w, U] float32; unit u is of kind KINDS[u % len(KINDS)]."""
    draw = np.random.default_rng(seed)
    noise = draw.standard_normal((images, height, width, units))
    relu = np.maximum(noise - 0.5, 0)
    few = draw.random(noise.shape) < 0.003
    made = (
        *(relu, 0 * relu, relu * few, np.round(4 * relu) / 4, noise, 0 * relu + 1),
        *(1e30 * relu, 1e-30 * relu, -1 - np.abs(noise), 1e-41 * relu),
    )
    kind = np.arange(units) % len(KINDS)
    return np.select([kind == k for k in range(len(KINDS))], made).astype(np.float32)


def make_labels(images, height, width, slots, concepts, seed=0):
    """[N, H, W, K] uint16, blobs of labels, a third unlabeled; slot 1 often repeats slot 0."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(1, concepts, (images, -(-height // 4), -(-width // 4), slots))
    coarse *= draw.random(coarse.shape) < 2 / 3
    if slots > 1:
        coarse[..., 1] = np.where(
            draw.random(coarse.shape[:3]) < 0.5, coarse[..., 0], coarse[..., 1]
        )
    return coarse.repeat(4, 1).repeat(4, 2)[:, :height, :width].astype(np.uint16)


def upsampled(activations, size, padding):
    """[N, H, W, U] float64: half-pixel centers, one node of padding on each side."""
    padded = np.asarray(activations, np.float64)
    around = ((0, 0), (1, 1), (1, 1), (0, 0))
    padded = np.pad(padded, around, "edge" if padding == "edge" else "constant")
    for axis, target in ((1, size[0]), (2, size[1])):
        center = (np.arange(target) + 0.5) * activations.shape[axis] / target - 0.5
        node = np.floor(center + 1e-12).astype(int)
        share = np.expand_dims(center - node, [a for a in range(4) if a != axis])
        lower, upper = padded.take(node + 1, axis), padded.take(node + 2, axis)
        padded = (1 - share) * lower + share * upper
    return padded
