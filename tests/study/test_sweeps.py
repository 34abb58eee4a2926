"""Each value of a swept key is an augmentation."""

import pytest
from ml_collections import ConfigDict

from mixaug_jax import config as config_lib
from mixaug_jax.study import plan, sweeps


def made(tmp_path, sweep, methods=("baseline", "cutmix", "mixup"), **options):
    configs = {name: config_lib.get_config(name) for name in methods}
    return plan.make_plan(configs, (0, 1), tmp_path, sweep=sweep, **options)


def test_every_value_is_an_augmentation(tmp_path):
    runs = made(tmp_path, ["mix.alpha=0.2,1.0"])
    names = ["baseline", "cutmix-alpha0.2", "cutmix-alpha1.0", "mixup-alpha0.2", "mixup-alpha1.0"]
    assert [run.name for run in runs] == 2 * names
    assert [run.config.mix.get("alpha") for run in runs[:5]] == [None, 0.2, 1.0, 0.2, 1.0]
    assert runs[0].swept == {}
    assert runs[1].swept == {"of": "cutmix", "mix.alpha": "0.2"}
    assert runs[1].workdir == tmp_path / "cutmix-alpha0.2" / "0"


def test_what_mixes_nothing_is_trained_once(tmp_path):
    """Also by keys of mixing that every config has, so that there stays one baseline to compare with."""
    runs = made(tmp_path, ["mix.alpha=0.2,1.0", "mix.prob=0.5,1.0"], ["baseline", "mixup"])
    assert [run.name for run in runs[:2]] == ["baseline", "mixup-alpha0.2-prob0.5"]
    assert len(runs) == 2 * 5
    with pytest.raises(ValueError, match=r"no config of this study has mix\.prob"):
        made(tmp_path / "none", ["mix.prob=0.5,1.0"], ["baseline"])


def test_two_keys_are_every_combination(tmp_path):
    runs = made(tmp_path, ["mix.alpha=0.2,1", "train.lr=0.1,1e-2"], ["cutmix"])
    found = [(run.name, run.config.mix.alpha, run.config.train.lr) for run in runs[:4]]
    assert found == [
        ("cutmix-alpha0.2-lr0.1", 0.2, 0.1),
        ("cutmix-alpha0.2-lr1e-2", 0.2, 0.01),
        ("cutmix-alpha1-lr0.1", 1.0, 0.1),
        ("cutmix-alpha1-lr1e-2", 1.0, 0.01),
    ]


def test_a_sweep_is_written_down_and_said_again(tmp_path):
    runs = plan.make_plan(
        ["configs/baseline.py", "configs/cutmix.py"], (0,), tmp_path, sweep=["mix.alpha=0.2,1.0"]
    )
    plan.write_asked(runs, tmp_path, ())
    asked = plan.read_asked(tmp_path)
    assert asked["swept"]["cutmix-alpha1.0"] == {"of": "cutmix", "mix.alpha": "1.0"}
    flags = plan.flags_of(asked, tmp_path)
    assert "--configs=configs/baseline.py,configs/cutmix.py" in flags
    assert "--sweep.mix.alpha=0.2,1.0" in flags


@pytest.mark.parametrize(
    ("sweep", "sentence"),
    [
        (["mix.alhpa=1"], r"no config of this study has mix\.alhpa.*mix\.alpha"),
        (["mix.alpha="], r"--sweep\.mix\.alpha needs one value or more"),
        (["mix.alpha=1,1"], "each once"),
        (["mix.alpha=0", "mix.alpha=1"], "it is there twice"),
        (["seed=0,1"], "use --seeds"),
        (["mix.name=cutmix,mixup"], "use other files in --configs"),
        (["explain.methods=gradient,lrp"], "its value is a tuple"),
        (["mix.alpha=1/2,1_2"], "two augmentations of this sweep would be called cutmix-alpha1_2"),
        (["mix.alpha=many"], "many"),
    ],
)
def test_what_cannot_be_swept_is_one_sentence(sweep, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        made(tmp_path, sweep)


def test_a_config_without_the_key_stays_itself():
    configs = {"a": ConfigDict({"x": 1}), "b": ConfigDict({"y": 2})}
    found = sweeps.variants(configs, {"x": ("3",)})
    assert [(v.name, v.base, dict(v.values)) for v in found] == [
        ("a-x3", "a", {"x": "3"}),
        ("b", "b", {}),
    ]
