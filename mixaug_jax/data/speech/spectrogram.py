"""Log-mel spectrograms in JAX, and the masks of SpecAugment.

A recording is float32 [n] in -1..1, one channel. Its spectrogram is a picture: a row is a band, a
column a frame.

    power = mel_power(wave, Mel(rate=8000, window=256, hop=100, bands=64))
    image = to_bytes(decibels(power, span=80.0), span=80.0)
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.core.types import AnyArray, Bool, Float, UInt8, UInt32

# Slaney's mel scale: linear up to 1000 Hz, logarithmic above.
_LINEAR = 200 / 3  # Hz a mel
_BREAK = 1000.0  # Hz
_LOG_STEP = np.log(6.4) / 27  # of the logarithm of the frequency, a mel


@dataclasses.dataclass(frozen=True)
class Mel:
    """How a recording becomes power in mel bands.

    Attributes:
      rate: samples a second.
      window: samples a frame.
      hop: samples from one frame's start to the next one's.
      bands, low, high: see `mel_filters`, which says what is refused.
    """

    rate: int
    window: int
    hop: int
    bands: int
    low: float = 0.0
    high: float = 0.0


def frame_count(samples: int, window: int, hop: int) -> int:
    """How many frames of `window` samples, `hop` apart, it takes to cover `samples`; at least 1."""
    return 1 + -(-max(0, samples - window) // hop)


def mel_filters(
    rate: int, window: int, bands: int, low: float = 0.0, high: float = 0.0
) -> Float[np.ndarray, "{bands} {window}//2+1"]:
    """Triangles on Slaney's mel scale, each of area 1 over Hz: [bands,window//2+1] float32.

    Slaney 1998, Auditory Toolbox, as librosa's `filters.mel` has it by default; HTK's scale has no
    linear part, and its triangles a height of 1.

    Args:
      rate: samples a second.
      window: samples a frame.
      bands: how many triangles.
      low: where the first one begins [Hz].
      high: where the last one ends [Hz]; 0: half the rate.

    Raises:
      ValueError: a range that is empty or goes past half the rate, or bands so narrow that one of
        them holds no frequency of the transform.
    """
    high = high or rate / 2
    if not 0 <= low < high <= rate / 2:
        raise ValueError(
            f"the bands reach from {low} to {high} Hz: data.audio.low and high must rise within"
            f" 0..{rate / 2}, half the rate"
        )
    edges = _from_mel(np.linspace(_to_mel(low), _to_mel(high), bands + 2))
    narrow = (
        f"{bands} bands from {low} to {high} Hz are too narrow for windows of {window} samples:"
        " lengthen data.audio.window, or lower data.size"
    )
    if np.diff(edges).min() < 1e-9 * rate:  # the slopes below would be endless
        raise ValueError(narrow)
    frequencies = np.arange(window // 2 + 1) * rate / window
    # Two slopes for each triangle, of which the lower one counts.
    rise = (frequencies - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - frequencies) / np.diff(edges)[1:, None]
    filters = np.maximum(0, np.minimum(rise, fall)) * 2 / (edges[2:] - edges[:-2])[:, None]
    if not filters.any(axis=1).all():
        raise ValueError(narrow)
    return filters.astype(np.float32)


def _to_mel(frequency):
    above = np.log(np.maximum(frequency, _BREAK) / _BREAK) / _LOG_STEP
    return np.minimum(frequency, _BREAK) / _LINEAR + above


def _from_mel(mel):
    linear = _BREAK / _LINEAR
    return _LINEAR * np.minimum(mel, linear) * np.exp(_LOG_STEP * np.maximum(mel - linear, 0))


def mel_power(wave: Float[AnyArray, " n"], mel: Mel) -> Float[jax.Array, "{mel.bands} frames"]:
    """Power in mel bands, frame by frame: [bands,frames] float32, the lowest band first.

    librosa's `feature.melspectrogram` with center=False and its other defaults (a periodic Hann
    window, the squared magnitude of its Fourier transform, `mel_filters`), but for the end: zeros
    follow the last sample until the last frame is full, so that nothing is dropped, and a
    recording shorter than a frame has one.

    Args:
      wave: [n], n at least 1, in -1..1.
      mel: its rate, frames and bands.
    """
    window, hop = mel.window, mel.hop
    filters = mel_filters(mel.rate, window, mel.bands, mel.low, mel.high)
    frames = frame_count(len(wave), window, hop)
    missing = window + (frames - 1) * hop - len(wave)
    wave = jnp.pad(jnp.asarray(wave, jnp.float32), (0, max(0, missing)))
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    places = np.arange(frames)[:, None] * hop + np.arange(window)
    spectrum = jnp.fft.rfft(wave[places] * hann.astype(np.float32))
    power = spectrum.real**2 + spectrum.imag**2
    return jnp.matmul(filters, power.T, precision="highest")


def decibels(power: Float[AnyArray, "*S"], *, span: float = 80.0) -> Float[jax.Array, "*S"]:
    """Decibels below the loudest cell, cut at -span: [...] float32 in -span..0.

    librosa's `power_to_db` with ref=max and top_db=span, but without its least power: how loud a
    recording is does not count at all, and silence is -span everywhere, where librosa has 0.

    Args:
      power: of one recording, not negative.
      span: above 0.
    """
    # Silence is divided by 1, and stays 0.
    loudest = jnp.max(power)
    share = power / jnp.where(loudest > 0, loudest, 1)
    return 10 * jnp.log10(jnp.maximum(share, 10 ** (-span / 10)))


def to_bytes(
    levels: Float[AnyArray, "bands frames"], *, span: float = 80.0
) -> UInt8[jax.Array, "bands frames 1"]:
    """Decibels [bands,frames] in -span..0 as uint8 [bands,frames,1], 0 = -span, 255 = 0.

    The highest band comes first, so that the picture is the one that is printed everywhere. A step
    is span / 255 dB, 0.31 for 80.
    """
    return jnp.rint(255 * (levels[::-1] / span + 1)).astype(jnp.uint8)[..., None]


def mask_bands_and_frames(
    images: Float[AnyArray, "B H W C"],
    seeds: UInt32[AnyArray, " B"],
    valid: Bool[AnyArray, "B W"],
    *,
    masks: int,
    bands: float,
    frames: float,
) -> Float[jax.Array, "B H W C"]:
    """SpecAugment's frequency and time masks (Park et al. 2019, arXiv 1904.08779, section 2).

    `masks` runs of bands and `masks` runs of frames become 0, the mean of the normalized data. A
    run's length is uniform from 0 to its most, its place uniform among those where it fits (the
    paper leaves the last one out); they may overlap. Runs of frames lie within the recording, and
    its length bounds theirs, the paper's p; so padding takes no part. There is no time warping,
    which the paper finds to matter least. An example's draws come from its own seed alone.

    Args:
      images: float32 [B,H,W,C], normalized.
      seeds: uint32 [B].
      valid: bool [B,W], the frames that are the recording's and not padding; one run each.
      masks: of bands, and of frames; 0 = off.
      bands: the longest run of bands as a share of H.
      frames: the longest run of frames as a share of the valid ones.

    Returns:
      float32 [B,H,W,C].
    """
    height = images.shape[1]

    def one(image: jax.Array, seed: jax.Array, valid: jax.Array) -> jax.Array:
        rows_key, cols_key = jax.random.split(jax.random.key(seed))
        count = valid.sum()
        # A share of the recording and not of the picture, which silence pads.
        most = jnp.floor(frames * count.astype(jnp.float32)).astype(jnp.int32)
        rows = _runs(rows_key, jnp.arange(height), height, int(bands * height), masks)
        cols = _runs(cols_key, jnp.arange(len(valid)) - jnp.argmax(valid), count, most, masks)
        return jnp.where((rows[:, None] | cols)[..., None], 0, image)

    return jax.vmap(one)(images, seeds, valid)


def _runs(key, places, size, most, number):
    """Which of `places` are in one of `number` runs of up to `most` places within 0..size."""
    length_key, start_key = jax.random.split(key)
    length = jax.random.randint(length_key, (number,), 0, most + 1)
    start = jax.random.randint(start_key, (number,), 0, size - length + 1)
    place = places[:, None]
    return ((place >= start) & (place < start + length)).any(axis=1)
