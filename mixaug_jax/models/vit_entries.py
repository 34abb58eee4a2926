"""The entries of MODELS that are vision transformers."""

from mixaug_jax.models.sizes import check_stem, filters
from mixaug_jax.models.vit import VisionTransformer


def vit_of_size(
    num_classes: int,
    *,
    width: float = 1.0,
    stem: str = "imagenet",
    dim: int = 256,
    depth: int = 8,
    heads: int = 4,
    patch: int = 16,
    grid: int = 0,
    distilled: bool = False,
) -> VisionTransformer:
    """A vision transformer of any size, tokens of `dim` * width numbers; its one stem, patches, serves for both."""
    check_stem(stem)
    wide = heads * filters(width, dim // heads)
    return VisionTransformer(num_classes, wide, depth, heads, patch, grid, distilled)


def _vit(num_classes, width, stem, grid, dim) -> VisionTransformer:
    check_stem(stem)
    heads = dim // 64
    return VisionTransformer(num_classes, heads * filters(width, 64), 12, heads, 16, grid)


def vit_tiny(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", grid: int = 0
) -> VisionTransformer:
    """ViT-Ti/16: 12 blocks, tokens of 192 * width numbers, patches of 16 pixels; positions as `grid` of VisionTransformer."""
    return _vit(num_classes, width, stem, grid, 192)


def vit_small(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", grid: int = 0
) -> VisionTransformer:
    """ViT-S/16: as `vit_tiny`, tokens of 384 * width numbers."""
    return _vit(num_classes, width, stem, grid, 384)


def vit_base(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", grid: int = 0
) -> VisionTransformer:
    """ViT-B/16, torchvision's vit_b_16: as `vit_tiny`, tokens of 768 * width numbers."""
    return _vit(num_classes, width, stem, grid, 768)


def vit_micro(
    num_classes: int, *, width: float = 1.0, stem: str = "imagenet", grid: int = 0
) -> VisionTransformer:
    """A small one for 64 px: 6 blocks, tokens of 96 * width numbers, 3 heads, patches of 8 pixels."""
    check_stem(stem)
    return VisionTransformer(num_classes, 3 * filters(width, 32), 6, 3, 8, grid)


def _deit(num_classes, width, stem, grid, distilled, dim) -> VisionTransformer:
    # As DeiT was trained.
    made = _vit(num_classes, width, stem, grid, dim)
    return made.clone(distilled=distilled, drop_path_rate=0.1)


def deit_tiny(
    num_classes: int,
    *,
    width: float = 1.0,
    stem: str = "imagenet",
    grid: int = 0,
    distilled: bool = False,
) -> VisionTransformer:
    """DeiT-Ti: `vit_tiny` with stochastic depth, and where `distilled` a second token and head."""
    return _deit(num_classes, width, stem, grid, distilled, 192)


def deit_small(
    num_classes: int,
    *,
    width: float = 1.0,
    stem: str = "imagenet",
    grid: int = 0,
    distilled: bool = False,
) -> VisionTransformer:
    """DeiT-S: `vit_small`, as `deit_tiny`."""
    return _deit(num_classes, width, stem, grid, distilled, 384)


def deit_base(
    num_classes: int,
    *,
    width: float = 1.0,
    stem: str = "imagenet",
    grid: int = 0,
    distilled: bool = False,
) -> VisionTransformer:
    """DeiT-B: `vit_base`, as `deit_tiny`."""
    return _deit(num_classes, width, stem, grid, distilled, 768)


ENTRIES = {
    "vit_tiny": vit_tiny,
    "vit_small": vit_small,
    "vit_base": vit_base,
    "vit_micro": vit_micro,
    "deit_tiny": deit_tiny,
    "deit_small": deit_small,
    "deit_base": deit_base,
    "vit_of_size": vit_of_size,
}
