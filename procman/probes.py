"""Asks one running instance whether it is ready, or still healthy, without blocking: port, HTTP, log line, command; and
hears its notifications. Times out each attempt; all else that time decides is the supervisor's.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable, Mapping

from procman import sweep
from procman.errors import SpawnError, quoted
from procman.kernel import signal_name
from procman.loop import Loop, Timer
from procman.process import ExitStatus, Reaper, signal_group, spawn
from procman.readiness import (
    COMMAND,
    HTTP,
    LOG,
    MAX_DATAGRAM_BYTES,
    PORT,
    LogPattern,
    Probe,
    failures_after,
    for_people,
    http_request,
    is_unhealthy,
    judge_http,
    last_line,
    liveness_pause_s,
    parse_notify,
    ready_pause_s,
)
from procman.spec import ProcessSpec, shell_argv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from procman.protocols import Talk

    class Attempt(Protocol):
        """A question that is under way; `close()` ends it without an answer."""

        def close(self) -> None: ...

    Answer = Callable[[str], None]  # "" is yes, else why not
    Ask = Callable[[Answer], Attempt]
    Tap = Callable[[bytes], None]

READ_BYTES = 65_536
TAIL_BYTES = 4_096  # kept of what a command writes: its last line is the reason
DRAIN_READS = 16  # a pipe holds 1 MiB at most (fcntl(2), F_SETPIPE_SZ); whoever fills it on is not waited for


class Prober:
    """Asks one running instance, again and again until it is enough. `reason` says why the last answer was no."""

    def __init__(
        self, loop: Loop, ask: Ask, next_pause_s: Callable[[str], float | None], first_pause_s: float, reason: str
    ) -> None:
        """`next_pause_s` takes each answer and tells when to ask again: None means no more."""
        self.reason = reason
        self._loop = loop
        self._ask = ask
        self._next_pause_s = next_pause_s
        self._attempts = 0
        self._open = 0  # the number of the attempt that is under way; 0: none is
        self._attempt: Attempt | None = None
        self._timer: Timer | None = loop.call_later(first_pause_s, self._begin)

    def hear_out(self) -> None:
        """The process has ended: nobody is there to be asked any more."""

    def close(self) -> None:
        """Ask no more. Nothing of it is left in the loop, and nobody is called back."""
        self._open = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._attempt is not None:
            self._attempt.close()
            self._attempt = None

    def _begin(self) -> None:
        self._timer = None
        self._attempts += 1
        number = self._open = self._attempts
        attempt = self._ask(lambda answer: self._take(number, answer))
        if self._open == number:
            self._attempt = attempt
        else:
            attempt.close()  # it was answered before it could be returned

    def _take(self, number: int, answer: str) -> None:
        if self._open != number:
            return
        self._open = 0
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.close()
        self.reason = answer
        pause_s = self._next_pause_s(answer)
        if pause_s is not None:  # None also where somebody was told, who may have closed it
            self._timer = self._loop.call_later(pause_s, self._begin)


class LogProber:
    """Looks at all that an instance writes, until a line matches. It answers like a Prober, but asks nobody."""

    def __init__(self, loop: Loop, probe: Probe, taps: list[Tap], on_ready: Callable[[], None]) -> None:
        self.reason = f"no line of its output matches {quoted(probe.pattern)}"
        self._loop = loop
        self._pattern: LogPattern | None = LogPattern(probe.pattern)
        self._taps = taps
        self._tap: Tap = self._take
        self._on_ready = on_ready
        taps.append(self._tap)

    def hear_out(self) -> None:
        """The process has ended, and its output was read: what was found counts at once, and an end ends a line."""
        if self._pattern is None or self._pattern.feed(b"\n"):
            self._finish()

    def close(self) -> None:
        self._pattern = None
        self._on_ready = _nothing
        if self._tap in self._taps:
            self._taps.remove(self._tap)

    def _take(self, chunk: bytes) -> None:
        if self._pattern is not None and self._pattern.feed(chunk):
            self._pattern = None
            # The list is being walked through just now; and the line is to be shown before what follows from it.
            self._loop.at_turn_end(self._finish)

    def _finish(self) -> None:
        on_ready = self._on_ready
        self.reason = ""
        self.close()
        on_ready()


def begin_ready(
    loop: Loop,
    probe: Probe,
    spec: ProcessSpec,
    env: Mapping[bytes, bytes],
    reaper: Reaper,
    taps: list[Tap],
    on_ready: Callable[[], None],
) -> Prober | LogProber:
    """Ask until the answer is yes; then `on_ready()` is called, and nothing of it is left in the loop.

    `env` is the whole environment of the instance; `taps` are called with all that it writes. Nobody is called back
    before this returns. NOTIFY has a NotifySocket instead.
    """
    if probe.kind == LOG:
        return LogProber(loop, probe, taps, on_ready)
    attempts = 0

    def next_pause_s(answer: str) -> float | None:
        nonlocal attempts
        attempts += 1
        if not answer:
            on_ready()
            return None
        return ready_pause_s(probe, attempts)

    ask = _asker(loop, probe, spec, env, reaper)
    return Prober(loop, ask, next_pause_s, ready_pause_s(probe, 0), "it has not answered yet")


def begin_liveness(
    loop: Loop,
    probe: Probe,
    spec: ProcessSpec,
    env: Mapping[bytes, bytes],
    reaper: Reaper,
    on_unhealthy: Callable[[str], None],
) -> Prober:
    """Ask again and again; call `on_unhealthy(reason)` once, behind `probe.failures` failures in a row, and ask no
    more."""
    failures = 0

    def next_pause_s(answer: str) -> float | None:
        nonlocal failures
        failures = failures_after(failures, answer)
        if is_unhealthy(probe, failures):
            on_unhealthy(answer)
            return None
        return liveness_pause_s(probe)

    ask = _asker(loop, probe, spec, env, reaper)
    return Prober(loop, ask, next_pause_s, liveness_pause_s(probe), "")


def _asker(loop: Loop, probe: Probe, spec: ProcessSpec, env: Mapping[bytes, bytes], reaper: Reaper) -> Ask:
    if probe.kind == COMMAND:
        return _Commands(loop, probe, spec, env, reaper).ask
    if probe.kind not in (PORT, HTTP):
        raise ValueError(f"{probe.kind} is not asked for")
    port = spec.port if probe.port is None else probe.port
    if port is None:
        return _never("it has no port")
    return _dialogues(loop, _talk(probe, port), port, probe.timeout_s)


def _nothing() -> None:
    pass


class _Done:
    """An attempt that was over before it began."""

    def close(self) -> None:
        pass


def _never(why: str) -> Ask:
    def ask(on_answer: Answer) -> Attempt:
        on_answer(why)
        return _Done()

    return ask


# --- PORT and HTTP ---------------------------------------------------------------------------------------------------


def _talk(probe: Probe, port: int) -> Talk:
    # Here, so that a command or a line of the log needs no sockets.
    from procman.protocols import Talk, Verdict

    if probe.kind == PORT:
        return Talk(b"", lambda data, is_closed: Verdict(True))

    def judge(data: bytes, is_closed: bool) -> Verdict | None:
        answer = judge_http(data, is_closed, probe.statuses)
        return None if answer is None else Verdict(not answer, answer)

    return Talk(http_request(probe.path, port), judge)


def _dialogues(loop: Loop, talk: Talk, port: int, timeout_s: float) -> Ask:
    from procman.dialogue import Dialogue

    def ask(on_answer: Answer) -> Attempt:
        return Dialogue(
            loop,
            (("localhost", port),),
            "",
            talk,
            timeout_s,
            lambda verdict: on_answer("" if verdict.is_ok else verdict.reason or "does not answer"),
        )

    return ask


# --- COMMAND ---------------------------------------------------------------------------------------------------------


class _Commands:
    """Runs the command of a probe, one at a time."""

    def __init__(
        self, loop: Loop, probe: Probe, spec: ProcessSpec, env: Mapping[bytes, bytes], reaper: Reaper
    ) -> None:
        self._loop = loop
        self._spec = spec._replace(argv=shell_argv(probe.command))
        self._env = env
        self._reaper = reaper
        self._timeout_s = probe.timeout_s
        self._last: _Command | None = None

    def ask(self, on_answer: Answer) -> Attempt:
        if self._last is not None and not self._last.is_gone:
            on_answer("its command was killed and is still there")
            return _Done()
        try:
            self._last = _Command(self._loop, self._reaper, self._spec, self._env, self._timeout_s, on_answer)
        except (SpawnError, OSError) as error:
            on_answer(for_people(f"its command: {error}"))
            return _Done()
        return self._last


class _Command:
    """One run of a command; 0 means yes. Whatever happens, its whole group is killed at the end."""

    def __init__(
        self,
        loop: Loop,
        reaper: Reaper,
        spec: ProcessSpec,
        env: Mapping[bytes, bytes],
        timeout_s: float,
        on_answer: Answer,
    ) -> None:
        """Raises SpawnError."""
        self.is_gone = False  # it was reaped
        self._loop = loop
        self._timeout_s = timeout_s
        self._on_answer = on_answer
        self._tail = b""
        process = spawn(spec, env, None, loop.now())
        self._pid = process.pid
        self._fd = process.output_fd
        reaper.watch(self._pid, self._on_exit)
        loop.add_reader(self._fd, self._on_readable)
        self._timer: Timer | None = loop.call_later(timeout_s, self._on_timeout)

    def close(self) -> None:
        """Kill it, if it runs. The reaper still takes it off, but nobody is told."""
        self._on_answer = _forget
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            signal_group(self._pid, signal.SIGKILL)
        self._close_output()

    def _close_output(self) -> None:
        if self._fd >= 0:
            self._loop.remove(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _on_readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        """Read once; tell whether there may be more."""
        try:
            chunk = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self._close_output()
            return False
        self._tail = (self._tail + chunk)[-TAIL_BYTES:]
        return True

    def _drain(self) -> None:
        for _ in range(DRAIN_READS):
            if self._fd < 0 or not self._read():
                return

    def _on_timeout(self) -> None:
        self._drain()
        said = last_line(self._tail)
        self._answer(f"its command took longer than {self._timeout_s:g} s" + (f": {said}" if said else ""))

    def _on_exit(self, status: ExitStatus) -> None:
        self.is_gone = True
        if self._timer is None:
            return  # it was killed
        self._drain()
        if status.code == 0:
            self._answer("")
            return
        ended = f"was terminated by {signal_name(status.signum)}" if status.signum else f"exited with {status.code}"
        said = last_line(self._tail)
        self._answer(f"its command {ended}" + (f": {said}" if said else ""))

    def _answer(self, answer: str) -> None:
        on_answer = self._on_answer
        self.close()
        on_answer(answer)


def _forget(answer: str) -> None:
    pass


# --- NOTIFY ----------------------------------------------------------------------------------------------------------

# struct ucred of unix(7): pid, uid and gid, four bytes each.
_UCRED_BYTES = 12
MAX_LAST_MESSAGES = 64  # of one that has ended: others may still send
_UID = slice(4, 8)


class NotifySocket:
    """Where one instance says READY=1 (sd_notify(3)). Made before its spawn: `address` is its NOTIFY_SOCKET.

    Its messages are read until `close()`, for a sender that nobody listens to gets an error. It is a file, as systemd's
    is: not every sender knows what the "@" of an abstract name means. The guard removes it if we cannot.
    """

    def __init__(self, loop: Loop, run_id: str, name: str) -> None:
        """Raises OSError."""
        import _socket  # the part of socket that needs no other module: this may be before the first child

        self.reason = "it has not sent READY=1"
        self.on_ready: Callable[[], None] = _nothing
        self._loop = loop
        self._is_ready = False
        self._directory = ""
        self._path = ""
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
        self._fd_kind = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
        self._user_kind = (-1, -1)
        self._user_bytes = 0
        self._truncated = _socket.MSG_TRUNC
        try:
            self._socket.setblocking(False)
            if sys.platform == "linux":
                self._user_kind = (_socket.SOL_SOCKET, _socket.SCM_CREDENTIALS)
                # Exactly so much that no descriptor finds room: the kernel closes what a sender passes on.
                self._user_bytes = _socket.CMSG_SPACE(_UCRED_BYTES)
                self._socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
            self.address = self._bind(run_id, name)
        except OSError:
            self._remove()
            raise
        loop.add_reader(self._socket.fileno(), self._on_readable)

    def hear_out(self) -> None:
        """The process has ended: take what it sent."""
        for _ in range(MAX_LAST_MESSAGES):
            if not self._read():
                return

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove(self._socket.fileno())
        self._remove()

    def _remove(self) -> None:
        self._socket.close()
        path, directory = self._path, self._directory
        self._path = self._directory = ""
        try:
            if path:
                os.unlink(path)
            if directory:
                os.rmdir(directory)
        except OSError:
            pass  # another instance has its socket there, or somebody was quicker

    def _bind(self, run_id: str, name: str) -> str:
        directory = sweep.socket_directory(run_id)
        try:
            os.mkdir(directory, 0o700)
        except FileExistsError:
            found = os.lstat(directory)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
                raise
        self._directory = directory
        # A name of its own for each process: a late word of the last one is not taken for one of this.
        path = os.path.join(directory, f"{name[:24]}-{os.urandom(4).hex()}")
        self._socket.bind(path)
        self._path = path
        return path

    def _on_readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        """Take one message; tell whether there was one."""
        try:
            datagram, ancillary, flags, _ = self._socket.recvmsg(MAX_DATAGRAM_BYTES, self._user_bytes)
        except OSError:
            return False  # nothing there after all
        sender = -1 if self._user_bytes else os.getuid()
        for level, kind, data in ancillary:
            if (level, kind) == self._user_kind:
                sender = int.from_bytes(data[_UID], sys.byteorder)
            elif (level, kind) == self._fd_kind:
                for at in range(0, len(data) - 3, 4):
                    os.close(int.from_bytes(data[at : at + 4], sys.byteorder))
        if self._is_ready:
            pass
        elif sender != os.getuid():
            self.reason = f"user {sender} sent a message, and only what user {os.getuid()} sends counts"
        elif flags & self._truncated:
            self.reason = f"it sent a message longer than {MAX_DATAGRAM_BYTES} bytes"
        else:
            self._take(datagram)
        return True

    def _take(self, datagram: bytes) -> None:
        told = parse_notify(datagram)
        if told.is_ready:
            self._is_ready = True
            self.reason = ""
            self.on_ready()
        elif told.status:
            self.reason = told.status

