"""Ports and formations that cannot be: contract E1 to E14, issue "ports and identity"."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.app import App, Run

FOUR = "web: echo $PORT\nworker: echo $PORT\nrelease: true\nclock: echo $PORT\n"


def ports(run: Run) -> dict[str, int]:
    """Return the port of each instance: what its PORT said, which is what the event says."""
    assert run.wait() == 0, run.err_text
    told = {event.name: event.port for event in run.events if event.is_("started")}
    assert {name: [str(port)] for name, port in told.items()} == {name: run.output_of(name) for name in told}
    return told


# --- Foreman's arithmetic (E1 to E5) ---


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), {"web.1": 0, "worker.1": 100, "clock.1": 300}),  # release takes its hundred and is not started
        (("clock",), {"clock.1": 300}),
        (("clock", "web"), {"web.1": 0, "clock.1": 300}),
        (("web=3", "worker=2"), {"web.1": 0, "web.2": 1, "web.3": 2, "worker.1": 100, "worker.2": 101}),
        (("-c", "web=0"), {"worker.1": 100, "clock.1": 300}),
        (("--port-step", "10"), {"web.1": 0, "worker.1": 10, "clock.1": 30}),
        (("--port-step", "1"), {"web.1": 0, "worker.1": 1, "clock.1": 3}),
    ],
)
def test_arithmetic(app: App, arguments: tuple[str, ...], wanted: dict[str, int]) -> None:
    run = app(FOUR).start(*arguments, "--on-exit", "ignore")
    assert ports(run) == {name: app.port + offset for name, offset in wanted.items()}


@pytest.mark.parametrize(
    ("option", "dotenv", "caller", "base"),
    [
        (True, True, True, 0),
        (False, True, True, 100),
        (False, False, True, 200),
        (False, True, False, 100),
        (True, False, True, 0),
    ],
)
def test_where_the_base_comes_from(app: App, option: bool, dotenv: bool, caller: bool, base: int) -> None:
    app("web: echo $PORT", dotenv=f"PORT={app.port + 100}\n" if dotenv else None)
    arguments = ["-p", str(app.port)] if option else []
    env: dict[str, str | None] = {"PORT": str(app.port + 200)} if caller else {}
    run = app.procman("start", *arguments, has_events=True, env=env)
    assert ports(run) == {"web.1": app.port + base}


def test_the_default_base_is_5000(app: App) -> None:
    run = app("other: true\nweb: echo 5100").procman("start", "web", has_events=True)
    run.wait()
    assert run.wait_for("started", "web.1").port == 5100


# --- refused, and nothing started ---


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("wbe",), 2, 'did you mean "web"?'),
        (("wbe=2",), 2, 'did you mean "web"?'),
        (("-m", "wroker=2"), 2, 'did you mean "worker"?'),
        (("-c", "wroker=2"), 2, 'did you mean "worker"?'),
        (("xyzzy",), 2, "known: web, worker, release, clock"),
        (("Web",), 2, 'did you mean "web"?'),
        (("web", "web"), 2, '"web" is given twice'),
        (("web=1", "web=2"), 2, '"web" is given twice'),
        (("-m", "web=1,web=2"), 2, '"web" is given twice'),
        (("web=x",), 2, "no number"),
        (("web=1.5",), 2, "no number"),
        (("web=-1",), 2, "no number"),
        (("web=",), 2, "web="),
        (("web=²",), 2, "no number"),
        (("web=1_0",), 2, "no number"),
        (("web=70000",), 2, "no number"),
        (("-m", "web=x"), 2, "no number"),
        (("-m", "web"), 2, "web=1"),
        (("-c", "=2"), 2, "=2"),
        (("=2",), 2, "=2"),
        (("-m", "web=1", "-c", "web=2"), 2, "-m and -c"),
        (("-m", "web=2", "web=3"), 2, "web=2"),
        (("web=101", "worker=1"), 78, "would both get port {100}"),
        (("web=200", "worker=1"), 78, "would both get port {100}"),
        (("--port-step", "1", "web=2", "worker"), 78, "would both get port {1}"),
        (("-p", "65535", "web=2"), 78, "65535"),
        (("-p", "65500", "clock"), 78, "65535"),
        (("-p", "0"), 2, "--port"),
        (("-p", "65536"), 2, "--port"),
        (("-p", "http"), 2, "--port"),
        (("--port-step", "0"), 2, "--port-step"),
    ],
)
def test_refused(app: App, arguments: tuple[str, ...], code: int, text: str) -> None:
    app(FOUR.replace("echo", "touch started; echo"))
    run = app.start(*arguments)
    assert run.wait() == code, run.err_text
    text = re.sub(r"\{(\d+)\}", lambda found: str(app.port + int(found[1])), text)
    assert text in run.err_text
    assert (run.out, run.events) == (b"", [])
    assert not (app.root / "started").exists()
    assert "Traceback" not in run.err_text


@pytest.mark.parametrize("place", ["dotenv", "caller"])
@pytest.mark.parametrize("value", ["http", "0", "65536", "-1", "5000 ", "５０００", "1e3"])
def test_a_port_variable_that_is_none(app: App, place: str, value: str) -> None:
    app("web: touch started", dotenv=f'PORT="{value}"\n' if place == "dotenv" else None)
    run = app.procman("start", env={"PORT": value} if place == "caller" else None)
    assert run.wait() not in (0, 70)
    assert "PORT" in run.err_text
    assert (".env:1" in run.err_text) == (place == "dotenv")
    assert not (app.root / "started").exists()


def test_several_mistakes_are_told_at_once(app: App) -> None:
    run = app(FOUR).start("wbe=2", "worker=x", "clok")
    assert run.wait() == 2
    for text in ('"web"', "worker=x", '"clock"'):
        assert text in run.err_text


def test_instances_up_to_the_next_type(app: App) -> None:
    run = app("web: true\nworker: true\n").start("--port-step", "3", "web=3", "worker=1", "--on-exit", "ignore")
    assert run.wait() == 0
    assert [event.port - app.port for event in run.events if event.is_("started")] == [0, 1, 2, 3]


def test_many_instances_where_nobody_is_behind(app: App) -> None:
    """Only ports that two instances of this formation share are refused, not those past the next type's first."""
    run = app("web: true\nworker: true\n").start("--port-step", "3", "web=5", "--on-exit", "ignore")
    assert run.wait() == 0


def test_the_last_port(app: App) -> None:
    run = app("web: true").procman("start", "-p", "65535", has_events=True)
    assert run.wait() == 0
    assert run.wait_for("started").port == 65535


# --- ports that are taken ---


@pytest.fixture(params=["127.0.0.1", "0.0.0.0", "::1", "::"])
def listener(request: pytest.FixtureRequest, app: App) -> Iterator[int]:
    """Listen on the second port of the app's range."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with closing(socket.socket(family)) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((request.param, app.port + 1))
        except OSError as error:
            pytest.skip(f"no {request.param} here: {error}")
        taken.listen()
        yield app.port + 1


@pytest.mark.parametrize(
    "command", ["serve -p $PORT", "serve -p ${PORT:-1}", "serve --port=$PORT", 'serve "localhost:$PORT"']
)
def test_a_taken_port_that_the_command_uses_is_refused(app: App, listener: int, command: str) -> None:
    run = app(f"web: touch started; {command}\nworker: touch started\n").start("web=2", "worker=1")
    assert run.wait() == 71
    assert f"port {listener} is taken" in run.err_text
    assert re.search(rf"web\.2 .*\b{listener}\b.*\bpid {own_pid()}\b", run.err_text)
    assert own_name() in run.err_text
    assert "Procfile:1" in run.err_text
    assert "-p" in run.err_text
    assert (run.out, run.events) == (b"", [])
    assert not (app.root / "started").exists()


def test_a_taken_port_that_the_command_does_not_name_is_told_first(app: App, listener: int) -> None:
    run = app("web: true").start("web=2", "--on-exit", "ignore")
    assert run.wait() == 0
    texts = [event.get("text") or event["event"] for event in run.events]
    [told] = [text for text in texts if f"port {listener} is taken" in text]
    assert told.startswith("web.2: ")
    assert f"pid {own_pid()}" in told
    shown = [line.split("| ", 1)[-1] for line in run.lines]
    assert shown.index(told) < min(at for at, line in enumerate(shown) if line.startswith("started with"))


def test_a_taken_port_that_a_probe_would_ask_is_refused(app: App, listener: int) -> None:
    """Whoever listens there would answer in its place."""
    app.write("procman.toml", "[process.web]\nready = { port = true }\n")
    run = app("web: touch started").start("web=2")
    assert run.wait() == 71
    assert re.search(rf"web\.2 .*\b{listener}\b.*\bpid {own_pid()}\b", run.err_text)
    assert not (app.root / "started").exists()


def own_pid() -> str:
    return str(os.getpid())


def own_name() -> str:
    with open("/proc/self/comm") as file:
        return file.read().strip()


@pytest.mark.parametrize("command", ["PORT=1 serve", "echo PORTAL", "echo MY_PORT $PORT_WEB", "echo EXPORT"])
def test_commands_that_do_not_use_port(app: App, command: str) -> None:
    with closing(socket.socket()) as taken:
        # As a server does: connections of an earlier test on the same ports may linger in TIME_WAIT.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", app.port))
        taken.listen()
        run = app(f"web: {command}").start()
        run.wait()
        run.wait_for("started", "web.1")


def test_a_port_that_another_instance_does_not_get_disturbs_nobody(app: App) -> None:
    with closing(socket.socket()) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", app.port + 1))
        taken.listen()
        run = app("web: echo $PORT").start("web=1")
        assert run.wait() == 0
        assert not any("taken" in text for text in run.notices())


def test_a_bound_port_that_nobody_listens_on_is_free(app: App) -> None:
    """As a client's end of a connection is: only a listener holds a port for a server."""
    with closing(socket.socket()) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", app.port + 5))
        server.listen()
        with closing(socket.socket()) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind(("127.0.0.1", app.port))
            client.connect(("127.0.0.1", app.port + 5))
            run = app("web: echo $PORT").start()
            assert run.wait() == 0
            assert not any("taken" in text for text in run.notices())


def test_no_port_asks_nobody(app: App, listener: int) -> None:
    run = app("web: echo ${PORT:-none}").start("web=2", "--no-port", "--on-exit", "ignore")
    assert run.wait() == 0
    assert run.output_of("web.2") == ["none"]
    assert not any("taken" in text for text in run.notices())


def test_two_runs_at_the_same_time(app: App) -> None:
    """The usual case: it runs already, in another window."""
    app.write(
        "server.py",
        "import os, signal, socket\n"
        "server = socket.create_server(('127.0.0.1', int(os.environ['PORT'])))\n"
        "print('up', flush=True)\n"
        "signal.pause()\n",
    )
    app(f"web: {sys.executable} -S server.py {app.token} $PORT")
    first = app.start()
    first.wait_output("up")
    second = app.start()
    assert second.wait() == 69
    assert f"web already runs here, under procman with pid {first.pid}" in second.err_text
    app.write("elsewhere/Procfile", (app.root / "Procfile").read_text())
    third = app.start("-f", "elsewhere/Procfile", "-d", ".")
    assert third.wait() == 71
    assert f"pid {first.pid_of('web.1')}" in third.err_text
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    fourth = app.start()  # and what has ended holds nothing any more
    fourth.wait_output("up")
    fourth.signal(signal.SIGTERM)
    assert fourth.wait() == 0


@pytest.mark.skipif(
    subprocess.run(["unshare", "-r", "true"], capture_output=True).returncode != 0,
    reason="needs a user namespace, from which other processes cannot be looked into",
)
def test_without_the_rights_the_pid_is_unknown(app: App) -> None:
    with closing(socket.socket()) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", app.port))
        taken.listen()
        app("web: true")
        procman = [sys.executable, "-m", "procman", "start", "-p", str(app.port)]
        run = app.spawn(["unshare", "-r", *procman])
        assert run.wait() == 0
        assert f"web.1: port {app.port} is taken (pid unknown)" in run.text
