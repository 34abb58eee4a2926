"""Dissecting networks, from images to counts.

    results = dissect(net, dataset, ("layer3", "layer4"))
    results["layer4"].unique()  # [thresholds, categories]
"""

import dataclasses
import json
import pathlib
import tempfile
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax import log, parallel
from mixaug_jax.dissection import activations as activations_lib
from mixaug_jax.dissection import counting, streaming, thresholds
from mixaug_jax.dissection.concepts import LabelMaps, make_label_maps
from mixaug_jax.dissection.progress import Watched
from mixaug_jax.dissection.result import PER, Dissection, Options

_TOP = 5  # images and labels of a unit that are shown


def dissect(
    net,
    dataset,
    stages,
    *,
    options: Options = Options(),  # noqa: B008 (frozen)
    size: int = 0,
    images: int = 0,
    random_baseline: bool = True,
    labels: LabelMaps | None = None,
    folder: str = "",
    cache_gb: float = 4.0,
    batch_size: int = 64,
    threads: int = 4,
    devices=None,
) -> dict[str, Dissection]:
    pass
