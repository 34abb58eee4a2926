"""What the tests of scenes share: settings without any planted shortcut, and what it means to be the same."""

import numpy as np

from mixaug_jax.data.scenes import renderer

CHANCES = {"background": 0.0, "color": 0.0, "position": 0.0, "label_noise": 0.0}


PLAIN = renderer.Settings(size=32, seed=0, train=6, validation=3, test=4, **CHANCES)


def assert_equal(left, right):
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)
