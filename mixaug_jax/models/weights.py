"""Bring your own weights: released PyTorch checkpoints as networks of this package, and back.

    net = models.import_weights("resnet50_cutmix.pth.tar")
    models.export_weights(net, "net.safetensors")
"""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp

from mixaug_jax.config import CIFAR_MEAN, CIFAR_STD
from mixaug_jax.models import efficientnet_lite, mapping, models, weight_files
from mixaug_jax.models.mapping import Architecture
from mixaug_jax.models.net import Net, Preprocess
