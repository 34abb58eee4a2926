"""What happens to an example before the network sees it.

Geometry works on the host, on uint8 pixels, in numpy and Pillow; boxes and maps of concepts and parts follow.
Photometrics work on the device, on float32, in JAX: what crosses to the device stays uint8.

    example = random_resized_crop(rng, example, 224, scale=(0.08, 1.0))
    images = device_transform(images, seeds, jitter=0.4, lighting=0.1, mean=mean, std=std)
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Config, Float, Preprocess, Seed, UInt8, UInt32

CROPS = ("resized", "pad", "shift", "time", "none")
_MAPS = ("concepts", "parts")  # of an example: what is known of its pixels

# The principal components of ImageNet's RGB pixels (0..1): Krizhevsky et al. 2012, section 4.1; the
# numbers are those of Facebook's fb.resnet.torch, which CutMix's code has taken over.
LIGHTING_VALUES = (0.2175, 0.0188, 0.0045)
LIGHTING_VECTORS = (  # a row is a color channel, a column a component
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)
GRAY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma


def train_geometry(config: Config) -> Callable[[np.random.Generator, dict], dict]:
    """`f(rng, example) -> example`, the random geometry that config.data asks for.

    data.crop: "resized" (a random resized crop of area share data.crop_scale), "pad" (the
    evaluation's crop, data.pad black pixels around it, a random crop of these), "shift" (as "pad",
    but with the pixels of the edge repeated in place of black ones), "time" (data.pad silent frames
    before and after a spectrogram, a random crop of these) or "none" (the evaluation's crop); then,
    with data.flip, a mirror image half of the time.

    Raises:
      ValueError: an unknown data.crop.
    """
    data = config.data
    checks.choice("data.crop", data.crop, CROPS)
    size, resize, pad, mirrored = data.size, data.resize, data.pad, data.flip
    scale = tuple(data.crop_scale)

    # The order of the draws belongs to the data's order: a run that is resumed continues it.
    def geometry(rng: np.random.Generator, example: dict) -> dict:
        if data.crop == "resized":
            example = random_resized_crop(rng, example, size, scale=scale)
        elif data.crop == "time":
            example = time_crop(rng, example, size, pad)
        else:
            example = evaluation(example, size, resize)
        if data.crop in ("pad", "shift"):
            example = pad_crop(rng, example, pad, edge=data.crop == "shift")
        return flip(example) if mirrored and rng.random() < 0.5 else example

    return geometry


def evaluation(example: dict, size: int, resize: float = 1.0) -> dict:
    """The short side resized to round(size * resize), then the central size x size pixels.

    torchvision's Resize and CenterCrop, as the ImageNet evaluation of every paper here (there
    resize = 256 / 224). Images of any size, smaller ones are enlarged; resize must be at least 1.
    Boxes, concepts and parts, where the example has them, follow.
    """
    height, width = example["image"].shape[:2]
    short = round(size * resize)
    if short < size:
        raise ValueError(f"data.resize must be at least 1, the size of a crop; got {resize}")
    # The long side is cut down, not rounded, as torchvision has it.
    if height <= width:
        rows, cols = short, short * width // height
    else:
        rows, cols = short * height // width, short
    example = _resize(example, rows, cols)
    return _crop(example, round((rows - size) / 2), round((cols - size) / 2), size, size)


def random_resized_crop(
    rng: np.random.Generator,
    example: dict,
    size: int,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> dict:
    """A random part of the image, resized to [size,size].

    The part's share of the area is uniform in `scale`, its width over height log-uniform in `ratio`
    (Szegedy et al. 2015, section 6, in torchvision's form: ten tries for a part that fits, then the
    largest central part of an allowed ratio).
    """
    height, width = example["image"].shape[:2]
    box = _random_part(rng, height, width, scale, ratio)
    return _resize(_crop(example, *box), size, size)


def _random_part(rng, height, width, scale, ratio):
    """(row, col, height, width) of torchvision's RandomResizedCrop."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        rows, cols = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < rows <= height and 0 < cols <= width:
            row, col = rng.integers(height - rows + 1), rng.integers(width - cols + 1)
            return int(row), int(col), rows, cols
    rows, cols = height, width
    if width / height < ratio[0]:
        rows = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        cols = max(1, round(height * ratio[1]))
    return (height - rows) // 2, (width - cols) // 2, rows, cols


def pad_crop(rng: np.random.Generator, example: dict, pad: int, *, edge: bool = False) -> dict:
    """`pad` black pixels on every side, or with `edge` the nearest ones again, then a random crop of the old size.

    The CIFAR recipe (He et al. 2016, section 4.2), with torchvision's black border, which is black
    before and not after the normalization. Where concepts and parts have no pixels they are 0 (none);
    with `edge` they are repeated as the pixels are.
    """
    height, width = example["image"].shape[:2]
    # Without a shift there is nothing to pad: the image is returned as it is.
    row, col = (int(offset) for offset in rng.integers(2 * pad + 1, size=2))
    if row == col == pad:
        return example
    padded = dict(example)
    for name in ("image", *_maps(example)):
        padded[name] = _pad(example[name], pad, edge)
    if "boxes" in example:
        padded["boxes"] = example["boxes"] + np.float32(pad)
    return _crop(padded, row, col, height, width)


def time_crop(rng: np.random.Generator, example: dict, size: int, pad: int) -> dict:
    """`size` successive frames (columns) from a random place, `pad` silent ones on both sides added.

    Args:
      rng: what the place is drawn from.
      example: with image uint8 [H,W,C], W at least size, and valid bool [W].
      size: frames of the result.
      pad: the most silent frames it may begin or end with that the example has not.
    """
    height, width, channels = example["image"].shape
    # 0 is silence: what lies `span` below the loudest cell.
    image = np.zeros((height, width + 2 * pad, channels), np.uint8)
    image[:, pad : pad + width] = example["image"]
    valid = np.pad(example["valid"], pad)
    col = int(rng.integers(width + 2 * pad - size + 1))
    return _crop(dict(example, image=image, valid=valid), 0, col, height, size)


def _pad(image, pad, edge):
    """Zeros around, or the nearest pixel; numpy's own pad takes six times as long on a small image."""
    height, width = image.shape[:2]
    if edge:
        rows, cols = (np.clip(np.arange(-pad, n + pad), 0, n - 1) for n in (height, width))
        return image[rows[:, None], cols]
    padded = np.zeros((height + 2 * pad, width + 2 * pad, *image.shape[2:]), image.dtype)
    padded[pad : pad + height, pad : pad + width] = image
    return padded


def _maps(example):
    return [name for name in _MAPS if name in example]


def flip(example: dict) -> dict:
    """The mirror image, left and right exchanged."""
    flipped = dict(example, image=np.ascontiguousarray(example["image"][:, ::-1]))
    flipped |= {name: np.ascontiguousarray(example[name][:, ::-1]) for name in _maps(example)}
    if "boxes" in example:
        row0, col0, row1, col1 = example["boxes"].T
        width = np.float32(example["image"].shape[1])
        flipped["boxes"] = np.stack([row0, width - col1, row1, width - col0], axis=-1)
    return flipped


def _crop(example, row, col, rows, cols):
    """The pixels [row,row+rows) x [col,col+cols); boxes clipped, vanished ones left out."""
    height, width = example["image"].shape[:2]
    if (row, col, rows, cols) == (0, 0, height, width):
        return example
    # Contiguous, because a view would keep the whole image in memory as long as the crop.
    window = np.s_[row : row + rows, col : col + cols]
    cropped = dict(example, image=np.ascontiguousarray(example["image"][window]))
    cropped |= {name: np.ascontiguousarray(example[name][window]) for name in _maps(example)}
    if "valid" in example:  # of the frames of a recording, which are the columns
        cropped["valid"] = example["valid"][col : col + cols]
    if "boxes" in example:
        boxes = example["boxes"] - np.array([row, col, row, col], np.float32)
        boxes = np.clip(boxes, 0, np.array([rows, cols, rows, cols], np.float32))
        left = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        cropped["boxes"] = boxes[left]
        cropped["box_labels"] = example["box_labels"][left]
    return cropped


def _resize(example, rows, cols):
    """The image by Pillow's antialiased bilinear filter, concepts and parts by the nearest pixel's center."""
    height, width = example["image"].shape[:2]
    if (height, width) == (rows, cols):
        return example
    resized = dict(example, image=_resize_image(example["image"], rows, cols))
    nearest_row, nearest_col = nearest(height, rows)[:, None], nearest(width, cols)
    resized |= {name: example[name][nearest_row, nearest_col] for name in _maps(example)}
    if "boxes" in example:
        factor = [rows / height, cols / width] * 2
        resized["boxes"] = (example["boxes"] * factor).astype(np.float32)
    return resized


def nearest(old: int, new: int) -> np.ndarray:
    """int [new]: for each of `new` pixels along a side the one of `old` pixels that holds its center."""
    return (2 * np.arange(new) + 1) * old // (2 * new)


def _resize_image(image, rows, cols):
    channels = image.shape[-1]
    picture = PIL.Image.fromarray(image[..., 0] if channels == 1 else image)
    picture = picture.resize((cols, rows), PIL.Image.Resampling.BILINEAR)
    return np.array(picture).reshape(rows, cols, channels)


def device_transform(
    images: UInt8[AnyArray, "B h w C"],
    seeds: UInt32[AnyArray, " B"],
    *,
    jitter: float,
    lighting: float,
    mean: Sequence[float],
    std: Sequence[float],
) -> Float[jax.Array, "B h w C"]:
    """Bytes to normalized float32, by way of the random photometrics; pure, for use under jit.

    The CutMix ImageNet recipe: color jitter, PCA lighting, normalize (clovaai/CutMix-PyTorch). An
    example's draws come from its own seed alone, so they do not depend on how many devices or
    processes share the batch.

    Args:
      images: uint8 [B,h,w,C]; C = 3 where jitter or lighting is on.
      seeds: uint32 [B].
      jitter: strength of the color jitter, 0.4 in the recipe; 0 = off, as in evaluation.
      lighting: strength of the lighting, 0.1 in the recipe; 0 = off, as in evaluation.
      mean: per channel, in units of image / 255.
      std: likewise.

    Returns:
      float32 [B,h,w,C], (image / 255 - mean) / std.
    """

    def one(image: jax.Array, seed: jax.Array) -> jax.Array:
        key_jitter, key_lighting = jax.random.split(jax.random.key(seed))
        if jitter:
            image = color_jitter(key_jitter, image, strength=jitter)
        if lighting:
            image = pca_lighting(key_lighting, image, strength=lighting)
        return image

    images = images.astype(jnp.float32) / 255
    if jitter or lighting:
        images = jax.vmap(one)(images, seeds)
    return (images - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


def color_jitter(
    key: Seed, image: Float[AnyArray, "h w 3"], *, strength: float = 0.4
) -> Float[jax.Array, "h w 3"]:
    """Brightness, contrast and saturation, each `image + a (reference - image)`.

    a ~ U(-strength, strength), drawn for each; the reference is black, the image's mean gray, or
    each pixel's own gray (.299, .587, .114). From fb.resnet.torch, as in clovaai/CutMix-PyTorch,
    which applies the three in random order and clips nothing. Unclipped, the three are linear maps
    that commute: brightness is a factor, saturation keeps every pixel's gray and so the mean that
    contrast pulls to, contrast moves a pixel and its gray alike. So the order has no effect but on
    rounding, and is not drawn.

    Args:
      key: PRNG key of this image.
      image: float32 [h,w,3], RGB in 0..1.
      strength: half the width of a's range.

    Returns:
      float32 [h,w,3], possibly outside 0..1.
    """
    # Linear maps that commute, so one order stands for all six.
    brightness, contrast, saturation = jax.random.uniform(
        key, (3,), minval=-strength, maxval=strength
    )
    image = image * (1 - brightness)
    gray = jnp.sum(image * jnp.asarray(GRAY, image.dtype), axis=-1, keepdims=True)
    image = image + saturation * (gray - image)
    return image + contrast * (jnp.mean(gray) - image)


def pca_lighting(
    key: Seed, image: Float[AnyArray, "h w 3"], *, strength: float = 0.1
) -> Float[jax.Array, "h w 3"]:
    """One color shift along the principal components of natural images' RGB values.

    Adds sum_j v_cj e_j a_j to channel c, a ~ N(0, strength^2) for each component, with ImageNet's
    eigenvectors v and values e (Krizhevsky et al. 2012, section 4.1).

    Args:
      key: PRNG key of this image.
      image: float32 [h,w,3], RGB in 0..1.
      strength: standard deviation of a.

    Returns:
      float32 [h,w,3], possibly outside 0..1.
    """
    alpha = strength * jax.random.normal(key, (3,))
    shift = jnp.asarray(LIGHTING_VECTORS) * jnp.asarray(LIGHTING_VALUES) * alpha
    return image + shift.sum(axis=-1)


def seen_part(example: dict, preprocess: Preprocess) -> dict:
    """The example as far as a network sees it: resized and cut as by `preprocess`, boxes,
    concepts and parts too, pixels still uint8.

    preprocess: `models.Preprocess`; another callable is taken to show the network the whole image.
    """
    # A callable without a size says nothing of what it cuts.
    side = getattr(preprocess, "size", 0)
    if not side:
        return example
    short = preprocess.resize or min(example["image"].shape[:2])
    return evaluation(example, side, short / side)
