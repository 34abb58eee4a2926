"""Runs notebooks as they are and keeps what they show, made small: what a reader sees before running anything.

    python notebooks/store_outputs.py explain_a_vit dissect_and_attribute

Their runs lie in runs/ of the folder that this is called from, and what is there is not made again. Left out are pages
(too large for a notebook), what went to standard error, and where the folder is.
"""

import base64
import io
import json
import pathlib
import sys

import nbclient
import nbformat
from PIL import Image

FOLDER = pathlib.Path(__file__).parent
WIDTHS, COLORS = (760, 600, 480), 96  # of a stored picture, at most
LONGEST_PICTURE = 120_000  # characters
LONGEST = 20_000  # characters of a stored output that is no picture


def main(names: list[str]) -> None:
    """Writes outputs into the notebooks of these names."""
    for name in names:
        path = FOLDER / f"{name}.ipynb"
        book = nbformat.read(path, as_version=4)
        client = nbclient.NotebookClient(book, timeout=-1, resources={"metadata": {"path": "."}})
        client.execute()
        kept = json.loads(path.read_text(encoding="utf-8"))
        for cell, ran in zip(kept["cells"], book.cells, strict=True):
            if cell["cell_type"] == "code":
                cell["execution_count"] = ran.execution_count
                found = (small(output, ran.execution_count) for output in ran.outputs)
                cell["outputs"] = joined([output for output in found if output])
        text = json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")
        print(f"{path}: {len(text) // 1000} kB")


def joined(outputs: list[dict]) -> list[dict]:
    """Outputs in which lines that were printed one after the other are one."""
    found = []
    for output in outputs:
        if output["output_type"] == "stream" and found and found[-1]["output_type"] == "stream":
            found[-1] = output | {"text": found[-1]["text"] + output["text"]}
        else:
            found.append(output)
    return found


def small(output: dict, count: int) -> dict:
    """An output as it is stored; {} for one that is left out."""
    if output["output_type"] == "stream":
        kept = {"output_type": "stream", "name": "stdout", "text": elsewhere(output["text"])}
        return kept if output["name"] == "stdout" and len(output["text"]) < LONGEST else {}
    data = {kind: elsewhere(shown) for kind, shown in output["data"].items()}
    if "image/png" in data:
        data = {"image/png": smaller(data["image/png"])}
    elif max(map(len, data.values())) > LONGEST:
        return {}
    kept = {"output_type": output["output_type"], "data": data, "metadata": {}}
    # A figure that a cell ends with is shown twice by the kernel: as its result, which is counted, and as a display.
    return kept | ({"execution_count": count} if output["output_type"] == "execute_result" else {})


def elsewhere(text: str) -> str:
    """A text without the folder that this runs in, which no reader has."""
    return text.replace(f"{pathlib.Path.cwd()}/", "")


def smaller(encoded: str) -> str:
    """A PNG with a palette, of the first of `WIDTHS` by which it is no longer than `LONGEST_PICTURE`, else of the last."""
    for width in WIDTHS:
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
            picture = picture.convert("RGB")
            picture.thumbnail((width, 10 * width), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            picture.quantize(COLORS).save(buffer, "PNG", optimize=True)
        kept = base64.b64encode(buffer.getvalue()).decode()
        if len(kept) <= LONGEST_PICTURE:
            break
    return kept


if __name__ == "__main__":
    main(sys.argv[1:])
