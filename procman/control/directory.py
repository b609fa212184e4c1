"""`.procman/`: which supervisors run here, and their sockets. Locks decide, no guess (docs/control-protocol.md)."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterator, Sequence

from procman.errors import ControlError

NAME = ".procman"
IGNORE_FILE = ".gitignore"


def sockets(directory: str) -> list[str]:
    """Return the paths of the sockets in `directory`, oldest first; whether anybody listens only connecting tells."""
    try:
        names = [name for name in os.listdir(directory) if name.endswith(".sock")]
    except OSError:
        return []
    paths = [os.path.join(directory, name) for name in names]
    return sorted(paths, key=_made_at)


def _made_at(path: str) -> float:
    with contextlib.suppress(OSError):
        return os.stat(path).st_mtime
    return 0.0


@contextlib.contextmanager
def inside(directory_fd: int) -> Iterator[None]:
    """Work in a directory for a moment: a name in it always fits into a socket's address, 108 bytes (unix(7))."""
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchdir(directory_fd)
        yield
    finally:
        os.fchdir(here)
        os.close(here)


def running_elsewhere(directory: str) -> dict[str, int]:
    """Return the process types that supervisors run here, each with the pid of its own."""
    with contextlib.suppress(OSError):
        claim = Claim(directory, 0)
        try:
            return claim.others()
        finally:
            os.close(claim.directory_fd)
    return {}


class Claim:
    """The right to run some process types here, held by a lock until the last process that has it open is gone."""

    def __init__(self, directory: str, pid: int) -> None:
        """Open the directory, making it if need be. Raises OSError where there can be none, or it is not ours alone."""
        self.pid = pid
        self.types: tuple[str, ...] = ()
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        self.directory = directory
        self.directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self.lock_fd = -1
        try:
            self._check_owner()
        except OSError:
            os.close(self.directory_fd)
            raise

    @property
    def socket_name(self) -> str:
        """The name of the supervisor's socket inside the directory."""
        return f"{self.pid}.sock"

    def _check_owner(self) -> None:
        found = os.fstat(self.directory_fd)
        if found.st_uid != os.geteuid():
            raise PermissionError(1, "it belongs to another user", self.directory)
        if found.st_mode & 0o077:
            os.fchmod(self.directory_fd, 0o700)
        with contextlib.suppress(FileExistsError):
            fd = self._open(IGNORE_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            os.write(fd, b"*\n")
            os.close(fd)

    def check(self, types: Collection[str]) -> None:
        """Take nothing. Raises ControlError where `take` would, now."""
        with self._all_locked():
            self._check(types)

    def _check(self, types: Collection[str]) -> None:
        running = [(pid, shared) for pid, others in self._others() if (shared := [n for n in others if n in types])]
        if running:
            raise _already_running(running, types)

    def take(self, types: Collection[str]) -> None:
        """Claim `types` beside those claimed already. Raises ControlError where another supervisor runs one of them."""
        with self._all_locked():
            self._check(types)
            if self.lock_fd < 0:
                self.lock_fd = self._open(f"{self.pid}.lock", os.O_RDWR | os.O_CREAT)
                fcntl.flock(self.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.types = tuple(dict.fromkeys((*self.types, *types)))
            # Names of types are letters, digits, "_" and "-", so this is JSON.
            names = ", ".join(f'"{name}"' for name in self.types)
            os.ftruncate(self.lock_fd, 0)
            os.pwrite(self.lock_fd, b'{"pid": %d, "types": [%s]}\n' % (self.pid, names.encode()), 0)

    def others(self) -> dict[str, int]:
        """Return the process types that other supervisors run here, each with the pid of its supervisor."""
        with self._all_locked():
            return {name: pid for pid, names in self._others() for name in names}

    def release(self) -> None:
        """Remove our files. The lock itself goes with the last process that has it open."""
        with contextlib.suppress(OSError), self._all_locked():
            self._remove(str(self.pid))

    def _open(self, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=self.directory_fd)

    @contextlib.contextmanager
    def _all_locked(self) -> Iterator[None]:
        fd = self._open("lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # for less than a millisecond
            yield
        finally:
            os.close(fd)

    def _others(self) -> Iterator[tuple[int, list[str]]]:
        """Yield pid and types of each other supervisor that lives; remove what the dead have left."""
        for name in os.listdir(self.directory_fd):
            stem, _, kind = name.rpartition(".")
            if kind != "lock" or not stem or (stem == str(self.pid) and self.lock_fd >= 0):
                continue
            try:
                fd = self._open(name, os.O_RDWR)
            except OSError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._remove(stem)
            except BlockingIOError:
                yield _lock_content(os.pread(fd, 65_536, 0))
            finally:
                os.close(fd)

    def _remove(self, stem: str) -> None:
        for kind in ("sock", "lock"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{stem}.{kind}", dir_fd=self.directory_fd)


def _lock_content(data: bytes) -> tuple[int, list[str]]:
    import json

    try:
        content = json.loads(data)
        return int(content["pid"]), [str(name) for name in content["types"]]
    except (ValueError, KeyError, TypeError):
        return 0, []


def _already_running(running: Sequence[tuple[int, list[str]]], types: Collection[str]) -> ControlError:
    """Name who runs which of `types`, and the command for either wish."""
    shared = [name for _, names in running for name in names]
    free = [name for name in types if name not in shared]
    told = [
        f"{' and '.join(names)} already {'run' if names[1:] else 'runs'} here, under procman with pid {pid}"
        for pid, names in running
    ]
    ends = "`procman quit` ends " + ("both" if len(running) == 2 else "all" if running[2:] else "it")
    rest = f"`procman start {' '.join(free)}` starts the rest" if free else "nothing else was to be started"
    return ControlError("; ".join(told), hint=f"`procman restart {' '.join(shared)}` restarts, {ends}; {rest}")
