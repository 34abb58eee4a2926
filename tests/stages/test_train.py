"""The stage that trains: what cannot work is said before any data is opened."""

import pytest
import toy

from mixaug_jax.stages import train


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": {"batch_size": 14}}, r"train\.accumulate=14 does not divide over 4 devices; "),
        ({"data": {"batch_size": 4}}, "needs at least 2 on each, so 8 or more"),
        ({"eval": {"batch_size": 6}}, r"eval\.batch_size=6 does not divide over 4 devices"),
        ({"mix": {"alpha": -1.0}}, "alpha must be greater than 0; got -1"),
        ({"dissect": {"layers": ("conv9",)}}, r"dissect\.layers must be one of relu1, "),
        ({"explain": {"layer": "conv9"}}, r"explain\.layer must be one of relu1, "),
    ],
)
def test_what_no_training_can_work_with(changed, message):
    config = toy.config("cutmix")
    train.STAGE.check(config)
    config.update(changed)
    with pytest.raises(ValueError, match=message):
        train.STAGE.check(config)


def test_imported_weights_ask_nothing_of_batches():
    config = toy.config("cutmix")
    config.data.batch_size, config.weights = 14, "released.pth"
    train.STAGE.check(config)
