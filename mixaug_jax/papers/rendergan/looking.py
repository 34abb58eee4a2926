"""What a generator makes, looked at: pictures after each link beside real ones, and numbers that should be alike."""

import functools
import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from mixaug_jax.core import files, say
from mixaug_jax.core.types import Config, Dataset, Path
from mixaug_jax.core.walk import spread
from mixaug_jax.papers.rendergan import adversary, chain, few

_MARKERS, _SCALE = 16, 3  # in a row, and how much larger a pixel is drawn
_COUNT = 500  # pictures that statistics are of
_BATCH = 100
_HEADER = ("what", "real", "made")


@functools.lru_cache(maxsize=4)
def _program(size, spin):
    generator = few.Few(size, spin)

    def made(params: Any, keys: Any):
        labels, tags, pictures, _ = adversary.generate(generator, params, keys)
        return labels, tags.tag, pictures

    return jax.jit(made)


def _made(config, params, seed, count):
    """Labels, tags and pictures after each link, of the averaged generator on one device."""
    program = _program(config.data.size, float(config.data.markers.spin))
    keys = jax.random.split(jax.random.key(seed), count)
    parts = [
        jax.device_get(program(jax.device_get(params), keys[i : i + _BATCH]))
        for i in range(0, count, _BATCH)
    ]
    return jax.tree.map(lambda *values: np.concatenate(values), *parts)


def draw_links(config: Config, params: Any, source: Dataset, path: Path) -> None:
    """Writes a PNG: a row of 16 real pictures, then of 16 markers as rendered and after each link.

    Args:
      config: of the run.
      params: of the generator.
      source: real pictures.
      path: of the file.
    """
    _, tags, pictures = _made(config, params, config.seed, _MARKERS)
    rows = [_real(source, _MARKERS), tags, *(pictures[name] for name in few.LINKS)]
    sheet = np.concatenate([np.concatenate(list(row), 1) for row in rows])
    gray = np.asarray(chain.as_bytes(sheet[None]))[0, ..., 0]
    stored = io.BytesIO()
    picture = PIL.Image.fromarray(gray)
    picture.resize((gray.shape[1] * _SCALE, gray.shape[0] * _SCALE), 0).save(stored, "PNG")
    files.write_bytes(path, stored.getvalue())


def _real(source, count):
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


def write(config: Config, params: Any, source: Dataset, folder: Any) -> None:
    """Writes statistics.csv and says it; arguments as of `draw_links`."""
    count = min(_COUNT, len(source))
    labels, _, pictures = _made(config, params, config.seed + 1, count)
    rows = statistics(_real(source, count), np.clip(adversary.last(pictures), -1, 1))
    rows += spreads(labels)
    files.write_csv(folder / "statistics.csv", _HEADER, rows)
    for name, *values in rows:
        say.detail(f"{name}: {', '.join(f'{v:.3f}' for v in values if v != '')}")
