"""How animals are drawn: the samplers of the study and of its generator, and what is drawn again in an intervention.

    animal = draw(SAMPLERS["study"], rng)
    again = intervene(rng, animal, ("obj_color",), SAMPLERS["study"])

Two4Two's released code calls scipy's uniform(start, length) with two ends, so it draws yaw from (-pi, 0) where its authors
wrote (-pi, pi): `RANGES` has both. Everything is drawn for many animals at once, of which a scene takes one.
Only numpy and scipy are imported here, because the processes that render import this file.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from mixaug_jax.data.animals.animal_pose import ATTRIBUTES, Animal

Rng = np.random.Generator
PEAKY, STRETCHY = 0, 1
# Uniform ends: as the released code draws them, and as its authors wrote them.
RANGES = {
    "released": {"yaw": (-math.pi, 0), "position": (-0.8, 0), "bg": (0.05, 0.95), "dim": (0.05, 0.85)},
    "intended": {"yaw": (-math.pi, math.pi), "position": (-0.8, 0.8), "bg": (0.05, 0.90), "dim": (0.05, 0.80)},
}  # fmt: skip
MODES = ("independent", "released")
_UNSURE = (0.45, 0.55)  # arms between which the class is hard to tell


def _truncated(rng, count, mean, deviation, ends):
    """Normal values between two ends."""
    below, above = (special.ndtr((end - mean) / deviation) for end in ends)
    found = mean + deviation * special.ndtri(rng.uniform(below, above, count))
    return np.clip(found, *ends)


def _normal(mean, deviation, high) -> Callable:
    return lambda rng, count: _truncated(rng, count, mean, deviation, (mean - high, mean + high))


def _uniform(high) -> Callable:
    return lambda rng, count: rng.uniform(-high, high, count)


def _near_arms(rng, label):
    peaky, stretchy = (
        _truncated(rng, len(label), 0.5, 0.2, ends) for ends in ((0.0, 0.52), (0.48, 1.0))
    )
    return np.where(label == PEAKY, peaky, stretchy)


def _even_arms(rng, label):
    value = rng.uniform(0, 0.52, len(label))
    return np.where(label == PEAKY, value, 1 - value)


def _coin_arms(rng, label):
    return _near_arms(rng, _coins(rng, len(label)))


def _coins(rng, count):
    return rng.integers(0, 2, count)


def _free_color(rng, label, arms):
    return rng.uniform(size=len(label))


def _class_color(rng, label, arms):
    value = _truncated(rng, len(label), 0.0, 0.5, (0.0, 1.0))
    return np.where(label == PEAKY, 1 - value, value)


def _sure_color(rng, label, arms):
    """By the class; where the arms hardly tell it, the color does."""
    wide, narrow = _class_color(rng, label, arms), _truncated(rng, len(label), 0.0, 0.1, (0.0, 0.3))
    narrow = np.where(label == PEAKY, 1 - narrow, narrow)
    return np.where(ambiguous(arms), narrow, wide)


def _study_color(rng, label, arms):
    """Tells the class the better the less the arms do; of no use for 15 %."""
    beyond = np.where(label == STRETCHY, arms - 0.5, 0.5 - arms)
    value = np.clip(0.25 + 2.5 * beyond, 0, 1) * rng.uniform(size=len(label))
    value = np.where(label == STRETCHY, 1 - value, value)
    free, any_color = rng.random(len(label)) < 0.15, rng.uniform(size=len(label))
    return np.where(free, any_color, value)


def _beta(rng, arms):
    return rng.beta(0.3, 0.3, len(arms))


def _halved(rng, arms):
    """Cubes where the arms are in, balls where they are out, either where they are between."""
    low, high = np.where(arms > _UNSURE[1], 0.5, 0.0), np.where(arms < _UNSURE[0], 0.5, 1.0)
    # By its inverse in place of rejection: its median is one half.
    return special.betaincinv(0.3, 0.3, rng.uniform(low, high))


def _study_shape(rng, arms):
    halved, free = _halved(rng, arms), _beta(rng, arms)
    return np.where(rng.random(len(arms)) < 0.33, free, halved)


_BENDING = _normal(0, math.pi / 20, math.pi / 10)
_ROLL = _normal(0, 0.03 * math.pi / 4, math.pi / 4)
_PITCH = _normal(0, 0.3 * math.pi / 4, math.pi / 4)


@dataclass(frozen=True)
class Sampler:
    """Where the attributes of animals are drawn from.

    Attributes:
      arms: f(rng, label [n]), the arm positions of classes.
      color: f(rng, label, arms), obj_color.
      color_by_arms: whether the color, once it does not know the class, takes that which the arms speak for.
      shape: f(rng, arms), spherical.
      bending, roll, pitch: f(rng, n).
      ground: of `RANGES`, bg_color's; "": 0 to 1.
      maps: matplotlib's color maps of animal and background.
      squeezed: whether values above 0.5 are drawn as .9 (v - .5) + .5.
      unbiased: "": as drawn; else one of `MODES`: all but the arms is drawn again in that mode.
    """

    arms: Callable = _near_arms
    color: Callable = _free_color
    color_by_arms: bool = False
    shape: Callable = _beta
    bending: Callable = _BENDING
    roll: Callable = _ROLL
    pitch: Callable = _PITCH
    ground: str = "bg"
    maps: tuple[str, str] = ("coolwarm", "coolwarm")
    squeezed: bool = False
    unbiased: str = ""


_STUDY = Sampler(
    arms=_even_arms,
    color=_study_color,
    color_by_arms=True,
    shape=_study_shape,
    pitch=_normal(0, 0.5 * math.pi / 4, math.pi / 6),
    ground="",
    squeezed=True,
)
_MEDVAR_COLOR = Sampler(color=_sure_color, color_by_arms=True)
SAMPLERS = {
    "plain": Sampler(),
    "high_variation": Sampler(
        roll=_uniform(math.pi / 3), pitch=_uniform(math.pi / 3), bending=_uniform(math.pi / 8)
    ),
    "color_biased": Sampler(color=_class_color, ground="dim", maps=("seismic", "binary")),
    "medvar": Sampler(),
    "medvar_color": _MEDVAR_COLOR,
    "medvar_spherical": Sampler(shape=_halved),
    "medvar_color_spherical": replace(_MEDVAR_COLOR, shape=_halved),
    "medvar_no_arms": replace(_MEDVAR_COLOR, arms=_coin_arms),
    "study": _STUDY,
    "unbiased": replace(_STUDY, unbiased="independent"),
    "unbiased_released": replace(_STUDY, unbiased="released"),
}
# Of the other biased ones: "color_biased_unbiased", "color_biased_unbiased_released", and so on.
SAMPLERS |= {
    f"{name}_unbiased{end}": replace(SAMPLERS[name], unbiased=mode)
    for name in ("color_biased", "medvar_color", "medvar_spherical", "medvar_color_spherical")
    for mode, end in zip(MODES, ("", "_released"), strict=True)
}


def unbiased(name: str, mode: str) -> str:
    """The sampler that is like another one, but that the arms alone tell the class.

    Args:
      name: of `SAMPLERS`.
      mode: of `MODES`, in which all but the arms is drawn again.

    Returns:
      A name in `SAMPLERS`: of a sampler without a bias its own, and of medvar_no_arms, whose arms tell nothing, medvar_color's.
    """
    like = SAMPLERS["medvar_color" if name == "medvar_no_arms" else name]
    wanted = replace(like, unbiased=mode)
    return next((other for other, sampler in SAMPLERS.items() if sampler == wanted), name)


def draw_many(
    sampler: Sampler, rng: Rng, count: int, ranges: str = "released"
) -> tuple[np.ndarray, np.ndarray]:
    """Animals that nobody renders.

    Args:
      sampler: of `SAMPLERS`.
      rng: of all draws.
      count: n.
      ranges: "released" or "intended".

    Returns:
      Their attributes float64 [n,10], in the order of `ATTRIBUTES`, and labels int64 [n], 0 peaky, 1 stretchy.
    """
    label = _coins(rng, count)
    known = label, sampler.arms(rng, label)
    values = np.stack([_value(sampler, rng, name, known, ranges) for name in ATTRIBUTES], 1)
    if sampler.unbiased:
        others = tuple(name for name in ATTRIBUTES if name != "arm_position")
        biased = replace(sampler, unbiased="")
        values = redraw(rng, values, others, biased, ranges=ranges, mode=sampler.unbiased)
    return values, label


def draw(sampler: Sampler, rng: Rng, ranges: str = "released") -> Animal:
    """One animal; see `draw_many`."""
    (values,), (label,) = draw_many(sampler, rng, 1, ranges)
    return Animal(int(label), *values.tolist())


def redraw(
    rng: Rng,
    values: np.ndarray,
    names: Sequence[str],
    sampler: Sampler,
    *,
    ranges: str = "released",
    mode: str = "independent",
) -> np.ndarray:
    """The attributes of animals with some of them drawn again; their labels stay.

    Args:
      rng: of all draws.
      values: [n,10].
      names: of `ATTRIBUTES`.
      sampler: that the animals were drawn from.
      ranges: "released" or "intended".
      mode: "independent": each value is that of an unrelated animal, so it knows nothing of the class. "released", as in the
        published code: obj_color only forgets the class, and takes that which the arms speak for (by a coin between .48 and
        .52), spherical is drawn for arms drawn anew, and arm_position for a new class.

    Raises:
      ValueError: an unknown attribute or mode.
    """
    if mode not in MODES or not set(names) <= set(ATTRIBUTES):
        _refuse(tuple(names), mode)
    changed, arms = values.copy(), values[:, ATTRIBUTES.index("arm_position")]
    for name in names:
        # As if of an animal that has nothing to do with this one: its class is drawn anew.
        label = _coins(rng, len(values))
        known = label, sampler.arms(rng, label)
        if mode == "released" and name == "obj_color" and sampler.color_by_arms:
            # The arms tell the class but in the middle, where both are as likely and the coin decides.
            told = np.where((arms >= 0.48) & (arms <= 0.52), label, arms > 0.5)
            known = told, arms
        changed[:, ATTRIBUTES.index(name)] = _value(sampler, rng, name, known, ranges)
    return changed


def _refuse(names, mode):
    # What checks imports takes the processes that render longer than a hundred scenes.
    from mixaug_jax.core import checks

    checks.choices("attribute", names, ATTRIBUTES)
    checks.choice("mode", mode, MODES)


def intervene(
    rng: Rng,
    animal: Animal,
    names: Sequence[str],
    sampler: Sampler,
    *,
    ranges: str = "released",
    mode: str = "independent",
) -> Animal:
    """One animal with some attributes drawn again; see `redraw`."""
    values = np.array([[getattr(animal, name) for name in ATTRIBUTES]])
    (again,) = redraw(rng, values, names, sampler, ranges=ranges, mode=mode)
    return Animal(animal.label, *again.tolist())


def ambiguous(arms: np.ndarray) -> np.ndarray:
    """Which arm positions [n] hardly tell the class, bool [n]: those between .45 and .55."""
    return (arms > _UNSURE[0]) & (arms < _UNSURE[1])


def _value(sampler, rng, name, known, ranges) -> np.ndarray:
    """One attribute of animals whose labels and arms are `known`."""
    ends, (label, arms) = RANGES[ranges], known
    uniform = {"yaw": "yaw", "position_x": "position", "position_y": "position"}
    if name == "arm_position":
        return arms
    if name == "obj_color":
        return sampler.color(rng, label, arms)
    if name == "spherical":
        return sampler.shape(rng, arms)
    if name == "bg_color":
        return rng.uniform(*(ends[sampler.ground] if sampler.ground else (0, 1)), len(arms))
    if name in uniform:
        return rng.uniform(*ends[uniform[name]], len(arms))
    return {"bending": sampler.bending, "roll": sampler.roll, "pitch": sampler.pitch}[name](
        rng, len(arms)
    )
