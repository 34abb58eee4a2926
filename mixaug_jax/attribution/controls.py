"""Maps that know nothing of the network: what every method has to beat."""

import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax.attribution.gradients import as_key
from mixaug_jax.core import checks
from mixaug_jax.core.types import Attribution, Image, Label, Net, Seed


def random(net: Net, image: Image, label: Label, *, key: Seed = 0) -> Attribution:
    """Values -1 to 1 in equal steps, in random places, [h,w,1] (as the control of Schulz et al. 2020, arXiv 2001.00396).

    No two pixels are equal, so a ranking has no ties.

    Args:
      net, image, label: as for any method; only the image's size matters.
      key: a random key or a seed.
    """
    height, width, _ = checks.image(image).shape
    ranks = jax.random.permutation(as_key(key), height * width).astype(jnp.float32)
    return (2 * ranks / max(height * width - 1, 1) - 1).reshape(height, width, 1)


def center(net: Net, image: Image, label: Label) -> Attribution:
    """1 in the center, falling with the distance from it to 0 in the corners, [h,w,1].

    The center bias that photographs have (Zhang et al. 2016, arXiv 1608.00507).

    Args:
      net, image, label: as for any method; only the image's size matters.
    """
    height, width, _ = checks.image(image).shape
    row = np.arange(height) - (height - 1) / 2
    col = np.arange(width) - (width - 1) / 2
    # An image of a single pixel has no corner to fall off to.
    distance = np.hypot(row[:, None], col)
    return jnp.asarray(1 - distance / (distance.max() or 1), jnp.float32)[..., None]


def sobel(net: Net, image: Image, label: Label) -> Attribution:
    """The strength of edges: the length of the Sobel gradient of the mean over channels, [h,w,1].

    The edge detector that Adebayo et al. 2018, arXiv 1810.03292, compare explanations with. Border pixels are repeated.

    Args:
      net, image, label: as for any method; only the image matters.
    """
    gray = jnp.pad(checks.image(image).mean(-1), 1, mode="edge")
    rise = gray[2:] - gray[:-2]
    run = gray[:, 2:] - gray[:, :-2]
    down = rise[:, :-2] + 2 * rise[:, 1:-1] + rise[:, 2:]
    across = run[:-2] + 2 * run[1:-1] + run[2:]
    return jnp.hypot(down, across)[..., None]
