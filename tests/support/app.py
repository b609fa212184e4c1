"""A Procfile app in a temporary directory, run by the real command line, and what it does as events.

    run = app("web: exec sleep 1000").start()
    run.wait_for("ready", "web.1")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0

Nothing here sleeps: every wait is for an event, a line, a screen or an end, up to CEILING_S, and a wait that fails
shows all that was seen so far. When the test is over, nobody of ours may be left (`App.survivors`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shlex
import signal
import subprocess
import sys
import termios
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyte

CEILING_S = float(os.environ.get("TEST_CEILING_S", "30"))
REPOSITORY = Path(__file__).parents[2]
CHILDREN = Path(__file__).parent / "children"
PYTHON = f"{shlex.quote(sys.executable)} -S -E"  # starts in 8 ms: no site, no environment
MARK = "TEST_MARK"  # in the environment of everything an App starts

# Nothing of the developer's shell may reach an app.
_NOT_INHERITED = re.compile(
    r"PROCMAN_.*|PORT|PORT_.*|PS|HONCHO_.*|FOREMAN_.*|NO_COLOR|FORCE_COLOR|PYTHONUNBUFFERED|PROCFILE|TEST_.*|COLUMNS|LINES"
    r"|PYTHONDONTWRITEBYTECODE"
)


class Event(dict[str, Any]):
    """One JSON line of `--sink jsonl`, with its fields as attributes: event, name, line, code, signum, text ..."""

    def __getattr__(self, field: str) -> Any:
        try:
            return self[field]
        except KeyError:
            raise AttributeError(f"{self} has no {field}") from None

    def is_(self, event: str, name: str | None = None, **fields: Any) -> bool:
        wanted = {"event": event, **({} if name is None else {"name": name}), **fields}
        return all(self.get(field) == value for field, value in wanted.items())


class Fifo:
    """A named pipe that the test owns: `read x < FIFO` holds a child until `send`, `echo x > FIFO` is `receive`d.

    It is open for both directions here, so nobody's open ever blocks, and no reader sees an end before `close`.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._received = b""

    def __str__(self) -> str:
        return shlex.quote(str(self.path))

    def send(self, text: str = "go\n") -> None:
        """Write without blocking; a line is enough for one reader."""
        os.write(self._fd, text.encode())

    def receive(self) -> str:
        """Wait for a line that a child wrote."""
        deadline = time.monotonic() + CEILING_S
        while b"\n" not in self._received:
            if not select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"nobody wrote a line to {self.path.name} within {CEILING_S} s")
            self._received += os.read(self._fd, 65_536)
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

    def close(self) -> None:
        """Give readers the end of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Run:
    """One running command: its events, its output, its terminal if it has one, its end."""

    def __init__(self, title: str, *, size: tuple[int, int] | None = None) -> None:
        self.title = title
        self.events: list[Event] = []
        self.err = b""
        self.code: int | None = None  # as a shell reports it
        self.pid = 0
        self.screen = pyte.Screen(size[1], size[0]) if size else None
        self.master_fd = -1
        self._seen = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._open_count = 0  # of descriptors that are still followed
        self._rest = b""  # of an unfinished event
        self._out = bytearray()
        self._hang_up_fd, self._hung_up_fd = os.pipe()  # wakes who reads the terminal, to close it
        self._stream = pyte.ByteStream(self.screen) if self.screen else None

    # --- reading, each in a thread of its own ---

    def follow(self, fd: int, take: Callable[[bytes], None]) -> None:
        """Give what comes from `fd` to `take` until its end; then close it."""
        thread = threading.Thread(target=self._follow, args=(fd, take), daemon=True, name=take.__name__)
        self._threads.append(thread)
        self._open_count += 1
        thread.start()

    def _follow(self, fd: int, take: Callable[[bytes], None]) -> None:
        while True:
            try:
                # A read that blocks would keep a terminal open that another thread closes.
                is_hung_up = take == self.take_out and self.screen and self._is_hung_up(fd)
                chunk = b"" if is_hung_up else os.read(fd, 65_536)
            except OSError:  # EIO: the last slave of a pty is closed
                chunk = b""
            with self._seen:
                if chunk:
                    take(chunk)
                else:
                    os.close(fd)
                    self._open_count -= 1
                self._seen.notify_all()
            if not chunk:
                return

    def _is_hung_up(self, fd: int) -> bool:
        return fd not in select.select([fd, self._hang_up_fd], [], [])[0]

    def take_out(self, chunk: bytes) -> None:
        self._out += chunk
        if self._stream is not None:
            self._stream.feed(chunk)

    def take_err(self, chunk: bytes) -> None:
        self.err += chunk

    def take_events(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self.events += [Event(json.loads(line)) for line in lines]

    def follow_end(self, popen: subprocess.Popen[bytes]) -> None:
        self.pid = popen.pid

        def wait() -> None:
            code = popen.wait()
            with self._seen:
                self.code = code if code >= 0 else 128 - code
                self._seen.notify_all()

        threading.Thread(target=wait, daemon=True).start()

    # --- waiting ---

    def wait_until(self, is_true: Callable[[], Any], what: str) -> Any:
        """Wait until `is_true()`, looked at whenever something came in; return what it returned."""
        with self._seen:
            deadline = time.monotonic() + CEILING_S
            while not (found := is_true()):
                left_s = deadline - time.monotonic()
                if left_s <= 0 or self._is_silent():
                    if found := is_true():
                        break
                    why = f"within {CEILING_S:g} s" if left_s <= 0 else "before the run ended"
                    raise self.failure(f"no {what} {why}")
                self._seen.wait(left_s)
            return found

    def _is_silent(self) -> bool:
        """Tell that nothing more can come: it has ended, and so has all that it wrote to."""
        return self.code is not None and not self._open_count

    def wait_for(self, event: str, name: str | None = None, **fields: Any) -> Event:
        """Wait for such an event, or return the first one seen already."""
        found: Event = self.wait_until(
            lambda: next((seen for seen in self.events if seen.is_(event, name, **fields)), None),
            f"event {event} {name or ''} {fields or ''}",
        )
        return found

    def wait_all(self, event: str, names: Iterable[str]) -> None:
        for name in names:
            self.wait_for(event, name)

    def wait_output(self, line: str, name: str | None = None) -> Event:
        """Wait for an output event with exactly this line."""
        return self.wait_for("output", name, line=line)

    def wait_notice(self, pattern: str) -> Event:
        """Wait for a notice whose text matches."""
        found: Event = self.wait_until(
            lambda: next((e for e in self.events if e.is_("notice") and re.search(pattern, e.text)), None),
            f"notice {pattern!r}",
        )
        return found

    def until(self, event: str, name: str | None = None, **fields: Any) -> list[Event]:
        """Return the events from the first up to such an event."""
        last = self.wait_for(event, name, **fields)
        return self.events[: next(at for at, seen in enumerate(self.events) if seen is last) + 1]

    def wait_line(self, pattern: str) -> re.Match[str]:
        """Wait until a line of the output matches, complete or not."""
        found: re.Match[str] = self.wait_until(
            lambda: next((match for line in self.lines if (match := re.search(pattern, line))), None),
            f"line {pattern!r}",
        )
        return found

    def wait_err(self, pattern: str) -> re.Match[str]:
        found: re.Match[str] = self.wait_until(lambda: re.search(pattern, self.err_text), f"error text {pattern!r}")
        return found

    def wait_screen(self, pattern: str) -> re.Match[str]:
        """Wait until the text on the terminal's screen matches."""
        found: re.Match[str] = self.wait_until(lambda: re.search(pattern, self.screen_text), f"screen {pattern!r}")
        return found

    def wait(self) -> int:
        """Wait for the end of the command and of all that it wrote; return its exit code as a shell reports it."""
        self.wait_until(lambda: self.code is not None, "end")
        self.wait_until(self._is_silent, "end of the output: somebody holds it open, after the command has ended")
        assert self.code is not None
        return self.code

    def wait_command(self) -> int:
        """Wait for the end of a command whose events go on: it has left a run in the background."""
        self.wait_until(lambda: self.code is not None and self._open_count <= 1, "end")
        assert self.code is not None
        return self.code

    # --- what was seen ---

    @property
    def out(self) -> bytes:
        """All that came on stdout; on a terminal stderr, too."""
        with self._seen:
            return bytes(self._out)

    @property
    def out_bytes(self) -> int:
        return len(self._out)

    @property
    def text(self) -> str:
        return self.out.decode("utf-8", "surrogateescape")

    @property
    def err_text(self) -> str:
        return self.err.decode("utf-8", "replace")

    @property
    def lines(self) -> list[str]:
        return self.text.replace("\r\n", "\n").split("\n") if self.screen else self.text.split("\n")

    @property
    def screen_lines(self) -> list[str]:
        assert self.screen is not None
        with self._seen:
            return [line.rstrip() for line in self.screen.display]

    @property
    def screen_text(self) -> str:
        return "\n".join(self.screen_lines).rstrip()

    def output_of(self, name: str) -> list[str]:
        """Return what instance `name` wrote, by the events."""
        return [event.line for event in self.events if event.is_("output", name)]

    def notices(self) -> list[str]:
        return [event.text for event in self.events if event.is_("notice")]

    def pid_of(self, name: str) -> int:
        """Return the pid of the instance's latest process."""
        self.wait_for("started", name)
        return [int(event.pid) for event in self.events if event.is_("started", name)][-1]

    def supervisor_pid(self) -> int:
        """Return the pid of the process that has the children; the one we started is its guard."""
        name = next(event.name for event in self.events if event.is_("started"))
        return int(Path(f"/proc/{self.pid_of(name)}/stat").read_text().rpartition(")")[2].split()[1])

    def failure(self, complaint: str) -> AssertionError:
        end = "still running" if self.code is None else f"ended with {self.code}"
        parts = [f"{complaint} ({self.title}: {end})", "events:", *map(str, self.events[-200:])]
        parts += ["stdout:", self.out[-8000:].decode("utf-8", "backslashreplace")]
        parts += ["stderr:", self.err[-8000:].decode("utf-8", "backslashreplace")]
        parts += ["screen:", self.screen_text] if self.screen else []
        return AssertionError("\n".join(parts))

    # --- acting ---

    def signal(self, signum: int) -> None:
        """Send `signum` to the process that was started."""
        if self.code is not None:
            raise self.failure(f"too late for {signal.Signals(signum).name}")
        os.kill(self.pid, signum)

    def type(self, keys: str | bytes) -> None:
        """Type at the terminal."""
        os.write(self.master_fd, keys.encode() if isinstance(keys, str) else keys)

    def resize(self, rows: int, columns: int) -> None:
        """Change the terminal's size; the kernel sends SIGWINCH to the foreground group."""
        assert self.screen is not None
        with self._seen:
            self.screen.resize(rows, columns)
        termios.tcsetwinsize(self.master_fd, (rows, columns))

    def hang_up(self) -> None:
        """Close the terminal, as a window that is closed."""
        os.close(self._hung_up_fd)
        self._hung_up_fd = -1
        if self.screen:
            for thread in self._threads:
                if thread.name == "take_out":
                    thread.join()  # it would go on with a descriptor whose number is another's by then
        if self.master_fd >= 0:
            os.close(self.master_fd)
            self.master_fd = -1

    def close(self) -> None:
        if self._hung_up_fd >= 0:
            self.hang_up()
        os.close(self._hang_up_fd)


class App:
    """The builder; as a fixture: `app("web: …", dotenv="A=1\\n").start()`."""

    def __init__(self, directory: Path, base_port: int) -> None:
        self.token = f"token-{uuid.uuid4().hex}"  # in the arguments of each child that drops its environment
        self.root = directory / self.token  # so that whoever stays in this directory is ours, too
        self.root.mkdir()
        self.port = base_port
        self.runs: list[Run] = []
        self._fifos: list[Fifo] = []
        self.env = {name: value for name, value in os.environ.items() if not _NOT_INHERITED.fullmatch(name)}
        self.env |= {
            MARK: self.token,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": str(REPOSITORY),
            "LC_ALL": "C.UTF-8",
            "TERM": "xterm-256color",
            "TZ": "UTC",
        }

    def __call__(self, procfile: str | None = None, *, dotenv: str | None = None, **files: str) -> App:
        """Write the Procfile, `.env` and other files (`x__sh="…"` is x.sh) into the app's directory."""
        files = {name.replace("__", "."): text for name, text in files.items()}
        for name, text in {"Procfile": procfile, ".env": dotenv, **files}.items():
            if text is not None:
                self.write(name, text)
        return self

    def write(self, name: str, text: str | bytes, *, mode: int = 0o644) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(mode)
        return path

    def child(self, name: str, *arguments: object) -> str:
        """Return the command that runs tests/support/children/NAME.py, with our token as its first argument."""
        path = shlex.quote(str(CHILDREN / f"{name}.py"))
        return " ".join([PYTHON, path, self.token, *(shlex.quote(str(argument)) for argument in arguments)])

    def fifo(self, name: str = "gate") -> Fifo:
        fifo = Fifo(self.root / name)
        self._fifos.append(fifo)
        return fifo

    # --- running ---

    def start(self, *arguments: str, options: Sequence[str] = (), **kwargs: Any) -> Run:
        """Run `procman [options] start [arguments]` with events, on a port range of our own."""
        return self.procman(*options, "start", "-p", str(self.port), *arguments, has_events=True, **kwargs)

    def call(self, *arguments: str, **kwargs: Any) -> Run:
        """Run `procman [arguments]` to its end."""
        run = self.procman(*arguments, **kwargs)
        run.wait()
        return run

    def procman(self, *arguments: str, **kwargs: Any) -> Run:
        """Run `procman [arguments]`; for the rest see `spawn`."""
        return self.spawn([sys.executable, "-m", "procman", *arguments], **kwargs)

    def spawn(
        self,
        argv: Sequence[str],
        *,
        has_events: bool = False,
        size: tuple[int, int] | None = None,
        env: dict[str, str | None] | None = None,
        cwd: Path | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int | None = None,
        stderr: int | None = None,
        pass_fds: Sequence[int] = (),
        is_new_session: bool = False,
    ) -> Run:
        """Run a command; with `size` (rows, columns) on a terminal of its own, else on pipes or what is given.

        `env` changes variables, None removes one. With `has_events` the run gets `--sink jsonl:fd=N`.
        """
        run = Run(shlex.join(argv[-4:]), size=size)
        argv, mine, theirs = list(argv), [], list(pass_fds)
        if has_events:
            events_fd, sink_fd = os.pipe()
            argv += ["--sink", f"jsonl:fd={sink_fd}"]
            mine.append(sink_fd)
            theirs.append(sink_fd)
        if size is not None:
            run.master_fd, slave_fd = os.openpty()
            termios.tcsetwinsize(slave_fd, size)
            mine.append(slave_fd)
            stdin = stdout = stderr = slave_fd
            argv = [sys.executable, "-S", "-E", str(CHILDREN / "on_tty.py"), *argv]
        changed = {**self.env, **(env or {})}
        popen = subprocess.Popen(
            argv,
            cwd=cwd or self.root,
            env={name: value for name, value in changed.items() if value is not None},
            stdin=stdin,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE if stderr is None else stderr,
            pass_fds=theirs,
            start_new_session=is_new_session or size is not None,
            bufsize=0,
        )
        for fd in mine:
            os.close(fd)
        run.follow_end(popen)
        if has_events:
            run.follow(events_fd, run.take_events)
        if size is not None:
            run.follow(os.dup(run.master_fd), run.take_out)
        if popen.stdout is not None:
            run.follow(_detached(popen.stdout), run.take_out)
        if popen.stderr is not None:
            run.follow(_detached(popen.stderr), run.take_err)
        self.runs.append(run)
        return run

    # --- the end ---

    def survivors(self) -> dict[int, str]:
        """Return pid and command line of all that is left of ours: our mark, our token or our directory."""
        found = {}
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and self._is_ours(process):
                found[int(process.name)] = _read(process / "cmdline").replace(b"\0", b" ").decode("utf-8", "replace")
        return found

    def _is_ours(self, process: Path) -> bool:
        token = self.token.encode()
        try:
            cwd = os.readlink(process / "cwd")
        except OSError:  # a zombie, or somebody else's
            return False
        return self.token in cwd or token in _read(process / "cmdline") or token in _read(process / "environ")

    def wait_gone(self) -> None:
        """Wait until nobody of ours is left; for runs whose starter was killed, so that its end tells nothing."""
        deadline = time.monotonic() + CEILING_S
        while left := self.survivors():
            for pid in left:
                _wait_for_end(pid, deadline - time.monotonic())
            if time.monotonic() >= deadline:
                raise AssertionError(f"still there after {CEILING_S:g} s: {left}")

    def close(self) -> dict[int, str]:
        """End what the test left running, kill the rest, and return it: nothing, unless procman forgot somebody."""
        for run in self.runs:
            if run.code is None:
                with contextlib.suppress(ProcessLookupError):  # it has ended, and its code is on the way
                    os.kill(run.pid, signal.SIGHUP if run.title.startswith("bash") else signal.SIGTERM)
                    os.kill(run.pid, signal.SIGCONT)
                with contextlib.suppress(AssertionError):
                    run.wait_until(lambda run=run: run.code is not None, "end")  # type: ignore[misc]
        left = self.survivors()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for run in self.runs:
            run.close()
        for fifo in self._fifos:
            fifo.close()
        return left


def _detached(stream: Any) -> int:
    fd = os.dup(stream.fileno())
    stream.close()
    return fd


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _wait_for_end(pid: int, limit_s: float) -> None:
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        select.select([fd], [], [], max(0.0, limit_s))
    finally:
        os.close(fd)
