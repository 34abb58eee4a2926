"""Who else hears of a training: TensorBoard, or whatever has these three methods.

    train(config, workdir, writers=(TensorBoard("events"), mine))

docs/how-to/writers.md has W&B, MLflow and trackio as writers of a few lines each.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mixaug_jax.core.types import Count, Path, Scalar, UInt8

METHODS = ("write_scalars", "write_images", "write_hparams")


@runtime_checkable
class Writer(Protocol):
    """What `train` calls, in process 0 alone; `close`, where there is one, is called at the end.

    The writers of clu have these methods, too.
    """

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Is told what a line of metrics.jsonl has: losses, accuracies, the learning rate; finite or NaN."""

    def write_images(self, step: int, images: Mapping[str, UInt8[np.ndarray, "N H W C"]]) -> None:
        """Is told images by name, uint8 [N,H,W,3 or 1]: of the first step those that the network sees, mixed."""

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Is told the settings before the first step, as {"train.lr": 0.1, ...}, each text or a number."""


def checked(writers: Iterable[Writer]) -> tuple[Writer, ...]:
    """The writers, once each has the three methods.

    Raises:
      ValueError: several are asked for and one is given, or one lacks a method.
    """
    if isinstance(writers, str) or not isinstance(writers, Iterable):
        raise ValueError(f"writers must be several, as in (writer,); got {writers!r}")
    writers = tuple(writers)
    for writer in writers:
        lacking = [name for name in METHODS if not callable(getattr(writer, name, None))]
        if lacking:
            raise ValueError(
                f"writers: {type(writer).__name__} has no {lacking[0]}; a writer has {', '.join(METHODS)}"
            )
    return writers


class TensorBoard:
    """Writes events for TensorBoard by tensorboardX (extra `tensorboard`), without TensorFlow.

    Args:
      folder: of the event files; made where missing.
      start: step that a run goes on from; what an earlier one wrote past it is hidden. -1 hides nothing.

    Raises:
      ImportError: tensorboardX is not there.
    """

    def __init__(self, folder: Path, start: Count = -1):
        try:
            import tensorboardX
        except ImportError as error:
            raise ImportError(
                "TensorBoard's events need tensorboardX: pip install 'mixaug_jax[tensorboard]'"
            ) from error
        past = start + 1 if start >= 0 else None
        self._events = tensorboardX.SummaryWriter(str(folder), purge_step=past)

    def write_scalars(self, step: Count, scalars: Mapping[str, Scalar]) -> None:
        """Adds a point to the curve of each name."""
        for name, value in scalars.items():
            self._events.add_scalar(name, value, step)

    def write_images(self, step: Count, images: Mapping[str, UInt8[np.ndarray, "N H W C"]]) -> None:
        """Adds the images of each name as one picture of rows, uint8 [N,H,W,3 or 1]; a figure is one image."""
        for name, shown in images.items():
            self._events.add_image(name, tiled(shown), step, dataformats="HWC")

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Adds the settings as a text, a line each."""
        lines = [f"    {name} = {value}" for name, value in sorted(hparams.items())]
        self._events.add_text("settings", "\n".join(lines), 0)

    def close(self) -> None:
        """Ends the file."""
        self._events.close()


def tiled(images: UInt8[np.ndarray, "N H W C"] | Sequence[Any]) -> UInt8[np.ndarray, "h w C"]:
    """Images uint8 [N,H,W,C] in rows of about as many as there are rows, as one picture; what is left over is black."""
    images = np.asarray(images)
    count, height, width, channels = images.shape
    across = int(np.ceil(np.sqrt(count)))
    down = -(-count // across)
    blank = np.zeros((across * down - count, height, width, channels), images.dtype)
    rows = np.concatenate([images, blank]).reshape(down, across, height, width, channels)
    return rows.swapaxes(1, 2).reshape(down * height, across * width, channels)


def settings_of(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as `write_hparams` is given them: numbers, truth values and texts; tuples as texts "(1, 2)"."""
    plain = (bool, int, float, str)
    return {name: value if isinstance(value, plain) else str(value) for name, value in flat.items()}
