"""Faults while the formation changes: asked for at the control socket (docs/control-protocol.md), seen by events."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from typing import Any

import pytest

from tests.faults.helpers import alive, child, last_word, no_traceback, shell_start, start_argv, wait_until
from tests.support.app import CEILING_S, App, Run

NOTHING = "nothing is left running"


def ask(app: App, request: dict[str, Any]) -> dict[str, Any]:
    """Send one request to the supervisor of this app; return the last reply."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(CEILING_S)
        wait_until(lambda: is_connected(app, client), "a socket that listens")
        client.sendall(json.dumps(request).encode() + b"\n")
        with client.makefile("r") as replies:
            reply: dict[str, Any] = [json.loads(line) for line in replies][-1]
    return reply


def is_connected(app: App, client: socket.socket) -> bool:
    """Connect, if somebody listens already."""
    try:
        folder = os.open(app.root / ".procman", os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        name = next(name for name in os.listdir(folder) if name.endswith(".sock"))
        client.connect(f"/proc/self/fd/{folder}/{name}")  # an address has 108 bytes (unix(7))
    except (StopIteration, ConnectionRefusedError):
        return False
    finally:
        os.close(folder)
    return True


def starts(run: Run) -> list[str]:
    return [event.name for event in run.events if event.is_("started")]


def test_spawn_that_fails_while_scaling_leaves_all_as_it_was(app: App) -> None:
    """`big` cannot start: what began before it is ended, what was to begin or end behind it is not touched."""
    values = "".join(f'B{number} = "{"x" * 100_000}"\n' for number in range(9))
    sleeping = "".join(f"{name}: exec sleep 1000\n" for name in ("first", "big", "web", "last"))
    app(sleeping, procman__toml=f"[process.big.env]\n{values}")
    # A quarter of the stack's limit is what arguments and environment may take together (execve(2)).
    counts = ("first=1", "big=0", "web=1", "last=2")
    run = app.spawn(shell_start(app, "ulimit -s 2048", *counts), has_events=True)
    run.wait_all("ready", ("first.1", "web.1", "last.1", "last.2"))
    assert ask(app, {"do": "scale", "counts": {"first": 2, "big": 1, "web": 3, "last": 0}}) == {
        "error": "Procfile:2: big.1 cannot start: argument list too long — "
        "the command and its environment are too long together",
        "code": 71,
    }
    run.wait_for("exited", "first.2")
    assert starts(run) == ["first.1", "web.1", "last.1", "last.2", "first.2"]
    reply = ask(app, {"do": "ps"})
    assert [i["name"] for i in reply["instances"] if i["state"] == "ready"] == ["first.1", "web.1", "last.1", "last.2"]
    assert ask(app, {"do": "scale", "counts": {"web": 2}})["done"] is True
    run.signal(signal.SIGTERM)
    assert run.wait() == 0, run.failure("")
    assert last_word(run).endswith(NOTHING)
    no_traceback(run)


def test_more_than_there_can_be_open_files_is_refused_before_one_begins(app: App) -> None:
    app("web: exec sleep 1000")
    run = app.spawn(shell_start(app, "ulimit -n 60"), has_events=True)
    run.wait_for("ready", "web.1")
    reply = ask(app, {"do": "scale", "counts": {"web": 60}})
    assert reply["code"] == 71
    assert reply["error"].startswith("60 instances are too many open files for procman, whose limit is 60")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0, run.failure("")
    assert starts(run) == ["web.1"]


@pytest.mark.parametrize("kind", ["plain", "ignore", "setsid", "daemon", "stubborn"])
def test_scaled_away_leaves_nothing(app: App, kind: str) -> None:
    """The run goes on; of those that were scaled away none is left, but a daemon that nobody knows as theirs."""
    ready = app.fifo("ready")
    app(f"web: {child(app, 'kind', kind, ready.path)}\nother: exec sleep 1000")
    run = app.start("web=2", "other=1", "-t", "0.3")
    for _ in range(4 if kind in ("setsid", "daemon", "stubborn") else 2):
        ready.receive()
    assert ask(app, {"do": "scale", "counts": {"web": 0}}).get("done")
    if kind not in ("daemon", "stubborn"):
        assert alive(app) == {}
    run.wait_all("exited", ["web.1", "web.2"])
    run.signal(signal.SIGTERM)
    assert run.wait() == (1 if kind in ("ignore", "stubborn") else 0), run.failure("")
    assert alive(app) == {}


def test_scaled_away_during_the_back_off(app: App) -> None:
    app("worker: exit 3\nother: exec sleep 1000")
    run = app.start("--restart", "worker")
    run.wait_for("restarting", "worker.1")
    assert ask(app, {"do": "scale", "counts": {"worker": 0}}).get("done")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert starts(run).count("worker.1") == 1
    no_traceback(run)


@pytest.mark.parametrize("victim", ["guard", "supervisor"])
def test_half_of_procman_killed_after_scaling(app: App, victim: str) -> None:
    ready = app.fifo("ready")
    app(f"web: {child(app, 'kind', 'setsid', ready.path)}")
    run = app.start("-t", "0.3")
    assert ask(app, {"do": "scale", "counts": {"web": "+2"}}).get("done")
    for _ in range(6):
        ready.receive()
    assert len(alive(app)) == 6
    os.kill(run.pid if victim == "guard" else run.supervisor_pid(), signal.SIGKILL)
    assert run.wait() == (137 if victim == "guard" else 70)
    assert alive(app) == {}


# --- the socket is private -------------------------------------------------------------------------------------------

def test_control_files_are_private(app: App) -> None:
    app("web: exec sleep 1000")
    run = app.spawn(["/bin/sh", "-c", 'umask 0; exec "$@"', "sh", *start_argv(app)], has_events=True)
    assert ask(app, {"do": "ps"}).get("done")
    folder = app.root / ".procman"
    modes = {path.name.rpartition(".")[2]: stat.S_IMODE(path.lstat().st_mode) for path in folder.iterdir()}
    assert stat.S_IMODE(folder.lstat().st_mode) == 0o700
    assert set(modes) >= {"sock", "lock"}
    assert set(modes.values()) == {0o600}
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert not list(folder.glob("*.sock"))


@pytest.mark.parametrize("name", [".procman", ".procman/lock", ".procman/.gitignore"])
@pytest.mark.parametrize("is_dangling", [False, True])
def test_planted_link_among_the_control_files_is_not_followed(app: App, name: str, is_dangling: bool) -> None:
    """Nothing behind it is made, changed or written; the processes run all the same, and one line tells."""
    app("web: echo line; exit 3")
    target = app.root.parent / f"{app.token}-target"
    is_folder = name == ".procman"
    if not is_dangling:
        target.mkdir() if is_folder else target.write_text("precious\n")
    (app.root / name).parent.mkdir(exist_ok=True)
    (app.root / name).symlink_to(target)
    run = app.start()
    assert run.wait() == 3, run.failure("")
    no_traceback(run)
    if is_dangling:
        assert not target.exists()
    elif is_folder:
        assert list(target.iterdir()) == []
    else:
        assert target.read_text() == "precious\n"
