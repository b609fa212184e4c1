"""The addresses of a name, by a helper child, since getaddrinfo(3) blocks for as long as it likes.

The end of the helper is seen by the end of its pipe; whoever owns the loop reaps it, as all children (`Reaper`).
"""

from __future__ import annotations

import _socket  # the part of socket that needs no other module
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence

from procman.loop import Loop

MAX_ADDRESSES = 16  # of one name
MAX_TEXT = 64 * 1024  # of the helper
MAX_S = 3600.0

# Ends by itself after the time it is given, should nobody be left to end it.
_RESOLVER_CODE = """
import sys, _signal, _socket
_signal.setitimer(_signal.ITIMER_REAL, float(sys.argv[2]))
try:
    found = _socket.getaddrinfo(sys.argv[1].encode("ascii"), None, 0, _socket.SOCK_STREAM)
    text = "".join(f"{address[0]}\\n" for _, _, _, _, address in found)
except OSError as error:
    text = f"! {error.errno or 0} {error.strerror}\\n"
sys.stdout.write(text + ".\\n")
"""

RESOLVER = (sys.executable, "-I", "-S", "-c", _RESOLVER_CODE)
"""The command that resolves a name; name and seconds are appended."""


class Lookup:
    """A helper child that resolves one name."""

    def __init__(
        self,
        loop: Loop,
        name: str,
        limit_s: float,
        on_found: Callable[[list[str]], None],
        on_failure: Callable[[str, bool], None],
        resolver: Sequence[str] = RESOLVER,
    ) -> None:
        """`on_failure` takes the reason, and whether somebody who knows has said so. Raises OSError."""
        self.what_is_missing = "its name is not resolved"
        self._loop = loop
        self._on_found = on_found
        self._on_failure = on_failure
        self._text = b""
        self._fd, child_fd = os.pipe()
        os.set_blocking(self._fd, False)
        null_fd = -1
        try:
            null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            self._pid = os.posix_spawn(
                resolver[0],
                [*resolver, name, f"{min(limit_s, MAX_S):.3f}"],
                {name: value for name, value in os.environ.items() if not name.startswith("PROCMAN_")},
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, at) for at, fd in enumerate((null_fd, child_fd, null_fd))],
                setsid=True,  # Ctrl-C is not for it
                setsigmask=(),
                setsigdef=(signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE),
            )
        except BaseException:
            os.close(self._fd)
            raise
        finally:
            os.close(child_fd)
            if null_fd >= 0:
                os.close(null_fd)
        loop.add_reader(self._fd, self._on_readable)

    def close(self) -> None:
        if self._fd < 0:
            return
        # It lives as long as its end of the pipe is open, and is reaped only when the loop turns: the pid is its own.
        poll = select.poll()
        poll.register(self._fd, 0)
        if not poll.poll(0):  # POLLHUP comes whatever is asked for (poll(2))
            try:
                os.killpg(self._pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        self._loop.remove(self._fd)
        os.close(self._fd)
        self._fd = -1

    def _on_readable(self) -> None:
        try:
            data = os.read(self._fd, MAX_TEXT)
        except BlockingIOError:
            return
        if data:
            self._text += data[: MAX_TEXT - len(self._text)]
        else:
            self.close()
            self._tell()

    def _tell(self) -> None:
        lines = self._text.decode("ascii", "replace").split("\n")
        if lines[-2:] != [".", ""]:
            self._on_failure(unresolved("the helper process failed"), False)
            return
        if lines[0].startswith("!"):
            _, number, text = lines[0].split(" ", 2)
            self._on_failure(_problem(int(number), text), True)
            return
        self._on_found(list(dict.fromkeys(lines[:-2][:MAX_ADDRESSES])))


def _problem(number: int, text: str) -> str:
    unknown = (_socket.EAI_NONAME, getattr(_socket, "EAI_NODATA", _socket.EAI_NONAME))
    if number in unknown:
        return "there is no host of that name"
    if number == _socket.EAI_AGAIN:
        return unresolved("no name server answers")
    return unresolved(text)


def unresolved(why: str) -> str:
    return f"its name cannot be resolved: {why.lower()}"
