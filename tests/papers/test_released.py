"""The paper's protocol on released networks: the table beside the paper's numbers, from files to figure."""

import csv
import dataclasses
import pathlib
import subprocess
import sys

import jax
import numpy as np
import PIL.Image
import pytest

import mixaug_jax
from mixaug_jax import data, dissection, models
from mixaug_jax.models import upernet, weights
from mixaug_jax.papers.released import table
from mixaug_jax.stages import weights as import_stage

ROOT = pathlib.Path(__file__).parents[2]


def test_the_papers_numbers_are_consistent():
    """At 0.04 the categories of three networks are complete, and add up to the totals."""
    at = table.PAPER[0.04]
    for k in (0, 3, 4):
        parts = [int(at[category][k]) for category in table.CATEGORIES[:-1]]
        assert sum(parts) == int(at["total"][k])
    for rows in table.PAPER.values():
        assert {len(row) for row in rows.values()} == {len(table.MODELS)}
        assert set(rows) <= set(table.CATEGORIES)


@pytest.mark.parametrize(
    ("paper", "name", "expected"),
    [
        ("", "baseline", ""),
        ("42", "baseline", ""),
        ("<=5", "cutout", "yes"),
        ("<=4", "cutout", "no"),
        (">5", "mixup", "no"),
        (">3", "mixup", "yes"),
        (">baseline", "mixup", "no"),
        (">baseline", "saliencymix", "yes"),
        ("smallest", "cutmix", "yes"),
        ("smallest", "mixup", "yes"),
        ("smallest", "cutout", "no"),
        ("not smallest", "cutout", "yes"),
        ("not smallest", "cutmix", "no"),
        ("third", "baseline", "no"),
        ("third", "mixup", "no"),
        ("third", "cutout", "no"),
    ],
)
def test_claims(paper, name, expected):
    counts = {"baseline": 5, "cutout": 5, "mixup": 4, "cutmix": 4, "saliencymix": 9}
    assert table.holds(paper, name, counts) == expected


def test_claims_about_all_networks_need_all():
    assert table.holds("smallest", "cutmix", {"cutmix": 1, "baseline": 2}) == ""
    assert table.holds("<=2", "cutmix", {"cutmix": 1}) == "yes"
    counts = {"baseline": 9, "cutout": 8, "mixup": 7, "cutmix": 6, "saliencymix": 5}
    assert table.holds("third", "mixup", counts) == "yes"


@pytest.fixture(scope="module")
def network():
    """A small network with a layer4, of 4 x 4 nodes for what it sees."""
    model = models.MODELS["resnet18"](7, width=0.125, stem="cifar")
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))
    return models.Net(model, variables, models.Preprocess(32, 36))


def write_weights(folder, network, names):
    """Different weights under each name; those of CutMix in a folder of their own."""
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        noise = np.random.default_rng(seed)

        def disturbed(x, noise=noise):
            return np.asarray(x) + noise.normal(0, 0.1, x.shape).astype(np.float32)

        params = jax.tree.map(disturbed, network.variables["params"])
        net = dataclasses.replace(network, variables={**network.variables, "params": params})
        path = folder / f"{name}.safetensors"
        if name == "cutmix":
            (folder / name).mkdir()
            path = folder / name / "model_best.safetensors"
            (folder / name / "notes.txt").touch()
        weights.export_weights(net, path)


def write_photos(folder, count=4):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (folder / split / "photo").mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (9, 9 + i, 3), np.uint8).repeat(4, 0).repeat(4, 1)
            PIL.Image.fromarray(pixels).save(folder / split / "photo" / f"{i}.png")


def test_find_files(tmp_path, network):
    write_weights(tmp_path / "w", network, ("baseline", "cutmix"))
    (tmp_path / "w" / "mixup.pth.tar").touch()
    (tmp_path / "w" / "mixup.txt").touch()
    (tmp_path / "w" / "cutmix_cifar.pth").touch()
    found = table.find_files(str(tmp_path / "w"), ("baseline", "mixup", "cutmix"))
    assert [file.name for file in found.values()] == [
        "baseline.safetensors",
        "mixup.pth.tar",
        "model_best.safetensors",
    ]
    with pytest.raises(
        ValueError, match=r"lacks cutout.*clovaai/CutMix-PyTorch.*; saliencymix"
    ) as e:
        table.find_files(str(tmp_path / "w"), table.MODELS)
    assert "afm-shahab-uddin/SaliencyMix" in str(e.value)
    assert "baseline.pth" not in str(e.value)
    (tmp_path / "w" / "mixup.npz").touch()
    with pytest.raises(ValueError, match="has several files for mixup"):
        table.find_files(str(tmp_path / "w"), ("mixup",))
    with pytest.raises(ValueError, match=r"released\.models=\('pixmix',\) must be names out of"):
        table.find_files(str(tmp_path / "w"), ("pixmix",))
    for place in ("", str(tmp_path / "nothing")):
        with pytest.raises(
            ValueError, match=r"must be a folder of weights, baseline\.pth\.tar: the"
        ):
            table.find_files(place, table.MODELS)


def settings(tmp_path):
    """configs/released.py for small images."""
    scope = {}
    exec((ROOT / "configs" / "released.py").read_text(), scope)
    config = scope["get_config"]()
    assert config.released.models == table.MODELS
    assert config.dissect.layers == ("layer4",)
    config.released.dir = str(tmp_path / "weights")
    config.data.dir = str(tmp_path / "photos")
    config.dissect.segmenter = str(tmp_path / "segmenter")
    config.dissect.update(shuffles=1)
    config.data.threads = 1
    return config


@pytest.fixture
def parts(tmp_path, network, monkeypatch):
    """Weights of five networks, photos, and a segmenter that looks at the colors; counts its calls."""
    write_weights(tmp_path / "weights", network, table.MODELS)
    write_photos(tmp_path / "photos")
    (tmp_path / "segmenter").mkdir()
    for name in ("encoder", "decoder"):
        (tmp_path / "segmenter" / f"{name}_epoch_40.pth").write_bytes(name.encode())
    monkeypatch.setenv("MIXAUG_JAX_CACHE", str(tmp_path / "cache"))
    calls = []

    def segment(variables, image, sizes):
        calls.append(image.shape)
        red, green, blue = np.moveaxis(image.astype(np.uint16), -1, 0)
        return {"object": red, "material": green // 32, "part": blue // 8, "scene": 0}

    monkeypatch.setattr(upernet, "import_upernet", lambda encoder, decoder: {})
    # Each network's own tables and figures take their time; test_layer looks at them.
    monkeypatch.setattr(table.dissection_stage, "_write", lambda *arguments, **options: None)
    monkeypatch.setattr(upernet, "segment", segment)
    return calls


def test_from_files_to_the_table(parts, tmp_path, monkeypatch, capsys):
    config = settings(tmp_path)
    run = table.dissection_stage.run
    dissected = []

    def stopped(own, workdir):
        dissected.append(workdir.name)
        if len(dissected) == 3:
            raise KeyboardInterrupt
        run(own, workdir)

    with monkeypatch.context() as patch:  # killed in the middle
        patch.setattr(table.dissection_stage, "run", stopped)
        with pytest.raises(KeyboardInterrupt):
            table.run(config, tmp_path / "run")
    before = [(tmp_path / "run" / n / "dissection" / "layer4.npz") for n in table.MODELS[:2]]
    made = [path.stat().st_mtime_ns for path in before]
    capsys.readouterr()
    table.run(config, tmp_path / "run")
    assert [path.stat().st_mtime_ns for path in before] == made
    assert parts == [(32, 32, 3)] * 4  # each photo once, for all networks
    said = capsys.readouterr().out
    assert "imported already" in said

    with (tmp_path / "run" / "released.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 5 * 5
    assert any(row["count"] != "0" for row in rows)
    results = {
        name: dissection.load(tmp_path / "run" / name / "dissection" / "layer4.npz")
        for name in table.MODELS
    }
    assert len({result.settings["weights"] for result in results.values()}) == 5
    assert results["mixup"].categories == ("object", "material", "part", "color")
    assert results["mixup"].options.q == 0.01
    for row in rows:
        result = results[row["model"]]
        t = result.options.iou.index(float(row["iou"]))
        counts = dict(zip(result.categories, result.unique()[t].tolist(), strict=True))
        counts["total"] = sum(counts.values())
        assert int(row["count"]) == counts[row["category"]]
        if row["paper"].isdigit():
            assert int(row["difference"]) == int(row["count"]) - int(row["paper"])
        else:
            assert row["difference"] == ""
        assert (row["holds"] != "") == (row["paper"] != "" and not row["paper"].isdigit())
    total = {r["model"]: r for r in rows if (r["iou"], r["category"]) == ("0.04", "total")}
    assert [total[name]["paper"] for name in table.MODELS] == ["71", "61", "66", "63", "53"]
    count = int(total["baseline"]["count"])
    assert f"{count} / 71 ({count - 71:+d})" in said
    assert " / - " in said
    assert "<=42 (" in said
    net = mixaug_jax.load(tmp_path / "run" / "mixup")  # an ordinary run
    example = data.open_source("validation", config, annotations=False)[0]
    assert net.logits(net.preprocess(example["image"])[None]).shape == (1, 7)
    for ending in ("png", "svg"):
        assert (tmp_path / "run" / f"released.{ending}").stat().st_size > 1000


def test_names_of_listed_files(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.pth").touch()
    given = [str(tmp_path / folder / "net.pth") for folder in ("a", "b")] + ["hf:timm/small.in1k"]
    assert list(table.named_files(given)) == ["a-net", "b-net", "small"]
    with pytest.raises(ValueError, match=r"released\.files: .*none\.pth is no file"):
        table.named_files([str(tmp_path / "none.pth")])
    with pytest.raises(ValueError, match="two files of one name"):
        table.named_files([given[0], given[0]])


def test_some_networks_only(parts, tmp_path, capsys):
    config = settings(tmp_path)
    for name in ("mixup", "saliencymix"):
        (tmp_path / "weights" / f"{name}.safetensors").unlink()
    with pytest.raises(ValueError, match=r"lacks mixup\..*: .*; saliencymix\.pth\.tar: "):
        table.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    config.released.models = ("cutout", "baseline")
    table.run(config, tmp_path / "run")
    said = capsys.readouterr().out
    assert "cutout" in said
    assert "saliencymix" not in said
    with (tmp_path / "run" / "released.csv").open(newline="") as file:
        assert {row["model"] for row in csv.DictReader(file)} == {"baseline", "cutout"}
    # Files of one's own in their place: only what is called as a published one has the paper's numbers.
    weights_of = tmp_path / "weights"
    (weights_of / "baseline.safetensors").rename(weights_of / "mine.v2.safetensors")
    given = (str(weights_of / "cutout.safetensors"), str(weights_of / "mine.v2.safetensors"))
    config.released.update(files=given, dir="")
    table.run(config, tmp_path / "run")
    with (tmp_path / "run" / "released.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows[:2]] == ["cutout", "mine"]
    assert {row["paper"] for row in rows if row["model"] == "mine"} == {""}
    assert any(row["paper"] for row in rows if row["model"] == "cutout")


def test_one_process_of_a_job_writes(parts, tmp_path, monkeypatch, capsys):
    config, done = settings(tmp_path), []
    monkeypatch.setattr(import_stage, "import_run", lambda config, workdir: done.append(workdir))
    monkeypatch.setattr(table.dissection_stage, "run", lambda config, workdir: done.append(workdir))
    monkeypatch.setattr(table.processes, "is_main", lambda: False)
    table.run(config, tmp_path / "run")
    assert len(done) == 2 * len(config.released.models)
    assert "written to" not in capsys.readouterr().out


def test_what_cannot_work_is_said_before_anything_is_written(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(import_stage, "import_run", lambda *arguments: pytest.fail("imported"))
    config = settings(tmp_path)
    config.dissect.layers = ("layer3", "layer4")
    with pytest.raises(ValueError, match="must name one layer"):
        table.run(config, tmp_path / "run")
    config = settings(tmp_path)
    (tmp_path / "segmenter" / "decoder_epoch_40.pth").unlink()
    with pytest.raises(ValueError, match=r"there is no .*decoder_epoch_40\.pth; its authors"):
        table.run(config, tmp_path / "run")
    with pytest.raises(ValueError, match=r"there is no .*decoder_epoch_40\.pth; its authors"):
        table.STAGE.check(config)  # as --check does
    config.data.dir = str(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="nowhere"):
        table.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_names_missing_files(tmp_path):
    command = [sys.executable, "-m", "mixaug_jax.main", "--config=configs/released.py"]
    command.append(f"--workdir={tmp_path / 'run'}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: released.dir='' must be a folder of weights, baseline.pth"
    )
    assert len(done.stderr.strip().splitlines()) == 1
    with pytest.raises(ValueError, match=r"config\.stages is released; leave out --stage=train"):
        mixaug_jax.run(settings(tmp_path), tmp_path / "run", "train")
    assert not (tmp_path / "run").exists()
