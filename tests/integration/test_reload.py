"""`procman reload`: what has changed is restarted, and nothing else."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys

import pytest

from tests.support.app import PYTHON, App, Run

SLEEP = "exec sleep 1000"
TWO = f"web: {SLEEP}\nworker: {SLEEP}\n"
PRINTS_A = "echo A=${A-unset}; exec sleep 1000"


def started(app: App, procfile: str = TWO, *arguments: str, names: tuple[str, ...] = ("web.1", "worker.1")) -> Run:
    run = app(procfile).start(*arguments)
    run.wait_all("ready", names)
    return run


def count(run: Run, event: str, name: str) -> int:
    return sum(seen.is_(event, name) for seen in run.events)


def second_pid(run: Run, name: str) -> int:
    """Return the pid after the first restart: the command may be done before its event is read here."""
    run.wait_until(lambda: count(run, "started", name) == 2, f"second start of {name}")
    return run.pid_of(name)


def states(app: App) -> dict[str, str]:
    return {instance["name"]: instance["state"] for instance in json.loads(app.call("ps", "--json").text)}


def assert_nothing_happened(app: App, run: Run) -> None:
    """Let something happen, and look what came before."""
    before = [event for event in run.events if event.event in ("stopping", "exited", "started")]
    assert app.call("scale", "web=+1").code == 0
    names = {event.name for event in run.until("started", "web.2")} - {"system"}
    assert names == {event.name for event in before} | {"web.2"}
    assert not [event for event in run.events if event.is_("stopping")]


# --- what is restarted ---


def test_nothing_to_do(app: App) -> None:
    run = started(app, names=("web.1", "worker.1"))
    asked = app.call("reload")
    assert (asked.code, asked.text, asked.err_text) == (0, "nothing to do\n", "")
    assert_nothing_happened(app, run)


def test_a_changed_command_restarts_its_type_alone(app: App) -> None:
    run = started(app)
    worker = run.pid_of("worker.1")
    app(TWO.replace("exec", "echo new; exec", 1))
    asked = app.call("reload")
    assert (asked.code, asked.text) == (0, f"web.1 ready, pid {second_pid(run, 'web.1')}, port {app.port}\n")
    run.wait_output("new", "web.1")
    assert run.pid_of("worker.1") == worker
    assert app.call("reload").text == "nothing to do\n"
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


def test_a_changed_and_a_removed_variable(app: App) -> None:
    app(dotenv="A=1\n")
    run = started(app, f"web: {PRINTS_A}\nworker: {PRINTS_A}\n")
    app(dotenv="A=2\n")
    assert len(app.call("reload").lines) == 3
    app(dotenv="# A=2\n")
    assert len(app.call("reload").lines) == 3
    for name in ("web.1", "worker.1"):
        run.wait_output("A=unset", name)
        assert run.output_of(name) == ["A=1", "A=2", "A=unset"]


def test_a_variable_of_one_section(app: App) -> None:
    run = started(app, f"web: {PRINTS_A}\nworker: {PRINTS_A}\n")
    app(procman__toml='[process.worker]\nenv = { A = "own" }\n')
    asked = app.call("reload")
    assert asked.text == f"worker.1 ready, pid {second_pid(run, 'worker.1')}, port {app.port + 100}\n"
    run.wait_output("A=own", "worker.1")
    assert count(run, "started", "web.1") == 1


def test_policy_changes_without_a_restart(app: App) -> None:
    traps = "trap 'echo got INT; exit 0' INT; echo set; while :; do read x < gate; done"
    gate = app.fifo()
    run = app(f"web: {traps}\nworker: {SLEEP}\n").start()
    run.wait_output("set", "web.1")
    app(procman__toml='[process.web]\nstop_signal = "INT"\non_exit = "ignore"\n')
    asked = app.call("reload")
    assert (asked.code, asked.text) == (0, "web.1 goes on with new settings\n")
    assert count(run, "started", "web.1") == 1
    stop = app.procman("stop", "web")
    run.wait_for("stopping", "web.1", signum=int(signal.SIGINT))
    gate.send()
    assert stop.wait() == 0
    run.wait_output("got INT", "web.1")


def test_new_types_start_and_removed_ones_stop(app: App) -> None:
    run = started(app)
    web = run.pid_of("web.1")
    app(f"web: {SLEEP}\nclock: {SLEEP}\nrelease: {SLEEP}\n")
    asked = app.call("reload")
    assert asked.code == 0
    assert asked.lines == [f"clock.1 ready, pid {run.pid_of('clock.1')}, port {app.port + 100}", "worker.1 stopped", ""]
    assert states(app) == {"web.1": "ready", "clock.1": "ready"}
    assert run.pid_of("web.1") == web
    assert "formation: web=1, clock=1, release=0" in run.notices()
    assert app.call("scale", "clock=2").code == 0  # the new Procfile counts for everything from now on
    assert app.call("scale", "worker=1").code == 2
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


def test_all_types_are_others_and_the_run_goes_on(app: App) -> None:
    run = started(app)
    app(f"other: {SLEEP}\n")
    assert app.call("reload").code == 0
    assert states(app) == {"other.1": "ready"}
    assert run.code is None


def test_running_counts_stay(app: App) -> None:
    started(app, TWO, "-m", "web=2,worker=1", names=("web.2", "worker.1"))
    assert app.call("scale", "web=3").code == 0
    app(TWO.replace("1000", "1001"), procman__toml="formation = 'web=1,worker=1'\n")
    asked = app.call("reload")
    assert asked.code == 0
    assert set(states(app)) == {"web.1", "web.2", "web.3", "worker.1"}


def test_the_formation_counts_for_types_that_are_new(app: App) -> None:
    app(procman__toml="formation = 'web=1,worker=2'\n")
    started(app, names=("web.1", "worker.2"))
    app(f"{TWO}clock: {SLEEP}\nidle: {SLEEP}\n", procman__toml="formation = 'web=5,worker=2,clock=2'\n")
    asked = app.call("reload")
    assert asked.code == 0
    assert asked.err_text == "the formation counts for types that are new; `procman scale` changes what runs\n"
    assert set(states(app)) == {"web.1", "worker.1", "worker.2", "clock.1", "clock.2"}


@pytest.mark.parametrize("arguments", [(), ("web",)])
def test_a_new_type_that_another_needs_starts_before_it(app: App, arguments: tuple[str, ...]) -> None:
    """As `start` would bring it, whatever the formation says."""
    app(procman__toml="formation = 'web=1'\n")
    run = started(app, f"web: {SLEEP}\n", *arguments, names=("web.1",))
    sections = "[process.web]\nneeds = ['assets']\nenv = {A = '1'}\n[process.assets]\nready = {completed = true}\n"
    app(f"web: {SLEEP}\nassets: true\nidle: {SLEEP}\n", procman__toml=f"formation = 'web=1'\n{sections}")
    asked = app.call("reload")
    assert asked.code == 0, asked.failure("wrong code")
    second_pid(run, "web.1")
    order = [(seen.event, seen.name) for seen in run.events]
    assert ("started", "web.1") in order[order.index(("exited", "assets.1")) :]
    assert states(app) == {"web.1": "ready", "assets.1": "exited"}


def test_options_may_name_types_that_are_gone(app: App) -> None:
    started(app, TWO, "-m", "web=1,worker=1", "--can-die", "worker", "--restart", "worker", names=("web.1", "worker.1"))
    app(f"web: {SLEEP}\n")
    asked = app.call("reload")
    assert (asked.code, asked.lines) == (0, ["worker.1 stopped", ""])


def test_what_was_stopped_stays_down(app: App) -> None:
    run = started(app)
    assert app.call("stop", "web").code == 0
    app(TWO.replace("exec", "echo new; exec"))
    asked = app.call("reload")
    assert asked.lines[1:] == ["web.1 stays down with new settings", ""]
    assert count(run, "started", "web.1") == 1
    assert app.call("restart", "web").code == 0
    run.wait_output("new", "web.1")


def test_one_that_does_not_come_up(app: App) -> None:
    run = started(app, TWO, "--can-die", "web")
    app(TWO.replace(SLEEP, "exit 3", 1))
    asked = app.call("reload")
    run.wait_for("exited", "web.1", code=3)
    assert asked.code in (0, 1)  # it may have been up for a moment
    assert states(app) == {"web.1": "failed", "worker.1": "ready"}


# --- ports that pass from one to another ---

SERVER = """
import os, signal, socket
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of an earlier test may linger
listener.bind(("127.0.0.1", int(os.environ["PORT"])))
listener.listen()
print("bound", os.environ["PORT"], flush=True)
signal.pause()
"""


def assert_after(run: Run, name: str, holder: str) -> None:
    """See that the last start of `name` came behind the first end of the one that had its port."""
    order = [(event.event, event.name) for event in run.events]
    assert order.index(("exited", holder)) < len(order) - order[::-1].index(("started", name))


def test_a_type_put_in_front_moves_all_ports(app: App) -> None:
    """Each has bound its port: who gets it next can only start when it is free."""
    app.write("server.py", SERVER)
    server = f"exec {PYTHON} server.py $PORT"
    run = started(app, f"web: {server}\nworker: {server}\n", "-c", "web=2", names=("web.2", "worker.1"))
    run.wait_output(f"bound {app.port + 100}", "worker.1")
    app(f"first: {server}\nweb: {server}\nworker: {server}\n")
    asked = app.call("reload")
    assert asked.code == 0, asked.err_text
    run.wait_output(f"bound {app.port + 200}", "worker.1")
    run.wait_output(f"bound {app.port + 101}", "web.2")
    assert set(states(app).values()) == {"ready"}
    assert not [event for event in run.events if event.is_("exited") and event.code != 143]
    assert_after(run, "first.1", "web.1")
    assert_after(run, "web.1", "worker.1")


def test_a_new_type_gets_the_port_of_one_that_is_gone(app: App) -> None:
    app.write("server.py", SERVER)
    server = f"exec {PYTHON} server.py $PORT"
    run = started(app, f"web: {SLEEP}\nworker: {server}\n")
    run.wait_output(f"bound {app.port + 100}", "worker.1")
    app(f"web: {SLEEP}\nother: {server}\n")
    assert app.call("reload").code == 0
    run.wait_output(f"bound {app.port + 100}", "other.1")
    assert_after(run, "other.1", "worker.1")
    assert count(run, "started", "web.1") == 1


def test_while_ports_are_waited_for_nothing_else_is_changed(app: App) -> None:
    ignores = "trap '' TERM; echo set; while :; do sleep 1000; done"
    run = app(f"web: {SLEEP}\nworker: {ignores}\n").start("-t", "inf")
    run.wait_output("set", "worker.1")
    app(f"web: {SLEEP}\nother: {SLEEP}\n")
    asked = app.procman("reload", "--timeout", "inf")
    run.wait_for("stopping", "worker.1")
    for words in (("reload",), ("scale", "web=2")):
        other = app.call(*words)
        assert (other.code, other.out) == (69, b"")
        assert "a reload is going on" in other.err_text
    os.killpg(run.pid_of("worker.1"), signal.SIGKILL)
    assert asked.wait() == 0
    assert set(states(app)) == {"web.1", "other.1"}
    assert app.call("reload").text == "nothing to do\n"


def test_client_that_leaves_midway(app: App) -> None:
    ignores = "trap '' TERM; echo set; while :; do sleep 1000; done"
    run = app(f"web: {SLEEP}\nworker: {ignores}\n").start("-t", "inf")
    run.wait_output("set", "worker.1")
    app(f"web: {SLEEP}\nother: {SLEEP}\n")
    asked = app.procman("reload", "--timeout", "inf")
    run.wait_for("stopping", "worker.1")
    asked.signal(signal.SIGKILL)
    asked.wait()
    os.killpg(run.pid_of("worker.1"), signal.SIGKILL)
    run.wait_for("ready", "other.1")


# --- what is refused changes nothing ---


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"Procfile": "web: sleep\nweb: sleep\nthis is nothing\n"}, 65),
        ({".env": "A='open\n"}, 65),
        ({"procman.toml": "grase = 1\n[process.wbe]\n"}, 78),
        ({"Procfile": "nothing\n", ".env": "A='open\n", "procman.toml": "grase = 1\n"}, 65),
        ({"procman.toml": "port = 65500\n"}, 78),
        ({"procman.toml": 'formation = "wbe=2"\n'}, 78),
        ({"Procfile": None}, 66),
    ],
)
def test_a_file_with_a_mistake_changes_nothing(app: App, files: dict[str, str | None], code: int) -> None:
    app(dotenv="A=1\n")
    run = started_without_port(app)
    for name, text in files.items():
        if text is None:
            (app.root / name).unlink()
        else:
            app.write(name, text)
    asked = app.call("reload")
    told = app.call("start", env={"PROCMAN_PORT": None})
    assert (asked.code, asked.out, asked.err_text) == (code, b"", told.err_text)
    assert told.code == code
    app(TWO, dotenv="A=1\n")
    (app.root / "procman.toml").unlink(missing_ok=True)
    assert app.call("reload").text == "nothing to do\n"
    assert count(run, "started", "web.1") == 1


def started_without_port(app: App) -> Run:
    """Start with no option, so that a plain `procman start` says the same of the same files."""
    run = app(TWO).procman("start", has_events=True, env={"PORT": str(app.port)})
    run.wait_all("ready", ("web.1", "worker.1"))
    return run


def test_a_port_that_somebody_else_has(app: App) -> None:
    run = started(app, TWO, names=("web.1", "worker.1"))
    app.write("server.py", SERVER)
    taken = app.spawn([sys.executable, "server.py", app.token], env={"PORT": str(app.port + 200)})
    taken.wait_line("^bound")
    app(f"{TWO}other: exec sleep $PORT\n")
    asked = app.call("reload")
    assert asked.code == 71
    assert f"Procfile:3: other.1 uses PORT, but port {app.port + 200} is taken" in asked.err_text
    assert set(states(app)) == {"web.1", "worker.1"}
    assert run.code is None
    taken.signal(signal.SIGKILL)
    taken.wait()


def test_a_pipe_in_place_of_a_file_does_not_block(app: App) -> None:
    run = started(app)
    (app.root / "Procfile").unlink()
    os.mkfifo(app.root / "Procfile")
    asked = app.call("reload")
    assert asked.code == 66
    assert asked.err_text.startswith("Procfile: no regular file, so it cannot be read again")
    assert run.code is None


# --- where the files are ---


def test_paths_are_relative_to_where_start_was_called(app: App) -> None:
    app.write("app/Procfile", f"web: {PRINTS_A}\n")
    app.write("local.env", "A=1\n")
    run = app.start("-f", "app/Procfile", "-e", "local.env")
    run.wait_output("A=1", "web.1")
    app.write("local.env", "A=2\n")
    elsewhere = app.root / "elsewhere"
    elsewhere.mkdir()
    asked = app.call("reload", "-d", str(app.root / "app"), cwd=elsewhere)
    assert asked.code == 0, asked.err_text
    run.wait_output("A=2", "web.1")
    app.write("local.env", "A='open\n")
    asked = app.call("reload", "-d", str(app.root / "app"), cwd=elsewhere)
    assert asked.code == 65
    assert asked.err_text.startswith("local.env:1")


def test_a_procfile_from_standard_input_is_kept(app: App) -> None:
    reader, writer = os.pipe()
    os.write(writer, f"web: {PRINTS_A}\n".encode())
    os.close(writer)
    app(dotenv="A=1\n")
    run = app.start("-f", "-", stdin=reader)
    os.close(reader)
    run.wait_output("A=1", "web.1")
    app(dotenv="A=2\n")
    assert app.call("reload").code == 0
    run.wait_output("A=2", "web.1")


def test_an_env_file_from_a_pipe_is_kept(app: App) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"A=1\n")
    os.close(writer)
    app(f"web: {PRINTS_A}\n")
    run = app.start("-e", f"/dev/fd/{reader}", pass_fds=(reader,))
    os.close(reader)
    run.wait_output("A=1", "web.1")
    app(f"web: {PRINTS_A} # new\n")
    assert app.call("reload").code == 0
    second_pid(run, "web.1")
    run.wait_until(lambda: run.output_of("web.1") == ["A=1", "A=1"], "second A=1")


def test_the_root_is_another_directory_now(app: App) -> None:
    for name in ("one", "two"):
        app.write(f"{name}/Procfile", f"web: {SLEEP}\n")
    (app.root / "current").symlink_to("one")
    run = app.start("-d", "current")
    run.wait_for("ready", "web.1")
    (app.root / "current").unlink()
    (app.root / "current").symlink_to("two")
    asked = app.call("reload", "-d", "one")
    assert asked.code == 69
    assert "is another directory than when procman was started" in asked.err_text


# --- several supervisors ---


def test_each_keeps_its_own_types(app: App) -> None:
    first = started(app, TWO, "web", names=("web.1",))
    second = app.start("worker")
    second.wait_for("ready", "worker.1")
    app(TWO.replace("1000", "1001") + f"clock: {SLEEP}\n")
    asked = app.call("reload")
    assert asked.code == 0
    assert sorted(asked.lines) == ["", *(
        f"{name} ready, pid {second_pid(run, name)}, port {port}"
        for run, name, port in ((first, "web.1", app.port), (second, "worker.1", app.port + 100))
    )]  # fmt: skip
    assert set(states(app)) == {"web.1", "worker.1"}


def test_a_new_type_that_another_supervisor_runs_is_left_to_it(app: App) -> None:
    run = started(app, f"web: {SLEEP}\n", names=("web.1",))
    app(TWO)
    other = app.start("worker")
    other.wait_for("ready", "worker.1")
    asked = app.call("reload")
    assert (asked.code, asked.text) == (0, "nothing to do\n")
    assert asked.err_text == f"worker runs under procman with pid {other.pid}, and is left to it\n"
    assert not [event for event in run.events if event.is_("started", "worker.1")]


# --- what is told ---


def test_settings_of_the_run_wait_for_a_new_start(app: App) -> None:
    run = started(app)
    app(procman__toml='quiet = ["web"]\ntimestamp = false\nlog_memory = "1MiB"\n')
    asked = app.call("reload")
    assert (asked.code, asked.text) == (0, "nothing to do\n")
    assert asked.err_text == "quiet, timestamp and log_memory will count from the next start on\n"
    run.wait_notice("^quiet, timestamp and log_memory will count")
    assert app.call("reload").err_text == asked.err_text  # it still waits


def own_files(run: Run) -> list[str]:
    return [text for text in run.notices() if "`procman reload` applies" in text or "cannot be read now" in text]


def test_a_changed_file_is_told_once(app: App) -> None:
    app(dotenv="A=1\n")
    app.write("pyproject.toml", '[project]\nname = "x"\n')
    run = started(app)
    app.write(".env", "A=2\n")
    run.wait_notice(r"^\.env has changed — `procman reload` applies it$")
    app.write(".env", "A=2\n")  # no other content: no second line
    app.write("pyproject.toml", '[project]\nname = "y"\n')  # nothing of ours in it
    app.write("unrelated", "")
    app.write("procman.toml.new", "grace = 9\n")
    os.replace(app.root / "procman.toml.new", app.root / "procman.toml")
    run.wait_notice("^procman.toml has changed")
    app.write("pyproject.toml", "[tool.procman]\ngrace = 8\n")
    run.wait_notice("^pyproject.toml has changed")
    (app.root / ".env").unlink()
    run.wait_notice(r"^\.env is gone")
    assert own_files(run) == [
        ".env has changed — `procman reload` applies it",
        "procman.toml has changed — `procman reload` applies it",
        "pyproject.toml has changed — `procman reload` applies it",
        ".env is gone — `procman reload` applies it",
    ]
    assert app.call("reload").code == 0
    app.write("Procfile", f"{TWO}# new\n")
    run.wait_notice("^Procfile has changed")
    (app.root / "Procfile").unlink()
    assert len(own_files(run)) == 5
    run.wait_notice("^Procfile is gone, and `procman reload` needs it$")


def test_a_change_before_anybody_looked_and_one_taken_back(app: App) -> None:
    app(dotenv="A=1\n")
    run = app(TWO).start()
    run.wait_for("started", "web.1")
    app.write(".env", "A=2\n")  # inotify comes a moment later
    run.wait_notice(r"^\.env has changed")
    app.write(".env", "A=1\n")
    app.write("Procfile", f"{TWO}# new\n")
    run.wait_notice("^Procfile has changed")
    app.write(".env", "A=2\n")
    run.wait_until(lambda: len(own_files(run)) == 3, "third line")
    assert own_files(run)[2].startswith(".env has changed")


def test_a_file_that_cannot_be_read_now(app: App) -> None:
    run = started(app)
    app.write("procman.toml", "grace = 1\n")
    run.wait_notice("^procman.toml has changed")
    os.mkfifo(app.root / "new")
    os.replace(app.root / "new", app.root / "Procfile")
    run.wait_notice("^Procfile has changed, and cannot be read now: no regular file$")


def test_a_link_to_a_file_elsewhere(app: App) -> None:
    app.write("shared/env", "A=1\n")
    (app.root / ".env").symlink_to("shared/env")
    run = started(app)
    app.write("procman.toml", "grace = 1\n")
    run.wait_notice("^procman.toml has changed")  # so the others are looked at by now
    app.write("shared/env", "A=2\n")
    run.wait_notice(r"^\.env has changed")
    assert app.call("reload").code == 0
    app.write("shared/new", "A=3\n")
    (app.root / "link").symlink_to("shared/new")
    os.replace(app.root / "link", app.root / ".env")
    run.wait_until(lambda: len(own_files(run)) == 3, "third line")


# --- with the rest ---


def test_patterns_to_watch_that_come_and_go(app: App) -> None:
    run = started(app)
    app(procman__toml='[process.web]\nwatch = ["*.py"]\n')
    assert app.call("reload").text == "web.1 goes on with new settings\n"  # its end is no end for the run any more
    run.wait_notice("^watching files for web")
    app.write("a.py", "")
    second_pid(run, "web.1")
    app(procman__toml='[process.worker]\nwatch = ["*.py"]\n')
    asked = app.call("reload")
    assert (asked.code, asked.err_text) == (0, "watch counts from now on\n")
    run.wait_notice("^watching files for worker")
    app.write("a.py", "new")
    second_pid(run, "worker.1")
    assert count(run, "started", "web.1") == 2


def test_in_the_background(app: App) -> None:
    app(f"web: {PRINTS_A}\n", dotenv="A=1\n")
    assert app.call("start", "--detach", "-p", str(app.port)).code == 0
    app(dotenv="A=2\n")
    assert app.call("reload").code == 0
    app.procman("logs", "-f").wait_line("A=2")
    assert app.call("quit").code == 0


def test_nobody_to_ask(app: App) -> None:
    asked = app(TWO).call("reload")
    assert asked.code == 69
    assert "no procman runs here" in asked.err_text


def test_the_answer_of_the_protocol(app: App) -> None:
    started(app)
    app(f"web: exec sleep 1001\nclock: {SLEEP}\n", procman__toml="grace = 9\n")
    code = (
        "import json, socket, sys, glob\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(glob.glob('*.sock')[0])\n"
        "s.sendall(b'{\"do\": \"reload\"}\\n')\n"
        "print(s.makefile().read())\n"
    )
    asked = app.spawn([sys.executable, "-c", code], cwd=app.root / ".procman")
    assert asked.wait() == 0, asked.err_text
    reply = json.loads(asked.lines[1])
    lists = {key: reply[key] for key in ("started", "restarted", "stopped", "adjusted", "kept", "notes")}
    empty = {"stopped": ["worker.1"], "adjusted": [], "kept": [], "notes": []}
    assert lists == {"started": ["clock.1"], "restarted": ["web.1"], **empty}
    assert [instance["name"] for instance in reply["instances"]] == ["web.1", "clock.1"]


# --- what is not there yet ---


def test_one_that_waits_for_what_it_does_not_need_any_more(app: App) -> None:
    nobody = f"U=tcp://127.0.0.1:{app.port + 9}\n"
    needs = '[process.web]\nneeds = ["U"]\n'
    run = app(TWO, dotenv=nobody, procman__toml=needs).start()
    run.wait_notice("waiting for U")
    app(procman__toml="")
    asked = app.call("reload")
    assert (asked.code, asked.text) == (0, "web.1 goes on with new settings\n")
    run.wait_for("ready", "web.1")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


def test_how_long_a_service_is_waited_for(app: App) -> None:
    needs = '[process.web]\nneeds = ["U"]\n'
    run = app(TWO, dotenv=f"U=tcp://127.0.0.1:{app.port + 9}\n", procman__toml=f'needs_within = "inf"\n{needs}').start()
    run.wait_notice("waiting for U")
    app(procman__toml=f'needs_within = "100ms"\n{needs}')
    asked = app.call("reload")
    assert asked.err_text.startswith("needs_within counts from now on\n")
    run.wait_notice(r"web\.1 cannot start: U \(.*\) did not answer within 0\.1 s")
    assert run.wait() == 75


def test_one_whose_service_does_not_answer(app: App) -> None:
    needs = 'needs_within = "100ms"\n[process.web]\nneeds = ["U"]\non_exit = "ignore"\n'
    app(dotenv=f"U=tcp://127.0.0.1:{app.port + 9}\n")
    started(app)
    app(procman__toml=needs)
    assert app.call("reload").code == 0
    asked = app.call("restart", "web")
    assert asked.code == 1
    why = r"cannot start: U \(TCP at .*\) did not answer within 0\.1 s: connection refused"
    assert re.fullmatch(rf"web\.1 did not come up: {why}\n", asked.err_text)


def test_one_that_waits_for_a_service_at_a_wrong_address(app: App) -> None:
    needs = 'needs_within = "inf"\n[process.web]\nneeds = ["U", "db"]\n'
    procfile = f"web: {PRINTS_A}\ndb: {SLEEP}\n"
    run = app(procfile, dotenv=f"U=tcp://127.0.0.1:{app.port + 9}\n", procman__toml=needs).start()
    run.wait_notice("waiting for U")
    with socket.create_server(("127.0.0.1", 0)) as server:
        app(dotenv=f"U=tcp://127.0.0.1:{server.getsockname()[1]}\nA=new\n")
        assert app.call("reload").code == 0
        run.wait_output("A=new", "web.1")
    assert count(run, "started", "web.1") == 1
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


def test_a_new_liveness_probe_counts_at_once(app: App) -> None:
    run = started(app)
    web, worker = run.pid_of("web.1"), run.pid_of("worker.1")
    app(procman__toml='[process.web]\nliveness = { command = "exit 3", every = "50ms", failures = 2 }\n')
    asked = app.call("reload")
    assert (asked.code, asked.text) == (0, "web.1 goes on with new settings\n")
    run.wait_notice("is not healthy: its command exited with 3")
    app(procman__toml="")  # and one that is gone does no more
    assert app.call("reload").code == 0
    assert second_pid(run, "web.1") != web
    assert run.pid_of("worker.1") == worker
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
