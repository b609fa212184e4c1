"""Conversations with servers that answer, delay, refuse, lie, flood and hang, over real sockets; and with resolvers."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from procman.dialogue import Dialogue
from procman.greetings import TALKS
from procman.loop import Loop
from procman.process import Reaper
from procman.protocols import BackingService, Talk, Verdict, backing_service
from procman.services import ServiceWatch
from tests.support.app import CEILING_S
from tests.support.servers import Handler, Peer, Server

PING = TALKS["Redis"]
TCP = Talk(b"", lambda received, is_closed: Verdict(True))
NEVER = Talk(b"", lambda received, is_closed: None)
SHORT_S = 0.3  # of a conversation that shall time out
HANGING = ("/bin/sh", "-c", "exec sleep 1000")
CERTIFICATE = Path(__file__).parents[1] / "support" / "server.pem"

READY = Verdict(True)


class Asking:
    """A loop with conversations, and the servers of a test."""

    def __init__(self) -> None:
        self.turns = 0
        self._fds = _open_fds()
        self._children = _children()
        self._servers: list[Server] = []
        self._sockets: list[socket.socket] = []
        self.loop = Loop()
        self._reaper = Reaper()
        self.loop.on_signal(signal.SIGCHLD, self._reap)

    def _reap(self) -> None:
        for pid in _children() - self._children:  # others may be of the tests before
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    def server(self, handle: Handler, hosts: Sequence[str] = ("127.0.0.1",), **kwargs: object) -> Server:
        server = Server(handle, hosts, **kwargs)  # type: ignore[arg-type]
        self._servers.append(server)
        return server

    def refusing(self) -> int:
        """Return a port of 127.0.0.1 that is taken, so that nobody else listens there, and refuses."""
        taken = socket.socket()
        taken.bind(("127.0.0.1", 0))
        self._sockets.append(taken)
        return int(taken.getsockname()[1])

    def black_hole(self) -> int:
        """Return a port of 127.0.0.1 that does not even answer the first packet: its queue is full."""
        full = socket.socket()
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        self._sockets.append(full)
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(full.getsockname())
            self._sockets.append(client)
        assert not select.select([], [client], [], 0.1)[1], "this system's queues are longer"
        return int(full.getsockname()[1])

    def ask(
        self,
        hosts: Sequence[tuple[str, int]],
        talk: Talk = PING,
        timeout_s: float = CEILING_S,
        path: str = "",
        **kwargs: object,
    ) -> Verdict:
        """Return the verdict of one conversation; there is exactly one, and nothing is left open behind it."""
        verdicts: list[Verdict] = []

        def on_verdict(verdict: Verdict) -> None:
            verdicts.append(verdict)
            self.loop.at_turn_end(self.loop.stop)

        Dialogue(self.loop, hosts, path, talk, timeout_s, on_verdict, **kwargs)  # type: ignore[arg-type]
        assert not verdicts, "before the caller had the object"
        self.run()
        assert len(verdicts) == 1
        return verdicts[0]

    def run(self) -> None:
        """Take turns until the loop is stopped."""
        ceiling = self.loop.call_later(2 * CEILING_S, lambda: pytest.fail("no verdict"))
        self.loop._is_stopped = False
        while not self.loop._is_stopped:
            self.turns += 1
            self.loop.turn()
        ceiling.cancel()

    def run_until(self, is_true: Callable[[], bool]) -> None:
        """Take turns until `is_true()`, looked at between them and at least every few milliseconds."""
        deadline = time.monotonic() + CEILING_S
        while not is_true():
            assert time.monotonic() < deadline
            self.loop.call_later(0.005, lambda: None)
            self.loop.turn()

    def close(self) -> None:
        for server in self._servers:
            server.close()
        for taken in self._sockets:
            taken.close()
        assert set(self.loop._watches) == {self.loop._wakeup_fd}, "still watched"
        self.loop.close()

    def leaks(self) -> list[str]:
        """Return what is left: open descriptors, children."""
        left = [f"child {pid}" for pid in _children() - self._children if not _ends(pid)]
        return left + [f"fd {fd} {_target(fd)}" for fd in _open_fds() - self._fds]


def _open_fds() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")}


def _target(fd: int) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/self/fd/{fd}")
    return "?"


def _children() -> set[int]:
    return {
        int(pid)
        for task in os.listdir("/proc/self/task")
        for pid in Path(f"/proc/self/task/{task}/children").read_text().split()
    }


def _ends(pid: int) -> bool:
    """Wait for the end of a child, and reap it."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        has_ended = bool(select.select([fd], [], [], 5)[0])
    finally:
        os.close(fd)
    if has_ended:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    return has_ended


@pytest.fixture
def asking() -> Iterator[Asking]:
    made = Asking()
    yield made
    made.close()
    assert made.leaks() == []


def answers(answer: bytes, after: int = len(PING.hello), *, in_pieces: bool = False) -> Handler:
    """Return a handler that reads so many bytes, answers, and reads what else comes."""

    def handle(peer: Peer) -> None:
        peer.hears(after)
        peer.says(answer, in_pieces=in_pieces)
        peer.hears_all()

    return handle


def is_silent(peer: Peer) -> None:
    peer.hears_all()


def closes(peer: Peer) -> None:
    pass


def says_half(peer: Peer) -> None:
    peer.hears(len(PING.hello))
    peer.says(b"+PON")


has_ipv6 = pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="no IPv6 here")

# --- answers ---------------------------------------------------------------------------------------------------------

SPOKEN = [
    ("postgres://sayUser:sayPass@{at}/sayPath?sayName=sayValue", b"R\0\0\0\x08\0\0\0\x05salt"),
    ("mysql://sayUser:sayPass@{at}/sayPath?sayName=sayValue", b"\x09\0\0\0\x0a8.0.40\0x"),
    ("redis://sayUser:sayPass@{at}/sayPath?sayName=sayValue", b"-NOAUTH Authentication required.\r\n"),
    ("memcached://{at}/sayPath?sayName=sayValue", b"VERSION 1.6.38\r\n"),
    ("memcached://sayUser:sayPass@{at}/sayPath", b"\x81\x0b" + bytes(22)),
    ("amqp://sayUser:sayPass@{at}/sayPath?sayName=sayValue", b"\x01\0\0\0\0\x01\xf2\0\x0a\0\x0a"),
    ("beanstalkd://sayUser:sayPass@{at}/sayPath?sayName=sayValue", b"USING default\r\n"),
    ("smtp://sayUser:sayPass@{at}/?sayName=sayValue", b"220 mail ESMTP\r\n"),
    ("http://sayUser:sayPass@{at}/sayPath?sayName=sayValue#sayFragment", b"HTTP/1.1 403 Forbidden\r\n\r\n"),
    ("mongodb://sayUser:sayPass@{at}/sayPath?sayName=sayValue", b"\x1a\0\0\0\1\0\0\0corp\xdd\x07\0\0" + bytes(10)),
    ("tcp://sayUser:sayPass@{at}/sayPath", b""),
]


@pytest.mark.parametrize(("url", "answer"), SPOKEN, ids=[url.partition("{at}")[0] for url, _ in SPOKEN])
@pytest.mark.parametrize("in_pieces", [False, True])
def test_each_protocol(asking: Asking, url: str, answer: bytes, in_pieces: bool) -> None:
    """The server hears exactly what the protocol asks for, nothing of the URL's secrets, and the goodbye."""
    server = asking.server(lambda peer: answers(answer, len(service_of().talk.hello), in_pieces=in_pieces)(peer))  # type: ignore[union-attr]

    def service_of() -> BackingService:
        return backing_service("X", url.format(at=f"127.0.0.1:{server.port}"))

    service = service_of()
    assert service.talk is not None
    assert asking.ask(service.hosts, service.talk) == READY
    said = service.talk.hello + service.talk.goodbye
    server.wait_until(lambda: len(server.heard) >= len(said), "goodbye")
    assert server.heard == said
    assert b"say" not in server.heard
    server.wait_until(lambda: server.count == 1, "connection")


def test_a_slow_answer_is_waited_for(asking: Asking) -> None:
    gate = threading.Event()

    def slow(peer: Peer) -> None:
        peer.hears(len(PING.hello))
        peer.says(b"+PO")
        assert gate.wait(CEILING_S)
        peer.says(b"NG\r\n")

    server = asking.server(slow)
    asking.loop.call_later(0.2, gate.set)
    assert asking.ask([("127.0.0.1", server.port)]) == READY
    assert asking.turns < 50, "waiting is no polling"


def test_a_not_ready_answer_is_told(asking: Asking) -> None:
    server = asking.server(answers(b"-LOADING Redis is loading\x1b[31m the dataset\r\n"))
    verdict = asking.ask([("127.0.0.1", server.port)])
    assert verdict == Verdict(False, "LOADING Redis is loading [31m the dataset")


def test_a_last_word_before_the_end_counts(asking: Asking) -> None:
    """A server may answer and close before it has read what we say, as Redis in protected mode does."""

    def refuses(peer: Peer) -> None:
        peer.says(b"-DENIED protected mode\r\n")

    server = asking.server(refuses)
    assert asking.ask([("127.0.0.1", server.port)]) == READY


@pytest.mark.parametrize(
    ("handle", "reason"),
    [
        (closes, "closed the connection without an answer"),
        (Peer.resets, "closed the connection without an answer"),
        (answers(b""), f"no answer within {SHORT_S} s"),
        (says_half, "closed the connection in the middle of its answer"),
        (answers(b"+PON"), f"no answer within {SHORT_S} s"),
        (answers(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "speaks no Redis, but HTTP"),
        (answers(b"\0" * 1000), "speaks no Redis"),
        (answers(b"-" + b"X" * 1_000_000), "speaks no Redis"),
        (is_silent, f"no answer within {SHORT_S} s"),
    ],
)
def test_what_is_no_answer(asking: Asking, handle: Handler, reason: str) -> None:
    server = asking.server(handle)
    assert asking.ask([("127.0.0.1", server.port)], timeout_s=SHORT_S) == Verdict(False, reason)
    assert asking.turns < 50


def test_a_flood_ends(asking: Asking) -> None:
    def floods(peer: Peer) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer.socket.sendall(b"x" * 65_536)

    server = asking.server(floods)
    assert asking.ask([("127.0.0.1", server.port)], NEVER) == Verdict(False, "its answer has no end")


def test_a_peer_that_does_not_read_stops_nobody(asking: Asking) -> None:
    """More than the kernel buffers is said to a server that reads nothing."""
    gate = threading.Event()
    server = asking.server(lambda peer: gate.wait(CEILING_S) and None)
    long = Talk(b"x" * 50_000_000, lambda received, is_closed: None)
    assert asking.ask([("127.0.0.1", server.port)], long, SHORT_S).reason == f"no answer within {SHORT_S} s"
    gate.set()


# --- addresses -------------------------------------------------------------------------------------------------------


def test_refused(asking: Asking) -> None:
    assert asking.ask([("127.0.0.1", asking.refusing())]) == Verdict(False, "connection refused")
    assert asking.ask([("localhost", asking.refusing())]) == Verdict(False, "connection refused")


@pytest.mark.parametrize(
    "hosts",
    [["127.0.0.1"], pytest.param(["::1"], marks=has_ipv6), pytest.param(["127.0.0.1", "::1"], marks=has_ipv6)],
)
@pytest.mark.parametrize("name", ["localhost", ""])
def test_localhost_is_both_loopbacks(asking: Asking, hosts: list[str], name: str) -> None:
    server = asking.server(answers(b"+PONG\r\n"), hosts)
    assert asking.ask([(name, server.port)]) == READY
    server.wait_until(lambda: server.count == 1, "connection")


@has_ipv6
def test_the_other_loopback_is_asked_when_one_gives_no_good_answer(asking: Asking) -> None:
    port = asking.server(answers(b"+PONG\r\n"), ["::1"]).port
    other = socket.socket()
    other.bind(("127.0.0.1", port))
    other.listen()
    threading.Thread(target=lambda: other.accept()[0].close(), daemon=True).start()
    assert asking.ask([("localhost", port)]) == READY
    other.close()


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=has_ipv6)])
def test_numeric_addresses_need_no_resolver(asking: Asking, host: str) -> None:
    server = asking.server(answers(b"+PONG\r\n"), [host])
    assert asking.ask([(host, server.port)], resolver=("/nonexistent",)) == READY


def test_any_of_several_hosts_will_do(asking: Asking) -> None:
    good = asking.server(answers(b"+PONG\r\n"))
    bad = asking.server(closes)
    hosts = [("127.0.0.1", port) for port in (asking.refusing(), bad.port, good.port, asking.refusing())]
    assert asking.ask(hosts) == READY
    assert (good.count, bad.count) == (1, 1)


def test_what_spoke_is_told_before_what_refused(asking: Asking) -> None:
    bad = asking.server(closes)
    for ports in ([asking.refusing(), bad.port], [bad.port, asking.refusing()]):
        verdict = asking.ask([("127.0.0.1", port) for port in ports])
        assert verdict.reason == "closed the connection without an answer"


def test_an_address_that_swallows_packets_takes_only_its_share(asking: Asking) -> None:
    hole, good = asking.black_hole(), asking.server(answers(b"+PONG\r\n"))
    assert asking.ask([("127.0.0.1", hole), ("127.0.0.1", good.port)], timeout_s=2 * SHORT_S) == READY
    verdict = asking.ask([("127.0.0.1", hole)], timeout_s=SHORT_S)
    assert verdict.reason == f"no connection within {SHORT_S} s"


def test_who_has_connected_may_take_all_the_time(asking: Asking) -> None:
    """The share of an address is for the way to it: the second of localhost's must not halve a slow server's time."""
    gate = threading.Event()

    def slow(peer: Peer) -> None:
        gate.wait(CEILING_S)
        peer.says(b"+PONG\r\n")

    server = asking.server(slow)
    asking.loop.call_later(2.0, gate.set)
    assert asking.ask([("127.0.0.1", server.port), ("127.0.0.1", asking.refusing())], timeout_s=3.0) == READY


def test_unix_sockets(asking: Asking, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    asking.server(answers(b"+PONG\r\n"), [""], path=path)
    assert asking.ask([], path=path) == READY
    name = f"procman-test-{os.getpid()}-{tmp_path.name}"
    asking.server(answers(b"+PONG\r\n"), [""], path=f"\0{name}")
    assert asking.ask([], path=f"@{name}") == READY


def test_unix_sockets_that_are_none(asking: Asking, tmp_path: Path) -> None:
    assert asking.ask([], path=str(tmp_path / "none")) == Verdict(False, "no such socket")
    assert asking.ask([], path="/" + "x" * 200) == Verdict(False, "the path of its socket is too long")
    file = tmp_path / "file"
    file.write_text("")
    assert asking.ask([], path=str(file)) == Verdict(False, "connection refused")
    server = asking.server(answers(b"+PONG\r\n"))
    assert asking.ask([("127.0.0.1", server.port)], path=str(file)) == READY, "the host is asked behind it"


def test_no_address_at_all(asking: Asking) -> None:
    assert asking.ask([]) == Verdict(False, "there is no address to ask")


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_name_is_resolved_by_a_helper(asking: Asking) -> None:
    """LOCALHOST is in /etc/hosts as localhost is, and only the latter is known without a look."""
    hosts = ["127.0.0.1", "::1"] if os.path.exists("/proc/net/if_inet6") else ["127.0.0.1"]
    server = asking.server(answers(b"+PONG\r\n"), hosts)
    assert asking.ask([("LOCALHOST", server.port)]) == READY


def test_a_name_that_does_not_exist(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RES_OPTIONS", "timeout:1 attempts:1")
    verdict = asking.ask([("nonexistent.invalid", 1)])
    # Where there is no network no name server can say so.
    assert verdict.reason in (
        "there is no host of that name",
        "its name cannot be resolved: no name server answers",
    )


def test_all_addresses_of_a_name_are_tried(asking: Asking) -> None:
    server = asking.server(answers(b"+PONG\r\n"))
    resolver = ("/bin/sh", "-c", "echo 127.0.0.2; echo 127.0.0.1; echo .")
    assert asking.ask([("db.example", server.port)], resolver=resolver) == READY


def test_the_resolver_gets_name_and_time_and_no_marks(
    asking: Asking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCMAN_RUN", "x")
    monkeypatch.setenv("PROCMAN_PROCESS", "web.1")
    said = tmp_path / "said"
    resolver = ("/bin/sh", "-c", f'echo "$0 $1 [$PROCMAN_RUN$PROCMAN_PROCESS]" > {said}; echo .')
    asking.ask([("db.example", 77)], timeout_s=8, resolver=resolver)
    assert re.fullmatch(r"db\.example [89]\.\d+ \[\]\n", said.read_text())


def test_a_resolver_that_hangs(asking: Asking) -> None:
    verdict = asking.ask([("db.example", 1)], timeout_s=SHORT_S, resolver=HANGING)
    assert verdict == Verdict(False, f"its name is not resolved within {SHORT_S} s")
    assert asking.turns < 50


def test_while_a_name_hangs_another_host_gets_its_share(asking: Asking) -> None:
    server = asking.server(answers(b"+PONG\r\n"))
    hosts = [("db.example", 1), ("127.0.0.1", server.port)]
    assert asking.ask(hosts, timeout_s=2 * SHORT_S, resolver=HANGING) == READY


@pytest.mark.parametrize(
    ("resolver", "reason"),
    [
        (("/nonexistent/resolver",), "no such file or directory"),
        (("/bin/sh", "-c", "exit 1"), "the helper process failed"),
        (("/bin/sh", "-c", "echo 127.0.0.1"), "the helper process failed"),
        (("/bin/sh", "-c", "kill -9 $$"), "the helper process failed"),
        (("/bin/sh", "-c", "head -c 1000000 /dev/zero"), "the helper process failed"),
        (("/bin/sh", "-c", "echo ! -3 x; echo ."), "no name server answers"),
        (("/bin/sh", "-c", "echo ! -4 Non-recoverable failure; echo ."), "non-recoverable failure"),
    ],
)
def test_a_resolver_that_fails(asking: Asking, resolver: Sequence[str], reason: str) -> None:
    verdict = asking.ask([("db.example", 1)], resolver=resolver)
    assert verdict == Verdict(False, f"its name cannot be resolved: {reason}")


def test_the_helper_ends_by_itself_if_nobody_is_left_to_end_it(tmp_path: Path) -> None:
    """By its own alarm: here it hangs, and nobody closes it."""
    from procman.resolver import RESOLVER

    code = RESOLVER[-1].replace("try:", "import time; time.sleep(1000)\ntry:", 1)
    assert code != RESOLVER[-1]
    done = subprocess.run([*RESOLVER[:-1], code, "db.example", "0.1"], timeout=CEILING_S, check=False)
    assert done.returncode == -signal.SIGALRM


# --- closing ---------------------------------------------------------------------------------------------------------


def test_after_close_there_is_no_verdict_and_nothing_left(asking: Asking) -> None:
    """At each point of a conversation; the fixture looks for descriptors and children."""
    heard = asking.server(is_silent)
    upgrade = Talk(b"", lambda r, c: None, tls="upgrade", upgrade=b"u", upgrade_judge=lambda received: None)
    hanging: list[tuple[list[tuple[str, int]], Talk]] = [
        ([("127.0.0.1", asking.black_hole())], PING),
        ([("127.0.0.1", heard.port)], PING),
        ([("127.0.0.1", heard.port)], PING._replace(tls="first")),
        ([("127.0.0.1", heard.port)], upgrade),
        ([("db.example", 1)], PING),
    ]
    verdicts: list[Verdict] = []
    for hosts, talk in hanging:
        for turns in range(6):
            dialogue = Dialogue(asking.loop, hosts, "", talk, CEILING_S, verdicts.append, HANGING)
            for _ in range(turns):
                asking.loop.call_later(0.01, lambda: None)
                asking.loop.turn()
            dialogue.close()
            dialogue.close()
    asking.run_until(lambda: not any(timer.callback for timer in asking.loop._timers))
    assert verdicts == []


def test_a_verdict_may_close_its_conversation_or_begin_another(asking: Asking) -> None:
    server = asking.server(answers(b"+PONG\r\n"))
    verdicts: list[Verdict] = []
    dialogues: list[Dialogue] = []

    def begin() -> None:
        dialogues.append(Dialogue(asking.loop, [("127.0.0.1", server.port)], "", PING, CEILING_S, on_verdict))

    def on_verdict(verdict: Verdict) -> None:
        verdicts.append(verdict)
        dialogues[-1].close()
        if len(verdicts) < 5:
            begin()

    begin()
    asking.run_until(lambda: len(verdicts) == 5)
    assert set(verdicts) == {READY}


def test_many_at_once(asking: Asking) -> None:
    server = asking.server(answers(b"+PONG\r\n"), backlog=200)
    verdicts: list[Verdict] = []
    hosts = [[("127.0.0.1", server.port)], [("127.0.0.1", asking.refusing())], [("db.example", 1)]]
    for at in range(60):
        resolver = ("/bin/sh", "-c", "echo .")
        Dialogue(asking.loop, hosts[at % 3], "", PING, CEILING_S, verdicts.append, resolver)
    asking.run_until(lambda: len(verdicts) == 60)
    assert sum(verdict.is_ok for verdict in verdicts) == 20


def test_no_descriptor_left_is_a_reason(asking: Asking) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(_open_fds())
    fillers = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.dup(0))
        connecting = asking.ask([("127.0.0.1", 1)])
        resolving = asking.ask([("db.example", 1)])
    finally:
        for fd in fillers:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert connecting == Verdict(False, "too many open files")
    assert resolving == Verdict(False, "its name cannot be resolved: too many open files")


# --- TLS -------------------------------------------------------------------------------------------------------------


def certified(**changes: object) -> ssl.SSLContext:
    """The server's side, with a certificate for no name at all that nobody signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    for name, value in changes.items():
        setattr(context, name, value)
    return context


def secured(answer: bytes, context: ssl.SSLContext, hello: bytes = PING.hello) -> Handler:
    def handle(peer: Peer) -> None:
        if peer.shakes_hands(context):
            peer.hears(len(hello))
            peer.says(answer, in_pieces=True)
            peer.hears_all()

    return handle


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS, ids=str)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_tls_first(asking: Asking, version: ssl.TLSVersion, host: str) -> None:
    server = asking.server(secured(b"+PONG\r\n", certified(maximum_version=version)))
    service = backing_service("X", f"rediss://sayUser:sayPass@{host}:{server.port}")
    assert service.talk is not None
    assert asking.ask(service.hosts, service.talk) == READY
    server.wait_until(lambda: len(server.heard) >= len(PING.hello), "hello")
    assert server.heard == PING.hello


def test_tls_with_a_goodbye_and_a_server_that_speaks_first(asking: Asking) -> None:
    server = asking.server(secured(b"220 mail ESMTP\r\n", certified(), hello=b""))
    service = backing_service("X", f"smtps://127.0.0.1:{server.port}")
    assert service.talk is not None
    assert asking.ask(service.hosts, service.talk) == READY
    server.wait_until(lambda: server.heard == b"QUIT\r\n", "goodbye")


def test_tls_not_ready(asking: Asking) -> None:
    server = asking.server(secured(b"-LOADING x\r\n", certified()))
    assert asking.ask([("127.0.0.1", server.port)], PING._replace(tls="first")) == Verdict(False, "LOADING x")


@pytest.mark.parametrize(
    ("handle", "reason"),
    [
        (answers(b"-ERR what\r\n", 1), "answers without TLS, which its URL asks for"),
        (answers(b"HTTP/1.1 400 Bad Request\r\n\r\n", 1), "answers without TLS, which its URL asks for"),
        (answers(b"220 mail ESMTP\r\n", 0), "answers without TLS, which its URL asks for"),
        (lambda peer: peer.hears(1), "closed the connection in the TLS handshake"),
        (closes, "closed the connection in the TLS handshake"),
        (is_silent, f"no TLS handshake within {SHORT_S} s"),
        (answers(b"\x15\x03\x03\0\x02\x02\x28", 1), "the TLS handshake failed: .*handshake failure"),
    ],
)
def test_what_is_no_tls(asking: Asking, handle: Handler, reason: str) -> None:
    server = asking.server(handle)
    verdict = asking.ask([("127.0.0.1", server.port)], PING._replace(tls="first"), SHORT_S)
    assert not verdict.is_ok
    assert re.fullmatch(reason, verdict.reason), verdict.reason


def test_tls_that_hangs_or_ends_after_the_handshake(asking: Asking) -> None:
    def hangs(peer: Peer) -> None:
        peer.shakes_hands(certified())
        peer.hears_all()

    def ends(peer: Peer) -> None:
        peer.shakes_hands(certified())

    for handle, reason in ((hangs, f"no answer within {SHORT_S} s"), (ends, "closed the connection without an answer")):
        server = asking.server(handle)
        verdict = asking.ask([("127.0.0.1", server.port)], PING._replace(tls="first"), SHORT_S)
        assert verdict == Verdict(False, reason)


def test_a_flood_through_tls_ends(asking: Asking) -> None:
    def floods(peer: Peer) -> None:
        if peer.shakes_hands(certified()):
            with contextlib.suppress(OSError):
                while True:
                    peer.socket.sendall(b"x" * 65_536)

    server = asking.server(floods)
    verdict = asking.ask([("127.0.0.1", server.port)], NEVER._replace(tls="first"))
    assert verdict == Verdict(False, "its answer has no end")


def test_who_asks_for_our_certificate_is_there(asking: Asking) -> None:
    """Redis does by default, with TLS: we have none to show, the app has."""
    context = certified(verify_mode=ssl.CERT_REQUIRED)
    context.load_verify_locations(CERTIFICATE)
    server = asking.server(secured(b"+PONG\r\n", context))
    assert asking.ask([("127.0.0.1", server.port)], PING._replace(tls="first")) == READY


def test_without_tls_to_one_who_wants_it(asking: Asking) -> None:
    server = asking.server(secured(b"+PONG\r\n", certified()))
    verdict = asking.ask([("127.0.0.1", server.port)])
    assert verdict.reason in ("speaks no Redis, but TLS", "closed the connection without an answer")


def postgres(answer: bytes, then: bytes) -> Handler:
    """A PostgreSQL server: it answers the request for TLS, goes on with it if it said S, then answers the start."""

    def handle(peer: Peer) -> None:
        peer.hears(8)
        peer.says(answer)
        if answer != b"S" or peer.shakes_hands(certified()):
            peer.hears(len(TALKS["PostgreSQL"].hello))
            peer.says(then, in_pieces=True)
            peer.hears_all()

    return handle


@pytest.mark.parametrize(
    ("answer", "then", "expected"),
    [
        (b"S", b"R\0\0\0\x08\0\0\0\x05salt", READY),
        (b"S", b"E\0\0\0\x22SFATAL\0C57P03\0Mstarting up\0\0\0\0\0", Verdict(False, "starting up")),
        (b"N", b"", Verdict(False, "offers no TLS, which its URL asks for")),
        (b"SX", b"", Verdict(False, "speaks no PostgreSQL")),
        (b"HTTP/1.1 400", b"", Verdict(False, "speaks no PostgreSQL, but HTTP")),
        (b"", b"", Verdict(False, f"no answer within {SHORT_S} s")),
    ],
)
def test_tls_when_the_server_agrees(asking: Asking, answer: bytes, then: bytes, expected: Verdict) -> None:
    server = asking.server(postgres(answer, then))
    url = f"postgres://sayUser:sayPass@127.0.0.1:{server.port}/sayPath?sslmode=require"
    service = backing_service("X", url)
    assert service.talk is not None
    assert asking.ask(service.hosts, service.talk, CEILING_S if answer else SHORT_S) == expected
    assert b"say" not in server.heard
    said = service.talk.upgrade + service.talk.hello
    if answer == b"S":
        server.wait_until(lambda: len(server.heard) >= len(said), "start")
        assert server.heard == said


def test_tls_with_a_protocol_by_name(asking: Asking) -> None:
    """PostgreSQL without a request before: the name in the handshake says what is to follow."""
    context = certified()
    context.set_alpn_protocols(["postgresql"])
    names: list[str | None] = []

    def handle(peer: Peer) -> None:
        if peer.shakes_hands(context):
            assert isinstance(peer.socket, ssl.SSLSocket)
            names.append(peer.socket.selected_alpn_protocol())
            peer.hears(len(TALKS["PostgreSQL"].hello))
            peer.says(b"R\0\0\0\x08\0\0\0\x05salt")
            peer.hears_all()

    server = asking.server(handle)
    service = backing_service("X", f"postgres://127.0.0.1:{server.port}/x?sslmode=require&sslnegotiation=direct")
    assert service.talk is not None
    assert asking.ask(service.hosts, service.talk) == READY
    assert names == ["postgresql"]


# --- again and again -------------------------------------------------------------------------------------------------


class Watching:
    """What a watch told."""

    def __init__(self, asking: Asking, url: str) -> None:
        self.ready: list[float] = []
        self.troubles: list[str] = []
        self.watch = ServiceWatch(asking.loop, backing_service("X", url), self.ready.append, self.troubles.append)
        assert not self.ready


def test_a_service_is_asked_until_it_answers(asking: Asking) -> None:
    replies = [b"-LOADING a\r\n", b"-LOADING a\r\n", b"", b"+PONG\r\n"]

    def handle(peer: Peer) -> None:
        reply = replies[min(peer.server.count, len(replies)) - 1]
        peer.hears(len(PING.hello))
        peer.says(reply)

    server = asking.server(handle)
    watching = Watching(asking, f"redis://127.0.0.1:{server.port}")
    asking.run_until(lambda: bool(watching.ready))
    assert watching.troubles == ["LOADING a", "closed the connection without an answer"], "each new reason once"
    assert 0.05 + 0.1 + 0.2 <= watching.ready[0] < CEILING_S
    assert server.count == 4
    asking.run_until(lambda: not any(timer.callback for timer in asking.loop._timers))  # it will not ask again
    watching.watch.close()
    assert len(watching.ready) == 1


def test_a_service_that_begins_to_listen(asking: Asking, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    watching = Watching(asking, f"redis+unix://{path}")
    asking.run_until(lambda: watching.troubles == ["no such socket"])
    asking.server(answers(b"+PONG\r\n"), [""], path=path)
    asking.run_until(lambda: bool(watching.ready))
    watching.watch.close()


def test_where_there_is_nothing_to_ask_it_is_there(asking: Asking) -> None:
    watching = Watching(asking, "sqlite:///app.db")
    asking.run_until(lambda: watching.ready == [0.0])
    assert watching.troubles == []


def test_a_watch_that_is_closed_is_silent(asking: Asking) -> None:
    silent, port = asking.server(is_silent), asking.refusing()
    watchings = []
    for url in (f"redis://127.0.0.1:{silent.port}", f"redis://127.0.0.1:{port}", "sqlite::memory:"):
        watching = Watching(asking, url)
        watching.watch.close()
        watchings.append(watching)
    watching = Watching(asking, f"redis://127.0.0.1:{silent.port}")
    asking.run_until(lambda: silent.count == 1)
    watching.watch.close()
    pausing = Watching(asking, f"redis://127.0.0.1:{port}")
    asking.run_until(lambda: bool(pausing.troubles))
    pausing.watch.close()
    asking.run_until(lambda: not any(timer.callback for timer in asking.loop._timers))
    assert not any(watching.ready for watching in [*watchings, watching, pausing])
    assert not any(watching.troubles for watching in [*watchings, watching])


def test_a_watch_may_be_closed_by_what_it_tells(asking: Asking) -> None:
    port = asking.refusing()
    service = backing_service("X", f"redis://127.0.0.1:{port}")
    told: list[str] = []

    def on_trouble(reason: str) -> None:
        told.append(reason)
        watch.close()

    watch = ServiceWatch(asking.loop, service, lambda seconds: told.append("ready"), on_trouble)
    asking.run_until(lambda: bool(told))
    asking.run_until(lambda: not any(timer.callback for timer in asking.loop._timers))
    assert told == ["connection refused"]
