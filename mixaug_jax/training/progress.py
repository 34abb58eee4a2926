"""How a training run goes: waiting times, finite losses, console lines, a trace of early steps."""

import contextlib
import time

import jax
import numpy as np

from mixaug_jax.core import say
from mixaug_jax.training import metric_log


class Progress:
    """Collects the steps' metrics on the device and reports them at the log's cadence.

    Args:
      metric_log: where the lines go.
      rate: learning rate as a function of the step.
      batch_size: images a step.
      start, total: steps finished and steps in all.
    """

    def __init__(
        self, metric_log: metric_log.MetricLog, rate, batch_size: int, start: int, total: int
    ):
        self._log, self._rate, self._batch_size = metric_log, rate, batch_size
        self._start, self._total = start, total
        self._beside: dict = {}
        self._pending, self._waited, self._clock = [], 0.0, say.Clock(start, total)

    @contextlib.contextmanager
    def waiting(self):
        """Times the wait for a batch."""
        # One step stays in flight: the device works while the host gets the next batch, and a wait for data is told apart from
        # a host that merely ran far ahead.
        if len(self._pending) > 1:
            jax.block_until_ready(self._pending[-2])
        began = time.monotonic()
        yield
        self._waited += time.monotonic() - began

    @contextlib.contextmanager
    def paused(self):
        """Leaves the time of an evaluation or a checkpoint out of the rates."""
        began = time.monotonic()
        yield
        self._clock.skip(time.monotonic() - began)

    def add(self, step: int, metrics: dict) -> None:
        """Takes the device's metrics of a step; the first one's time is that of the compilation."""
        self._pending.append(metrics)
        if step == self._start + 1:
            jax.block_until_ready(metrics)
            say.line(f"compiled, and took the first step, in {self._clock.elapsed():.1f} s")
            self._clock, self._waited = say.Clock(step, self._total), 0.0

    def note(self, scores: dict) -> None:
        """Takes the scores of an evaluation, which the next line shows."""
        self._beside = scores

    def check_finite(self, step: int) -> np.ndarray:
        """The losses [n] of the steps up to `step` that are not reported yet.

        Raises:
          FloatingPointError: one is not finite.
        """
        self._pending = jax.device_get(self._pending)
        losses = np.array([v["loss"] for v in self._pending])
        if not np.isfinite(losses).all():
            # argmin of booleans is the first False; the last loss belongs to `step`.
            bad = step - len(losses) + 1 + int(np.argmin(np.isfinite(losses)))
            raise FloatingPointError(
                f"the loss is {losses[~np.isfinite(losses)][0]} at step {bad}; the last checkpoint before it is kept. "
                "Lower train.lr, lengthen train.warmup, or use model.dtype=float32"
            )
        return losses

    def report(self, step: int) -> None:
        """Prints and logs the means since the last report.

        Raises:
          FloatingPointError: a loss was not finite.
        """
        if not self._pending:
            return
        losses, values = self.check_finite(step), self._pending
        self._pending = []
        loss, accuracy = losses.mean(), np.mean([v["accuracy"] for v in values])
        seconds, left = self._clock.tick(step)
        images = len(values) * self._batch_size / seconds if step > self._start + 1 else 0.0
        wait = min(1.0, self._waited / seconds)
        self._waited = 0.0
        # The schedule counts finished steps, of which there were step - 1 at this update.
        lr = float(self._rate(step - 1))
        self._log.write(
            step, train_loss=float(loss), train_accuracy=float(accuracy), learning_rate=lr,
            images_per_second=images, data_wait=wait,
        )  # fmt: skip
        line = f"step {step}/{self._total} {step / self._total:4.0%}  loss {loss:.4f}  "
        line += f"accuracy {accuracy:.3f}  lr {lr:.4g}"
        if self._beside:
            line += f"  validation {self._beside['validation_accuracy']:.3f}"
        if images:  # the first step says nothing about the pace
            line += f"  {images:.0f} images/s  data wait {wait:.0%}  ETA {left}"
        say.line(line)


class Profile:
    """Traces `steps` early steps, after the compiling one, into `<workdir>/profile`."""

    def __init__(self, workdir, steps: int):
        self._folder, self._steps, self._on = str(workdir / "profile"), steps, False

    @contextlib.contextmanager
    def step(self, step: int, since_start: int):
        """Marks a step in the trace; `since_start` counts from 1."""
        if self._steps and since_start == 2:
            jax.profiler.start_trace(self._folder)
            self._on = True
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield
        if self._on and since_start > self._steps:
            self.stop()

    def stop(self) -> None:
        """Ends the trace, if one is running."""
        if self._on:
            jax.profiler.stop_trace()
            self._on = False
            say.line(f"profile of {self._steps} steps in {self._folder}")
