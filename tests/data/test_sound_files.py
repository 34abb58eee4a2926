"""Sound files of any kind are read to the bit, or refused by name."""

import struct
import wave

import numpy as np
import pytest
import soundfile
from recordings import FULL, header, riff, tone, write_wav

from mixaug_jax.data.speech import sound_files


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_samples_of_a_wav(tmp_path, width, channels):
    samples = np.random.default_rng(0).uniform(-1, 1, (37, channels))
    samples[:2] = [[1.0], [-1.0]]
    write_wav(tmp_path / "a.wav", samples, rate=11025, width=width)
    found, rate = sound_files.read_sound(tmp_path / "a.wav")
    assert (found.dtype, found.shape, rate) == (np.float32, (37, channels), 11025)
    stored = np.rint(samples * FULL[width]) / (FULL[width] + 1)
    np.testing.assert_allclose(found, stored, atol=1e-7)
    assert np.abs(found).max() <= 1


def extensible(kind=1, channels=1, bits=16):
    """A header with its format in a sub-format, as many programs write it."""
    code = struct.pack("<H", kind) + bytes.fromhex("0000000010008000" + "00aa00389b71")
    return header(0xFFFE, channels, 8000, bits) + struct.pack("<HHI", 22, bits, 0) + code


@pytest.mark.parametrize(("bits", "kind"), [(16, "<i2"), (32, "<i4"), (8, "u1")])
def test_pcm_behind_an_extensible_header(tmp_path, bits, kind):
    samples = np.arange(3, 23).astype(kind)
    listed = b"LIST" + struct.pack("<I", 3) + b"abc\0"  # a chunk of odd length before the format
    for name, plain in (("plain", True), ("extensible", False)):
        form = header(channels=2, bits=bits) if plain else extensible(channels=2, bits=bits)
        made = riff(form, samples.tobytes())
        content = made[:12] + listed + made[12:]
        content = content[:4] + struct.pack("<I", len(content) - 8) + content[8:]
        (tmp_path / f"{name}.wav").write_bytes(content)
    found, rate = sound_files.read_sound(tmp_path / "extensible.wav")
    expected, _ = sound_files.read_sound(tmp_path / "plain.wav")
    assert (found.shape, rate) == ((10, 2), 8000)
    np.testing.assert_array_equal(found, expected)


def by_hand(path):
    """A PCM wav's samples by Python's own reader and NumPy."""
    with wave.open(str(path)) as file:
        channels, width, _, count = file.getparams()[:4]
        content = file.readframes(count)
    if width == 1:
        return ((np.frombuffer(content, np.uint8).astype(np.float32) - 128) / 128).reshape(
            -1, channels
        )
    upper = np.zeros((len(content) // width, 4), np.uint8)
    upper[:, 4 - width :] = np.frombuffer(content, np.uint8).reshape(-1, width)
    return (upper.view("<i4")[:, 0].astype(np.float32) / 2**31).reshape(-1, channels)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_pcm_is_what_it_was(tmp_path, width):
    write_wav(tmp_path / "a.wav", np.random.default_rng(0).uniform(-1, 1, (5000, 2)), width=width)
    found, _ = sound_files.read_sound(tmp_path / "a.wav")
    np.testing.assert_array_equal(found, by_hand(tmp_path / "a.wav"))


@pytest.mark.parametrize(("kind", "bits"), [(3, 32), (3, 64)])
@pytest.mark.parametrize("plain", [True, False])
def test_floating_point(tmp_path, kind, bits, plain):
    samples = np.random.default_rng(0).normal(size=(20, 2)).astype(f"<f{bits // 8}")
    form = (header if plain else extensible)(kind=kind, channels=2, bits=bits)
    (tmp_path / "a.wav").write_bytes(riff(form, samples.tobytes()))
    found, rate = sound_files.read_sound(tmp_path / "a.wav")
    np.testing.assert_array_equal(found, samples.astype(np.float32))
    assert rate == 8000


UNKNOWN = [(0xFFFFFFFF, 0xFFFFFFFF), (0, 0), (0xFFFFFFFF, 0), (0x7FFFF024, 0x7FFFF000), (-8, 800)]


@pytest.mark.parametrize("sizes", range(len(UNKNOWN)))
def test_a_wav_whose_writer_did_not_know_its_length(tmp_path, sizes):
    samples = np.arange(400, dtype="<i2")
    whole, (said, sound) = riff(header(), samples.tobytes()), UNKNOWN[sizes]
    said = len(whole) - 8 + said if said < 0 else said
    content = (
        whole[:4] + struct.pack("<I", said) + whole[8:40] + struct.pack("<I", sound) + whole[44:]
    )
    (tmp_path / "a.wav").write_bytes(content)
    found, _ = sound_files.read_sound(tmp_path / "a.wav")
    np.testing.assert_array_equal(found[:, 0], samples / 2.0**15)


@pytest.mark.parametrize(
    ("name", "kind", "tolerance"), [("a.flac", "PCM_16", 0), ("a.ogg", "VORBIS", 0.1)]
)
def test_compressed_sound(tmp_path, name, kind, tolerance):
    samples = np.rint(2**15 * tone(500, 20000)[:, None]) / 2**15
    soundfile.write(tmp_path / name, samples, 8000, subtype=kind)
    found, rate = sound_files.read_sound(tmp_path / name)
    assert (found.shape, rate) == ((20000, 1), 8000)
    np.testing.assert_allclose(found, samples, atol=tolerance)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: 2 * len(content) // 3])
    with pytest.raises(ValueError, match=f"{name} (cannot be read as sound|is cut|has no)"):
        sound_files.read_sound(tmp_path / name)


def sentence(path):
    """Why a file cannot be read; "" where it can."""
    try:
        found, rate = sound_files.read_sound(path)
    except ValueError as error:
        return str(error)
    assert len(found)
    assert np.isfinite(found).all()
    assert 100 <= rate <= 10**6
    return ""


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
def test_no_damage_of_a_header_is_an_error_of_another_kind(tmp_path, name):
    rng, read = np.random.default_rng(0), 0
    soundfile.write(tmp_path / name, tone(500, 2000), 8000)
    whole = (tmp_path / name).read_bytes()
    for _ in range(400):
        content = bytearray(whole)
        for place in rng.integers(60, size=rng.integers(1, 4)):
            content[place] = rng.integers(256)
        (tmp_path / name).write_bytes(content)
        said = sentence(tmp_path / name)
        read += not said
        assert not said or (str(tmp_path / name) in said and "\n" not in said)
    assert read < 400
    assert read or name == "a.ogg"  # whose pages have checksums
