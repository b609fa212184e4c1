"""The socket of a running procman, spoken to by hand: what the page says, and clients that are hostile or gone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from procman.control.server import MAX_CONNECTIONS
from tests.support.app import CEILING_S, App, Run

EXAMPLES = int(os.environ.get("PROCMAN_FUZZ_EXAMPLES", "200")) // 10
SLEEP = "exec sleep 1000"


class Client:
    """One connection, as another program would make it."""

    def __init__(self, app: App) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        folder = os.open(app.root / ".procman", os.O_RDONLY)
        name = next(name for name in os.listdir(folder) if name.endswith(".sock"))
        self.socket.connect(f"/proc/self/fd/{folder}/{name}")  # an address has 108 bytes (unix(7))
        os.close(folder)
        self.socket.settimeout(CEILING_S)  # not before: one that does not block is told when the queue is full
        self._lines = self.socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._lines.close()
        self.socket.close()

    def send(self, *requests: dict[str, Any] | bytes) -> None:
        for request in requests:
            self.socket.sendall(request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n")

    def line(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._lines.readline())
        return found

    def rest(self) -> list[dict[str, Any]]:
        """Return all that comes until the supervisor closes."""
        found = []
        with contextlib.suppress(ConnectionResetError):  # it closed with something of ours unread (unix(7))
            found = [json.loads(line) for line in self._lines]
        return found


def started(app: App, procfile: str = f"web: echo up; {SLEEP}\n", *arguments: str) -> Run:
    run = app(procfile).start(*arguments)
    run.wait_output("up")
    return run


@pytest.fixture
def listening(app: App) -> Iterator[App]:
    """A run with web.1, which must be as well as before when the test is over."""
    run = started(app)
    # Its socket comes behind the first child, so wait for an answer.
    assert app.call("ps").code == 0
    yield app
    assert run.code is None, run.failure("it has ended")
    assert ask(app, {"do": "ps"})[-1]["instances"][0]["state"] == "ready"
    assert len([event for event in run.events if event.is_("started")]) == 1
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert "Traceback" not in run.err_text
    assert run.err_text == ""


def ask(app: App, request: dict[str, Any] | bytes) -> list[dict[str, Any]]:
    with Client(app) as client:
        client.send(request)
        return client.rest()


def test_greeting_and_one_request(listening: App) -> None:
    greeting, reply = ask(listening, {"do": "ps"})
    assert (greeting["protocol"], greeting["types"], greeting["root"]) == (1, ["web"], str(listening.root))
    assert greeting["pid"] == listening.runs[0].pid
    assert reply["done"] is True
    (instance,) = reply["instances"]
    assert set(instance) == {
        *("name", "type", "instance", "state", "wanted", "pid", "port", "started_at", "restarts", "code", "command"),
        *("has_terminal", "waits_for"),
    }
    assert (instance["name"], instance["port"], instance["has_terminal"]) == ("web.1", listening.port, False)


def test_socket_is_private(listening: App) -> None:
    (path,) = (listening.root / ".procman").glob("*.sock")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_client_that_closes_its_half_gets_its_answer(listening: App) -> None:
    with Client(listening) as client:
        client.send({"do": "ps"})
        client.socket.shutdown(socket.SHUT_WR)
        assert client.rest()[-1]["done"] is True


def test_request_in_single_bytes(listening: App) -> None:
    with Client(listening) as client:
        for byte in b'{"do": "ps"}\n':
            client.send(bytes([byte]))
        assert client.rest()[-1]["done"] is True


@pytest.mark.parametrize(
    ("request_line", "code"),
    [
        (b"\n", 69),
        (b"hello\n", 69),
        (b"\xff\xfe\n", 69),
        (b"[]\n", 69),
        (b"[" * 10_000 + b"\n", 69),
        (b"GET / HTTP/1.1\r\n", 69),
        (b"{}\n", 2),
        (b'{"do": null}\n', 2),
        (b'{"do": "dance"}\n', 2),
        (b'{"do": "stop", "names": "web"}\n', 2),
        (b'{"do": "stop", "names": [1]}\n', 2),
        (b'{"do": "stop", "names": ["wbe"]}\n', 2),
        (b'{"do": "scale"}\n', 2),
        (b'{"do": "scale", "counts": []}\n', 2),
        (b'{"do": "scale", "counts": {"web": 1.5}}\n', 2),
        (b'{"do": "scale", "counts": {"web": true}}\n', 2),
        (b'{"do": "scale", "counts": {"web": "+-1"}}\n', 2),
        (b'{"do": "scale", "counts": {"web": "-2"}}\n', 2),
        (b'{"do": "scale", "counts": {"web": 2, "wbe": 1}}\n', 2),
        (b'{"do": "scale", "counts": {"web": 65000}}\n', 78),
        (b'{"do": "signal", "names": ["web"]}\n', 2),
        (b'{"do": "signal", "names": ["web"], "signal": "HUNTER"}\n', 2),
        (b'{"do": "signal", "names": ["web"], "signal": []}\n', 2),
        (b'{"do": "signal", "names": ["web"], "signal": 0}\n', 2),
        (b'{"do": "wait", "names": ["wbe"]}\n', 2),
        (b'{"do": "wait", "names": ["web.2"]}\n', 2),
        (b'{"do": "wait", "names": "web"}\n', 2),
        (b'{"do": "attach"}\n', 2),
        (b'{"do": "attach", "name": "web.1"}\n', 69),
        (b'{"do": "logs", "names": {"web": 1}}\n', 2),
        (b'{"do": "logs", "names": [[]]}\n', 2),
    ],
    ids=lambda value: value[:40].decode(errors="replace") if isinstance(value, bytes) else str(value),
)
def test_what_cannot_be_is_refused(listening: App, request_line: bytes, code: int) -> None:
    reply = ask(listening, request_line)[-1]
    assert reply["code"] == code
    assert reply["error"]
    assert "done" not in reply


@pytest.mark.parametrize(
    "request_", [{"do": "stop"}, {"do": "start"}, {"do": "restart"}, {"do": "signal", "signal": "TERM"},
                 {"do": "scale", "counts": {"web": 3}}],
    ids=lambda request: str(request["do"]),
)  # fmt: skip
def test_check_does_nothing(listening: App, request_: dict[str, Any]) -> None:
    """The fixture sees to it that web.1 has not even been signalled."""
    assert ask(listening, {**request_, "check": True})[-1] == {"done": True}
    (instance,) = ask(listening, {"do": "ps"})[-1]["instances"]
    assert (instance["state"], instance["wanted"], instance["restarts"]) == ("ready", True, 0)
    assert ask(listening, {"do": "stop", "names": ["wbe"], "check": True})[-1]["code"] == 2


def test_type_that_was_only_checked_is_free_for_another(app: App) -> None:
    started(app, f"web: echo up; {SLEEP}\nworker: {SLEEP}\n", "web")
    assert app.call("ps").code == 0
    assert ask(app, {"do": "scale", "counts": {"worker": 1}, "check": True})[-1] == {"done": True}
    app.start("worker").wait_for("ready", "worker.1")


def test_huge_line(listening: App) -> None:
    with Client(listening) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.send(b"x" * 8_000_000)
        client.rest()
    reply = ask(listening, b'{"do": "' + b"x" * 900_000 + b'"}\n')[-1]
    assert reply["code"] == 2
    assert len(reply["error"]) < 200


def test_half_a_line_and_gone(listening: App) -> None:
    for piece in (b"", b'{"do"', b'{"do": "ps"}', b'{"do": "logs", "follow": true}\n', b"\n\n\n"):
        with Client(listening) as client:
            client.send(piece)


def test_clients_that_ask_nothing_keep_nobody_out(listening: App) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(Client(listening)) for _ in range(MAX_CONNECTIONS)]
        assert silent[0].line()["protocol"] == 1
        assert listening.call("ps").code == 0
        assert silent[0].rest() == []
        silent[-1].send({"do": "ps"})
        assert silent[-1].rest()[-1]["done"] is True


def test_more_clients_than_it_takes(listening: App) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            client = stack.enter_context(Client(listening))
            client.send({"do": "logs", "follow": True})
            while client.line() != {"event": "live"}:
                pass
        # Turned away at once, not kept waiting, and told why.
        for command in (("ps",), ("stop", "web")):
            asked = listening.call(*command)
            assert asked.code == 69
            assert re.fullmatch(r"the procman with pid \d+ has 100 clients and takes no more\n", asked.err_text)
    while "error" in ask(listening, {"do": "ps"})[-1]:
        pass  # until it has seen that they have left


@settings(max_examples=max(20, EXAMPLES), deadline=None, database=None, print_blob=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.binary(max_size=60)
        | st.sampled_from([b"\n", b'{"do": "ps"}\n', b'{"do": "logs"}\n', b'{"do": "logs", "follow": true}\n', b"{"])
        | st.builds(
            lambda do, key, value: json.dumps({"do": do, key: value}).encode() + b"\n",
            st.sampled_from(["ps", "logs", "signal", "attach", "scale", "wait", "nothing"]),
            st.sampled_from(["names", "name", "counts", "signal", "keys", "follow", "check"]),
            st.recursive(st.none() | st.integers() | st.text(), lambda of: st.lists(of, max_size=2), max_leaves=3),
        ),
        max_size=5,
    )
)
def test_any_bytes(listening: App, pieces: list[bytes]) -> None:
    with Client(listening) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                client.send(piece)
        client.socket.shutdown(socket.SHUT_WR)
        if not any(b'"follow"' in piece for piece in pieces):
            assert all(reply.get("code") != 70 for reply in client.rest())  # a bug of ours


def test_client_that_never_reads_holds_nobody_back(app: App) -> None:
    """It follows a flood and does not read; the flood and another client go on, and it learns what it missed."""
    go, gone = app.fifo("go"), app.fifo("gone")
    app(f"web: echo up > {gone}; read x < {go}; seq 2000000; echo behind > {gone}; {SLEEP}\n")
    run = app.procman("start", "-p", str(app.port), stdout=subprocess.DEVNULL)
    assert gone.receive() == "up"
    assert app.call("ps").code == 0
    with Client(app) as deaf, Client(app) as other:
        deaf.send({"do": "logs", "follow": True})
        assert deaf.line()["protocol"] == 1
        while deaf.line().get("event") != "live":
            pass
        go.send()
        assert gone.receive() == "behind"
        other.send({"do": "ps"})
        assert other.rest()[-1]["done"] is True
        size = sum(len(f"{number}\n") for number in range(1, 2_000_001))
        told = lost = 0
        while told + lost < size:
            message = deaf.line()
            told += len(message.get("text", "")) if message.get("text", "")[:1].isdigit() else 0
            lost += message.get("lost_bytes", 0)
        assert lost > 0
        assert told + lost == size
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


def test_deep_directory(app: App) -> None:
    """The path of the socket is longer than an address may be."""
    deep = "/".join(["a" * 60] * 4)
    app.write(f"{deep}/Procfile", f"web: echo up; {SLEEP}\n")
    run = app.start("-f", f"{deep}/Procfile")
    run.wait_output("up")
    asked = app.call("ps", "-f", f"{deep}/Procfile", "--json")
    assert (asked.code, asked.err_text) == (0, "")
    assert app.call("quit", "-f", f"{deep}/Procfile").code == 0
    assert run.wait() == 0
    assert sorted(os.listdir(app.root / deep / ".procman")) == [".gitignore", "lock"]


def test_read_only_folder(app: App) -> None:
    """The run goes on without control, after one notice."""
    app.write(".procman", "in the way")
    run = started(app)
    assert run.wait_notice("no control from other terminals: .*: not a directory")
    assert app.call("ps").code == 69
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


def test_stale_files_are_replaced(app: App) -> None:
    first = started(app)
    assert app.call("ps").code == 0
    os.kill(first.supervisor_pid(), signal.SIGKILL)
    first.wait()
    assert list((app.root / ".procman").glob("*.sock"))
    assert app.call("ps").code == 69
    second = started(app)
    assert app.call("ps").code == 0
    assert len(list((app.root / ".procman").glob("*.sock"))) == 1
    second.signal(signal.SIGTERM)
    assert second.wait() == 0
    assert sorted(os.listdir(app.root / ".procman")) == [".gitignore", "lock"]


def test_run_that_ends_tells_its_clients(app: App) -> None:
    run = started(app)
    assert app.call("ps").code == 0
    with Client(app) as follower, Client(app) as quitter:
        follower.send({"do": "logs", "follow": True})
        while follower.line().get("event") != "live":
            pass
        quitter.send({"do": "quit"})
        assert quitter.rest()[-1] == {"done": True, "code": 0}
        assert follower.rest()[-1]["code"] == 69
    assert run.wait() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; CI is root")
def test_another_user_is_turned_away(listening: App) -> None:
    """Even where somebody has opened directory and socket to all."""
    (path,) = (listening.root / ".procman").glob("*.sock")
    path.chmod(0o666)
    path.parent.chmod(0o755)
    program = (
        "import os, socket, sys\n"
        "os.setuid(int(sys.argv[2]))\n"
        "client = socket.socket(socket.AF_UNIX)\n"
        "client.connect(sys.argv[1])\n"
        "print(len(client.recv(1000)))\n"
    )
    heard = {
        uid: subprocess.run(
            [sys.executable, "-S", "-E", "-c", program, path.name, str(uid)],
            cwd=path.parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for uid in (0, 65534)
    }
    assert int(heard[0]) > 0
    assert int(heard[65534]) == 0
