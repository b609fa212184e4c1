"""The probes in a real loop: real sockets, real child processes. The command line is test_readiness.py.

After each test nothing of a prober may be left in the loop: no timer, no descriptor, no child.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from procman.config import Settings
from procman.errors import SourceRef
from procman.events import Event, Output
from procman.loop import Loop, Timer
from procman.output import Multiplexer
from procman.probes import TAIL_BYTES, LogProber, NotifySocket, Prober, begin_liveness, begin_ready
from procman.process import ExitStatus, Process, Reaper, signal_group, spawn
from procman.procfile import ProcessType
from procman.readiness import COMMAND, COMPLETED, HTTP, LINE_BYTES, LOG, NOTIFY, PORT, Probe
from procman.spec import encoded, resolve, shell_argv
from tests.support.app import CEILING_S, CHILDREN, PYTHON
from tests.support.ports import port_block

SOURCE = SourceRef("procman.toml", 3)
QUICK_S = 0.02  # between attempts, where the test wants many
SHORT_S = 0.3  # of an attempt that will hang


class WatchedLoop(Loop):
    """A loop that knows what is left in it."""

    def __init__(self) -> None:
        self.timers: list[Timer] = []
        self.watched: set[int] = set()
        super().__init__()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = super().call_later(delay_s, callback)
        # One that has fired has left the heap.
        self.timers = [known for known in self.timers if known in self._timers] + [timer]
        return timer

    def pending(self) -> int:
        return sum(timer.callback is not None and timer in self._timers for timer in self.timers)

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self.watched.add(fd)
        super().add_reader(fd, callback)

    def add_writer(self, fd: int, callback: Callable[[], None]) -> None:
        self.watched.add(fd)
        super().add_writer(fd, callback)

    def remove(self, fd: int) -> None:
        self.watched.discard(fd)
        super().remove(fd)


class Ground:
    """What the supervisor has: a loop, a reaper, the spec and environment of an instance, and what it was told."""

    def __init__(self, root: Path, port: int) -> None:
        self.root = root
        self.port = port
        self.loop = WatchedLoop()
        self._own_fds = set(self.loop.watched)
        self.reaper = Reaper()
        self.reaps = True  # else it is as if a process that was killed did not go
        self.loop.on_signal(signal.SIGCHLD, self._on_child_signal)
        self.taps: list[Callable[[bytes], None]] = []
        self.told: list[str] = []  # reasons, "READY", "UNHEALTHY reason", in their order
        self.then: Callable[[str], None] = lambda told: None  # called with each
        self.probers: list[Prober | LogProber | NotifySocket] = []
        self._reasons: dict[Prober | LogProber | NotifySocket, str] = {}  # of those that are followed, as seen last
        types = [ProcessType("web", "exec app", SourceRef("Procfile", 1))]
        self.spec = resolve(types, {}, {"web": 1}, Settings(root=str(root), base_port=port), {})[0]
        self.env = encoded({**os.environ, **self.spec.env, "ROOT": str(root)})

    def _on_child_signal(self) -> None:
        if self.reaps:
            self.reaper.reap()

    def tell(self, text: str) -> None:
        self.told.append(text)
        self.then(text)

    def ready(self, kind: str, **fields: object) -> Prober | LogProber:
        probe = Probe(kind, SOURCE)._replace(**{"every_s": QUICK_S, "timeout_s": SHORT_S, **fields})
        prober = begin_ready(
            self.loop, probe, self.spec, self.env, self.reaper, self.taps, lambda: self.tell("READY")
        )
        assert "READY" not in self.told
        self._follow(prober)
        return prober

    def liveness(self, kind: str, **fields: object) -> Prober:
        probe = Probe(kind, SOURCE)._replace(**{"every_s": QUICK_S, "timeout_s": SHORT_S, **fields})
        prober = begin_liveness(
            self.loop, probe, self.spec, self.env, self.reaper, lambda reason: self.tell(f"UNHEALTHY {reason}")
        )
        self.probers.append(prober)
        return prober

    def notify(self, name: str = "web.1") -> NotifySocket:
        made = NotifySocket(self.loop, "123-456", name)
        made.on_ready = lambda: self.tell("READY")
        self._follow(made)
        return made

    def _follow(self, prober: Prober | LogProber | NotifySocket) -> None:
        self.probers.append(prober)
        self._reasons[prober] = prober.reason

    def _look(self) -> None:
        """Note each reason that this turn has brought; in a turn a prober has one answer at most."""
        for prober, seen in list(self._reasons.items()):
            if prober.reason != seen:
                self._reasons[prober] = prober.reason
                if prober.reason:
                    self.tell(prober.reason)

    def until(self, is_true: Callable[[], object], what: str = "") -> None:
        """Take turns until `is_true()`."""
        late: list[str] = []
        ceiling = self.loop.call_later(CEILING_S, lambda: late.append("late"))
        try:
            while not is_true():
                assert not late, f"no {what or 'end'} within {CEILING_S:g} s; told: {self.told}"
                self.loop.turn()
                self._look()
        finally:
            ceiling.cancel()

    def until_told(self, text: str) -> None:
        self.until(lambda: text in self.told, text)

    def spawn(self, command: str, on_exit: Callable[[ExitStatus], None] | None = None, **env: str) -> Process:
        """Run a command of the test's own in the loop; its output is not read here."""
        spec = self.spec._replace(argv=shell_argv(command))
        process = spawn(spec, {**self.env, **encoded(env)}, None, 0.0)
        self.reaper.watch(process.pid, on_exit or (lambda status: None))
        return process

    def call(self, command: str, **env: str) -> int:
        """Run a command to its end, in turns of the loop, and return its exit code."""
        codes: list[int] = []
        process = self.spawn(command, lambda status: codes.append(status.code), **env)
        self.until(lambda: codes, command)
        os.close(process.output_fd)
        return codes[0]

    def assert_idle(self) -> None:
        """Nothing of a prober is in the loop, and no child of one is there."""
        assert self.loop.watched == self._own_fds
        assert self.loop.pending() == 0
        assert self.taps == []
        self.until(lambda: not self.reaper.pids(), "end of the children")
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)

    def close(self) -> None:
        for prober in self.probers:
            prober.close()
            prober.close()  # twice is fine
        self.loop.at_turn_end(lambda: None)
        self.assert_idle()
        self.loop.close()


def open_fds() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ground]:
    monkeypatch.chdir(tmp_path)  # as procman itself changes to the root
    with port_block() as port, tempfile.TemporaryDirectory(dir="/tmp") as short:  # an address of a socket is short
        monkeypatch.setenv("TMPDIR", short)
        # What procman opens once and keeps: /dev/null.
        warm = Ground(tmp_path, port)
        warm.call("exit 0")
        warm.close()
        before = open_fds()
        made = Ground(tmp_path, port)
        try:
            yield made
        finally:
            for prober in made.probers:
                prober.close()
        made.close()
        assert open_fds() == before


class Server:
    """Listens, and gives each connection to `serve` on a thread of its own, with the number of the connection."""

    def __init__(self, port: int, serve: Callable[[socket.socket, int], None], address: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        self._socket.bind((address, port))
        self._socket.listen()
        self._serve = serve
        self.count = 0
        self.requests: list[bytes] = []
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.count += 1
            self._connections.append(connection)
            thread = threading.Thread(target=self._run, args=(connection, self.count))
            self._threads.append(thread)
            thread.start()

    def _run(self, connection: socket.socket, number: int) -> None:
        try:
            self._serve(connection, number)
        except OSError:
            pass  # the client left first

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._accepting.join()
        self._socket.close()
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join()
        for connection in self._connections:
            connection.close()


def bound(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    return made


def request_of(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(4096)
        if not chunk:
            return data
        data += chunk
    return data


def answering(*answers: bytes) -> Callable[[socket.socket, int], None]:
    """Answer the first request with the first of `answers`, the next with the next; the last one for ever."""

    def serve(connection: socket.socket, number: int) -> None:
        request_of(connection)
        connection.sendall(answers[min(number, len(answers)) - 1])
        connection.shutdown(socket.SHUT_RDWR)

    return serve


def keeping(first: bytes = b"") -> Callable[[socket.socket, int], None]:
    """Say `first` and then nothing, until the client leaves."""

    def serve(connection: socket.socket, number: int) -> None:
        connection.sendall(first)
        while connection.recv(4096):
            pass

    return serve


def status(line: str, body: bytes = b"ok") -> bytes:
    return f"HTTP/1.1 {line}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


OK = status("200 OK")


def has_ipv6() -> bool:
    try:
        with closing(socket.socket(socket.AF_INET6)) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


ADDRESSES = [
    "127.0.0.1",
    pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")),
]


# --- port ---


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_port_is_ready_when_somebody_listens(ground: Ground, address: str) -> None:
    with closing(Server(ground.port, keeping(), address)):
        ground.ready(PORT)
        ground.until_told("READY")
        assert ground.told == ["READY"]
        ground.assert_idle()


def test_a_port_is_not_ready_before(ground: Ground) -> None:
    servers: list[Server] = []
    ground.then = lambda told: told == "READY" or servers.append(Server(ground.port, keeping()))  # type: ignore
    prober = ground.ready(PORT)
    try:
        ground.until_told("READY")
        assert len(ground.told) == 2  # the reason once, however often it was asked
        assert "refused" in ground.told[0]
        assert prober.reason == ""
        ground.assert_idle()
    finally:
        for server in servers:
            server.close()


def test_a_port_of_its_own(ground: Ground) -> None:
    with closing(Server(ground.port + 7, keeping())):
        ground.ready(PORT, port=ground.port + 7)
        ground.until_told("READY")


def test_without_a_port_there_is_nothing_to_ask(ground: Ground) -> None:
    ground.spec = ground.spec._replace(port=None)
    prober = ground.ready(PORT)
    ground.until_told("it has no port")
    assert prober.reason == "it has no port"


# --- HTTP ---


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("line", ["200 OK", "204 No Content", "302 Found"])
def test_http_is_ready_with_a_status_from_200_to_399(ground: Ground, line: str, address: str) -> None:
    body = b"" if line.startswith("204") else b"ok"
    with closing(Server(ground.port, answering(status(line, body)), address)) as server:
        ground.ready(HTTP)
        ground.until_told("READY")
        assert ground.told == ["READY"]
        assert server.count == 1  # a redirection is not followed
        ground.assert_idle()


def test_http_asks_for_the_path(ground: Ground) -> None:
    seen: list[bytes] = []

    def serve(connection: socket.socket, number: int) -> None:
        seen.append(request_of(connection))
        connection.sendall(OK)

    with closing(Server(ground.port, serve)):
        ground.ready(HTTP, path="/healthz?deep=1")
        ground.until_told("READY")
    assert seen[0].startswith(b"GET /healthz?deep=1 HTTP/1.1\r\n")
    assert f"\r\nHost: localhost:{ground.port}\r\n".encode() in seen[0]


def test_http_is_not_ready_before_its_status(ground: Ground) -> None:
    answers = (status("503 Service Unavailable"), status("503 Service Unavailable"), status("404 Not Found"), OK)
    with closing(Server(ground.port, answering(*answers))) as server:
        ground.ready(HTTP)
        ground.until_told("READY")
        assert ground.told == ["answered 503", "answered 404", "READY"]
        assert server.count == 4
        ground.assert_idle()


def test_http_with_a_wrong_status_is_never_ready(ground: Ground) -> None:
    with closing(Server(ground.port, answering(OK))) as server:
        prober = ground.ready(HTTP, statuses=(204, 404))
        ground.until(lambda: server.count >= 4)
        assert ground.told == ["answered 200"]
        prober.close()
        assert prober.reason == "answered 200"
        ground.assert_idle()


def test_http_with_the_status_that_is_wanted(ground: Ground) -> None:
    with closing(Server(ground.port, answering(status("404 Not Found")))):
        ground.ready(HTTP, statuses=(204, 404))
        ground.until_told("READY")


def test_http_with_half_an_answer(ground: Ground) -> None:
    with closing(Server(ground.port, answering(OK[:14], OK[:-1], OK))):
        ground.ready(HTTP)
        ground.until_told("READY")
        assert ground.told == [
            "closed the connection before it had answered",
            "closed the connection in the middle of its answer",
            "READY",
        ]


@pytest.mark.parametrize("first", [b"", OK[:14], OK[:-1]])
def test_http_that_falls_silent(ground: Ground, first: bytes) -> None:
    """A server that accepts, and then says nothing, or half of it."""
    with closing(Server(ground.port, keeping(first))) as server:
        prober = ground.ready(HTTP)
        ground.until(lambda: server.count >= 2)
        assert len(ground.told) == 1
        assert "0.3 s" in ground.told[0]
        prober.close()  # in the midst of an attempt
        ground.assert_idle()


def test_http_whose_backlog_answers_for_it(ground: Ground) -> None:
    """It listens, so the kernel accepts; it is too busy to."""
    with closing(bound(ground.port)) as busy:
        busy.listen()
        ground.ready(HTTP)
        ground.until(lambda: ground.told)
        assert "0.3 s" in ground.told[0]


def test_http_of_something_else(ground: Ground) -> None:
    with closing(Server(ground.port, keeping(b"220 mail.example ESMTP\x1b[2J\r\n"))):
        ground.ready(HTTP)
        ground.until(lambda: ground.told)
        assert ground.told == ["does not speak HTTP"]


def test_http_with_an_endless_answer(ground: Ground) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        request_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(bytes(65_536))

    with closing(Server(ground.port, serve)):
        ground.ready(HTTP, timeout_s=CEILING_S)
        ground.until_told("READY")
        assert ground.told == ["READY"]
        ground.assert_idle()


def test_a_server_may_finish_its_answer_in_peace(ground: Ground) -> None:
    """It hears the end of the connection, not an error: nothing for its log."""
    ends: list[bytes | str] = []

    def serve(connection: socket.socket, number: int) -> None:
        request_of(connection)
        try:
            for at in range(len(OK)):
                connection.sendall(OK[at : at + 1])
            ends.append(connection.recv(10))
        except OSError as error:
            ends.append(str(error))

    with closing(Server(ground.port, serve)):
        ground.ready(HTTP)
        ground.until_told("READY")
    assert ends == [b""]


# --- a line of the log ---


class Logging:
    """A child whose output goes through the multiplexer, as an instance's does."""

    def __init__(self, ground: Ground, command: str) -> None:
        self.order: list[str] = []
        self.blocks: list[bytes] = []
        self._ground = ground
        self._multiplexer = Multiplexer(ground.loop, self._take, lambda: False, prompt_s=CEILING_S)
        self._process = ground.spawn(command)
        self._feed = self._multiplexer.add("web.1", self._process.output_fd, taps=ground.taps)
        ground.then = self.order.append

    def _take(self, event: Event) -> None:
        if isinstance(event, Output):
            self.order.append("output")
            self.blocks.append(event.block)

    def close(self) -> None:
        signal_group(self._process.pid, signal.SIGKILL)
        self._ground.until(lambda: self._process.pid not in self._ground.reaper.pids())
        self._multiplexer.close(self._feed)
        self._multiplexer.resume()
        for timer in self._ground.loop.timers:
            timer.cancel()  # those of the multiplexer, which has no end but that of the run


def write(*words: str) -> str:
    return " ".join([PYTHON, str(CHILDREN / "write.py"), "token", *(f"'{word}'" for word in words)])


def test_a_line_of_the_log(ground: Ground) -> None:
    prober = ground.ready(LOG, pattern="Listening on :[0-9]+$")
    logged = Logging(ground, write("boot\\n", "2:Listening on :5000\\n", "pause"))
    ground.until_told("READY")
    assert b"".join(logged.blocks) == b"boot\nListening on :5000\n"
    assert logged.order[-2:] == ["output", "READY"]  # the line before what follows from it
    assert ground.taps == []
    assert prober.reason == ""
    logged.close()


def test_a_line_in_many_writes(ground: Ground) -> None:
    prober = ground.ready(LOG, pattern="^it is ready now$")
    logged = Logging(ground, write("not yet\\n", *"it is ready now", "\\n", "pause"))
    ground.until_told("READY")
    assert prober.reason == ""
    logged.close()


def test_a_line_of_10_mb_without_a_newline(ground: Ground) -> None:
    prober = ground.ready(LOG, pattern="here it is")
    filler = "head -c 5000000 /dev/zero | tr '\\0' x"
    logged = Logging(ground, f"{filler}; printf 'here it is'; {filler}; exec sleep 1000")
    ground.until_told("READY")
    assert isinstance(prober, LogProber)
    ground.until(lambda: sum(map(len, logged.blocks)) >= 2_000_000)  # the output goes its own way
    logged.close()


def test_a_line_that_never_comes(ground: Ground) -> None:
    prober = ground.ready(LOG, pattern="Listening")
    filler = "head -c 10000000 /dev/zero | tr '\\0' x"
    logged = Logging(ground, f"{filler}; echo; echo end; exec sleep 1000")
    ground.until(lambda: logged.blocks and logged.blocks[-1].endswith(b"end\n"))
    assert ground.told == []
    assert prober.reason == 'no line of its output matches "Listening"'
    assert isinstance(prober, LogProber)
    assert prober._pattern is not None
    assert prober._pattern.held_bytes <= LINE_BYTES
    prober.close()
    assert ground.taps == []
    logged.close()


def test_who_else_listens_misses_nothing(ground: Ground) -> None:
    """The prober takes its tap away while the taps are walked through."""
    heard: list[bytes] = []
    prober = ground.ready(LOG, pattern="two")
    ground.taps.append(heard.append)
    logged = Logging(ground, "echo one; echo two; echo three; exec sleep 1000")
    ground.until_told("READY")
    ground.until(lambda: b"".join(heard) == b"one\ntwo\nthree\n")
    assert ground.taps == [heard.append] or len(ground.taps) == 1
    ground.taps.clear()
    prober.close()
    logged.close()


def test_a_line_that_comes_when_nobody_asks_any_more(ground: Ground) -> None:
    prober = ground.ready(LOG, pattern="ready")
    [tap] = ground.taps
    tap(b"ready\n")
    prober.close()  # in the turn of the line
    ground.call("exit 0")  # some turns
    assert ground.told == []


# --- a command ---


def test_a_command_that_returns_0(ground: Ground) -> None:
    ground.env = {**ground.env, b"WANTED": str(ground.port).encode()}
    ground.ready(COMMAND, command="test $PORT = $WANTED && test $PS = web.1 && test $(pwd -P) = $(cd $ROOT; pwd -P)")
    ground.until_told("READY")
    assert ground.told == ["READY"]
    ground.assert_idle()


def test_a_command_until_it_returns_0(ground: Ground) -> None:
    ground.then = lambda told: (ground.root / "there").touch()
    ground.ready(COMMAND, command="echo looking; test -e there || { echo not there >&2; exit 3; }")
    ground.until_told("READY")
    assert ground.told == ["its command exited with 3: not there", "READY"]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("exit 1", "its command exited with 1"),
        ("printf 'first\\nlast words'; exit 2", "its command exited with 2: last words"),
        ("kill -SEGV $$", "its command was terminated by SIGSEGV"),
        ("exec >&- 2>&-; exit 4", "its command exited with 4"),
        ("printf '\\033[31mred\\033[0m\\033]0;x\\007'; exit 1", "its command exited with 1: red ]0;x"),
    ],
)
def test_why_a_command_says_no(ground: Ground, command: str, reason: str) -> None:
    prober = ground.ready(COMMAND, command=command)
    ground.until(lambda: ground.told)
    assert ground.told == [reason]
    assert prober.reason == reason


def test_a_command_that_is_not_there(ground: Ground) -> None:
    ground.ready(COMMAND, command="no-such-program --at-all")
    ground.until(lambda: ground.told)
    assert "exited with 127" in ground.told[0]
    assert "not found" in ground.told[0]


def test_a_command_has_no_input(ground: Ground) -> None:
    ground.ready(COMMAND, command="cat", timeout_s=CEILING_S)
    ground.until_told("READY")


def lifeline(ground: Ground) -> tuple[Path, int]:
    """Return a FIFO and its reading end: end of file comes when all who have opened it are gone."""
    path = ground.root / "lifeline"
    os.mkfifo(path)
    return path, os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def wait_all_gone(fd: int) -> None:
    deadline = time.monotonic() + CEILING_S
    while True:
        assert select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0], "somebody is left"
        if not os.read(fd, 4096):
            os.close(fd)
            return


HANGING = "exec 3>lifeline; (trap '' TERM HUP; sleep 1000) & sleep 1000 & echo up >&3; echo waiting; wait"


def test_a_command_that_hangs_is_killed_with_its_group(ground: Ground) -> None:
    _, fd = lifeline(ground)
    prober = ground.ready(COMMAND, command=HANGING, every_s=1000.0, timeout_s=1.0)
    ground.until(lambda: ground.told)
    assert ground.told == ["its command took longer than 1 s: waiting"]
    wait_all_gone(fd)
    prober.close()
    ground.assert_idle()


def test_a_command_that_hangs_every_time_runs_one_at_a_time(ground: Ground) -> None:
    command = "echo $$ >>pids; for pid in $(cat pids); do kill -0 $pid && echo $pid; done >alive; exec sleep 1000"
    ground.ready(COMMAND, command=command)
    pids = ground.root / "pids"
    ground.until(lambda: pids.exists() and len(pids.read_text().split()) >= 4)
    assert set(ground.told) == {"its command took longer than 0.3 s"} or "No such process" in ground.told[-1]
    alive = (ground.root / "alive").read_text().split()
    assert len(alive) <= 1


def test_a_command_that_does_not_go_is_not_run_once_more(ground: Ground) -> None:
    ground.reaps = False
    ground.ready(COMMAND, command="echo x >>runs; exec sleep 1000")
    ground.until_told("its command was killed and is still there")
    assert ground.told == ["its command took longer than 0.3 s", "its command was killed and is still there"]
    assert (ground.root / "runs").read_text() == "x\n"
    ground.reaps = True
    ground.reaper.reap()
    ground.until(lambda: (ground.root / "runs").read_text() == "x\nx\n", "second run")


def test_what_a_command_leaves_in_its_group_is_killed(ground: Ground) -> None:
    _, fd = lifeline(ground)
    ground.ready(COMMAND, command="exec 3>lifeline; echo up >&3; sleep 1000 & exit 0", timeout_s=CEILING_S)
    ground.until_told("READY")
    wait_all_gone(fd)
    ground.assert_idle()


def test_a_command_whose_output_somebody_else_keeps_open(ground: Ground) -> None:
    """It has left the group, so it is not ours to kill; and not to be waited for."""
    stray = "import os,signal; os.setsid(); open('stray', 'w').write(str(os.getpid())); os.rename('stray', 'its-pid')"
    command = f'{PYTHON} -c "{stray}; signal.pause()" & while ! test -e its-pid; do :; done; echo done'
    ground.ready(COMMAND, command=command, timeout_s=CEILING_S)
    ground.until_told("READY")
    pid = int((ground.root / "its-pid").read_text())
    fd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([fd], [], [], CEILING_S)[0]
    os.close(fd)


def test_a_command_that_floods(ground: Ground) -> None:
    """Its output is read, so that it does not hang, and what is kept of it is bounded; the loop goes on."""
    prober = ground.ready(COMMAND, command="yes 'a line of a flood'", timeout_s=0.5, every_s=1000.0)
    ticks: list[Timer] = []
    kept: list[int] = []

    def tick() -> None:
        attempt = prober._attempt  # type: ignore[union-attr]
        kept.extend([len(attempt._tail)] if attempt else [])  # type: ignore[attr-defined]
        ticks.append(ground.loop.call_later(0.01, tick))

    tick()
    ground.until(lambda: ground.told)
    ticks[-1].cancel()
    assert ground.told[0].startswith("its command took longer than 0.5 s")
    assert ground.told[0].endswith("flood") or "a line" in ground.told[0]
    assert len(ticks) > 5
    assert max(kept) == TAIL_BYTES


def test_a_long_flood_that_ends_well(ground: Ground) -> None:
    command = "head -c 20000000 /dev/zero | tr '\\0' x; echo; echo last words; exit 1"
    ground.ready(COMMAND, command=command, timeout_s=CEILING_S)
    ground.until(lambda: ground.told)
    assert ground.told == ["its command exited with 1: last words"]


@pytest.mark.parametrize("phase", ["before", "running", "between"])
def test_close_of_a_command_in_each_phase(ground: Ground, phase: str) -> None:
    _, fd = lifeline(ground)
    if phase == "between":
        prober = ground.ready(COMMAND, command="exit 1", every_s=1000.0)
        ground.until(lambda: ground.told)
    else:
        prober = ground.ready(COMMAND, command=HANGING, timeout_s=CEILING_S)
        if phase == "running":
            ground.until(lambda: select.select([fd], [], [], 0)[0] and os.read(fd, 10), "begin of the command")
    told = list(ground.told)
    prober.close()
    if phase == "running":
        wait_all_gone(fd)
    else:
        os.close(fd)
    ground.assert_idle()
    assert ground.told == told


@pytest.mark.parametrize("kind", [PORT, HTTP])
@pytest.mark.parametrize("phase", ["before", "running", "between"])
def test_close_of_a_conversation_in_each_phase(ground: Ground, kind: str, phase: str) -> None:
    with closing(bound(ground.port)) as silent:
        if phase == "running":
            silent.listen()
        prober = ground.ready(kind, every_s=1000.0, timeout_s=CEILING_S)
        if phase == "between":
            ground.until(lambda: ground.told)
        elif phase == "running" and kind == HTTP:
            ground.until(lambda: ground.loop.watched - ground._own_fds)
        told = list(ground.told)
        prober.close()
        ground.assert_idle()
        assert ground.told == told


def test_close_by_whoever_is_told(ground: Ground) -> None:
    ground.then = lambda told: ground.probers[0].close()  # as the supervisor does, when its state changes
    ground.ready(COMMAND, command="exit 0")
    ground.until(lambda: ground.told)
    ground.assert_idle()
    assert ground.told == ["READY"]


@pytest.mark.parametrize("kind", [NOTIFY, COMPLETED])
def test_kinds_that_are_not_asked_for(ground: Ground, kind: str) -> None:
    with pytest.raises(ValueError, match=kind):
        ground.ready(kind)


# --- liveness ---


def test_liveness_counts_failures_in_a_row(ground: Ground) -> None:
    results = "1 1 0 1 0 1 1 1 0"
    script = f'echo x >>runs; set -- {results}; shift $(($(wc -l <runs) - 1)); echo "run says $1"; exit $1'
    ground.liveness(COMMAND, command=script, failures=3, timeout_s=CEILING_S)
    ground.until(lambda: ground.told)
    assert ground.told == ["UNHEALTHY its command exited with 1: run says 1"]
    assert len((ground.root / "runs").read_text().split()) == 8
    ground.assert_idle()  # told once, and nothing is left


def test_liveness_of_one_that_stays_healthy(ground: Ground) -> None:
    with closing(Server(ground.port, answering(OK))) as server:
        prober = ground.liveness(HTTP, failures=1, timeout_s=CEILING_S)
        ground.until(lambda: server.count >= 5)
        assert ground.told == []
        prober.close()
        ground.assert_idle()


def test_liveness_of_one_that_falls_silent(ground: Ground) -> None:
    def serve(connection: socket.socket, number: int) -> None:
        answering(OK)(connection, number) if number <= 2 else keeping()(connection, number)

    with closing(Server(ground.port, serve)) as server:
        ground.liveness(HTTP, failures=2)
        ground.until(lambda: ground.told)
        assert len(ground.told) == 1
        assert "0.3 s" in ground.told[0]
        assert server.count == 4
        ground.assert_idle()


def test_liveness_of_a_port_that_closes(ground: Ground) -> None:
    server = Server(ground.port, keeping())
    ground.liveness(PORT, failures=3)
    ground.until(lambda: server.count >= 2)
    server.close()
    ground.until(lambda: ground.told)
    assert len(ground.told) == 1
    assert "refused" in ground.told[0]


# --- notify ---

def sender(*words: str) -> str:
    return " ".join([PYTHON, str(CHILDREN / "notify.py"), "token", *(f"'{word}'" for word in words)])


def send(ground: Ground, address: str, *messages: str) -> int:
    return ground.call(sender(*messages), NOTIFY_SOCKET=address)


def test_notify(ground: Ground) -> None:
    made = ground.notify()
    assert made.reason == "it has not sent READY=1"
    assert send(ground, made.address, "STATUS=loading", "STATUS=loading", "READY=1\\nSTATUS=up") == 0
    ground.until_told("READY")
    assert ground.told == ["loading", "READY"]
    assert made.reason == ""
    # Whoever goes on talking gets no error, and is not told again.
    assert send(ground, made.address, *["STATUS=busy", "READY=1", "WATCHDOG=1"] * 20) == 0
    assert ground.told == ["loading", "READY"]
    made.close()
    assert send(ground, made.address, "READY=1") in (errno.ECONNREFUSED, errno.ENOENT)  # nobody is there
    ground.assert_idle()


def test_notify_leaves_no_file(ground: Ground) -> None:
    first, second = ground.notify(), ground.notify("web.2")
    directory = Path(first.address).parent
    assert directory.parent == Path(os.environ["TMPDIR"])
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    first.close()
    assert os.listdir(directory) == [Path(second.address).name]
    second.close()
    assert not directory.exists()


def test_notify_in_a_directory_that_is_not_there(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_fds()
    monkeypatch.setenv("TMPDIR", "/tmp/is-not-there")
    with pytest.raises(OSError, match="No such file"):
        NotifySocket(ground.loop, "123-456", "web.1")
    assert open_fds() == before


@pytest.mark.parametrize("kind", ["open", "link", "file"])
def test_notify_where_somebody_else_was_first(ground: Ground, kind: str) -> None:
    place = Path(os.environ["TMPDIR"]) / "procman-123-456"
    if kind == "open":
        place.mkdir(mode=0o755)
        place.chmod(0o755)
    elif kind == "link":
        place.symlink_to(ground.root)
    else:
        place.write_text("")
    with pytest.raises(FileExistsError):
        NotifySocket(ground.loop, "123-456", "web.1")


def test_notify_of_several_instances_at_once(ground: Ground) -> None:
    order: list[str] = []
    sockets = {name: NotifySocket(ground.loop, "123-456", name) for name in ("web.1", "web.2", "x" * 200 + ".1")}
    ground.probers += sockets.values()
    twin = NotifySocket(ground.loop, "123-456", "web.1")  # the next process of one whose last is still there
    ground.probers.append(twin)
    assert len({twin.address, *(made.address for made in sockets.values())}) == 4
    for name, made in sockets.items():
        made.on_ready = lambda name=name: order.append(name)  # type: ignore[misc]
    twin.on_ready = lambda: order.append("twin")
    for name in reversed(sockets):
        assert send(ground, sockets[name].address, "READY=1") == 0
        ground.until(lambda name=name: order[-1:] == [name])  # type: ignore[misc]
    assert order == [*reversed(sockets)]
    assert send(ground, twin.address, "READY=1") == 0
    ground.until(lambda: order[-1] == "twin")


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "READY",
        "READY=0",
        "ready=1",
        "\\xff\\xfe\\x00READY=1",
        "X=" + "y" * 4000,
    ],
)
def test_notify_with_garbage(ground: Ground, garbage: str) -> None:
    made = ground.notify()
    assert send(ground, made.address, garbage, "STATUS=behind it") == 0
    ground.until_told("behind it")
    assert ground.told == ["behind it"]


def test_notify_with_a_message_that_is_too_long(ground: Ground) -> None:
    made = ground.notify()
    assert send(ground, made.address, "READY=1\\n" + "x" * 20_000) == 0
    ground.until(lambda: ground.told)
    assert ground.told == ["it sent a message longer than 4096 bytes"]
    assert send(ground, made.address, "READY=1\\n" + "x" * 4_000) == 0
    ground.until_told("READY")


def test_notify_with_descriptors(ground: Ground) -> None:
    """systemd-notify passes one on and waits until it is closed (sd_notify_barrier(3))."""
    made = ground.notify()
    ours, theirs = os.pipe()
    before = len(open_fds())
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as peer:
        peer.connect(made.address)
        for text in (b"BARRIER=1", b"READY=1"):
            socket.send_fds(peer, [text], [theirs])
    ground.until_told("READY")
    assert len(open_fds()) == before
    os.close(theirs)
    assert os.read(ours, 1) == b""  # nobody else has it
    os.close(ours)


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_what_another_user_sends_does_not_count(ground: Ground) -> None:
    made = ground.notify()
    Path(made.address).chmod(0o666)
    assert send(ground, made.address, "user:65534", "READY=1") == errno.EACCES  # it cannot even come in
    for directory in Path(made.address).parents[:2]:
        directory.chmod(0o711)
    assert send(ground, made.address, "user:65534", "READY=1") == 0
    ground.until(lambda: ground.told)
    assert ground.told == ["user 65534 sent a message, and only what user 0 sends counts"]
    assert send(ground, made.address, "READY=1") == 0
    ground.until_told("READY")


def test_notify_with_a_flood(ground: Ground) -> None:
    made = ground.notify()
    flood = [f"STATUS=step {number}" for number in range(500)]
    assert send(ground, made.address, *flood, "READY=1") == 0
    ground.until_told("READY")
    assert ground.told == [f"step {number}" for number in range(500)] + ["READY"]
