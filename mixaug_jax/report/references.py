"""Where methods, mixers and scores come from, as BibTeX: what their docstrings name is looked up in references.bib."""

import inspect
import json
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from markupsafe import Markup

from mixaug_jax import dissection
from mixaug_jax.attribution import METHODS
from mixaug_jax.core import entries
from mixaug_jax.draw import page
from mixaug_jax.mixing import MIXERS, labels
from mixaug_jax.scores import SCORES

_CITED = re.compile(r"arXiv (\d{4}\.\d{4,5})|doi (10\.\d+/[\w./-]*\w)")


def cited(entry: Callable) -> list[str]:
    """The arXiv numbers and DOIs that an entry's docstring names, "1905.04899"."""
    text = inspect.getdoc(entries.function_of(entry)) or ""
    return list(dict.fromkeys(arxiv or doi for arxiv, doi in _CITED.findall(text)))


def known() -> dict[str, str]:
    """The BibTeX of references.bib by arXiv number or DOI."""
    text = (pathlib.Path(__file__).parent / "references.bib").read_text(encoding="utf-8")
    found = {}
    for entry in re.split(r"\n(?=@)", text):
        name = re.search(r"^ +(?:eprint|doi) += \{(.*)\}", entry, re.MULTILINE)
        found[name[1]] = entry.strip()
    return found


def used_in(workdir: pathlib.Path, mix: Mapping[str, Any]) -> dict[str, Callable]:
    """{name: entry} of what a run with the settings `mix` used: its mixer, Network Dissection, interventions, methods, scores.

    What was brought to the run has its references in its own file, which a page does not run.
    """
    found = {name: mixer for name, mixer in MIXERS.items() if name == mix["name"]}
    if mix.get("label", "") == labels.ATTENTION:
        found["mix.label=attention"] = labels.attended_share
    if any(workdir.glob("dissection/**/counts.csv")):
        found["Network Dissection"] = dissection.dissect
    if any(workdir.glob("interventions/**/units.csv")):
        found["Interventions"] = dissection.intervene
    for path in sorted(workdir.glob("attribution/**/entries.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        names = [*told, *(score for said in told.values() for score in said.get("scores", {}))]
        for table in (METHODS, SCORES):
            found |= {name: table[name] for name in names if name in table}
    return found


def bibtex(used: Mapping[str, Callable]) -> str:
    """BibTeX of everything used, each entry once, after a line that says what it is the source of."""
    sources: dict[str, list[str]] = {}
    for name, entry in used.items():
        for identifier in cited(entry):
            sources.setdefault(identifier, []).append(name)
    texts = known()
    return "\n\n".join(
        f"% {', '.join(names)}\n{texts[identifier]}"
        for identifier, names in sources.items()
        if identifier in texts
    )


def section(folder: pathlib.Path, used: Iterable[Mapping[str, Callable]]) -> Markup:
    """The references of one run or of several, to copy, and as references.bib; "" where nothing has any."""
    text = bibtex({name: entry for one in used for name, entry in one.items()})
    if not text:
        return Markup("")
    count = text.count("\n@")
    said = page.paragraph(
        f"What this page uses was published in {count} papers; please cite those whose results you report."
        if count > 1
        else "What this page uses was published in one paper."
    )
    return page.section(
        "references",
        "References",
        said,
        page.folded("BibTeX", page.copied(folder, "references.bib", text + "\n"), long=True),
    )
