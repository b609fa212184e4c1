"""What the tests of faults have in common: a look from outside, by /proc alone, and programs made to misbehave."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.app import CEILING_S, PYTHON, App, Run

CHILDREN = Path(__file__).parent / "children"
IS_ROOT = os.geteuid() == 0
NUMBERED = re.compile(rb"line (\d+)( \.*)?")


def child(app: App, name: str, *arguments: object) -> str:
    """Return the command of tests/faults/children/NAME.py, with the app's token as its first argument."""
    path = shlex.quote(str(CHILDREN / f"{name}.py"))
    return " ".join([PYTHON, path, app.token, *(shlex.quote(str(argument)) for argument in arguments)])


# --- looking from outside --------------------------------------------------------------------------------------------

def alive(app: App) -> dict[int, str]:
    """Return pid and command line of every process that has the app's token in its arguments."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and app.token.encode() in (words := read_proc(f"/proc/{entry}/cmdline")):
            found[int(entry)] = words.replace(b"\0", b" ").decode("utf-8", "replace")
    return found


def read_proc(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(1 << 20)
    except OSError:
        return b""


def stat_of(pid: int) -> list[str]:
    """Return the fields of proc_pid_stat(5) from the state on; empty when the process is gone."""
    return read_proc(f"/proc/{pid}/stat").decode("utf-8", "replace").rpartition(")")[2].split()


def children_of(pid: int) -> list[int]:
    """Return the children of `pid`, zombies too."""
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [found for found in pids if (stat := stat_of(found)) and int(stat[1]) == pid]


def zombies_of(*pids: int) -> list[int]:
    return [child for pid in pids for child in children_of(pid) if stat_of(child)[:1] == ["Z"]]


def guard_and_supervisor(run: Run, *, is_inside: bool = False) -> tuple[int, int]:
    """Return both pids by descent alone; `is_inside`: the command was started by unshare(1)."""
    guard = the_child(run.pid) if is_inside else run.pid
    return guard, the_child(guard)


def the_child(pid: int) -> int:
    """Return the first child of `pid`: in a guard that is the supervisor, which was there before any orphan."""
    return min(children_of(pid))


def resident_bytes(pid: int) -> int:
    return int(stat_of(pid)[21]) * os.sysconf("SC_PAGE_SIZE")


def peak_bytes(pid: int) -> int:
    """Return the most memory it ever had resident, since `forget_peak`."""
    found = re.search(rb"VmHWM:\s+(\d+) kB", read_proc(f"/proc/{pid}/status"))
    assert found
    return int(found[1]) << 10


def forget_peak(pid: int) -> int:
    """Begin to measure the peak anew (proc(5), clear_refs); return what is resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak_bytes(pid)


def cpu_ticks(pid: int) -> int:
    stat = stat_of(pid)
    return int(stat[11]) + int(stat[12])


def wait_until(is_true: Callable[[], bool], what: str) -> None:
    """For what the kernel tells nobody of (a state in /proc): look, and give way, until it is so."""
    deadline = time.monotonic() + CEILING_S
    while not is_true():
        assert time.monotonic() < deadline, f"not within {CEILING_S:g} s: {what}"
        select.select([], [], [], 0.002)


def wait_until_idle(pid: int) -> None:
    """Wait until a process does nothing any more: it read nothing and took no turn while we looked a hundred times."""
    seen: list[bytes] = []

    def is_idle() -> bool:
        status = read_proc(f"/proc/{pid}/status").partition(b"voluntary_ctxt_switches")[2]
        now = status + read_proc(f"/proc/{pid}/io") + stat_of(pid)[0].encode()
        seen[:] = [*seen[-99:], now]
        return len(seen) == 100 and len(set(seen)) == 1

    wait_until(is_idle, f"an idle {pid}")


def wait_for_end(*pids: int) -> None:
    """Wait until the processes have ended; whether they are reaped is their parent's affair."""
    deadline = time.monotonic() + CEILING_S
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0], f"{pid} goes on"
        finally:
            os.close(fd)


# --- what procman said -----------------------------------------------------------------------------------------------

def last_word(run: Run) -> str:
    """Return the last message of procman itself, which says what is left."""
    return next(event.text for event in reversed(run.events) if event.is_("notice", "system"))


def no_traceback(run: Run) -> None:
    said = run.err + run.out
    assert b"Traceback" not in said, run.failure("a traceback")
    assert b"a bug of ours" not in said, run.failure("a bug")


def payload(run: Run, name: str) -> bytes:
    """Return what stdout shows of one instance's output, prefixes removed; for runs with --no-timestamp."""
    prefix = re.compile(rb"(?m)^" + re.escape(name.encode()) + rb" *\| (.*\n)")
    own = (rb"started with pid ", rb"exited with code ", rb"terminated by ", rb"sending SIG", rb"did not stop")
    return b"".join(line for line in prefix.findall(run.out.replace(b"\r\n", b"\n")) if not line.startswith(own))


def assert_numbered(data: bytes, count: int | None = None) -> int:
    """Assert that `data` is `line 0`, `line 1` … in order and whole: 0 lost, 0 mixed. Returns how many there are."""
    lines = data.split(b"\n")
    assert lines.pop() == b"", f"the last line is not whole: {data[-100:]!r}"
    for expected, line in enumerate(lines):
        found = NUMBERED.fullmatch(line)
        if not found or int(found[1]) != expected:
            raise AssertionError(f"line {expected} of {len(lines)} is {line[:200]!r}")
    if count is not None:
        assert len(lines) == count
    return len(lines)


# --- a terminal that nobody interprets -------------------------------------------------------------------------------

def start_at_terminal(app: App, *arguments: str) -> Run:
    """Run `procman start` at a terminal of its own, quick enough for megabytes: its screen is not drawn."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 200))
    argv = [sys.executable, "-S", "-E", str(CHILDREN.parents[1] / "support" / "children" / "on_tty.py")]
    run = app.spawn(
        [*argv, *start_argv(app, *arguments)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        is_new_session=True,
        env={"NO_COLOR": "1"},
    )
    os.close(slave)
    run.master_fd = os.dup(master)
    run.follow(master, run.take_out)
    return run


# --- faults ----------------------------------------------------------------------------------------------------------

def procman_argv(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "procman", *arguments]


def start_argv(app: App, *arguments: str) -> list[str]:
    return procman_argv("start", "-p", str(app.port), *arguments)


def shell_start(app: App, before: str, *arguments: str, after: str = "") -> list[str]:
    """Return `sh -c 'BEFORE; exec procman start … AFTER'`, for limits and redirections."""
    return ["/bin/sh", "-c", f'{before or ":"}; exec {shlex.join(start_argv(app, *arguments))} "$@" {after}', "sh"]


def can(*argv: str) -> bool:
    """Tell whether this command succeeds here: not every machine lets us make namespaces."""
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


UNSHARE = ("unshare", *(() if IS_ROOT else ("-r",)))


@contextlib.contextmanager
def cgroup(controller: str, name: str) -> Iterator[Path]:
    """Make a cgroup (v1) of our own; what is left in it is killed."""
    path = Path("/sys/fs/cgroup", controller, name)
    path.mkdir()
    try:
        yield path
    finally:
        for pid in (path / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        wait_until(lambda: not (path / "cgroup.procs").read_text(), f"an empty {path}")
        path.rmdir()


def has_cgroup(controller: str) -> bool:
    return os.access(f"/sys/fs/cgroup/{controller}", os.W_OK) and os.path.exists(
        f"/sys/fs/cgroup/{controller}/cgroup.procs"
    )
