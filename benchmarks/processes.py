"""What /proc tells of the processes of one run. They are found by a token in their environment, never by their name."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import NamedTuple

TOKEN = "PROCMAN_BENCH"
SHELLS = ("sh", "dash", "bash")


class Processes(NamedTuple):
    """The pids of one run by what they are: shells that only wait for a child are neither manager nor child."""

    manager: list[int]
    shells: list[int]
    children: list[int]


def read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # it ended in between
        return b""


def marked(token: str) -> list[int]:
    """Return the processes of the run, but not the harness."""
    mark = f"{TOKEN}={token}\0".encode()
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [pid for pid in pids if pid != os.getpid() and mark in read(f"/proc/{pid}/environ")]


def of_run(token: str, folder: Path) -> Processes:
    """Sort the processes of the run. Of these only children have a path in the app's folder as an argument."""
    found = Processes([], [], [])
    inside = f"{folder}".encode()
    for pid in marked(token):
        argv = read(f"/proc/{pid}/cmdline").split(b"\0")
        if os.path.basename(argv[0]).decode(errors="replace") in SHELLS and b"-c" in argv[1:2]:
            found.shells.append(pid)
        elif any(argument == inside or argument.startswith(inside + b"/") for argument in argv[1:]):
            found.children.append(pid)
        elif argv != [b""]:  # a zombie
            found.manager.append(pid)
    return found


def kill_all(token: str) -> None:
    """Leave nothing of the run, whatever its manager did."""
    for _ in range(100):
        pids = [pid for pid in marked(token) if read(f"/proc/{pid}/cmdline")]
        if not pids:
            return
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)
    raise SystemExit(f"processes of {token} survive SIGKILL")


def tasks(pid: int) -> list[str]:
    try:
        return [f"/proc/{pid}/task/{task}" for task in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def cpu_s(pids: list[int]) -> float:
    """Return the seconds on a processor; schedstat counts nanoseconds, where stat counts hundredths of a second."""
    return sum(int((read(f"{task}/schedstat") or b"0").split()[0]) for pid in pids for task in tasks(pid)) / 1e9


def wakeups(pids: list[int]) -> int:
    """Return how often these processes went to sleep by themselves, which is how often they had been woken."""
    return sum(_field(f"{task}/status", "voluntary_ctxt_switches") for pid in pids for task in tasks(pid))


def threads(pids: list[int]) -> int:
    return sum(len(tasks(pid)) for pid in pids)


def memory_mb(pids: list[int], field: str) -> float:
    """Return `Pss` (shared pages divided among those who share them) or `Rss` in MB."""
    return sum(_field(f"/proc/{pid}/smaps_rollup", field) for pid in pids) / 1024


def _field(path: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)".encode(), read(path), re.MULTILINE)
    return int(found[1]) if found else 0
