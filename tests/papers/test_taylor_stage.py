"""The stage taylor: from settings to files and a section of the page; stopped, gone on with, and refused."""

import pathlib

import numpy as np
import pytest
import toy

from mixaug_jax import pipeline
from mixaug_jax.config import keys
from mixaug_jax.core import files
from mixaug_jax.papers import deep_taylor
from mixaug_jax.papers.deep_taylor import bed_numbers, convergence, on_images, taylor_stage

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def config(trained, tmp_path, monkeypatch):
    """configs/taylor_study.py, small, for the toy run; what takes long to compile is stood in for."""
    toy.use(monkeypatch, toy.splits()["validation"])
    scope = {}
    exec((ROOT / "configs" / "taylor_study.py").read_text(), scope)
    assert scope["get_config"]().stages == ("taylor", "report")
    settings = toy.config()
    settings.stages = ("taylor",)
    with settings.unlocked():
        settings.taylor = scope["get_config"]().taylor
    settings.taylor.update(
        run=str(trained), images=3, units=2, points=20, parts=("testbed", "region")
    )
    settings.taylor.update(rules=("z_plus",), depth=2, width=4, torch_seed=9)
    return settings


def quickly(figure, path, *, column=0):
    """A figure as small pixels: what is tested is that it can be drawn."""
    figure.savefig(f"{path}.png", dpi=30)
    for ending in (".svg", ".pdf"):
        pathlib.Path(f"{path}{ending}").write_text('<svg width="100pt">')


def test_keys_are_those_of_the_config(config):
    known = {key.removeprefix("taylor.") for key in deep_taylor.KEYS}
    assert known == set(config.taylor)
    defaults = keys.defaults("taylor", deep_taylor.KEYS)
    keys.check_values({f"taylor.{k}": v for k, v in defaults.items()}, deep_taylor.KEYS)


def test_a_run_that_was_killed_goes_on(config, tmp_path, monkeypatch, capsys):
    """Whatever part it was killed in: what is there is read, the rest is made, and tables are the same."""
    work = tmp_path / "study"
    whole = on_images.run

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(on_images, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(config, work)
    assert (work / "taylor" / "testbed.npz").exists()
    assert not (work / "taylor" / "taylor.csv").exists()
    monkeypatch.setattr(on_images, "run", whole)
    measure = bed_numbers.measure
    monkeypatch.setattr(bed_numbers, "measure", killed)
    pipeline.run(config, work)
    said = capsys.readouterr().out
    assert "(a) only roots" in said
    assert "taylor: region" in said
    rows = files.read_csv(work / "taylor" / "taylor.csv")
    assert {row["part"] for row in rows} == {"testbed", "region"}
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows if row["inputs"])
    claims = files.read_csv(work / "taylor" / "claims.csv")
    assert [row["letter"] for row in claims] == list("abcdefg")
    # Nothing is made again; another setting makes the part that it decides.
    monkeypatch.setattr(on_images, "run", killed)
    before = (work / "taylor" / "taylor.csv").read_bytes()
    pipeline.run(config, work)
    assert (work / "taylor" / "taylor.csv").read_bytes() == before
    # Other photographs in the place of these are measured again.
    toy.use(monkeypatch, toy.source(21, seed=9))
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(config, work)
    toy.use(monkeypatch, toy.splits()["validation"])
    monkeypatch.setattr(bed_numbers, "measure", measure)
    monkeypatch.setattr(on_images, "run", whole)
    config.taylor.units = 3
    pipeline.run(config, work, "taylor")
    again = capsys.readouterr().out
    assert "taylor: region" in again
    assert "taylor: testbed" not in again
    # The page has the section with its figures.
    pipeline.run(config, work, "report")
    text = (work / "report" / "report.html").read_text()
    for part in (
        "What deep Taylor decomposition does",
        "figure-taylor_plane",
        "figure-taylor_regions",
    ):
        assert part in text


def test_the_rule_zero_alone(config, tmp_path, monkeypatch, capsys):
    """It has no roots to draw on the plane, and none of units; the rest of the test bed is there."""
    monkeypatch.setattr(taylor_stage.style, "save_figure", quickly)
    config.taylor.rules = ("zero",)
    pipeline.run(config, tmp_path / "study", "taylor")
    said, folder = capsys.readouterr().out, tmp_path / "study" / "taylor"
    assert "plane and the part region are left out, because the rule zero has one root" in said
    assert not (folder / "region.npz").exists()
    assert {path.name for path in folder.glob("*.png")} == {"taylor_regions.png"}
    rows = files.read_csv(folder / "taylor.csv")
    assert {row["rule"] for row in rows if row["quantity"] == "in_region"} == {"zero"}


def test_all_parts_are_drawn(config, tmp_path, monkeypatch):
    """Figures and tables of arrays as the parts give them, without computing any."""
    ways, layers = list(on_images.WAYS), ("relu1", "relu3", "relu4", "fc")
    draw = np.random.default_rng(0)
    names = [f"{way}/fc/{layer}" for way in ways for layer in layers]
    lines = {name: np.sort(draw.random(5)) for name in names}
    lines |= {f"images/{name}": np.array(3) for name in names}
    lines |= {f"products/{s}": draw.random(14) for s in convergence.SIGNS}
    pair = {"all/maps": draw.normal(size=(3, len(ways), 2, 8, 8)), "ways": np.array(ways)}
    pair |= {f"all/{name}": draw.random((3, len(ways))) for name in ("cosine", "ssim")}
    weights = {f"{way}/{m}": draw.random((3, 4)) for way in ways for m in ("spearman", "ssim")}
    drawn = {
        f"letter/{n}": draw.random((2, 8, 8, 3))
        for n in ("image", "untouched", "target", "relevance")
    }
    drawn |= {f"letter/{n}": draw.random(2) for n in ("error", "slope", "distance")}
    drawn |= {
        "letter/same": np.ones(2, bool),
        "letter/mild/relevance": draw.random((2, 4, 8, 8, 3)),
    }
    drawn |= {f"letter/mild/{n}": draw.random((2, 4)) for n in ("error", "slope", "admissible")}
    region = {"rules": np.array(["z_plus"])}
    for name in ("same_pattern", "same_gradient", "inside", "distance"):
        region[f"relu1/{name}"] = np.array([[[0, 1, np.nan]], [[np.nan] * 3]])
    found = {"region": region, "draw": drawn, "csc": lines, "class": pair, "weights": weights}
    monkeypatch.setattr(taylor_stage.style, "save_figure", quickly)
    taylor_stage._write(config, tmp_path, found, layers, True)
    rows = files.read_csv(tmp_path / "taylor" / "taylor.csv")
    assert {row["part"] for row in rows} == set(found)
    (share,) = [r for r in rows if r["part"] == "region" and r["quantity"] == "same_pattern"]
    assert (share["value"], share["inputs"]) == (0.5, 1)  # an image without a unit does not count
    for name in ("regions", "anything", "convergence", "classes", "weights"):
        assert (tmp_path / "report" / f"taylor_{name}.png").stat().st_size > 1000
    claims = {row["letter"]: row for row in files.read_csv(tmp_path / "taylor" / "claims.csv")}
    assert claims["a"]["holds"] == ""
    assert claims["c"]["holds"] == "no"  # random arrays are no drawings


def test_what_cannot_work_is_said(config, tmp_path, monkeypatch, unchecked):
    config.taylor.run = str(tmp_path / "nothing")
    with pytest.raises(
        ValueError, match=r"taylor\.run='.*nothing' has no checkpoints; --config=baseline"
    ):
        pipeline.run(config, tmp_path / "a", "taylor")
    config.taylor.parts = ("testbad",)
    with pytest.raises(
        ValueError, match=r"taylor\.parts must be one of testbed.*did you mean 'testbed'"
    ):
        pipeline.run(config, tmp_path / "b", "taylor")
    config.taylor.update(parts=("testbed",), depth=3, width=1000)
    with pytest.raises(ValueError, match=r"at most 1000000, .* got 1000 \*\* 3"):
        pipeline.run(config, tmp_path / "b", "taylor")
    plain = toy.config()
    with pytest.raises(ValueError, match=r"no section taylor; start from configs/taylor_study\.py"):
        pipeline.run(plain, tmp_path / "c", "taylor")


def test_a_network_without_rules(config, tmp_path, monkeypatch, capsys):
    """Refused in one sentence by name; left out in one under all."""
    sentence = (
        "Wide has no fields affine, act, add and pool, so its backward rules cannot be replaced"
    )
    monkeypatch.setattr(on_images, "refusal", lambda net, image: sentence)
    config.taylor.parts = ("region",)
    with pytest.raises(ValueError, match=sentence):
        pipeline.run(config, tmp_path / "a", "taylor")
    pipeline.run(config, tmp_path / "b", "all")
    assert f"taylor: the parts of a network are left out: {sentence}" in capsys.readouterr().out
    assert files.read_csv(tmp_path / "b" / "taylor" / "taylor.csv") == []
