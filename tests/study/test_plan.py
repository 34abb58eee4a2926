"""What a study consists of: its runs, their commands, and what is refused before any of them."""

import pytest
import studies

from mixaug_jax import config as config_lib
from mixaug_jax import mixing
from mixaug_jax.study import __main__ as command
from mixaug_jax.study import plan

CONFIGS = ["configs/cutmix.py", "configs/baseline.py", "configs/cutout.py"]


def planned(tmp_path, *overrides, configs=CONFIGS, seeds=(0, 1), **options):
    return plan.make_plan(configs, seeds, tmp_path / "study", overrides, **options)


def test_runs_and_their_commands(tmp_path):
    runs = planned(tmp_path, "train.epochs=3", "data.crop_scale=(0.5, 1.0)")
    names = ["baseline", "cutmix", "cutout"]
    assert [(run.name, run.seed) for run in runs] == [(n, s) for s in (0, 1) for n in names]
    run = runs[4]
    folder = tmp_path / "study" / "cutmix" / "1"
    assert run.workdir == folder
    assert run.command == (
        "python -m mixaug_jax.main --config=configs/cutmix.py --config.train.epochs=3 "
        f"'--config.data.crop_scale=(0.5, 1.0)' --config.seed=1 --workdir={folder} --stage=all"
    )
    assert (run.config.train.epochs, run.config.seed, run.config.mix.name) == (3, 1, "cutmix")
    assert run.config.data.crop_scale == (0.5, 1.0)
    assert not (tmp_path / "study").exists()


def test_a_config_names_its_data_set(tmp_path):
    (run,) = planned(tmp_path, configs=["configs/cutmix.py:cifar10"], seeds=[0])
    assert run.name == "cutmix"
    assert run.config.data.name == "cifar10"


def test_a_key_goes_to_the_configs_that_have_it(tmp_path):
    runs = {run.name: run for run in planned(tmp_path, "mix.alpha=0.3", seeds=[0])}
    assert runs["cutmix"].config.mix.alpha == 0.3
    assert "alpha" not in runs["cutout"].config.mix
    assert not any("alpha" in text for text in runs["baseline"].flags)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.lrr=1", "unknown key train.lrr"),
        ("mix.alpha.x=1", "unknown key mix.alpha.x"),
        ("train.epochs=many", "train.epochs"),
        ("train.lr", "has no value"),
        ("seed=3", "--seeds"),
        ("mix.name=mixup", "--configs"),
        ("model.name=resnet19", "model.name"),
    ],
)
def test_what_cannot_work_is_said_before_anything_runs(tmp_path, override, sentence):
    with pytest.raises(ValueError, match=sentence):
        planned(tmp_path, override)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("configs", "seeds", "sentence"),
    [
        ([], [0], "one config or more"),
        (CONFIGS, [], "seeds must be"),
        (CONFIGS, [1, 1], "seeds must be"),
        (["configs/cutmix.py", "other/cutmix.py:cifar10"], [0], "two configs are called cutmix"),
        (["configs/nothing.py"], [0], "nothing.py"),
        ({"../up": "configs/cutmix.py"}, [0], "cannot be called"),
        ({"_mine": "configs/cutmix.py"}, [0], "begins with a letter or digit"),
        ({"tables": "configs/cutmix.py"}, [0], "cannot be called"),
        ("configs/cutmix.py", [0], "must be a list"),
    ],
)
def test_configs_and_seeds_are_checked(tmp_path, configs, seeds, sentence):
    with pytest.raises(ValueError, match=sentence):
        planned(tmp_path, configs=configs, seeds=seeds)


def test_imported_weights_have_one_seed(tmp_path):
    config = config_lib.get_config()
    config.weights = "resnet18.pth"
    (run,) = planned(tmp_path, configs={"released": config}, seeds=[0])
    assert run.config.weights == "resnet18.pth"
    with pytest.raises(ValueError, match="same for every seed"):
        planned(tmp_path, configs={"released": config})


def test_two_runs_of_the_same_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"baseline and cutmix import the same weights, a\.pth"):
        planned(tmp_path, "weights=a.pth", seeds=[0])


def test_unmixed_labels_are_added_where_labels_are_mixed(tmp_path):
    runs = planned(tmp_path, seeds=[0], unmixed_labels=True)
    assert [run.name for run in runs] == ["baseline", "cutmix", "cutout", "cutmix-label_majority"]
    assert runs[1].config.mix.label == "mixed"
    assert runs[3].config.mix.label == "majority"
    assert "--config.mix.label=majority" in runs[3].flags
    assert "label" not in runs[2].config.mix


def test_given_settings_become_a_file_that_main_reads(tmp_path):
    config = config_lib.get_config("mixup")
    config.train.lr = 0.25
    runs = planned(tmp_path, "train.epochs=2", configs=[config], seeds=[3], unmixed_labels=True)
    plan.write_asked(runs, tmp_path / "study", ["train.epochs=2"])
    assert config.train.epochs != 2  # the caller's own is left alone
    for run in runs:
        file, seed = run.flags[0].removeprefix("--config="), run.flags[1].removeprefix("--config.")
        assert plan.load(file, [seed]) == run.config
    assert runs[1].config.mix.label == "majority"


def test_shares_are_a_partition_of_the_list(tmp_path, capsys):
    flags = [f"--configs={','.join(CONFIGS)}", "--seeds=0,1", f"--workdir={tmp_path}", "--list"]

    def listed(*more):
        assert command.main([*flags, *more]) == 0
        return capsys.readouterr().out.splitlines()

    every = listed("--config.train.lr=0.2")
    assert len(every) == 6
    assert all("--config.train.lr=0.2" in line for line in every)
    shares = [listed("--config.train.lr=0.2", f"--only={k}/4") for k in (1, 2, 3, 4)]
    assert sorted(line for share in shares for line in share) == sorted(every)
    assert {len(share) for share in shares} == {1, 2}
    with pytest.raises(SystemExit) as stop:
        listed("--only=5/4")
    assert stop.value.code == 2


def test_a_study_grows_but_keeps_its_settings(tmp_path, capsys):
    folder = tmp_path / "study"
    flags = [f"--workdir={folder}", "--list"]
    assert command.main(["--configs=configs/cutmix.py", "--seeds=0", *flags]) == 0
    for change in ("--config.train.lr=0.3", "--config.train.epochs=3", "--config.mix.alpha=0.1"):
        assert command.main(["--configs=configs/cutmix.py", "--seeds=0", *flags, change]) == 2
        assert change.rpartition("=")[0].removeprefix("--config.") in capsys.readouterr().err
        assert command.main(["--configs=configs/mixup.py", "--seeds=0", *flags, change]) == 2
    more = ["--configs=configs/mixup.py", "--seeds=4", "--config.data.threads=1"]
    assert command.main([*more, *flags, "--config.dissect.q=0.02"]) == 0
    asked = plan.read_asked(folder)
    assert (list(asked["configs"]), asked["seeds"]) == (["cutmix", "mixup"], [0, 4])
    assert list(asked["commands"]) == ["cutmix/0", "mixup/4"]


def test_a_run_of_other_settings_is_refused(tmp_path):
    runs = studies.asked(tmp_path / "one", seeds=[0])
    studies.write_run(runs[0])
    text = (runs[0].workdir / "config.json").read_text()
    other = tmp_path / "two" / "baseline" / "0"
    other.mkdir(parents=True)
    (other / "config.json").write_text(text.replace('"epochs": 18', '"epochs": 21'))
    with pytest.raises(ValueError, match=r"train\.epochs: 21 -> 18"):
        studies.asked(tmp_path / "two", seeds=[0])
    assert not (tmp_path / "two" / "study.json").exists()


def test_mixers_stands_for_the_baseline_and_all_of_them(tmp_path):
    runs = planned(tmp_path, configs=["mixers:cifar10"], seeds=[0])
    assert [run.name for run in runs] == ["baseline", *mixing.MIXERS]
    assert {run.config.data.name for run in runs} == {"cifar10"}
    assert runs[3].flags[0] == f"--config={runs[3].name}:cifar10"
    few = planned(
        tmp_path, "mix.share=0.5", configs=["mixers", CONFIGS[0] + ":scenes"][:1], seeds=[0]
    )
    assert [run.config.mix.get("share") for run in few] == [None, *[0.5] * len(mixing.MIXERS)]
    with pytest.raises(ValueError, match="two configs are called cutmix"):
        planned(tmp_path, configs=["mixers", CONFIGS[0]])
