"""`procman top` and `start --top` as users see them: on real terminals, through a terminal emulator (pyte)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.support.app import App, Run

SIZE = (30, 120)
SLEEP = "exec sleep 1000"
ASKS = "while printf 'name? ' && read name; do echo hello $name; done"
LEAVE = "\x1d"


def detached(app: App, procfile: str, *arguments: str, names: tuple[str, ...] = ("web.1",)) -> Run:
    run = app(procfile).start("--pty", "--detach", *arguments)
    run.wait_command()
    run.wait_all("ready", names)
    return run


def top(app: App, *arguments: str, size: tuple[int, int] = SIZE, **env: str | None) -> Run:
    view = app.procman("top", *arguments, size=size, env=env)
    view.wait_screen("q quit")
    return view


def leave(view: Run) -> None:
    view.type("q")
    assert view.wait() == 0


def quit_all(app: App) -> None:
    assert app.call("quit").code == 0


def test_scale_restart_attach_leave(app: App) -> None:
    run = detached(app, f"web: {SLEEP}\nasks: {ASKS}\n", names=("web.1", "asks.1"))
    view = top(app)
    view.wait_screen(r"web\.1 +ready +" + str(app.port))
    view.type("+")
    run.wait_for("ready", "web.2")
    view.wait_screen(r"web\.2 +ready +" + str(app.port + 1))
    view.wait_screen(r"scale web=\+1: done")

    first = run.pid_of("web.1")
    view.type("r")
    run.wait_for("exited", "web.1")
    view.wait_screen("restart web.1: done")
    assert run.pid_of("web.1") != first
    view.wait_screen(rf"web\.1  ready  pid {run.pid_of('web.1')}")

    view.type("\x1b[F")  # End
    view.wait_screen(r"asks\.1  ready(?s:.*)name\? ")
    view.type("a")
    view.wait_screen(r"attached to asks\.1")
    assert view.out.rindex(b"\x1b[?1049l") < view.out.index(b"attached to")  # pyte has only one screen
    view.type("you\r")
    view.wait_screen("hello you")
    view.type(LEAVE)
    view.wait_screen(r"NAME +STATE(?s:.*)hello you(?s:.*)back from asks\.1")

    view.type("-")
    view.wait_screen(r"scale asks=-1: done")
    view.wait_screen(r"\A(?!(?s:.*)asks\.1 +ready)(?s:.*)web\.2 +ready")
    leave(view)
    assert not [event for event in run.events if event.is_("stopping", "web.2")]
    assert [line.split()[:2] for line in app.call("ps").lines[1:-1]] == [["web.1", "ready"], ["web.2", "ready"]]
    quit_all(app)


def test_ctrl_c_in_the_first_moments_of_attach(app: App) -> None:
    detached(app, f"web: {SLEEP}\n")
    early = app.write(
        "early/sitecustomize.py",
        "import os, signal, sys\nif 'attach' in sys.orig_argv:\n    os.kill(os.getpid(), signal.SIGINT)\n",
    )
    view = top(app, PYTHONPATH=f"{early.parent}:{app.env['PYTHONPATH']}")
    view.wait_screen(r"web\.1 +ready")
    view.type("a")
    view.wait_until(lambda: view.out.count(b"\x1b[?1049h") == 2, "view")
    view.wait_screen(r"attach web\.1 was ended by signal 2")
    assert "Traceback" not in view.text
    leave(view)
    quit_all(app)


def test_stop_start_and_a_signal(app: App) -> None:
    waits = f"trap 'echo heard' HUP; while :; do read x < {app.fifo()} || :; done"
    run = detached(app, f"web: {SLEEP}\nworker: {waits}\n", names=("web.1", "worker.1"))
    view = top(app)
    view.wait_screen(r"web\.1  ready")
    view.type("s")
    view.wait_screen(r"web\.1 +stopped")
    view.type("S")
    run.wait_for("started", "web.1", pid=run.pid_of("web.1"))
    view.wait_screen(r"start web\.1: done")
    view.type("\x1b[B")  # down
    view.wait_screen(r"worker\.1  ready")
    view.type("k")
    view.wait_screen(r"Signal to worker\.1")
    view.type("\x1b[F\r")  # WINCH, the last one, does nothing here
    view.wait_screen(r"signal WINCH worker\.1: done")
    view.type("k")
    view.wait_screen(r"Signal to worker\.1")
    view.type("\r")
    run.wait_output("heard", "worker.1")
    view.wait_screen(r"signal HUP worker\.1: done(?s:.*)")
    view.wait_screen(r"\n *heard")
    leave(view)
    quit_all(app)


def test_what_is_refused_is_told(app: App) -> None:
    run = detached(app, f"web: {SLEEP}\n", "-p", "65535")
    view = top(app)
    view.wait_screen(r"web\.1 +ready")
    view.type("+")
    view.wait_screen(r"scale web=\+1: .*65535")
    leave(view)
    assert not [event for event in run.events if event.is_("started", "web.2")]
    quit_all(app)


def test_several_viewers_and_none_stops_anything(app: App) -> None:
    run = detached(app, f"web: {SLEEP}\n")
    views = [top(app) for _ in range(2)]
    for view in views:
        view.wait_screen(r"web\.1 +ready")
    views[0].type("+")
    for view in views:
        view.wait_screen(r"web\.2 +ready")
    views[0].hang_up()
    views[0].wait_until(lambda: views[0].code is not None, "end")
    views[1].type("+")
    views[1].wait_screen(r"web\.3 +ready")
    views[1].signal(signal.SIGTERM)
    views[1].wait_until(lambda: views[1].code is not None, "end")
    assert not [event for event in run.events if event.event == "stopping"]
    quit_all(app)


def test_the_supervisor_ends_and_comes_back(app: App) -> None:
    first = detached(app, f"web: echo one of $PS; {SLEEP}\nworker: echo two of $PS; {SLEEP}\n",
                     names=("web.1", "worker.1"))  # fmt: skip
    view = top(app)
    view.type("\x1b[F")
    view.wait_screen(r"worker\.1  ready(?s:.*)two of worker\.1")
    quit_all(app)
    view.wait_screen("looking again: no procman runs ")
    second = detached(app, f"web: {SLEEP}\nworker: echo three of $PS; {SLEEP}\n", names=("web.1", "worker.1"))
    view.wait_screen(rf"worker\.1  ready  pid {second.pid_of('worker.1')}(?s:.*)three of worker\.1")
    assert "looking again" not in view.screen_text
    assert first.pid_of("worker.1") != second.pid_of("worker.1")
    leave(view)
    quit_all(app)


def test_a_resized_window(app: App) -> None:
    detached(app, f"web: {SLEEP}\n")
    view = top(app)
    view.wait_screen(r"web\.1 +ready")
    view.resize(20, 60)
    view.wait_screen(r"NAME +STATE +PORT UPTIME RST CPU%")
    assert "RESTARTS" not in view.screen_text
    view.resize(30, 200)
    view.wait_screen(r"NAME .*RESTARTS.* MEMORY +web\.1  ready")  # the log beside it
    view.wait_screen(r"\nr restart .* q quit\s*\Z")  # the keys have room for one line
    leave(view)
    quit_all(app)


COLOURED = re.compile(rb"\x1b\[(?:[\d;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[\d;]*)?m")


@pytest.mark.parametrize(
    ("env", "has_colour", "has_more_than_sixteen"),
    [
        ({}, True, False),
        ({"COLORTERM": "truecolor"}, True, False),  # the colours are the terminal's own
        ({"TERM": "xterm"}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"NO_COLOR": ""}, True, False),
    ],
    ids=str,
)
def test_colours(app: App, env: dict[str, str], has_colour: bool, has_more_than_sixteen: bool) -> None:
    detached(app, f"web: {SLEEP}\n")
    view = top(app, **{"COLORTERM": None, **env})
    view.wait_screen(r"web\.1  ready  pid \d+")  # the state stands in its colour
    leave(view)
    assert bool(COLOURED.search(view.out)) is has_colour
    assert (b"38;2;" in view.out or b"38;5;" in view.out) is has_more_than_sixteen
    quit_all(app)


def test_the_terminal_is_given_back(app: App) -> None:
    detached(app, f"web: {SLEEP}\n")
    shell = app.spawn(
        ["sh", "-c", 'stty -a >before; "$@"; code=$?; stty -a >after; echo "ended with $code"; exec cat',
         "sh",
         sys.executable, "-m", "procman", "top"],
        size=SIZE,
    )  # fmt: skip
    shell.wait_screen(r"web\.1 +ready")
    shell.type("\x03")
    shell.wait_screen("ended with 0")
    assert (app.root / "before").read_text() == (app.root / "after").read_text()
    tail = shell.out[shell.out.rindex(b"\x1b[?1049l") :]
    assert b"\x1b[?25h" in shell.out[shell.out.rindex(b"\x1b[?25l") :]
    assert b"ended with" in tail
    shell.hang_up()
    quit_all(app)


def test_ctrl_z_stops_the_whole_job_and_fg_shows_it_again(app: App) -> None:
    """Also what has started the view, here a shell: it would keep the terminal."""
    detached(app, f"web: {SLEEP}\n")
    shell = app.spawn(["bash", "--noprofile", "--norc", "--noediting", "-i"], size=SIZE, env={"PS1": "shell> "})
    shell.wait_screen(r"shell>$")
    shell.type(f"sh -c '{sys.executable} -m procman top; echo ended'\n")
    shell.wait_screen(r"web\.1 +ready(?s:.*)q quit")
    for times in (1, 2):  # the emulator has only one screen, so look at the bytes
        shell.type("\x1a")
        shell.wait_until(lambda: shell.out.count(b"Stopped") == times, "stop")  # noqa: B023
        shell.type("fg\n")
        shell.wait_until(lambda: shell.out.count(b"\x1b[?1049h") == times + 1, "view")  # noqa: B023
        shell.type("?")
        shell.wait_screen("closes this")
        shell.type("q")
        shell.wait_screen(r"\A(?!(?s:.*)closes this)")
    shell.type("q")
    shell.wait_until(lambda: b"ended" in shell.out, "end")
    shell.hang_up()
    quit_all(app)


def test_ctrl_z_does_nothing_where_no_shell_could_wake_the_view(app: App) -> None:
    detached(app, f"web: {SLEEP}\n")
    view = top(app)
    view.type("\x1a?")
    view.wait_screen("closes this")
    view.type("q")
    leave(view)
    quit_all(app)


# --- without what it needs ---


def test_nothing_runs(app: App) -> None:
    app(f"web: {SLEEP}\n")
    view = app.procman("top", size=SIZE)
    assert view.wait() == 69
    assert "no procman runs here" in view.text
    assert "\x1b" not in view.text


def test_no_terminal(app: App) -> None:
    app(f"web: {SLEEP}\n")
    for arguments in (["top"], ["start", "--top"]):
        run = app.call(*arguments)
        assert (run.code, run.text) == (2, "")
        assert run.err_text == "the view needs a terminal — `procman ps --watch` prints a table\n"


def test_a_terminal_that_cannot_be_drawn_on(app: App) -> None:
    app(f"web: {SLEEP}\n")
    for arguments in (["top"], ["start", "--top"]):
        run = app.procman(*arguments, size=SIZE, env={"TERM": "dumb"})
        assert run.wait() == 2
        assert run.lines[0].startswith("the view cannot be drawn on this terminal (TERM=dumb) — `procman ps --watch`")
        assert "\x1b" not in run.text


@pytest.mark.parametrize("arguments", [["top"], ["start", "--top"]], ids=" ".join)
def test_without_the_extra(app: App, arguments: list[str]) -> None:
    """Only what procman itself needs is installed."""
    app(f"web: {SLEEP}\n")
    hidden = app.write(
        "hidden/sitecustomize.py",
        "import sys\nsys.path = [entry for entry in sys.path if 'site-packages' not in entry]\n",
    )
    bare = app.root / "bare"
    bare.mkdir()
    for name in ("click", "psutil", "dotenv", "colorama"):
        module = __import__(name)
        os.symlink(os.path.dirname(module.__file__ or ""), bare / name)
    run = app.procman(*arguments, size=SIZE, env={"PYTHONPATH": f"{hidden.parent}:{app.env['PYTHONPATH']}:{bare}"})
    assert run.wait() == 69
    assert run.lines == ['the view needs Textual — pip install "procman-cli[tui]"', ""]


@pytest.mark.parametrize("option", ["--detach", "--attach=web"])
def test_what_does_not_go_with_top(app: App, option: str) -> None:
    app(f"web: {SLEEP}\n")
    run = app.procman("start", "--top", option, size=SIZE)
    assert run.wait() == 2
    assert "--top has the terminal for itself" in run.text


# --- a run of its own ---


def test_start_top_is_a_run_with_a_view(app: App) -> None:
    run = app(f"web: {SLEEP}\n").start("--top", size=SIZE)
    run.wait_for("ready", "web.1")
    run.wait_screen(r"web\.1 +ready")
    assert app.call("ps").lines[1].split()[:2] == ["web.1", "ready"]
    run.type("q")
    assert run.wait() == 0
    assert "stopped by SIGINT; nothing is left running" in run.text
    assert run.events[-1].text == "stopped by SIGINT; nothing is left running"


def test_start_top_ends_with_the_run(app: App) -> None:
    gate = app.fifo()
    run = app(f"web: read x < {gate}; exit 3\n").start("--top", size=SIZE)
    run.wait_screen(r"web\.1 +ready")
    gate.send()
    assert run.wait() == 3
    assert re.search(r"web\.1 +\| exited with code 3", run.text)


@pytest.mark.parametrize("how", ["hang up", "kill"])
def test_start_top_leaves_nothing_when_the_view_is_gone(app: App, how: str) -> None:
    run = app(f"web: {SLEEP}\n").start("--top", size=SIZE)
    run.wait_for("ready", "web.1")
    run.wait_screen(r"web\.1 +ready")
    if how == "kill":
        run.signal(signal.SIGKILL)
    else:
        run.hang_up()
    run.wait_for("exited", "web.1")
    run.wait_notice("nothing is left running")
    app.wait_gone()


def test_start_top_tells_a_mistake_as_start_does(app: App) -> None:
    app("web\n")
    run = app.procman("start", "--top", size=SIZE)
    assert run.wait() == 65
    assert "Procfile:1" in run.text
    assert "\x1b[?1049h" not in run.text


def test_in_a_browser_there_is_no_terminal_to_look_for(app: App) -> None:
    """textual-serve names a driver in the environment: then standard output is its pipe."""
    detached(app, f"web: {SLEEP}\n")
    popen = subprocess.Popen(
        [sys.executable, "-m", "procman", "top"],
        cwd=app.root,
        env={**app.env, "TEXTUAL_DRIVER": "textual.drivers.web_driver:WebDriver", "COLUMNS": "100", "ROWS": "30"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert popen.stdin is not None
    assert popen.stdout is not None
    assert popen.stdout.readline() == b"__GANGLION__\n"
    popen.kill()
    popen.communicate()
    quit_all(app)
