"""A network from a run's resolved settings, and the settings that make a network again."""

import dataclasses
import inspect
import json
import operator
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mixaug_jax import models
from mixaug_jax.core import checks, code, entries
from mixaug_jax.core import devices as devices_lib
from mixaug_jax.core.types import Config, Tree
from mixaug_jax.models.net import Net, count_logits, input_shape, is_chain, wrapped_model
from mixaug_jax.models.probability import LOSSES
from mixaug_jax.models.wrapped import Wrapped


def build_model(
    config: Config, *, stored: Callable[[str, str], pathlib.Path] | None = None
) -> nn.Module | Wrapped:
    """The model of a resolved config, as `Net` takes it.

    Args:
      config: resolved settings; `resolved.model` is what `described` gives, or {"name", "width", "stem"} and perhaps "fields".
      stored: f(file, its checksum) -> the run's copy of a file that defined the network, to be run in its place.

    Raises:
      ValueError: an unknown name, a file that is not there any more, settings that the network has no field for, another
        number of logits than of classes.
    """
    r, classes = config.resolved, len(config.resolved.class_names)
    # Runs from before there was another loss say nothing of it.
    logits = r.get("logits", classes)
    settings = r.model.to_dict()
    if settings.get("module"):
        module = _class_of(settings, stored)(**_read(settings["fields"]))
    else:
        checks.choice("model.name", settings["name"], models.MODELS)
        module = made(models.MODELS[settings["name"]], logits, settings)
        module = module.clone(**settings["fields"]) if settings.get("fields") else module
    module = _with_body(module, config.model)
    model = as_model(module, input_shape(build_preprocess(config)), settings.get("layers", ()))
    if getattr(model, "num_classes", logits) != logits:
        needs = "" if logits == classes else f", which train.loss='sigmoid' tells apart by {logits}"
        raise ValueError(
            f"{settings['name']} gives {model.num_classes} logits, and the data has {classes} classes{needs}; give it an "
            "argument num_classes"
        )
    return model


def layer_names(config: Config) -> tuple[str, ...]:
    """The layers of the network that a config describes, before its data is known."""
    d, settings = config.data, config.model.to_dict()
    # The number of classes changes no layer's name, so any will do here.
    module = made(models.MODELS[settings["name"]], 2, settings)
    return as_model(module, (d.size, d.size, len(d.mean))).layers


def made(entry: Callable, num_classes: int, options: Mapping[str, Any]) -> Any:
    """What an entry of MODELS makes: a function or a class of linen or nnx.

    Args:
      entry: takes the number of classes as `num_classes`, as its one argument without a default, or not at all.
      num_classes: K.
      options: width, stem and others; those are passed that the entry takes.

    Raises:
      ValueError: an entry that needs more.
    """
    # A class of nnx hides what it takes behind that of its metaclass.
    call = entry.__init__ if isinstance(entry, type) else entry
    known = {k: p for k, p in inspect.signature(call).parameters.items() if k != "self"}
    given = {name: value for name, value in options.items() if name in known and name != "name"}
    if "rngs" in known:
        # Here because it saves everyone else importing flax.nnx (0.2 s).
        from flax import nnx

        given["rngs"] = nnx.Rngs(0)
    if "num_classes" in known:
        return entry(num_classes=num_classes, **given)
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p for p in known.values() if p.default is p.empty and p.kind not in variable]
    needed = [p.name for p in needed if p.name not in given]
    if len(needed) > 1:
        raise ValueError(
            f"{entries.name_of(entry)} needs {', '.join(needed)}; a network is made from num_classes alone, give the others "
            "defaults"
        )
    return entry(**{name: num_classes for name in needed}, **given)


def as_model(
    module: Any, shape: tuple[int, ...], layers: Sequence[str] = ()
) -> nn.Module | Wrapped:
    """A module as `Net` takes it: itself where its layers form a chain, else wrapped.

    Args:
      module: linen or nnx.
      shape: [h,w,C] of an image.
      layers: see `Net.wrap`.
    """
    if isinstance(module, nn.Module) and is_chain(module):
        return module
    return wrapped_model(module, None, shape, layers)[0]


def _with_body(module, settings):
    """A module with the fields that the config's section `model` asks for."""
    asked = {
        "dtype": ("dtype", settings.dtype != "float32", jnp.dtype(settings.dtype)),
        "sync_bn": ("axis_name", settings.sync_bn, devices_lib.AXIS),
        "remat": ("remat", settings.remat, True),
        "drop_path": (
            "drop_path_rate",
            settings.get("drop_path", -1.0) >= 0,
            settings.get("drop_path", -1.0),
        ),
    }
    known = {f.name for f in dataclasses.fields(module)} if isinstance(module, nn.Module) else ()
    fields = {}
    for key, (field, wanted, value) in asked.items():
        # Refused, not ignored: nobody should train in float32 who asked for bfloat16.
        if wanted and field not in known:
            raise ValueError(
                f"model.{key}={settings[key]!r} needs a field {field} of the network; {type(module).__name__} has none"
            )
        fields |= {field: value} if wanted else {}
    return module.clone(**fields) if fields else module


def variable_shapes(model: nn.Module | Wrapped, config: Config) -> Tree:
    """Shapes and dtypes of the variables; computes nothing."""
    return shapes_for(model, input_shape(build_preprocess(config)))


def shapes_for(model: nn.Module | Wrapped, shape: tuple[int, ...]) -> Tree:
    """`variable_shapes` for images [h,w,C]."""
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    if isinstance(model, Wrapped):
        return model.variable_shapes(image)
    return jax.eval_shape(model.init, jax.random.key(0), image)


def as_net(config: Config, model: nn.Module | Wrapped, variables: Tree) -> Net:
    """A run's network, from its resolved settings and its variables."""
    loss = config.resolved.get("loss", LOSSES[0])
    return Net(model, variables, build_preprocess(config), loss)


def build_preprocess(config: Config) -> models.Preprocess:
    """How this run's network sees a photograph."""
    return models.Preprocess(**config.resolved.preprocess)


def described(net: Net, model: str = "") -> dict[str, Any]:
    """The settings from which `build_model` makes a network's model again.

    Args:
      net: any network.
      model: a name in MODELS of what makes it; "" finds one of our own, or stores the module's class and its fields.

    Returns:
      {"name", "width", "stem"} and other arguments of an entry of MODELS, and the "fields" that it lacks, of `unseen`;
      or {"name", "width", "stem", "module", "file", "sha256", "fields"} of a class. Of a wrapped model also "layers".

    Raises:
      ValueError: what cannot be made again from a file, with what to do about it.
    """
    layers = {"layers": list(net.layers)} if isinstance(net.model, Wrapped) else {}
    if model:
        return _by_name(net, model) | layers
    if not isinstance(net.model, nn.Module) and not isinstance(net.model.module, nn.Module):
        raise ValueError(
            f"{net.name} is a flax.nnx module, which cannot be made from its class alone; add a function that makes it to "
            'MODELS, and name it in save(..., model="...")'
        )
    found = _own(net.model) if isinstance(net.model, nn.Module) else None
    return found or _by_class(getattr(net.model, "module", net.model)) | layers


def _by_name(net, name):
    checks.choice("model", name, models.MODELS)
    shape = input_shape(net.preprocess)
    classes = count_logits(net, shape)
    settings = {"name": name, "width": 1.0, "stem": "imagenet"}
    made_again = made(models.MODELS[name], classes, settings)
    layers = net.layers if isinstance(net.model, Wrapped) else ()
    if as_model(made_again, shape, layers) != net.model:
        raise ValueError(
            f"MODELS[{name!r}] with {classes} classes makes another network than this one"
        )
    return settings


def _own(module):
    """The arguments that make a module of MODELS, or None; rather an entry's own network than one with other fields."""
    return _made_by(module, with_fields=False) or _made_by(module, with_fields=True)


def _made_by(module, with_fields):
    ours = __name__.partition(".")[0]
    for name, entry in models.MODELS.items():
        # A user's entry is not tried: it is stored by its class, with the file that defines it.
        if entry.__module__.partition(".")[0] != ours:
            continue
        known = inspect.signature(entry).parameters
        options = {"width": 1.0, "stem": "imagenet"}
        options |= {
            f: getattr(module, f) for f in known if hasattr(module, f) and f != "num_classes"
        }
        classes = getattr(module, "num_classes", 0)
        try:
            plain = made(entry, classes, options)
            if type(plain) is not type(module):
                continue
            fields = unseen_fields(module, plain) if with_fields else {}
            # No field stores the width: ratios of filters suggest it, and only an exact rebuild confirms it.
            for width in {1.0, *_ratios(module, plain)}:
                if made(entry, classes, options | {"width": width}).clone(**fields) == module:
                    found = {"name": name, **options, "width": width}
                    return found | ({"fields": fields} if fields else {})
        except ValueError:  # a stem, say, that this architecture does not have
            continue
    return None


def unseen_fields(module: Any, plain: Any) -> dict[str, Any]:
    """Those of a network's fields which no file of weights tells that differ from a plain one's.

    Args:
      module: of MODELS.
      plain: what its entry makes.
    """
    names = getattr(type(plain), "unseen", ())
    names = plain.unseen if isinstance(names, property) else names
    return {f: getattr(module, f) for f in names if getattr(module, f) != getattr(plain, f)}


def _ratios(module, plain):
    """Widths that fields with numbers of filters speak for."""
    names = [field.name for field in dataclasses.fields(plain)]
    return _ratios_of(*([getattr(m, name) for name in names] for m in (module, plain)))


def _ratios_of(values, base):
    for value, one in zip(values, base, strict=False):
        if isinstance(value, tuple) and isinstance(one, tuple):  # filters of one block of many
            yield from _ratios_of(value, one)
        elif type(value) is int and type(one) is int and value > 0 and one > 0:
            yield value / one


def _by_class(module):
    """Settings of a linen module by its class, where that is found again, and its fields."""
    kind = type(module)
    if "<locals>" in kind.__qualname__:
        raise ValueError(f"{kind.__name__} is defined inside of a function; define it in a file")
    settings = {"name": kind.__name__, "width": 1.0, "stem": "imagenet"}
    settings |= {"module": f"{kind.__module__}:{kind.__qualname__}", "file": "", "sha256": ""}
    if code.installed(kind.__module__) is None:
        file = getattr(sys.modules.get(kind.__module__), "__file__", None)
        if not file or not pathlib.Path(file).is_file():
            raise ValueError(
                f"{kind.__name__} was defined at a prompt or in a notebook; define it in a file that can be imported again"
            )
        path = pathlib.Path(file).absolute()
        settings |= {"file": str(path), "sha256": entries.sha256(path)}
    return settings | {"fields": _written(module)}


def _written(module):
    """{field: value as JSON} of what differs from the defaults."""
    found = {}
    for field in dataclasses.fields(module):
        value = getattr(module, field.name)
        if field.name in ("parent", "name") or not field.init or _is_default(field, value):
            continue
        kept = {"dtype": str(jnp.dtype(value))} if _is_dtype(value) else value
        if not _is_plain(kept):
            raise ValueError(
                f"the field {field.name} of {type(module).__name__} is {value!r}; only numbers, texts, dtypes and tuples of "
                "numbers and texts can be stored"
            )
        found[field.name] = kept
    # Through JSON and back, so that these equal the settings that are later read from a file.
    return json.loads(json.dumps(found))


def _is_default(field, value):
    made_new = field.default_factory is not dataclasses.MISSING
    default = field.default_factory() if made_new else field.default
    return value is default or (type(value) is type(default) and bool(np.all(value == default)))


def _is_dtype(value):
    # `jnp.bfloat16` and its like are not np.dtype instances but callables that carry one.
    return isinstance(value, np.dtype) or (
        callable(value) and hasattr(value, "dtype") and isinstance(value.dtype, np.dtype)
    )


def _is_plain(value):
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return list(value) == ["dtype"]
    return value is None or type(value) in (bool, int, float, str)


def _read(fields):
    """Fields as `_written` wrote them; lists come back as tuples."""

    def value(kept):
        if isinstance(kept, dict):
            return jnp.dtype(kept["dtype"])
        return tuple(map(value, kept)) if isinstance(kept, (tuple, list)) else kept

    return {name: value(kept) for name, kept in fields.items()}


def _class_of(settings, stored):
    """The class that `_by_class` described."""
    module, _, name = settings["module"].partition(":")
    found = code.installed(module)
    if found is None:
        file, checksum = settings["file"], settings["sha256"]
        copy = stored(file, checksum) if stored else None
        try:
            found = code.import_recorded(file, checksum, stored=copy)
        except ValueError as error:
            raise ValueError(f"the network {settings['module']} cannot be made: {error}") from None
    return operator.attrgetter(name)(found)
