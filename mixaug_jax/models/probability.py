"""From logits to what a network says of each class: its probabilities, their logarithms, and the predicted class.

A network trained with train.loss="softmax" says which one class an image shows; one trained with "sigmoid" says of each class
by itself whether the image shows it. A network with one logit z tells two classes apart: class 1 has the probability
sigmoid(z), class 0 what is left. Everything that needs a probability takes it from here.
"""

from typing import Any

import jax
import jax.numpy as jnp

from mixaug_jax.core.types import AnyArray, Array, Float, Int

LOSSES = ("softmax", "sigmoid")

ByClass = Float[Array, "*n K"]


def class_logits(logits: Float[AnyArray, "*n k"]) -> ByClass:
    """Logits [...,K] as they are; of one logit z [...,1] those of the two classes, -z and z [...,2]."""
    logits = jnp.asarray(logits)
    return jnp.concatenate([-logits, logits], -1) if logits.shape[-1] == 1 else logits


def log_probabilities(net: Any, logits: Float[AnyArray, "*n k"]) -> ByClass:
    """The logarithms of `probabilities`, without overflow."""
    values = class_logits(logits)
    sigmoid = is_sigmoid(getattr(net, "loss", LOSSES[0]), jnp.shape(logits)[-1])
    return jax.nn.log_sigmoid(values) if sigmoid else jax.nn.log_softmax(values)


def probabilities(net: Any, logits: Float[AnyArray, "*n k"]) -> ByClass:
    """The probability of each class, 0..1.

    Args:
      net: `models.Net`, or anything with its methods; where it does not say by which `loss` it was trained, by softmax.
      logits: [...,k] as the network gives them.

    Returns:
      [...,K]: the softmax, whose rows sum to 1; or the sigmoid of each logit, where the network was trained so or has but one.
      Of one logit the two classes' [...,2].
    """
    values = class_logits(logits)
    sigmoid = is_sigmoid(getattr(net, "loss", LOSSES[0]), jnp.shape(logits)[-1])
    return jax.nn.sigmoid(values) if sigmoid else jax.nn.softmax(values)


def predicted(logits: Float[AnyArray, "*n k"]) -> Int[Array, "*n"]:
    """The most probable class, [...]; of one logit class 1 where it is above 0."""
    return class_logits(logits).argmax(-1)


def is_sigmoid(loss: str, logits: int) -> bool:
    """Whether a network with so many logits, trained by `loss`, says of each class by itself whether it is there.

    A single logit can have no softmax, whatever a file or a user says.
    """
    return loss == "sigmoid" or logits == 1


def logits_for(loss: str, classes: int, *, multi_label: bool = False) -> int:
    """How many logits a network needs: one for two classes of which an image shows one, under "sigmoid"; else one a class."""
    return 1 if loss == "sigmoid" and classes == 2 and not multi_label else classes
