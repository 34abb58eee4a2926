"""A segmentation network as the source of concepts: numbers, the files that keep them, and the stage."""

import concurrent.futures
import functools
import json

import numpy as np
import planted
import pytest
import recipe
import toy

import mixaug_jax
from mixaug_jax import data, dissection
from mixaug_jax.dissection import colors, segmenter
from mixaug_jax.models import upernet, weight_files
from mixaug_jax.models.pickles import Tensor
from mixaug_jax.stages import dissect

LABELS = upernet.labels()


@pytest.fixture
def weights(tmp_path):
    """A folder with two files that only the checksum looks at."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "encoder_epoch_40.pth").write_bytes(b"encoder")
    (folder / "decoder_epoch_40.pth").write_bytes(b"decoder")
    return folder


@pytest.fixture
def calls(monkeypatch):
    """In place of the network: its label maps follow from the pixels. Lists the shapes it was given."""
    shapes = []

    def segment(variables, image, sizes):
        assert tuple(sizes) == (64,)
        shapes.append(image.shape)
        return maps_of(image)

    monkeypatch.setattr(upernet, "import_upernet", lambda encoder, decoder: {})
    monkeypatch.setattr(upernet, "segment", segment)
    return shapes


def maps_of(image):
    red, green, blue = np.moveaxis(image.astype(np.uint16), -1, 0)
    return {"object": red, "material": green % 26, "part": blue % 153, "scene": 3}


def photos(count, side=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def open_it(weights, folder, side=16):
    return segmenter.open_segmenter(str(weights), folder, sizes=(64,), side=side)


def test_names_are_apart_by_category():
    names = segmenter.NAMES
    assert names[0] == ("none", "none")
    assert len(names) == len(set(names)) == 1 + 335 + 25 + 152
    assert dissection.Vocabulary(names).categories == ("object", "material", "part")
    for category, lists in (("object", LABELS.objects), ("part", LABELS.parts)):
        assert [n for n, c in names if c == category] == list(lists[1:])
    shared = set(LABELS.objects[1:]) & set(LABELS.parts[1:])
    assert "door" in shared
    for name in shared:
        assert len([n for n, _ in names if n == name]) >= 2


def test_numbers_name_what_was_found(weights, tmp_path, calls):
    (image,) = photos(1)
    found = open_it(weights, tmp_path)(image)
    assert (found.dtype, found.shape) == (np.uint16, (16, 16, 3))
    maps = maps_of(image)
    lists = {"object": LABELS.objects, "material": LABELS.materials, "part": LABELS.parts}
    for slot, (task, names) in enumerate(lists.items()):
        for number, original in zip(found[..., slot].ravel(), maps[task].ravel(), strict=True):
            expected = (names[original], task) if original else ("none", "none")
            assert segmenter.NAMES[number] == expected


def test_every_image_is_segmented_once(weights, tmp_path, calls):
    """Also after a kill in the middle, by other networks, and where a file was damaged."""
    images = photos(5)
    annotate = open_it(weights, tmp_path)
    before = [annotate(image) for image in images[:3]]
    assert len(calls) == 3
    (partial,) = tmp_path.glob("segmented-*")
    (partial / "00").mkdir(exist_ok=True)
    (partial / "00" / "unfinished.npz.1-1.tmp").write_bytes(b"half")
    again = open_it(weights, tmp_path)
    for image, expected in zip(images, [*before, None, None], strict=True):
        found = again(image)
        if expected is not None:
            np.testing.assert_array_equal(found, expected)
    assert len(calls) == 5
    kept = sorted(tmp_path.glob("segmented-*/*/*.npz"))
    assert len(kept) == 5
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    np.savez(kept[1], numbers=np.zeros((2, 2, 3), np.uint16))
    third = open_it(weights, tmp_path)
    for image, expected in zip(images[:3], before, strict=True):
        np.testing.assert_array_equal(third(image), expected)
    for image in images:
        third(image)
    assert len(calls) == 7


def test_other_weights_sizes_or_sides_are_not_taken_for_these(weights, tmp_path, calls):
    (image,) = photos(1)
    open_it(weights, tmp_path)(image)
    first = segmenter.checksum(str(weights))
    (weights / "decoder_epoch_40.pth").write_bytes(b"another")
    assert segmenter.checksum(str(weights)) != first
    open_it(weights, tmp_path)(image)
    open_it(weights, tmp_path, side=20)(image)
    assert calls == [(16, 16, 3), (16, 16, 3), (20, 20, 3)]
    assert len(list(tmp_path.glob("segmented-*"))) == 3


def test_weights_are_read_only_when_they_are_needed(weights, tmp_path, calls, monkeypatch):
    (image,) = photos(1)
    expected = open_it(weights, tmp_path)(image)
    monkeypatch.setattr(upernet, "import_upernet", lambda encoder, decoder: pytest.fail("read"))
    np.testing.assert_array_equal(open_it(weights, tmp_path)(image), expected)


def test_one_shape_for_images_of_all_shapes(weights, tmp_path, calls):
    """So that the network is compiled once; the maps have the images' shapes again."""
    annotate = open_it(weights, tmp_path)
    for height, width in ((16, 16), (20, 31), (40, 9), (1, 5), (16, 17)):
        image = np.full((height, width, 3), 7, np.uint8)
        image[: height // 2] = 9
        found = annotate(image)
        assert found.shape == (height, width, 3)
        if min(height, width) > 8:  # away from the edge that stretching blurs
            assert (found[0, :, 0] == 9).all()
            assert (found[-1, :, 0] == 7).all()
    assert set(calls) == {(16, 16, 3)}


def test_threads_share_it(weights, tmp_path, calls):
    images = photos(12)
    annotate = open_it(weights, tmp_path)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(annotate, [*images, *images]))
    for image, one in zip([*images, *images], found, strict=True):
        np.testing.assert_array_equal(one[..., 0], maps_of(image)["object"])


@pytest.mark.parametrize(
    ("names", "place", "message"),
    [
        ((), "", "is no folder; its authors .* published"),
        (("encoder_epoch_40.pth",), "w", r"there is no .*decoder_epoch_40\.pth; its authors"),
        (("decoder.pth",), "w", r"there is no .*encoder_epoch_40\.pth; its authors"),
        (("encoder_1.pth", "encoder_2.pth", "decoder.pth"), "w", "has 2 files called encoder"),
        (("encoder.pth",), "w/encoder.pth,w/decoder.pth", r"there is no w/decoder\.pth; its"),
        ((), "a,b,c", "must be a folder, or ENCODER,DECODER"),
    ],
)
def test_missing_files(tmp_path, monkeypatch, names, place, message):
    (tmp_path / "w").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in names:
        (tmp_path / "w" / name).touch()
    with pytest.raises(ValueError, match=message):
        segmenter.find_files(place or "nowhere")


def test_files_by_name(weights):
    encoder, decoder = segmenter.find_files(str(weights))
    assert (encoder.name, decoder.name) == ("encoder_epoch_40.pth", "decoder_epoch_40.pth")
    assert segmenter.find_files(f"{encoder}, {decoder}") == (encoder, decoder)


def test_with_the_network_itself(golden_text, tmp_path, weights, monkeypatch):
    """Random weights: the label maps are those of `upernet.segment`, found in its lists."""
    keys = json.loads(golden_text("dissection/upp_state_dict.json"))
    states = {"encoder": {}, "decoder": {}}
    for key, shape in keys.items():
        part, _, name = key.partition(":")
        read = functools.partial(recipe.weight, key, shape)
        states[part][name] = Tensor(tuple(shape), np.dtype(np.float32), read)
    monkeypatch.setattr(
        weight_files,
        "read_state",
        lambda path: weight_files.State(states[path.name.partition("_")[0]], {}),
    )
    monkeypatch.setattr(upernet, "import_upernet", functools.cache(upernet.import_upernet))
    image = photos(1, side=32)[0]
    found = segmenter.open_segmenter(str(weights), tmp_path, sizes=(32,), side=32)(image)
    maps = upernet.segment(
        upernet.import_upernet(*segmenter.find_files(str(weights))), image, (32,)
    )
    for slot, task in enumerate(("object", "material", "part")):
        names = getattr(LABELS, f"{task}s")
        expected = [(names[n], task) if n else ("none", "none") for n in maps[task].ravel()]
        assert [segmenter.NAMES[n] for n in found[..., slot].ravel()] == expected
    assert len(np.unique(found[..., 0])) > 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A working directory with a checkpoint; its network sees all of images of 16 pixels."""
    workdir = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "open_splits", lambda config: toy.splits())
        mixaug_jax.train(toy.config(epochs=1), workdir)
    return workdir


def settings(weights, **options):
    config = toy.config(epochs=1)
    config.dissect.update({"max_images": 6, "shuffles": 2, "layers": ("relu4",)})
    config.dissect.update({"segmenter": str(weights), "segmenter_sizes": (64,)} | options)
    config.dissect.random_baseline = False
    return config


def use(monkeypatch, source):
    monkeypatch.setattr(data, "open_source", lambda split, config, annotations=True: source)


def test_the_stage_goes_on_after_a_kill(trained, weights, tmp_path, calls, monkeypatch, capsys):
    """The data's own masks give way; labels are made once for all networks; nothing is made twice."""
    monkeypatch.setenv("MIXAUG_JAX_CACHE", str(tmp_path / "cache"))
    workdir = tmp_path / "run"
    workdir.mkdir()
    for name in ("config.json", "checkpoints"):
        (workdir / name).symlink_to(trained / name)
    use(monkeypatch, planted.source(6))
    config = settings(weights)
    config.data.threads = 1
    segment = upernet.segment

    def killed(variables, image, sizes):
        if len(calls) == 3:
            raise KeyboardInterrupt
        return segment(variables, image, sizes)

    with monkeypatch.context() as patch:
        patch.setattr(upernet, "segment", killed)
        with pytest.raises(KeyboardInterrupt):
            dissect.run(config, workdir)
    assert len(calls) == 3
    dissect.run(config, workdir)
    assert calls == [(16, 16, 3)] * 6
    result = dissection.load(workdir / "dissection" / "relu4.npz")
    assert result.categories == ("object", "material", "part", "color")
    assert result.names == segmenter.NAMES + colors.CONCEPTS[1:]
    images = [planted.source(6)[i]["image"] for i in range(6)]
    numbers = np.concatenate([maps_of(image)["object"].ravel() for image in images])
    counts = np.bincount(numbers, minlength=336)
    np.testing.assert_array_equal(result.tally.concept[1:336], counts[1:336])
    said = capsys.readouterr().out
    assert "segmenter: reading" in said
    assert "6 images, 523 concepts (object, material, part, color)" in said

    other = tmp_path / "other"  # another network that sees the same
    other.mkdir()
    for name in ("config.json", "checkpoints"):
        (other / name).symlink_to(trained / name)
    dissect.run(config, other)
    dissect.run(settings(weights, q=0.02, colors="off"), other)
    assert len(calls) == 6
    result = dissection.load(other / "dissection" / "relu4.npz")
    assert result.categories == ("object", "material", "part")
    (weights / "encoder_epoch_40.pth").write_bytes(b"trained longer")
    dissect.run(config, other)
    assert len(calls) == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segmenter": "nowhere"}, "dissect.segmenter=nowhere is no folder"),
        ({"segmenter_sizes": (16,)}, "segmenter_sizes must be an integer of at least 32 .* got 16"),
        ({"segmenter_sizes": ()}, r"segmenter_sizes must be 1 to 16 values, .* got \(\)"),
        ({"colors": "none.npy"}, "color table none.npy must be"),
    ],
)
def test_bad_settings_are_said_before_any_compile(trained, weights, monkeypatch, options, message):
    use(monkeypatch, toy.source(6))
    with pytest.raises(ValueError, match=message):
        dissect.check(settings(weights, **options))


def test_two_sources_of_concepts_or_gray_images_are_refused(weights, tmp_path, monkeypatch):
    use(monkeypatch, toy.source(6))
    config = settings(weights)
    config.data.mean, config.data.std = (0.5,), (0.5,)
    with pytest.raises(ValueError, match="needs images in color"):
        dissect.check(config)
    config = settings(weights, broden=str(tmp_path))
    monkeypatch.setattr(dissect.broden, "open_broden", lambda folder, side: toy.source(6))
    with pytest.raises(ValueError, match=r"dissect\.segmenter and dissect\.broden both"):
        dissect.check(config)
