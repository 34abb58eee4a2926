"""Label maps on disk that are damaged: made again, and never counted with."""

import numpy as np
import planted
import pytest

from mixaug_jax.dissection import concepts
from mixaug_jax.models import Preprocess

NET = Preprocess(size=16, resize=0)


def make(folder):
    return concepts.make_label_maps(planted.source(), NET, folder, size=16)


@pytest.fixture
def place(tmp_path):
    make(tmp_path)
    (found,) = tmp_path.glob("labels-*px-????????")
    return found


def test_a_flipped_bit_changes_no_label(place, capsys):
    good, healed = np.array(make(place.parent).maps), 0
    rng = np.random.default_rng(0)
    files = sorted(path for path in place.iterdir() if path.is_file())
    for number in range(24):
        # Each file as often as any other: the small ones say which images the maps are of.
        path = files[number % len(files)]
        content = bytearray(whole := path.read_bytes())
        bit = int(rng.integers(len(content) * 8))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        found = make(place.parent)
        np.testing.assert_array_equal(found.maps, good)
        np.testing.assert_array_equal(found.indices, np.arange(12))
        if f"the label maps in {place} are damaged; they are made again" in capsys.readouterr().out:
            assert path.read_bytes() == whole
            healed += 1
        path.write_bytes(whole)
    assert healed >= 17  # all of settings, indices and maps


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff"])
@pytest.mark.parametrize("name", ["settings.json", "images.npy", "maps.uint16", "checksums.json"])
def test_a_damaged_file_is_made_again(name, content, place, capsys):
    good = (place / name).read_bytes()
    (place / name).write_bytes(content)
    make(place.parent)
    assert (place / name).read_bytes() == good
    assert "are damaged; they are made again" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["images.npy", "maps.uint16", "checksums.json"])
def test_a_missing_file_is_made_again(name, place):
    good = (place / name).read_bytes()
    (place / name).unlink()
    make(place.parent)
    assert (place / name).read_bytes() == good
