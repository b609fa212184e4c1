"""The client of the control sockets against servers that follow a script, down to those that are none."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from procman.control.client import MAX_ADDRESS_BYTES, Connection, Control, Lost, NotInTime
from procman.control.directory import inside
from procman.errors import ControlError, ProcmanError, UsageMistake
from tests.support.app import App

GREETING = {"procman": "9.9", "protocol": 1, "types": ["web"], "root": "/srv", "new": "key"}
WAIT_S = 30.0
SHORT_S = 0.1  # how long to wait for what never comes


class Script:
    """A socket in `directory` that says `lines` to each client, after `request` more, and notes what it is asked."""

    def __init__(self, directory: Path, pid: int, says: bytes, answers: bytes, is_closing: bool) -> None:
        self.asked: list[Any] = []
        self._says, self._answers, self._is_closing = says, answers, is_closing
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        with inside(fd):
            self._listener.bind(f"{pid}.sock")
        os.close(fd)
        self._listener.listen()
        self._clients: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            self._threads.append(threading.Thread(target=self._talk, args=(client,), daemon=True))
            self._threads[-1].start()

    def _talk(self, client: socket.socket) -> None:
        try:
            client.sendall(self._says)
            with client.makefile("rb") as lines:
                for line in lines:
                    self.asked.append(json.loads(line))
                    client.sendall(self._answers)
                    if self._is_closing:
                        client.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for client in self._clients:
            try:
                client.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join()
        for client in self._clients:
            client.close()


Serve = Callable[..., Script]


def line(message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / ".procman").mkdir()
    return tmp_path / ".procman"


@pytest.fixture
def serve(directory: Path) -> Iterator[Serve]:
    scripts = []

    def start(
        pid: int = 7,
        *answers: Any,
        says: bytes | None = None,
        is_closing: bool = True,
        where: Path = directory,
        **more: Any,
    ) -> Script:
        greeting = line({**GREETING, "pid": pid, **more}) if says is None else says
        scripts.append(Script(where, pid, greeting, b"".join(map(line, answers)), is_closing))
        return scripts[-1]

    yield start
    for script in scripts:
        script.close()


def control(directory: Path, greeting_s: float = WAIT_S) -> Control:
    return Control(str(directory), greeting_s)


def ask(found: Control, request: dict[str, Any], timeout_s: float = WAIT_S) -> list[dict[str, Any]]:
    try:
        return found.ask(dict.fromkeys(found.peers, request), timeout_s)
    finally:
        found.close()


# --- nobody there ---


def refused(directory: Path, greeting_s: float = WAIT_S) -> ControlError:
    with pytest.raises(ControlError) as caught:
        control(directory, greeting_s)
    assert caught.value.exit_code == 69
    return caught.value


def test_no_directory(tmp_path: Path) -> None:
    error = refused(tmp_path / "none" / ".procman")
    assert str(error) == (
        f"no procman runs in {tmp_path}/none — start one with `procman start`; -f or -d names another directory"
    )


def test_directory_of_the_caller_is_here(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory.parent)
    assert str(refused(directory)).startswith("no procman runs here — ")


def test_socket_of_a_dead_supervisor(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(directory / "7.sock"))
    assert "no procman runs in" in str(refused(directory))


def test_file_that_is_no_socket(directory: Path) -> None:
    (directory / "7.sock").write_text("")
    assert "no procman runs in" in str(refused(directory))


def test_one_that_says_nothing(directory: Path, serve: Serve) -> None:
    serve(7, says=b"")
    assert str(refused(directory, SHORT_S)) == "the procman with pid 7 does not answer — is it suspended (Ctrl-Z)?"


def test_one_that_says_half_a_line(directory: Path, serve: Serve) -> None:
    serve(7, says=line({**GREETING, "pid": 7})[:20])
    assert "pid 7 does not answer" in str(refused(directory, SHORT_S))


def test_another_protocol(directory: Path, serve: Serve) -> None:
    serve(7, protocol=2)
    assert str(refused(directory)) == (
        f'{directory}/7.sock: procman "9.9" speaks protocol 2, this one protocol 1 '
        "— use the procman that was started there"
    )


@pytest.mark.parametrize("says", [b"SSH-2.0-OpenSSH\r\n", b"[]\n", b"{}\n", b"\xff\xfe\n", b"\n", b'{"protocol": 1}\n'])
def test_what_is_no_procman(directory: Path, serve: Serve, says: bytes) -> None:
    serve(7, says=says)
    assert str(refused(directory))


# --- talking ---


def test_request_and_reply(directory: Path, serve: Serve) -> None:
    script = serve(7, {"note": "progress"}, {"done": True, "instances": []})
    assert ask(control(directory), {"do": "ps"}) == [{"done": True, "instances": []}]
    assert script.asked == [{"do": "ps"}]


def test_each_request_has_a_connection_of_its_own(directory: Path, serve: Serve) -> None:
    script = serve(7, {"done": True})
    found = control(directory)
    for number in range(3):
        assert ask(found, {"do": "ps", "n": number}) == [{"done": True}]
    assert [request["n"] for request in script.asked] == [0, 1, 2]


def test_long_reply(directory: Path, serve: Serve) -> None:
    instances = [{"name": f"web.{number}", "type": "web", "command": "x" * 1000} for number in range(5000)]
    serve(7, {"done": True, "instances": instances})
    found = control(directory)
    assert [instance["name"] for instance in found.instances()] == [instance["name"] for instance in instances]


def test_path_too_long_for_an_address(directory: Path, serve: Serve) -> None:
    deep = directory
    for _ in range(4):
        deep /= "d" * 50
    deep.mkdir(parents=True)
    serve(7, {"done": True}, where=deep)
    here = os.getcwd()
    assert ask(control(deep), {"do": "ps"}) == [{"done": True}]
    assert os.getcwd() == here


@pytest.mark.parametrize(("code", "shown"), [(2, 2), (65, 65), (0, 1), ("x", 1), (None, 1), (1000, 1)])
def test_refusal_has_the_code_it_says(directory: Path, serve: Serve, code: Any, shown: int) -> None:
    serve(7, {"error": "no such thing", "code": code})
    with pytest.raises(ProcmanError, match=r"^no such thing$") as caught:
        ask(control(directory), {"do": "ps"})
    assert caught.value.exit_code == shown


def test_connection_lost_midway(directory: Path, serve: Serve) -> None:
    serve(7, {"half": "way"})
    with pytest.raises(ProcmanError, match="the procman with pid 7 has gone away without an answer") as caught:
        ask(control(directory), {"do": "stop"})
    assert caught.value.exit_code == 69


def test_supervisor_that_ended_after_its_greeting(directory: Path, serve: Serve) -> None:
    serve(7, {"done": True})
    found = control(directory)
    ask(found, {"do": "ps"})
    (directory / "7.sock").unlink()
    with pytest.raises(Lost, match="pid 7 has gone away"):
        ask(found, {"do": "ps"})


def test_answer_that_does_not_come_in_time(directory: Path, serve: Serve) -> None:
    serve(7, is_closing=False)
    with pytest.raises(NotInTime, match=r"not done within 0\.1 s") as caught:
        ask(control(directory), {"do": "stop"}, SHORT_S)
    assert caught.value.exit_code == 1


def test_reader_that_leaves_ends_the_wait(directory: Path, serve: Serve) -> None:
    serve(7, is_closing=False)
    found = control(directory)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with pytest.raises(BrokenPipeError):
            list(found.converse({peer: {"do": "logs"} for peer in found.peers}, watched_fd=writer))
    finally:
        os.close(writer)
        found.close()


# --- several ---


def test_names_go_to_who_runs_the_type(directory: Path, serve: Serve) -> None:
    serve(7, types=["web", "clock"])
    serve(8, types=["worker"])
    found = control(directory)
    routed = found.route(["web", "worker.2", "clock.1", "web"])
    assert {peer.pid: names for peer, names in routed.items()} == {7: ["web", "clock.1"], 8: ["worker.2"]}
    assert {peer.pid: names for peer, names in found.route([]).items()} == {7: [], 8: []}
    counts = found.route_counts({"worker": 2, "web": "+1"})
    assert {peer.pid: some for peer, some in counts.items()} == {7: {"web": "+1"}, 8: {"worker": 2}}
    found.close()


def test_unknown_names_are_told_all(directory: Path, serve: Serve) -> None:
    serve(7, types=["web"])
    serve(8, types=["worker"])
    found = control(directory)
    with pytest.raises(UsageMistake) as caught:
        found.route(["wbe", "web", "worker.x"])
    assert str(caught.value) == (
        '"wbe" does not run here — did you mean "web"?\n"worker.x" does not run here — did you mean "worker"?'
    )
    found.close()


def test_single_supervisor_is_asked_for_counts_of_types_that_do_not_run(directory: Path, serve: Serve) -> None:
    serve(7, types=["web"])
    found = control(directory)
    assert list(found.route_counts({"assets": 1}).values()) == [{"assets": 1}]
    found.close()


def test_silent_one_does_not_hide_the_other(directory: Path, serve: Serve) -> None:
    serve(7, {"done": True, "instances": []})
    serve(8, says=b"")
    found = control(directory, SHORT_S)
    assert [peer.pid for peer in found.peers] == [7]
    assert found.complaint == "the procman with pid 8 does not answer — is it suspended (Ctrl-Z)?"
    with pytest.raises(ControlError, match=r'"worker" does not run here(?s:.*)pid 8 does not answer'):
        found.route(["worker"])
    found.close()


def test_errors_of_several_are_told_together(directory: Path, serve: Serve) -> None:
    serve(7, {"error": "one", "code": 2})
    serve(8, {"error": "two", "code": 1}, types=["worker"])
    with pytest.raises(ProcmanError, match=r"(?s)one.*two|two.*one"):
        ask(control(directory), {"do": "ps"})


def test_what_one_refuses_no_other_is_asked_to_do(directory: Path, serve: Serve) -> None:
    one, other = serve(7, {"done": True}), serve(8, {"error": "no room", "code": 78}, types=["worker"])
    found = control(directory)
    with pytest.raises(ProcmanError, match=r"^no room$") as caught:
        found.check({peer: {"do": "restart"} for peer in found.peers}, WAIT_S)
    assert caught.value.exit_code == 78
    assert one.asked == other.asked == [{"do": "restart", "check": True}]
    found.close()


def test_refusals_are_told_in_the_order_asked_with_the_types_that_nobody_runs(directory: Path, serve: Serve) -> None:
    serve(7, {"error": "no web", "code": 78})
    serve(8, {"error": "no worker", "code": 78}, types=["worker"])
    found = control(directory)
    with pytest.raises(UsageMistake) as caught:
        found.route_counts({"worker": 1, "wbe": 2, "web": 3}, WAIT_S)
    first, *others = str(caught.value).split("\n")
    assert first == '"wbe" does not run here — did you mean "web"?'
    assert others[:2] == ["no worker", "no web"]
    found.close()


def test_check_that_is_not_answered(directory: Path, serve: Serve) -> None:
    serve(7, {"done": True})
    serve(8, types=["worker"], is_closing=False)
    found = control(directory)
    with pytest.raises(NotInTime, match=r"nothing was done: no answer within 0\.1 s"):
        found.check({peer: {"do": "restart"} for peer in found.peers}, SHORT_S)
    found.close()


def test_single_one_refuses_by_itself(directory: Path, serve: Serve) -> None:
    script = serve(7, {"done": True})
    found = control(directory)
    found.check({peer: {"do": "restart"} for peer in found.peers}, WAIT_S)
    assert ask(found, {"do": "ps"}) == [{"done": True}]
    assert script.asked == [{"do": "ps"}]


# --- the real thing ---


def test_real_run_in_a_directory_with_a_long_path(app: App) -> None:
    deep = "/".join(["d" * 60] * 3)
    app(**{f"{deep}/Procfile": "web: exec sleep 1000\n"})
    run = app.start(options=("-f", f"{deep}/Procfile"))
    run.wait_for("ready", "web.1")
    asked = app.call("-f", f"{deep}/Procfile", "ps")
    assert (asked.code, asked.err) == (0, b"")
    assert asked.lines[1].startswith("web.1  ready")


def test_threads_that_connect_by_a_long_path(tmp_path: Path) -> None:
    """`top` does; each changed the working directory under the other's feet, and then nobody seemed to run."""
    here = os.getcwd()
    directory = tmp_path / ("long" * 30)
    directory.mkdir()
    path = str(directory / "socket")
    assert len(path) > MAX_ADDRESS_BYTES
    with socket.socket(socket.AF_UNIX) as server:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        with inside(fd):
            server.bind("socket")
        os.close(fd)
        server.listen(4096)

        def connect(_: int) -> None:
            for _ in range(200):
                Connection(path, 10).close()

        with ThreadPoolExecutor(4) as pool:
            taken = threading.Thread(target=lambda: [server.accept()[0].close() for _ in range(800)], daemon=True)
            taken.start()
            list(pool.map(connect, range(4)))
            taken.join()
    assert os.getcwd() == here
