"""What imported weights may not be: of another network, not finite, of other channels; and shards, pointers and measures."""

import json

import numpy as np
import pytest
import torch_writer
from test_weight_layouts import STATE, same
from test_weights import importing, run, small

from mixaug_jax.models import Assume, Preprocess, mapping, unsupported, views, weight_files, weights


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.npz"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("layer2.0.conv1.weight", np.nan, r"layer2\.0\.conv1\.weight has NaN"),
        ("fc.bias", np.inf, r"fc\.bias has infinite values"),
        ("bn1.weight", -np.inf, r"bn1\.weight has infinite values"),
        ("layer1.0.bn1.running_var", -0.1, r"layer1\.0\.bn1\.running_var has variances below 0"),
        ("layer1.0.bn1.running_mean", np.nan, r"layer1\.0\.bn1\.running_mean has NaN"),
    ],
)
def test_values_that_are_no_weights(path, name, value, message):
    array = STATE[name].copy()
    array.reshape(-1)[-1] = value
    with pytest.raises(ValueError, match=rf"net\.npz does not fit resnet18: {message}") as error:
        importing(path, STATE | {name: array})
    assert not str(error.value).endswith(".")


def test_values_too_large_for_float32(path):
    with pytest.raises(ValueError, match=r"fc\.bias has infinite values"):
        importing(path, STATE | {"fc.bias": np.full(3, 1e300)})


@pytest.mark.parametrize("channels", [2, 4, 6, 13])
@pytest.mark.parametrize("model", ["resnet18", "vgg16_bn", "efficientnet_lite0"])
def test_other_channels_are_refused_at_import(path, channels, model):
    state = small(model, width=1 / 32)
    first = {"resnet18": "conv1.weight", "vgg16_bn": "features.0.weight"}.get(
        model, "_conv_stem.weight"
    )
    state[first] = np.repeat(state[first][:, :1], channels, 1)
    with pytest.raises(
        ValueError,
        match=f"its first convolution takes {channels} channels, and images have 1 or 3 here",
    ):
        importing(path, state)


# A few names and shapes of other networks, as torchvision and timm have them.
OTHERS = {
    "SqueezeNet": {"features.0.weight": (64, 3, 3, 3), "features.3.squeeze.weight": (16, 64, 1, 1)},
    "chain of 9 convolutions": {f"features.{3 * i}.weight": (8, 8, 3, 3) for i in range(9)},
    "LCNet": {
        "conv_stem.weight": (8, 3, 3, 3),
        "blocks.4.0.se.conv_reduce.weight": (32, 128, 1, 1),
    },
    "vision transformer": {"blocks.0.attn.qkv.weight": (576, 192)},
    "Swin": {"layers.0.blocks.0.attn.relative_position_bias_table": (169, 3)},
    "Inception v3": {"Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3)},
    "SK-ResNet": {"layer1.0.conv1.paths.0.conv.weight": (64, 32, 3, 3)},
    "ECA-ResNet": {"layer1.0.eca.conv.weight": (1, 1, 3)},
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("prefix", ["", "module.backbone."])
def test_other_networks_are_named(path, name, prefix):
    state = {prefix + n: np.zeros(shape, np.float32) for n, shape in OTHERS[name].items()}
    with pytest.raises(ValueError, match=f"a network that is not read here: {name}") as error:
        importing(path, state)
    assert not str(error.value).endswith(".")


STEM = {"conv1.0.weight": (32, 3, 3, 3), "conv1.3.weight": (32, 32, 3, 3)}
AVERAGED = {"layer2.0.downsample.1.weight": (512, 256, 1, 1)}
GATED = {"layer1.0.se.fc1.weight": (16, 256, 1, 1)}


def resnet(blocks, group=64, width=64, **others):
    state = {"conv1.weight": (64, 3, 7, 7), "layer1.0.conv3.weight": (256, width, 1, 1)}
    state |= {"layer1.0.conv2.weight": (width, group, 3, 3)}
    state |= {f"layer{i + 1}.{j}.bn1.weight": (1,) for i, n in enumerate(blocks) for j in range(n)}
    return state | others


@pytest.mark.parametrize(
    ("shapes", "name"),
    [
        (resnet((3, 4, 6, 3), 4, 128), ""),
        (resnet((3, 4, 23, 3), 8, 256), ""),
        (resnet((3, 4, 23, 3), 4, 128), "ResNeXt-101 (32x4d)"),
        (resnet((3, 4, 6, 3), 128, 128), ""),
        (resnet((3, 4, 23, 3), 128, 128), "Wide ResNet-101-2"),
        (resnet((2, 2, 2, 2)), "ResNet-26"),
        (resnet((3, 4, 6, 3)), ""),
        (resnet((3, 4, 6, 3), **GATED), ""),
        (resnet((3, 4, 6, 3), 4, 128, **GATED), "SE-ResNeXt-50 (32x4d)"),
        (
            resnet((3, 4, 6, 3), **STEM),
            "ResNet-50 with a stem of three convolutions (ResNet-C or S)",
        ),
        (resnet((3, 4, 6, 3), **STEM, **AVERAGED), ""),
        (resnet((3, 4, 6, 3), **STEM, **AVERAGED, **GATED), "SE-ResNet-50-D"),
        (
            resnet((3, 4, 6, 3), **STEM | {"conv1.0.weight": (24, 3, 3, 3)}, **AVERAGED),
            "ResNet-50 with a stem of three convolutions (ResNet-T)",
        ),
    ],
)
def test_relatives_of_resnets(shapes, name):
    assert unsupported.name_of(shapes) == name


def test_pointers_and_eight_bit_floats(tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    with pytest.raises(ValueError, match=r"is a pointer of Git LFS, .* git lfs pull fetches them"):
        weights.import_weights(path)
    if torch_writer.HAS_TORCH:
        import torch

        torch.save({"state_dict": {"a": torch.ones(2, 2).to(torch.float8_e4m3fn)}}, path)
    else:
        dtype = torch_writer.Named("torch", "float8_e4m3fn", None)
        args = (None, 0, (2, 2), (2, 1), False, None, dtype)
        content = {
            "state_dict": {"a": torch_writer.Named("torch._utils", "_rebuild_tensor_v3", args)}
        }
        torch_writer.save(content, path)
    with pytest.raises(
        ValueError, match=r"a is of float8_e4m3fn, which is not read; save it again"
    ):
        weights.import_weights(path)


def shards(folder, ending, write):
    """An index of two files with the weights of STATE; its path."""
    names = sorted(STATE)
    parts = {f"part-{i}.{ending}": names[i::2] for i in range(2)}
    for file, held in parts.items():
        write(folder / file, {name: STATE[name] for name in held})
    places = {name: file for file, held in parts.items() for name in held}
    path = folder / f"model.{ending}.index.json"
    path.write_text(json.dumps({"meta": {}, "weight_map": places}, separators=(",", ":")))
    return path


def safetensors(path, arrays):
    weight_files.write_safetensors(path, arrays, {})


def pytorch(path, arrays):
    torch_writer.save(arrays, path)


@pytest.mark.parametrize(("ending", "write"), [("safetensors", safetensors), ("bin", pytorch)])
def test_shards(tmp_path, ending, write):
    path = shards(tmp_path, ending, write)
    same(weights.import_weights(path), importing(tmp_path / "net.npz", STATE))
    assert len(weight_files.files_of(path)) == 3
    (tmp_path / f"part-1.{ending}").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=rf"names part-1\.{ending}, which is not beside it"):
        weights.import_weights(path)
    write(tmp_path / f"part-1.{ending}", {"other": np.zeros(2, np.float32)})
    with pytest.raises(ValueError, match=rf"says that \S+ is in part-1\.{ending}, where it is not"):
        weights.import_weights(path)


def found(name, stem="imagenet", channels=3):
    return mapping.Architecture(name, 5, 1.0, stem, channels)


# Sides and shares as timm 1.0 has them (pretrained_cfg), its way to round a side down included.
@pytest.mark.parametrize(
    ("name", "preset", "expected"),
    [
        ("resnet50", "torchvision", Preprocess(224, 256)),
        ("resnet50", "torchvision_v2", Preprocess(224, 232)),
        ("resnet50", "timm", Preprocess(224, 235, interpolation="bicubic")),
        ("vgg16_bn", "timm", Preprocess(224, 256)),
        (
            "efficientnet_lite1",
            "timm",
            Preprocess(240, 272, (0.5,) * 3, (0.5,) * 3, interpolation="bicubic"),
        ),
        ("efficientnet_lite4", "timm", Preprocess(380, 413, (0.5,) * 3, (0.5,) * 3)),
    ],
)
def test_presets(name, preset, expected):
    assert views.preset(found(name), preset) == expected


def test_views_that_do_not_fit(path):
    with pytest.raises(
        ValueError, match=r"view must be one of '', torchvision, .*; got 'tim' \(did"
    ):
        views.preset(found("resnet18"), "tim")
    with pytest.raises(ValueError, match="view='timm' has no recipe for wide_resnet28_10"):
        views.preset(found("wide_resnet28_10"), "timm")
    np.savez(path, **STATE)
    with pytest.raises(ValueError, match="mean and std have 1 channels, and the network takes 3"):
        weights.import_weights(path, view=Preprocess(32, 32, (0.5,), (0.5,)))
    own = Preprocess(48, 50, (0.1, 0.2, 0.3), (0.5, 0.5, 0.6), "bgr", "nearest")
    assert weights.import_weights(path, view=own).preprocess == own
    assert weights.import_weights(path, view="timm").preprocess.resize == 235


def test_fields_of_a_view():
    view = Preprocess(224, 256)
    assert views.changed(view, found("resnet18"), {"size": 112}) == Preprocess(112, 128)
    assert views.changed(view, found("resnet18"), {"resize": 0}) == Preprocess(224, 0)
    with pytest.raises(
        ValueError, match="view: resize must be 0 or at least size, 224 pixels; got 9"
    ):
        views.changed(view, found("resnet18"), {"resize": 9})
    with pytest.raises(ValueError, match="view: mean and std must have 3 values each, or 1 each"):
        views.changed(view, found("resnet18"), {"mean": (0.5,)})


def test_given_logits_are_compared(tmp_path, path, capsys):
    np.savez(path, **STATE)
    net = weights.import_weights(path)
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 33, 3), np.uint8)
    x = np.stack([net.preprocess(image) for image in images])
    logits = np.asarray(run(net, x))
    given = tmp_path / "given.npz"
    np.savez(given, images=images, logits=logits)
    for check in ((images, logits), (x, logits), given, str(given)):
        weights.import_weights(path, check=check)
        assert "they agree" in capsys.readouterr().out
    weights.import_weights(path, check=(images, logits), assume=Assume(pool="max"))
    said = capsys.readouterr().out
    assert "they do NOT agree" in said
    assert f"beside a standard deviation of {logits.std():.3g}" in said


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_compared(tmp_path, path):
    np.savez(path, **STATE)
    images, logits = np.zeros((2, 32, 32, 3), np.float32), np.zeros((2, 3), np.float32)
    for check, message in (
        ((images.transpose(0, 3, 1, 2), logits), r"images must be \[B,h,w,3\], channels last"),
        ((images, logits[:, :2]), r"logits must be \[2, 3\], a row an image; got \[2, 2\]"),
        ((images,), r"check must be \(images, logits\), or a .npz file"),
        (tmp_path / "none.npz", r"none\.npz is no \.npz file with arrays images and logits"),
    ):
        with pytest.raises(ValueError, match=message):
            weights.import_weights(path, check=check)
