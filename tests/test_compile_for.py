"""The arithmetic of `benchmarks.compile_for`, and that its programs lower for a TPU."""

import subprocess

import jax
import jax.numpy as jnp
import pytest

from benchmarks import compile_for
from benchmarks.compiled_programs import PROGRAMS
from mixaug_jax.core import devices as devices_lib

PEAK = compile_for.Peak(flops=100.0, bandwidth=10.0, memory=50.0)
FOUND = {
    "seconds": 3.0, "flops": 1e9, "bytes": 1e8, "memory": 40, "loops": 0, "images": 8,
    "collectives": {"all-reduce": (2, 3_000_000)},
}  # fmt: skip


def test_a_roofline_is_the_longer_of_operations_and_bytes():
    assert compile_for.roofline(1000, 10, PEAK) == (10, "compute")
    assert compile_for.roofline(1000, 200, PEAK) == (20, "memory")


def test_collectives_of_a_text():
    text = """
  %all-reduce.1 = (f32[64]{0}, bf16[3,5]{1,0:T(8,128)}) all-reduce(%a, %b), to_apply=%sum
  %ar = f32[10]{0:T(256)} all-reduce-start(f32[10] %x), channel_id=1
  %done = f32[10]{0} all-reduce-done(%ar)
  %g = (f32[2,4]{1,0}, f32[8,4]{1,0}) all-gather-start(%y), dimensions={0}
  %gd = f32[8,4]{1,0} all-gather-done(%g)
  %p = s32[] collective-permute(%z)
  %f = f32[7] fusion(%all-reduce.1), calls=%all-reduce
"""
    assert compile_for.collectives(text) == {
        "all-reduce": (2, 64 * 4 + 15 * 2 + 40),
        "all-gather": (1, 128),
        "collective-permute": (1, 4),
    }


def test_collectives_of_a_compiled_program():
    whole, split = devices_lib.REPLICATED, devices_lib.SHARDED
    mean = devices_lib.pmap(lambda x: jax.lax.psum(x.sum(0), devices_lib.AXIS), (split,), whole)
    text = mean.lower(jnp.ones((8, 5))).compile().as_text()
    assert compile_for.collectives(text) == {"all-reduce": (1, 20)}


def test_a_row():
    peak = compile_for.Peak(flops=1e12, bandwidth=1e10, memory=50)
    cells = dict(zip(compile_for.HEADER, compile_for.row("it", FOUND, peak), strict=True))
    assert cells["roofline ms"] == "10 (memory)"
    assert cells["images/s"] == "800"
    assert cells["collectives"] == "2 all-reduce (3.0 MB)"
    assert "too much" not in cells["GB held"]
    cells = compile_for.row("it", FOUND | {"memory": 51, "loops": 2}, peak)
    assert "(too much)" in cells[4]
    # The compiler counts one pass of a loop, so there is no time to give.
    assert cells[-2:] == ("2 loops", "")


@pytest.mark.parametrize(
    ("code", "stderr", "error"),
    [
        (-11, "", "crashes the compiler (SIGSEGV)"),
        (1, "x\nValueError: no such thing\nnoise", "ValueError: no such thing"),
        (1, "", "nothing was said"),
    ],
)
def test_what_became_of_a_program_that_does_not_compile(code, stderr, error):
    done = subprocess.CompletedProcess((), code, "", stderr)
    found = compile_for.outcome(done)
    assert found == {"error": error}
    assert len(compile_for.row("it", found, PEAK)) == len(compile_for.HEADER)


def test_what_is_said_before_the_result_does_not_matter():
    assert compile_for.outcome(subprocess.CompletedProcess((), 0, 'hm\n{"a": 1}\n', "")) == {"a": 1}


SOME = (
    "train a small ResNet-18", "RenderGAN's generator, maps", "thresholds", "counts, bits", "counts, dense",
    "occlusion cells", "mixer cutmix",
    "method iba", "score deletion", "score pointing_game", "score max_sensitivity",
)  # fmt: skip


@pytest.mark.usefixtures("unchecked")  # a ranking of shapes is no ranking
@pytest.mark.parametrize("name", SOME)
def test_programs_lower_for_a_tpu(name):
    program = PROGRAMS[name](tuple(jax.devices()))
    assert program.images % jax.device_count() == 0
    with devices_lib.precision(program.precision):
        traced = program.run.trace(*program.arguments)
    assert "stablehlo" in traced.lower(lowering_platforms=("tpu",)).as_text()
