"""Reading PyTorch's files: values, odd layouts, and everything that must be refused or called damaged."""

import collections
import os
import pathlib
import pickle
import subprocess
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch_writer

from mixaug_jax.models import pickles, torch_files, weight_files

DATA = pathlib.Path(__file__).parents[1] / "data"
FORMATS = ["small_zip.pth", "small_legacy.pth"]
BASE = np.arange(24, dtype=np.float32).reshape(4, 6)
# What torch.save was given for tests/data/small_*.pth, under state_dict and with "module." in front of the names; `shared`,
# `turned`, `part` and `strided` are views of one tensor.
EXPECTED = {
    "shared": BASE,
    "turned": BASE.T,
    "part": BASE[1:, 2:4],
    "strided": BASE[::2, ::3],
    "half": BASE.astype(np.float16),
    "bfloat": BASE.astype(ml_dtypes.bfloat16),
    "double": BASE.astype(np.float64) / 3,
    "long": np.array([-1, 2**40]),
    "byte": np.array([0, 255], np.uint8),
    "bool": np.array([True, False]),
    "scalar": np.float32(2.5),
    "empty": np.zeros((0, 3), np.float32),
    "parameter": BASE,
}


def saved(path, **options):
    """Writes the files in tests/data, with torch."""
    import torch

    base = torch.from_numpy(BASE.copy())
    tensors = {"shared": base, "turned": base.t(), "part": base[1:, 2:4], "strided": base[::2, ::3]}
    tensors |= {"half": base.half(), "bfloat": base.bfloat16(), "double": base.double() / 3}
    tensors |= {
        "long": torch.tensor([-1, 2**40]),
        "byte": torch.tensor([0, 255], dtype=torch.uint8),
    }
    tensors |= {"bool": torch.tensor([True, False]), "scalar": torch.tensor(2.5)}
    tensors |= {"empty": torch.zeros(0, 3), "parameter": torch.nn.Parameter(base.clone())}
    tensors |= {"bn.num_batches_tracked": torch.tensor(7)}
    state = collections.OrderedDict((f"module.{name}", tensor) for name, tensor in tensors.items())
    state._metadata = {"": {"version": 1}}
    rest = {
        "epoch": 3,
        "arch": "resnet",
        "best": np.float64(21.5),
        "flags": {1, 2},
        "raw": b"\x00\xff",
    }
    rest |= {
        "optimizer": {"state": {0: {"step": torch.ones(2)}}, "betas": (0.9, None)},
        "size": base.shape,
    }
    torch.save({"state_dict": state, **rest}, path, **options)


@pytest.fixture(params=[*FORMATS, "made now, zip", "made now, legacy"])
def small(request, tmp_path):
    if request.param in FORMATS:
        return DATA / request.param
    pytest.importorskip("torch", reason="PyTorch makes the file")
    path = tmp_path / "now.pth"
    saved(path, _use_new_zipfile_serialization=request.param.endswith("zip"))
    return path


def test_values_types_and_layouts(small):
    tensors = weight_files.read_state(small).tensors
    assert list(tensors) == list(EXPECTED)
    for name, expected in EXPECTED.items():
        tensor, array = tensors[name], tensors[name].read()
        assert tensor.shape == array.shape == expected.shape
        assert tensor.dtype == array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)


def test_other_contents(small):
    read = torch_files.read_zip if zipfile.is_zipfile(small) else torch_files.read_legacy
    content = read(small)
    assert (content["epoch"], content["arch"], content["best"]) == (3, "resnet", 21.5)
    assert (sorted(content["flags"]), content["raw"], content["size"]) == (
        [1, 2],
        b"\x00\xff",
        (4, 6),
    )
    assert content["optimizer"]["betas"] == (0.9, None)


def test_shared_storages_are_read_once(small):
    tensors = weight_files.read_state(small).tensors
    assert tensors["turned"].read().base is not None
    with pytest.raises(ValueError, match="read-only"):
        tensors["shared"].read()[0] = 1


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def in_zip(path, pickled, **members):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)


def in_legacy(path, *pickled):
    head = [torch_files.MAGIC, torch_files.PROTOCOL, {"little_endian": True}]
    path.write_bytes(b"".join(pickle.dumps(h, 2) for h in head) + b"".join(pickled))


def bare(path, pickled):
    path.write_bytes(pickled)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("wrap", [in_zip, in_legacy, bare])
def test_a_function_call_is_never_run(tmp_path, wrap, protocol):
    made = tmp_path / "made"
    path = tmp_path / "evil.pth"
    content = {"state_dict": Call(os.mkdir, str(made))}
    pickled = pickle.dumps(content, protocol)
    wrap(path, pickled, *([pickle.dumps([], 2)] if wrap is in_legacy else []))
    refused = r"only state_dict \(a (posix|nt)\.mkdir, which is not read and not run\)|not one that"
    with pytest.raises(ValueError, match=refused) as error:
        weight_files.read_state(path)
    assert "\n" not in str(error.value)
    assert not made.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_a_function_call_beside_weights_is_never_run(tmp_path, protocol):
    made = tmp_path / "made"
    storages = torch_writer.pickled({"a": BASE})[1]
    # The weights' own pickle, with one more entry in front of the instruction that ends it.
    weights = torch_writer.pickled({"a": BASE})[0].removesuffix(b".")
    call = pickle.dumps(Call(os.mkdir, str(made)), protocol).removesuffix(b".")
    call = call[2:] if protocol > 1 else call  # without the number of the protocol
    in_zip(
        tmp_path / "a.pth", weights + b"U\x01b" + call + b"s.", **{"data/0": storages[0].tobytes()}
    )
    if protocol > 3:  # a frame may not begin within a pickle
        call = pickle._dumps(Call(os.mkdir, str(made)), 3).removesuffix(b".")[2:]
        in_zip(
            tmp_path / "a.pth",
            weights + b"U\x01b" + call + b"s.",
            **{"data/0": storages[0].tobytes()},
        )
    state = weight_files.read_state(tmp_path / "a.pth")
    np.testing.assert_array_equal(state.tensors["a"].read(), BASE)
    assert state.remarks == ("not read: b (posix.mkdir)",)
    assert not made.exists()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Call(eval, "1 + 1"), "builtins.eval"),
        (Call(getattr, {}, "keys"), "builtins.getattr"),
        (subprocess.Popen, "subprocess.Popen"),
        (pathlib.PurePosixPath("a"), r"pathlib.*PurePosixPath"),
        (np.zeros(3), r"numpy.*_reconstruct"),
        (Call(collections.Counter), "collections.Counter"),
    ],
)
def test_other_names_are_names_only(tmp_path, value, name):
    path = tmp_path / "net.pth"
    in_zip(path, pickle.dumps({"a": value}, 2))
    what = "the name of a class" if isinstance(value, type) else f"a {name}, which is not read"
    with pytest.raises(ValueError, match=rf"holds no weights by name: only a \({what}"):
        weight_files.read_state(path)


def test_a_whole_module_is_refused_with_advice(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch makes the file")
    path = tmp_path / "net.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(
        ValueError, match=r"torch\.nn\.modules\.linear\.Linear.*save model\.state_dict\(\) alone"
    ):
        weight_files.read_state(path)


def test_objects_of_the_reader_cannot_be_changed(tmp_path):
    # GLOBAL, then BUILD with a state that would replace what the name stands for.
    for state in (b"}U\x08functionNs", b"N}U\x08functionNs\x86"):
        path = tmp_path / "net.pth"
        in_zip(path, b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + state + b"b.")
        with pytest.raises(ValueError, match="not a file of weights"):
            weight_files.read_state(path)
    assert pickles._ALLOWED["torch._utils._rebuild_tensor_v2"] is pickles._tensor
    # The same for what a foreign name stands for.
    in_zip(path, b"(dS'a'\ncos\nsystem\n}S'name'\nS'b'\nsbs.")
    with pytest.raises(ValueError, match="not a file of weights"):
        weight_files.read_state(path)
    in_zip(path, b"(dS'a'\ncos\nsystem\n)R}S'name'\nS'b'\nsbs.")
    with pytest.raises(ValueError, match=r"only a \(a os\.system, which is not read"):
        weight_files.read_state(path)
    assert pickles.Foreign.name == ""


def test_attributes_of_a_dict_are_ignored(tmp_path):
    path = tmp_path / "net.pth"
    in_zip(path, b"ccollections\nOrderedDict\n)R}S'items'\nI1\nsb.")
    with pytest.raises(ValueError, match="its dict is empty"):
        weight_files.read_state(path)


def by_hand(path, size, offset, shape, strides, content):
    """One tensor "a" on a storage of `size` values, as PyTorch describes it."""

    def numbers(values):
        return b"(" + b"".join(b"I%d\n" % v for v in values) + b"t"

    storage = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI%d\ntQ" % size
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"I%d\n" % offset
    tensor += numbers(shape) + numbers(strides) + b"I00\nNtR"
    in_zip(path, b"(dS'a'\n" + tensor + b"s.", **{"data/0": content})
    return weight_files.read_state(path).tensors["a"]


def test_a_tensor_by_hand(tmp_path):
    values = np.arange(6, dtype=np.float32)
    tensor = by_hand(tmp_path / "a.pth", 6, 1, (2, 2), (1, 3), values.tobytes())
    np.testing.assert_array_equal(tensor.read(), [[1, 4], [2, 5]])


@pytest.mark.parametrize(
    ("size", "offset", "shape", "strides"),
    [
        (6, 1, (2, 3), (3, 1)),
        (6, -1, (2,), (1,)),
        (6, 5, (2,), (-1,)),
        (2, 0, (3,), (1,)),
        (6, 0, (10**9,), (1,)),
    ],
)
def test_tensors_beyond_their_storage(tmp_path, size, offset, shape, strides):
    tensor = by_hand(tmp_path / "a.pth", size, offset, shape, strides, bytes(24))
    with pytest.raises(ValueError, match="reaches beyond its storage"):
        tensor.read()


def test_a_missing_storage(tmp_path):
    path = tmp_path / "a.pth"
    by_hand(path, 6, 0, (6,), (1,), bytes(24))
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("archive/data.pkl")
    in_zip(path, pickled)
    with pytest.raises(ValueError, match="damaged: it has no storage 0"):
        weight_files.read_state(path).tensors["a"].read()


def test_compressed_archives(tmp_path):
    old = zipfile.ZipFile(DATA / "small_zip.pth")
    new = zipfile.ZipFile(tmp_path / "new.pth", "w", zipfile.ZIP_DEFLATED)
    with old, new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    array = weight_files.read_state(tmp_path / "new.pth").tensors["part"].read()
    np.testing.assert_array_equal(array, EXPECTED["part"])


def test_big_endian_files(tmp_path):
    in_zip(tmp_path / "a.pth", b"(d.", byteorder=b"big")
    with pytest.raises(ValueError, match="big-endian"):
        weight_files.read_state(tmp_path / "a.pth")


@pytest.mark.parametrize("name", FORMATS)
def test_every_cut_is_one_clear_sentence(tmp_path, name):
    whole = (DATA / name).read_bytes()
    path = tmp_path / "cut.pth"
    for length in range(0, len(whole) - 1, 97):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut|empty|damaged|not one") as error:  # noqa: PT012, the tensors are read lazily
            for tensor in weight_files.read_state(path).tensors.values():
                tensor.read()
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html>", "is a web page, not weights"),
        (b"\x89PNG\r\n" + bytes(600), "cut short or not a file of weights"),
        (bytes(257) + b"ustar" + bytes(300), "is a tar file"),
        (pickle.dumps(3), "not one that PyTorch wrote"),
        (b"PK\x03\x04" + bytes(100), "cut short or damaged"),
    ],
)
def test_other_files(tmp_path, content, message):
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        weight_files.read_state(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "holds no weights by name: its dict is empty"),
        ({"state_dict": {}}, r"holds no weights by name: only state_dict \(a dict\)"),
        ([1, 2], "holds a list, not weights by name"),
        ({1: 2}, r"holds no weights by name: only 1 \(a int\)"),
        (
            {"epoch": 3, "weights": {}},
            r"only epoch \(a int\), weights \(a dict\); .* save model\.state_dict\(\) alone",
        ),
    ],
)
def test_contents_without_weights(tmp_path, value, message):
    path = tmp_path / "net.pth"
    in_zip(path, pickle.dumps(value, 2))
    with pytest.raises(ValueError, match=message):
        weight_files.read_state(path)


def test_folders_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match="is a folder; a file of weights is needed"):
        weight_files.read_state(tmp_path)
    with pytest.raises(ValueError, match=r"nothing\.pth is no file"):
        weight_files.read_state(tmp_path / "nothing.pth")


def test_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("readme.txt", "no weights")
    with pytest.raises(ValueError, match="is a zip file, but not one of weights"):
        weight_files.read_state(tmp_path / "a.pth")
