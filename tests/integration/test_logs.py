"""`procman logs` against real runs."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.support.app import PYTHON, App, Run

SLEEP = "exec sleep 1000"


def started(app: App, procfile: str, *arguments: str, line: str = "ready") -> Run:
    run = app(procfile).start(*arguments)
    run.wait_output(line)
    return run


def texts(run: Run) -> list[str]:
    """Return the lines without time and name, and without those of procman itself."""
    lines = [line.split(" | ", 1) for line in run.lines if " | " in line]
    own = ("started with pid", "formation: ", "exited with", "terminated by")
    return [text for _, text in lines if not text.startswith(own)]


def numbers(app: App, count: int = 5) -> str:
    return f"web: for n in $(seq {count}); do echo line $n; done; echo ready; {SLEEP}\n"


def test_is_what_start_has_shown(app: App) -> None:
    run = started(app, f"web: echo one; echo two; echo ready; {SLEEP}\nlonger_name: {SLEEP}\n", "web=12", "longer_name")
    run.wait_until(lambda: run.text.count("ready") == 12, "all twelve")
    asked = app.call("logs")
    assert (asked.code, asked.err) == (0, b"")
    assert sorted(asked.lines) == sorted(run.lines)
    assert [line[:8] for line in asked.lines] == [*sorted(line[:8] for line in asked.lines if line), ""]


def test_one_instance_is_byte_for_byte_what_start_has_shown(app: App) -> None:
    program = r"import os; os.write(1, b'\xff\xfe\ttab\r\n\x1b[31mred\x1b[0m\n10%\r20%\nready\n')"
    run = started(app, f'web: {PYTHON} -c "{program}"; {SLEEP}\n')
    assert app.call("logs").out == run.out


def test_colours_and_filter_on_a_terminal_as_in_start(app: App) -> None:
    procfile = f"web: printf '\\033[31mred\\033[2J\\n'; echo ready; {SLEEP}\nworker: {SLEEP}\n"
    app(procfile)
    run = app.start(size=(24, 80))
    run.wait_screen("ready")
    asked = app.call("logs", "web", size=(24, 80))
    assert "\x1b[2J" not in asked.text
    lines = [line for line in run.lines if "web.1" in line]
    assert [line for line in asked.lines if line] == lines
    assert "\x1b[36m" in asked.text
    assert "\x1b[2J" in app.call("logs", "--raw", "web", size=(24, 80)).text
    assert "\x1b[36m" not in app.call("logs", "--no-color", "web", size=(24, 80)).text


def test_last_lines(app: App) -> None:
    started(app, numbers(app))
    asked = app.call("logs", "-n", "3")
    assert texts(asked) == ["line 4", "line 5", "ready"]
    assert app.call("logs", "-n", "0").out == b""
    assert texts(app.call("logs", "-n", "100")) == [*(f"line {n}" for n in range(1, 6)), "ready"]


def test_since(app: App) -> None:
    started(app, numbers(app))
    assert texts(app.call("logs", "--since", "1h"))[-1] == "ready"
    assert app.call("logs", "--since", "0").out == b""


def test_grep(app: App) -> None:
    started(app, numbers(app, 20))
    assert texts(app.call("logs", "--grep", "^line 1")) == ["line 1", *(f"line {n}" for n in range(10, 20))]
    assert texts(app.call("logs", "--grep", "1", "-n", "2")) == ["line 18", "line 19"]
    asked = app.call("logs", "--grep", "nothing like it")
    assert (asked.code, asked.out) == (0, b"")


@pytest.mark.parametrize("words", [("--grep", "("), ("-n", "-1"), ("-n", "x"), ("--since", "yesterday")])
def test_wrong_usage(app: App, words: tuple[str, ...]) -> None:
    assert app("web: true").call("logs", *words).code == 2


def test_names(app: App) -> None:
    run = app(f"web: echo $PS; {SLEEP}\nworker: echo $PS; {SLEEP}\n").start("web=2", "worker=2")
    for name in ("web.1", "web.2", "worker.1", "worker.2"):
        run.wait_output(name)
    assert sorted(texts(app.call("logs", "web", "worker.2"))) == ["web.1", "web.2", "worker.2"]
    asked = app.call("logs", "web.3")
    assert (asked.code, asked.err_text) == (2, '"web.3" does not run here — did you mean "web.2"?\n')


def test_look(app: App) -> None:
    started(app, f"web: echo ready; {SLEEP}\n")
    assert re.fullmatch(r"\d\d:\d\d:\d\d web\.1  \| ready\n", app.call("logs", "-n1").text)
    assert app.call("logs", "-n1", "--no-timestamp").text == "web.1  | ready\n"
    assert app.call("logs", "-n1", "--no-prefix").text == "ready\n"
    assert "\x1b[36m" in app.call("logs", "-n1", "--color", "always").text
    assert app.call("logs", "-n1", env={"PROCMAN_TIMESTAMP": "no"}).text == "web.1  | ready\n"


def test_prompt_is_shown(app: App) -> None:
    run = app(f"web: printf 'name? '; {SLEEP}\n").start()
    run.wait_line(r"name\? $")
    assert app.call("logs").text.endswith("web.1  | name? ")


def test_what_is_gone_from_what_is_kept_is_told(app: App) -> None:
    started(app, f"web: seq 30000; echo ready; {SLEEP}\n")
    lines = texts(app.call("logs"))
    assert re.fullmatch(r"web\.1: \d+ bytes of its output are missing here", lines[0])
    assert lines[-2:] == ["30000", "ready"]
    assert [int(line) for line in lines[1:-1]] == list(range(int(lines[1]), 30_001))


def test_two_supervisors_are_merged_by_time(app: App) -> None:
    """Three lines, each written when the one before has been seen."""
    gate, other = app.fifo("gate"), app.fifo("other")
    web = f"read x < {gate}; echo first; read x < {gate}; echo third; read x < {gate}; {SLEEP}"
    worker = f"read x < {other}; echo second; read x < {other}"
    first = app(f"web: {web}\nworker: {worker}\n").start("web")
    first.wait_for("ready", "web.1")
    second = app.start("worker")
    second.wait_for("ready", "worker.1")
    for fifo, run, line in ((gate, first, "first"), (other, second, "second"), (gate, first, "third")):
        fifo.send()
        run.wait_output(line)
    asked = app.call("logs", "--no-timestamp")
    assert [line for line in asked.lines if line.split()[-1:] in (["first"], ["second"], ["third"])] == [
        "web.1    | first",
        "worker.1 | second",
        "web.1    | third",
    ]


# --- following ---


def test_follow(app: App) -> None:
    gate = app.fifo()
    started(app, f"web: seq 5; echo ready; while read x < {gate}; do echo $x; done\n")
    asked = app.procman("logs", "-f", "-n", "2")
    asked.wait_line(r"\| ready$")
    gate.send("now\n")
    asked.wait_line(r"\| now$")
    asked.signal(signal.SIGINT)
    assert asked.wait() == 130
    assert texts(asked) == ["5", "ready", "now"]
    assert asked.err == b""


def test_follow_with_pattern(app: App) -> None:
    gate = app.fifo()
    started(app, f"web: echo ready; while read x < {gate}; do echo $x; done\n")
    asked = app.procman("logs", "-f", "--grep", "yes|ready")
    asked.wait_line(r"\| ready$")
    for word in ("no", "yes1", "no", "yes2"):
        gate.send(f"{word}\n")
        if word.startswith("yes"):
            asked.wait_line(rf"\| {word}$")
    asked.signal(signal.SIGINT)
    assert asked.wait() == 130
    assert texts(asked) == ["ready", "yes1", "yes2"]


def test_follow_ends_with_the_run(app: App) -> None:
    run = started(app, f"web: echo ready; {SLEEP}\n")
    asked = app.procman("logs", "-f")
    asked.wait_line(r"\| ready$")
    assert app.call("quit").code == 0
    assert (asked.wait(), asked.err) == (0, b"")
    assert asked.lines[-2].endswith("system | stopped by procman quit; nothing is left running")
    assert run.wait() == 0
    assert asked.out == run.out


def test_follow_of_a_run_that_is_killed(app: App) -> None:
    run = started(app, f"web: echo ready; {SLEEP}\n")
    asked = app.procman("logs", "-f")
    asked.wait_line(r"\| ready$")
    os.kill(run.supervisor_pid(), signal.SIGKILL)
    assert asked.wait() == 69
    assert "has gone away" in asked.err_text
    assert run.wait() == 70


def test_follow_on_a_terminal_until_ctrl_c(app: App) -> None:
    started(app, f"web: echo ready; {SLEEP}\n")
    asked = app.procman("logs", "-f", size=(10, 60))
    asked.wait_screen("ready")
    asked.type("\x03")
    assert asked.wait() == 130


@pytest.mark.parametrize("arguments", [(), ("-f",)])
def test_reader_that_leaves(app: App, arguments: tuple[str, ...]) -> None:
    run = started(app, f"web: seq 20000; echo ready; {SLEEP}\n")
    reader, writer = os.pipe()
    asked = app.procman("logs", *arguments, stdout=writer)
    os.close(writer)
    os.read(reader, 100)
    os.close(reader)
    assert (asked.wait(), asked.err) == (141, b"")
    assert run.code is None


def test_follow_without_output_notices_that_its_reader_left(app: App) -> None:
    started(app, f"web: echo ready; {SLEEP}\n")
    reader, writer = os.pipe()
    asked = app.procman("logs", "-f", "-n1", stdout=writer)
    os.close(writer)
    os.read(reader, 100)
    os.close(reader)
    assert (asked.wait(), asked.err) == (141, b"")


def test_follow_two_supervisors(app: App) -> None:
    gate, other = app.fifo("gate"), app.fifo("other")
    started(app, f"web: echo ready; while read x < {gate}; do echo $x; done\n"
                 f"worker: echo ready; while read x < {other}; do echo $x; done\n", "web")  # fmt: skip
    second = app.start("worker")
    second.wait_output("ready")
    asked = app.procman("logs", "-f", "--no-timestamp")
    asked.wait_line(r"worker\.1 \| ready$")
    for fifo, name, line in ((gate, "web.1   ", "a"), (other, "worker.1", "b"), (gate, "web.1   ", "c")):
        fifo.send(f"{line}\n")
        asked.wait_line(rf"^{re.escape(name)} \| {line}$")
    assert app.call("quit").code == 0
    assert asked.wait() == 0
    assert [line for line in texts(asked) if len(line) == 1] == ["a", "b", "c"]


def test_follow_runs_that_begin_later(app: App) -> None:
    """One that comes, and one that comes again."""
    started(app, f"web: echo ready; {SLEEP}\nlong-worker: echo hello; {SLEEP}\n", "web")
    asked = app.procman("logs", "-f", "--no-timestamp")
    only = app.procman("logs", "-f", "--no-timestamp", "web")
    for run in (asked, only):
        run.wait_line(r"\| ready$")
    for count in (1, 2):
        second = app.start("long-worker")
        asked.wait_until(lambda n=count: texts(asked).count("hello") == n, f"hello {count}")  # type: ignore[misc]
        assert asked.lines.count("long-worker.1 | hello") == count
        second.signal(signal.SIGTERM)
        second.wait()
    assert app.call("quit").code == 0
    assert (asked.wait(), asked.err) == (0, b"")
    assert (only.wait(), texts(only)[0], texts(only).count("hello")) == (0, "ready", 0)


def test_slow_reader_is_told_what_it_missed(app: App) -> None:
    """More than the supervisor keeps for it while nobody reads; the run itself goes on."""
    gate = app.fifo()
    run = app(f"web: echo ready; read x < {gate}; yes {'y' * 999} | head -n 10000; echo end; {SLEEP}\n").start()
    run.wait_output("ready")
    pipe = app.fifo("slow")
    asked = app.spawn(["sh", "-c", f"procman logs -f -n 1 | (head -n 1; read x < {pipe}; exec cat)"])
    asked.wait_line(r"\| ready$")
    gate.send()
    run.wait_output("end")
    pipe.send()
    assert app.call("quit").code == 0
    assert asked.wait() == 0
    lost = sum(int(found) for found in re.findall(r"web\.1: (\d+) bytes of its output are missing here", asked.text))
    shown = sum(len(line) + 1 for line in texts(asked) if re.fullmatch("y+|end", line))
    assert lost > 1_000_000
    assert lost + shown == 10_000 * 1000 + len("end\n")


def test_path_option_stands_before_the_command(app: App, tmp_path: Path) -> None:
    started(app, f"web: echo ready; {SLEEP}\n")
    for arguments in (("-f", str(app.root / "Procfile"), "logs"), ("logs", "--procfile", str(app.root / "Procfile"))):
        assert texts(app.call(*arguments, cwd=tmp_path)) == ["ready"]
