"""Which layers of a network give maps, and which of them a class activation map is made of."""

from typing import Any

import jax
import jax.numpy as jnp

from mixaug_jax.core import checks

_NODES = 4  # along a side of the map that a class activation map is made of


def map_shapes(net: Any, image: Any) -> dict[str, tuple[int, int, int]]:
    """{layer: [h,w,K]} of the layers whose output is a map, in the network's order; one trace, and nothing is computed.

    Args:
      net: the network.
      image: preprocessed [h,w,C], an array or its shape.

    Raises:
      checks.UnsupportedError: for a network without maps.
    """
    found = jax.eval_shape(_maps, net, jax.ShapeDtypeStruct((1, *image.shape), jnp.float32))
    # In the network's order, which the dict from JAX does not have.
    shapes = {layer: found[layer].shape[1:] for layer in net.layers if found[layer].ndim == 4}
    if not shapes:
        raise checks.UnsupportedError(
            f"no layer of the network gives a map [h,w,K]; it has {', '.join(net.layers)}"
        )
    return shapes


def _maps(net, x):  # not within `map_shapes`, so that JAX knows it again and traces once
    return {layer: net.maps(layer, h) for layer, h in net.capture(x, net.layers).items()}


def map_layers(net: Any, image: Any) -> tuple[str, ...]:
    """The layers of `map_shapes`."""
    return tuple(map_shapes(net, image))


def map_layer(net: Any, image: Any, layer: str, depth: float) -> str:
    """`layer`, or where it is "" the one at `depth` (0 to 1) among those with a map.

    Raises:
      ValueError: for a layer that the network does not have, or one without a map, or a network without maps.
      checks.UnsupportedError: for one of whose map nothing reaches the logits.
    """
    known = map_layers(net, image)
    maps = _seeing(net, known)
    if not layer:
        return maps[min(int(depth * len(maps)), len(maps) - 1)]
    checks.choice("layer", layer, known)
    if layer not in maps:
        raise checks.UnsupportedError(
            f"layer {layer!r} of {net.name}: nothing of its map reaches the logits, which see the class token alone; the last "
            f"that does is {maps[-1]}"
        )
    return layer


def _seeing(net, layers):
    """Those of the layers of whose maps something reaches the logits."""
    blind = getattr(getattr(net, "model", None), "blind_layers", ())
    return [layer for layer in layers if layer not in blind]


def cam_layer(net: Any, image: Any, layer: str = "") -> str:
    """`layer`, or where it is "" the one that class activation maps of `image` [h,w,C] are made of.

    That is the last whose map has 4 x 4 nodes or more: a ResNet's layer4 at 224 pixels, but layer3 at 64, where layer4 has
    2 x 2 and points nowhere. Where no map has so many, it is the last one. A map of which nothing reaches the logits, as a last
    block's of tokens, is none of them.

    Raises:
      ValueError: as `map_layer`.
    """
    if layer:
        return map_layer(net, image, layer, 1)
    shapes = map_shapes(net, image)
    seeing = _seeing(net, shapes)
    fine = [name for name in seeing if min(shapes[name][:2]) >= _NODES]
    return (fine or seeing)[-1]
