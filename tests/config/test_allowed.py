"""What a text of a command line stands for, where a default tells of what kind it is."""

import pytest

from mixaug_jax.config import keys


@pytest.mark.parametrize(
    ("mixer", "key", "text", "value"),
    [
        ("puzzlemix", "mix.blocks", "2,4", (2, 4)),
        ("random_erasing", "mix.area", "0.1,1", (0.1, 1.0)),
        ("gridmix", "mix.cells", "(2, 5)", (2, 5)),
        ("alignmix", "mix.layers", "last,", ("last",)),
        ("none", "explain.options.road.fractions", "0.1,1", (0.1, 1.0)),
        ("none", "explain.options.sensitivity_n.n", "1,0.5,True", (1, 0.5, True)),
        ("none", "explain.options.lrp.bounds", "-2.5,1e1", (-2.5, 10.0)),
    ],
)
def test_numbers_between_commas_are_numbers(mixer, key, text, value):
    found = keys.read_text(key, text, {"mix.name": mixer})
    assert (found, [*map(type, found)]) == (value, [*map(type, value)])
    assert keys.read_text(key, keys._typed(value), {"mix.name": mixer}) == value


def test_a_word_among_numbers_is_refused():
    with pytest.raises(ValueError, match=r"each of mix\.area must be a number .*; got 'half'"):
        keys.read_text("mix.area", "0.1,half", {"mix.name": "random_erasing"})
