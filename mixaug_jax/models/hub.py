"""Weights of the Hugging Face hub, "hf:timm/resnet50.a1_in1k": from its cache, or fetched by huggingface_hub (extra `hub`).

What the repository's config.json says of the view, the architecture and the classes goes with them.
"""

import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from mixaug_jax.models.net import INTERPOLATIONS, Preprocess

PREFIX = "hf:"
_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")  # fmt: skip
_CONFIG = "config.json"


class Located(NamedTuple):
    """A file of weights on this machine.

    Attributes:
      file: its path.
      facts: the config.json of its repository on the hub; {} for any other file.
    """

    file: pathlib.Path
    facts: Mapping[str, Any]

    @property
    def architecture(self) -> str:
        """What timm calls the network, or ""."""
        return str(self.facts.get("architecture", ""))


def located(path: str | pathlib.Path) -> Located:
    """The file that a path, a folder or a name "hf:OWNER/NAME" stands for; of the hub's, the cache is looked at first.

    A folder is one as a repository of the hub: model.safetensors, or an index with its shards, and perhaps config.json.

    The cache is where huggingface_hub has it: $HF_HUB_CACHE, $HF_HOME/hub or ~/.cache/huggingface/hub.

    Raises:
      ValueError: a name of another form, or a repository that is neither there nor to be had; says which file to put where.
    """
    if not str(path).startswith(PREFIX):
        return _in_folder(pathlib.Path(path))
    name = str(path).removeprefix(PREFIX)
    if len(name.split("/")) != 2 or not all(name.split("/")):
        raise ValueError(f"weights={path} must be hf:OWNER/NAME, as in hf:timm/resnet50.a1_in1k")
    folder = _cache() / f"models--{name.replace('/', '--')}"
    # The cache first: what is there needs neither the package nor a network.
    found, why = _cached(folder), ""
    if not found:
        found, why = _fetched(name)
    if not found:
        raise ValueError(
            f"weights={path} is not in the hub's cache and cannot be fetched ({why}): put its {_FILES[0]} (or {_FILES[2]}) and "
            f"its {_CONFIG} into {folder / 'snapshots' / 'main'}, or name the file itself"
        )
    return Located(found, _facts(found.with_name(_CONFIG)))


def _in_folder(path) -> Located:
    """A file, or the weights in a folder laid out as a repository of the hub, with its config.json."""
    files = (path / name for name in _FILES) if path.is_dir() else ()
    found = next((file for file in files if file.is_file()), None)
    return Located(found, _facts(found.with_name(_CONFIG))) if found else Located(path, {})


def _cache() -> pathlib.Path:
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return pathlib.Path(os.environ.get("HF_HUB_CACHE") or f"{home}/hub").expanduser()


def _cached(folder) -> pathlib.Path | None:
    """The weights in a repository's folder of the cache: of the commit that main is, or of the only one."""
    main = folder / "refs" / "main"
    commits = [main.read_text().strip()] if main.is_file() else []
    commits += sorted(path.name for path in folder.glob("snapshots/*"))
    files = (folder / "snapshots" / commit / name for commit in commits for name in _FILES)
    return next((file for file in files if file.is_file()), None)


def _fetched(name) -> tuple[pathlib.Path | None, str]:
    """The weights of a repository that huggingface_hub fetches, or None and why not."""
    try:
        import huggingface_hub
    except ImportError:
        return None, "huggingface_hub is not installed: pip install 'mixaug_jax[hub]'"
    found, why = None, ""
    for file in (_CONFIG, *_FILES):
        try:
            got = pathlib.Path(huggingface_hub.hf_hub_download(name, file))
        except (
            Exception
        ) as error:  # of the network, of the hub, of the disk: each has kinds of its own
            why = why or " ".join(str(error).split())[:200]
            continue
        if file != _CONFIG:
            found = found or got
            break
    # Shards lie beside their index.
    if found and found.suffix == ".json":
        for shard in sorted(set(json.loads(found.read_text())["weight_map"].values())):
            huggingface_hub.hf_hub_download(name, shard)
    return found, why


def _facts(path) -> dict:
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError):  # weights without it are weights all the same
        return {}
    return facts if isinstance(facts, dict) else {}


def view(facts: Mapping[str, Any]) -> Preprocess | None:
    """How the network of a repository sees an image, by what timm notes: input_size, crop_pct, mean, std, interpolation.

    Args:
      facts: its config.json.

    Returns:
      The view, or None where nothing is noted.

    Raises:
      ValueError: what is noted is no view.
    """
    noted = facts.get("pretrained_cfg", facts)
    if not isinstance(noted, Mapping) or not {"input_size", "mean", "std"} <= noted.keys():
        return None
    try:
        side = int(noted["input_size"][-1])
        resize = math.floor(side / float(noted.get("crop_pct", 0.875)))
        interpolation = str(noted.get("interpolation", "bilinear"))
        known = interpolation if interpolation in INTERPOLATIONS else "bilinear"
        mean, std = (tuple(map(float, noted[name])) for name in ("mean", "std"))
        return Preprocess(side, max(side, resize), mean, std, interpolation=known)
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"{_CONFIG} notes no view: {error}") from None
