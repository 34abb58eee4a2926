"""Every public mixer, method and score has a reference; pages give those of what they use."""

import re

import pytest
import reports

from mixaug_jax.attribution import METHODS
from mixaug_jax.mixing import MIXERS
from mixaug_jax.report import references, writing
from mixaug_jax.scores import SCORES


@pytest.mark.parametrize("table", [MIXERS, METHODS, SCORES], ids=["mixers", "methods", "scores"])
def test_every_entry_has_a_reference(table):
    known = references.known()
    for name, entry in table.items():
        identifiers = references.cited(entry)
        assert identifiers, f"the docstring of {name} names no arXiv number and no doi"
        assert set(identifiers) <= set(known), name


def test_the_file_holds_what_is_cited_and_is_whole():
    everything = {**MIXERS, **METHODS, **SCORES}
    cited = {identifier for entry in everything.values() for identifier in references.cited(entry)}
    # Network Dissection, interventions on its units, and labels by attention.
    assert set(references.known()) == cited | {"1704.05796", "2009.05041", "2111.09833"}
    keys = [re.match(r"@(\w+)\{(\w+),\n", text) for text in references.known().values()]
    assert len({key[2] for key in keys}) == len(keys)
    for text in references.known().values():
        fields = dict(re.findall(r"^  (\w+) += \{(.*)\},$", text, re.MULTILINE))
        assert {"author", "title", "year"} <= fields.keys()
        assert text.count("{") == text.count("}")
        assert ("eprint" in fields) != ("doi" in fields)
        # An arXiv number begins with the year and month, and nothing is printed long before.
        if "eprint" in fields:
            assert int(fields["year"]) >= 2000 + int(fields["eprint"][:2])


def test_a_page_gives_those_of_what_it_uses(tmp_path):
    run = reports.write_run(tmp_path / "run", reports.found())
    found = reports.Page(writing.write_report(run))
    text = (run / "report" / "references.bib").read_text()
    assert text.count("\n@") + text.startswith("@") == len(re.findall(r"^@", text, re.MULTILINE))
    for name in ("zhang2018mixup", "selvaraju2017gradcam", "petsiuk2018rise", "bau2017dissection"):
        assert text.count(f"{{{name},") == 1
    assert "yun2019cutmix" not in text
    assert "% gradcam\n@inproceedings{selvaraju2017gradcam" in text
    assert " ".join(text.split()) in found.text
    assert "references.bib" in {a.get("download") for a in found.every("a")}
    assert "copy" in {b.get("class") for b in found.every("button") if b.get("data-copy") == "text"}


def test_labels_by_attention_have_a_reference(tmp_path):
    used = references.used_in(tmp_path, {"name": "cutmix", "label": "attention"})
    assert "% mix.label=attention\n@inproceedings{chen2022transmix," in references.bibtex(used)
    plain = references.used_in(tmp_path, {"name": "cutmix", "label": "mixed"})
    assert "transmix" not in references.bibtex(plain)


def test_nothing_used_has_no_section(tmp_path):
    assert references.section(tmp_path, [{}]) == ""

    def mine():
        """What I thought of myself."""

    assert references.bibtex({"mine": mine}) == ""
