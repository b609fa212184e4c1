"""The few calls Python lacks. Each returns False where the system has no such thing."""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself would be an import on the start path
    from typing import Any

FAULT_SWITCH = "PROCMAN_TEST_FAULT"
"""Only tests set this variable: "no-subreaper" is a system without one, "crash" is a bug on SIGUSR1."""

PR_SET_CHILD_SUBREAPER = 36  # prctl(2), Linux 3.4


def become_subreaper() -> bool:
    """Make orphaned descendants children of this process instead of init's (prctl(2)). Not inherited by fork."""
    if sys.platform != "linux" or os.environ.get(FAULT_SWITCH) == "no-subreaper":
        return False
    try:
        return _prctl_bare(PR_SET_CHILD_SUBREAPER, 1) == 0
    except (ImportError, AttributeError, TypeError):
        return _prctl(PR_SET_CHILD_SUBREAPER, 1) == 0


def _prctl_bare(option: int, value: int) -> int:
    return int(_bare_function("prctl")(option, value, 0, 0, 0))


def _bare_function(name: str) -> Any:
    """Return a C function by what ctypes is made of: 0.4 ms instead of 1.5 on the way to the first child."""
    import _ctypes

    class Int(_ctypes._SimpleCData):  # type: ignore[type-arg]
        _type_ = "i"

    class Function(_ctypes.CFuncPtr):
        _flags_ = _ctypes.FUNCFLAG_CDECL
        _restype_ = Int

    # A handle of None is the running program itself; find_library would fork a compiler driver.
    program = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]
    return Function(_ctypes.dlsym(program, name))


def _prctl(option: int, value: int) -> int:
    import ctypes

    return int(ctypes.CDLL(None).prctl(option, value, 0, 0, 0))


def open_inotify() -> int:
    """Return a descriptor that tells of changed files (inotify_init1(2)); -1 where there is none, or none is left."""
    return _call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC) if sys.platform == "linux" else -1


def add_inotify_watch(fd: int, path: str, mask: int) -> int:
    """Watch a directory (inotify_add_watch(2)); return the number that its events bear, -1 if it cannot be."""
    return _call("inotify_add_watch", fd, os.fsencode(path), mask)


def _call(name: str, *arguments: int | bytes) -> int:
    """Call a function of the C library that returns an int; -1 if there is none of that name."""
    try:
        return int(_bare_function(name)(*arguments))
    except OSError:  # dlsym(3) finds nothing
        return -1
    except (ImportError, AttributeError, TypeError):
        import ctypes

        return int(getattr(ctypes.CDLL(None), name)(*arguments))


def raise_file_limit(needed: int) -> int | None:
    """Raise our soft limit of open files to `needed`, or as far as the hard limit lets us (getrlimit(2)).

    Returns the limit that was there, for children to have, or None when nothing was to be done.
    """
    soft = os.sysconf("SC_OPEN_MAX")
    if needed <= soft:
        return None
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(max(soft, min(needed, hard_file_limit()))), hard))
    return soft


def hard_file_limit() -> float:
    """Return how many files we may ever have open."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return float("inf") if hard == resource.RLIM_INFINITY else hard


def signal_name(signum: int) -> str:
    """Return "SIGTERM" for 15; most real-time signals have no name: "signal 40"."""
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"


def flush_standard_streams() -> None:
    """Write what Python holds back; a stream that was closed when we started is None."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def complain(text: str) -> None:
    """Tell the user a line on stderr, if anybody reads it."""
    try:
        if sys.stderr is not None:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()
    except OSError:
        pass


def keep_freed_memory(size: int = 1024 * 1024) -> None:
    """Make malloc keep what is freed instead of giving it back at once.

    Blocks of output live for a turn each, and glibc's malloc returns the top of its heap whenever 128 KiB of it are
    free: each block then costs a page fault for each 4 KiB, and moving a GB takes twice the time, or not, by what else
    lies on the heap. Once a larger block that was mapped by itself is freed, malloc raises both of its limits to that
    size and twice that size (mallopt(3), M_MMAP_THRESHOLD). Nothing is written to this one, so it takes no memory.
    """
    bytes(size)
