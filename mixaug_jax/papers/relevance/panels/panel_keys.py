"""The settings of the panels: the section `panels` of a config."""

from mixaug_jax.config import keys
from mixaug_jax.config.allowed import Choice, Entry, Int, Key, Many, Number, Text, section
from mixaug_jax.core.types import Config
from mixaug_jax.papers.relevance.panels import concept_rows
from mixaug_jax.papers.relevance.panels.kinds import PANELS

SECTION = "panels"
_COUNT = Int(1, 10**6)


# fmt: off
KEYS = section(
    SECTION,
    {
        "kinds": Key(("grid", "oracle", "concepts", "attribution"),
                     "which; counterfactual and flow_classifier train a flow first",
                     Many(Entry(lambda: PANELS), 1, distinct=True)),
        "split": Key("test", "whose images", Choice(("validation", "test"))),
        "images": Key(1000, "that panels are made of, spread evenly over the split; 0: all", Int(0, 10**7)),
        "pool": Key(20, "rows of a panel, of which readers are shown fewer; concepts: images of each", Int(2, 10**4)),
        "rows": Key(10, "that a reader is shown, and the questionnaire has; published: 30", Int(2, 10**4)),
        "method": Key("gradcam", "of attribution", Text(1)),
        "factorization": Key("pca", "of concepts: pca, or nmf for layers after a ReLU", Choice(concept_rows.FACTORIZATIONS)),
        "concepts": Key(8, "how many; published: 6, 8 or 10", Int(2, 1000)),
        "layer": Key("", "of concepts; (): that of class activation maps", Text()),
        "jnd": Key(0.05, "least just noticeable difference, a share of an attribute's range", Number(0, 1, above=True)),
        "unbiased": Key("", "a control: the working directory of a network trained on unbiased animals; (): without", Text()),
        "export": Key("", "a folder: also write the questionnaire for people there; (): none", Text()),
        "consent": Key("", "of the questionnaire: a text file", Text()),
        "flow_side": Key(32, "pixels of the flow's images", Int(8, 512)),
        "flow_steps": Key(2000, "of its training; published: 7 levels of 32 steps on 2.5 million images", _COUNT),
        "flow_batch": Key(64, "images of a step over all devices", _COUNT),
        "flow_lr": Key(1e-3, "the largest rate of its training", Number(0, 1, above=True)),
        "seed": Key(0, "of all draws", Int(0, 2**31 - 1)),
    },
    SECTION,
)
# fmt: on


def of_config(config: Config) -> Config:
    """The section, its defaults where a config has none."""
    return config[SECTION] if SECTION in config else keys.defaults(SECTION, KEYS)
