"""Settings: known keys, clear errors, and derived values that follow the overrides."""

import json

import pytest

from mixaug_jax import config as config_lib
from mixaug_jax import mixing
from mixaug_jax.config import get_config, opening

DATA = ("scenes", "folder", "speech", "markers", "animals", "cifar10", "cifar100", "imagenet2012")


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


def test_deits_recipe_under_another_method():
    own, other = (
        opening.open_config(f"configs/deit.py:scenes{method}") for method in ("", ",cutmix")
    )
    assert (own.mix.name, other.mix.name) == ("switch", "cutmix")
    assert {s for s in own if own[s] != other[s]} == {"mix"}


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
    with pytest.raises(
        ValueError, match=r"method must be one of baseline, .*'cutmx' \(did you mean 'cutmix'"
    ):
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
        ("data.size", 0, "data.size must be an integer of at least 1 and at most 4096; got 0"),
        ("data.std", (0.0, 1.0, 1.0), "each of data.std must be a number at least 1e-06 and at most 100; got 0.0"),
        ("mix.prob", 1.5, "mix.prob must be a number at least 0 and at most 1; got 1.5"),
        ("train.boundaries", (0.5, 0.2),
         "train.boundaries must be a list of values, none below the one before, each a number above 0 and below 1; "
         "got (0.5, 0.2)"),
        ("model.width", 0.0, "model.width must be a number above 0 and at most 64; got 0.0"),
        ("data.corrupt", "ignore", "data.corrupt must be one of error, skip; got 'ignore'"),
        ("precision", "low", "precision must be one of default, high, highest; got 'low'"),
    ],
)  # fmt: skip
def test_values_out_of_range(key, value, sentence):
    assert refusal(get_config("cutmix"), **{key: value}) == sentence


def refusal(config, **changes):
    """What `check` says about a config with these changes."""
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError) as error:  # noqa: PT011  (the whole sentence is compared)
        config_lib.check(config)
    return str(error.value)


@pytest.mark.parametrize(
    ("data", "changes", "sentence"),
    [
        ("scenes", {"train.epochs": 0}, "train.epochs and train.steps are both 0; set one"),
        ("scenes", {"train.accumulate": 5}, "train.accumulate=5 does not divide data.batch_size=32"),
        ("scenes", {"data.mean": (0.5,)}, "data.mean and data.std must have one value a channel; got 1 and 3"),
        ("scenes", {"data.mean": (0.5, 0.5), "data.std": (1.0, 1.0)},
         "data.mean has 2 values; images have 1 channel or 3"),
        ("scenes", {"data.mean": (0.5,), "data.std": (1.0,), "data.lighting": 0.1},
         "data.jitter and data.lighting are for colors; data.mean has one channel"),
        ("scenes", {"data.validation_split": "", "data.test_split": ""},
         "data.validation_split and data.test_split are both empty; name one"),
        ("scenes", {"data.crop": "time"}, "data.crop='time' is for recordings only (configs/METHOD.py:speech)"),
        ("folder", {"data.name": "scenes"},
         "data.name='scenes' does not fit the other settings of data; name the data set where they are chosen: "
         "configs/METHOD.py:scenes"),
        ("speech", {"data.name": "folder"},
         "data.name='folder' does not fit the other settings of data; name the data set where they are chosen: "
         "configs/METHOD.py:folder"),
        ("speech", {"data.flip": True},
         "a spectrogram has one channel and no mirror image, and its bands are not resized: data.mean needs one value, "
         "data.flip False, data.resize 1, and data.crop 'time' or 'none'"),
        ("speech", {"data.audio.hop": 1e-5}, "data.audio.window and data.audio.hop must last a sample at least"),
        ("speech", {"data.audio.window": 10.0, "data.audio.rate": 44_100},
         "data.audio.window * data.audio.rate must be at most 65536 samples; got 441000"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_together(data, changes, sentence):
    assert refusal(get_config("baseline", data), **changes) == sentence


def test_layers_are_those_of_the_network():
    config = get_config()
    config.dissect.layers, config.explain.layer = ("layer3", "layer4"), "layer2"
    config_lib.check_layers(resolved(config))
    config.dissect.layers = ("layer3", "layer5")
    with pytest.raises(
        ValueError, match=r"dissect\.layers must be one of .*layer4, fc; got 'layer5'"
    ):
        config_lib.check_layers(resolved(config))
    config.dissect.layers, config.explain.layer = (), "relu1"
    with pytest.raises(
        ValueError, match=r"explain\.layer must be one of .*layer4, fc; got 'relu1'"
    ):
        config_lib.check_layers(resolved(config))


def test_difference_names_what_a_resumed_run_may_not_change():
    old, new = get_config("cutmix"), get_config("cutmix")
    new.train.update(lr=0.3, log_every=7, epochs=99)
    new.update(compile_cache="elsewhere", stages=("train",))
    new.data.update(dir="moved", threads=1)
    new.dissect.q, new.explain.options.iba.beta = 0.5, 1.0
    assert config_lib.difference(old, new) == ["train.lr: 0.05 -> 0.3"]
    new.mix.alpha = 0.5
    assert config_lib.difference(old, new) == ["mix.alpha: 1.0 -> 0.5", "train.lr: 0.05 -> 0.3"]
    new.train.restart = True
    assert config_lib.difference(old, new) == ["mix.alpha: 1.0 -> 0.5"]


@pytest.mark.parametrize("known", ["", "test"])
def test_a_network_saved_without_data_fits_a_folder_with_and_without_test(known):
    old, new = get_config("baseline", "folder"), get_config("baseline", "folder")
    new.data.test_split = known
    assert not config_lib.difference(old, new)
    old.data.test_split = "validation"
    assert config_lib.difference(old, new) == [f"data.test_split: validation -> {known}"]


def test_a_run_that_did_not_know_a_key_had_its_default():
    old, new = get_config(), get_config()
    with old.unlocked():
        del old.deterministic
        del old.train.boundaries
    assert not config_lib.difference(old, new)
    new.deterministic = True
    assert config_lib.difference(old, new) == ["deterministic: False -> True"]


def test_a_section_that_a_stage_brought_does_not_decide_the_network():
    old, new = get_config(), get_config()
    for config, samples in ((old, 3), (new, 4)):
        with config.unlocked():
            config.my_paper = {"samples": samples}
    assert not config_lib.difference(old, new)


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


def test_every_option_of_every_method_and_score_is_a_key():
    options = get_config().explain.options
    assert options.integrated_gradients.steps == 64
    assert options.occlusion.window == 16
    assert options.lerf.window == 8
    assert options.deletion.window == 2
    assert not {"key", "chunk", "noise", "masks"} & {k for group in options.values() for k in group}
