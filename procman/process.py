"""Spawn and signal one process group; reap every child."""

from __future__ import annotations

import errno
import functools
import os
import signal
from collections.abc import Callable, Collection, Mapping

from procman.errors import EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, SpawnError
from procman.records import NamedTuple
from procman.spec import ProcessSpec, os_bytes

# CPython ignores these two, and an ignored signal stays ignored across execve (signal(7)): children get the default.
_IGNORED_BY_PYTHON = tuple(
    getattr(signal, name) for name in ("SIGPIPE", "SIGXFSZ") if hasattr(signal, name)
)

# procman listens to these, whatever its caller ignores; execve would make them default (signal(7)).
_LISTENED_TO = (signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


# What openpty(3) says when ptys are used up, or /dev/pts is not there.
_NO_PTY = (errno.ENOSPC, errno.EAGAIN, errno.EIO, errno.ENOENT, errno.EACCES, errno.ENXIO)


# Backspace takes a character away and not a byte (termios(3)); termios knows the name from Python 3.14 on.
_IUTF8 = 0o40000


class ExitStatus(NamedTuple):
    """How a process ended: `code` as a shell reports it (128 + n for signal n), `signum` 0 or the signal."""

    code: int
    signum: int

    @classmethod
    def of(cls, wait_status: int) -> ExitStatus:
        if os.WIFSIGNALED(wait_status):
            signum = os.WTERMSIG(wait_status)
            return cls(128 + signum, signum)
        return cls(os.WEXITSTATUS(wait_status), 0)


class Terminal(NamedTuple):
    """The size children see, in cells, and pixels 0: `struct winsize` of ioctl_tty(2)."""

    rows: int
    columns: int


class Process:
    """One process group and our end of its output. `pid` is its leader, and the group's and session's id."""

    __slots__ = ("output_fd", "pid", "slave_fd", "started_s")

    def __init__(self, pid: int, output_fd: int, slave_fd: int, started_s: float) -> None:
        self.pid = pid
        self.output_fd = output_fd
        self.slave_fd = slave_fd
        self.started_s = started_s

    def resize(self, terminal: Terminal) -> None:
        """Tell the programs of a pty its new size. It controls no session, so the kernel signals nobody: we do."""
        if self.slave_fd >= 0:
            _set_size(self.slave_fd, terminal)
            signal_group(self.pid, signal.SIGWINCH)

    def close_slave(self) -> None:
        if self.slave_fd >= 0:
            os.close(self.slave_fd)
            self.slave_fd = -1


def spawn(
    spec: ProcessSpec,
    env: Mapping[bytes, bytes],
    terminal: Terminal | None,
    started_s: float,
    file_limit: int | None = None,
    ignored: Collection[int] = (),
) -> Process:
    """Start the process of `spec` in a session of its own, with stdin, stdout and stderr of ours.

    `env` is the whole environment. With `terminal` all three are a new pty, which is not the controlling terminal: that
    would hang up `cd x && app` before its own handler for the stop signal ran. Without one, stdin is /dev/null and the
    other two one pipe, so that their order is kept; so it is when the system has no pty left. `file_limit` is the
    soft limit of open files it gets, if that is not ours; `ignored` are signals to ignore. Raises SpawnError.
    """
    is_pty = terminal is not None
    try:
        if terminal is not None:
            try:
                output_fd, child_fd = _open_pty(terminal)
            except OSError as error:
                if error.errno not in _NO_PTY:
                    raise
                is_pty = False
        if not is_pty:
            output_fd, child_fd = _open_pipe()
    except OSError as error:
        raise _spawn_error(spec, error) from None
    stdin = child_fd if is_pty else _null_fd()
    try:
        pid = os.posix_spawn(
            spec.argv[0],
            [os_bytes(word) for word in _prepared(spec, file_limit, ignored)],
            env,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, at) for at, fd in enumerate((stdin, child_fd, child_fd))],
            setsid=True,
            setsigmask=(),
            setsigdef={*_IGNORED_BY_PYTHON, spec.stop_signal},
        )
    except OSError as error:
        os.close(output_fd)
        os.close(child_fd)
        raise _spawn_error(spec, error) from None
    if is_pty:
        # On a master POLLHUP stands whenever no slave is open, so one stays open as long as the process is ours.
        return Process(pid, output_fd, child_fd, started_s)
    os.close(child_fd)
    return Process(pid, output_fd, -1, started_s)


def ignored_by_caller() -> frozenset[int]:
    """Return the signals that children must be told to ignore, too. To be asked before a handler is set."""
    return frozenset(signum for signum in _LISTENED_TO if signal.getsignal(signum) is signal.SIG_IGN)


def _prepared(spec: ProcessSpec, file_limit: int | None, ignored: Collection[int]) -> tuple[str, ...]:
    """Return the argv with what only the shell can do before: posix_spawn cannot ignore a signal, and glibc's refuses
    descriptors above the limit of its own process, so ours must stay."""
    shell, flag, text = spec.argv
    if file_limit is not None:
        text = f"ulimit -S -n {file_limit}\n{text}"
    numbers = [str(int(signum)) for signum in sorted(ignored) if signum != spec.stop_signal]
    if numbers:
        text = f"trap '' {' '.join(numbers)}\n{text}"
    return shell, flag, text


@functools.cache
def _null_fd() -> int:
    # Opened here and not in the child, whose limit of open files may be below what is open already.
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def _open_pipe() -> tuple[int, int]:
    reader, writer = os.pipe()  # close-on-exec, both
    os.set_blocking(reader, False)  # each end has an open file description of its own (pipe(7))
    return reader, writer


def _open_pty(terminal: Terminal) -> tuple[int, int]:
    import termios  # only on a terminal

    master, slave = os.openpty()  # close-on-exec; glibc opens the slave with O_NOCTTY
    os.set_blocking(master, False)
    attributes = termios.tcgetattr(slave)
    attributes[0] |= _IUTF8
    attributes[1] &= ~termios.OPOST  # no \r before \n: lines go on as they were written
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    _set_size(slave, terminal)
    return master, slave


def _set_size(fd: int, terminal: Terminal) -> None:
    import termios

    termios.tcsetwinsize(fd, (terminal.rows, terminal.columns))


def _spawn_error(spec: ProcessSpec, error: OSError) -> SpawnError:
    hints = dict.fromkeys(
        (errno.ENOENT, errno.EACCES, errno.ENOEXEC), f"it is {spec.argv[0]} that cannot be executed"
    ) | {
        errno.EMFILE: "raise the limit of open files (ulimit -n) or run fewer instances",
        errno.ENFILE: "the whole system has too many files open",
        errno.EAGAIN: "the limit of processes is reached (ulimit -u)",
        errno.ENOMEM: "the system is out of memory",
        errno.E2BIG: "the command and its environment are too long together",
    }
    failure = SpawnError(
        f"{spec.name} cannot start: {os.strerror(error.errno or 0).lower()}",
        source=spec.source,
        hint=hints.get(error.errno or 0, ""),
    )
    codes = {errno.ENOENT: EXIT_NOT_FOUND, errno.EACCES: EXIT_NOT_EXECUTABLE, errno.ENOEXEC: EXIT_NOT_EXECUTABLE}
    failure.exit_code = codes.get(error.errno or 0, SpawnError.exit_code)
    return failure


def signal_group(pgid: int, signum: int) -> bool:
    """Send `signum` to the group; False when it has no member left. One that is not ours to signal counts as one."""
    try:
        os.killpg(pgid, signum)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def stop_group(pgid: int, signum: int) -> bool:
    """Send the stop signal, then SIGCONT: a stopped process cannot obey anything but SIGKILL (signal(7))."""
    exists = signal_group(pgid, signum)
    return signal_group(pgid, signal.SIGCONT) and exists


def group_exists(pgid: int) -> bool:
    return signal_group(pgid, 0)


class Reaper:
    """Every child's end, once. Nothing else in the process may wait for children."""

    def __init__(self) -> None:
        self._callbacks: dict[int, Callable[[ExitStatus], None]] = {}

    def watch(self, pid: int, callback: Callable[[ExitStatus], None]) -> None:
        self._callbacks[pid] = callback

    def pids(self) -> set[int]:
        """Return the children whose end somebody waits for."""
        return set(self._callbacks)

    def reap(self) -> bool:
        """Reap all that have ended; False when no child is left at all (ECHILD): the proof of a clean end."""
        # One SIGCHLD may stand for many children, so ask until the kernel has no more.
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            callback = self._callbacks.pop(pid, None)
            if callback is not None:  # else an adopted orphan: a subreaper's share
                callback(ExitStatus.of(wait_status))
