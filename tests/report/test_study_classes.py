"""The part of a study's page about single classes."""

import csv

import class_cases
import markupsafe
import pytest
import studies

from mixaug_jax import data, study
from mixaug_jax.report.study import study_classes
from mixaug_jax.study import class_sentences, class_statistics

FIGURES = ("class_effects", "class_recalls", "class_heat", "class_confusions", "class_strengths_0")


@pytest.fixture(scope="module", autouse=True)
def _quick():
    def gone(*_, **__):
        raise OSError("the data is gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "open_source", gone)
        patch.setattr(class_statistics, "DRAWS", 200)
        yield


def section(folder):
    """The study and what its page says of classes, without the rest of the page; files are in <folder>/report."""
    found = study.gather(folder)
    (folder / "report").mkdir()
    return found, str(study_classes.section(found, found.classes, folder / "report"))


def rows(folder, name):
    with (folder / "report" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_sentences_tables_and_figures(tmp_path):
    folder = tmp_path
    asked = {"methods": ("baseline", "cutmix"), "sweep": ["mix.alpha=0.5,1.0"]}
    class_cases.write_study(folder, classes=12, images=60, **asked)
    gathered, text = section(folder)
    found = gathered.classes
    for sentence in class_sentences.of_study(found):
        assert str(markupsafe.escape(sentence)) in text
    for name in FIGURES:
        assert (folder / "report" / f"{name}.svg").exists()
    table = rows(folder, "classes")
    assert [row["comparison"] for row in table] == [
        "cutmix-alpha0.5 minus baseline",
        "cutmix-alpha1.0 minus baseline",
    ]
    for row, effect in zip(table, found.effects, strict=True):
        assert float(row["mean effect"]) == pytest.approx(100 * effect.overall[0])
        assert float(row["tau"]) == pytest.approx(100 * effect.found.tau)
        population = 100 * max(effect.population, 0) ** 0.5
        assert float(row["tau on other images"]) == pytest.approx(population)
        assert float(row["expected worse classes"]) == pytest.approx(effect.shrunken.expected)
        assert int(row["classes that look worse"]) == effect.observed.worse[0]
        assert float(row["by chance"]) == pytest.approx(effect.null.worse.mean())
        assert row["losses forgiven [%]"] == ""
    every = rows(folder, "every_class")
    assert len(every) == 24
    assert {row["named as worse"] for row in every} == {"yes", "no"}
    arms = rows(folder, "class_strengths_0")
    assert [row["mix.alpha"] for row in arms] == ["0.5", "1"]
    assert float(arms[1]["tau"]) == pytest.approx(100 * found.effects[1].found.tau)
    assert "Not compared with explanations and concepts" in text


def test_a_study_without_predictions_says_so(tmp_path):
    for run in studies.asked(tmp_path, seeds=(0,)):
        studies.write_run(run)
    _, text = section(tmp_path)
    assert "No two runs of one seed have predictions of single images" in text


def test_few_classes_have_the_table_of_every_class_alone(tmp_path):
    class_cases.write_study(tmp_path, classes=4, seeds=(0,), images=20)
    _, text = section(tmp_path)
    assert not (tmp_path / "report" / "class_effects.svg").exists()
    assert (tmp_path / "report" / "class_recalls.svg").exists()
    (row,) = rows(tmp_path, "classes")
    assert row["tau"] == row["by chance"] == ""
    assert "over the images of these very networks" in text
