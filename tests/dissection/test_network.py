"""`dissect`: one forward pass, planted truths, devices and batches, and what cannot work."""

import dataclasses

import jax
import numpy as np
import planted
import pytest

import mixaug_jax
from mixaug_jax import dissection
from mixaug_jax.core import say
from mixaug_jax.dissection import (
    Counting,
    Options,
    Resources,
    activations,
    resample,
    result,
    tables,
)

QUICK = {"shuffles": 2, "random_baseline": False}


def test_units_that_are_masks_have_iou_1():
    found = mixaug_jax.dissect(
        planted.net(),
        planted.source(),
        ("pixels",),
        Options(size=16, iou=(0.5, 0.9), **QUICK),
        thresholds={"pixels": [0.5, 0.5, 0.5]},
    )["pixels"]
    iou = found.iou()
    np.testing.assert_array_equal(iou[:, 1:4], np.eye(3))
    np.testing.assert_array_equal(iou[:, 4], 0)
    assert found.top_labels(1)[0][:, 0].tolist() == [1, 2, 3]
    assert found.categories == ("object", "part", "material")
    # Two objects and a part: detectors and unique, by either convention, at both thresholds.
    assert found.counts.tolist() == [[[[2, 1, 0]] * 2] * 2] * 2
    assert not found.null.any()
    assert (found.random == -1).all()


def test_noise_stays_within_its_null():
    found = dissection.dissect(
        planted.net(planted.noise, channels=16),
        planted.source(40),
        ("pixels",),
        Options(shuffles=20, random_baseline=False, iou=(0.005, 0.01, 0.02), size=16),
    )["pixels"]
    detectors = found.counts[1, 0].sum(-1)
    null = found.null[:, 1, 0].sum(-1)
    assert detectors.max() > 0, "thresholds so high that nothing is tested"
    assert (null.min(0) <= detectors).all()
    assert (detectors <= null.max(0)).all()


def test_counts_agree_with_the_kernels_one_by_one():
    net, source = planted.net(), planted.source()
    options = Options(size=12, **QUICK, seed=3)
    found = dissection.dissect(net, source, ("mixed",), options)["mixed"]
    images = np.stack([net.preprocess(source[i]["image"]) for i in range(12)])
    acts = np.asarray(net.features(images, "mixed"))
    # The label maps by hand: whole images at the nearest pixel.
    near = (2 * np.arange(12) + 1) * 16 // 24
    maps = np.stack([source[i]["concepts"] for i in range(12)])[:, near[:, None], near]
    threshold = dissection.quantile(acts, 0.01, size=(12, 12))
    np.testing.assert_allclose(found.threshold, threshold, rtol=1e-5)
    category = dissection.Vocabulary(planted.NAMES).category
    orders = np.concatenate([np.arange(12)[None], dissection.derangements(12, 2, 3)])
    counted = Counting(5, category)
    tallies = dissection.tally_orders(acts, found.threshold, maps, orders, counted)
    np.testing.assert_array_equal(found.tally.concept, tallies[0].concept)
    unsure = ambiguous(acts, found.threshold, (12, 12))
    assert (abs(found.tally.unit - tallies[0].unit) <= unsure).all()
    for counts, tally in zip([found.counts, *found.null], tallies, strict=True):
        best = dissection.best_by_category(tally.iou(), category)
        for per in result.PER:
            again = dissection.count_detectors(*best, per=per)
            np.testing.assert_array_equal(counts[result.PER.index(per)], again)
    top = np.argsort(-acts.max((1, 2)), 0, kind="stable")[:5].T
    np.testing.assert_array_equal(found.top_images, top)
    np.testing.assert_allclose(found.top_activations, found.top_maps.max((2, 3)))
    np.testing.assert_allclose(found.top_maps[2, 1], acts[top[2, 1], ..., 2], atol=1e-6)


def ambiguous(acts, threshold, size):
    """Pixels of each unit within 4e-6 of its scale of the threshold, [U]."""
    grid = resample.Grid(acts.shape[1:3], size, "edge")
    up = np.asarray(jax.vmap(lambda x: resample.upsample(x, grid))(acts))
    scale = np.abs(acts).max((0, 1, 2))
    return (np.abs(up - threshold) <= 4e-6 * scale).sum((0, 1, 2))


def test_devices_and_batches_end_to_end():
    net, source = planted.net(), planted.source(13)
    images = np.stack([net.preprocess(source[i]["image"]) for i in range(13)])
    acts = np.asarray(net.features(images, "mixed"))
    base, *others = (
        dissection.dissect(
            net,
            source,
            ("mixed",),
            Options(size=16, shuffles=0, random_baseline=False),
            thresholds={"mixed": np.full(6, 0.2)},
            resources=Resources(batch_size=batch),
            devices=jax.local_devices()[:count],
        )["mixed"].tally
        for count, batch in ((1, 64), (1, 3), (2, 4), (4, 5))
    )
    unsure = ambiguous(acts, 0.2, (16, 16))
    for other in others:
        np.testing.assert_array_equal(other.concept, base.concept)
        assert (abs(other.unit - base.unit) <= unsure).all()
        assert (abs(other.intersection - base.intersection) <= unsure[:, None]).all()


def test_one_forward_pass_for_all_layers_and_seldom_more_past_the_bound(monkeypatch, capsys):
    runs = []
    run = activations.Forward.run

    def counted(self, start, stop):
        runs.append((self.layers, start, stop))
        return run(self, start, stop)

    monkeypatch.setattr(activations.Forward, "run", counted)
    arguments = (planted.net(), planted.source(), ("mixed", "pixels"), Options(size=16, **QUICK))
    kept = dissection.dissect(*arguments)
    assert runs == [(("pixels", "mixed"), 0, 12)]
    assert not capsys.readouterr().out
    runs.clear()
    # Room for the smaller layer alone: 12 images of 8x8x6 float32 are 18 KiB, of 16x16x3 36 KiB.
    repeated = dissection.dissect(*arguments, resources=Resources(cache_gb=20 / 2**20))
    assert runs[0] == (("pixels", "mixed"), 0, 12)
    assert {layers for layers, _, _ in runs[1:]} == {("pixels",)}
    assert "pixels: its activations need" in capsys.readouterr().out
    for layer in ("mixed", "pixels"):
        for field in ("threshold", "counts", "null", "halves", "top_images", "top_maps"):
            np.testing.assert_array_equal(
                getattr(kept[layer], field), getattr(repeated[layer], field), err_msg=field
            )


class StoppedError(Exception):
    """In the place of a kill."""


def test_one_that_was_stopped_goes_on_after_the_last_block(monkeypatch, tmp_path):
    """Blocks of few units, and the network of random weights: the same to the bit, and nothing is counted twice."""
    options = Options(size=16, shuffles=2, formulas=3)
    given = (planted.net(), planted.source(24), ("pixels", "mixed"), options)
    whole = dissection.dissect(*given, resources=Resources(folder=tmp_path))
    count, calls = tables.count, []

    def stopping(at):
        def counted(block, *arguments, **more):
            calls.append(getattr(block, "first", -1))
            if len(calls) == at:
                raise StoppedError
            return count(block, *arguments, **more)

        return counted

    some = Resources(folder=tmp_path, memory_gb=9_000 / 2**30, parts=tmp_path / "parts")
    for at in (3, 3, 3, 0):
        calls.clear()
        monkeypatch.setattr(tables, "count", stopping(at))
        if at:
            with pytest.raises(StoppedError):
                dissection.dissect(*given, resources=some)
        else:
            found = dissection.dissect(*given, resources=some)
    assert calls == [-1]  # all that was left: the counts of the last layer with random weights
    for layer in ("pixels", "mixed"):
        for field in dataclasses.fields(whole[layer].tally):
            ours, right = (getattr(r[layer].tally, field.name) for r in (found, whole))
            np.testing.assert_array_equal(ours, right)
        for field in ("threshold", "counts", "null", "random", "halves", "top_images", "top_maps"):
            np.testing.assert_array_equal(
                getattr(found[layer], field), getattr(whole[layer], field), err_msg=field
            )
        np.testing.assert_array_equal(found[layer].formulas.iou, whole[layer].formulas.iou)
    # Parts of other settings are not taken.
    calls.clear()
    other = dataclasses.replace(options, seed=1)
    dissection.dissect(*given[:3], other, resources=some)
    assert len(calls) > 3


def test_a_dense_layer_is_a_map_of_one_node():
    options = Options(size=8, **QUICK)
    found = dissection.dissect(planted.net(), planted.source(), ("fc",), options)["fc"]
    assert found.top_maps.shape == (3, 5, 1, 1)
    assert (found.tally.unit % 64 == 0).all()  # whole images are on or off


def test_random_weights_are_counted_too():
    net = planted.net()
    options = Options(size=16, shuffles=0, seed=5)
    found = dissection.dissect(net, planted.source(), ("mixed",), options)["mixed"]
    other = planted.net(seed=5)
    again = dissection.dissect(other, planted.source(), ("mixed",), options)["mixed"]
    np.testing.assert_array_equal(found.random, again.counts)
    assert found.null.shape == (0, 2, 2, 3, 3)
    assert found.halves.shape == (0, 2, 2, 3, 3)


def test_one_image_has_no_null(capsys):
    options = Options(size=16, max_images=1, random_baseline=False)
    found = dissection.dissect(planted.net(), planted.source(), ("pixels",), options)["pixels"]
    assert found.null.shape[0] == 0
    assert found.top_images.shape == (3, 1)
    assert "no chance level: one image" in capsys.readouterr().out


def test_no_unit_above_the_threshold():
    found = dissection.dissect(
        planted.net(),
        planted.source(),
        ("pixels",),
        Options(size=16, iou=(0.999,), **QUICK),
        thresholds={"pixels": [9, 9, 9]},
    )["pixels"]
    assert not found.counts.any()
    assert found.unique().tolist() == [[0, 0, 0]]


def test_restricted_counts_less_area():
    arguments = (planted.net(), planted.source(), ("mixed",))
    free = dissection.dissect(*arguments, Options(size=16, **QUICK))["mixed"]
    tied = dissection.dissect(*arguments, Options(size=16, **QUICK, restricted=True))["mixed"]
    np.testing.assert_array_equal(free.tally.intersection, tied.tally.intersection)
    assert (tied.iou() >= free.iou()).all()
    np.testing.assert_array_equal(tied.iou(), free.tally.iou(restricted=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"q": 0.0}, "q must be a number above 0 and below 1; got 0.0"),
        ({"q": 1.0}, "q must be a number above 0 and below 1; got 1.0"),
        ({"over": "all"}, "over must be one of upsampled, raw; got 'all'"),
        ({"rule": "median"}, "rule must be one of linear, hazen, inverted_cdf; got 'median'"),
        ({"padding": "wrap"}, "padding must be one of edge, zero; got 'wrap'"),
        ({"iou": ()}, "must be one or more thresholds"),
        ({"iou": (1.0,)}, "from 0 up to below 1"),
        ({"shuffles": -1}, "shuffles must be an integer of at least 0; got -1"),
        ({"precision": "highst"}, r"got 'highst' \(did you mean 'highest'\?\)"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        Options(**options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": ("layer4",)}, "layers must be one of pixels, mixed, fc; got 'layer4'"),
        ({"thresholds": {"pixels": [0.5]}}, r"layer 'pixels' have shape \(1,\); it has 3 units"),
    ],
)
def test_bad_arguments_compile_nothing(monkeypatch, arguments, message):
    def compiled(*arguments):
        raise AssertionError("compiled")

    monkeypatch.setattr(activations, "_program", compiled)
    with pytest.raises(ValueError, match=message):
        dissection.dissect(planted.net(), planted.source(), **({"layers": ("pixels",)} | arguments))


def test_the_precision_is_that_of_the_call():
    traced = []

    class Recording(planted.Planted):
        def run(self, layer, x, train):
            traced.append(jax.config.jax_default_matmul_precision)
            return super().run(layer, x, train)

    net = dataclasses.replace(planted.net(), model=Recording())
    outside = jax.config.jax_default_matmul_precision
    for precision in ("high", "default"):
        options = Options(size=16, **QUICK, precision=precision)
        found = dissection.dissect(net, planted.source(), ("mixed",), options)["mixed"]
        assert traced[-1] == precision
        assert found.settings["options"]["precision"] == precision
    assert jax.config.jax_default_matmul_precision == outside


def test_a_set_without_masks_is_refused():
    bare = dataclasses.replace(planted.source(), concept_names=())
    with pytest.raises(ValueError, match="the data set has no masks"):
        dissection.dissect(planted.net(), bare, ("pixels",))


def test_activations_that_are_not_finite_are_refused():
    net = planted.net(planted_nan)
    with pytest.raises(ValueError, match="activations of image 0 hold NaN"):
        dissection.dissect(net, planted.source(), ("pixels",), Options(size=16, **QUICK))


def planted_nan(image):
    return np.where(image > 0, np.nan, 0).astype(np.float32)


def test_last_maps():
    net = planted.net()
    assert activations.last_maps(net, planted.source()) == ("pixels", "mixed")
    assert activations.last_maps(net, planted.source(), 1) == ("mixed",)


def test_saved_and_loaded(tmp_path):
    options = Options(size=16, **QUICK)
    found = dissection.dissect(planted.net(), planted.source(), ("mixed",), options)
    path = tmp_path / "mixed.npz"
    dissection.save(found["mixed"], path)
    again = dissection.load(path)
    for field in dataclasses.fields(again):
        a, b = getattr(found["mixed"], field.name), getattr(again, field.name)
        if field.name in ("tally", "formulas"):
            for part in dataclasses.fields(a):
                np.testing.assert_array_equal(getattr(a, part.name), getattr(b, part.name))
        else:
            np.testing.assert_array_equal(a, b)
    assert again.names == planted.NAMES
    assert [p.name for p in tmp_path.iterdir()] == ["mixed.npz"]
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="is no result of a dissection"):
        dissection.load(path)


def test_compare(tmp_path):
    source, options = planted.source(), Options(size=16, **QUICK)
    runs = {
        f"seed {seed}": dissection.dissect(planted.net(seed=seed), source, ("mixed",), options)[
            "mixed"
        ]
        for seed in (0, 1)
    }
    a, b = runs.values()
    dissection.save(b, tmp_path / "b.npz")
    compared = dissection.compare({"seed 0": a, "seed 1": tmp_path / "b.npz"})
    assert compared.names == ("seed 0", "seed 1")
    assert compared.categories == ("object", "part", "material", "total")
    np.testing.assert_array_equal(compared.difference[0, ..., :3], b.counts - a.counts)
    np.testing.assert_array_equal(compared.difference[0, ..., 3], (b.counts - a.counts).sum(-1))
    assert np.isnan(compared.interval).all()  # too few images
    assert not dissection.compare({"a": a, "the same": a}).difference.any()


def test_what_cannot_be_compared():
    def dissected(**options):
        options = Options(**({"size": 16, **QUICK} | options))
        return dissection.dissect(planted.net(), planted.source(), ("pixels",), options)["pixels"]

    a = dissected()
    with pytest.raises(ValueError, match="needs two dissections or more; got 1"):
        dissection.compare({"a": a})
    others = {
        "options": dissected(q=0.02),
        "images": dissected(size=8),
        "concepts": dataclasses.replace(a, names=(*planted.NAMES[:4], ("hide", "material"))),
    }
    for what, b in others.items():
        with pytest.raises(ValueError, match=f"b and a were dissected with other {what}"):
            dissection.compare({"a": a, "b": b})


def test_progress_is_said_for_long_work_only(monkeypatch, capsys):
    report = say.progress("forward", 100)
    report(50)
    assert not capsys.readouterr().out
    monkeypatch.setattr(say, "_SECONDS", 0.0)
    watched = activations.Watched(np.zeros((100, 1, 1, 1)), "counts")
    for start in (0, 25, 50, 75, 0, 25):
        watched[start : start + 25]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        f"counts: {done} of 100 images" for done in (50, 75, 50)
    ]
    assert all("images/s" in line and "ETA" in line for line in lines)
