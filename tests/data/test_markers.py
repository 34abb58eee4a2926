"""Markers: labels, and pictures of them that derivatives, another way to draw, and their own symmetry hold to."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest

from mixaug_jax.data.markers import tag_renderer, tags

SIZE = 64
POSE = ("zrot", "yrot", "xrot", "center", "radius", "inner", "bulge", "focal")


@jax.jit
def drawn(labels):
    return tag_renderer.render(labels, SIZE)


def some(count=8, *, tilt=60, seed=0, spin=math.pi):
    """Drawn labels, whose tilts are cut at so many degrees."""
    labels = tags.draw(jax.random.key(seed), count, size=SIZE, spin=spin)
    most = math.radians(tilt)
    clipped = {name: jnp.clip(getattr(labels, name), -most, most) for name in ("yrot", "xrot")}
    return dataclasses.replace(labels, **clipped)


def test_labels_are_as_published():
    labels = jax.jit(lambda key: tags.draw(key, 4000, size=64))(jax.random.key(0))
    ends = {"zrot": (-math.pi, math.pi), "yrot": (-math.pi / 3, math.pi / 3), "center": (-4, 4),
            "radius": (22, 26), "inner": (0.42, 0.48), "bulge": (0.4, 0.8), "focal": (2, 4)}  # fmt: skip
    for name, (low, high) in ends.items():
        found = np.asarray(getattr(labels, name))
        assert low <= found.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < found.max() <= high
    np.testing.assert_allclose(labels.bits.mean(0), 0.5, atol=0.04)
    np.testing.assert_allclose(labels.radius.mean(), 24, atol=0.1)
    # Of a normal distribution of 30 degrees that is cut at two deviations.
    np.testing.assert_allclose(np.std(labels.xrot), math.radians(30) * 0.88, rtol=0.04)
    half = tags.draw(jax.random.key(0), 4000, size=32, spin=0.5)
    np.testing.assert_allclose(half.radius, labels.radius / 2, rtol=1e-6)
    assert 0.48 < np.abs(half.zrot).max() <= 0.5


def test_ids_are_read_from_their_first_bit_on():
    found = tags.bits_of(jnp.int32([1, 2048, 4095]))
    np.testing.assert_array_equal(found[0], [0] * 11 + [1])
    np.testing.assert_array_equal(found[1], [1] + [0] * 11)
    np.testing.assert_array_equal(tags.number_of(tags.bits_of(jnp.arange(4096))), np.arange(4096))


def test_ranges_and_ground():
    made = drawn(some())
    for value, low, high in ((made.tag, -1, 1), (made.cover, 0, 1)):
        assert (low <= value).all()
        assert (value <= high).all()
        assert np.isfinite(value).all()
    beside = np.asarray(made.cover) == 0
    assert (np.asarray(made.tag)[beside] == -1).all()
    assert (np.asarray(made.depth)[beside] == 0).all()
    # The middle of a marker that lies flat is nearer than its rim.
    flat = some(1, tilt=0)
    flat = dataclasses.replace(flat, center=jnp.zeros((1, 2)), bulge=jnp.array([0.8]))
    depth, cover = (np.asarray(v)[0] for v in (drawn(flat).depth, drawn(flat).cover))
    assert depth[32, 32] == pytest.approx(math.cos(0.8) - 1, abs=1e-3)
    assert depth[32, 32] < depth[cover == 1].max() < 0


def turned(labels, by):
    return dataclasses.replace(labels, zrot=labels.zrot + by)


@pytest.mark.parametrize("tilt", [0, 45])
def test_turning_by_a_cell_shifts_the_code(tilt):
    """Of a flat marker everything else than the halves; of a tilted one the ring where the tilt turns with it."""
    flat = dataclasses.replace(some(4, tilt=0), center=jnp.zeros((4, 2)))
    # Rz Ry Rx: the tilt is a part of what is turned, so one cell more is another picture of the same tilted disc.
    flat = dataclasses.replace(flat, yrot=jnp.full(4, math.radians(tilt)))
    shifted = dataclasses.replace(flat, bits=jnp.roll(flat.bits, 3, 1))
    if tilt == 0:
        back = turned(flat, math.pi / 2)
        one, two = np.asarray(drawn(back).tag), np.asarray(drawn(shifted).tag)
        row, col = np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2
        ring = np.hypot(row, col) / np.asarray(flat.radius)[:, None, None] > 0.55
        np.testing.assert_allclose(one[ring], two[ring], atol=1e-3)
        assert np.abs(one - two).max() > 1  # the halves have turned
        cell = dataclasses.replace(flat, bits=jnp.roll(flat.bits, 1, 1))
        one, two = np.asarray(drawn(turned(flat, math.pi / 6)).tag), np.asarray(drawn(cell).tag)
        np.testing.assert_allclose(one[ring], two[ring], atol=1e-3)
    # A quarter of a turn of the whole is a quarter of a turn of the picture, whatever the tilt.
    quarter = np.asarray(drawn(turned(flat, math.pi / 2)).tag)
    np.testing.assert_allclose(quarter, np.rot90(drawn(flat).tag, -1, (1, 2)), atol=2e-3)


def filled(label, size, samples=8):
    """The white of a marker by polygons that are projected forwards, [size,size] in 0..1, and what it covers."""
    side = size * samples
    white, cover = (PIL.Image.new("L", (side, side)) for _ in range(2))
    turn = np.asarray(tag_renderer.rotation(label.zrot, label.yrot, label.xrot))

    def at(r, a):
        z = math.cos(label.bulge) - np.cos(label.bulge * r)
        x, y, z = turn @ np.stack([r * np.cos(a), r * np.sin(a), z])
        scale = label.focal * label.radius / (z + label.focal)
        points = np.stack([x * scale + label.center[1], y * scale + label.center[0]], -1)
        return [tuple(p) for p in (points + size / 2) * samples]

    def patch(picture, r0, r1, a0, a1, fill):
        a = np.linspace(a0, a1, 40)
        PIL.ImageDraw.Draw(picture).polygon(
            at(np.full(40, r0), a) + at(np.full(40, r1), a[::-1]), fill=fill
        )

    rings = np.linspace(0, 1, 21)
    for r0, r1 in itertools.pairwise(rings):
        patch(cover, r0, r1, 0, 2 * math.pi, 255)
    patch(white, 0.8, 1, 0, 2 * math.pi, 255)
    for k, bit in enumerate(np.asarray(label.bits)):
        cells = np.linspace(label.inner, 0.8, 8)
        for r0, r1 in itertools.pairwise(cells):
            patch(white, r0, r1, k * math.pi / 6, (k + 1) * math.pi / 6, int(255 * bit))
    for r0, r1 in itertools.pairwise(rings * label.inner):
        patch(white, r0, r1, -math.pi / 2, math.pi / 2, 255)
    pixels = (size, samples, size, samples)
    return [np.asarray(p).reshape(pixels).mean((1, 3)) / 255 for p in (white, cover)]


def test_pictures_are_those_of_filled_polygons():
    labels = some(12, tilt=28)  # of both axes: at most 40 degrees together
    made = drawn(labels)
    for i in range(12):
        label = jax.tree.map(lambda v, i=i: np.asarray(v[i], np.float64), labels)
        white, cover = filled(label, SIZE)
        pairs = ((np.asarray(made.tag[i]) / 2 + 0.5, white), (np.asarray(made.cover[i]), cover))
        for found, expected in pairs:
            overlap = np.minimum(found, expected).sum() / np.maximum(found, expected).sum()
            assert overlap > 0.97


def score(label):
    """A smooth weighting of a picture."""
    row, col = np.mgrid[:SIZE, :SIZE] / SIZE
    weights = np.sin(5 * row + 1) * np.cos(4 * col) + row
    made = tag_renderer.render(jax.tree.map(lambda v: v[None], label), SIZE)
    return ((made.tag[0] + made.cover[0]) * weights).sum()


def test_gradients_are_finite_differences():
    """In 64 bits and by a tiny step: a ramp has corners, and every longer step crosses some."""
    step = 1e-6
    with jax.enable_x64(True):
        labels = jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), some(3, tilt=45, seed=3))
        slope, value = (jax.jit(jax.vmap(f)) for f in (jax.grad(score), score))
        found = slope(labels)
        for name in POSE:
            one = jnp.ones_like(getattr(labels, name))
            if name == "center":
                one = one.at[:, 0].set(0)
            moved = [getattr(labels, name) + s * step * one for s in (-1, 1)]
            low, high = (value(dataclasses.replace(labels, **{name: m})) for m in moved)
            expected = (high - low) / (2 * step)
            own = getattr(found, name)
            own = own[:, 1] if name == "center" else own
            np.testing.assert_allclose(own, expected, rtol=1e-2, atol=1e-2)
            assert (np.abs(expected) > 0.1).any()  # it changes the picture


def test_gradients_are_finite_at_the_middle_and_at_the_far_rim():
    labels = some(16, seed=5)
    most = jnp.full(16, math.radians(60))
    steep = dataclasses.replace(labels, yrot=most, center=jnp.full((16, 2), 0.25))
    found = jax.jit(jax.grad(lambda given: tag_renderer.render(given, SIZE).tag.sum()))(steep)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_cells_are_where_a_bit_is_seen():
    """Pixels that change from black to white with a bit are those of its cell."""
    labels = some(4)
    found = np.asarray(jax.jit(lambda labels: tag_renderer.cells(labels, SIZE))(labels))
    for k in range(12):
        without, with_it = (dataclasses.replace(labels, bits=labels.bits.at[:, k].set(v)) for v in (0, 1))  # fmt: skip
        changed = np.asarray(drawn(with_it).tag - drawn(without).tag) > 1
        both = changed & (found == k + 1)
        assert both.sum() > 0.9 * (changed | (found == k + 1)).sum()
    assert found.dtype == np.uint8
    assert set(np.unique(found)) == set(range(13))
