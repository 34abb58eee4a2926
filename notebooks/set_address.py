"""Writes the repository's address, which stands in setup.py, into the notebooks: their badges and their install cells.

python notebooks/set_address.py
"""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
_ADDRESS = re.compile(r"(github(?:\.com)?/)[\w.-]+/mixaug_jax\b")


def changed(text: str) -> str:
    """A notebook's text with the address of now in place of the one before."""
    url = re.search(r'^URL = "(.*)"', (ROOT / "setup.py").read_text(), re.MULTILINE)[1]
    owner = url.removeprefix("https://github.com/").removesuffix("/mixaug_jax")
    return _ADDRESS.sub(rf"\g<1>{owner}/mixaug_jax", text)


def main() -> None:
    """Changes the files in place."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        path.write_text(changed(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
