"""On a real terminal: architecture 5.9, 5.10 and Ctrl-Z, looked at through a terminal emulator (pyte)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.app import App, Run

SLEEP = "exec sleep 1000"
SIZE = (30, 100)
PREFIX = len("00:00:00 web.1  | ")


def behind_prefix(run: Run, name: str) -> list[str]:
    """Return what the screen shows behind the prefixes of `name`, without procman's own words."""
    lines = [re.match(rf"\d\d:\d\d:\d\d {re.escape(name)} *\|(?: (.*))?\Z", line) for line in run.screen_lines]
    own = re.compile(r"started with pid \d+|exited with code \d+|terminated by \S+")
    return [line[1] or "" for line in lines if line and not own.fullmatch(line[1] or "")]


def end(run: Run) -> int:
    run.type("\x03")
    return run.wait()


# --- what the children see (5.9) ---


def test_children_see_a_terminal_less_the_prefix(app: App) -> None:
    run = app(f"web: {app.child('tty_info')}").start(size=SIZE)
    run.wait_output(f"tty tty tty {SIZE[1] - PREFIX}x{SIZE[0]}")
    assert end(run) == 0


@pytest.mark.parametrize(
    ("arguments", "columns"),
    [
        (("--no-timestamp",), SIZE[1] - len("web.1  | ")),
        (("--no-prefix",), SIZE[1]),
        (("web=10",), SIZE[1] - PREFIX),
    ],
)
def test_size_follows_the_prefix(app: App, arguments: tuple[str, ...], columns: int) -> None:
    run = app(f"web: {app.child('tty_info')}").start(*arguments, size=SIZE)
    run.wait_output(f"tty tty tty {columns}x{SIZE[0]}")
    end(run)


def test_a_new_size_is_followed(app: App) -> None:
    run = app(f"web: {app.child('tty_info')}").start("web=2", size=SIZE)
    for name in ("web.1", "web.2"):
        run.wait_output(f"tty tty tty {SIZE[1] - PREFIX}x{SIZE[0]}", name)
    run.resize(20, 60)
    for name in ("web.1", "web.2"):
        run.wait_output(f"tty tty tty {60 - PREFIX}x20", name)
    end(run)


def test_a_terminal_narrower_than_the_prefix(app: App) -> None:
    run = app(f"web: {app.child('tty_info')}").start(size=(10, 12))
    line = run.wait_until(lambda: run.output_of("web.1"), "output")[0]
    assert re.fullmatch(r"tty tty tty [1-9]\d*x10", line)
    end(run)


def test_each_child_has_a_terminal_of_its_own_that_controls_nobody(app: App) -> None:
    app(f"web: {app.child('state', 'web.json')}\nworker: {app.child('state', 'worker.json')}")
    run = app.start(size=SIZE)
    run.wait_output("written", "web.1")
    run.wait_output("written", "worker.1")
    ttys = {os.readlink(f"/proc/{run.pid_of(name)}/fd/{fd}") for name in ("web.1", "worker.1") for fd in (0, 1, 2)}
    assert len(ttys) == 2
    for name in ("web.1", "worker.1"):
        fields = Path(f"/proc/{run.pid_of(name)}/stat").read_text().rpartition(")")[2].split()
        assert fields[4] == "0"  # tty_nr: no controlling terminal
    end(run)


def test_no_pty_gives_pipes(app: App) -> None:
    run = app(f"web: {app.child('tty_info')}").start("--no-pty", size=SIZE)
    run.wait_output("no no no none")
    end(run)


def test_pty_on_a_pipe_if_asked(app: App) -> None:
    run = app(f"web: {app.child('tty_info')}").start("--pty")
    run.wait_output(f"tty tty tty {80 - PREFIX}x24")
    assert b"\x1b" not in run.out
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


def test_stdout_alone_decides(app: App) -> None:
    """A pipe on stdout, whatever stdin and stderr are: pipes for the children."""
    app(f"web: {app.child('tty_info')}")
    run = app.spawn(["sh", "-c", f"{sys.executable} -m procman start -p {app.port} | cat"], size=SIZE)
    run.wait_screen("no no no none")
    assert end(run) >= 0


ONE_PTY = """
mount -t devpts -o newinstance,ptmxmode=0666,max=1 devpts /dev/pts && mount --bind /dev/pts/ptmx /dev/ptmx && exec "$@"
"""


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "sh", "-c", ONE_PTY, "sh", "true"], capture_output=True).returncode != 0,
    reason="needs a mount namespace of its own (unshare -rm)",
)
def test_no_pty_left_is_a_pipe_and_a_line_that_says_so(app: App) -> None:
    app(f"web: {app.child('tty_info')}\nworker: {app.child('tty_info')}")
    procman = [sys.executable, "-m", "procman", "start", "-p", str(app.port)]
    run = app.spawn(["unshare", "-rm", "sh", "-c", ONE_PTY, "sh", *procman], size=SIZE, has_events=True)
    run.wait_line("tty tty tty")
    run.wait_output("no no no none", "worker.1")
    assert not run.output_of("web.1")[1:]
    assert any(re.search("pty|terminal", event.text) for event in run.events if event.is_("notice", "worker.1"))
    assert end(run) == 0


def test_a_handler_behind_a_shell_finishes_on_a_terminal(app: App) -> None:
    """A controlling terminal would hang up the program before its TERM handler is through."""
    gate = app.fifo()
    run = app(f"web: cd . && {app.child('term_slow', 0, gate.path)}").start(size=SIZE)
    run.wait_output("up")
    run.type("\x03")
    run.wait_output("handling TERM")
    gate.send()
    assert run.wait() == 0
    assert run.output_of("web.1") == ["up", "handling TERM", "finished"]
    assert "SIGINT received, starting shutdown" in run.screen_text
    assert run.screen_text.endswith("stopped by SIGINT; nothing is left running")


def test_the_callers_terminal_is_left_as_it_was(app: App) -> None:
    import termios

    run = app(f"web: {app.child('tty_info')}").start(size=SIZE)
    before = termios.tcgetattr(run.master_fd)
    run.wait_line("tty tty tty")
    run.type("\x03")
    run.wait()
    assert termios.tcgetattr(run.master_fd) == before
    assert run.screen.cursor.x == 0  # type: ignore[union-attr]


def test_keys_reach_no_child(app: App) -> None:
    run = app(f"web: {app.child('tty_info')}\nworker: exec cat").start(size=SIZE)
    run.wait_line("tty tty tty")
    run.type("typed\n")
    run.resize(20, 60)  # the later marker
    run.wait_output(f"tty tty tty {60 - len('00:00:00 worker.1 | ')}x20")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert run.output_of("worker.1") == []


# --- lines (5.9, F9) ---


@pytest.mark.parametrize("mode", ["sane", "opost onlcr", "-opost"])
def test_stty_in_a_child_gives_no_double_return(app: App, mode: str) -> None:
    run = app(f"web: stty {mode}; printf 'a\\nb\\n'; {SLEEP}").start(size=SIZE)
    run.wait_screen(r"web\.1  \| b\n?")
    end(run)
    lines = [line for line in run.out.split(b"\n") if re.search(rb"\| (\x1b\[\d*m)*[ab]", line)]
    assert [line[-2:] for line in lines] == [b"a\r", b"b\r"]  # the \r is our own terminal's
    assert behind_prefix(run, "web.1") == ["a", "b"]


def test_output_processing_is_off(app: App) -> None:
    run = app("web: stty -a").start(size=SIZE)
    run.wait()
    assert re.search(r"(^| )-opost( |$)", "\n".join(run.output_of("web.1")), re.MULTILINE)


def test_stty_sane_keeps_bytes_on_a_pipe(app: App) -> None:
    run = app("web: stty sane; printf 'a\\nb\\n'").start("--pty")
    run.wait()
    assert run.output_of("web.1") == ["a", "b"]
    assert b"\r" not in run.out


def test_last_line_without_newline(app: App) -> None:
    run = app("web: printf 'a\\nno newline'").start(size=SIZE)
    run.wait()
    assert behind_prefix(run, "web.1") == ["a", "no newline"]


def test_a_flood_loses_nothing_on_a_terminal(app: App) -> None:
    run = app(f"web: {app.child('flood', 5000)}").start(size=SIZE)
    assert run.wait() == 0
    assert run.output_of("web.1") == [f"line {number}" for number in range(5000)]
    shown = re.findall(r"line (\d+)\r?\n", run.text)
    assert shown == [str(number) for number in range(5000)]


def test_output_after_an_end_at_once_on_a_terminal(app: App) -> None:
    for _ in range(5):
        run = app("web: echo last words; exit 3").start(size=SIZE)
        assert run.wait() == 3
        assert behind_prefix(run, "web.1") == ["last words"]


def test_a_prompt_is_shown_soon(app: App) -> None:
    run = app(f"web: {app.child('write', 'name? ', 'pause')}").start(size=SIZE)
    run.wait_screen(r"web\.1  \| name\?")
    event = run.wait_for("output", "web.1", partial=True)
    assert 0.1 < event.at - run.wait_for("started", "web.1").at < 1
    end(run)
    assert behind_prefix(run, "web.1") == ["name? ^C"]


# --- colours and the screen (5.10, F4) ---


def colour_at(run: Run, pattern: str, behind: int = 0) -> str:
    """Return the colour of the cell where `pattern` begins, or so many behind it."""
    assert run.screen is not None
    for row, line in enumerate(run.screen.display):
        if found := re.search(pattern, line):
            cell = run.screen.buffer[row][found.start() + behind]
            return f"{cell.fg}{' bold' if cell.bold else ''}"
    raise run.failure(f"no {pattern!r} on the screen")


def test_colour_by_process_type(app: App) -> None:
    names = [f"t{number}" for number in range(1, 9)]
    run = app("\n".join(f"{name}: echo {name}; {SLEEP}" for name in names)).start("all=2", size=(80, 100))
    for name in names:
        run.wait_screen(rf"{name}\.1   *\| {name}")
        run.wait_screen(rf"{name}\.2   *\| {name}")
    colours = ["cyan", "brown", "green", "magenta", "red", "blue", "cyan bold", "brown bold"]  # pyte's yellow is brown
    for name, colour in zip(names, colours, strict=True):
        for instance in (1, 2):
            line = rf"\d\d:\d\d:\d\d {name}\.{instance} +\| {name}"
            assert colour_at(run, line) == colour_at(run, line, 10) == colour
            assert colour_at(run, rf"(?<=\| ){name} ") == "default"
    assert colour_at(run, r"\d\d:\d\d:\d\d system") == "white"
    end(run)


@pytest.mark.parametrize(
    ("arguments", "env"),
    [((), {"NO_COLOR": "1"}), ((), {"TERM": "dumb"}), ((), {"TERM": None}), (("--color", "never"), {})],
)
def test_no_colour_on_a_terminal(app: App, arguments: tuple[str, ...], env: dict[str, str | None]) -> None:
    run = app("web: echo text").start(*arguments, size=SIZE, env=env)
    run.wait()
    assert b"\x1b" not in run.out


def test_styles_are_opened_again_on_the_instances_next_line(app: App) -> None:
    words = [r"\x1b[1;31mred\n", r"still red\n", "<{}", r"red again\x1b[0m plain\n", r"plain\n", "pause"]
    gate, other = app.fifo(), app.fifo("other")
    web = app.child("write", *(word.format(gate.path) for word in words))
    worker = app.child("write", f"<{other.path}", r"other\n", "pause")
    run = app(f"web: {web}\nworker: {worker}").start(size=SIZE)
    run.wait_screen("still red")
    other.send()
    run.wait_screen(r"worker\.1 \| other")
    gate.send()
    run.wait_screen(r"\| plain")
    for text in ("red$|red +$", "still red", "red again"):
        assert colour_at(run, rf"(?<=\| )(?:{text})") == "red bold"
    for text in ("other", "plain"):
        assert colour_at(run, rf"(?<=\| ){text}") == "default"
    assert colour_at(run, "red again plain", len("red again ")) == "default"
    assert colour_at(run, r"\d\d:\d\d:\d\d web\.1 +\| still") == "cyan"
    assert colour_at(run, r"\d\d:\d\d:\d\d worker\.1 +\| other") == "brown"
    end(run)


def test_a_style_left_open_at_the_end_colours_nothing_else(app: App) -> None:
    run = app("web: printf '\\033[41;5mopen'").start(size=SIZE)
    run.wait()
    assert run.screen is not None
    for row, line in enumerate(run.screen.display):
        cells = [run.screen.buffer[row][column] for column in range(len(line))]
        if "| open" not in line:
            assert all(cell.bg == "default" and not cell.blink for cell in cells)


VITE = (
    r"\x1b[2J\x1b[3J\x1b[H\x1b[?25l\x1b]0;dev server\x07\x1b[32m  VITE v5\x1b[39m ready\n"
    r"\x1b[s\x1b[5A\x1b[6n\x1b[?1049hbelow\n"
)


def test_screen_control_is_dropped(app: App) -> None:
    gate = app.fifo()
    web = app.child("write", f"<{gate.path}", VITE, r"\x1bc\x1b(0after\x0e\x07\n", "pause")
    run = app(f"worker: echo here before; {SLEEP}\nweb: {web}").start(size=SIZE)
    run.wait_screen(r"worker\.1 \| here before")
    gate.send()
    run.wait_screen(r"web\.1 +\| after")
    assert run.screen is not None
    assert "here before" in run.screen_text
    assert behind_prefix(run, "web.1") == ["  VITE v5 ready", "below", "after"]
    assert colour_at(run, "VITE v5") == "green"
    assert run.screen.title == ""
    assert not run.screen.cursor.hidden
    shown = re.sub(rb"\x1b\[[0-9;]*m", b"", run.out)
    assert b"\x1b" not in shown
    assert b"\x07" not in shown
    assert b"\x0e" not in shown
    end(run)


def test_raw_lets_all_through(app: App) -> None:
    run = app(f"web: {app.child('write', VITE, 'pause')}").start("--raw", size=SIZE)
    run.wait_until(lambda: b"below" in run.out, "output")
    assert b"\x1b[2J\x1b[3J\x1b[H\x1b[?25l\x1b]0;dev server\x07" in run.out
    assert run.screen is not None
    assert run.screen.title == "dev server"
    end(run)


def test_raw_events_hold_every_byte(app: App) -> None:
    """What the terminal is not shown, other sinks have."""
    run = app(f"web: {app.child('write', VITE, 'pause')}").start(size=SIZE)
    assert run.wait_until(lambda: run.output_of("web.1"), "output")[0].startswith("\x1b[2J\x1b[3J\x1b[H")
    end(run)


def test_progress_is_redrawn_behind_its_prefix(app: App) -> None:
    first, second = app.fifo("first"), app.fifo("second")
    words = [r"start\n", r"\r10% of much", f"<{first.path}", r"\r20%", f"<{second.path}", r"\rdone\n", r"next\n"]
    run = app(f"web: {app.child('write', *words, 'pause')}").start(size=SIZE)
    run.wait_screen(r"web\.1  \| 10% of much$")
    first.send()
    run.wait_screen(r"web\.1  \| 20%$")
    second.send()
    run.wait_screen(r"web\.1  \| next$")
    assert behind_prefix(run, "web.1") == ["start", "done", "next"]
    assert colour_at(run, r"\d\d:\d\d:\d\d web\.1  \| done") == "cyan"
    end(run)


def test_progress_and_another_that_speaks(app: App) -> None:
    drawing, speaking = app.fifo("drawing"), app.fifo("speaking")
    web = app.child("write", r"10%\r", f"<{drawing.path}", r"20%\r\nend\n", "pause")
    worker = app.child("write", f"<{speaking.path}", r"hello\n", "pause")
    run = app(f"web: {web}\nworker: {worker}").start(size=SIZE)
    run.wait_screen(r"web\.1    \| 10%")
    speaking.send()
    run.wait_screen(r"worker\.1 \| hello$")
    drawing.send()
    run.wait_screen(r"web\.1    \| end$")
    assert behind_prefix(run, "worker.1") == ["hello"]
    assert behind_prefix(run, "web.1") in (["10%", "20%", "end"], ["20%", "end"])
    assert all(re.match(r"\d\d:\d\d:\d\d \S+ +\|", line) for line in run.screen_lines if line)
    end(run)


# --- job control ---


def bash(app: App) -> Run:
    run = app.spawn(["bash", "--noprofile", "--norc", "--noediting", "-i"], size=SIZE, env={"PS1": "shell> "})
    run.wait_screen(r"shell> $|shell>$")
    return run


def test_ctrl_z_and_fg_lose_nothing(app: App) -> None:
    gates = [app.fifo(f"gate{number}") for number in range(3)]
    words = [word for gate in gates for word in (f"<{gate.path}", f"after {gate.path.name}\\n")]
    app(f"web: {app.child('write', *words, 'pause')}")
    shell = bash(app)
    shell.type(f"{sys.executable} -m procman start -p {app.port} --sink jsonl:events\n")
    shell.wait_screen("started with pid")
    gates[0].send()
    shell.wait_screen("after gate0")
    shell.type("\x1a")
    shell.wait_screen("Stopped")
    shell.wait_screen(r"shell>$")
    gates[1].send()
    shell.type("echo $((6 * 7))\n")
    shell.wait_screen("\n42")
    assert "after gate1" not in shell.screen_text  # procman is stopped, the children go on
    shell.type("fg\n")
    shell.wait_screen("after gate1")
    gates[2].send()
    shell.wait_screen("after gate2")
    shell.type("\x03")
    shell.wait_screen("stopped by SIGINT; nothing is left running")
    shell.type("echo code $?\n")
    shell.wait_screen("code 0")
    assert behind_prefix(shell, "web.1") == ["after gate0", "after gate1", "after gate2"]
    shell.type("exit\n")
    shell.wait()


def test_a_child_that_ends_while_procman_is_stopped_is_seen_after_fg(app: App) -> None:
    gate = app.fifo()
    app(f"web: read x < {gate}; echo last words; exit 3")
    shell = bash(app)
    shell.type(f"{sys.executable} -m procman start -p {app.port}\n")
    shell.wait_screen("started with pid")
    shell.type("\x1a")
    shell.wait_screen("Stopped")
    gate.send()
    shell.type("fg; echo code $?\n")
    shell.wait_screen("code 3")
    assert behind_prefix(shell, "web.1") == ["last words"]
    shell.type("exit\n")
    shell.wait()


def test_bg_goes_on(app: App) -> None:
    gate = app.fifo()
    web = app.child("write", f"<{gate.path}", r"after\n", "pause")
    app(f"web: {web}")
    shell = bash(app)
    shell.type(f"{sys.executable} -m procman start -p {app.port}\n")
    shell.wait_screen("started with pid")
    shell.type("\x1a")
    shell.wait_screen("Stopped")
    shell.type("bg\n")
    gate.send()
    shell.wait_screen(r"web\.1  \| after")
    shell.type("kill %1; wait %1; echo code $?\n")
    shell.wait_screen("code 0")
    shell.type("exit\n")
    shell.wait()
