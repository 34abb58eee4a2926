"""The basic color name of every pixel.

The eleven basic color terms are those of Berlin and Kay, Basic Color Terms, 1969. A pixel gets the
name whose focus lies nearest in CIELAB (D65, Euclidean distance). This is not Broden's own color
annotation, which reads van de Weijer's learned table (van de Weijer, Schmid, Verbeek, Larlus:
"Learning color names for real-world applications", IEEE TIP 2009); who has that table, or another,
can give it as a file to `open_table`.

The foci are this package's own choice: an everyday shade of each name, not the screen's primaries.
Pure (0, 0, 255), for one, lies so far out that most blue surfaces would be called purple or gray.
Chosen so, 91 to 97 % of each color's pixels in the scenes get the name that they were painted in
(95 % of all). One focus a name has its limits: pale tints, such as a hazy sky's blue, become white
or gray.
"""

import pathlib

import numpy as np

from mixaug_jax.core.types import Float, Path, Photo, UInt8

# name -> sRGB in 0..255
FOCI = {
    "black": (20, 20, 20),
    "blue": (35, 75, 200),
    "brown": (105, 60, 25),
    "gray": (128, 128, 128),
    "green": (35, 135, 45),
    "orange": (240, 130, 20),
    "pink": (250, 160, 190),
    "purple": (120, 45, 165),
    "red": (205, 25, 30),
    "white": (235, 235, 235),
    "yellow": (245, 225, 50),
}
CONCEPTS = (("none", "none"), *((name, "color") for name in FOCI))
BINS = 32  # of each channel in a table, value // 8

_XYZ = np.array(  # from linear sRGB, IEC 61966-2-1
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def lab(rgb: UInt8[np.ndarray, "*S 3"]) -> Float[np.ndarray, "*S 3"]:
    """CIELAB (CIE 1976, D65 white) [...,3] float32 of sRGB uint8 [...,3]."""
    share = np.arange(256) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = linear.astype(np.float32)[rgb] @ (_XYZ / _XYZ.sum(1, keepdims=True)).T.astype(np.float32)
    d = 6 / 29
    f = np.where(xyz > d**3, np.cbrt(xyz), xyz / (3 * d**2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def nearest_names(image: Photo) -> UInt8[np.ndarray, "H W"]:
    """Numbers in `CONCEPTS`, 1..11, of the nearest focus of each pixel: uint8 [H,W,3] -> [H,W].

    Equal distances go to the first name.
    """
    foci = lab(np.array(list(FOCI.values()), np.uint8))
    # |p - f|^2 without |p|^2, which all foci share.
    distance = (foci**2).sum(1) - 2 * (lab(image) @ foci.T)
    return (1 + distance.argmin(-1)).astype(np.uint8)


def open_table(path: Path) -> UInt8[np.ndarray, "32 32 32"]:
    """A table of color names from a file: uint8 [32,32,32], numbers 1..11 in `CONCEPTS`, by
    (red // 8, green // 8, blue // 8).

    The file is .npy, .npz (its one array) or .csv, with either the number of the name for each bin,
    32768 integers 1..11 with blue running fastest ([32,32,32] or flat), or eleven scores a bin,
    of which the largest wins ([32768,11]). Numbers and columns follow the alphabet: black, blue,
    brown, gray, green, orange, pink, purple, red, white, yellow.

    Raises:
      ValueError: no such file, or another content.
    """
    path = pathlib.Path(path).expanduser()
    kinds = {".npy": _numpy_array, ".npz": _numpy_array, ".csv": _csv_array}
    if path.suffix not in kinds or not path.is_file():
        raise ValueError(f"the color table {path} must be a .npy, .npz or .csv file that exists")
    try:
        table = kinds[path.suffix](path)
    except (OSError, ValueError) as error:
        raise ValueError(f"the color table {path} cannot be read: {error}") from error
    # Published tables have the probability of each of the eleven terms.
    if table.shape == (BINS**3, len(FOCI)):
        table = 1 + table.argmax(1)
    inside = table.size == BINS**3 and table.min() >= 1 and table.max() <= len(FOCI)
    if not inside or (table != np.floor(table)).any():
        raise ValueError(
            f"the color table {path} must hold {BINS**3} numbers 1..11 or {BINS**3} rows of {len(FOCI)} scores; got "
            f"{list(table.shape)}"
        )
    return table.reshape(BINS, BINS, BINS).astype(np.uint8)


def _numpy_array(path):
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded as file:
        if len(file.files) != 1:
            raise ValueError(f"it holds {len(file.files)} arrays, not one")
        return file[file.files[0]]


def _csv_array(path):
    table = np.loadtxt(path, delimiter=",", ndmin=2, encoding="utf-8-sig")
    return table.reshape(-1) if 1 in table.shape else table


def table_names(image: Photo, table: UInt8[np.ndarray, "32 32 32"]) -> UInt8[np.ndarray, "H W"]:
    """Numbers in `CONCEPTS` of each pixel, uint8 [H,W,3] -> [H,W], by a table of `open_table`."""
    red, green, blue = np.moveaxis(image // (256 // BINS), -1, 0)
    return table[red, green, blue]
