"""Writes the repository's address, which stands in setup.py, into the notebooks: a badge, and where pip finds the package.

    python notebooks/set_address.py

Without an address (URL = "") a notebook has no badge and asks for the package's place, so that nothing in it is a broken link.
"""

import json
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
_COLAB = "https://colab.research.google.com"
_BADGE = re.compile(r"\[!\[Open in Colab\]")
_SOURCE = re.compile(r'^SOURCE = ".*?"', re.MULTILINE)


def address() -> str:
    """The URL of setup.py, "" where none is known."""
    return re.search(r'^URL = "(.*)"', (ROOT / "setup.py").read_text(), re.MULTILINE)[1]


def badge(name: str, url: str) -> str:
    """The link that opens a notebook of a repository on GitHub in Colab."""
    place = f"github/{url.partition('.com/')[2]}/blob/main/notebooks/{name}.ipynb"
    return f"[![Open in Colab]({_COLAB}/assets/colab-badge.svg)]({_COLAB}/{place})"


def changed(text: str, name: str, url: str) -> str:
    """A notebook's text with this address in place of the one before."""
    book = json.loads(text)
    for cell in book["cells"]:
        source = "".join(cell["source"])
        if cell["id"] == "title":
            title, *others = [part for part in source.split("\n\n") if not _BADGE.match(part)]
            source = "\n\n".join([title, *([badge(name, url)] if url else []), *others])
        if cell["id"] == "install":
            source = _SOURCE.sub(f'SOURCE = "{f"git+{url}" if url else ""}"', source)
        cell["source"] = source.splitlines(keepends=True)
    return json.dumps(book, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Changes the files in place."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text = path.read_text(encoding="utf-8")
        path.write_text(changed(text, path.stem, address()), encoding="utf-8")


if __name__ == "__main__":
    main()
