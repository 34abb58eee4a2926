"""What settings can work: the sentences about those that cannot, before anything is opened or compiled.

Each setting by itself is checked by its line of the table; here are the rules about several at once.
"""

import ml_collections

from mixaug_jax import mixing
from mixaug_jax.config import keys
from mixaug_jax.core import checks, entries
from mixaug_jax.data.speech import spectrogram
from mixaug_jax.models import Assume, build
from mixaug_jax.occlusion import grid

_LONGEST_FRAME = 2**16  # samples


def check(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError, in one sentence, for settings that cannot work. Needs no data and compiles nothing.

    Sections that the table does not have are left to the stage that brought them.
    """
    values = keys.flatten(config.to_dict())
    for key in ("data.name", "mix.name"):  # they decide which other keys there may be
        if key in values:
            keys.KEYS[key].allowed.check(key, values[key])
    _check_mixer(values)
    # What only some mixers or data sets have need not be there.
    some = ("mix.", *(f"{section}." for section in keys.OWN_SECTIONS.values()))
    needed = ["mix.name", *(key for key in keys.KEYS if not key.startswith(some))]
    own = {key: value for key, value in values.items() if keys.has_section(key)}
    keys.check_values(own, keys.table_of(own), needed)
    _check_data(config)
    _check_audio(config)
    _check_training(config)
    _check_occlude(config)
    if "assume" in config:
        Assume(**config.assume.to_dict())


def _check_mixer(values):
    """Options of another mixer than mix.name."""
    name = values.get("mix.name")
    allowed = _options_of(name) if name in mixing.MIXERS else None
    given = [key.removeprefix("mix.") for key in values if key.startswith("mix.")]
    surplus = [] if allowed is None else [o for o in given if o not in ("name", *allowed)]
    if surplus:
        raise ValueError(
            f"mix.{min(surplus)} is not an option of {name}; its options: {', '.join(allowed)} "
            f"(start from configs/{name}.py)"
        )


def _options_of(mixer):
    """A mixer's options, and the settings beside them that apply to it."""
    takes = entries.keywords(mixing.MIXERS[mixer])
    beside = [key for key in mixing.FOR_ALL if key != "net" or key in takes]
    return [*mixing.options(mixer), *beside]


def _check_data(config):
    d = config.data
    section = keys.OWN_SECTIONS.get(d.name, "").removeprefix("data.")
    if (section and section not in d) or ("audio" in d and d.name != "speech"):
        raise ValueError(
            f"data.name={d.name!r} does not fit the other settings of data; name the data set where "
            f"they are chosen: configs/METHOD.py:{d.name}"
        )
    if len(d.mean) not in (1, 3):
        raise ValueError(f"data.mean has {len(d.mean)} values; images have 1 channel or 3")
    if len(d.mean) != len(d.std):
        raise ValueError(
            f"data.mean and data.std must have one value a channel; got {len(d.mean)} and {len(d.std)}"
        )
    # Both are defined by colors, and would fail inside the step.
    if len(d.mean) == 1 and (d.jitter or d.lighting):
        raise ValueError("data.jitter and data.lighting are for colors; data.mean has one channel")
    if not d.validation_split and not d.test_split:
        raise ValueError("data.validation_split and data.test_split are both empty; name one")


def _check_audio(config):
    d = config.data
    if "audio" not in d:
        if d.crop == "time":
            raise ValueError("data.crop='time' is for recordings only (configs/METHOD.py:speech)")
        return
    if len(d.mean) != 1 or d.flip or d.resize != 1 or d.crop not in ("time", "none"):
        raise ValueError(
            "a spectrogram has one channel and no mirror image, and its bands are not resized: data.mean "
            "needs one value, data.flip False, data.resize 1, and data.crop 'time' or 'none'"
        )
    a = d.audio
    if min(a.window, a.hop) * a.rate < 1:
        raise ValueError("data.audio.window and data.audio.hop must last a sample at least")
    if a.window * a.rate > _LONGEST_FRAME:
        raise ValueError(
            f"data.audio.window * data.audio.rate must be at most {_LONGEST_FRAME} samples; "
            f"got {a.window * a.rate:g}"
        )
    # Called for its own checks alone; the filters are made again where they are used.
    spectrogram.mel_filters(a.rate, round(a.window * a.rate), d.size, a.low, a.high)


def _check_training(config):
    t, batch = config.train, config.data.batch_size
    if not t.steps and not t.epochs:
        raise ValueError("train.epochs and train.steps are both 0; set one")
    if config.mix.get("net") == "ema" and not t.ema:
        raise ValueError("mix.net='ema' needs an average of the weights: set train.ema above 0")
    if batch % t.accumulate:
        raise ValueError(f"train.accumulate={t.accumulate} does not divide data.batch_size={batch}")


def check_layers(config: ml_collections.ConfigDict) -> None:
    """Raises ValueError for a layer that the network which is to be trained does not have."""
    named = {"dissect.layers": config.dissect.layers, "explain.layer": (config.explain.layer,)}
    asked = [(key, layer) for key, layers in named.items() for layer in layers if layer]
    known = build.layer_names(config) if asked else ()
    for key, layer in asked:
        checks.choice(key, layer, known)


def _check_occlude(config):
    try:
        grid.from_config(config.occlude)
    except ValueError as error:  # a sentence that begins with the key
        raise ValueError(f"occlude.{error}") from error
