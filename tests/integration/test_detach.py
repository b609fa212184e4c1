"""`procman start --detach`: a run in the background, from its start to the proof of its end."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.app import App, Run

SLEEP = "exec sleep 1000"
TWO = f"web: {SLEEP}\nworker: {SLEEP}\n"
STARTED = r"procman runs in the background with pid (\d+) — `procman ps`, `procman logs -f`, `procman quit`"
DATED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (\S+) +\| (.*)")


def detached(app: App, *arguments: str, **kwargs: object) -> tuple[Run, int]:
    """Start in the background; return the command's run, with the daemon's events, and the daemon's pid."""
    run = app.start("--detach", *arguments, **kwargs)
    assert run.wait_command() == 0, run.failure("not started")
    return run, pid_in(run)


def pid_in(run: Run) -> int:
    return int(run.wait_line(r"procman runs in the background with pid (\d+)")[1])


def quit_of(app: App) -> None:
    asked = app.call("quit")
    assert asked.code == 0, asked.failure("not ended")
    assert "nothing is left running" in asked.text
    assert app.survivors() == {}
    assert sorted(os.listdir(app.root / ".procman")) == [".gitignore", "lock", "log"]


def log_of(app: App, name: str = "procman.log") -> list[tuple[str, str]]:
    """Return the lines of the log, each as name and text."""
    text = (app.root / ".procman" / "log" / name).read_text()
    assert text.endswith("\n") or not text
    found = [DATED.fullmatch(line) for line in text.splitlines()]
    assert all(found), text
    return [(match[1], match[2]) for match in found if match]


def stat_of(pid: int) -> list[str]:
    """Return the fields of proc_pid_stat(5) from the state on: parent, group, session, terminal ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


# --- from start to end ---


def test_what_is_waited_for_is_told_to_who_waits(app: App) -> None:
    app(f"web: {SLEEP}\n", dotenv=f"U=tcp://127.0.0.1:{app.port + 9}\n", procman__toml="[process.web]\nneeds = ['U']\n")
    run = app.start("--detach")
    run.wait_err(r"^waiting for U \(TCP at 127\.0\.0\.1:\d+\): connection refused$")
    with socket.create_server(("127.0.0.1", app.port + 9)):
        assert run.wait_command() == 0, run.failure("not started")
    quit_of(app)


def test_a_life_in_the_background(app: App) -> None:
    run, pid = detached(app(f"web: echo hello; {SLEEP}\nworker: {SLEEP}\n"), "web=2", "worker")
    *ups, last, _ = run.lines
    pids = [run.pid_of(name) for name in ("web.1", "web.2", "worker.1")]
    assert ups == [
        f"web.1 ready, pid {pids[0]}, port {app.port}",
        f"web.2 ready, pid {pids[1]}, port {app.port + 1}",
        f"worker.1 ready, pid {pids[2]}, port {app.port + 100}",
    ]
    assert re.fullmatch(STARTED + "; log: .procman/log/procman.log", last)
    assert run.err == b""
    assert [line.split()[:2] for line in app.call("ps").lines[1:-1]] == [
        ["web.1", "ready"], ["web.2", "ready"], ["worker.1", "ready"],
    ]  # fmt: skip
    assert "web.1    | hello" in app.call("logs", "web").text
    assert app.call("scale", "worker=2").code == 0
    assert os.path.exists(app.root / ".procman" / f"{pid}.sock")
    quit_of(app)
    said = log_of(app)
    assert said[0] == ("system", "formation: web=2, worker=1")
    assert ("web.1", "hello") in said
    assert said[-1] == ("system", "stopped by procman quit; nothing is left running")


def test_it_has_left_everything(app: App) -> None:
    """Parent, group, session, terminal, and all open files but its own."""
    reader, writer = os.pipe()
    run, pid = detached(app(TWO), pass_fds=[writer], size=(24, 80))
    os.close(writer)
    supervisor = run.supervisor_pid()
    for half in (pid, supervisor):
        _, _, group, session, terminal, *_ = stat_of(half)
        assert int(session) not in (os.getsid(0), os.getsid(os.getpid()), half)
        assert group == session
        assert terminal == "0"
        links = {int(fd): os.readlink(f"/proc/{half}/fd/{fd}") for fd in os.listdir(f"/proc/{half}/fd")}
        assert [links[fd] for fd in (0, 1, 2)] == ["/dev/null"] * 3
        assert not [link for link in links.values() if "/dev/pts" in link or "ptmx" in link]
        assert os.readlink(f"/proc/{half}/cwd") == str(app.root)
    assert int(stat_of(supervisor)[1]) == pid
    assert int(stat_of(pid)[1]) != run.pid
    assert os.read(reader, 1) == b"", "somebody still has the caller's pipe open"
    os.close(reader)
    quit_of(app)


def test_the_terminal_is_closed(app: App) -> None:
    """A shell at a terminal starts it, and the window is closed."""
    app(TWO)
    shell = app.spawn(["bash", "--norc", "-i"], size=(24, 200), env={"PS1": "$ "})
    shell.type(f"{shlex.join(start_argv(app, '-D'))}\n")
    pid = int(shell.wait_screen(STARTED)[1])
    shell.type("tty; echo code $?\n")
    shell.wait_screen(r"\ncode 0")
    shell.hang_up()
    shell.wait()
    assert app.call("ps").text.count("ready") == 2
    assert stat_of(pid)
    quit_of(app)


def test_a_shell_that_takes_its_output(app: App) -> None:
    """`x=$(procman start -D)` ends when the command does."""
    app(TWO)
    run = app.spawn(["/bin/sh", "-c", f'x=$({shlex.join(start_argv(app, "-D"))}) && echo "got $x"'])
    assert run.wait() == 0
    assert run.text.startswith("got web.1 ready, pid ")
    quit_of(app)


def start_argv(app: App, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "procman", "start", "-p", str(app.port), *arguments]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_to_its_pid(app: App, signum: int) -> None:
    run, pid = detached(app(TWO))
    os.kill(pid, signum)
    run.wait()
    app.wait_gone()
    assert log_of(app)[-1] == ("system", f"stopped by {signal.Signals(signum).name}; nothing is left running")


def test_a_process_that_ends_ends_the_run(app: App) -> None:
    gate = app.fifo()
    run, _ = detached(app(f"web: read x < {gate}; exit 3\nworker: {SLEEP}"))
    gate.send()
    run.wait()
    app.wait_gone()
    assert log_of(app)[-1] == ("system", "web.1 exited with code 3; nothing is left running")


def test_what_processes_inherit(app: App) -> None:
    """As in `start`: directory, umask, environment; nothing of the terminal; with --pty a terminal of their own."""
    inherited = shlex.quote(str(Path(__file__).parents[1] / "faults" / "children" / "inherited.py"))
    command = f"{sys.executable} -S -E {inherited} {app.token} state.json; echo $NAME $OTHER; {SLEEP}"
    app(f"web: {command}\ntty: test -t 0 && echo terminal; {SLEEP}", dotenv="NAME=dotenv\n")
    argv = ["/bin/sh", "-c", f"umask 027; trap '' HUP; exec {shlex.join(start_argv(app, '-D'))} \"$@\"", "sh"]
    run = app.spawn([*argv, "web"], has_events=True, env={"OTHER": "caller"})
    run.wait_output("dotenv caller", "web.1")
    found = json.loads((app.root / "state.json").read_text())
    assert found["cwd"] == str(app.root)
    assert found["umask"] == 0o027
    assert found["ignored"] & 1 << (signal.SIGHUP - 1)
    assert sorted(found["fds"]) == ["0", "1", "2"]
    assert found["fds"]["0"] == "/dev/null"
    run.wait_command()
    second, _ = detached(app, "--pty", "tty")
    second.wait_output("terminal", "tty.1")
    assert second.wait_line("log: .procman/log/procman-2.log")
    quit_of(app)


def test_procfile_from_standard_input_and_another_directory(app: App, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, TWO.encode())
    os.close(write)
    run = app.procman("start", "-D", "-f", "-", "-d", str(app.root), "-p", str(app.port), stdin=read, cwd=tmp_path)
    os.close(read)
    assert run.wait() == 0, run.failure("")
    place = f"-d {app.root}"
    assert f"`procman ps {place}`, `procman logs {place} -f`, `procman quit {place}`; log: {app.token}/" in run.text
    assert app.call("quit", "-d", str(app.root), cwd=tmp_path).code == 0


def test_many_instances_are_counted(app: App) -> None:
    run, _ = detached(app(TWO), "web=30", "worker=2")
    assert run.lines[:2] == ["web: 30 ready", "worker: 2 ready"]
    quit_of(app)


# --- what cannot start ---


def test_an_end_before_all_is_up(app: App) -> None:
    run = app(f"web: nosuchcommand\nworker: {SLEEP}").start("-D")
    assert run.wait() == 127
    assert run.out == b""
    assert app.survivors() == {}
    assert re.search(r"web\.1 +\| .*nosuchcommand: not found\n", run.err_text)
    assert re.search(r"system +\| web\.1 exited with code 127; nothing is left running\n", run.err_text)
    assert run.err_text.endswith(
        "procman: the run ended with exit code 127 before all was up; log: .procman/log/procman.log\n"
    )
    assert sorted(os.listdir(app.root / ".procman")) == [".gitignore", "lock", "log"]


def test_the_reason_of_this_run_only(app: App) -> None:
    """The log is kept; what an earlier run wrote there is not told."""
    app("web: echo first; exit 1").start("-D").wait()
    run = app("web: echo second; exit 2").start("-D")
    assert run.wait() == 2
    assert "second" in run.err_text
    assert "first" not in run.err_text
    assert [text for name, text in log_of(app) if name == "web.1" and "with" not in text] == ["first", "second"]


def test_a_run_that_is_over_at_once(app: App) -> None:
    run = app("web: echo done").start("-D")
    assert run.wait() == 0
    assert "the run ended with exit code 0 before all was up" in run.err_text


def test_what_may_fail_is_told(app: App) -> None:
    run = app(f"web: exit 3\nworker: {SLEEP}").start("-D", "--can-die", "web")
    assert run.wait_command() == 1
    assert run.lines[0] == "web.1 failed with code 3"
    assert run.err_text == "web.1 did not come up; the others run\n"
    quit_of(app)


def test_one_that_comes_up_at_the_second_try(app: App) -> None:
    """The command waits while it is in its back-off."""
    run, _ = detached(app(f"web: test -e there || {{ touch there; exit 1; }}; {SLEEP}"), "--restart", "web")
    assert len([event for event in run.events if event.is_("started", "web.1")]) == 2
    assert run.lines[0].startswith("web.1 ready, pid ")
    quit_of(app)


BAD = {
    "no Procfile": (66, {}, (), r"Procfile: no such file"),
    "a bad line": (65, {"Procfile": "web = true\n"}, (), r"Procfile:1"),
    "an unknown type": (2, {"Procfile": TWO}, ("wbe",), r'did you mean "web"'),
    "a bad option": (2, {"Procfile": TWO}, ("--sink", "xml:log"), r"--sink xml:log"),
    "a sink that cannot be": (73, {"Procfile": TWO}, ("--sink", "jsonl:nowhere/log"), r"no such file"),
    "a bad setting": (78, {"Procfile": TWO, "procman.toml": "log_size = 5\n"}, (), r"procman.toml:1.*from 4096"),
    "no directory": (73, {"Procfile": TWO, ".procman": ""}, (), r"--detach needs .*\.procman .*: not a directory"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_is_told_as_in_start(app: App, what: str) -> None:
    code, files, arguments, pattern = BAD[what]
    for name, text in files.items():
        app.write(name, text)
    run = app.call("start", "-D", *arguments)
    assert run.code == code, run.failure("")
    assert re.search(pattern, run.err_text), run.failure("")
    assert run.out == b""
    assert app.survivors() == {}
    assert not list(app.root.glob(".procman/*.sock"))


@pytest.mark.parametrize("planted", ["log", "log/procman.log", "log/procman.log.lock"])
def test_planted_links_are_refused(app: App, tmp_path: Path, planted: str) -> None:
    app(TWO)
    target = tmp_path / "target"
    target.write_text("precious")
    path = app.root / ".procman" / planted
    path.parent.mkdir(parents=True)
    path.symlink_to(target)
    run = app.call("start", "-D")
    assert run.code == 73
    assert re.search(r"--detach: .*\.procman/log.*: (not a directory|too many levels of symbolic links)", run.err_text)
    assert target.read_text() == "precious"
    assert app.survivors() == {}


def test_a_port_that_is_taken(app: App) -> None:
    import socket

    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier test may linger
        taken.bind(("", app.port))
        taken.listen()
        run = app("web: test $PORT && sleep 1000").start("-D")
        assert run.wait() == 71
    assert "is taken" in run.err_text
    assert app.survivors() == {}


def test_warnings_are_told_in_the_terminal(app: App) -> None:
    run = app(TWO, dotenv="A=1\nA=2\n").start("-D", "-v")
    run.wait_command()
    assert ".env:2" in run.err_text
    assert any(".env:2" in text for name, text in log_of(app) if name == "system")
    quit_of(app)


def test_a_second_start_is_refused(app: App) -> None:
    _, pid = detached(app(TWO), "web")
    second = app.call("start", "-D")
    assert second.code == 69
    assert second.err_text.startswith(f"web already runs here, under procman with pid {pid} — ")
    assert "`procman start worker` starts the rest" in second.err_text
    in_front = app.call("start")
    assert in_front.code == 69
    other, _ = detached(app, "worker")
    assert other.wait_line("log: .procman/log/procman-2.log")
    assert app.call("ps").text.count("ready") == 2
    quit_of(app)
    assert ("system", "formation: web=1, worker=0") in log_of(app)
    assert ("system", "formation: web=0, worker=1") in log_of(app, "procman-2.log")


def test_again_and_again(app: App) -> None:
    """What the one had locked is free for the next as soon as `quit` has returned; the log goes on."""
    for _ in range(5):
        run, _ = detached(app(TWO))
        assert run.wait_line("log: .procman/log/procman.log")
        quit_of(app)
    said = log_of(app)
    assert said.count(("system", "formation: web=1, worker=1")) == 5
    assert said.count(("system", "stopped by procman quit; nothing is left running")) == 5


# --- who waits for it ---


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_giving_up_takes_it_along(app: App, signum: int) -> None:
    run = app(f"web: exit 1\nworker: {SLEEP}").start("-D", "--restart", "web")
    run.wait_for("restarting", "web.1")
    run.signal(signum)
    assert run.wait() == 128 + signum
    assert app.survivors() == {}
    name = signal.Signals(signum).name
    assert run.err_text.endswith(f"procman: given up because of {name}; log: .procman/log/procman.log\n")
    assert log_of(app)[-1] == ("system", f"stopped by {name}; nothing is left running")


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGKILL])
def test_a_terminal_that_is_closed_meanwhile(app: App, signum: int) -> None:
    run = app(f"web: test -e there || {{ touch there; exit 1; }}; {SLEEP}").start("-D", "--restart", "web")
    run.wait_for("restarting", "web.1")
    run.signal(signum)
    assert run.wait_command() == 128 + signum
    run.wait_until(lambda: sum(event.is_("ready", "web.1") for event in run.events) == 2, "second start")
    assert re.search("web.1 +ready", app.call("ps").text)
    quit_of(app)


# --- the log ---


def test_the_log_is_private(app: App) -> None:
    app(TWO)
    argv = ["/bin/sh", "-c", f"umask 0; exec {shlex.join(start_argv(app, '-D'))}"]
    assert app.spawn(argv).wait() == 0
    directory = app.root / ".procman" / "log"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    quit_of(app)


@pytest.mark.parametrize("way", ["variable", "file"])
def test_the_log_is_rotated(app: App, way: str) -> None:
    env = {}
    if way == "file":
        app.write("procman.toml", 'log_size = "64K"\nlog_files = 3\n')
    else:
        env = {"PROCMAN_LOG_SIZE": "65536", "PROCMAN_LOG_FILES": "3"}
    run, _ = detached(app(f"web: {app.child('write', 'go')}; {app.child('flood', 20_000)}; {SLEEP}"), env=env)
    run.wait_output("line 19999", "web.1")
    quit_of(app)
    names = sorted(path.name for path in (app.root / ".procman" / "log").iterdir())
    assert names == ["procman.log", "procman.log.1", "procman.log.2", "procman.log.lock"]
    said = [log_of(app, name) for name in reversed(names[:-1])]
    numbers = [int(text[5:]) for lines in said for _, text in lines if text.startswith("line ")]
    assert numbers == list(range(numbers[0], 20_000))
    assert 0 < numbers[0] < 20_000
    for name in names[:-1]:
        assert (app.root / ".procman" / "log" / name).stat().st_size <= 65_536


def test_look_of_the_log(app: App) -> None:
    run, _ = detached(app(f"web: printf '\\033[31mred\\033[0m\\n'; {SLEEP}"), "--no-timestamp", size=(24, 80))
    run.wait_for("output", "web.1")
    quit_of(app)
    assert b"\nweb.1  | \x1b[31mred\x1b[0m\n" in (app.root / ".procman" / "log" / "procman.log").read_bytes()


def test_tail_follows_it(app: App) -> None:
    """`tail -F` of another terminal."""
    gate = app.fifo()
    detached(app(f"web: read x < {gate}; echo now; {SLEEP}"))
    tail = app.spawn(["tail", "-n", "1", "-F", ".procman/log/procman.log"], stderr=subprocess.DEVNULL)
    gate.send()
    tail.wait_line(r"web\.1 +\| now$")
    tail.signal(signal.SIGTERM)
    tail.wait()
    quit_of(app)
