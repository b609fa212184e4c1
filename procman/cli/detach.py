"""`procman start --detach`: the daemon, and the command that waits until its processes are up.

The command has read all files when it forks. What the daemon finds wrong after that it tells through a pipe, in
lines: `pid N`, `note TEXT`, `log NAME OFFSET`, `refused CODE TEXT`, `up`, `end CODE`.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from procman.cli.control import end_fd_of, is_up, up_line, wait_for_end
from procman.config import Settings
from procman.control.client import Control, instances_in
from procman.control.directory import Claim
from procman.control.protocol import Message
from procman.errors import EXIT_BUG, EXIT_KILLED, ControlError, OutputFileError, ProcmanError, failure_of
from procman.events import SYSTEM, Event, Notice, Output
from procman.kernel import flush_standard_streams
from procman.lifecycle import State
from procman.loop import Loop, Timer
from procman.sinks.file import LogFile, Place, append, claim_place, open_log

if TYPE_CHECKING:
    from procman.supervisor import Supervisor

SETTLE_S = 0.5  # all are up when none has ended for this long: a wrong command takes a shell some milliseconds
TAIL_LINES = 20
TAIL_BYTES = 64 * 1024
MAX_LINES = 20  # for more instances than these, one line a type
ANSWER_S = 30.0  # a supervisor that takes longer hangs

FOLDER, STEM = "log", "procman"
ABORTING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)
UP = frozenset({State.READY, State.EXITED, State.FAILED})  # not on its way to something else

See = Callable[[int, Callable[[], object]], object]


def detach(start: Callable[[Background], int], directory: str, fds: Collection[int]) -> int:
    """Run `start` in a daemon that has no open files but `fds`; return the exit code when all is up, or it has ended.

    `directory` is where its control socket will be. Raises ProcmanError with what the daemon raises before that.
    """
    return _Caller(_forked(start, fds, "--detach"), directory).wait()


def under_view(start: Callable[[Background], int], directory: str, fds: Collection[int], see: See) -> int:
    """Run `start` in the same way under a view: the end of one is the end of the other. Return the run's exit code.

    The daemon hears of our end by that of a pipe, however we end. `see` gets its pid, and what waits for it.
    """
    owner_fd, held_fd = os.pipe()
    status_fd = _forked(start, fds, "--top", owner_fd)
    os.close(owner_fd)
    try:
        return _Caller(status_fd, directory).show(see)
    finally:
        os.close(held_fd)


def _forked(start: Callable[[Background], int], fds: Collection[int], option: str, owner_fd: int = -1) -> int:
    """Fork the daemon; return what its words can be read from. The signals of ABORTING are blocked."""
    flush_standard_streams()
    # A caller that ignores SIGCHLD makes the kernel reap, and waitpid has nothing to tell (waitpid(2)).
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ABORTING)
    status_fd, daemon_fd = os.pipe()
    child = os.fork()
    if child == 0:
        _become_daemon(start, Background(daemon_fd, option, owner_fd), fds)
    os.close(daemon_fd)
    os.waitpid(child, 0)
    return status_fd


# --- the daemon ------------------------------------------------------------------------------------------------------


def _become_daemon(start: Callable[[Background], int], background: Background, fds: Collection[int]) -> NoReturn:
    code = EXIT_BUG
    try:
        os.setsid()
        if os.fork():  # who leads a session could get a terminal again
            os._exit(0)
        background.send(f"pid {os.getpid()}")
        _leave_files({*background.fds, *fds})
        code = start(background)
        background.send(f"end {code}")
    except ProcmanError as error:
        background.refuse(error.exit_code, str(error))
    except click.ClickException as error:
        background.refuse(error.exit_code, error.format_message())
    except BaseException as error:
        failure = failure_of(error)
        background.refuse(failure.exit_code, str(failure))
    finally:
        os._exit(code)


def _leave_files(kept: Collection[int]) -> None:
    """Let go of the terminal and of everything else that the caller had open: somebody may wait for its end."""
    null_fd = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        if fd not in kept:
            os.dup2(null_fd, fd)
    low = 3
    for fd in [*sorted(fd for fd in kept if fd > 2), os.sysconf("SC_OPEN_MAX")]:
        os.closerange(low, fd)
        low = fd + 1


class Background:
    """What a run in the background has instead of a terminal: its log, and somebody who waits until it is up."""

    def __init__(self, status_fd: int, option: str, owner_fd: int) -> None:
        self.option = option  # of `start` that has asked for it
        self.owner_fd = owner_fd  # ends with whoever shows the run; -1: the run goes on for itself
        self._status_fd = status_fd
        self._place: Place | None = None
        self._width = 0  # of the name column

    @property
    def fds(self) -> set[int]:
        return {self._status_fd, *([self.owner_fd] if self.owner_fd >= 0 else [])}

    def send(self, text: str) -> None:
        """Tell who waits, if anybody still does."""
        with contextlib.suppress(OSError):
            os.write(self._status_fd, text.replace("\n", "\0").encode("utf-8", "surrogateescape") + b"\n")

    def refuse(self, code: int, text: str) -> None:
        self.send(f"refused {code} {text}")

    def begin(self, claim: Claim, notes: Sequence[str], width: int) -> None:
        """Find the log of this run, and show that it can be written. Raises OutputFileError."""
        self._width = width
        for note in notes:
            self.send(f"note {note}")
        try:
            self._place = claim_place(claim.directory_fd, FOLDER, STEM)
            fd, size, _ = open_log(self._place)
            os.close(fd)
        except OSError as error:
            name = self._place.name if self._place else ""
            reason = os.strerror(error.errno or 0).lower()
            raise OutputFileError(f"{self.option}: {os.path.join(claim.directory, FOLDER, name)}: {reason}") from None
        self.send(f"log {self._place.name} {size}")

    def log_file(self, loop: Loop, settings: Settings, tell: Callable[[str], None]) -> LogFile:
        assert self._place is not None
        return LogFile(loop, self._place, settings.log_bytes, settings.log_files, tell)

    def tell(self, text: str) -> None:
        """Write into the log what the guard has to say."""
        assert self._place is not None
        head = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {SYSTEM:<{self._width}} | "
        lines = "".join(f"{head}{line}\n" for line in text.removeprefix("procman: ").split("\n"))
        with contextlib.suppress(OSError):
            append(self._place, lines.encode("utf-8", "replace"))

    def watch(self, loop: Loop, supervisor: Supervisor) -> Watch:
        return Watch(loop, supervisor, lambda: self.send("up"), lambda text: self.send(f"note {text}"))


class Watch:
    """A sink that looks whether all instances are up, and tells it once; until then, what backing services it takes."""

    is_idle = True

    def __init__(
        self, loop: Loop, supervisor: Supervisor, on_up: Callable[[], None], on_wait: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._supervisor = supervisor
        self._on_up = on_up
        self._on_wait = on_wait
        self._is_told = False
        self._is_look_due = False
        self._timer: Timer | None = None

    def write(self, event: Event) -> None:
        if self._is_told:
            return
        if isinstance(event, Notice) and event.name == SYSTEM and event.text.startswith("waiting for "):
            self._on_wait(event.text)  # it may take a minute, and nobody looks into the log yet
        # The event comes before the change that it tells of.
        if not self._is_look_due and type(event) is not Output:
            self._is_look_due = True
            self._loop.at_turn_end(self._look)

    def close(self) -> None:
        self._is_told = True

    def _look(self) -> None:
        self._is_look_due = False
        if self._timer is not None:
            self._timer.cancel()
        if not self._supervisor.is_ending and all(i.state in UP for i in self._supervisor.instances.values()):
            self._timer = self._loop.call_later(SETTLE_S, self._tell)

    def _tell(self) -> None:
        if not self._is_told:
            self._is_told = True
            self._on_up()


# --- who waits for it ------------------------------------------------------------------------------------------------


class _Caller:
    """The command that the user typed."""

    def __init__(self, status_fd: int, directory: str) -> None:
        self._status_fd = status_fd
        self._directory = directory
        self._pid = 0
        self._end_fd = -1
        self._is_up = False
        self._log = ""
        self._log_start = 0
        self._signum = 0  # that asked us to give up
        self._listen()

    def _listen(self) -> None:
        for signum in ABORTING:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, self._abort)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _abort(self, signum: int, frame: FrameType | None) -> None:
        """Take the daemon with us. A hang-up is not among these: the terminal may be closed."""
        self._signum = signum
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signum)

    def wait(self) -> int:
        """Wait until all is up, or the daemon has gone. Raises ProcmanError."""
        try:
            return self._wait()
        finally:
            if not self._is_up:
                wait_for_end(self._end_fd)

    def _wait(self) -> int:
        for word, rest in self._words():
            self._take(word, rest)
            if word == "end":
                return self._tell_end(int(rest))
            if word == "up" and not self._signum:
                with contextlib.suppress(ControlError):  # it has just ended, and that is the next word
                    instances = self._instances()
                    self._is_up = True
                    return self._tell_up(instances)
        return self._tell_end(EXIT_BUG)

    def _take(self, word: str, rest: str) -> None:
        """Take in what the daemon tells of itself. Raises ProcmanError for what it has refused."""
        if word == "pid":
            self._pid, self._end_fd = int(rest), end_fd_of(int(rest))
            if self._signum:
                self._abort(self._signum, None)
        elif word == "note":
            click.echo(rest, err=True)
        elif word == "log":
            name, _, size = rest.rpartition(" ")
            self._log, self._log_start = os.path.join(self._directory, FOLDER, name), int(size)
        elif word == "refused":
            code, _, text = rest.partition(" ")
            error = ProcmanError(text)
            error.exit_code = int(code)
            raise error

    def show(self, see: See) -> int:
        """Show the run from its first moment until it has ended, or the user leaves: then end it, as Ctrl-C does."""
        words = self._words()
        try:
            for word, rest in words:
                self._take(word, rest)
                if word == "log" or self._signum:
                    break
            codes: list[int] = []
            waiting = threading.Thread(target=lambda: codes.append(_code_in(words)), daemon=True)
            waiting.start()
            if self._log and not self._signum:
                try:
                    see(self._pid, waiting.join)
                finally:
                    self._listen()  # the view had handlers of its own
                    if not codes:
                        click.echo("stopping; Ctrl-C kills", err=True)
                        self._abort(signal.SIGINT, None)
            waiting.join()
        finally:
            wait_for_end(self._end_fd)
        click.echo(self._tail(), err=True, nl=False)
        return codes[0]

    def _words(self) -> Iterator[tuple[str, str]]:
        received = b""
        while chunk := os.read(self._status_fd, 65_536):
            *lines, received = (received + chunk).split(b"\n")
            for line in lines:
                word, _, rest = line.decode("utf-8", "surrogateescape").replace("\0", "\n").partition(" ")
                yield word, rest

    def _instances(self) -> list[Message]:
        control = Control(self._directory)
        try:
            peers = [peer for peer in control.peers if peer.pid == self._pid]
            return instances_in(control.ask({peer: {"do": "ps"} for peer in peers}, ANSWER_S))
        finally:
            control.close()

    def _tell_up(self, instances: Sequence[Message]) -> int:
        if len(instances) <= MAX_LINES:
            lines = [up_line(instance) for instance in instances]
        else:
            counts = Counter((instance["type"], instance["state"]) for instance in instances)
            lines = [f"{name}: {count} {state}" for (name, state), count in counts.items()]
        root = os.path.dirname(self._directory)
        place = "" if root == os.getcwd() else f" -d {shlex.quote(root)}"
        commands = ", ".join(f"`procman {word}{place}`" for word in ("ps", "logs -f", "quit"))
        if place:
            commands = commands.replace("logs -f" + place, f"logs{place} -f")
        lines.append(f"procman runs in the background with pid {self._pid} — {commands}; log: {self._shown_log()}")
        click.echo("\n".join(lines))
        if failed := [instance["name"] for instance in instances if not is_up(instance)]:
            click.echo(f"{', '.join(failed)} did not come up; the others run", err=True)
            return EXIT_KILLED
        return 0

    def _tell_end(self, code: int) -> int:
        click.echo(self._tail() + self._why(code), err=True)
        return code or (128 + self._signum if self._signum else 0)

    def _why(self, code: int) -> str:
        log = f"; log: {self._shown_log()}" if self._log else ""
        if self._signum:
            return f"procman: given up because of {signal.Signals(self._signum).name}{log}"
        return f"procman: the run ended with exit code {code} before all was up{log}"

    def _tail(self) -> str:
        """Return the last lines that this run has written into the log."""
        with contextlib.suppress(OSError), open(self._log, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = self._log_start if self._log_start <= size else 0  # a new file has been begun
            file.seek(max(start, size - TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines(keepends=True)
            return "".join(lines[-TAIL_LINES:])
        return ""

    def _shown_log(self) -> str:
        path = os.path.relpath(self._log)
        return self._log if path.startswith("..") else path


def _code_in(words: Iterable[tuple[str, str]]) -> int:
    """Return the exit code that the daemon's last word tells."""
    for word, rest in words:
        if word in ("end", "refused"):
            return int(rest.partition(" ")[0])
    return EXIT_BUG
