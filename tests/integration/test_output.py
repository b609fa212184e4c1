"""What comes out of a pipe, a file or a socket: contract F1 to F15, architecture 5.12, partial lines."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.app import App, Run

SLEEP = "exec sleep 1000"


def of(run: Run, name: str) -> list[bytes]:
    """Return what stands behind the prefix on the lines of `name`, without procman's own words."""
    lines = [re.match(rb"\d\d:\d\d:\d\d (\S+) *\| (.*)\Z", line, re.DOTALL) for line in run.out.split(b"\n")]
    own = re.compile(rb"started with pid \d+|exited with code \d+|terminated by \S+")
    return [line[2] for line in lines if line and line[1] == name.encode() and not own.fullmatch(line[2])]


def text_of(app: App, *words: str, name: str = "web") -> Run:
    """Run one instance that writes `words` (children/write.py) and ends."""
    run = app(f"{name}: {app.child('write', *words)}").start()
    assert run.wait() == 0
    return run


# --- the shape (F1, F2, F3, F15) ---


def test_shape_is_foremans(app: App) -> None:
    run = text_of(app, r"text\n")
    assert re.fullmatch(
        rb"(\d\d:\d\d:\d\d) system \| formation: web=1\n"
        rb"\d\d:\d\d:\d\d web\.1  \| started with pid \d+\n"
        rb"\d\d:\d\d:\d\d web\.1  \| text\n"
        rb"\d\d:\d\d:\d\d web\.1  \| exited with code 0\n"
        rb"\d\d:\d\d:\d\d system \| web\.1 exited with code 0; nothing is left running\n",
        run.out,
    )
    assert run.err == b""


def test_time_is_local(app: App) -> None:
    run = app("web: TZ=UTC date +%H:%M; TZ=XXX-5:30 date +%H:%M").start(env={"TZ": "XXX-5:30"})
    run.wait()
    _utc, local = of(run, "web.1")
    assert local in [line[:5] for line in run.out.split(b"\n")]


@pytest.mark.parametrize(
    ("types", "arguments", "width"),
    [
        ("a", ("a=1",), 6),
        ("abcd", ("abcd=1",), 6),  # abcd.1
        ("abcd", ("abcd=10",), 7),  # abcd.10
        ("a abcd", ("abcd=1", "a=10"), 7),  # the digits of the largest count, whosever it is: Foreman's rule
        ("a worker_two", ("a=1",), 12),  # so are the names of types that do not run
    ],
)
def test_width_of_the_name(app: App, types: str, arguments: tuple[str, ...], width: int) -> None:
    run = app("".join(f"{name}: true\n" for name in types.split())).start(*arguments, "--on-exit", "ignore")
    assert run.wait() == 0
    assert {line.index(b"|") for line in run.out.splitlines()} == {9 + width + 1}


def test_no_timestamp(app: App) -> None:
    run = app("web: echo text").start("--no-timestamp")
    run.wait()
    assert b"web.1  | text\n" in run.out
    assert re.search(rb"\d\d:\d\d:\d\d", run.out) is None


def test_no_prefix(app: App) -> None:
    run = app("web: echo text").start("--no-prefix")
    run.wait()
    assert b"\ntext\n" in run.out
    assert b"|" not in run.out


def test_quiet_hides_output_and_still_runs(app: App) -> None:
    run = app("web: echo hidden\nworker: echo shown").start("-q", "web", "--on-exit", "ignore")
    assert run.wait() == 0
    assert b"hidden" not in run.out
    assert of(run, "worker.1") == [b"shown"]
    assert run.output_of("web.1") == ["hidden"]


# --- bytes (F10, F11, F12) ---


def test_every_byte_passes(app: App) -> None:
    every = bytes(range(256))
    app.write("bytes", every + b"\n" + every[::-1] + b"\n")
    run = app("web: cat bytes").start()
    assert run.wait() == 0
    rest = run.out.partition(b"started with pid ")[2]
    rest = rest.partition(b"\n")[2]
    prefix = re.match(rb"\d\d:\d\d:\d\d web\.1  \| ", rest)
    assert prefix
    wanted = (every + b"\n" + every[::-1] + b"\n")[:-1].split(b"\n")
    assert rest.split(prefix[0])[1 : len(wanted) + 1] == [line + b"\n" for line in wanted]


def test_odd_bytes_in_events_are_u_fffd(app: App) -> None:
    run = text_of(app, r"\xff\xc3\xa4\x1b[0m\r\n")
    assert run.output_of("web.1") == ["\ufffdä\x1b[0m\r"]


def test_blank_lines_are_kept(app: App) -> None:
    assert of(text_of(app, r"\n\na\n\n  \nb\n\n"), "web.1") == [b"", b"", b"a", b"", b"  ", b"b", b""]


def test_carriage_returns_and_escapes_are_kept(app: App) -> None:
    run = text_of(app, r"10%\r20%\r\n", r"\x1b[2J\x1b[H\x1b]0;title\x07\x1b[31mred\n", r"next\n")
    assert of(run, "web.1") == [b"10%\r20%\r", b"\x1b[2J\x1b[H\x1b]0;title\x07\x1b[31mred", b"next"]


def test_stdout_and_stderr_keep_their_order(app: App) -> None:
    words = [f"{'2:' if number % 3 else ''}line {number}\\n" for number in range(200)]
    assert of(text_of(app, *words), "web.1") == [b"line %d" % number for number in range(200)]


# --- colour (F4 to F6) ---


def colours(run: Run) -> dict[bytes, set[bytes]]:
    found: dict[bytes, set[bytes]] = {}
    for start, name in re.findall(rb"^((?:\x1b\[[0-9;]*m)*)\d\d:\d\d:\d\d (\S+) *\| ", run.out, re.MULTILINE):
        found.setdefault(name, set()).add(start)
    return found


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        ((), {}),
        ((), {"FORCE_COLOR": "0"}),
        ((), {"FORCE_COLOR": ""}),
        (("--color", "never"), {"FORCE_COLOR": "1"}),
        (("--no-color",), {"FORCE_COLOR": "1"}),
        (("--no-colour",), {"FORCE_COLOR": "1"}),
        ((), {"FORCE_COLOR": "1", "NO_COLOR": "1"}),
        (("--colour", "auto"), {"NO_COLOR": "1"}),
    ],
)
def test_no_colour(app: App, arguments: tuple[str, ...], env: dict[str, str | None]) -> None:
    run = app("web: echo text").start(*arguments, env=env)
    run.wait()
    assert b"\x1b" not in run.out


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        ((), {"FORCE_COLOR": "1"}),
        ((), {"FORCE_COLOR": "3", "TERM": None}),
        ((), {"FORCE_COLOR": "1", "NO_COLOR": ""}),
        (("--color", "always"), {}),
        (("--colour", "always"), {"NO_COLOR": "1"}),
        (("--color", "always"), {"TERM": "dumb"}),
    ],
)
def test_colour_on_a_pipe_if_asked(app: App, arguments: tuple[str, ...], env: dict[str, str | None]) -> None:
    run = app("web: echo text").start(*arguments, env=env)
    run.wait()
    assert re.search(rb"^\x1b\[36m\d\d:\d\d:\d\d web\.1  \| \x1b\[0mtext$", run.out, re.MULTILINE)


def test_colour_is_by_type_in_the_order_of_the_procfile(app: App) -> None:
    names = [f"t{number}" for number in range(1, 15)]
    run = app("\n".join(f"{name}: true" for name in names)).start(
        "--color", "always", "--on-exit", "ignore", "t2=2", *(name for name in names if name not in ("t1", "t2"))
    )
    assert run.wait() == 0
    found = colours(run)
    assert all(len(starts) == 1 for starts in found.values())
    by_name = {name: next(iter(starts)) for name, starts in found.items()}
    assert by_name[b"system"] == b"\x1b[37m"
    assert by_name[b"t2.1"] == by_name[b"t2.2"] == b"\x1b[33m"  # yellow, though it is the first that runs
    plain = [b"\x1b[36m", b"\x1b[33m", b"\x1b[32m", b"\x1b[35m", b"\x1b[31m", b"\x1b[34m"]
    wanted = [*plain, *(colour + b"\x1b[1m" for colour in plain), *plain][: len(names)]
    assert [by_name[f"{name}.1".encode()] for name in names[1:]] == wanted[1:]


# --- partial lines (F8, F9) ---


def test_last_line_without_newline_comes_before_the_end(app: App) -> None:
    run = text_of(app, r"a\nno newline")
    assert of(run, "web.1") == [b"a", b"no newline"]
    assert [e["event"] for e in run.until("exited", "web.1")][-3:] == ["output", "output", "exited"]
    assert re.search(rb"\| no newline\n\S+ web\.1  \| exited with code 0\n", run.out)


def test_a_prompt_is_shown_after_a_second_of_silence(app: App) -> None:
    gate = app.fifo()
    asking = app.child("write", "name? ", f"<{gate.path}", r"thanks\n", "pause")
    run = app(f"web: {asking}").start()
    run.wait_line(r"web\.1  \| name\? $")
    event = run.wait_for("output", "web.1", partial=True)
    assert event.line == "name? "
    assert 0.9 <= event.at - run.wait_for("started", "web.1").at < 3
    gate.send()
    run.wait_line(r"web\.1  \| name\? thanks$")  # goes on where it stood
    run.signal(signal.SIGTERM)
    run.wait()
    assert of(run, "web.1") == [b"name? thanks"]


def test_a_prompt_is_closed_when_another_speaks(app: App) -> None:
    prompt, other = app.fifo("prompt"), app.fifo("other")
    asking = app.child("write", "name? ", f"<{prompt.path}", r"thanks\nbye\n", "pause")
    speaking = app.child("write", f"<{other.path}", r"hello\n", "pause")
    run = app(f"web: {asking}\nworker: {speaking}").start()
    run.wait_for("output", "web.1", partial=True)
    other.send()
    run.wait_line(r"worker\.1 \| hello$")
    prompt.send()
    run.wait_line(r"web\.1    \| bye$")
    run.signal(signal.SIGTERM)
    run.wait()
    assert of(run, "web.1") == [b"name? ", b"thanks", b"bye"]
    assert of(run, "worker.1") == [b"hello"]
    assert re.search(rb"name\? \n\S+ worker\.1 \| hello\n\S+ web\.1    \| thanks\n", run.out)


def test_halves_of_lines_from_four_writers_stay_whole(app: App) -> None:
    lines = 400
    app.write(
        "halves.py",
        "import os, sys\n"
        f"for number in range({lines}):\n"
        "    os.write(1, b'%s begin %d ' % (os.environb[b'PS'], number))\n"
        "    os.sched_yield()\n"
        "    os.write(1, b'end %d\\n' % number)\n",
    )
    run = app(f"web: {sys.executable} -S -E halves.py {app.token}").start("web=4", "--on-exit", "ignore")
    assert run.wait() == 0
    for instance in range(1, 5):
        name = f"web.{instance}"
        assert of(run, name) == [b"%s begin %d end %d" % (name.encode(), n, n) for n in range(lines)]


def test_a_long_line_is_whole_in_bounded_memory(app: App) -> None:
    size = 32 * 1024 * 1024
    gate = app.fifo()
    pieces = size // 65536
    app.write("long.py", f"import os\nfor _ in range({pieces}): os.write(1, b'x' * 65536)\nos.write(1, b'\\n')\n")
    command = f"{sys.executable} -S -E long.py {app.token}; read x < {gate}"
    other = app.child("write", *(f"other {number}\\n" for number in range(100)), "pause")
    app(f"web: {command}\nworker: {other}")
    # Without events: they hold a line of 10 MB as an object.
    run = app.procman("start", "-p", str(app.port))
    run.wait_until(lambda: len(run._out) > size, "long line")
    run.wait_line(r"worker\.1 \| other 99$")
    supervisor = next(int(pid) for pid in children_of(run.pid))
    peak_kb = int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{supervisor}/status").read_text())[1])  # type: ignore[index]
    gate.send()
    assert run.wait() == 0
    assert b"x" * size in of(run, "web.1")
    assert of(run, "worker.1") == [b"other %d" % number for number in range(100)]
    assert peak_kb < 40 * 1024


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


# --- nothing is lost ---


def test_a_flood_and_an_end_at_once_lose_nothing(app: App) -> None:
    run = app(f"web: {app.child('flood', 20_000, 3)}\nworker: {SLEEP}").start()
    assert run.wait() == 3
    assert of(run, "web.1") == [b"line %d" % number for number in range(20_000)]
    assert run.output_of("web.1") == [f"line {number}" for number in range(20_000)]


def test_two_floods_keep_the_order_of_each(app: App) -> None:
    run = app(f"web: {app.child('flood', 20_000)}").start("web=2", "--on-exit", "ignore")
    assert run.wait() == 0
    for name in ("web.1", "web.2"):
        assert of(run, name) == [b"line %d" % number for number in range(20_000)]


def test_a_slow_reader_loses_nothing(app: App) -> None:
    """Nobody reads until the child is blocked; procman holds back, and then gives all."""
    gate = app.fifo()
    reader, writer = os.pipe()
    app(f"web: {app.child('flood', 400_000)} ; echo flooded > {gate}")
    run = app.procman("start", "-p", str(app.port), stdout=writer)
    os.close(writer)
    received = bytearray()
    while b"line 200000\n" not in received[-200_000:]:
        received += os.read(reader, 65_536)
    run.follow(reader, run.take_out)
    assert gate.receive() == "flooded"
    assert run.wait() == 0
    lines = re.findall(rb"web\.1  \| line (\d+)\n", bytes(received) + run.out)
    assert lines == [b"%d" % number for number in range(400_000)]


# --- where stdout goes (5.12) ---


def test_head_ends_the_run_with_141_and_nothing_left(app: App) -> None:
    app(f"web: while :; do echo text || exit; done\nworker: {app.child('term_slow')}")
    procman = f"{sys.executable} -m procman start -p {app.port}"
    run = app.spawn(["bash", "-c", f"{procman} | head -1; echo ${{PIPESTATUS[0]}}"])
    assert run.wait() == 0
    assert run.lines[0].endswith("system   | formation: web=1, worker=1")
    assert run.lines[1] == "141"
    assert app.survivors() == {}


def test_a_reader_that_leaves_is_seen_in_silence(app: App) -> None:
    reader, writer = os.pipe()
    app(f"web: {SLEEP}")
    run = app.start(stdout=writer)
    os.close(writer)
    run.wait_for("ready", "web.1")
    os.close(reader)  # nothing is written any more, and yet
    assert run.wait() == 141
    assert "sending SIGTERM to all processes" in run.notices()


def test_stdout_closed(app: App) -> None:
    done = app.fifo()
    app(f"web: {app.child('state', 'state.json', 'exit')}; echo done > {done}")
    run = app.spawn(["sh", "-c", f"exec {sys.executable} -m procman start -p {app.port} >&-"])
    assert done.receive() == "done"
    assert run.wait() == 0
    assert run.err == b""


def test_all_three_closed(app: App) -> None:
    done = app.fifo()
    app(f"web: {app.child('state', 'state.json', 'exit')}; echo done > {done}")
    run = app.spawn(["sh", "-c", f"exec {sys.executable} -m procman start -p {app.port} <&- >&- 2>&-"])
    assert done.receive() == "done"
    assert run.wait() == 0


def test_stdout_a_regular_file(app: App, tmp_path: Path) -> None:
    app("web: echo text")
    with (tmp_path / "out").open("ab") as file:
        file.write(b"before\n")
        file.flush()
        run = app.start(stdout=file.fileno())
        assert run.wait() == 0
    lines = (tmp_path / "out").read_bytes().split(b"\n")
    assert lines[0] == b"before"
    assert lines[3].endswith(b"web.1  | text")


def test_stdout_dev_null(app: App) -> None:
    app("web: echo text")
    run = app.start(stdout=subprocess.DEVNULL)
    assert run.wait() == 0
    assert run.output_of("web.1") == ["text"]


def test_stdout_a_socket(app: App) -> None:
    ours, theirs = socket.socketpair()
    app(f"web: {app.child('flood', 20_000)}")
    run = app.start(stdout=theirs.fileno())
    theirs.close()
    run.follow(ours.detach(), run.take_out)
    assert run.wait() == 0
    assert of(run, "web.1") == [b"line %d" % number for number in range(20_000)]


def test_stdout_a_socket_whose_reader_leaves(app: App) -> None:
    ours, theirs = socket.socketpair()
    app(f"web: {SLEEP}")
    run = app.start(stdout=theirs.fileno())
    theirs.close()
    run.wait_for("ready", "web.1")
    ours.close()
    assert run.wait() == 141


def test_a_full_disk_is_told(app: App) -> None:
    app(f"web: {SLEEP}")
    with Path("/dev/full").open("wb") as full:
        run = app.start(stdout=full.fileno())
        assert run.wait() == 1
    assert "stdout cannot be written: no space left on device" in run.err_text


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_the_callers_stdout_stays_blocking(app: App, tmp_path: Path, kind: str) -> None:
    reader, writer = os.pipe() if kind == "pipe" else (-1, os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT))
    run = app(f"web: {SLEEP}").start(stdout=writer)
    run.wait_for("ready", "web.1")
    run.wait_until(lambda: run.notices(), "notice")
    assert os.get_blocking(writer)
    run.signal(signal.SIGTERM)
    run.wait()
    for fd in (reader, writer):
        if fd >= 0:
            os.close(fd)


# --- events for machines (F14) ---


def test_events_into_a_file(app: App) -> None:
    app("web: printf 'one\\n\\ntwo'")
    run = app.call("start", "-p", str(app.port), "--sink", "jsonl:events.jsonl")
    assert run.code == 0
    run.take_events((app.root / "events.jsonl").read_bytes())
    assert (app.root / "events.jsonl").stat().st_mode & 0o777 == 0o600
    assert run.output_of("web.1") == ["one", "", "two"]
    assert run.wait_for("started", "web.1").port == app.port
    assert run.wait_for("exited", "web.1").code == 0
    assert all(isinstance(event.at, float) for event in run.events)


@pytest.mark.parametrize("sink", ["jsonl", "jsonl:", "xml:fd=3", "jsonl:fd=x", "jsonl:fd=77", "jsonl:/no/such/file"])
def test_a_sink_that_cannot_be_is_refused(app: App, sink: str) -> None:
    run = app("web: echo started > started").call("start", "--sink", sink)
    assert run.code in (1, 2, 66, 73, 78)
    assert run.err_text.strip()
    assert "bug" not in run.err_text
    assert not (app.root / "started").exists()
