"""The section `markers` of a config: what a decoder learns from, and how the generator is trained."""

from mixaug_jax import config as config_lib
from mixaug_jax.config import keys
from mixaug_jax.config.allowed import PLACE, Choice, Int, Key, Text, section
from mixaug_jax.core.types import Config

# Values of markers.train: what is made without a generator, with one (up to that link), and what is read.
MADE, LABELED = ("plain", "handmade"), "labeled"
BOTH = "detail+labeled"
LEARNED = ("poses", "blur", "lighting", "background", "detail", BOTH)
GENERATORS = ("few", "maps")
_STAGE = "decode"

KEYS = section(
    "markers",
    {
        "train": Key(
            "detail",
            "what the decoder learns from: learned links up to this one, then hand-made ones; labeled: labeled pictures; "
            "detail+labeled: half of each batch the generator's, half labeled pictures",
            Choice((*MADE, *LEARNED, LABELED)),
        ),
        "gan": Key("", "a working directory whose generator is used; empty: this one's", Text()),
        "reader": Key(
            "",
            "a working directory whose decoder reads the generator's pictures after each link; empty: none does",
            Text(),
            PLACE,
        ),
        "generator": Key(
            "few",
            "few: a few dozen numbers a picture; maps: the published networks that draw maps",
            Choice(GENERATORS),
        ),
        "steps": Key(800, "of the generator's training", Int(1, 10**9)),
        "batch_size": Key(32, "real pictures a step, and as many made ones", Int(1, 2**20)),
        "filters": Key(
            12, "of the discriminator's first layer, and n of the generator maps", Int(1, 4096)
        ),
    },
    _STAGE,
)


def check_own(config: Config) -> None:
    """Raises ValueError where the section is not there, or its values are not allowed."""
    if "markers" not in config.data or "markers" not in config:
        raise ValueError("these stages are for markers; start from configs/rendergan.py")
    keys.check_values(config_lib.flatten({"markers": config.markers.to_dict()}), KEYS)


def settings_of(config: Config) -> dict:
    """What decides a generator, as JSON has it."""
    own = {name: config.markers[name] for name in ("generator", "steps", "batch_size", "filters")}
    held = {f"data.markers.{name}": value for name, value in config.data.markers.items()}
    return (
        own
        | held
        | {
            "size": config.data.size,
            "spin": config.data.markers.spin,
            "seed": config.seed,
            "crop": config.data.crop,
            "pad": config.data.pad,
            "precision": config.precision,
        }
    )
