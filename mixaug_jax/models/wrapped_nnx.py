"""Trained flax.nnx modules behind the methods of `Net`; see `wrapped`."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from mixaug_jax.core import checks
from mixaug_jax.core.types import AnyArray, Array, Float, Images, Tree
from mixaug_jax.models.wrapped import (
    Wrapped,
    batch_outputs,
    call_options,
    chosen,
    classes,
    fitting,
    interned,
    traced,
)


@dataclasses.dataclass(frozen=True)
class NnxModule(Wrapped):
    """A flax.nnx module in its evaluation mode; `module` is its graphdef, see `Wrapped` and `wrap_nnx`.

    Attributes:
      structure: the pytree structure of its state.
      leaves: (name, shape, dtype, kind of random key or "") of each array of the state, in its order.
    """

    structure: Any = dataclasses.field(repr=False)
    leaves: tuple[tuple[str, tuple[int, ...], str, str], ...] = dataclasses.field(repr=False)

    def outputs(self, variables, x, keep=(), layer="", value=None):
        calls = dict(zip(self.layers, self.calls, strict=True))
        kept, seen = {}, []

        def see(path, y):
            if path == layer:
                seen.append(path)
                # A module that is called several times is a layer by its last call.
                y = fitting(value, y, layer) if len(seen) == calls[layer] else y
            kept[path] = y
            return y

        module = nnx.merge(self.module, self._state(variables))
        module = _tapped(module, {*keep, layer} - {""}, see)
        logits = module(x, **call_options(type(module).__call__, train=False))
        return logits, {path: kept[path] for path in keep}

    def init(self, key: Any, x: Images, train: bool = False) -> Tree:
        """Raises checks.UnsupportedError: what draws a module's variables is its own constructor."""
        raise checks.UnsupportedError(
            f"{self.name} is a flax.nnx module, and nothing but its constructor draws its variables anew: no training, "
            "no random baseline and no randomization of its parameters here"
        )

    def apply(
        self, variables: Tree, x: Images, train: bool = False, **_: Any
    ) -> Float[Array, "B K"]:
        """Logits [B,K] float32 of an evaluation; checks.UnsupportedError where it is to be trained."""
        if train:
            self.init(None, x)
        return self.outputs(variables, x)[0].astype(jnp.float32)

    def variable_shapes(self, image):
        return {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape, dtype, _ in self.leaves}

    def _state(self, variables):
        values = [
            jax.random.wrap_key_data(variables[name], impl=kind) if kind else variables[name]
            for name, _, _, kind in self.leaves
        ]
        return jax.tree.unflatten(self.structure, values)


def wrap_nnx(
    module: Any, state: Tree, image: Any, layers: Sequence[str] = ()
) -> tuple[NnxModule, dict[str, AnyArray]]:
    """A module with its layers, found by tracing one evaluation, and its variables as {"conv1.kernel": array}.

    The module itself is not changed: it is copied, and the copy is set to evaluation.

    Args:
      module: any nnx.Module; its `__call__` takes images [B,h,w,C].
      state: nnx.State of a module of the same structure, or variables as this function gives them; None takes the module's.
      image: [B,h,w,C], an array or its shape.
      layers: paths of submodules, "blocks.0.conv1"; () are the direct ones, also those in lists and dicts.

    Raises:
      ValueError: in one sentence, for a module that cannot be called so, or an unknown layer, or a state of another module.
    """
    name = type(module).__name__
    if not isinstance(module, nnx.Module):
        raise ValueError(f"module must be a flax.linen or a flax.nnx module; got {name}")
    # A copy, in its evaluation mode, is taken apart into what it is made of and its arrays.
    module = nnx.merge(*nnx.split(module))
    module.eval()
    graph, own = nnx.split(module)
    leaves, variables = _flat(own)
    if state is not None:
        given = state if isinstance(state, Mapping) and not isinstance(state, nnx.State) else None
        variables = _checked(given if given is not None else _flat(state)[1], leaves, name)
    # Two modules of one class are equal but for their partial functions, which are not compared by what is in them.
    key = nnx.split(_replaced(module, lambda path, child: child, {}))[0]
    try:
        hash(key)
    except TypeError as error:
        raise ValueError(
            f"{name} must be hashable, and a value among its attributes is not ({error})"
        ) from error
    structure = jax.tree.structure(own)
    plain = NnxModule(graph, key, name, (), (), (), 0, structure, leaves)
    found = _described(plain, module, image, layers, variables)
    return dataclasses.replace(plain, **found), variables


def _described(plain, module, image, layers, variables):
    """The fields of `Wrapped` that follow from one evaluation."""
    known = {}
    _replaced(module, lambda path, child: known.setdefault(path, child), {})
    options = call_options(type(module).__call__, train=False)
    known = [path for path, child in known.items() if path and callable(child)]
    checks.choices("layers", layers, known)
    tapped = {path for path in known if not _inside(path, known)} | set(layers)
    called: dict[str, int] = {}  # in the order of the last calls

    def run(variables, x):
        outputs = {}

        def see(path, y):
            called[path] = called.pop(path, 0) + 1
            outputs[path] = y
            return y

        module = nnx.merge(plain.module, plain._state(variables))
        return _tapped(module, tapped, see)(x, **options), outputs

    logits, shapes = traced(run, variables, image, plain.name, options)
    fields = chosen(layers, called, batch_outputs(shapes, image), plain.name)
    names = ("layers", "calls", "parts")
    return dict(zip(names, fields, strict=True)) | {"num_classes": classes(logits, plain.name)}


def _inside(path, known):
    return any(path.startswith(f"{other}.") for other in known)


@dataclasses.dataclass(frozen=True, eq=False)
class _Tap:
    """Stands where a submodule stood, and shows what its call gives.

    Attributes:
      module: the submodule.
      path: its name.
      see: f(path, output) -> output.
    """

    module: Any
    path: str
    see: Callable

    @property
    def __class__(self):
        return type(self.module)  # for code that asks what it calls

    def __call__(self, *args, **kwargs):
        return self.see(self.path, self.module(*args, **kwargs))

    def __getattr__(self, name):
        return getattr(self.module, name)


def _tapped(module, paths, see):
    """The module, changed in place, with taps at the submodules called `paths`."""

    def tap(path, child):
        return _Tap(child, path, see) if path in paths else child

    return _replaced(module, tap, {})


def _replaced(value, replace, done, path=()):
    """`value` with `replace(path, child)` in place of every submodule, and one object for equal partial functions.

    A submodule that stands in several places is replaced once; its path is that of the first. `done` holds those met.
    """
    within = functools.partial(_replaced, replace=replace, done=done)
    if type(value) is functools.partial:
        return interned(value)
    if type(value) is tuple:
        return tuple(within(v, path=(*path, k)) for k, v in enumerate(value))
    if type(value) in (list, nnx.List):
        for k in range(len(value)):
            _put(value.__setitem__, k, value[k], within(value[k], path=(*path, k)))
        return value
    if type(value) is dict:
        for k, v in value.items():
            value[k] = within(v, path=(*path, k))
        return value
    if not isinstance(value, nnx.Module):
        return value
    if id(value) not in done:
        done[id(value)] = value  # a module that holds itself ends here
        for k, v in list(vars(value).items()):
            # Attributes of this prefix are nnx's own bookkeeping, not parts of the network.
            if not k.startswith("_pytree__"):
                _put(functools.partial(setattr, value), k, v, within(v, path=(*path, k)))
        done[id(value)] = replace(".".join(map(str, path)), value)
    return done[id(value)]


def _put(put, key, old, new):
    if new is not old:
        put(key, new)


def _flat(state):
    """The leaves of a state, as in `NnxModule`, and {name: array}; random keys as the numbers they are made of."""
    leaves, variables = [], {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name, kind = jax.tree_util.keystr(path, simple=True, separator="."), ""
        name = name.removesuffix(".value")
        # Typed keys do not turn into NumPy arrays, which files and checksums need.
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            kind, leaf = str(jax.random.key_impl(leaf)), jax.random.key_data(leaf)
        leaves.append((name, tuple(leaf.shape), str(leaf.dtype), kind))
        variables[name] = leaf
    return tuple(leaves), variables


def _checked(variables, leaves, name):
    """`variables` without what does not belong to the module; ValueError where something is missing or has another shape."""
    for path, shape, _, _ in leaves:
        if path not in variables:
            raise ValueError(
                f"variables of {name} lack {path}; they are nnx.state of such a module"
            )
        if tuple(variables[path].shape) != shape:
            got = list(variables[path].shape)
            raise ValueError(f"variables of {name}: {path} must be {list(shape)}; got {got}")
    return {path: variables[path] for path, *_ in leaves}
