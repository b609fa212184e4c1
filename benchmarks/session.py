"""One run of one tool: started with its output somewhere, looked at from outside, and always ended."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import termios
import time
from types import TracebackType

from benchmarks import install, processes
from benchmarks.app import App
from benchmarks.peers import VARIABLES, Peer

OUTPUTS = ("null", "pipe", "pty")


class Failed(Exception):
    """The tool did not do it; the message says what, in a few words. `figures` are what could be measured yet."""

    def __init__(self, message: str, figures: dict[str, float] | None = None) -> None:
        super().__init__(message)
        self.figures = figures or {}


class Session:
    """A tool that runs an app, until the end of the `with` block. `fd` is what we read, or -1."""

    def __init__(self, peer: Peer, app: App, output: str = "pipe") -> None:
        self.peer = peer
        self.app = app
        self.output = output
        self.fd = -1

    def __enter__(self) -> Session:
        argv = self.peer.argv(self.app)
        env = {**install.environment(self.peer), **VARIABLES, processes.TOKEN: self.app.token}
        stdout, terminal = self._open()
        if self.output == "pty":
            argv = ["setsid", "--ctty", *argv]  # a terminal that controls the tool, as a user's does
        self.began_s = time.monotonic()
        self.manager = subprocess.Popen(
            argv,
            cwd=self.app.folder,
            env=env,
            stdin=terminal if terminal >= 0 else subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.DEVNULL if terminal < 0 else stdout,
            start_new_session=self.output != "pty",
        )
        os.close(stdout)
        return self

    def _open(self) -> tuple[int, int]:
        if self.output == "null":
            return os.open(os.devnull, os.O_WRONLY), -1
        if self.output == "pipe":
            self.fd, stdout = os.pipe()
            return stdout, -1
        self.fd, terminal = pty.openpty()
        termios.tcsetwinsize(terminal, (24, 80))  # 0 by 0 at first, which tools take for no terminal
        return terminal, terminal

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        processes.kill_all(self.app.token)
        self.manager.wait()
        if self.fd >= 0:
            os.close(self.fd)

    def processes(self) -> processes.Processes:
        return processes.of_run(self.app.token, self.app.folder)

    def readable(self, deadline_s: float) -> bool:
        """Wait for output until the monotonic time; False if there is none. Raises Failed when the tool has ended."""
        return bool(select.select([self.fd], [], [], max(0.0, deadline_s - time.monotonic()))[0])

    def read(self, deadline_s: float) -> bytes:
        """Read once; b"" at the deadline. Raises Failed at the end of the output."""
        if not self.readable(deadline_s):
            return b""
        try:
            chunk = os.read(self.fd, 1 << 20)
        except OSError:  # EIO: a terminal that nobody has open any more
            chunk = b""
        if not chunk:
            raise Failed("ended by itself")
        return chunk

    def wait_for_lines(self, mark: bytes, count: int, limit_s: float) -> float:
        """Read until `mark` has come `count` times; return the seconds since the start. Raises Failed at the limit."""
        deadline_s = self.began_s + limit_s
        seen, rest = 0, b""
        while chunk := self.read(deadline_s):
            text = rest + chunk
            seen += text.count(mark)
            if seen >= count:
                return time.monotonic() - self.began_s
            # What was counted must not be counted again, and a mark may come in two pieces.
            rest = text[max(text.rfind(mark) + len(mark), len(text) - len(mark) + 1) :]
        raise Failed(f"{seen} of {count} started within {limit_s:.0f} s")

    def wait_for_reports(self, count: int, limit_s: float) -> list[bytes]:
        """Return the next lines that the children report. Raises Failed if they do not come."""
        deadline_s = time.monotonic() + limit_s
        told = b""
        # While we wait the tool may say things of its own, which must not fill the pipe.
        fds = [self.app.report] + [self.fd] * (self.fd >= 0)
        while told.count(b"\n") < count:
            ready = select.select(fds, [], [], max(0.0, deadline_s - time.monotonic()))[0]
            if not ready:
                raise Failed(f"{told.count(bytes([10]))} of {count} children within {limit_s:.0f} s")
            if self.app.report in ready:
                told += os.read(self.app.report, 1 << 16)
            elif not os.read(self.fd, 1 << 16):
                raise Failed("ended by itself")
        return told.splitlines()
