"""What children inherit, who may read what procman makes, and that no text of a file becomes a command."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess

import pytest

from tests.faults.helpers import alive, child, no_traceback, shell_start, start_argv
from tests.support.app import App, Run

SHELLS_OWN = {"0", "1", "2"}
OF_THE_C_LIBRARY = 1 << 31 | 1 << 32  # 32 and 33: glibc's posix_spawn leaves them ignored, whoever calls it


def state(app: App, run: Run) -> dict[str, object]:
    assert run.wait() == 0, run.failure("state")
    return json.loads((app.root / "state.json").read_text())


def of_a_plain_shell(app: App) -> dict[str, object]:
    """What the same child sees below a shell alone."""
    subprocess.run(
        ["/bin/sh", "-c", f"exec {child(app, 'inherited', 'plain.json')}"],
        cwd=app.root,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return json.loads((app.root / "plain.json").read_text())


@pytest.mark.parametrize("way", ["--pty", "--no-pty"])
def test_children_inherit_nothing_of_ours(app: App, way: str) -> None:
    """The last of many: all pipes of the others, sinks, the guard's pipe, the selector and the wakeup are open."""
    idle = child(app, "kind", "plain", app.fifo("ready").path)
    app(f"web: {idle}\nlast: {child(app, 'inherited', 'state.json')}")
    run = app.start(way, "web=10", "last=1", "--sink", "jsonl:log")
    found = state(app, run)
    assert set(found["fds"]) <= SHELLS_OWN, found["fds"]
    kinds = {"--pty": "/dev/pts/", "--no-pty": "pipe:["}
    assert found["fds"]["1"].startswith(kinds[way])
    assert found["fds"]["2"] == found["fds"]["1"]
    assert found["fds"]["0"].startswith("/dev/pts/" if way == "--pty" else "/dev/null")


def test_descriptors_of_the_caller_do_not_reach_children(app: App) -> None:
    """Only what is passed for a sink or stays open by accident: neither is a child's business."""
    app(f"web: {child(app, 'inherited', 'state.json')}")
    run = app.spawn(shell_start(app, "exec 5>passed", "--sink", "jsonl:fd=5"))
    found = state(app, run)
    assert set(found["fds"]) <= SHELLS_OWN, found["fds"]


@pytest.mark.parametrize("way", ["--pty", "--no-pty"])
def test_dispositions_and_mask_are_the_callers(app: App, way: str) -> None:
    app(f"web: {child(app, 'inherited', 'state.json')}")
    plain = of_a_plain_shell(app)
    found = state(app, app.start(way))
    assert found["ignored"] & ~OF_THE_C_LIBRARY == plain["ignored"]
    assert found["blocked"] == plain["blocked"] == 0
    # The child is a Python, which ignores SIGPIPE and SIGXFSZ anyway: another program tells.
    app("web: exec cat /proc/self/status")
    run = app.start(way)
    assert run.wait() == 0
    status = dict(line.split(":", 1) for line in run.output_of("web.1") if ":" in line)
    assert int(status["SigIgn"], 16) & ~OF_THE_C_LIBRARY == 0
    assert int(status["SigBlk"], 16) == 0


def test_hangup_that_the_caller_ignores_stays_ignored(app: App) -> None:
    """nohup(1): the children go on without a terminal, too."""
    app("web: exec cat /proc/self/status")
    run = app.spawn(shell_start(app, "trap '' HUP"), has_events=True)
    assert run.wait() == 0
    status = dict(line.split(":", 1) for line in run.output_of("web.1") if ":" in line)
    ignored = {n for n in range(1, 32) if int(status["SigIgn"], 16) >> (n - 1) & 1}
    assert ignored == {signal.SIGHUP}


def test_mask_of_the_caller_does_not_reach_children(app: App) -> None:
    """A child that starts with SIGTERM blocked could not be stopped; procman itself must hear it, too."""
    app(f"web: exec cat /proc/self/status\nother: {child(app, 'kind', 'plain', app.fifo('ready').path)}")
    code = (
        "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD});"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    argv = start_argv(app, "--can-die", "web")
    run = app.spawn([argv[0], "-c", code, *argv], has_events=True)
    run.wait_for("exited", "web.1", code=0)
    status = dict(line.split(":", 1) for line in run.output_of("web.1") if ":" in line)
    assert int(status["SigBlk"], 16) == 0
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert alive(app) == {}


def test_umask_directory_and_session(app: App) -> None:
    app(f"web: {child(app, 'inherited', 'state.json')}")
    found = state(app, app.spawn(shell_start(app, "umask 027")))
    assert found["umask"] == 0o027
    assert found["cwd"] == str(app.root)
    assert len(set(found["ids"])) == 1  # leader of its own group and session


# --- files -----------------------------------------------------------------------------------------------------------

def test_sink_file_is_private(app: App) -> None:
    app("web: echo secret")
    run = app.spawn(shell_start(app, "umask 0", "--sink", "jsonl:log"))
    assert run.wait() == 0
    assert stat.S_IMODE((app.root / "log").stat().st_mode) == 0o600
    assert "secret" in (app.root / "log").read_text()


@pytest.mark.parametrize("is_dangling", [False, True])
def test_planted_link_is_not_followed(app: App, is_dangling: bool) -> None:
    app("web: echo secret")
    target = app.root / "target"
    if not is_dangling:
        target.write_text("precious\n")
    (app.root / "log").symlink_to(target)
    run = app.spawn(start_argv(app, "--sink", "jsonl:log"))
    assert run.wait() not in (0, 70)
    no_traceback(run)
    assert "log" in run.err_text
    assert target.exists() != is_dangling
    assert is_dangling or target.read_text() == "precious\n"
    assert b"started with pid" not in run.out


def test_pipe_that_nobody_reads_does_not_block(app: App) -> None:
    """Planted, or a reader that has not come: an open(2) of it would wait for ever, children started or not."""
    app("web: echo secret; exit 3")
    os.mkfifo(app.root / "log")
    run = app.spawn(start_argv(app, "--sink", "jsonl:log"))
    assert run.wait() not in (0, 70)
    no_traceback(run)
    assert "log" in run.err_text + run.text


def test_nothing_else_is_left_in_the_directory(app: App) -> None:
    app("web: echo line")
    run = app.start()
    assert run.wait() == 0
    assert {path.name for path in app.root.iterdir()} <= {"Procfile", ".procman"}
    if (app.root / ".procman").exists():
        assert stat.S_IMODE((app.root / ".procman").stat().st_mode) == 0o700


# --- nothing becomes a command ---------------------------------------------------------------------------------------

EVIL = "$(touch pwned) `touch pwned` ; touch pwned & | touch pwned > pwned \\ \" * ~ #"


def test_values_reach_no_shell(app: App) -> None:
    """Values of .env arrive as they are, and are never expanded on the way; nor is a file of theirs made."""
    app(
        "web: printf '%s\\n' \"$EVIL\" \"$LD\"; test -e pwned && exit 9; exit 0",
        dotenv=f"EVIL='{EVIL}'\nLD='a\nb; touch pwned'\n",
    )
    run = app.start()
    assert run.wait() == 0, run.failure("")
    assert run.output_of("web.1") == [EVIL, "a", "b; touch pwned"]
    assert not (app.root / "pwned").exists()


ODD_NAMES = ["$(touch pwned)", "a;touch pwned", "../../web", "web/x", "`touch pwned`", "a b", "-x", "."]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_refused_or_quoted(app: App, name: str) -> None:
    app(f"{name}: echo hello\nweb: echo line")
    run = app.start("--sink", "jsonl:log")
    run.wait()
    no_traceback(run)
    assert not (app.root / "pwned").exists()
    assert {path.name for path in app.root.iterdir()} <= {"Procfile", "log", ".procman"}
    assert {path.name for path in app.root.parent.iterdir()} == {app.token}


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "web\rx"])
def test_names_cannot_speak_to_the_terminal(app: App, name: str) -> None:
    app(f"{name}: echo hello\nweb: echo line\n")
    run = app.start()
    run.wait()
    no_traceback(run)
    assert b"\x1b[2J" not in run.out + run.err
    assert b"\rx" not in run.out + run.err


def test_variables_for_the_loader_reach_only_the_children(app: App) -> None:
    """PATH, PYTHONPATH and PYTHONSTARTUP of .env are the children's; procman has loaded what it needs."""
    app.write("json.py", "raise SystemExit('taken over')\n")
    app.write("click.py", "raise SystemExit('taken over')\n")
    app("web: echo $PYTHONPATH", dotenv=f"PYTHONPATH={app.root}\nPYTHONINSPECT=1\n")
    argv = start_argv(app)
    run = app.spawn([argv[0], "-P", *argv[1:]], has_events=True)  # -P: as the installed command, not `-m` from here
    assert run.wait() == 0, run.failure("")
    assert run.output_of("web.1") == [str(app.root)]
    assert "taken over" not in run.err_text + run.text
