"""The command `python -m mixaug_jax.data.convert`.

    python -m mixaug_jax.data.convert coco instances_val2017.json --images val2017 --to PHOTOS --split val
    python -m mixaug_jax.data.convert voc Annotations --images JPEGImages --masks SegmentationClass --to PHOTOS --split train
    python -m mixaug_jax.data.convert trimaps trimaps --images images --to PHOTOS --split train

The exit code is 0 when all went well, 2 for a command or files that cannot work, and 4 when the disk is full.
"""

import argparse
import pathlib
import sys

from mixaug_jax.core import say
from mixaug_jax.data.convert.coco import read_coco
from mixaug_jax.data.convert.placing import place
from mixaug_jax.data.convert.trimaps import read_trimaps
from mixaug_jax.data.convert.voc import CLASSES, read_voc


def main(argv: list[str] | None = None) -> int:
    """Does what a command line says.

    Args:
      argv: the words after the command; None: those of this process.

    Returns:
      The exit code.
    """
    try:
        asked = _parser().parse_args(argv)
        place(_found(asked), asked.to.expanduser(), asked.split)
        return 0
    except ValueError as error:
        say.error(" ".join(str(error).split()))
        return 2
    except OSError as error:
        say.error(error)
        return 4


def _parser():
    parser = argparse.ArgumentParser(prog="python -m mixaug_jax.data.convert", description=__doc__.split("\n")[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)  # fmt: skip
    kinds = parser.add_subparsers(dest="kind", required=True)
    given = {
        "coco": ("a JSON file of objects, such as instances_val2017.json", "COCO"),
        "voc": ("the folder Annotations, of XML files", "Pascal VOC"),
        "trimaps": ("the folder of trimaps", "Oxford-IIIT Pets"),
    }
    for kind, (what, known) in given.items():
        one = kinds.add_parser(kind, help=f"annotations in the form of {known}")
        one.add_argument("annotations", type=pathlib.Path, help=what)
        one.add_argument(
            "--images", type=pathlib.Path, required=True, help="the folder of the pictures"
        )
        one.add_argument(
            "--to", type=pathlib.Path, required=True, help="the folder to make, or to add to"
        )
        one.add_argument(
            "--split", default="train", choices=("train", "val", "test"), help="of the folder"
        )
        # The other two forms say the class of each pixel themselves, or have no masks.
        if kind == "voc":
            one.add_argument("--masks", type=pathlib.Path, help="the folder SegmentationClass")
            one.add_argument("--classes", type=pathlib.Path,
                             help="a file of the masks' classes, one a line from number 1 (none: VOC's 20)")  # fmt: skip
        if kind == "trimaps":
            one.add_argument("--name", default="animal", help="what the object is called")
    return parser


def _found(asked):
    if asked.kind == "coco":
        return read_coco(asked.annotations, asked.images)
    if asked.kind == "trimaps":
        return read_trimaps(asked.annotations, asked.images, asked.name)
    if asked.masks and not asked.masks.is_dir():
        raise ValueError(f"{asked.masks} is no folder of masks")
    return read_voc(asked.annotations, asked.images, asked.masks, _classes(asked.classes))


def _classes(path):
    if not path:
        return CLASSES
    try:
        names = tuple(path.read_text(encoding="utf-8-sig").split("\n"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    names = tuple(name.strip() for name in names if name.strip())
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{path} must have a class a line, each once")
    return names


if __name__ == "__main__":
    sys.exit(main())
