"""Augmentations that are learned from unlabeled pictures (RenderGAN, Sixt, Wild and Landgraf 2018), and what they teach."""

from mixaug_jax.papers.rendergan.decoding import STAGE as DECODE
from mixaug_jax.papers.rendergan.learning import STAGE as GAN
from mixaug_jax.papers.rendergan.marker_options import KEYS

__all__ = ["DECODE", "GAN", "KEYS"]
