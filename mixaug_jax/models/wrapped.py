"""Networks of any shape behind the methods of `Net`: a module's submodules are its layers, seen as they are called.

Nothing is asked of the module. What a layer gives is what the submodule's `__call__` returns; a value put in its place leaves
the rest of the network as it is. Here are flax.linen modules; those of flax.nnx are in `wrapped_nnx`.
"""

import abc
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp

from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Array, Images, Key, Tree

# What people call the argument, or the field, that tells a training from its use.
_WHILE_TRAINING = ("train", "training", "is_training")
_WHILE_USED = ("deterministic", "use_running_average", "inference")


@dataclasses.dataclass(frozen=True)
class Wrapped(abc.ABC):
    """What the wrapped modules of all libraries share; static and hashable, so that two equal ones compile once.

    Attributes:
      module: what is applied, without its variables.
      key: what equal modules have in common, see `canonical`.
      name: of the module's class.
      layers: paths of the submodules whose outputs can be seen and replaced, "Block_0.Conv_1", in the order of last calls.
      calls: how often each of them is called; the last call counts.
      parts: the direct submodules in that order, whether they are among the layers or not.
      num_classes: K, the number of logits.
    """

    module: Any = dataclasses.field(compare=False)
    key: Any = dataclasses.field(repr=False)
    name: str
    layers: tuple[str, ...]
    calls: tuple[int, ...]
    parts: tuple[str, ...]
    num_classes: int

    # Training mixes hidden features of our own models only.
    hidden_layers: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def outputs(
        self,
        variables: Tree,
        x: Images,
        keep: Sequence[str] = (),
        layer: str = "",
        value: AnyArray | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """One evaluation.

        Args:
          variables: as in `Net`.
          x: preprocessed images [B,h,w,C].
          keep: the layers whose outputs are wanted.
          layer: the one whose output is replaced; "" is none.
          value: what takes its place, in its shape.

        Returns:
          logits [B,K], and the outputs of the layers in `keep`, both in the module's own dtypes.
        """

    @abc.abstractmethod
    def variable_shapes(self, image: Any) -> Tree:
        """Shapes and dtypes of the variables for images like `image` [B,h,w,C]; computes nothing."""


@dataclasses.dataclass(frozen=True)
class LinenModule(Wrapped):
    """A flax.linen module; see `Wrapped` and `wrap_linen`."""

    def outputs(self, variables, x, keep=(), layer="", value=None):
        calls = dict(zip(self.layers, self.calls, strict=True))
        seen = []

        def replace(next_fun, args, kwargs, context):
            y = next_fun(*args, **kwargs)
            # Flax intercepts every method of every module; only `__call__` gives a layer's output.
            if context.method_name != "__call__" or _path(context.module) != layer:
                return y
            seen.append(layer)
            return fitting(value, y, layer) if len(seen) == calls[layer] else y

        module, options = _in_mode(self.module, train=False)
        # Flax's own way to keep outputs reaches into nn.remat and nn.scan, where a list of arrays would leak tracers.
        if keep:
            options |= {"capture_intermediates": _captured(keep), "mutable": ["intermediates"]}
        if layer:
            with nn.intercept_methods(replace):
                found = module.apply(variables, x, **options)
        else:
            found = module.apply(variables, x, **options)
        if not keep:
            return found, {}
        logits, state = found
        return logits, {name: _last(state["intermediates"], name) for name in keep}

    def apply(
        self,
        variables: Tree,
        x: Images,
        train: bool = False,
        *,
        hidden: Callable | None = None,
        mutable: Any = False,
        rngs: Mapping[str, Key[Array, ""]] | None = None,
    ) -> Any:
        """Logits [B,K] float32, as our own models' `apply` gives them; with `mutable` also the changed collections.

        Raises:
          ValueError: for `hidden` (manifold mixup), or a module that cannot be called so.
        """
        if hidden is not None:
            raise ValueError(no_hidden_layers(self.name))
        module, options = _in_mode(self.module, train)
        if rngs:
            # Flax takes the stream "params" for every name that is not given.
            rngs = {"params": jax.random.fold_in(rngs["dropout"], 1), **rngs}
        try:
            found = module.apply(variables, x, mutable=mutable, rngs=rngs, **options)
        except flax.errors.FlaxError as error:
            raise ValueError(
                f"{self.name} cannot be called with {options or 'images alone'}: {said(error)}"
            ) from error
        if not mutable:
            return found.astype(jnp.float32)
        logits, updated = found
        return logits.astype(jnp.float32), updated

    def init(self, key: Key[Array, ""], x: Images, train: bool = False) -> Tree:
        """New variables for images like x [B,h,w,C], drawn from `key`."""
        return _init(self.module, key, x, train)

    def variable_shapes(self, image):
        return jax.eval_shape(self.init, jax.random.key(0), image)


def no_hidden_layers(name: str) -> str:
    """The sentence that refuses manifold mixup."""
    return (
        f"manifold mixup mixes between the layers of a models.layers.StagedModel, and {name} is none; choose another "
        "mixer, or write the network as one"
    )


def wrap_linen(
    module: nn.Module, variables: Tree, image: Any, layers: Sequence[str] = ()
) -> LinenModule:
    """A linen module with its layers, found by tracing one evaluation; nothing is computed.

    Args:
      module: any; its `__call__` takes images [B,h,w,C], and may take one of the usual arguments that tell a training from its
        use (train, training, is_training, deterministic, use_running_average, inference), or has a field of that name.
      variables: {"params": ...}, arrays or their shapes; None stands for what its `init` would draw.
      image: [B,h,w,C], an array or its shape.
      layers: paths of submodules; () are the direct ones that give a floating-point array for each batch.

    Raises:
      ValueError: in one sentence, for a module that is not hashable or cannot be called so, or an unknown layer.
    """
    name, key = type(module).__name__, canonical(module)
    try:
        hash(key)
    except TypeError as error:
        raise ValueError(f"{name} must be hashable, and {_unhashable(key)}") from error
    plain, options = _in_mode(module, train=False)
    called: dict[str, int] = {}  # in the order of the last calls

    def note(next_fun, args, kwargs, context):
        y = next_fun(*args, **kwargs)
        if context.method_name == "__call__":
            path = _path(context.module)
            called[path] = called.pop(path, 0) + 1
        return y

    def run(variables, x):
        if variables is None:
            variables = _init(module, jax.random.key(0), x, train=False)
        wanted = {"capture_intermediates": _captured(called), "mutable": ["intermediates"]}
        with nn.intercept_methods(note):
            return plain.apply(variables, x, **options, **wanted)

    # What is called is noted while the evaluation is traced; the module itself has the path "".
    logits, state = traced(run, variables, image, name, options)
    called.pop("", 0)
    shapes = {path: _last(state.get("intermediates", {}), path) for path in called}
    found = chosen(layers, called, batch_outputs(shapes, image), name)
    return LinenModule(module, key, name, *found, classes(logits, name))


def traced(run: Callable, variables: Tree, image: Any, name: str, options: Mapping) -> Tree:
    """The shapes of `run(variables, image)`; ValueError in one sentence where it does not run."""
    try:
        return jax.eval_shape(run, variables, image)
    except Exception as error:  # whatever somebody's code raises
        told = "".join(f", {k}={v}" for k, v in options.items())
        raise ValueError(
            f"{name} cannot be called on images {list(image.shape)}{told}: {said(error)}"
        ) from error


def batch_outputs(shapes: Mapping[str, Any], image: Any) -> list[str]:
    """The submodules that give one floating-point array for a batch like `image` [B,h,w,C], with the same first axis."""
    count = image.shape[0]
    return [path for path, shape in shapes.items() if _is_array(shape) and shape.shape[0] == count]


def chosen(
    layers: Sequence[str], called: Mapping[str, int], usable: Sequence[str], name: str
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]]:
    """The fields `layers`, `calls` and `parts` of `Wrapped`.

    Args:
      layers: what the user named; () takes the direct submodules.
      called: {path: number of calls}, in the order of the last calls.
      usable: the paths of those that can be looked at and replaced.
      name: of the module.

    Raises:
      ValueError: an unknown layer, or none at all.
    """
    usable = [path for path in called if path in usable]
    parts = tuple(path for path in called if _is_direct(path, called))
    if not usable:
        raise ValueError(
            f"{name} calls no submodules, so it has no layers to look at; give its parts modules of their own"
        )
    checks.choices("layers", layers, usable)
    wanted = layers or parts
    # Order means depth to callers, so it is that of the calls, however the user listed them.
    ordered = tuple(path for path in usable if path in wanted)
    return ordered, tuple(called[path] for path in ordered), parts


def _is_direct(path, called):
    """Whether no other called submodule holds this one."""
    names = path.split(".")
    return not any(".".join(names[:k]) in called for k in range(1, len(names)))


def classes(logits: Any, name: str) -> int:
    """K of logits [B,K]; ValueError for an output of another kind."""
    if not _is_array(logits) or logits.ndim != 2:
        got = list(logits.shape) if hasattr(logits, "shape") else type(logits).__name__
        raise ValueError(f"{name} must return logits [B,K]; got {got}")
    return logits.shape[1]


def fitting(value: AnyArray | None, y: Array, layer: str) -> Array:
    """`value` in the dtype of y, the output of `layer` that it replaces; ValueError for another shape of an image's part."""
    value = jnp.asarray(value, y.dtype)
    # The first axis is free: many values may be tried in place of one image's output.
    if value.shape[1:] != y.shape[1:]:
        got = f"[{', '.join(map(str, ('n', *value.shape[1:])))}]"
        wanted = f"[{', '.join(map(str, ('n', *y.shape[1:])))}]"
        raise ValueError(f"value must have the shape {wanted} of layer {layer!r}; got {got}")
    return value


def call_options(call: Callable, train: bool) -> dict[str, bool]:
    """The arguments of a function, or the fields of a class, that tell it whether it is trained."""
    known = inspect.signature(call).parameters
    options = {name: train for name in _WHILE_TRAINING if name in known}
    return options | {name: not train for name in _WHILE_USED if name in known}


def canonical(value: Any) -> Any:
    """A linen module, or a value of its fields, in a form that is hashable and equal to that of an equal one.

    Lists become tuples, dicts flax's frozen ones, and equal `functools.partial` one and the same.
    """
    if isinstance(value, nn.Module):
        names = [f.name for f in dataclasses.fields(value) if f.init]
        # A parent and a name say where a module stands, not what it computes.
        fields = {f: getattr(value, f) for f in names if f not in ("parent", "name")}
        changed = {f: canonical(v) for f, v in fields.items()}
        changed = {f: v for f, v in changed.items() if v is not fields[f]}
        return value.clone(**changed) if changed else value
    if type(value) in (list, tuple):
        return tuple(map(canonical, value))
    if type(value) is dict:
        return flax.core.FrozenDict({k: canonical(v) for k, v in value.items()})
    return interned(value) if type(value) is functools.partial else value


def interned(value: functools.partial) -> functools.partial:
    """The first of all equal partial functions; itself where it cannot be compared."""
    options = tuple((name, canonical(v)) for name, v in value.keywords.items())
    try:
        return _first_of(value.func, canonical(value.args), options, _kinds((value.args, options)))
    except TypeError:
        return value


# Cached for identity, not for speed: two equal partials do not compare equal.
@functools.cache
def _first_of(function, arguments, options, kinds):
    return functools.partial(function, *arguments, **dict(options))


def _kinds(value):
    """The types within tuples: 1, 1.0 and True are equal, and do not compute the same."""
    return tuple(map(_kinds, value)) if isinstance(value, tuple) else type(value)


def _unhashable(module):
    for field in dataclasses.fields(module):
        value = getattr(module, field.name, None)
        try:
            hash(value)
        except TypeError:
            return f"its field {field.name} ({type(value).__name__}) is not; make it numbers or a tuple of them"
    return "one of its submodules is not"


def plain_variables(variables: Mapping) -> dict:
    """Variables as plain dicts of arrays, without the boxes of `nn.with_partitioning`."""
    return nn.meta.unbox(flax.core.unfreeze(variables))


def said(error: Exception) -> str:
    """Somebody else's error as the end of a sentence."""
    lines = str(error).strip().splitlines() or [""]
    # Flax's errors end in a link to its docs, which has no place inside a sentence.
    text = lines[0].partition(" (https://")[0]
    return f"{type(error).__name__}: {text[:200]}".rstrip(" .:")


def _in_mode(module, train):
    """The module, and the arguments of its call, that make it train or not."""
    options = call_options(type(module).__call__, train)
    # Never both: with `nn.merge_param`, Flax refuses a flag that is field and argument at once.
    fields = {} if options else call_options(type(module), train)
    return (module.clone(**fields) if fields else module), options


def _init(module, key, x, train):
    module, options = _in_mode(module, train)
    return plain_variables(module.init(key, x, **options))


def _path(module):
    return ".".join(module.path)


def _captured(paths):
    return lambda module, method: method == "__call__" and _path(module) in paths


def _last(state, path):
    """What the last call of a submodule gave, or None where that cannot be seen."""
    for name in path.split("."):
        state = state.get(name, {})
    return state.get("__call__", (None,))[-1]


def _is_array(value):
    """Whether this is one floating-point array for a batch, [B,...]."""
    return hasattr(value, "shape") and jnp.issubdtype(value.dtype, jnp.floating) and value.ndim > 1
