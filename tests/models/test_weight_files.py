"""The plain formats, npz and safetensors: values, dtypes, damage, and large files that stay on disk."""

import json
import struct
import tracemalloc

import numpy as np
import pytest
from test_torch_files import BASE

from mixaug_jax.models import weight_files


def test_npz(tmp_path):
    path = tmp_path / "net.npz"
    np.savez_compressed(path, **{"module.a.weight": BASE, "module.a.bias": np.float16(2)})
    tensors = weight_files.read_state(path).tensors
    np.testing.assert_array_equal(tensors["a.weight"].read(), BASE)
    assert tensors["a.bias"].shape == ()
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"net\.npz cannot be read as arrays of numbers"):
        weight_files.read_state(path)


def test_safetensors_there_and_back(tmp_path):
    path = tmp_path / "net.safetensors"
    arrays = {"a": BASE, "b": BASE.T, "c": np.float32(3.5), "d": np.zeros((0, 2), np.float32)}
    weight_files.write_safetensors(path, arrays, {"note": "x"})
    state = weight_files.read_state(path)
    assert state.metadata == {"format": "pt", "note": "x"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(state.tensors[name].read(), array)


def safetensors(path, header, data=b""):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16", "I64", "U8", "BOOL"])
def test_safetensors_dtypes(tmp_path, dtype):
    path = tmp_path / "net.safetensors"
    values = np.array([[0, 1], [1, 0]]).astype(weight_files._SAFETENSORS[dtype])
    safetensors(
        path,
        {"a": {"dtype": dtype, "shape": [2, 2], "data_offsets": [0, values.nbytes]}},
        values.tobytes(),
    )
    array = weight_files.read_state(path).tensors["a"].read()
    assert array.dtype == values.dtype
    np.testing.assert_array_equal(array, values)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]},
            r"a is of F8_E4M3, which is not read; save it again as float32",
        ),
        (
            {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
            "cut short or no safetensors file .*invalid shape, data type, or offset",
        ),
        ({"dtype": "F32", "shape": [2]}, "no safetensors file"),
        ({"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, "is cut short"),
        ({"dtype": "F32", "shape": [-2], "data_offsets": [8, 0]}, "cut short or no safetensors"),
    ],
)
def test_damaged_safetensors(tmp_path, entry, message):
    path = tmp_path / "net.safetensors"
    safetensors(path, {"a": entry}, bytes(8))
    with pytest.raises(ValueError, match=message):
        weight_files.read_state(path).tensors["a"].read()


def test_cut_safetensors_header(tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b'{"a": ')
    with pytest.raises(ValueError, match="cut short or no safetensors file"):
        weight_files.read_state(path)


def test_a_large_file_stays_on_disk(tmp_path):
    path = tmp_path / "net.safetensors"
    size = 200 * 2**20
    safetensors(path, {"a": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}})
    with open(path, "ab") as file:
        file.truncate(file.tell() + size)
    tracemalloc.start()
    tensor = weight_files.read_state(path).tensors["a"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tensor.shape == (size // 4,)
    assert peak < 2**20
