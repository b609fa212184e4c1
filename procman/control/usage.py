"""What instances use: CPU time and memory of a process and all that came of it, in one pass over the system."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from procman.records import NamedTuple


class Usage(NamedTuple):
    cpu_s: float  # of all processes, and of children that have ended and were waited for
    memory_bytes: int  # resident: pages that two processes share count twice


class _Process(NamedTuple):
    pid: int
    parent: int
    group: int
    session: int
    cpu_s: float
    memory_bytes: int


def usage_of(pid_of: Mapping[str, int]) -> dict[str, Usage]:
    """Return what each instance uses; one whose process is not to be seen is left out.

    To an instance belong its process, all descendants, and whatever is still in its session or process group. What
    has left those and lost its parent is a child of the supervisor, and known by the name in its environment.
    """
    processes = {process.pid: process for process in _all()}
    names = {pid: name for name, pid in pid_of.items()}
    supervisors = {processes[pid].parent for pid in names if pid in processes}
    owner_of: dict[int, str] = {}
    totals: dict[str, tuple[float, int]] = {}
    for process in processes.values():
        name = _owner(process, processes, names, owner_of, supervisors)
        if name in pid_of:
            cpu_s, memory_bytes = totals.get(name, (0.0, 0))
            totals[name] = cpu_s + process.cpu_s, memory_bytes + process.memory_bytes
    return {name: Usage(*totals[name]) for name, pid in pid_of.items() if name in totals and pid in processes}


class Meter:
    """Adds to instances what they use: since the start, and from the second look on since the last one."""

    def __init__(self) -> None:
        self._last: Mapping[tuple[str, int], Usage] = {}
        self._looked_at = 0.0

    def measured(self, instances: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the records of `instances` with uptime_s, cpu_percent and memory_bytes."""
        now_s = time.time()
        used = usage_of({i["name"]: i["pid"] for i in instances if i["pid"] is not None})
        pid_of = {instance["name"]: instance["pid"] for instance in instances}
        current = {(name, pid_of[name]): usage for name, usage in used.items()}
        passed_s = now_s - self._looked_at
        measured = []
        for instance in instances:
            started_at = instance["started_at"]
            uptime_s = None if started_at is None else max(0.0, now_s - started_at)
            key = (instance["name"], instance["pid"])
            usage = current.get(key)
            before = self._last.get(key)
            if usage is None:
                percent = None
            elif before is not None:
                percent = max(0.0, usage.cpu_s - before.cpu_s) / max(passed_s, 0.001) * 100
            else:
                percent = usage.cpu_s / max(uptime_s or 0.0, 0.01) * 100
            measured.append(
                {
                    **instance,
                    "uptime_s": None if uptime_s is None else round(uptime_s, 3),
                    "cpu_percent": None if percent is None else round(percent, 1),
                    "memory_bytes": None if usage is None else usage.memory_bytes,
                }
            )
        self._last, self._looked_at = current, now_s
        return measured


def _owner(
    process: _Process,
    processes: Mapping[int, _Process],
    names: Mapping[int, str],
    owner_of: dict[int, str],
    supervisors: Collection[int],
) -> str:
    """Return the instance that `process` belongs to, "" for none; `owner_of` remembers it for the whole line."""
    line = []
    current: _Process | None = process
    found = ""
    while current is not None:
        if current.pid in owner_of:
            found = owner_of[current.pid]
            break
        found = names.get(current.pid) or names.get(current.session) or names.get(current.group) or ""
        line.append(current.pid)
        owner_of[current.pid] = found  # for now, so that no line goes in a circle
        if found:
            break
        if current.parent in supervisors:
            found = _marked(current.pid)
            break
        current = processes.get(current.parent)
    for pid in line:
        owner_of[pid] = found
    return found


def _marked(pid: int) -> str:
    from procman.sweep import mark_of

    return mark_of(pid)[1]


def _all() -> Iterator[_Process]:
    return _from_proc() if sys.platform == "linux" else _from_psutil()


def _from_proc() -> Iterator[_Process]:
    """Read proc_pid_stat(5) of all: 10 µs each, a tenth of what psutil needs."""
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return  # another pid namespace's: its numbers are not ours
        entries = os.listdir("/proc")
    except OSError:
        return
    for entry in entries:
        if not entry.isdecimal():
            continue
        try:
            fd = os.open(f"/proc/{entry}/stat", os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.read(fd, 4096)
            finally:
                os.close(fd)
        except OSError:  # it has ended
            continue
        # Behind the name, which may hold anything: state, parent, group, session … utime is the 12th, rss the 22nd.
        fields = data.rpartition(b")")[2].split(None, 23)
        if len(fields) > 22:
            ticks = int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])
            yield _Process(
                int(entry), int(fields[1]), int(fields[2]), int(fields[3]), ticks * tick_s, int(fields[21]) * page_bytes
            )


def _from_psutil() -> Iterator[_Process]:
    import psutil

    for process in psutil.process_iter():
        try:
            times, memory = process.cpu_times(), process.memory_info()
            cpu_s = times.user + times.system + times.children_user + times.children_system
            yield _Process(
                process.pid, process.ppid(), os.getpgid(process.pid), os.getsid(process.pid), cpu_s, memory.rss
            )
        except (psutil.Error, OSError):
            continue
