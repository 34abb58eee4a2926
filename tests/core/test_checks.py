"""Checks of arguments: what passes, what the sentence says, and the nearest right name."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mixaug_jax.core import checks

NAN, INF = float("nan"), float("inf")
IMAGES, TARGETS = np.zeros((2, 4, 5, 3), np.float32), np.full((2, 6), 1 / 6, np.float32)


def refused(sentence, check, *arguments, **options):
    """The check raises exactly this sentence."""
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        check(*arguments, **options)


def test_choice():
    checks.choice("per", "batch", ("batch", "example"))
    checks.choice("steps", 3, range(5))
    checks.choice("model", "", ("", "resnet18"))
    names = iter(("mixup", "cutmix"))  # what can be walked once only
    refused(
        "mixer must be one of mixup, cutmix; got 'vanilla'",
        checks.choice,
        "mixer",
        "vanilla",
        names,
    )


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("gradcamm", " (did you mean 'gradcam'?)"),
        ("grad_cam", " (did you mean 'gradcam'?)"),
        ("layer", " (did you mean 'layercam'?)"),
        ("zzz", ""),
        (7, ""),
    ],
)
def test_the_nearest_name_ends_the_sentence(value, hint):
    allowed = ("gradcam", "layercam", "rise")
    assert checks.nearest(value, allowed) == hint
    sentence = f"method must be one of gradcam, layercam, rise; got {value!r}{hint}"
    refused(sentence, checks.choice, "method", value, allowed)


def test_choice_of_what_cannot_be_hashed_or_is_empty():
    for value in (np.arange(2), ["a"], {"a": 1}):
        refused(f"key must be one of a, b; got {value!r}", checks.choice, "key", value, "ab")
    refused("model must be one of '', tiny; got None", checks.choice, "model", None, ("", "tiny"))


def test_a_long_value_is_cut():
    assert checks.shown("x" * 58) == repr("x" * 58)
    assert checks.shown("x" * 1000) == "'" + "x" * 44 + "..." + "x" * 11 + "'"
    assert checks.shown(10**5000) == "a number of 16610 bits"


def test_choices():
    checks.choices("layers", ("a", "b", "a"), "abc")
    checks.choices("layers", (), "abc")
    refused("layers must be one of a, b; got 'c'", checks.choices, "layers", ("a", "c"), iter("ab"))
    refused(
        "layers must be several names, as in ('ab',); got 'ab'",
        checks.choices,
        "layers",
        "ab",
        "ab",
    )


@pytest.mark.parametrize("value", [1, 7, np.int32(3), np.uint8(3), np.array(3)])
def test_count(value):
    found = checks.count("steps", value)
    assert (found, type(found)) == (int(value), int)


def test_count_has_two_ends():
    assert checks.count("seed", 0, 0) == checks.count("seed", -3, -3) + 3 == 0
    assert checks.count("seed", 2**32 - 1, 0, 2**32 - 1) == 2**32 - 1
    for value in (0, -1, 1.0, True, "1", None, NAN, (1,), np.arange(2)):
        sentence = f"steps must be an integer of at least 1; got {value!r}"
        refused(sentence, checks.count, "steps", value)
    sentence = "seed must be an integer of at least 0 and at most 9; got 10"
    refused(sentence, checks.count, "seed", 10, 0, 9)


@pytest.mark.parametrize(
    ("ends", "open_ends", "words"),
    [
        ((1, INF), {}, "at least 1"),
        ((-INF, 0.5), {}, "at most 0.5"),
        ((0, 1), {}, "at least 0 and at most 1"),
        ((0, 1), {"above": True, "below": True}, "above 0 and below 1"),
        ((0, 2**32 - 1), {"above": True}, "above 0 and at most 4294967295"),
        ((-INF, INF), {}, ""),
    ],
)
def test_bounds_in_words(ends, open_ends, words):
    assert checks.bounds(*ends, **open_ends) == words


def test_pair():
    assert checks.pair("window", 3) == checks.pair("window", (3, 3)) == (3, 3)
    assert checks.pair("window", [np.int64(2), 5]) == (2, 5)
    for value in (0, (1, 0), (1, 2, 3), (), 2.0, (True, 1), "23", None):
        sentence = f"window must be a positive integer or a pair of them; got {value!r}"
        refused(sentence, checks.pair, "window", value)


def test_number():
    for value in (0, 0.0, 1, 0.5, np.float32(0.5), np.int8(1)):
        checks.number("prob", value, 0, 1)
    for value in (-5, 1e300, 10**400):
        checks.number("x", value)
    checks.number("q", 1e-9, 0, 1, above=True, below=True)
    for value in (NAN, INF, True, "0.5", None, (0.5,)):
        sentence = f"prob must be a number at least 0 and at most 1; got {value!r}"
        refused(sentence, checks.number, "prob", value, 0, 1)
        refused(f"x must be a number; got {value!r}", checks.number, "x", value)
    for value in (0, 1):
        sentence = f"q must be a number above 0 and below 1; got {value}"
        refused(sentence, checks.number, "q", value, 0, 1, above=True, below=True)


@pytest.mark.parametrize(
    ("check", "passing", "failing", "words"),
    [
        (checks.not_negative, (0, 0.5, INF), (-0.1, NAN, "1"), "must not be negative"),
        (checks.positive, (0.1, 3, INF), (0, -1, NAN, "1"), "must be greater than 0"),
        (checks.fraction, (0, 0.5, 1), (-0.1, 1.1, NAN, "0.5"), "must be between 0 and 1"),
    ],
)
def test_ranges_of_a_number(check, passing, failing, words):
    for value in passing:
        check("area", value)
    for value in failing:
        refused(f"area {words}; got {value!r}", check, "area", value)


def test_interval():
    for value in ((0, 1), (0.3, 0.3), [0.1, 0.2]):
        checks.interval("scale", value, 0, 1)
    for value in (
        (0.5, 0.1), (-1, 0.5), (0, 2), (0.5,), (0, 0.5, 1), (NAN, 1), ("0.1", "0.3"), (True, 1), 0.5, "01",
    ):  # fmt: skip
        sentence = f"scale must be a pair (smallest, largest) between 0 and 1; got {value!r}"
        refused(sentence, checks.interval, "scale", value, 0, 1)
    sentence = f"sigma must be a pair (smallest, largest) of at least 0; got {(1, INF)}"
    refused(sentence, checks.interval, "sigma", (1, INF), 0, INF)


def test_image():
    found = checks.image(np.ones((4, 5, 3), np.float64))
    assert (found.shape, found.dtype) == ((4, 5, 3), jnp.float32)
    assert checks.image(jnp.ones((4, 5, 1), jnp.bfloat16)).dtype == jnp.float32
    for shape in ((4, 5), (1, 4, 5, 3), (0, 5, 3)):
        sentence = f"image must be one image [h,w,C]; got {list(shape)}, use jax.vmap"
        refused(sentence, checks.image, np.zeros(shape))
    sentence = "image must be preprocessed floating point; got uint8"
    refused(sentence, checks.image, np.zeros((4, 5, 3), np.uint8))


def test_images():
    assert checks.images(IMAGES) is IMAGES
    wanted = "images must be preprocessed, floating point [N,h,w,C]; got"
    for value in (IMAGES[0], IMAGES[:0], IMAGES.astype(np.uint8)):
        refused(f"{wanted} {value.dtype} {list(value.shape)}", checks.images, value)
    refused(f"{wanted} list [0]", checks.images, [])


@pytest.mark.parametrize(
    ("images", "targets", "sentence"),
    [
        (IMAGES[0], TARGETS, "images must have the shape [B,H,W,C]; got [4, 5, 3]"),
        (IMAGES[:0], TARGETS[:0], "images must not be empty; got the shape [0, 4, 5, 3]"),
        (IMAGES.astype(int), TARGETS, "images must be normalized floating point; got int64"),
        (IMAGES, TARGETS[0], "targets must be [B,K] with B = 2 as images have; got [6]"),
        (IMAGES, TARGETS[:1], "targets must be [B,K] with B = 2 as images have; got [1, 6]"),
        (
            IMAGES,
            TARGETS.astype(np.int32),
            "targets must be floating point rows that sum to 1; got int32",
        ),
        (
            np.zeros((2, 3, 8, 8), np.float32),
            TARGETS,
            "images must have their channels last, [B,H,W,C]; [2, 3, 8, 8] looks like [B,C,H,W]",
        ),
        (IMAGES[:1], TARGETS[:1], "images must be 2 at least, for each to have a partner; got 1"),
    ],
)
def test_batch(images, targets, sentence):
    checks.batch(IMAGES, TARGETS)
    refused(sentence, checks.batch, images, targets)


def test_batches_that_only_look_unusual():
    checks.batch(IMAGES[:1], TARGETS[:1], partners=False)
    checks.batch(np.zeros((2, 3, 8, 3), np.float32), TARGETS)
    checks.batch(np.zeros((2, 1, 1, 64), np.float32), TARGETS, spatial=False)


def test_a_batch_of_hidden_features_has_any_rank():
    for shape in ((2, 7), (2, 3, 7), (2, 3, 3, 2, 7)):
        checks.batch(np.zeros(shape, np.float32), TARGETS, spatial=False)
    sentence = "images must have the shape [B,...]; got [2]"
    refused(sentence, checks.batch, np.zeros(2, np.float32), TARGETS, spatial=False)


def test_large_enough():
    checks.large_enough(IMAGES, 4, "a grid")
    sentence = "images of 4 x 5 pixels are too small for a grid, which needs sides of at least 5"
    refused(sentence, checks.large_enough, IMAGES, 5, "a grid")


def test_normalized():
    checks.normalized(IMAGES, (0.5,) * 3, (0.2,) * 3, (1, 3))
    checks.normalized(IMAGES[..., :1], (0.5,), (0.2,), (1, 3))
    sentence = "images must have 1 or 3 channels; got 2"
    refused(sentence, checks.normalized, IMAGES[..., :2], (0.5,) * 2, (0.2,) * 2, (1, 3))
    for mean, std in (((0.5,), (0.2,) * 3), ((0.5,) * 3, (0.2,)), ((0.5,) * 3, (0.2, 0.2, 0))):
        sentence = (
            "mean and std must have a value for each channel, 3 in all, std above 0; got "
            f"{mean} and {std}"
        )
        refused(sentence, checks.normalized, IMAGES, mean, std, (3,))


def test_label():
    for value in (0, 4, np.int32(4), jnp.asarray(2)):
        checks.label(value, 5)
    jax.eval_shape(lambda k: checks.label(k, 5), np.int32(9))  # while tracing it is not known
    for value in (5, -1, np.uint8(200)):
        refused(f"label must be in 0..4; got {value}", checks.label, value, 5)
    for value in (1.0, "1", np.arange(2), True):
        refused(f"label must be one integer; got {value}", checks.label, value, 5)


def test_array():
    found = checks.array("masks", [[1, 2]], (0, 2))
    assert (found.shape, found.dtype) == ((1, 2), jnp.float32)
    for shape in ((2,), (3, 3), (0, 2), (1, 3, 2)):
        sentence = f"masks must have the shape [n, 2]; got {list(shape)}"
        refused(sentence, checks.array, "masks", np.zeros(shape), (0, 2))


def test_concrete_and_given():
    np.testing.assert_array_equal(checks.concrete(jnp.arange(3)), [0, 1, 2])
    jax.eval_shape(lambda x: jnp.zeros(0 if checks.concrete(x) is None else 1 / 0), np.arange(3))
    assert not checks.given(())
    for value in ((0,), np.zeros(0), 0, "", None):
        assert checks.given(value)
