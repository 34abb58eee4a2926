"""Settings: known keys, clear errors, and derived values that follow the overrides."""

import json

import pytest

from mixaug_jax import config as config_lib
from mixaug_jax import mixing
from mixaug_jax.config import get_config

DATA = ("scenes", "folder", "speech", "cifar10", "cifar100", "imagenet2012")


def resolved(config, size=1000):
    return config_lib.resolve(config, train_size=size, class_names=("a", "b"))


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("method", ["baseline", *mixing.MIXERS])
def test_every_method_on_every_data_set_is_valid(method, data):
    config = get_config(method, data)
    config_lib.check(config)
    assert config.data.name == data
    assert config.mix.name == ("none" if method == "baseline" else method)
    assert config_lib.from_json(config_lib.to_json(config)) == config
    assert None not in config_lib.flatten(config.to_dict()).values()


def test_published_recipes():
    config = get_config("cutmix", "imagenet2012")
    assert (config.train.epochs, config.data.batch_size, config.train.lr) == (300, 256, 0.1)
    assert (config.mix.alpha, config.mix.prob, config.train.weight_decay) == (1.0, 1.0, 1e-4)
    steps = resolved(config, 1_281_167).resolved
    assert steps.steps_per_epoch == 5004
    assert steps.boundaries == (75 * 5004, 150 * 5004, 225 * 5004)
    config = get_config("cutout", "cifar10")
    assert round(config.mix.length * config.data.size) == 16
    assert round(get_config("cutout", "cifar100").mix.length * config.data.size) == 8
    assert get_config("cutmix", "cifar100").mix.prob == 0.5
    assert resolved(config, 50_000).resolved.boundaries == (60 * 390, 120 * 390, 160 * 390)


def test_steps_win_over_epochs_and_the_schedule_scales_with_the_length():
    config = get_config("baseline", "imagenet2012")
    config.train.steps = 400
    assert resolved(config).resolved.steps == 400
    assert resolved(config).resolved.boundaries == (100, 200, 300)
    config.train.steps = 0
    config.train.epochs = 2
    config.data.batch_size = 100
    assert resolved(config).resolved.steps == 20
    assert resolved(config, 7).resolved.steps == 2  # a set smaller than a batch is repeated


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown method 'cutmx'; known: baseline, .*cutout"):
        get_config("cutmx")
    config = get_config()
    with pytest.raises(AttributeError, match="bach_size"):
        config.data.bach_size = 3


def test_an_option_of_another_method_is_refused():
    config = get_config("cutout")
    config.mix.name = "mixup"
    with pytest.raises(
        ValueError, match=r"mix.length is not an option of mixup; its options: .*alpha"
    ):
        config_lib.check(config)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("data.size", 0, "data.size must be at least 1"),
        ("data.crop_scale", (0.5, 0.2), "data.crop_scale"),
        ("data.std", (0.0, 1.0, 1.0), "std above 0"),
        ("mix.prob", 1.5, r"mix.prob must lie in 0..1, not 1.5"),
        ("train.boundaries", (0.5, 0.2), "train.boundaries must rise"),
        ("model.width", 0.0, "model.width must be above 0"),
        ("data.corrupt", "ignore", "data.corrupt='ignore' is not known"),
        ("precision", "low", "precision='low'"),
    ],
)
def test_values_out_of_range(key, value, sentence):
    config = get_config("cutmix")
    section, _, name = key.rpartition(".")
    setattr(config[section] if section else config, name, value)
    with pytest.raises(ValueError, match=sentence):
        config_lib.check(config)


def test_difference_names_what_a_resumed_run_may_not_change():
    old, new = get_config(), get_config()
    new.train.lr = 0.3
    new.train.log_every = 7
    new.train.epochs = 99
    assert config_lib.difference(old, new) == ["train.lr: 0.1 -> 0.3"]


def test_json_is_plain():
    text = config_lib.to_json(resolved(get_config("mixup")))
    assert json.loads(text)["mix"]["name"] == "mixup"


def test_the_console_shows_every_setting_but_those_of_single_methods():
    config = resolved(get_config("mixup"))
    flat = config_lib.flatten(config.to_dict())
    lines = config_lib.overview(config).splitlines()
    said = {
        f"{line.split(':')[0].strip()}.{word.partition('=')[0]}"
        for line in lines[2:]
        for word in line.partition(": ")[2].split(" ")
        if "=" in word
    }
    left_out = ("explain.options.", "resolved.class_names")
    assert said == {k for k in flat if "." in k and not k.startswith(left_out)}
    assert any(line.startswith("  mix: alpha=1.0 ") for line in lines)
    assert all(f"{key}=" in lines[1] for key in flat if "." not in key)
