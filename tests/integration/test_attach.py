"""`procman attach` and `start --attach` on real terminals, looked at through a terminal emulator (pyte)."""

from __future__ import annotations

import base64
import os
import re
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from procman.control.client import Connection
from tests.support.app import CEILING_S, PYTHON, App, Run

SLEEP = "exec sleep 1000"
SIZE = (24, 150)
LEAVE = "\x1d"

PROGRAM = """\
def step(count):
    total = sum(range(count))
    return total

print("total", step(4))
name = input("name? ")
print("hello", name)
print("spinning")
while True:
    pass
"""
PDB = f"{PYTHON} -m pdb program.py"
ASKS = "while printf 'name? ' && read name; do echo hello $name; done"

# Like a shell: it stays the leader of the session, and does nothing to the terminal. `cat` ends with Ctrl-D only where
# lines are edited.
UNDER_A_SHELL = """trap : INT; "$@"; echo "ended with $?"; exec cat"""


def started(app: App, procfile: str, *arguments: str, **kwargs: Any) -> Run:
    run = app(procfile, program__py=PROGRAM).start("--pty", *arguments, **kwargs)
    run.wait_for("ready", "web.1")
    return run


def attach(app: App, name: str = "web", size: tuple[int, int] = SIZE) -> Run:
    viewer = app.procman("attach", name, size=size)
    viewer.wait_screen(r"attached to \S+; Ctrl-\] leaves")
    return viewer


def under_a_shell(app: App, *arguments: str, **kwargs: Any) -> Run:
    procman = [sys.executable, "-m", "procman", *arguments]
    return app.spawn(["sh", "-c", UNDER_A_SHELL, "sh", *procman], size=(50, 150), **kwargs)


def leave(viewer: Run) -> None:
    viewer.type(LEAVE)
    assert viewer.wait() == 0
    assert viewer.screen_text.endswith("left web.1; it goes on")


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def fresh_modes() -> list[Any]:
    """Return the modes of a terminal that nobody has touched."""
    master, slave = os.openpty()
    try:
        return termios.tcgetattr(slave)
    finally:
        os.close(master)
        os.close(slave)


# --- what one does there ---


def test_pdb(app: App) -> None:
    run = started(app, f"web: {PDB}\nworker: {SLEEP}\n")
    viewer = attach(app)
    viewer.wait_screen(r"-> def step\(count\):\n\(Pdb\)$")
    viewer.type("n\r")
    viewer.wait_screen(r"\(Pdb\) n\n> .*program.py\(5\)<module>\(\)\n-> print\(.*\)\n\(Pdb\)$")
    viewer.type("s\r")
    viewer.wait_screen(r"\(Pdb\) s\n--Call--\n.*program.py\(1\)step\(\)")
    viewer.type("c\r")
    viewer.wait_screen(r"total 6\nname\?")
    viewer.type("Grace\r")
    viewer.wait_screen("name\\? Grace\nhello Grace\nspinning")
    viewer.type("\x03")
    viewer.wait_screen(r"\^C\nProgram interrupted.*\n(?s:.*)\(Pdb\)$")
    viewer.type("p name * 2\r")
    viewer.wait_screen("'GraceGrace'")
    leave(viewer)
    assert run.code is None, "Ctrl-C was for the program"
    run.wait_output("hello Grace")


def test_lines_are_edited_by_the_program(app: App) -> None:
    started(app, f"web: {PDB}\n")
    viewer = attach(app)
    viewer.wait_screen(r"\(Pdb\)$")
    viewer.type("p 21x\x7f\x1b[D\x1b[D3 * \r")  # backspace, left, left
    viewer.wait_screen(r"\(Pdb\) p 3 \* 21\n63")
    viewer.type("\x1b[A\x1b[D1\r")  # the line before, and a digit into its last number
    viewer.wait_screen(r"\(Pdb\) p 3 \* 211\n633")
    leave(viewer)


def test_backspace_takes_a_whole_character_away(app: App) -> None:
    """By the terminal itself, where the program does not edit the line."""
    started(app, f"web: {ASKS}\n")
    viewer = attach(app)
    viewer.wait_screen(r"name\?$")
    viewer.type("aö\x7fb\r")
    viewer.wait_screen("hello ab\nname")
    leave(viewer)


def test_no_staircase(app: App) -> None:
    started(app, f"web: printf 'one\\ntwo\\n'; stty -a | tr ' ' '\\n' | grep opost; {SLEEP}\n")
    viewer = attach(app)
    viewer.wait_screen("^attached.*\none\ntwo\n-opost$")
    leave(viewer)


def test_every_key_but_the_one_to_leave(app: App) -> None:
    """Also those that mean something to a terminal: the program has switched its own meanings off."""
    program = "import os, tty; tty.setraw(0); os.write(1, b'ready\\r\\n')"
    app.write("keys.py", program + "\nwhile 1: os.write(1, os.read(0, 99).hex().encode())\n")
    started(app, f"web: {PYTHON} keys.py\n")
    viewer = attach(app)
    viewer.wait_screen("ready")
    keys = "\x00\x01\x03\x04\x0d\x0f\x11\x13\x16\x1a\x1c\x7f\x1b[Aé"
    viewer.type(keys)
    viewer.wait_screen(keys.encode().hex())
    viewer.type("a" + LEAVE + "b")
    assert viewer.wait() == 0
    assert "62" not in viewer.screen_text


@pytest.mark.parametrize("key", ["\x1b[93;5u", "\x1b[27;5;93~"])
def test_the_key_to_leave_as_newer_terminals_send_it(app: App, key: str) -> None:
    started(app, f"web: {SLEEP}\n")
    viewer = attach(app)
    viewer.type(key)
    assert viewer.wait() == 0


def test_ctrl_d_and_ctrl_z_are_the_programs(app: App) -> None:
    run = started(app, "web: cat; echo ended; exec cat\n")
    viewer = attach(app)
    viewer.type("\x1aone\r")
    viewer.wait_screen("one\n.*one")
    viewer.type("\x04")
    viewer.wait_screen("ended")
    viewer.type("two\r")
    viewer.wait_screen("two\ntwo")
    leave(viewer)
    assert run.code is None


def test_interrupt_behind_a_shell(app: App) -> None:
    program = "try: input('up')\nexcept KeyboardInterrupt: print('interrupted')\n"
    app.write("waits.py", program)
    run = started(app, f"web: cd . && {PYTHON} waits.py; echo behind\n")
    viewer = attach(app)
    viewer.wait_screen("up")
    viewer.type("\x03")
    run.wait_output("up^Cinterrupted")


def test_interrupt_while_the_program_reads_nothing(app: App) -> None:
    """Ctrl-C gets through behind more than a terminal takes, and what was typed before is forgotten."""
    program = "import signal; signal.signal(2, lambda *_: print('interrupted', flush=True)); print('up', flush=True)\n"
    app.write("deaf.py", program + "while 1: signal.pause()\n")
    run = started(app, f"web: stty -echo; {PYTHON} deaf.py\n")
    viewer = attach(app)
    viewer.wait_screen("up")
    for _ in range(50):
        viewer.type(1000 * "x" + "\r")
    viewer.type("\x03")
    run.wait_output("interrupted")
    leave(viewer)


def test_two_see_the_same_and_so_does_the_main_stream(app: App) -> None:
    run = started(app, f"web: {ASKS}\n")
    one, two = attach(app), attach(app)
    one.type("Ann\r")
    for viewer in (one, two):
        viewer.wait_screen(r"name\? Ann\nhello Ann\nname\?")
    two.type("Bob\r")
    for viewer in (one, two):
        viewer.wait_screen(r"name\? Bob\nhello Bob\nname\?")
    run.wait_output("hello Bob", "web.1")
    leave(one)
    two.type("Cal\r")
    two.wait_screen("hello Cal")
    leave(two)


def test_who_comes_later_sees_what_was_written_last(app: App) -> None:
    run = started(app, f"web: for n in $(seq 100); do echo line $n; done; printf 'prompt> '; {SLEEP}\n")
    run.wait_output("line 100")
    viewer = attach(app)
    viewer.wait_screen(r"line 99\nline 100\nprompt>$")
    assert viewer.screen_lines[0] == "attached to web.1; Ctrl-] leaves"
    assert viewer.screen_lines[1] == f"line {100 - (SIZE[0] - 5)}"
    leave(viewer)


# --- size ---


def test_size_follows_who_is_attached(app: App) -> None:
    run = started(app, f"web: while read go; do stty size; done; {SLEEP}\n")
    viewer = attach(app, size=(20, 70))
    viewer.type("\r")
    run.wait_output("20 70")
    viewer.resize(33, 99)
    run.wait_until(lambda: viewer.type("\r") or "33 99" in run.output_of("web.1"), "the new size")
    leave(viewer)


def test_programs_are_told_of_the_size(app: App) -> None:
    run = started(app, f"web: {app.child('tty_info')}\n")
    run.wait_output("tty tty tty 62x24")
    one = attach(app, size=(20, 70))
    run.wait_output("tty tty tty 70x20")
    two = attach(app, size=(40, 50))
    run.wait_output("tty tty tty 50x40")
    one.resize(21, 71)
    run.wait_output("tty tty tty 71x21")
    leave(one)
    run.wait_until(lambda: run.output_of("web.1").count("tty tty tty 50x40") == 2, "the size of who is left")
    leave(two)
    run.wait_until(lambda: run.output_of("web.1").count("tty tty tty 62x24") == 2, "the size of all others")


def test_a_restart_has_the_size_from_the_start(app: App) -> None:
    run = started(app, f"web: {app.child('tty_info')}\n")
    viewer = attach(app, size=(20, 70))
    run.wait_output("tty tty tty 70x20")
    app.call("restart", "web")
    viewer.wait_screen("has started again\ntty tty tty 70x20")
    leave(viewer)


# --- ends that are not the user's ---


def test_restart_while_attached(app: App) -> None:
    started(app, f"web: echo pid $$; {ASKS}\n")
    viewer = attach(app)
    viewer.wait_screen("pid")
    assert app.call("restart", "web").code == 0
    viewer.wait_screen(r"web.1 has started again\npid \d+\nname\?$")
    viewer.type("Ann\r")
    viewer.wait_screen("hello Ann")
    leave(viewer)


def test_stop_and_return_while_attached(app: App) -> None:
    started(app, f"web: {ASKS}\nworker: {SLEEP}\n")
    viewer = attach(app)
    viewer.wait_screen(r"name\?")
    app.call("stop", "web")
    viewer.wait_screen("web.1 has ended with code 143")
    late = attach(app)
    late.wait_screen("web.1 has ended with code 143")
    app.call("restart", "web")
    for each in (viewer, late):
        each.wait_screen(r"web.1 has started again\nname\?")
        leave(each)


def test_scaled_away_while_attached(app: App) -> None:
    started(app, f"web: {ASKS}\n", "web=2")
    viewer = attach(app, "web.2")
    app.call("scale", "web=1")
    assert viewer.wait() == 0
    assert viewer.screen_text.endswith("web.2 was scaled away")


def test_the_run_ends_while_attached(app: App) -> None:
    run = started(app, f"web: {ASKS}; exit 3\n")
    viewer = attach(app)
    viewer.wait_screen(r"name\?")
    viewer.type("\x04")
    assert viewer.wait() == 0
    assert viewer.screen_text.endswith("web.1 has ended with code 3\nthe run has ended")
    assert run.wait() == 3


# --- the terminal is as it was ---


def test_left_by_key(app: App) -> None:
    started(app, f"web: {ASKS}\n")
    viewer = under_a_shell(app, "attach", "web")
    viewer.wait_screen(r"name\?$")
    viewer.type(LEAVE)
    assert ended(viewer) == 0


def test_left_because_the_run_ended(app: App) -> None:
    run = started(app, f"web: {ASKS}\n")
    viewer = under_a_shell(app, "attach", "web")
    viewer.wait_screen(r"name\?$")
    run.signal(signal.SIGTERM)
    assert ended(viewer) == 0


def test_left_because_the_supervisor_was_killed(app: App) -> None:
    run = started(app, f"web: {ASKS}\n")
    viewer = under_a_shell(app, "attach", "web")
    viewer.wait_screen(r"name\?$")
    pid = run.supervisor_pid()
    os.kill(pid, signal.SIGKILL)
    assert ended(viewer) == 69
    assert f"the procman with pid {run.pid} has gone away" in viewer.text


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
@pytest.mark.parametrize("which", ["the one that was started", "its child"])
def test_left_by_a_signal(app: App, signum: int, which: str) -> None:
    started(app, f"web: {ASKS}\n")
    viewer = under_a_shell(app, "attach", "web")
    viewer.wait_screen(r"name\?$")
    [first] = children_of(viewer.pid)
    [second] = children_of(first)
    assert termios.tcgetattr(viewer.master_fd) != fresh_modes()
    fd = os.pidfd_open(second)
    os.kill(first if which == "the one that was started" else second, signum)
    assert select.select([fd], [], [], CEILING_S)[0]
    os.close(fd)
    assert ended(viewer) == 128 + signum


def ended(run: Run) -> int:
    """Wait until the shell goes on; return the code it saw. The terminal must be as it was, and be of use."""
    code = int(run.wait_line(r"^ended with (\d+)$")[1])
    assert termios.tcgetattr(run.master_fd) == fresh_modes()
    run.type("abc\x7fd\r")
    run.wait_screen("\nabd\nabd$")
    run.type("\x04")
    assert run.wait() == 0
    return code


def test_what_the_program_did_to_the_screen_is_undone(app: App) -> None:
    started(app, f"web: printf '\\033[?1049h\\033[?25l\\033[?1000;1006h\\033[31mred'; {SLEEP}\n")
    viewer = attach(app)
    viewer.wait_screen("red")
    leave(viewer)
    _, _, after = viewer.text.partition("red")
    for sequence in ("\x1b[0m", "\x1b[?1049l", "\x1b[?25h", "\x1b[?1000l", "\x1b[?1006l"):
        assert sequence in after
    assert "2004" not in after


def test_stopped_and_continued(app: App) -> None:
    """kill -TSTP, for Ctrl-Z is the program's."""
    started(app, f"web: {ASKS}\n")
    app.write("rc", "PS1='$ '\n")
    shell = app.spawn(["bash", "--rcfile", "rc", "-i"], size=SIZE)
    shell.wait_screen(r"\$$")
    shell.type(f"{sys.executable} -m procman attach web\r")
    shell.wait_screen(r"name\?$")
    [first] = children_of(shell.pid)
    os.kill(first, signal.SIGTSTP)
    shell.wait_screen(r"Stopped.*(?s:.*)\$$")
    shell.type("echo a shell again\r")
    shell.wait_screen("\na shell again")
    shell.type("fg\r")
    shell.wait_screen("procman attach web$")
    shell.wait_until(lambda: not termios.tcgetattr(shell.master_fd)[3] & termios.ISIG, "raw modes")
    shell.type("Ann\r")
    shell.wait_screen(r"hello Ann\nname\?$")
    shell.type(LEAVE)
    shell.wait_screen(r"it goes on\n\$$")
    shell.type("exit\r")
    assert shell.wait() == 0


# --- what cannot be ---


def test_no_terminal(app: App) -> None:
    run = app(f"web: {SLEEP}\n").start()
    run.wait_for("ready", "web.1")
    asked = app.call("attach", "web", size=SIZE)
    assert asked.code == 69
    assert asked.screen_text == "web.1 has no terminal — run procman in a terminal, or with `start --pty`"
    app.call("stop", "web")
    assert app.call("attach", "web").code == 69


def test_nobody_runs(app: App) -> None:
    asked = app("web: true\n").call("attach", "web")
    assert (asked.code, asked.out) == (69, b"")
    assert "no procman runs here" in asked.err_text


def test_wrong_names(app: App) -> None:
    started(app, f"web: {SLEEP}\nworker: {SLEEP}\n", "web=2", "worker")
    for name, text in {
        "web": "only one can be attached — choose one of web.1, web.2\n",
        "wrker": '"wrker" does not run here — did you mean "worker"?\n',
        "web.3": '"web.3" does not run here — did you mean "web.2"?\n',
    }.items():
        asked = app.call("attach", name)
        assert (asked.code, asked.err_text, asked.out) == (2, text, b"")
    assert app.call("attach").code == 2


# --- no terminal on stdin, and clients that do not read ---


def test_piped_keys(app: App) -> None:
    run = started(app, f"web: {ASKS}\n")
    run.wait_output("name? ")
    gate = app.fifo()
    script = f"(echo Ann; cat {gate}) | {sys.executable} -m procman attach web"
    viewer = app.spawn(["sh", "-c", script])
    viewer.wait_line("hello Ann")
    gate.send("Bob\n")
    viewer.wait_line("hello Bob")
    gate.close()
    assert viewer.wait() == 0
    assert viewer.err_text == "attached to web.1; the end of standard input leaves\nleft web.1; it goes on\n"
    assert run.code is None


def test_a_client_that_never_reads(app: App) -> None:
    """It holds nobody back, and is told how much it has missed."""
    gate = app.fifo()
    app(f"web: echo up; read go; seq 2000000; echo counted > {gate}; {ASKS}\n")
    run = app.procman("start", "--pty", "-p", str(app.port))
    run.wait_line("up")
    [path] = (app.root / ".procman").glob("*.sock")
    client = Connection(str(path), CEILING_S)
    try:
        client.send({"do": "attach", "name": "web.1"})
        client.send({"keys": base64.b64encode(b"\r").decode()})
        assert gate.receive() == "counted"
        viewer = attach(app)
        viewer.type("Ann\r")
        viewer.wait_screen("hello Ann")
        leave(viewer)
        lost_bytes = 0  # told whenever there was room for a word
        while lost_bytes < 1_000_000:
            lost_bytes += sum(message.get("lost_bytes", 0) for message in client.receive())
    finally:
        client.close()


def test_a_terminal_that_does_not_read_can_be_left(app: App) -> None:
    started(app, "web: exec yes\n", stdout=subprocess.DEVNULL)
    master, slave = os.openpty()
    procman = [sys.executable, "-m", "procman", "attach", "web"]
    popen = subprocess.Popen(procman, cwd=app.root, env=app.env, stdin=slave, stdout=slave, stderr=slave)
    assert b"attached" in os.read(master, 100)
    poll = select.poll()
    poll.register(slave, select.POLLOUT)
    while poll.poll(100):  # until nothing fits any more
        pass
    os.write(master, LEAVE.encode())
    assert popen.wait(CEILING_S) == 0
    os.close(slave)
    os.close(master)


# --- start --attach ---


def start_attached(app: App, procfile: str, *arguments: str) -> Run:
    app(procfile, program__py=PROGRAM)
    run = under_a_shell(app, "start", "-p", str(app.port), "--attach", *arguments, has_events=True)
    run.wait_for("ready", "web.1")
    return run


def test_start_attached_pdb(app: App) -> None:
    run = start_attached(app, f"web: {PDB}\nworker: echo here; {SLEEP}\n", "web")
    run.wait_screen(r"web.1 +\| \(Pdb\)")
    run.wait_screen("worker.1 +| here")
    run.type("n\r")
    run.wait_screen(r"web.1 +\| \(Pdb\) n\n.*program.py\(5\)<module>")
    run.type("p 21x\x7f\x1b[D\x1b[D3 * \r")
    run.wait_screen(r"web.1 +\| \(Pdb\) p 3 \* 21\n.*web.1 +\| 63\n")
    run.type("\x03")
    assert ended(run) == 0
    assert "stopped by SIGINT; nothing is left running" in run.text


def test_start_attached_echoes_once(app: App) -> None:
    run = start_attached(app, f"web: {ASKS}\n", "web.1")
    run.wait_screen(r"web.1 +\| name\?$")
    run.type("Ann\r")
    run.wait_screen(r"web.1 +\| name\? Ann\n.*hello Ann\n.*name\?$")
    assert run.text.count("Ann") == 2
    run.type("\x03")
    assert ended(run) == 0


@pytest.mark.parametrize("columns", [80, 34])
def test_start_attached_line_that_is_typed_stays_whole(app: App, columns: int) -> None:
    """The others write above it, however many rows it fills."""
    os.mkfifo(app.root / "go")
    app(f"web: {ASKS}\nworker: exec 3<> go; while read line <&3; do printf %s $line; done\n")
    run = app.start("--attach", "web", "--no-timestamp", size=(24, columns))
    run.wait_screen(r"web.1    \| name\?$")
    run.type("Ann Annabel Victoria")
    asked = "web.1    | name? Ann Annabel Victoria" if columns == 80 else "web.1    | name? Ann Annabel Victo\nria"
    run.wait_screen(f"{re.escape(asked)}$")
    for text in ("one", "two"):
        (app.root / "go").write_text(f"{text}\n")  # a line that stays open
        run.wait_screen(re.escape(f"worker.1 | {text}\n{asked}") + "$")
    run.type("\x7f\x7fxö")
    run.wait_screen(re.escape(f"{asked[:-2]}xö") + "$")
    assert run.screen_text.count("name") == 1
    run.type("\r")
    run.wait_screen(r"hello Ann Annabel Vic(?s:.*)xö\n.*name\?$")
    run.type("\x03")
    assert run.wait() == 0


@pytest.mark.parametrize("which", ["guard", "supervisor"])
def test_start_attached_gives_back_after_kill(app: App, which: str) -> None:
    run = start_attached(app, f"web: {ASKS}\n", "web")
    run.wait_screen(r"name\?$")
    [guard] = children_of(run.pid)
    assert termios.tcgetattr(run.master_fd) != fresh_modes()
    supervisor = run.supervisor_pid()
    fd = os.pidfd_open(supervisor)
    os.kill(guard if which == "guard" else supervisor, signal.SIGKILL)
    assert select.select([fd], [], [], CEILING_S)[0]
    os.close(fd)
    assert ended(run) == (137 if which == "guard" else 70)
    assert run.text.count("name?") == 1  # not again, where the shell goes on


def test_start_attached_leaves_the_keys_to_the_shell_when_the_guard_is_killed(app: App) -> None:
    """While processes take their time to stop, what is typed is the shell's, and what they say is below it."""
    stays = "trap 'echo not yet' TERM; printf 'name? '; until [ -e go ]; do sleep 0.1; done"
    run = start_attached(app, f"web: {stays}\n", "web", "-t", "30")
    run.wait_screen(r"name\?$")
    [guard] = children_of(run.pid)
    os.kill(guard, signal.SIGKILL)
    run.wait_line("not yet$")
    run.wait_line("^ended with 137$")
    for word in ("one", "two"):
        run.type(f"{word}\r")
        run.wait_screen(f"{word}\n{word}$")
    (app.root / "go").touch()
    run.wait_line("nothing is left running$")
    run.type("\x04")
    assert run.wait() == 0


def test_start_attached_ctrl_z(app: App) -> None:
    app(f"web: {ASKS}\n")
    app.write("rc", "PS1='$ '\n")
    shell = app.spawn(["bash", "--rcfile", "rc", "-i"], size=SIZE)
    shell.wait_screen(r"\$$")
    shell.type(f"{sys.executable} -m procman start -p {app.port} --attach web\r")
    shell.wait_screen(r"name\?$")
    shell.type("\x1a")
    shell.wait_screen(r"Stopped.*(?s:.*)\$$")
    shell.type("fg\r")
    shell.wait_screen(r"--attach web$")
    shell.wait_until(lambda: not termios.tcgetattr(shell.master_fd)[3] & termios.ICANON, "modes")
    shell.type("Ann\r")
    shell.wait_screen("hello Ann")
    shell.type("\x03")
    shell.wait_screen(r"nothing is left running\n\$$")
    shell.type("exit\r")
    assert shell.wait() == 0


def test_start_attached_ctrl_z_in_a_shell_that_does_nothing_for_its_terminal(app: App) -> None:
    app(f"web: {ASKS}\n")
    shell = app.spawn(["sh", "-i"], size=SIZE, env={"PS1": "$ "})
    shell.wait_screen(r"\$$")
    shell.type(f"{sys.executable} -m procman start -p {app.port} --attach web\r")
    shell.wait_screen(r"name\?$")
    shell.type("\x1a")
    shell.wait_screen(r"Stopped.*(?s:.*)\$$")
    assert termios.tcgetattr(shell.master_fd) == fresh_modes()
    shell.type("fg\r")
    shell.wait_until(lambda: not termios.tcgetattr(shell.master_fd)[3] & termios.ICANON, "modes")
    shell.type("\x03")
    shell.wait_screen(r"nothing is left running\n\$$")
    assert termios.tcgetattr(shell.master_fd) == fresh_modes()
    shell.type("\x04")
    shell.wait()


def test_start_attached_piped(app: App) -> None:
    """What is piped is typed, and its end is typed, too."""
    app(f"web: {ASKS}; echo end of input; {SLEEP}\n")
    reader, writer = os.pipe()
    run = app.start("--attach", "web", stdin=reader)
    os.close(reader)
    run.wait_output("name? ")
    os.write(writer, b"Ann\nBob\n")
    run.wait_output("name? hello Bob")
    os.close(writer)
    run.wait_output("name? end of input")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


def test_start_attached_file(app: App) -> None:
    """More than a terminal takes at once, from a file: epoll knows none."""
    lines = "".join(f"line {number}\n" for number in range(50_000))
    path = app.write("keys", lines)
    app("web: stty -echo; while read line; do last=$line; done; echo $last; exec sleep 1000\n")
    with open(path) as file:
        run = app.start("--attach", "web", stdin=file.fileno())
    run.wait_output("line 49999")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


def test_start_attached_after_a_restart(app: App) -> None:
    run = start_attached(app, f"web: echo pid $$; {ASKS}\n", "web")
    run.wait_screen(r"name\?$")
    app.call("restart", "web")
    run.wait_screen(r"(?s)name\?.*pid \d+\n[^\n]*name\?$")
    run.type("Ann\r")
    run.wait_screen("hello Ann")
    run.type("\x03")
    assert ended(run) == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--attach", "wbe"), '--attach: "wbe" is not started — did you mean "web"?'),
        (("--attach", "web.3", "web=2"), '--attach: "web.3" is not started — did you mean "web.2"?'),
        (("--attach", "web", "web=2"), "--attach web: only one can be attached — choose one of web.1, web.2"),
        (("--attach", "worker", "web"), '--attach: "worker" is not started — known: web, web.1'),
        (("--attach", "web", "--no-pty"), "--attach needs a terminal for the process — leave --no-pty out"),
        (("--attach", "web", "--detach"), "--detach leaves the terminal, and --attach needs it — choose one of them"),
    ],
)
def test_start_attached_wrong_usage(app: App, arguments: Sequence[str], text: str) -> None:
    asked = app("web: true\nworker: true\n").call("start", *arguments)
    assert (asked.code, asked.out) == (2, b"")
    assert asked.err_text.splitlines()[-1].removeprefix("Error: ") == text
