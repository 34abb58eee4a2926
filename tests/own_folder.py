"""What the tests of folders share: pictures, settings, annotations."""

import json

import ml_collections
import numpy as np
import PIL.Image


def config(root, corrupt="error", **change):
    section = {
        "name": "folder",
        "dir": str(root),
        "corrupt": corrupt,
        "threads": 2,
        "batch_size": 2,
    }
    section |= {"outside": False, "validation_share": 0.0}
    splits = {"train_split": "train", "validation_split": "validation", "test_split": ""}
    return ml_collections.ConfigDict({"seed": 0, "data": section | splits | change})


def picture(path, *, size=(9, 7), seed=0, mode="RGB", **options):
    """Saves a random picture and returns it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    image = PIL.Image.fromarray(pixels).convert(mode)
    image.save(path, **options)
    return image


def write_pictures(root):
    """Three classes in train, one of them in val; three pictures each."""
    for split, names in {"train": ("dog", "cat", "ant"), "val": ("cat",)}.items():
        for name in names:
            for number in (2, 10, 1):
                picture(root / split / name / f"{number}.png", seed=number)


def annotate(root, notes, concepts=None):
    (root / "annotations.json").write_text(json.dumps(notes))
    if concepts is not None:
        (root / "concepts.json").write_text(json.dumps(concepts))


def save_mask(root, name, array):
    PIL.Image.fromarray(np.asarray(array, np.uint8)).save(root / name)
