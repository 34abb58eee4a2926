"""Files made to cost much: each ends soon, in one sentence, and in memory that is in proportion to its size."""

import io
import json
import pickle
import resource
import struct
import time
import zipfile

import numpy as np
import pytest
import torch_writer
from test_torch_files import BASE, by_hand, in_legacy, in_zip

from mixaug_jax.models import pickles, weight_files

MEBIBYTE = 2**20


def zip_of(path, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"archive/{name.replace('__', '/')}", content)


def unpacked_storage(path):
    data, _ = torch_writer.pickled({"a": np.zeros((2, 2), np.float32)})
    zip_of(path, zipfile.ZIP_DEFLATED, **{"data.pkl": data, "data/0": bytes(64 * MEBIBYTE)})


def unpacked_pickle(path):
    zip_of(path, zipfile.ZIP_DEFLATED, **{"data.pkl": b"(l" + b"]a" * (8 * MEBIBYTE) + b"."})


def long_pickle(path):
    in_zip(path, b"(l" + b"]a" * MEBIBYTE + b".")


def unpacked_npz(path):
    np.savez_compressed(path, a=np.zeros((4096, 4096), np.float32))


def lying_npz(path):
    header = io.BytesIO()
    fields = {"descr": "<f4", "fortran_order": False, "shape": (2**20, 2**20)}
    np.lib.format.write_array_header_1_0(header, fields)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(16))


def memo_hole(path):
    in_zip(path, b"}r" + struct.pack("<I", 2**31 - 2) + b".")


def endless_tuple(path):
    # Each tuple has the one before twice; as a dict's key it is hashed value by value.
    in_zip(path, b"}(I1\nt" + b"".join(b"p%d\ng%d\n\x86" % (i, i) for i in range(60)) + b"I1\ns.")


def deep_tuple(path):
    in_zip(path, b"}(I1\nt" + b"\x85" * 100_000 + b"I1\ns.")


def endless_name_of_a_storage(path):
    # The keys of the older format's storages: lists of lists, which text would spell out.
    keys = b"]" + b"".join(b"p%d\n]g%d\nag%d\na" % (i, i, i) for i in range(60)) + b"."
    in_legacy(path, pickle.dumps({}, 2), keys)


def many_names(path):
    in_zip(path, b"]" + b"".join(b"ca\nb%d\na" % i for i in range(5000)) + b".")


def huge_integer(path):
    in_zip(path, b"I" + b"9" * 100_000 + b"\n.")


def huge_text(path):
    in_zip(path, b"\x8d" + struct.pack("<Q", 2**62) + b"a.")


def huge_shape(path):
    by_hand(path, 4, 0, (2**40, 2**40), (1, 1), bytes(16))


def huge_stride(path):
    by_hand(path, 4, 0, (2, 2), (2**70, 1), bytes(16)).read()


def zero_strides(path):
    by_hand(path, 4, 0, (10**6, 10**6), (0, 0), bytes(16)).read()


def zero_strides_of_a_weight(path):
    by_hand(path, 4, 0, (64, 64), (0, 0), bytes(16)).read()


def shape_of_texts(path):
    by_hand(path, 4, 0, (), (), bytes(16))
    in_zip(path, zipfile.ZipFile(path).read("archive/data.pkl").replace(b"(tI00", b"(S'a'\ntI00"))


def storages_beyond_the_end(path):
    head = torch_writer.pickled({"a": BASE})[0]
    in_legacy(path, head, pickle.dumps(["0"], 2), struct.pack("<Q", 2**60), bytes(16))


def storages_of_nobody(path):
    in_legacy(path, pickle.dumps({}, 2), pickle.dumps(["7"], 2), bytes(16))


def two_members_of_one_name(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("archive/data.pkl", pickle.dumps({}, 2))


def safetensors(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def entry(shape, first, last):
    return {"dtype": "F32", "shape": shape, "data_offsets": [first, last]}


def long_header(path):
    safetensors(path, b'{"a":' + b" " * MEBIBYTE + b"{}}")


def nested_header(path):
    safetensors(path, b'{"a":' * 40_000)


def overlapping(path):
    safetensors(path, {"a": entry([4], 0, 16), "b": entry([4], 8, 24)}, bytes(24))


def with_a_hole(path):
    safetensors(path, {"a": entry([2], 0, 8), "b": entry([2], 16, 24)}, bytes(24))


def repeated_name(path):
    one = json.dumps(entry([4], 0, 16)).encode()
    other = json.dumps(entry([2, 2], 0, 16)).encode()
    safetensors(path, b'{"a":' + one + b',"a":' + other + b"}", bytes(16))


def huge_shape_of_safetensors(path):
    safetensors(path, {"a": entry([2**62, 8], 0, 16)}, bytes(16))


def nested_index(path):
    path.write_bytes(b'{"weight_map": ' + b"[" * 100_000)


def outside_of_the_folder(path):
    path.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}, indent=4))


HOSTILE = {
    unpacked_storage: "would unpack to more than 20 times its size",
    unpacked_pickle: "would unpack to more than 20 times its size",
    long_pickle: "bytes that are no values of tensors, too many for its size",
    unpacked_npz: "would unpack to more than 20 times its size",
    lying_npz: r"a\.npy of shape \[1048576, 1048576\] has too few bytes",
    memo_hole: "its memo has holes",
    endless_tuple: "tuples in tuples without end",
    deep_tuple: "tuples in tuples without end",
    endless_name_of_a_storage: "its storages are not those of its tensors",
    many_names: "objects of more than 1000 kinds",
    huge_integer: "cut short or not a file of weights",
    huge_text: "cut short or not a file of weights",
    huge_shape: "an impossible shape",
    huge_stride: "reaches beyond its storage",
    zero_strides: "repeats the 4 stored values",
    zero_strides_of_a_weight: "repeats the 4 stored values",
    shape_of_texts: "a tensor .*too few strides|an impossible shape",
    storages_beyond_the_end: "is cut short",
    storages_of_nobody: "its storages are not those of its tensors",
    two_members_of_one_name: "two members of one name",
    long_header: "has a header of 1048584 bytes, too long for its size",
    nested_header: "cut short or no safetensors file",
    overlapping: "cut short or no safetensors file",
    with_a_hole: "cut short or no safetensors file",
    repeated_name: "a name stands twice in its header",
    huge_shape_of_safetensors: "cut short or no safetensors file",
    nested_index: "is no index of weights",
    outside_of_the_folder: "is no index of weights",
}


@pytest.mark.parametrize("make", HOSTILE)
def test_costly_files_are_refused_in_a_sentence_and_soon(tmp_path, make):
    path = tmp_path / (
        "index.json" if "index" in make.__name__ or "folder" in make.__name__ else "a.pth"
    )
    path = tmp_path / "a.npz" if "npz" in make.__name__ else path
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=HOSTILE[make]) as error:  # noqa: PT012, some are refused where they are read
        make(path)
        start = time.process_time()
        weight_files.read_state(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
    if make not in (unpacked_storage, unpacked_pickle, unpacked_npz):  # whose making takes memory
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
    if "start" in locals():
        assert time.process_time() - start < 2


def test_a_pickle_within_its_budget_costs_little(tmp_path):
    path = tmp_path / "a.pth"
    in_zip(path, b"(l" + b"]a" * (pickles.limit(0) // 2 - 2) + b".")
    start = time.process_time()
    with pytest.raises(ValueError, match="holds a list, not weights by name"):
        weight_files.read_state(path)
    assert time.process_time() - start < 10
