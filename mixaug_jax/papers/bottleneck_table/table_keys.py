"""The settings of the table: the section `table` of a config. Which images, boxes and classes are asked stands in `explain`."""

from mixaug_jax.config import keys
from mixaug_jax.config.allowed import Choice, Int, Key, Many, Number, Text, section
from mixaug_jax.core.types import Config

_COUNT = Int(0, 10**9)
SECTION = "table"


# fmt: off
KEYS = section(
    SECTION,
    {
        "rows": Key((), "by name; (): those of the paper, all: every method besides",
                    Many(Text(1), distinct=True)),
        "tiles": Key((8, 4), "sides of the tiles that are replaced, pixels; published: 8,14",
                     Many(Int(1, 4096), 1, 8, distinct=True)),
        "snapshots": Key(20, "points of a curve; published: 100; 0: every number of tiles", _COUNT),
        "sens_tiles": Key((8,), "sides of the units of sensitivity-n, pixels; (): none",
                          Many(Int(1, 4096), 0, 8, distinct=True)),
        "sens_images": Key(30, "of sensitivity-n; published: 1000", Int(1, 10**9)),
        "sens_sizes": Key(8, "of its subsets; published: 16", Int(1, 1000)),
        "sens_masks": Key(20, "subsets of each size; published: 100", Int(2, 10**6)),
        "maps": Key("published", "scaled as by the paper's code, or ours, as in a run",
                    Choice(("published", "ours"))),
        "betas": Key((10.0,), "of the per-sample bottleneck; published: 1,10,100",
                     Many(Number(0, 10**6), 0, 16, distinct=True)),
        "layer": Key("", "of the per-sample bottleneck; (): the middle one, VGG's conv4_1", Text()),
    },
    "bottleneck_table",
)
# fmt: on


def of_config(config: Config) -> Config:
    """The section, its defaults where a config has none."""
    return config[SECTION] if SECTION in config else keys.defaults(SECTION, KEYS)
