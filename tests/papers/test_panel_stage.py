"""The stage panels: from a network of animals to files, a section and a questionnaire; stopped, gone on with, and refused."""

import dataclasses
import pathlib
from unittest import mock

import jax
import numpy as np
import pytest
import toy

from mixaug_jax.config import get_config, keys
from mixaug_jax.core import files
from mixaug_jax.data.animals import animal_scenes
from mixaug_jax.data.animals.animal_pose import ATTRIBUTES, CLASSES
from mixaug_jax.data.source import Source
from mixaug_jax.models import MODELS, Net, Preprocess
from mixaug_jax.papers.relevance import panels, relevance_keys, relevance_result
from mixaug_jax.papers.relevance.evaluator import Evaluator
from mixaug_jax.papers.relevance.panels import kept_panels, panel_stage, readers_table
from mixaug_jax.papers.relevance.panels import simulated_reader as reading
from mixaug_jax.papers.relevance.panels.panel import Panel

SIDE, SCENES = 32, 40
SETTINGS = animal_scenes.Settings(SIDE, 0, "study", "released", 0.0, 1, 1, SCENES)


@dataclasses.dataclass(frozen=True)
class Colors(Evaluator):
    """Reads the colors of animal and background by hand: how red the middle and the corner are; all else is noise."""

    def read(self, source, threads=4):
        images = np.stack([example["image"] for example in source]).astype(np.float32)
        red = (images[..., 0] - images[..., 2]) / 300 + 0.5
        found = np.random.default_rng(0).normal(size=(len(images), len(ATTRIBUTES)))
        found[:, ATTRIBUTES.index("bg_color")] = red[:, :3, :3].mean((1, 2))
        return found, found[:, 0]


@pytest.fixture(scope="module")
def source():
    scenes = [animal_scenes.render(SETTINGS, "test", i) for i in range(SCENES)]
    return Source(lambda i: scenes[i], SCENES, CLASSES)


@pytest.fixture(scope="module")
def net():
    """A network whose logit is how red the picture is."""
    model = MODELS["tiny"](2)
    variables = model.init(jax.random.key(0), np.zeros((1, SIDE, SIDE, 3), np.float32), train=False)
    return Net(model, variables, Preprocess(SIDE, mean=(0.5,) * 3, std=(0.25,) * 3))


@pytest.fixture
def config(tmp_path):
    settings = get_config("baseline", "animals")
    settings.data.update(size=SIDE, dir=str(tmp_path / "cache"))
    with settings.unlocked():
        settings.relevance = keys.defaults("relevance", relevance_keys.KEYS)
        settings.panels = keys.defaults("panels", panels.KEYS)
    settings.panels.update(images=SCENES, pool=3, rows=2, concepts=3)
    return settings


@pytest.fixture
def work(tmp_path, monkeypatch, net, source):
    """A run of that network, whose relevance has been measured: the color of the background."""
    toy.use(monkeypatch, source)
    for name in ("check_settings", "steps"):
        monkeypatch.setattr(panel_stage.checkpoint, name, lambda *args: None)
    monkeypatch.setattr(
        panel_stage,
        "each_checkpoint",
        lambda workdir, which, name, advice, do: do(net, workdir / name, 1),
    )
    error, r2 = dict.fromkeys(ATTRIBUTES, 0.02), dict.fromkeys(ATTRIBUTES, 0.1)
    evaluator = Colors(net, error, r2 | {"bg_color": 0.9, "obj_color": 0.8}, 0.9)
    monkeypatch.setattr(panel_stage.evaluator_training, "keep", lambda config: evaluator)
    truth = np.array([name == "bg_color" for name in ATTRIBUTES])
    monkeypatch.setattr(panel_stage, "_truth", lambda *args: truth)
    monkeypatch.setattr(reading, "REPEATS", 4)
    return tmp_path / "run"


def quickly(figure, path, *, column=0):
    figure.savefig(f"{path}.png", dpi=20)
    return [pathlib.Path(f"{path}.png")]


def test_a_process_is_told_what_the_first_one_reads(config, work, monkeypatch):
    """It does not look for itself: a shared disk may show it nothing yet."""
    truth = np.arange(len(ATTRIBUTES)) % 2 == 0
    monkeypatch.setattr(panel_stage, "_truth", lambda *args: pytest.fail("looked"))
    monkeypatch.setattr(panel_stage.processes, "is_main", lambda: False)
    monkeypatch.setattr(panel_stage.processes, "agreed", lambda mine: True)
    monkeypatch.setattr(panel_stage.walk, "told", lambda mine, devices: truth)
    networks = []
    monkeypatch.setattr(panel_stage, "_step", lambda *args: networks.append(args[-1]))
    panel_stage.run(config, work)
    np.testing.assert_array_equal(networks[0][panel_stage.TRAINED].truth, truth)


@pytest.mark.filterwarnings("ignore:constrained_layout")
def test_from_a_network_to_a_page(config, work, monkeypatch, capsys):
    """A run that was killed goes on with the panel that it was at; nothing is made twice; the questionnaire is written."""
    monkeypatch.setattr(panel_stage.panel_section.style, "save_figure", quickly)
    whole, made = reading.read, []

    def counted(panel, evaluator):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(panel)
        return whole(panel, evaluator)

    monkeypatch.setattr(reading, "read", counted)
    with pytest.raises(KeyboardInterrupt):
        panel_stage.run(config, work)
    assert not (work / "panels" / "readers.csv").exists()
    monkeypatch.setattr(reading, "read", lambda *args: (made.append(0), whole(*args))[1])
    panel_stage.run(config, work)
    assert len(made) == 8  # four kinds of two networks
    folder = work / "panels"
    assert len(list(folder.glob("*.npz"))) == 8
    before = (folder / "readers.csv").read_bytes()
    consent = work / "consent.txt"
    consent.write_text("We ask you.")
    config.panels.update(export=str(work / "people"), consent=str(consent))
    capsys.readouterr()
    panel_stage.run(config, work)
    assert len(made) == 8
    assert (folder / "readers.csv").read_bytes() == before
    said = capsys.readouterr().out
    assert "oracle: bg_color, which is relevant, is" in said
    rows = files.read_csv(folder / "readers.csv")
    simulated = {(r["panel"], r["network"]) for r in rows if r["reader"] == "simulated"}
    assert simulated == {(k, n) for k in panels.PANELS if "flow" not in k and k != "counterfactual"
                         for n in ("trained", "random weights")}  # fmt: skip
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in rows)
    # Of random weights, the only other network, there is nothing to learn what is relevant by.
    linear = {r["network"] for r in rows if r["reader"].startswith("linear")}
    assert linear == {"random weights"}
    verdicts = files.read_csv(folder / "verdicts.csv")
    of_evaluator = {v["attribute"] for v in verdicts if v["reader"] == "simulated"}
    assert of_evaluator == {"bg_color", "obj_color"}
    assert {v["attribute"] for v in verdicts if v["reader"] == "true attributes"} == set(ATTRIBUTES)
    section = (work / "sections" / "panels.html").read_text()
    for part in ("figure-panel_oracle", "table-panels_readers", "a simulated reader, which stands"):
        assert part in section
    assert "read too badly, and left out: arm_position (R2 0.10)" in section
    page = (work / "people" / "index.html").read_text()
    assert 'data-conditions="grid oracle concepts attribution"' in page
    assert "How much the animal" in page
    assert "A linear head on the concepts repeats" in section
    assert "A linear head" not in page


def test_settings_decide_what_is_made_again(config, work, net):
    """Each panel by its own settings alone."""
    looked = {"trained": panel_stage.Looked(net, np.zeros(10, bool))}
    job = panel_stage._job(config, work, looked)
    before = {kind: job.settings("trained", kind) for kind in panels.PANELS}
    changed = {
        "method": {"attribution"},
        "concepts": {"concepts"},
        "flow_steps": {"counterfactual", "flow_classifier"},
        "pool": set(panels.PANELS),
        "rows": set(),
        "jnd": set(),
    }
    other = {"method": "gradient", "concepts": 4, "flow_steps": 7, "pool": 9, "rows": 3, "jnd": 0.2}
    for key, kinds in changed.items():
        given = config.copy_and_resolve_references()
        given.panels[key] = other[key]
        again = dataclasses.replace(job, config=given)
        differ = {k for k in panels.PANELS if again.settings("trained", k) != before[k]}
        assert differ == kinds, key


def test_random_weights_are_looked_at_around_their_median(config, work, net):
    looked = {n: panel_stage.Looked(net, np.zeros(10, bool)) for n in ("trained", "random weights")}
    job = panel_stage._job(config, work, looked)
    plain, none = job.pictures("trained")
    centered, shift = job.pictures("random weights")
    assert none == 0
    assert shift == pytest.approx(np.median(plain.logits))
    np.testing.assert_allclose(centered.logits, plain.logits - shift, atol=1e-6)
    assert abs(np.median(centered.logits)) < 1e-5


def test_rendered_pictures_are_those_of_the_set(config, source):
    render = panel_stage.renderer(config)
    values = np.stack([source[i]["attributes"] for i in range(3)])
    found = render(values)
    for i in range(3):
        # Attributes are kept in float32: a pixel may differ by rounding.
        assert np.abs(found[i].astype(int) - source[i]["image"].astype(int)).max() <= 2


def test_truth_is_what_interventions_measured(config, net, tmp_path):
    rng = np.random.default_rng(0)
    values = np.stack([source_values(i) for i in range(200)])
    logits = (values[:, ATTRIBUTES.index("obj_color")] - 0.5) * 6
    changed, changed_values = {}, {}
    for k, name in enumerate(ATTRIBUTES):
        moved = values.copy()
        moved[:, k] = rng.permutation(values[:, k])
        changed_values[name] = moved
        changed[name] = ((moved[:, ATTRIBUTES.index("obj_color")] - 0.5) * 6).astype(np.float32)
    result = relevance_result.Result(
        logits.astype(np.float32), values, np.zeros(200, int), changed, changed_values,
        logits[:2].astype(np.float32), np.zeros(2, int), {"weights": files.checksum(net.variables)},
    )  # fmt: skip
    path = tmp_path / "relevance" / relevance_result.FILE
    step = pathlib.Path()
    assert panel_stage._truth(config, tmp_path, step, net) is None
    relevance_result.save(result, path)
    truth = panel_stage._truth(config, tmp_path, step, net)
    assert [n for n, t in zip(ATTRIBUTES, truth, strict=True) if t] == ["obj_color"]
    other = dataclasses.replace(net, variables=jax.tree.map(lambda x: x + 1, net.variables))
    assert panel_stage._truth(config, tmp_path, step, other) is None


def source_values(i):
    rng = np.random.default_rng(i)
    return rng.uniform(0, 1, len(ATTRIBUTES)).astype(np.float32)


def test_without_relevance(config, work, monkeypatch, capsys):
    monkeypatch.setattr(panel_stage, "_truth", lambda *args: None)
    with pytest.raises(ValueError, match="--stage=relevance has not measured this network"):
        panel_stage.run(config, work)
    panel_stage.run(config, work, required=False)
    assert "they are left out" in capsys.readouterr().out


def test_panels_in_files(tmp_path):
    rng = np.random.default_rng(0)
    panel = Panel(
        "signs", rng.integers(256, size=(2, 3, 4, 4, 3), dtype=np.uint8),
        rng.normal(size=(2, 3)).astype(np.float32), ("a", "b", "c"), "Says.", rows=("x", "y"),
        signs=np.array([1, -1], np.float32), note="For us.",
    )  # fmt: skip
    kept = kept_panels.Kept(panel, np.zeros((2, 3, 5), np.float32), {"seed": 1})
    kept_panels.save(kept, tmp_path / "a.npz")
    again = kept_panels.load(tmp_path / "a.npz")
    assert again.panel.columns == panel.columns
    texts = again.panel.rows, again.panel.caption, again.panel.note
    assert texts == (panel.rows, "Says.", "For us.")
    assert (again.panel.maps, again.panel.attributes) == ((), ())
    np.testing.assert_array_equal(again.panel.images, panel.images)
    assert again.settings["seed"] == 1


def test_a_sentence_for_each_relevant_attribute():
    def verdict(network, share, truth, attribute="obj_color"):
        return readers_table.Verdict("grid", network, attribute, "simulated", share, 1.0, truth)

    read = readers_table.Read([], [verdict("trained", 0.9, 1), verdict("random weights", 0.06, 0)])
    (text,) = readers_table.sentences(read)
    assert "obj_color, which is relevant, is found" in text
    assert "90 % of the panels, and in 6 % of those of the network with random weights." in text
    worse = readers_table.Read([], [verdict("trained", 0.9, 1), verdict("random weights", 0.95, 0)])
    assert "is not found" in readers_table.sentences(worse)[0]
    wrong = readers_table.sentences(readers_table.Read([], [verdict("trained", 0.9, 0)]))
    assert wrong == [
        "grid: obj_color, which is not relevant, is taken for it: called so in 90 % of the panels."
    ]
    assert not readers_table.sentences(readers_table.Read([], [verdict("trained", 0.4, 0)]))
    assert not readers_table.sentences(readers_table.Read([], [verdict("trained", 0.9, -1)]))


def test_panels_of_which_every_row_is_shown_are_named():
    """A grid has as many rows as its smallest column has images, whatever was asked for; of concepts columns are drawn."""

    def kept(reading, rows, columns):
        images, logits = np.zeros((rows, columns, 4, 4, 3), np.uint8), np.zeros((rows, columns), np.float32)  # fmt: skip
        panel = Panel(reading, images, logits, ("",) * columns, "")
        return kept_panels.Kept(panel, np.zeros((rows, columns, 1), np.float32), {})

    panels = {
        ("trained", "grid"): kept("columns", 10, 5),
        ("random weights", "grid"): kept("columns", 11, 5),
        ("random weights", "concepts"): kept("signs", 11, 10),
        ("trained", "concepts"): kept("signs", 3, 11),
    }
    assert readers_table.all_shown(panels, 10) == (
        "Every reader is shown all that there is of grid of the run's network, concepts of the network with random "
        "weights, so that intervals there are over its noise alone."
    )
    assert readers_table.all_shown(panels, 9) == ""


def test_what_cannot_work_is_said(config, tmp_path, unchecked):
    def refused(words, **given):
        other = config.copy_and_resolve_references()
        other.panels.update(given)
        with pytest.raises(ValueError, match=words):
            panel_stage.check(other)

    panel_stage.check(config)
    refused(r"panels\.kinds must be one of grid, .*did you mean 'grid'", kinds=("gird",))
    refused(r"panels\.method must be one of .*did you mean 'gradcam'", method="gradcamm")
    (tmp_path / "empty.txt").write_text(" \n\n")
    for consent in ("", str(tmp_path / "empty.txt")):
        refused(r"panels\.export needs panels\.consent, a text file with words",
                export=str(tmp_path), consent=consent)  # fmt: skip
    refused(r"panels\.unbiased='.*nowhere' has no checkpoints; .*sampler=unbiased trains",
            unbiased=str(tmp_path / "nowhere"))  # fmt: skip
    refused(r"panels\.pool must be above panels\.rows, .*; got 20 and 20", rows=20, pool=20)
    refused("32 pixels, must be a multiple of the flow's, 24",
            kinds=("counterfactual",), flow_side=24)  # fmt: skip
    with pytest.raises(ValueError, match=r"for animals, and data\.name is 'scenes'"):
        panel_stage.check(get_config("baseline", "scenes"))


def test_a_home_folder_is_expanded(config, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "unbiased" / "checkpoints" / "3").mkdir(parents=True)
    config.panels.unbiased = "~/unbiased"
    panel_stage.check(config)
    asked = []
    monkeypatch.setattr(panel_stage.checkpoint, "load", lambda path: asked.append(path))
    net = mock.Mock()
    panel_stage._networks(config, net, np.zeros(10, bool))
    assert asked == [tmp_path / "unbiased"]


def test_what_a_network_lacks_is_said_before_the_evaluator_is_trained(config, work, monkeypatch):
    def trained(config):
        raise AssertionError("the evaluator is trained")

    monkeypatch.setattr(panel_stage.evaluator_training, "keep", trained)
    # Every layer with maps of this network is one after a ReLU.
    negative = np.full((1, 4, 4, 8), -1, np.float32)
    monkeypatch.setattr(panel_stage.seen, "activations", lambda *args: negative)
    for change, words in (
        (
            {"concepts": 1000},
            r"panels\.concepts must be an integer of at least 2 and at most 16; got",
        ),
        ({"layer": "fc"}, r"panels\.layer must be one of '', relu1, relu3, relu4; got 'fc'"),
        (
            {"layer": "relu1", "factorization": "nmf"},
            r"panels\.factorization=nmf .* relu1 has some",
        ),
    ):
        asked = config.copy_and_resolve_references()
        asked.panels.update(change)
        with pytest.raises(ValueError, match=words):
            panel_stage.run(asked, work)
    config.panels.update(kinds=("grid",), concepts=1000, layer="layr")
    with pytest.raises(AssertionError, match="the evaluator is trained"):
        panel_stage.run(config, work)


def test_the_config_names_the_stage():
    path = pathlib.Path(__file__).parents[2] / "configs" / "relevance.py"
    scope = {}
    exec(path.read_text(), scope)
    settings = scope["get_config"]()
    assert settings.stages.index("panels") > settings.stages.index("relevance")
    known = {key.removeprefix("panels.") for key in panels.KEYS}
    assert known == set(settings.panels)
