"""What a generator makes, looked at: pictures after each link beside real ones, and numbers that should be alike."""

import functools
import io
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from mixaug_jax.core import files
from mixaug_jax.core.types import Count, Dataset, Path
from mixaug_jax.core.walk import spread
from mixaug_jax.papers.rendergan import adversary, chain, few

_MARKERS, _SCALE = 16, 3  # in a row, and how much larger a pixel is drawn
_BATCH = 100


@functools.lru_cache(maxsize=4)
def _program(generator):
    def made(params: Any, keys: Any):
        labels, tags, pictures, _ = adversary.generate(generator, params, keys)
        return labels, tags.tag, pictures

    return jax.jit(made)


def made_by(generator: Any, params: Any, seed: Count, count: Count) -> tuple:
    """Labels, tags and pictures after each link, of a generator on one device, as numpy arrays of `count` markers."""
    program, params = _program(generator), jax.device_get(params)
    # Whole batches, cut afterwards: norms use a batch's own statistics, and a short one would have others.
    starts = range(0, count, _BATCH)
    keys = jax.random.split(jax.random.key(seed), len(starts) * _BATCH)
    parts = [jax.device_get(program(params, keys[i : i + _BATCH])) for i in starts]
    return jax.tree.map(lambda *values: np.concatenate(values)[:count], *parts)


def draw_links(generator: Any, params: Any, source: Dataset, path: Path, seed: Count) -> None:
    """Writes a PNG: a row of 16 real pictures, then of 16 markers as rendered and after each link.

    Where there are fewer real pictures, the rest of their row is white.

    Args:
      generator: the module, of one device.
      params: its parameters.
      source: real pictures.
      path: of the file.
      seed: of the markers.
    """
    _, tags, pictures = made_by(generator, params, seed, _MARKERS)
    real = real_ones(source, _MARKERS)
    real = np.pad(real, ((0, _MARKERS - len(real)), (0, 0), (0, 0)), constant_values=1)
    rows = [real, tags, *(pictures[name] for name in chain.CHAIN)]
    sheet = np.concatenate([np.concatenate(list(row), 1) for row in rows])
    gray = np.asarray(chain.as_bytes(sheet[None]))[0, ..., 0]
    stored = io.BytesIO()
    picture = PIL.Image.fromarray(gray)
    picture.resize((gray.shape[1] * _SCALE, gray.shape[0] * _SCALE), 0).save(stored, "PNG")
    files.write_bytes(path, stored.getvalue())


def real_ones(source: Dataset, count: Count) -> np.ndarray:
    """Real pictures [n,S,S] in -1..1, spread over a data set, `count` where it has so many."""
    indices = spread(len(source), count)
    return np.stack(
        [np.asarray(chain.as_numbers(source[int(i)]["image"][None]))[0] for i in indices]
    )


def energies(x: Any) -> np.ndarray:
    """Energy of each picture [B,S,S] in three octaves of a Laplacian pyramid, finest first: [B,3]."""
    x, found = jnp.asarray(x), []
    for _ in range(3):
        coarse = chain.smooth(x, 2.0 * 32 / x.shape[-1])
        found.append(jnp.square(x - coarse).mean((1, 2)))
        x = coarse[:, ::2, ::2]
    return np.asarray(jnp.stack(found, 1))


def statistics(real: Any, made: Any) -> list[tuple]:
    """Rows (what, of real pictures, of made ones): mean and deviation of brightness and of the energies; both [B,S,S]."""
    rows = []
    both = [(x.mean((1, 2)), energies(x)) for x in (real, made)]
    values = {"brightness": [level for level, _ in both]}
    for k in range(3):
        values[f"energy of octave {k + 1}"] = [energy[:, k] for _, energy in both]
    for name, (of_real, of_made) in values.items():
        rows.append((f"{name}, mean", float(of_real.mean()), float(of_made.mean())))
        rows.append((f"{name}, deviation", float(of_real.std()), float(of_made.std())))
    return rows


def spreads(labels: Any) -> list[tuple]:
    """Rows (what, "", deviation over the pictures): how markers lie; 0 where the generator has collapsed."""
    return [(f"{name}, deviation", "", float(np.std(getattr(labels, name)))) for name in few.POSE]


def changes(tags: Any, pictures: Mapping) -> list[tuple]:
    """Rows (what, "", deviation over the pictures of how much a link changes them); 0 where it does the same to all."""
    rows, before = [], tags
    for name in chain.CHAIN:
        moved = np.abs(pictures[name] - before).mean((1, 2))
        rows.append((f"change by {name}, deviation", "", float(moved.std())))
        before = pictures[name]
    return rows
