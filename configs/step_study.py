"""How many steps do attributions along a path need? After Singhi and Kumari 2024 (arXiv 2409.09043).

    python -m mixaug_jax.main --config=configs/step_study.py --stage=explain --workdir=runs/baseline-scenes
    python -m mixaug_jax.main --config=configs/step_study.py:folder,blur --config.weights=WEIGHTS --config.data.dir=PHOTOS

Integrated gradients, IDGI, guided and blur IG with 8 to 256 steps, and with 1024 for reference, each a method of its own,
called straight_8, idgi_8 and so on: the miss of completeness, deletion and insertion with their controls. `blur` takes a
blurred baseline instead of the mean color. docs/backward_variants.md has the lines that compare maps with those of 1024 steps.

Expect: nothing missing of IDGI, whatever the steps, which is no evidence for it; the miss of integrated gradients falls with
the steps (on 20 scenes from .43 of a logit at 8 to .04 at 64), that of guided IG need not. Blur IG begins at its widest blur,
so that its miss holds the difference to the baseline.
"""

from mixaug_jax import config
from mixaug_jax.attribution import METHODS, Method
from mixaug_jax.core import checks, entries

STEPS = (8, 16, 32, 64, 128, 256, 1024)
PATHS = {
    "straight": "integrated_gradients",
    "idgi": "idgi",
    "guided": "guided_ig",
    "blur": "blur_ig",
}


def _method(path, steps, baseline):
    entry = METHODS[PATHS[path]]
    known = entries.keywords(entry)
    options = {"steps": steps, "output": "logit", "rule": "trapezoid", "baseline": baseline}
    options = {name: value for name, value in options.items() if name in known}

    def method(net, image, label, *, chunk=8):
        memory = {"chunk": chunk} if "chunk" in known else {}
        return entry(net, image, label, **options, **memory)

    method.__name__ = f"{path}_{steps}"
    return Method(method, title=f"{entry.title or PATHS[path]}, {steps} steps")


def get_config(data="scenes"):
    data, _, baseline = data.partition(",")
    checks.choice("baseline", baseline or "zero", ("zero", "blur"))
    settings = config.get_config("baseline", data)
    made = [_method(path, steps, baseline or "zero") for path in PATHS for steps in STEPS]
    METHODS.update({method.__name__: method for method in made})
    settings.explain.methods = tuple(method.__name__ for method in made)
    settings.explain.scores = ("completeness", "deletion", "insertion")
    settings.explain.options.completeness.baseline = baseline or "zero"
    return settings
