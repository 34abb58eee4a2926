"""Does a bottleneck explain better than other methods? The table of Schulz et al. 2020 (arXiv 2001.00396), on any network.

    python -m mixaug_jax.main --config=configs/attribution_table.py      # a network of the scenes, trained first
    python -m mixaug_jax.main --config=configs/attribution_table.py --workdir=runs/baseline-scenes --stage=bottleneck_table
    python -m mixaug_jax.main --config=configs/attribution_table.py:folder --config.weights=WEIGHTS --config.data.dir=PHOTOS
    python -m mixaug_jax.main --config=configs/attribution_table.py:imagenet2012,full --config.weights=resnet50.pth

The second line takes a run that is there. `folder` has one size of tile, short curves and 60 steps of the readout on 100
photographs; with weights of ImageNet's classes, add --config.explain.label=mapped (boxes named as in COCO) or predicted.
`full` is the published protocol: tiles of 8 and 14 pixels, 100 points a curve, 1000 images of sensitivity-n, beta 1, 10 and 100
and a readout of 20 epochs. --config.table.rows=all takes every method besides. A run that was stopped goes on with the same
command.
"""

from mixaug_jax import config
from mixaug_jax.config import keys
from mixaug_jax.papers import bottleneck_table

PRESETS = {
    "": {},
    "folder": {
        "table": {"tiles": (14,), "snapshots": 10, "sens_tiles": (14,), "sens_images": 20},
        "explain": {"max_images": 100},
        "readout": {"steps": 60, "batch_size": 8, "stat_images": 100, "clamp": "auto"},
    },
    "full": {
        "table": {
            "tiles": (8, 14),
            "snapshots": 100,
            "sens_images": 1000,
            "sens_sizes": 16,
            "sens_masks": 100,
            "betas": (1.0, 10.0, 100.0),
        },
        "explain": {"max_images": 0, "reference": 10000},
        "readout": {"steps": 0, "epochs": 20, "lr": 1e-5, "beta": 10.0, "stat_images": 10000},
    },
}


def get_config(data="scenes"):
    data, _, preset = data.partition(",")
    if preset not in PRESETS:
        raise ValueError(f"attribution_table has the presets folder and full; got {preset!r}")
    settings = config.get_config("baseline", data)
    settings.stages = ("train", "bottleneck_table", "report")
    with settings.unlocked():
        settings.table = keys.defaults("table", bottleneck_table.KEYS)
    for section, changed in PRESETS[preset or ("folder" if data == "folder" else "")].items():
        settings[section].update(changed)
    return settings
