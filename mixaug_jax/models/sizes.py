"""What the entries of MODELS check and compute of their arguments."""

from mixaug_jax.core import checks


def check_stem(stem: str) -> None:
    """ValueError for another stem than "imagenet" and "cifar"."""
    checks.choice("model.stem", stem, ("imagenet", "cifar"))


def filters(width: float, base: int) -> int:
    """`base` filters times `width`, at least one; ValueError for a width that is not positive."""
    if width <= 0:
        raise ValueError(
            f"model.width must be a positive factor, 1.0 for the published network; got {width}"
        )
    return max(1, round(base * width))


def rounded(number: float) -> int:
    """Filters as a multiple of 8, by no more than a tenth downwards, as in the code of MobileNet and EfficientNet."""
    nearest = max(8, int(number + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * number else nearest + 8
