"""All that was written is shown: whole lines, in order for each process, however it ended. Checked by numbers."""

from __future__ import annotations

import re
import signal

import pytest

from tests.faults.helpers import (
    alive,
    assert_numbered,
    child,
    forget_peak,
    guard_and_supervisor,
    no_traceback,
    payload,
    peak_bytes,
    start_argv,
    start_at_terminal,
)
from tests.support.app import App, Run

LINES = 20_000
HUGE = 30_000_000
WAYS = {"pipe": "--no-pty", "pty": "--pty"}
each_way = pytest.mark.parametrize("way", WAYS)


def run_to_end(app: App, way: str, *arguments: str) -> Run:
    run = app.spawn(start_argv(app, "--no-timestamp", WAYS[way], *arguments))
    run.wait()
    no_traceback(run)
    assert alive(app) == {}
    return run


@each_way
@pytest.mark.parametrize("seed", ["", "SEED=1"])
def test_many_lines_and_an_exit_at_once(app: App, way: str, seed: str) -> None:
    app(f"web: {child(app, 'spout', LINES, *([seed] if seed else []))}")
    run = run_to_end(app, way)
    assert_numbered(payload(run, "web.1"), LINES)
    assert run.text.index("line 19999\n") < run.text.index("web.1  | exited with code 0")
    assert run.code == 0


def test_many_lines_at_a_terminal(app: App) -> None:
    app(f"web: {child(app, 'spout', LINES)}")
    run = start_at_terminal(app, "--no-timestamp")
    assert run.wait() == 0
    assert_numbered(payload(run, "web.1"), LINES)


def test_many_lines_as_events(app: App) -> None:
    app(f"web: {child(app, 'spout', LINES, 'SEED=2')}")
    run = app.start("--no-timestamp")
    assert run.wait() == 0
    assert run.output_of("web.1") == [f"line {number}" for number in range(LINES)]
    assert not any(event.get("partial") for event in run.events)
    assert_numbered(payload(run, "web.1"), LINES)
    assert [event.event for event in run.events if event.name == "web.1"][-1] == "exited"


@each_way
def test_killed_right_behind_the_last_write(app: App, way: str) -> None:
    app(f"web: {child(app, 'spout', LINES, 'KILL')}")
    run = run_to_end(app, way)
    assert_numbered(payload(run, "web.1"), LINES)
    assert run.code == 137


@each_way
@pytest.mark.parametrize("code", [0, 3])
def test_one_line_before_the_exit(app: App, way: str, code: int) -> None:
    """Twenty at a time, for the race is between the output and the end."""
    app(f"web: echo line 0; exit {code}")
    run = app.spawn(start_argv(app, "web=20", "--no-timestamp", "--on-exit", "ignore", WAYS[way]))
    run.wait()
    for number in range(1, 21):
        assert_numbered(payload(run, f"web.{number}"), 1)


@each_way
def test_last_line_without_newline(app: App, way: str) -> None:
    app(f"web: {child(app, 'spout', LINES, 'NOEND')}")
    assert_numbered(payload(run_to_end(app, way), "web.1"), LINES)


@each_way
def test_output_during_shutdown(app: App, way: str) -> None:
    app(f"web: {child(app, 'spout', LINES, 'ON=TERM')}\nother: {child(app, 'spout', LINES, 'ON=TERM', 'NOEND')}")
    run = app.spawn(start_argv(app, "--no-timestamp", WAYS[way]))
    run.wait_line(r"^web\.1 +\| up$")
    run.wait_line(r"^other\.1 +\| up$")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    for name in ("web.1", "other.1"):
        seen = payload(run, name)
        assert seen.startswith(b"up\n")
        assert_numbered(seen[3:], LINES)


@each_way
def test_output_of_a_grandchild_after_its_parents_end(app: App, way: str) -> None:
    """It is told to end, for its instance has ended; what it writes then is shown, and before `exited`."""
    app(f"web: {child(app, 'spout', LINES, 'ON=TERM')} & sleep 0.3; exit 4")
    run = run_to_end(app, way)
    assert run.code == 4
    seen = payload(run, "web.1")
    assert seen.startswith(b"up\n")
    assert_numbered(seen[3:], LINES)


@each_way
def test_output_of_an_orphan_nobody_knows(app: App, way: str) -> None:
    """A daemon of a dead leader, without our mark, writes into the pipe it inherited long after `exited`."""
    gate = app.fifo()
    app(f"web: {child(app, 'spout', LINES, f'ON={gate.path}', 'ASIDE', 'STAY')}\nother: exec sleep 1000")
    run = app.start("--no-timestamp", "--can-die", "web", WAYS[way])
    run.wait_for("exited", "web.1", code=0)
    gate.send()
    if alive_writer(app):
        run.wait_output(f"line {LINES - 1}", "web.1")
        assert_numbered(payload(run, "web.1").removesuffix(b"\n") + b"\n", LINES)
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert alive(app) == {}


def alive_writer(app: App) -> bool:
    return any("spout.py" in words for words in alive(app).values())


def test_a_full_mebibyte_in_the_pipe_at_the_end(app: App) -> None:
    """1 MiB waits in the pipe when the process ends: all that is drained before `exited`."""
    count = 300_000
    size = 1 << 20  # the most a user may ask for (pipe(7))
    app(f"web: {child(app, 'spout', count, f'BIG={size}', 'CODE=7')}\nother: exec sleep 1000")
    run = run_to_end(app, "pipe")
    assert run.code == 7
    assert_numbered(payload(run, "web.1"), count)


def test_a_full_mebibyte_in_the_pipe_and_a_restart(app: App) -> None:
    """The next process of the instance writes while the last one's output still waits."""
    gate = app.fifo()
    count = 300_000
    spout = child(app, "spout", count, f"BIG={1 << 20}", "CODE=0")
    app(f"web: echo begin; {spout}; echo end; read x < {gate}; exit 1")
    run = app.spawn(start_argv(app, "--no-timestamp", "--restart", "web"))
    run.wait_line(r"^web\.1 +\| end$")
    gate.send()
    run.wait_until(lambda: run.out.count(b"| end\n") == 2, "second run")
    run.signal(signal.SIGTERM)
    run.wait()
    for part in payload(run, "web.1").split(b"begin\n")[1:]:
        own = re.sub(rb"(?m)^restarting in .*\n", b"", part.partition(b"end\n")[0])
        assert_numbered(own, count)


@each_way
@pytest.mark.parametrize("ends", ["newline", "none"])
def test_ten_megabytes_in_one_line(app: App, way: str, ends: str) -> None:
    """Two of them, and a third process that writes lines meanwhile: each line stays whole."""
    size = 10_000_000
    big = f"head -c {size} /dev/zero | tr '\\0' {{}}" + ("; echo" if ends == "newline" else "")
    app(
        f"a: {big.format('a')}\nb: {big.format('b')}\n"
        f"lines: {child(app, 'spout', LINES)}\n"
    )
    run = app.spawn(start_argv(app, "--no-timestamp", "--on-exit", "ignore", WAYS[way]))
    assert run.wait() == 0
    for name in "ab":
        seen = payload(run, f"{name}.1")
        assert len(seen) == size + 1
        assert seen == name.encode() * size + b"\n"
    assert_numbered(payload(run, "lines.1"), LINES)


@each_way
def test_memory_is_bounded_whatever_the_length_of_a_line(app: App, way: str) -> None:
    """30 MB without a newline, of a process that lives on: shown as they come, never kept."""
    gate = app.fifo()
    app(f"a: read x < {gate}; head -c {HUGE} /dev/zero | tr '\\0' a; read x < {gate}\nb: exec sleep 1000")
    run = app.spawn(start_argv(app, "--no-timestamp", WAYS[way]))
    run.wait_line(r"^b\.1 .*started with pid")
    supervisor = guard_and_supervisor(run)[1]
    before = forget_peak(supervisor)
    gate.send()
    run.wait_until(lambda: run.out_bytes > HUGE, "all of it")
    assert peak_bytes(supervisor) - before < 8 << 20
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert payload(run, "a.1") == b"a" * HUGE + b"\n"


@each_way
def test_floods_of_four(app: App, way: str) -> None:
    count = 50_000
    floods = [child(app, "spout", count, f"SEED={seed}", "WIDTH=60" if seed % 2 else "CODE=0") for seed in range(4)]
    app("\n".join(f"flood{number}: {flood}" for number, flood in enumerate(floods)))
    run = app.spawn(start_argv(app, "--no-timestamp", "--on-exit", "ignore", WAYS[way]))
    assert run.wait() == 0
    for number in range(4):
        assert_numbered(payload(run, f"flood{number}.1"), count)


def test_floods_of_four_at_a_terminal(app: App) -> None:
    count = 20_000
    app("\n".join(f"flood{number}: {child(app, 'spout', count, f'SEED={number}')}" for number in range(4)))
    run = start_at_terminal(app, "--no-timestamp", "--on-exit", "ignore")
    assert run.wait() == 0
    for number in range(4):
        assert_numbered(payload(run, f"flood{number}.1"), count)


@each_way
def test_flood_when_the_run_ends(app: App, way: str) -> None:
    """One exits and ends the run while three flood: what they wrote until their end is shown, to the last byte."""
    report, gate = app.fifo("report"), app.fifo("gate")
    flood = child(app, "spout", 2_000_000_000, f"EXACT={report.path}")
    app(f"flood: {flood}\nother: read x < {gate}; exit 2")
    run = app.spawn(start_argv(app, "flood=3", "other=1", "--no-timestamp", WAYS[way]))
    for _ in range(3):
        assert report.receive() == "up"
    gate.send()
    assert run.wait() == 2
    written = sorted(int(report.receive()) for _ in range(3))
    seen = [payload(run, f"flood.{number}") for number in (1, 2, 3)]
    for data in seen:
        assert_numbered(data[: data[:-1].rfind(b"\n") + 1])
    for total, data in zip(written, sorted(seen, key=len), strict=True):
        assert len(data) - total in (0, 1)


def test_output_while_another_is_restarted_over_and_over(app: App) -> None:
    app(f"web: {child(app, 'spout', 100_000, 'SEED=5')}; sleep 2\nquick: {child(app, 'spout', 500, 'CODE=1')}")
    run = app.spawn(start_argv(app, "--no-timestamp", "--restart", "quick"))
    run.wait()
    assert_numbered(payload(run, "web.1"), 100_000)
    quick = re.sub(rb"(?m)^restarting in .*\n", b"", payload(run, "quick.1"))
    parts = [b"line 0\n" + part for part in quick.split(b"line 0\n")[1:]]
    assert len(parts) >= 2
    for part in parts:
        assert_numbered(part, 500)
