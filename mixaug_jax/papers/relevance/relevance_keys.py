"""The settings of the paper: the section `relevance` of a config."""

from collections.abc import Mapping

from mixaug_jax import config as config_lib
from mixaug_jax.config import keys
from mixaug_jax.config.allowed import Choice, Flag, Int, Key, Number, section
from mixaug_jax.core.types import Config
from mixaug_jax.data.animals.animal_samplers import MODES

SECTION = "relevance"
_SEED = Int(0, 2**31 - 1)

# fmt: off
KEYS = section(
    SECTION,
    {
        "mode": Key("independent", "what is drawn again knows nothing of the class, or as in the released code", Choice(MODES)),
        "split": Key("test", "whose scenes", Choice(("validation", "test"))),
        "scenes": Key(1000, "of which each attribute is drawn again, and as many unbiased ones", Int(2, 10**6)),
        "tolerance": Key(0.02, "flips beyond those by the background's color that do not count", Number(0, 1)),
        "replicates": Key(1000, "of the bootstrap over scenes; fewer than 200 call nothing relevant after Holm's correction",
                          Int(200, 10**5)),
        "seed": Key(0, "of the bootstrap and of what trees are trained on", _SEED),
        "trees": Key(True, "also ask what trees tell from attributes alone (needs scikit-learn)", Flag()),
        "evaluator": Key(False, "also train a network that reads attributes off any picture, once for all runs", Flag()),
        "evaluator_scenes": Key(12_000, "it is trained on", Int(2, 10**7)),
        "evaluator_epochs": Key(8, "of its training; published: 61", Int(1, 10**4)),
        "evaluator_width": Key(0.25, "of its ResNet-18; published: a MobileNetV2", Number(0, 64, above=True)),
    },
    SECTION,
)
# fmt: on


def of_config(config: Config) -> Config:
    """The section, its defaults where a config has none."""
    return config[SECTION] if SECTION in config else keys.defaults(SECTION, KEYS)


def check_section(config: Config, name: str, asked: Config, known: Mapping[str, Key]) -> None:
    """Raises ValueError for settings of a stage for animals that cannot work.

    Args:
      config: of the run.
      name: of the stage and of its section.
      asked: the section.
      known: its keys.
    """
    config_lib.check(config)
    if "animals" not in config.data:
        raise ValueError(
            f"the stage {name} is for animals, and data.name is {config.data.name!r}; start from configs/relevance.py or "
            "configs/METHOD.py:animals"
        )
    keys.check_values(config_lib.flatten({name: asked.to_dict()}), known)
    if not config.data[f"{asked.split}_split"]:
        raise ValueError(
            f"{name}.split={asked.split!r}, but data.{asked.split}_split is empty; name another split"
        )
