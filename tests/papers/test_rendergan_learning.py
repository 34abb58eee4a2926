"""Learning the chain: what may depend on what, one step against the losses' own gradients, going on, and what is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import PIL.Image
import pytest
import rendergan_case
from scipy import ndimage

from mixaug_jax import data
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core import files
from mixaug_jax.papers.rendergan import adversary, chain, decoding, few, learning, looking, making
from mixaug_jax.training import checkpoint, loop

SIZE, BATCH, SEED, STEPS = 16, 8, 3, 10
GENERATOR = few.Few(SIZE, 0.7)
DISCRIMINATOR = adversary.Discriminator(2)


@pytest.fixture(scope="module")
def state():
    return jax.device_get(adversary.init(GENERATOR, DISCRIMINATOR, SEED, STEPS))


@pytest.fixture(scope="module")
def batch():
    return {"image": np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 1), np.uint8)}


def keys(count=BATCH):
    return adversary.keys_of(SEED, 0, count, 0)


def test_bits_change_nothing_but_what_is_printed(state):
    latents = few.draw(keys(), SIZE)

    def parameters(bits):
        labels, found = GENERATOR.apply({"params": state.generator}, latents | {"bits": bits})
        return dataclasses.replace(labels, bits=jnp.zeros(())), found

    def sums(bits):
        return jnp.stack([leaf.sum() for leaf in jax.tree.leaves(parameters(bits))])

    slope = jax.jit(jax.jacrev(sums))(latents["bits"])
    np.testing.assert_array_equal(slope, 0)
    _, made, _, _ = jax.jit(functools.partial(adversary.generate, GENERATOR))(
        state.generator, keys()
    )
    assert np.isfinite(made.tag).all()


def test_how_markers_lie_is_learned_through_the_renderer_alone(state):
    """The links' parameters see the pose; no gradient goes back that way."""

    def links(params):
        _, found = GENERATOR.apply({"params": params}, few.draw(keys(), SIZE))
        return sum(jnp.square(v).sum() for v in jax.tree.leaves(found))

    slope = jax.jit(jax.grad(links))(state.generator)
    for name, leaves in slope.items():
        size = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(leaves))
        assert (size == 0) == name.startswith("pose"), name


def test_ranges_of_labels(state):
    program = jax.jit(lambda p: GENERATOR.apply({"params": p}, few.draw(keys(64), SIZE)))
    labels, parameters = program(state.generator)
    assert np.abs(labels.zrot).max() <= 0.7
    assert np.abs(labels.center).max() <= 1
    for name in few.POSE:
        assert np.std(getattr(labels, name)) > 0
    np.testing.assert_allclose(parameters["blur"]["weights"].sum(1), 1, rtol=1e-6)
    assert labels.bits.shape == (64, 12)
    # Each picture's noise is its own, and the same in any batch.
    np.testing.assert_array_equal(few.draw(keys(64)[5:7], SIZE)["full"], few.draw(keys(64), SIZE)["full"][5:7])  # fmt: skip


def close(one, two):
    """Two trees, to a ten-thousandth of their largest number."""
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(two))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * scale), one, two)


def stepped(state, batch, devices):
    """The state after a step on so many devices, and the metrics."""
    names = {"generator": GENERATOR, "discriminator": DISCRIMINATOR}
    modules = {name: module.clone(axis_name=devices_lib.AXIS) for name, module in names.items()}
    step = functools.partial(adversary.train_step, **modules, seed=SEED, steps=STEPS)
    here = jax.devices()[:devices]
    specs = (devices_lib.REPLICATED, devices_lib.SHARDED)
    mapped = devices_lib.pmap(step, specs, (devices_lib.REPLICATED,) * 2, devices=here)
    given = devices_lib.replicate(state, here), devices_lib.shard_batch(batch, here)
    return jax.device_get(mapped(*given))


@pytest.fixture(scope="module")
def after(state, batch):
    return stepped(state, batch, 1)


def test_a_step_is_that_of_the_two_losses(state, batch, after):
    real = chain.as_numbers(jnp.asarray(batch["image"]))

    def losses(g, d):
        _, _, pictures, penalties = adversary.generate(GENERATOR, g, keys())
        logits = DISCRIMINATOR.apply(
            {"params": d}, jnp.concatenate([real, adversary.last(pictures)])
        )
        of_real, of_fake = logits[:BATCH], logits[BATCH:]
        of_d = jax.nn.softplus(-of_real).mean() + jax.nn.softplus(of_fake).mean()
        return jax.nn.softplus(-of_fake).mean() + sum(penalties.values()), of_d

    def slopes(g, d):
        of_g, of_d = (jax.grad(lambda *p, k=k: losses(*p)[k], k)(g, d) for k in (0, 1))
        return of_g, of_d, losses(g, d)

    of_g, of_d, (loss_g, loss_d) = jax.jit(slopes)(state.generator, state.discriminator)
    adam = optax.adam(4e-4, b1=0.5)
    for name, grads in (("generator", of_g), ("discriminator", of_d)):
        # Adam's first moments are half the gradients.
        found, params = getattr(after[0], f"{name}_state")[0].mu, getattr(state, name)
        close(jax.tree.map(lambda m: 2 * m, found), grads)
        doubled = jax.tree.map(lambda m: 2 * m, found)
        moves, _ = adam.update(doubled, adam.init(params))
        close(getattr(after[0], name), optax.apply_updates(params, moves))
    metrics = after[1]
    assert metrics["discriminator_loss"] == pytest.approx(float(loss_d), rel=1e-4)
    penalties = sum(metrics[f"penalty_{name}"] for name in few.LINKS)
    assert metrics["generator_loss"] + penalties == pytest.approx(float(loss_g), rel=1e-4)
    assert after[0].step == 1
    mixed = jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, state.average, after[0].generator)
    close(after[0].average, mixed)


def test_a_step_is_the_same_on_four_devices(state, batch, after):
    found, metrics = stepped(state, batch, 4)
    for name, value in after[1].items():
        assert metrics[name] == pytest.approx(float(value), rel=1e-4, abs=1e-6), name
    for name in ("generator_state", "discriminator_state"):
        close(getattr(found, name)[0].mu, getattr(after[0], name)[0].mu)


def test_a_training_that_goes_on_ends_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr(learning, "_EPOCH", 1)
    config = rendergan_case.config(tmp_path / "cache", "detail")
    learning.STAGE.run(config, tmp_path / "whole")
    prefetch = devices_lib.prefetch

    def one_batch(batches, size=2):
        yield next(prefetch(batches, size))
        raise KeyboardInterrupt

    def killed(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as cut:
        cut.setattr(devices_lib, "prefetch", one_batch)
        with pytest.raises(KeyboardInterrupt):
            learning.STAGE.run(config, tmp_path / "cut")
    with monkeypatch.context() as cut:
        cut.setattr(looking, "draw_links", killed)
        with pytest.raises(KeyboardInterrupt):
            learning.STAGE.run(config, tmp_path / "cut")
    assert checkpoint.steps_there(tmp_path / "cut" / "gan") == [1, 2]
    # The decoder's model is none of the generator's business.
    config.model.width = 0.5
    learning.STAGE.run(config, tmp_path / "cut")
    whole, cut = (learning.load_generator(config, tmp_path / name)[1] for name in ("whole", "cut"))
    jax.tree.map(np.testing.assert_array_equal, whole, cut)
    folder = tmp_path / "whole" / "gan"
    sheets = [
        {path.name: path.read_bytes() for path in (tmp_path / name / "gan").glob("links_*.png")}
        for name in ("whole", "cut")
    ]
    assert sheets[0].keys() == {"links_1.png", "links_2.png"}
    assert sheets[0] == sheets[1]
    assert {path.stem for path in folder.glob("*.csv")} == {"statistics", "worth", "apart"}
    names = [row["what"] for row in files.read_csv(folder / "statistics.csv")]
    assert names[0] == "brightness, mean"
    assert "zrot, deviation" in names
    # What a decoder would be given.
    make, arrays = making.maker(config, tmp_path / "whole")
    alone = functools.partial(
        make.func, **make.keywords | {"generator": GENERATOR.clone(spin=0.785)}
    )
    made = jax.jit(lambda key, arrays: alone(key, 6, arrays))(jax.random.key(0), arrays)
    assert made["image"].shape == (6, 16, 16, 1)
    assert made["targets"].shape == (6, 12)
    # Other settings of the generator, and a generator of another size.
    config.markers.filters = 3
    with pytest.raises(ValueError, match=r"generator of other settings \(filters: 2 -> 3\)"):
        learning.STAGE.run(config, tmp_path / "cut")
    config.data.size = 17
    with pytest.raises(ValueError, match="holds a generator of size 16; this run has 17"):
        learning.load_generator(config, tmp_path / "cut")
    with pytest.raises(ValueError, match="holds no generator; --stage=gan trains one"):
        learning.load_generator(config, tmp_path)


def test_what_is_made_depends_on_no_remainder(state, tmp_path, monkeypatch):
    """Eleven markers are the first of sixteen; a sheet with fewer real pictures than a row has room for."""
    monkeypatch.setattr(looking, "_BATCH", 8)
    few_ones, more = (looking.made_by(GENERATOR, state.average, 5, count) for count in (11, 16))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:11]), few_ones, more)
    source = [{"image": np.full((SIZE, SIZE, 1), gray, np.uint8)} for gray in (0, 100, 200)]
    looking.draw_links(GENERATOR, state.average, source, tmp_path / "links.png", 5)
    with PIL.Image.open(tmp_path / "links.png") as picture:
        sheet = np.asarray(picture)[::3, ::3]
    assert sheet.shape == (6 * SIZE, 16 * SIZE)
    np.testing.assert_array_equal(sheet[0, ::SIZE], [0, 100, 200] + 13 * [255])
    own = np.asarray(chain.as_bytes(adversary.last(more[2])))[..., 0]
    np.testing.assert_array_equal(sheet[5 * SIZE :], np.concatenate(list(own), 1))


@pytest.mark.parametrize("until", ["poses", "lighting", "detail"])
def test_learned_links_come_first(until, state):
    """Up to a link the pictures are the generator's; "detail" leaves nothing to do by hand."""
    make = jax.jit(functools.partial(making.learned, count=4, generator=GENERATOR, until=until, size=SIZE))  # fmt: skip
    made = make(jax.random.key(0), arrays=state.generator)
    drawn, _ = jax.random.split(jax.random.key(0))
    program = jax.jit(functools.partial(adversary.generate, GENERATOR))
    labels, _, pictures, _ = program(state.generator, jax.random.split(drawn, 4))
    np.testing.assert_array_equal(made["targets"], labels.bits)
    own = np.asarray(chain.as_bytes(adversary.last(pictures)), int)
    same = np.abs(made["image"].astype(int) - own) <= 1
    assert same.all() == (until == "detail")


def test_half_generated_and_half_labeled(tmp_path, state):
    """Bits that are not known stay so."""
    config = rendergan_case.config(tmp_path, "detail+labeled")
    labeled = making.labeled_pictures(config)
    assert labeled["image"].shape == (64, 16, 16, 1)
    source = data.open_source("labeled", config)
    np.testing.assert_array_equal(labeled["parts"][5], np.maximum(source[5]["parts"].astype(int) - 3, 0))  # fmt: skip
    labeled["weights"][:, 2] = 0

    def generated(key, count, arrays):
        return making.learned(key, count, arrays, generator=GENERATOR, until="detail", size=SIZE)

    arrays = {"made": state.generator, "labeled": labeled}
    real = functools.partial(making.labeled, pad=2, spin=0.8)
    make = jax.jit(functools.partial(making.beside, count=7, make=generated, real=real))
    found = jax.device_get(make(jax.random.key(4), arrays=arrays))
    assert set(found) == {"image", "label", "targets", "weights", "parts"}
    np.testing.assert_array_equal(found["weights"][:3], 1)
    np.testing.assert_array_equal(found["weights"][3:, 2], 0)
    kept = {row.tobytes() for row in labeled["targets"]}
    assert all(row.tobytes() in kept for row in found["targets"][3:])


def test_labeled_pictures_are_turned_scaled_moved_and_their_cells_with_them():
    """Half a disc whose gray tells the part; it moves by 2 at most, its area by what sizes allow, its gray by .2 and noise."""
    rows, cols = np.mgrid[:33, :33] - 16
    disc = (rows**2 + cols**2 <= 64) & (cols > 0)
    arrays = {
        "image": np.where(disc, 192, 64).astype(np.uint8)[None, ..., None],
        "parts": np.where(disc, 5, 0).astype(np.uint8)[None],
        "targets": np.ones((1, 12), np.float32),
    }
    make = jax.jit(functools.partial(making.labeled, count=200, pad=2, spin=np.pi / 4))
    found = jax.device_get(make(jax.random.key(0), arrays=arrays))
    assert found["image"].shape == (200, 33, 33, 1)
    assert found["image"].dtype == np.uint8
    assert found["parts"].dtype == np.uint8
    assert set(np.unique(found["parts"])) == {0, 5}
    angles, areas, grays = [], [], []
    for image, parts in zip(found["image"][..., 0].astype(float), found["parts"] == 5, strict=True):
        # Within, since what lies on the edge is of both.
        inner, outer = ndimage.binary_erosion(parts), ~ndimage.binary_dilation(parts)
        grays.append(image[inner].mean() - image[outer].mean())
        areas.append(parts.sum() / disc.sum())
        angles.append(np.cov(*np.nonzero(parts))[0, 1])
        middle = [np.mean(k[parts]) for k in (rows, cols)]
        assert np.hypot(*middle) < 8 * 0.6 * 1.1 + 2 * np.sqrt(2)
    assert 0.75 < min(areas) < 0.87
    assert 1.15 < max(areas) < 1.3
    assert min(angles) < -1
    assert max(angles) > 1
    np.testing.assert_allclose(grays, 128, atol=5)  # image and cells lie on each other
    lightest = found["image"].reshape(200, -1).mean(1)
    assert lightest.max() - lightest.min() > 30  # .4 of 127.5, and the disc's size


def test_what_is_not_moved_stays_as_it_is():
    x = np.random.default_rng(0).random((7, 7)).astype(np.float32)
    same = making._moved(x, 0.0, 1.0, np.zeros(2), 1)
    np.testing.assert_allclose(same, x, atol=1e-6)
    right = making._moved(x, 0.0, 1.0, np.array([0.0, 2.0]), 1)
    np.testing.assert_allclose(right[:, 2:], x[:, :-2], atol=1e-6)
    np.testing.assert_allclose(right[:, :2], x[:, :1].repeat(2, 1), atol=1e-6)
    turned = making._moved(x, np.pi / 2, 1.0, np.zeros(2), 0)
    np.testing.assert_allclose(turned, np.rot90(x, -1), atol=1e-6)


def test_a_decoder_that_was_killed_ends_with_the_same_bits(tmp_path, monkeypatch):
    """After its first step, with a generator whose training was killed, too (see above); the generator is of another run."""
    config = rendergan_case.config(tmp_path / "cache", "detail+labeled")
    learning.STAGE.run(config, tmp_path / "gan")
    config.markers.gan = str(tmp_path / "gan")
    decoding.STAGE.run(config, tmp_path / "whole")
    at_cadence = loop._at_cadence

    def killed(run, step, *rest):
        at_cadence(run, step, *rest)
        run.manager.wait_until_finished()
        raise KeyboardInterrupt

    with monkeypatch.context() as cut:
        cut.setattr(loop, "_at_cadence", killed)
        with pytest.raises(KeyboardInterrupt):
            decoding.STAGE.run(config, tmp_path / "cut")
    assert checkpoint.steps_there(tmp_path / "cut") == [1]
    decoding.STAGE.run(config, tmp_path / "cut")
    whole, cut = (checkpoint.load(tmp_path / name).variables for name in ("whole", "cut"))
    jax.tree.map(np.testing.assert_array_equal, whole, cut)
    # Each checkpoint reads, in a folder of its own.
    decoding.STAGE.run(config, tmp_path / "cut", which="all")
    folder = tmp_path / "cut" / "decoding"
    latest, first, last = (
        np.load(folder / step / "reading.npz")["probabilities"] for step in ("", "1", "2")
    )
    np.testing.assert_array_equal(last, latest)
    assert (first != last).any()
    assert (folder / "1" / "decoding.csv").exists()
    config.markers.gan = ""
    with pytest.raises(ValueError, match="holds no generator; --stage=gan trains one"):
        decoding.STAGE.run(config, tmp_path / "third")


def test_a_loss_that_is_not_finite_is_named():
    losses = [{"loss": np.float32(v)} for v in (1, np.nan, 2)]
    with pytest.raises(FloatingPointError, match="not finite at step 99"):
        learning._means(losses, 100)
    assert learning._means(losses[:1], 100) == {"loss": 1.0}


def test_statistics_tell_other_pictures_apart():
    rng = np.random.default_rng(0)
    fine, coarse = rng.normal(0, 0.1, (2, 30, 16, 16)).astype(np.float32)
    coarse = np.asarray(chain.smooth(jnp.asarray(coarse), 8)) + 0.5
    rows = {name: values for name, *values in looking.statistics(fine, coarse)}
    assert rows["brightness, mean"] == pytest.approx([fine.mean(), coarse.mean()], abs=1e-6)
    assert rows["energy of octave 1, mean"][0] > 10 * rows["energy of octave 1, mean"][1]
    assert looking.statistics(fine, fine)[2][1] == looking.statistics(fine, fine)[2][2]


def test_settings_that_cannot_work(tmp_path):
    config = rendergan_case.config(tmp_path, "detail")
    config.markers.batch_size = 6
    with pytest.raises(ValueError, match=r"markers\.batch_size=6 does not divide over 4 devices"):
        learning.STAGE.check(config)
    (tmp_path / "unlabeled").mkdir()
    config.markers.batch_size, config.data.markers.crops = 8, str(tmp_path)
    with pytest.raises(ValueError, match=r"has no unlabeled/\*\.png"):
        learning.STAGE.check(config)
    PIL.Image.new("L", (16, 16)).save(tmp_path / "unlabeled" / "one.png")
    with pytest.raises(ValueError, match=r"needs 2 unlabeled pictures or more .*; there is 1"):
        learning.STAGE.check(config)
    # Whoever learns from no generator needs none of them.
    config.markers.train = "labeled"
    learning.STAGE.check(config)
