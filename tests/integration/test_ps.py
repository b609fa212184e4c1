"""`procman ps` against real runs."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from tests.support.app import PYTHON, App, Run

FIELDS = {
    "name", "type", "instance", "state", "wanted", "pid", "port", "started_at", "restarts", "code", "command",
    "has_terminal", "waits_for", "uptime_s", "cpu_percent", "memory_bytes",
}  # fmt: skip
MB = 1_000_000


def ps_json(app: App, *arguments: str) -> list[dict[str, Any]]:
    run = app.call("ps", "--json", *arguments)
    assert (run.code, run.err) == (0, b""), run.err_text
    found: list[dict[str, Any]] = json.loads(run.text)
    return found


def started(app: App, procfile: str, *arguments: str, names: tuple[str, ...] = ("web.1",)) -> Run:
    run = app(procfile).start(*arguments)
    run.wait_all("ready", names)
    return run


def test_json_has_stable_names(app: App) -> None:
    run = started(
        app, "web: exec sleep 1000\nworker: exec sleep 1000\n", "web=2", "worker", names=("web.2", "worker.1")
    )
    instances = ps_json(app)
    assert [instance["name"] for instance in instances] == ["web.1", "web.2", "worker.1"]
    assert all(instance.keys() == FIELDS for instance in instances)
    second = instances[1]
    assert second["pid"] == run.pid_of("web.2")
    assert second["port"] == app.port + 1
    assert (second["state"], second["wanted"], second["restarts"], second["code"]) == ("ready", True, 0, None)
    assert second["command"] == "exec sleep 1000"
    assert 0 <= second["uptime_s"] < 60
    assert second["cpu_percent"] >= 0
    assert 100_000 < second["memory_bytes"] < 50 * MB


def test_table(app: App) -> None:
    run = started(app, "web: exec sleep 1000\n")
    asked = app.call("ps")
    assert asked.lines[0].split() == ["NAME", "STATE", "PID", "PORT", "UPTIME", "RESTARTS", "CPU%", "MEMORY", "COMMAND"]
    cells = asked.lines[1].split(maxsplit=8)
    assert cells[:4] == ["web.1", "ready", str(run.pid_of("web.1")), str(app.port)]
    assert cells[8] == "exec sleep 1000"
    assert asked.lines[2:] == [""]


def test_names_choose(app: App) -> None:
    started(app, "web: exec sleep 1000\nworker: exec sleep 1000\n", "web=2", "worker=2", names=("web.2", "worker.2"))
    assert [i["name"] for i in ps_json(app, "web.2", "worker")] == ["web.2", "worker.1", "worker.2"]


@pytest.mark.parametrize(("name", "hint"), [("wbe", 'did you mean "web"?'), ("web.3", 'did you mean "web.1"?')])
def test_unknown_name(app: App, name: str, hint: str) -> None:
    started(app, "web: exec sleep 1000\n")
    asked = app.call("ps", name)
    assert (asked.code, asked.out) == (2, b"")
    assert asked.err_text == f'"{name}" does not run here — {hint}\n'


def test_memory_of_the_whole_tree(app: App) -> None:
    """A child, an orphan in the session, and one that has left it, with 20 MB each; the leader is a shell."""
    program = app.write(
        "hold.py", "import os, sys, time\nheld = bytes([1]) * 20_000_000\nos.write(1, b'holds\\n')\ntime.sleep(1000)\n"
    )
    hold = f"{PYTHON} {program} {app.token}"
    run = started(app, f"web: {hold} & ({hold} &); (setsid {hold} &); wait; true\n")
    run.wait_until(lambda: run.output_of("web.1").count("holds") == 3, "three that hold memory")
    (instance,) = ps_json(app)
    assert 60 * MB < instance["memory_bytes"] < 200 * MB


def test_cpu_counts_children_that_have_ended(app: App) -> None:
    burn = f"{PYTHON} -c 'import time; [0 for x in iter(time.process_time, None) if x > 0.3 and exit()]'"
    run = started(app, f"web: {burn}; echo burnt; exec sleep 1000\n")
    run.wait_output("burnt")
    (instance,) = ps_json(app)
    assert instance["cpu_percent"] * instance["uptime_s"] / 100 >= 0.25


def test_what_has_ended(app: App) -> None:
    run = app("web: exec sleep 1000\ntask: exit 3\n").start("--can-die", "task")
    run.wait_for("exited", "task.1")
    task = ps_json(app)[1]
    assert (task["state"], task["code"], task["pid"], task["uptime_s"]) == ("failed", 3, None, None) or (
        task["state"], task["code"], task["pid"], task["uptime_s"]) == ("exited", 3, None, None)  # fmt: skip
    assert (task["cpu_percent"], task["memory_bytes"]) == (None, None)
    assert app.call("ps", "task").lines[1].split()[1:4] == [task["state"], "3", "-"]


def test_nobody_runs(app: App) -> None:
    for arguments in (("ps",), ("ps", "--json"), ("ps", "--watch"), ("logs",), ("quit",), ("stop", "--all")):
        asked = app("web: true").call(*arguments)
        assert (asked.code, asked.out) == (69, b"")
        assert asked.err_text == (
            "no procman runs here — start one with `procman start`; -f or -d names another directory\n"
        )


def test_from_elsewhere(app: App) -> None:
    started(app, "web: exec sleep 1000\n")
    elsewhere = app.root / "elsewhere"
    elsewhere.mkdir()
    for arguments in (("ps", "-d", ".."), ("-d", "..", "ps"), ("ps", "-f", "../Procfile"), ("-f", "../Procfile", "ps")):
        asked = app.call(*arguments, cwd=elsewhere)
        assert (asked.code, asked.lines[1][:12]) == (0, "web.1  ready")
    asked = app.call("ps", cwd=elsewhere)
    assert asked.code == 69


def test_no_file_is_read(app: App) -> None:
    started(app, "web: exec sleep 1000\n")
    app(dotenv="not a line\n", procman__toml="neither = [\n", Procfile="nor this\n")
    assert app.call("ps").code == 0


def test_two_supervisors(app: App) -> None:
    first = app("web: exec sleep 1000\nworker: exec sleep 1000\n").start("web")
    first.wait_for("ready", "web.1")
    second = app.start("worker")
    second.wait_for("ready", "worker.1")
    assert [instance["pid"] for instance in ps_json(app)] == [first.pid_of("web.1"), second.pid_of("worker.1")]


def test_suspended_supervisor(app: App) -> None:
    first = app("web: exec sleep 1000\nworker: exec sleep 1000\n").start("web")
    first.wait_for("ready", "web.1")
    second = app.start("worker")
    second.wait_for("ready", "worker.1")
    supervisor_pid = second.supervisor_pid()
    os.kill(supervisor_pid, signal.SIGSTOP)
    try:
        asked = app.call("ps")
        assert asked.code == 1
        assert [line.split()[0] for line in asked.lines[1:-1]] == ["web.1"]
        assert asked.err_text.endswith("does not answer — is it suspended (Ctrl-Z)?\n")
        assert app.call("stop", "worker").code == 69
    finally:
        os.kill(supervisor_pid, signal.SIGCONT)


# --- the look ---


@pytest.mark.parametrize("columns", [24, 40, 60, 80])
def test_fits_the_terminal(app: App, columns: int) -> None:
    started(app, f"web: exec sleep 1000 # {'long ' * 50}\n")
    asked = app.procman("ps", size=(10, columns))
    assert asked.wait() == 0
    lines = asked.text.replace("\x1b[32m", "").replace("\x1b[0m", "").split("\r\n")
    assert all(len(line) <= columns for line in lines)
    assert [line.split()[0] for line in asked.screen_lines[:2]] == ["NAME", "web.1"]
    assert asked.screen_lines[2] == ""
    assert ("…" in asked.text) == (columns >= 60)


def test_pipe_gets_the_whole_command(app: App) -> None:
    command = f"exec sleep 1000 # {'long ' * 50}".rstrip()
    started(app, f"web: {command}\n")
    assert app.call("ps").lines[1].endswith(command)
    assert len(app.call("ps", env={"COLUMNS": "70"}).lines[1]) == 70


def test_colour_follows_the_rules_of_start(app: App) -> None:
    started(app, "web: exec sleep 1000\n")

    def has_colour(*arguments: str, size: tuple[int, int] | None = None, **env: str) -> bool:
        return "\x1b[32mready" in app.call("ps", *arguments, env=dict(env), size=size).text

    terminal = (10, 80)
    assert has_colour(size=terminal)
    assert not has_colour()
    assert has_colour(FORCE_COLOR="1")
    assert has_colour("--color", "always")
    assert has_colour(PROCMAN_COLOR="always")
    assert not has_colour(size=terminal, NO_COLOR="1")
    assert not has_colour("--no-color", size=terminal)
    assert not has_colour("--color", "never", FORCE_COLOR="1")
    assert not has_colour(size=terminal, TERM="dumb")


# --- again and again ---


def test_watch_redraws_in_place(app: App) -> None:
    run = started(app, "web: exec sleep 1000\nworker: exec sleep 1000\n", names=("web.1", "worker.1"))
    watch = app.procman("ps", "--watch", "0.1", size=(10, 80))
    watch.wait_screen(r"worker\.1 +ready")
    assert app.call("stop", "worker").code == 0
    watch.wait_screen(r"worker\.1 +stopped")
    assert app.call("quit").code == 0
    assert run.wait() == 0
    watch.wait_screen(r"\Ano procman runs here")
    assert "web.1" not in watch.screen_text
    again = app.start("web")
    again.wait_for("ready", "web.1")
    watch.wait_screen(rf"\ANAME.*\nweb\.1 +ready +{again.pid_of('web.1')} ")
    watch.type("\x03")
    assert watch.wait() == 130


def test_watch_waits_for_what_is_scaled_away(app: App) -> None:
    started(app, "web: exec sleep 1000\nworker: exec sleep 1000\n", "web=2", names=("web.2",))
    watch = app.procman("ps", "--watch", "0.1", "web.2", size=(10, 80))
    watch.wait_screen(r"web\.2 +ready")
    assert app.call("scale", "web=1").code == 0
    watch.wait_screen(r'\A"web\.2" does not run here')
    assert app.call("scale", "web=2").code == 0
    watch.wait_screen(r"web\.2 +ready")
    watch.type("\x03")
    assert watch.wait() == 130


def test_watch_shows_what_the_screen_holds(app: App) -> None:
    started(app, "web: exec sleep 1000\n", "web=9", names=("web.9",))
    watch = app.procman("ps", "--watch", "0.1", size=(6, 80))
    watch.wait_screen(r"… 6 more")
    watch.type("\x03")
    assert watch.wait() == 130
    assert watch.screen_lines[0].startswith("NAME")


def test_watch_on_a_pipe_prints_blocks(app: App) -> None:
    started(app, "web: exec sleep 1000\n")
    watch = app.procman("ps", "--watch", "0.1")
    watch.wait_until(lambda: watch.text.count("NAME") >= 3, "third block")
    watch.signal(signal.SIGINT)
    assert watch.wait() == 130
    assert "\x1b" not in watch.text
    blocks = watch.text.split("\n\n")[:-1]
    assert {block.split()[0] for block in blocks} == {"NAME"}


def test_watch_as_json_is_a_line_a_look(app: App) -> None:
    started(app, "web: exec sleep 1000\n")
    watch = app.procman("ps", "--json", "--watch", "0.1")
    watch.wait_until(lambda: watch.text.count("\n") >= 2, "second line")
    watch.signal(signal.SIGINT)
    assert watch.wait() == 130
    assert all(json.loads(line)[0].keys() == FIELDS for line in watch.lines[:2])


def test_watch_ends_with_its_reader(app: App) -> None:
    started(app, "web: exec sleep 1000\n")
    reader, writer = os.pipe()
    watch = app.procman("ps", "--watch", "0.1", stdout=writer)
    os.close(writer)
    os.read(reader, 10)
    os.close(reader)
    assert watch.wait() == 141
