"""The one voice: what is said at which verbosity and where, and how progress is shown."""

import os
import pty
import re
import select
import sys
import termios

import pytest

from mixaug_jax.core import say


@pytest.fixture(autouse=True)
def console(monkeypatch):
    """The console's settings, which belong to the process, are put back."""
    monkeypatch.setattr(say, "_console", dict(say._console, said=set()))


@pytest.fixture
def clock(monkeypatch):
    """`clock(seconds)` lets time pass; nothing waits."""
    now = [100.0]
    monkeypatch.setattr(say.time, "monotonic", lambda: now[0])

    def passes(seconds):
        now[0] += seconds

    return passes


def speak():
    say.detail("detail")
    say.line("line")
    say.line()
    say.result("result")
    say.warning("warned")
    say.error(ValueError("failed"))


@pytest.mark.parametrize(
    ("level", "out"),
    [(-1, "result\n"), (0, "line\n\nresult\n"), (1, "detail\nline\n\nresult\n")],
)
def test_verbosity(level, out, capsys):
    say.set_verbosity(level)
    speak()
    said = capsys.readouterr()
    assert said.out == out
    assert said.err == "warning: warned\nerror: failed\n"


def test_the_default_is_0(capsys):
    speak()
    assert capsys.readouterr().out == "line\n\nresult\n"


@pytest.mark.parametrize("level", [-2, 2, "0", None])
@pytest.mark.usefixtures("unchecked")
def test_other_levels_are_refused(level):
    with pytest.raises(ValueError, match=re.escape(f"one of -1, 0, 1; got {level!r}")):
        say.set_verbosity(level)


def test_muted_processes_say_errors_alone(capsys, clock):
    say.set_verbosity(1)
    say.mute()
    speak()
    report = say.progress("forward", 30)
    for done in (1, 2, 30):
        report(done)
        clock(20)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "error: failed\n")


def test_without_a_terminal_a_line_at_most_every_ten_seconds(capsys, clock):
    report = say.progress("forward", 1000)
    clock(50)  # compilation, which the pace leaves out
    lines = []
    for done in range(10, 1010, 10):
        report(done)
        lines += [(done, line) for line in capsys.readouterr().out.splitlines()]
        clock(1)
    assert [done for done, _ in lines] == list(range(110, 1000, 100))
    assert lines[0][1] == "forward: 110 of 1000 images  10.0 images/s  ETA 1:29"
    assert lines[-1][1] == "forward: 910 of 1000 images  10.0 images/s  ETA 0:09"


def test_short_work_shows_no_progress(capsys, clock):
    report = say.progress("forward", 3)
    for done in (1, 2, 3):
        report(done)
        clock(4.9)
    assert capsys.readouterr().out == ""


def test_things_that_are_no_images(capsys, clock):
    report = say.progress("rendering", 9, "scenes")
    report(1)
    clock(12)
    report(4)
    assert capsys.readouterr().out == "rendering: 4 of 9 scenes  0.2 scenes/s  ETA 0:20\n"


@pytest.fixture
def terminal():
    """A pseudo-terminal to write to, and a function that tells what has been written."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))

    def written():
        found = b""
        while select.select([master], [], [], 0.1)[0]:  # it comes through in pieces
            found += os.read(master, 1 << 16)
        return found.decode()

    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        yield stream, written
    os.close(master)


def test_on_a_terminal_progress_is_a_bar(terminal, monkeypatch):
    stream, written = terminal
    monkeypatch.setattr(sys, "stdout", stream)
    report = say.progress("forward", 200)
    report(50)
    bar = written()
    assert bar.startswith("\rforward:  25%|")
    assert " 50/200 [" in bar
    assert "\n" not in bar
    say.line("a line in between")
    between = written()
    assert "a line in between\r\n" in between
    assert between.rstrip().rpartition("\n")[2].lstrip("\r").startswith("forward:  25%|")  # below
    report(200)
    gone = written()
    assert gone.split("\r")[-2].strip() == ""  # wiped, for the next line
    assert gone.endswith("\r")


def test_no_bar_where_only_results_are_asked_for(terminal, monkeypatch):
    stream, written = terminal
    monkeypatch.setattr(sys, "stdout", stream)
    say.set_verbosity(-1)
    report = say.progress("forward", 200)
    report(50)
    report(200)
    assert written() == ""


def test_a_clock_leaves_pauses_out(clock):
    timer = say.Clock(start=100, total=700)
    clock(20)
    timer.skip(5)
    assert timer.elapsed() == 15
    assert timer.tick(250) == (15, "0:45")
    clock(5)
    seconds, left = timer.tick(300)
    assert (seconds, left) == (5, "0:40")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (59.4, "0:59"),
        (59.6, "1:00"),
        (3599, "59:59"),
        (3723, "1:02:03"),
        (90000, "25:00:00"),
    ],
)
def test_durations(seconds, text):
    assert say.duration(seconds) == text


def test_what_is_said_once(capsys):
    for text in ("one", "two", "one"):
        say.once(text)
    assert capsys.readouterr().out == "one\ntwo\n"
