"""The table of keys: complete, and nothing else is accepted, whatever is typed."""

import functools
import json
import math

import ml_collections
import numpy as np
import pytest

from mixaug_jax import attribution, mixing, models
from mixaug_jax import config as config_lib
from mixaug_jax.config import allowed, get_config, keys
from mixaug_jax.study import plan

DATA = ("scenes", "folder", "speech", "markers", "animals", "cifar10", "cifar100", "imagenet2012")
METHODS = ("baseline", *mixing.MIXERS)


def flat(config):
    return config_lib.flatten(config.to_dict())


def is_option(key):
    """Whether a key is an option of an entry, which has no line in the table."""
    return key.startswith("explain.options.") or (key.startswith("mix.") and key not in keys.KEYS)


def test_the_table_has_every_key_and_no_other():
    found = set()
    for data in DATA:
        for method in METHODS:
            mine = {key for key in flat(get_config(method, data)) if not is_option(key)}
            assert mine <= keys.KEYS.keys()
            found |= mine
    assert found == keys.KEYS.keys()


def test_every_line_of_the_table_is_whole():
    words = {keys.NETWORK, keys.LENGTH, keys.RATE, keys.PLACE, keys.MACHINE, keys.NOTHING}
    for key, known in keys.KEYS.items():
        assert known.default is not None
        known.allowed.check(key, known.default)
        assert fits(known.allowed, known.default), key
        assert known.comment
        assert not known.comment.endswith(".")
        assert known.allowed.words
        assert known.decides in words | {"dissect", "intervene", "explain", "occlude", "report"}
        assert isinstance(known.allowed, allowed.Allowed)


def test_a_default_survives_being_typed():
    """Read back from what the help shows."""
    for key, known in keys.KEYS.items():
        text = keys._typed(known.default)
        assert keys.read_text(key, "" if text == '""' else text) == known.default, key


def test_what_a_setting_decides():
    def all_of(*words):
        return {key for key, known in keys.KEYS.items() if known.decides in words}

    assert all_of(keys.NOTHING, keys.MACHINE) == {
        "compile_cache", "stages", "train.log_every", "train.checkpoint_every", "train.keep_every",
        "train.profile_steps", "train.restart", "eval.batch_size", "eval.every", "data.threads",
        "data.prefetch", "dissect.cache_gb", "dissect.memory_gb", "weights_check"}  # fmt: skip
    assert all_of(keys.LENGTH) == {"train.epochs", "train.steps"}
    assert all_of(keys.PLACE) == {"data.dir", "data.markers.crops"}
    for stage in ("dissect", "intervene", "explain", "occlude"):
        section = {key for key in keys.KEYS if key.startswith(f"{stage}.")}
        # A readout bottleneck is trained for the explanations.
        beside = {key for key in keys.KEYS if key.startswith("readout.") and stage == "explain"}
        machine = {"dissect.cache_gb", "dissect.memory_gb"}
        assert all_of(stage) == section - machine | beside
    assert keys.decides("explain.options.iba.beta") == "explain"
    assert keys.decides("mix.alpha") == keys.decides("data.mine.depth") == keys.NETWORK
    assert keys.decides("resolved.steps") == keys.MACHINE
    assert keys.decides("my_paper.samples") == "my_paper"


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("train.lr", "1e-2", 0.01),
        ("train.epochs", " 3 ", 3),
        ("data.flip", "false", False),
        ("explain.methods", "gradcam,iba", ("gradcam", "iba")),
        ("explain.methods", "gradcam", ("gradcam",)),
        ("explain.methods", "('gradcam', 'iba')", ("gradcam", "iba")),
        ("explain.methods", "(gradcam, iba)", ("gradcam", "iba")),
        ("explain.methods", "", ()),
        ("dissect.layers", "layer3,layer4,", ("layer3", "layer4")),
        ("dissect.iou", "0.1,0.2", (0.1, 0.2)),
        ("dissect.segmenter_sizes", "[256, 512]", (256, 512)),
        ("occlude.labels", "true,3", ("true", "3")),
        ("occlude.split", "", ""),
        ("weights", "a b,c.pth", "a b,c.pth"),
        ("explain.options.lrp.rule", "epsilon", "epsilon"),
        ("explain.options.lrp.rule", "(('a', 'z_plus'), ('b', 'w2'))",
         (("a", "z_plus"), ("b", "w2"))),
        ("explain.options.occlusion.window", "4", 4),
        ("explain.options.sensitivity_n.n", "(1, 2)", (1, 2)),
    ],
)  # fmt: skip
def test_texts_of_a_command_line(key, text, value):
    assert keys.read_text(key, text) == value
    config = get_config()
    keys.assign(config, key, text)
    assert flat(config)[key] == value
    assert type(flat(config)[key]) is type(value)
    config_lib.check(config)


@pytest.mark.parametrize(
    ("key", "text", "sentence"),
    [
        ("train.epochs", "0.5", "train.epochs must be an integer of at least 0 and at most 1000000; got '0.5'"),
        ("train.lr", "nan", "train.lr must be a number at least 0 and at most 1000; got nan"),
        ("train.lr", "fast", "train.lr must be a number at least 0 and at most 1000; got 'fast'"),
        ("train.decay", "-1", "train.decay must be a number above 0 and at most 1; got -1.0"),
        ("train.decay", "inf", "train.decay must be a number above 0 and at most 1; got inf"),
        ("dissect.segmenter_sizes", "(1e400,)",
         "each of dissect.segmenter_sizes must be an integer of at least 32 and at most 4096; got inf"),
        ("model.width", "1e308", "model.width must be a number above 0 and at most 64; got 1e+308"),
        ("eval.every", "1e308", "eval.every must be a number above 0 and at most 1000000; got 1e+308"),
        ("seed", "9" * 20, "seed must be an integer of at least 0 and at most 4294967295; got " + "9" * 20),
        ("data.threads", "1" + "0" * 20,
         "data.threads must be an integer of at least 1 and at most 1024; got 1" + "0" * 20),
        ("data.flip", "maybe", "data.flip must be True or False; got 'maybe'"),
        ("data.crop_scale", "0.5,0.2", "data.crop_scale must be 2 values, none below the one before, each a number "
         "above 0 and at most 1; got (0.5, 0.2)"),
        ("data.mean", "(None,)", "each of data.mean must be a number at least -100 and at most 100; got None"),
        ("train.schedule", "cosin",
         "train.schedule must be one of cosine, step, constant; got 'cosin' (did you mean 'cosine'?)"),
        ("occlude.split", "val", "occlude.split must be one of '', train, validation, test; got 'val'"),
        ("occlude.labels", "true,\u00b2",
         "each of occlude.labels must be true, predicted, or a class's number; got '\u00b2'"),
        ("data.train_split", "", "data.train_split must be text that is not empty; got ''"),
        ("data.dir", "a\x00b", "data.dir must be text; got 'a\\x00b'"),
        ("explain.options.iba.beta", "inf",
         "explain.options.iba.beta must be a number at least -1000000000 and at most 1000000000; got inf"),
        ("train.lrr", "1", "unknown key train.lrr (did you mean train.lr?)"),
        ("lr", "1", "unknown key lr (did you mean readout.lr or train.lr?)"),
        ("explain.options.iba.bta", "1", "unknown key explain.options.iba.bta (did you mean explain.options.iba.beta?)"),
        ("eval.zzz", "1", "unknown key eval.zzz; there are eval.batch_size, eval.every"),
        ("eval", "1", "eval is a section of settings, and no key; its keys are eval.batch_size, eval.every"),
    ],
)  # fmt: skip
def test_what_a_text_cannot_be(key, text, sentence):
    for road in (lambda: keys.read_text(key, text), lambda: keys.assign(get_config(), key, text)):
        with pytest.raises(ValueError) as error:  # noqa: PT011  (the whole sentence is compared)
            road()
        assert str(error.value) == sentence


def test_numbers_that_python_gives():
    config = get_config()
    config.train.epochs = True  # a ConfigDict takes it for an integer
    with pytest.raises(ValueError, match=r"train\.epochs must be an integer of .*; got True"):
        config_lib.check(config)
    config = get_config()
    config.train.lr = None
    with pytest.raises(ValueError, match=r"train\.lr must be a number .*; got None"):
        config_lib.check(config)
    config.train.lr, config.train.steps = 0.1, 10**400
    with pytest.raises(
        ValueError, match=r"train\.steps must be an integer of .*; got 10{44}\.\.\.0{12}$"
    ):
        config_lib.check(config)


def test_names_are_looked_up_when_they_are_checked(monkeypatch):
    config = get_config()
    with config.ignore_type():
        config.model.name, config.mix.name = "mine", "also_mine"
        config.explain.methods = ("gradient", "my_method")
    with pytest.raises(ValueError, match=r"mix\.name must be one of none, alignmix, .*'also_mine'"):
        config_lib.check(config)

    def also_mine(key, images, targets, *, prob=1.0, per="batch", shard=0, depth=(1, 2)):
        return images, targets

    def my_method(net, image, label, *, depth=3):
        return image

    monkeypatch.setitem(mixing.MIXERS, "also_mine", also_mine)
    with pytest.raises(ValueError, match=r"each of explain\.methods must be one of .*'my_method'"):
        config_lib.check(config)
    monkeypatch.setitem(attribution.METHODS, "my_method", my_method)
    with pytest.raises(ValueError, match=r"model\.name must be one of resnet18, .*; got 'mine'"):
        config_lib.check(config)
    monkeypatch.setitem(models.MODELS, "mine", models.MODELS["tiny"])
    config_lib.check(config)
    config = get_config("also_mine")
    assert config.mix.to_dict() == {
        "name": "also_mine",
        "prob": 1.0,
        "per": "batch",
        "share": 1.0,
        "depth": (1, 2),
    }
    keys.assign(config, "mix.depth", "3,4")
    assert config.mix.depth == (3, 4)
    config_lib.check(config)
    with pytest.raises(
        ValueError, match=r"each of mix\.depth must be an integer of .*; got '4\.5'"
    ):
        keys.assign(config, "mix.depth", "3,4.5")
    with pytest.raises(ValueError, match=r"unknown key mix\.label"):
        keys.assign(config, "mix.label", "first")
    assert "my_method" in config_lib.help_text("explain")
    assert get_config().explain.options.my_method.depth == 3
    assert keys.read_text("explain.options.my_method.depth", "4") == 4


def test_keys_that_are_not_there_and_keys_too_many():
    config = get_config("cutmix")
    with config.unlocked():
        config.train.epoch = 3
    with pytest.raises(
        ValueError, match=r"unknown key train\.epoch \(did you mean train\.epochs\?\)"
    ):
        config_lib.check(config)
    with config.unlocked():
        del config.train.epoch
        del config.train.lr
    with pytest.raises(ValueError, match=r"train\.lr is missing; start from what config"):
        config_lib.check(config)


def test_sections_of_a_data_set_and_of_a_stage_from_outside():
    config = get_config("cutmix", "mine")
    with config.unlocked():
        config.data.mine = {"depth": 3}
        config.my_paper = {"samples": float("nan")}  # its stage checks it
    config_lib.check(config)
    config.data.mine.depth = 10**20
    with pytest.raises(
        ValueError, match=r"data\.mine\.depth must be text, a number of at most 1e12"
    ):
        config_lib.check(config)
    config.data.mine.depth, config.data.name = 3, "other"
    with pytest.raises(ValueError, match=r"unknown key data\.mine\.depth"):
        config_lib.check(config)
    keys.assign(config, "my_paper.samples", "5")
    assert config.my_paper.samples == 5.0


def test_the_help_shows_every_key_in_100_columns():
    text = config_lib.help_text()
    assert max(map(len, text.splitlines())) <= 100
    for key, known in keys.KEYS.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"{key} = ")]
        assert line
        assert known.comment.split()[0] in text
    assert "train.lr = 0.1 " in config_lib.help_text("train")
    assert "a number at least 0 and at most 1000\n" in config_lib.help_text("train")
    data = config_lib.help_text("data")
    assert "data.audio.rate = 8000" in data
    assert "train.lr" not in data
    assert config_lib.help_text("data.audio").startswith("data.audio.rate")
    with pytest.raises(ValueError, match=r"section must be one of .*did you mean 'train'"):
        config_lib.help_text("trian")


# --- the fuzz test ---

CASES = 6000
TEXTS = (
    "", " ", "nan", "-nan", "inf", "-inf", "1e308", "-1e308", "1e-320", "1e400", "-1", "-0.0", "0", "1", "2", "3", "0.5",
    "1.5", "100", "9" * 20, "-" + "9" * 20, "9" * 400, "9" * 5000, "None", "True", "False", "true", "abc", "a,b", "a,", ",",
    ",,", "(1,", "()", "[]", "(None,)", "(inf,)", "(nan,)", "(1e400, 1)", "('a','b')", "[[1, 2], [3]]", "((('a',),),)",
    "0.1,0.2", "0.9,0.1", "0.5,0.5", "0,1", "1,1", "1,2,3", "256,512", "10**9", "1+1", "0x10", "1_000", "\x00", "\n", "a\nb",
    "\u00fc", "\u00b2", "'", "\"'", "{}", "{'a': 1}", "%s", "{x}", "\\", "a" * 20_000, "(" * 300, "[" * 20 + "]" * 20, "..",
    "/", "train", "validation", "gradcam", "cutmix", "none", "tiny", "sum", "auto", "1j", "b'a'", "lambda: 0", "True,False",
)  # fmt: skip
VALUES = (
    None, True, False, 0, 1, 2, -1, 7, 0.5, 10**20, -(10**20), 10**400, 1e308, -1e308, 1e-320, math.nan, math.inf, -math.inf,
    "", "abc", "\x00", "a\nb", "train", (), (None,), (math.nan,), (math.inf, 1), ("a",), ("a", "a"), (1, 2), (0.1, 0.2, 0.3),
    (1, "a"), ((1, 2), (3,)), [1, 2], ["a", None], (True,), (10**400,), np.float32(0.5), np.float64("nan"), np.int64(3),
    np.bool_(True), b"x", 1j, {}, {"a": 1}, object(), len, np.ones(2), (np.ones(2),), ({},), (object(),), range(3), {1, 2},
)  # fmt: skip


def fits(kind, value):
    """Whether a value is in the range that a kind declares, worked out anew."""
    if isinstance(kind, allowed.Many):
        if not isinstance(value, (tuple, list)) or not kind.least <= len(value) <= kind.most:
            return False
        unlike = not kind.distinct or all(value.count(one) == 1 for one in value)
        ordered = not kind.rising or list(value) == sorted(value)
        return unlike and ordered and all(fits(kind.of, one) for one in value)
    if isinstance(kind, allowed.Either):
        return fits(kind.first, value) or fits(kind.second, value)
    if isinstance(kind, allowed.Plain):
        return plain(value)
    if isinstance(kind, allowed.Flag):
        return type(value) is bool
    if isinstance(kind, allowed.Int):
        return type(value) is int and kind.least <= value <= kind.most
    if isinstance(kind, allowed.Number):
        return number(value) and inside(kind, value)
    if isinstance(kind, allowed.Choice):
        return value in kind.values
    if isinstance(kind, allowed.Entry):
        return value in (*kind.beside, *kind.of())
    assert isinstance(kind, allowed.Text)
    return isinstance(value, str) and len(value) >= kind.least and value.isprintable()


def inside(kind, value):
    low = value > kind.least if kind.above else value >= kind.least
    return low and (value < kind.most if kind.below else value <= kind.most)


def number(value):
    return isinstance(value, (int, float)) and type(value) is not bool and math.isfinite(value)


def plain(value):
    if isinstance(value, (tuple, list)):
        return all(map(plain, value))
    return isinstance(value, (str, bool)) or (number(value) and abs(value) <= 1e12)


def good_texts(kind):
    """Texts that a kind may allow: the ends of its range, some of its names."""
    if isinstance(kind, allowed.Many):
        some = [text for text in good_texts(kind.of) if text]
        return ["", *some, ",".join(some), ",".join(reversed(some)), ",".join(some[:2])]
    if isinstance(kind, allowed.Int | allowed.Number):
        return [str(kind.least), str(kind.most), str((kind.least + kind.most) // 2)]
    if isinstance(kind, allowed.Choice | allowed.Entry):
        names = kind.values if isinstance(kind, allowed.Choice) else [*kind.beside, *kind.of()]
        return list(names[:5])
    return ["True", "words of a text"]


def change(rng, config, key, kind):
    """One key of a config set by a text, or to a value that a program gives: what was done, and the config."""
    if rng.random() < 0.7:
        pool = good_texts(kind) if rng.random() < 0.4 else TEXTS
        text = pool[rng.integers(len(pool))]
        return f"{key}={text[:60]}", plan.load(config, [f"{key}={text}"])
    value = VALUES[rng.integers(len(VALUES))]
    tree = config.to_dict()
    *sections, name = key.split(".")
    place = functools.reduce(dict.__getitem__, sections, tree)
    place[name] = value
    return f"{key} = {type(value).__name__}", ml_collections.ConfigDict(tree)


def refused(error, said):
    text = str(error)
    assert text, said
    assert "\n" not in text, said
    assert not text.endswith("."), f"{said}: {text}"
    assert len(text) < 25_000, said


def test_nothing_but_sentences_and_nothing_that_is_not_allowed(unchecked):
    """6000 times a setting is changed to sense and nonsense, as from a command line or by a program."""
    rng = np.random.default_rng(0)
    bases = [get_config(METHODS[k % len(METHODS)], DATA[k % len(DATA)]) for k in range(18)]
    tables = [keys.table_of(flat(config)) for config in bases]
    names = [sorted(flat(config)) for config in bases]
    rows = [[key for key in mine if key in keys.KEYS] for mine in names]
    accepted, seen = 0, set()
    for _ in range(CASES):
        k = rng.integers(len(bases))
        pool = names[k] if rng.random() < 0.25 else rows[k]
        # Those of one data set among eight are rarely drawn, so what has not refused anything yet comes first now and then.
        wanting = [key for key in rows[k] if key not in seen]
        pool = wanting if wanting and rng.random() < 0.2 else pool
        key = pool[rng.integers(len(pool))]
        said = key
        try:
            said, config = change(rng, bases[k], key, tables[k][key].allowed)
            config_lib.check(config)
        except ValueError as error:
            refused(error, said)
            seen.add(key)
            continue
        accepted += 1
        values = flat(config)
        for name in (key, *rows[k]):
            known = tables[k][name] if name in tables[k] else keys.KEYS[name]
            assert fits(known.allowed, values[name]), said
        if accepted % 10 == 0:
            made = config_lib.resolve(config, train_size=100, class_names=("a", "b"))
            assert json.loads(config_lib.to_json(made))["resolved"]["steps"] >= 1
    assert keys.KEYS.keys() <= seen  # every one of them has refused something
    assert CASES / 10 < accepted < CASES / 2
