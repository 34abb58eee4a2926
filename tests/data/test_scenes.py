"""The embedded scenes: the same pixels from the same numbers, and labels that are exact."""

from dataclasses import replace

import numpy as np
import pytest
from scene_cases import PLAIN, assert_equal

from mixaug_jax.data.scenes import renderer, shapes
from mixaug_jax.data.scenes.materials import COLORS, MATERIALS


def test_tables_are_rich_enough_and_named_once():
    assert len(shapes.CLASSES) >= 10
    assert len(shapes.PARTS) >= 24
    assert (len(MATERIALS), len(COLORS)) == (10, 11)
    assert renderer.CONCEPTS[0] == ("none", "none")
    assert len(set(renderer.CONCEPTS)) == len(renderer.CONCEPTS) < 256


@pytest.mark.parametrize("name", shapes.CLASSES)
def test_polygons_are_convex_and_hold_their_middle(name):
    for mirror in (False, True):
        stand = shapes.pose((50.0, 50.0), 40.0, 1.1, 0.3, mirror)
        for _, parts in shapes.OBJECTS[name]:
            for shape in parts:
                if len(shape.points) < 3:
                    continue
                edges = np.diff([*shape.points, shape.points[0], shape.points[1]], axis=0)
                turns = edges[:-1, 0] * edges[1:, 1] - edges[:-1, 1] * edges[1:, 0]
                assert (turns > 0).all() or (turns < 0).all()
                middle = stand.center + (np.mean(shape.points, 0) * stand.scale) @ stand.turn.T
                (row0, col0, _, _), d = shapes.distance(shape, stand, 100)
                assert d[int(middle[0]) - row0, int(middle[1]) - col0] < 0


def test_distances_are_those_of_the_textbook():
    stand = shapes.pose((20.0, 21.0), 10.0, 1.0, 0.4, True)
    rows, cols = np.mgrid[:40, :40] + 0.5
    center = np.hypot(rows - 20, cols - 21)
    cases = {
        "disc": (shapes.disc(0, 0, 0.8), center - 8),
        "ring": (shapes.ring(0, 0, 0.8, 0.8, 0.1), np.abs(center - 8) - 1),
        "capsule": (shapes.capsule(0, 0, 0, 0.001, 0.5), center - 5),
    }
    for name, (shape, expected) in cases.items():
        (row0, col0, row1, col1), d = shapes.distance(shape, stand, 40)
        np.testing.assert_allclose(d, expected[row0:row1, col0:col1], atol=0.02, err_msg=name)
        assert d.dtype == np.float32
        outside = np.ones((40, 40), bool)
        outside[row0:row1, col0:col1] = False
        assert expected[outside].min() > 0.5  # the window holds all that has any cover
    square = shapes.pose((20.0, 20.0), 10.0, 1.0, 0.0, False)
    (row0, col0, row1, col1), d = shapes.distance(shapes.box(-1, -1, 1, 1), square, 40)
    expected = np.maximum(np.abs(rows - 20), np.abs(cols - 20)) - 10
    np.testing.assert_allclose(d, expected[row0:row1, col0:col1], atol=1e-5)
    assert shapes.distance(shapes.disc(9, 9, 1), square, 40) is None


@pytest.mark.parametrize("size", [32, 33, 96, 224])
def test_shapes_types_and_boxes_agree_with_the_concept_map(size):
    categories = np.array([category for _, category in renderer.CONCEPTS])
    for index in range(4):
        scene = renderer.render(replace(PLAIN, size=size), "train", index)
        concepts = scene["concepts"]
        assert scene["image"].shape == (size, size, 3)
        assert scene["image"].dtype == concepts.dtype == np.uint8
        assert concepts.shape == (size, size, 4)
        for slot, category in enumerate(("object", "part", "material", "color")):
            allowed = {category, "none"} if slot < 2 else {category}
            assert set(categories[concepts[..., slot]].ravel()) <= allowed
        np.testing.assert_array_equal(concepts[..., 0] > 0, concepts[..., 1] > 0)
        assert scene["box_labels"][0] == scene["label"]
        seen = set(np.unique(concepts[..., 0])) - {0}
        assert seen == set((scene["box_labels"] + 1).tolist())
        assert scene["boxes"].dtype == np.float32
        for box, label in zip(scene["boxes"], scene["box_labels"], strict=True):
            rows, cols = np.nonzero(concepts[..., 0] == label + 1)
            extent = (rows.min(), cols.min(), rows.max() + 1, cols.max() + 1)
            np.testing.assert_array_equal(box, extent)


def test_parts_belong_to_their_object():
    names = np.array([name for name, _ in renderer.CONCEPTS])
    for index in range(20):
        concepts = renderer.render(PLAIN, "train", index)["concepts"]
        pairs = {tuple(names[pixel]) for pixel in concepts[concepts[..., 0] > 0][:, :2]}
        assert all(part in dict(shapes.OBJECTS[name]) for name, part in pairs)


def test_every_concept_occurs_and_classes_are_balanced():
    found, labels, objects = set(), [], []
    for index in range(200):
        scene = renderer.render(PLAIN, "train", index)
        found |= set(np.unique(scene["concepts"]))
        labels.append(scene["label"])
        objects.append(len(scene["boxes"]))
    assert found == set(range(len(renderer.CONCEPTS)))
    assert np.bincount(labels, minlength=10).min() >= 8
    assert set(objects) == {1, 2, 3, 4}


def test_the_target_stays_mostly_visible_and_is_sometimes_covered():
    shares = []
    for index in range(100):
        scene = renderer.layout(PLAIN, "test", renderer.generator(PLAIN, "test", index))
        alone = replace(scene, figures=(scene.figures[scene.target],), target=0)
        areas = [
            (
                renderer.draw(s, 48, np.random.default_rng(0))["concepts"][..., 0] == s.label + 1
            ).sum()
            for s in (scene, alone)
        ]
        shares.append(areas[0] / areas[1])
    assert min(shares) > 0.6
    assert np.mean(np.array(shares) < 1) > 0.1


def test_a_scene_is_the_same_layout_at_every_size():
    for index in range(5):
        scene = renderer.layout(PLAIN, "train", renderer.generator(PLAIN, "train", index))
        small, large = (
            renderer.draw(scene, side, np.random.default_rng(0))["concepts"] for side in (60, 180)
        )
        # A small pixel's center is the center of the middle one of its nine.
        np.testing.assert_array_equal(small, large[1::3, 1::3])


def test_the_color_names_are_honest():
    """The mean of a surface's pixels lies nearest to its own color's middle, among all."""
    ends = np.array(list(COLORS.values())).mean(1)
    right = total = 0
    for index in range(40):
        scene = renderer.render(replace(PLAIN, size=64), "test", index)
        first = renderer.CONCEPTS.index(("black", "color"))
        for number in np.unique(scene["concepts"][..., 3]):
            here = scene["concepts"][..., 3] == number
            if here.sum() > 50:
                mean = scene["image"][here].mean(0) / 255
                right += np.argmin(((ends - mean) ** 2).sum(1)) == number - first
                total += 1
    assert right / total > 0.85


def _facts(settings, split, count=60):
    """(label, wall material, the target's colors, its center) of scenes."""
    for index in range(count):
        scene = renderer.layout(settings, split, renderer.generator(settings, split, index))
        target = scene.figures[scene.target]
        yield target.kind, scene.wall.material, {s.color for s in target.surfaces}, target.center


@pytest.mark.parametrize("split", ["train", "validation"])
def test_planted_shortcuts_decide_background_color_and_place(split):
    settings = replace(PLAIN, background=1.0, color=1.0, position=1.0)
    for kind, wall, colors, center in _facts(settings, split):
        assert wall == kind
        assert colors == {kind}
        angle = np.arctan2(center[0] - 0.5, center[1] - 0.5)
        turn = (angle - 2 * np.pi * kind / 10 + np.pi) % (2 * np.pi) - np.pi
        assert abs(turn) < np.pi / 10  # nearer to its own place than to a neighbor's


def test_half_planted_shortcuts_are_planted_in_half():
    settings = replace(PLAIN, background=0.5)
    share = np.mean([wall == kind for kind, wall, _, _ in _facts(settings, "train", 400)])
    assert 0.45 < share < 0.65  # a half, and a tenth of the rest


@pytest.mark.parametrize(("split", "p"), [("train", 0.0), ("test", 1.0)])
def test_without_shortcuts_and_in_the_test_split_nothing_tells_the_class(split, p):
    settings = replace(PLAIN, background=p, color=p, position=p)
    facts = list(_facts(settings, split, 400))
    assert np.mean([wall == kind for kind, wall, _, _ in facts]) < 0.2
    assert all(len(colors) > 1 for _, _, colors, _ in facts)
    centers = np.array([center for _, _, _, center in facts])
    kinds = np.array([kind for kind, _, _, _ in facts])
    for kind in range(10):
        assert np.abs(centers[kinds == kind].mean(0) - 0.5).max() < 0.1
    if split == "test":
        plain = renderer.layout(PLAIN, "test", renderer.generator(PLAIN, "test", 0))
        assert plain == renderer.layout(settings, "test", renderer.generator(settings, "test", 0))


def test_label_noise_is_in_the_training_labels_alone():
    noisy, wrong = replace(PLAIN, label_noise=0.3), []
    for split in renderer.SPLITS:
        pairs = []
        for index in range(300):
            clean = renderer.layout(PLAIN, split, renderer.generator(PLAIN, split, index))
            scene = renderer.layout(noisy, split, renderer.generator(noisy, split, index))
            assert replace(scene, label=clean.label) == clean
            pairs.append(scene.label != clean.label)
        wrong.append(np.mean(pairs))
    assert 0.22 < wrong[0] < 0.38
    assert wrong[1:] == [0, 0]
    always = replace(PLAIN, label_noise=1.0)
    scene = renderer.render(always, "train", 0)
    assert scene["label"] != scene["box_labels"][0]


def test_seeds_splits_and_indices_differ_and_repeat():
    first = renderer.render(PLAIN, "train", 0)
    assert_equal(first, renderer.render(PLAIN, "train", 0))
    for other in (
        renderer.render(PLAIN, "train", 1),
        renderer.render(PLAIN, "test", 0),
        renderer.render(replace(PLAIN, seed=1), "train", 0),
    ):
        assert (other["image"] != first["image"]).mean() > 0.5
