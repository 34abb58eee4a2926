"""The study of the published test bed: its numbers, the claims that they decide, and what is drawn."""

import numpy as np
import pytest

from mixaug_jax.papers.deep_taylor import bed_numbers, claims, relu_stack


@pytest.fixture(scope="module")
def measured():
    """The test bed's numbers for some of the points, and two rules beside z_plus for the cosines."""
    stack = relu_stack.bed_stack()
    bed = bed_numbers.Bed(("z_plus", "w_squared", "input"))
    return bed_numbers.measure(stack, relu_stack.points(stack, 1000), bed)


# Numbers of the study, made from other inputs of the same test bed: z_plus and input, layers 1 to 3.
STUDY = {
    "z_plus": {"activation": (0.186, 0.225, 1), "relevance": (0.903, 0.917, 1)},
    "w_squared": {"activation": (0.256, 0.302, 1), "relevance": (0.879, 0.960, 1)},
    "input": {"activation": (0.045, 0.082, 1), "relevance": (0.511, 0.516, 1)},
}


@pytest.mark.parametrize("rule", STUDY)
@pytest.mark.parametrize("reading", ["activation", "relevance"])
def test_share_of_roots_in_the_region(measured, rule, reading):
    found = np.nanmean(measured[f"roots/{rule}/{reading}/in_region"], 0)
    np.testing.assert_allclose(found, STUDY[rule][reading], atol=0.03)


def test_numbers_of_the_study(measured):
    rows = claims.table({"testbed": measured})
    value = {(r.quantity, r.rule): r.value for r in rows if r.layer == ""}
    near = {"z_plus": 0.752, "w_squared": 0.389, "input": 0.983}
    for rule, expected in near.items():
        assert abs(value["cosine with gradient x input", rule] - expected) < 0.03
    both = {"z_plus": 0.977, "w_squared": 0.978, "input": 0.487, "gradient": 0.262}
    for rule, expected in both.items():
        assert abs(value["|cosine| of two outputs' maps", rule] - expected) < 0.03
    negative = np.nanmean(measured["roots/w_squared/activation/not_negative"], 0)
    np.testing.assert_allclose(negative, [0.32, 0.13, 0.02], atol=0.03)
    assert np.nanmin(measured["roots/z_plus/activation/not_negative"]) == 1
    assert 0.02 < value["share kept, full backward, published", "z_plus"] < 0.12
    assert value["share kept, full backward, published", "w_squared"] < 0.02
    widths = measured["regions/widths"].mean(0)
    np.testing.assert_allclose(widths, [0.75, 0.91, 1.01], atol=0.05)  # published points lie nearer
    assert (measured["roots/z_plus/activation/exceptions"] == 0).all()


def test_claims_of_the_test_bed(measured):
    said = {c.letter: c for c in claims.judged({"testbed": measured})}
    assert [c.holds for c in said.values()] == ["yes"] * 7
    # A claim is not made without what speaks for it, and can fail.
    assert {c.holds for c in claims.judged({})} == {""}
    wrong = dict(measured)
    wrong["roots/z_plus/activation/exceptions"] = np.ones_like(
        wrong["roots/z_plus/activation/exceptions"]
    )
    wrong["maps/z_plus/other"] = wrong["maps/z_plus"] * np.where(np.arange(10) % 2, 1, -1)
    again = {c.letter: c.holds for c in claims.judged({"testbed": wrong})}
    assert (again["a"], again["g"]) == ("no", "no")


def test_claims_of_layers_without_roots(measured):
    """Shares of nothing are no evidence, and hide none."""
    some = dict(measured)
    first = some["roots/z_plus/activation/in_region"].copy()
    first[:, 0] = np.nan  # comes first, before values that decide
    some["roots/z_plus/activation/in_region"] = first
    (said,) = [c for c in claims.judged({"testbed": some}) if c.letter == "f"]
    assert (said.holds, "nan" in said.said) == ("yes", False)
    none = dict(measured)
    for name in [n for n in none if n.endswith("/in_region") or n.startswith("full/")]:
        none[name] = np.full_like(none[name], np.nan)
    said = {c.letter: c.holds for c in claims.judged({"testbed": none})}
    assert (said["d"], said["e"], said["f"]) == ("", "", "")


def test_what_the_output_is_at_the_roots_is_told(measured):
    left = [r for r in claims.table({"testbed": measured}) if r.quantity == "output_left"]
    found = [r.value for r in left if (r.rule, r.reading) == ("input", "activation")]
    right = np.nanmean(measured["roots/input/activation/output_left"], 0)
    np.testing.assert_allclose(found, right)


def test_an_image_that_is_alone_in_its_region_decides_nothing():
    """Its distance to the root is 0, and what is drawn of it NaN."""
    drawn = {"error": np.float32([1e-7, np.nan]), "same": np.array([True, True])}
    drawn["slope"] = drawn["error"]

    def claim(distance):
        found = {f"letter/{k}": v for k, v in {**drawn, "distance": distance}.items()}
        found |= {f"letter/mild/{k}": np.zeros((2, 1)) for k in ("error", "slope", "admissible")}
        return next(c for c in claims.judged({"draw": found}) if c.letter == "c")

    assert claim(np.float32([1e-5, 0])).holds == "yes"
    assert "1 of 2 images" in claim(np.float32([1e-5, 0])).said
    assert claim(np.float32([1e-5, 1e-5])).holds == "no"
    assert claim(np.zeros(2, np.float32)).holds == ""


def test_drawing_on_the_test_bed(measured):
    assert measured["drawing/error"].max() < 1e-4
    assert measured["drawing/same"].all()
    assert np.median(measured["drawing/apart"]) > 0.1
    assert measured["constant/error"].max() < 1e-9
