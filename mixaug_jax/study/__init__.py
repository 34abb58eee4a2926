"""Many configs x seeds -> one comparison.

    runs = make_plan(["configs/baseline.py", "configs/cutmix.py"], (0, 1, 2), "studies/first")
    write_asked(runs, "studies/first", ())
    run_missing(runs)
    print(gather("studies/first").sentences["concepts"])

is what `mixaug_jax.run_study` does, which also writes the page. From the command line: `python -m mixaug_jax.study --help`.
"""

from mixaug_jax.study.crossing import CrossDeletion
from mixaug_jax.study.gathering import gather
from mixaug_jax.study.measures import AXES, Measure
from mixaug_jax.study.plan import make_plan, write_asked
from mixaug_jax.study.results import Study
from mixaug_jax.study.runs import Stopped, run_missing

__all__ = [
    "AXES",
    "CrossDeletion",
    "Measure",
    "Stopped",
    "Study",
    "gather",
    "make_plan",
    "run_missing",
    "write_asked",
]
