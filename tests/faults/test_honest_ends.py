"""Every end tells the truth: the code of docs/exit-codes.md, one clear line, everything else stopped, no traceback."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.helpers import (
    IS_ROOT,
    assert_numbered,
    can,
    cgroup,
    child,
    has_cgroup,
    last_word,
    no_traceback,
    payload,
    shell_start,
    start_argv,
    stat_of,
    wait_until,
)
from tests.support.app import App, Run

AT_ONCE = 8  # so many runs at a time
IGNORED = (17, 18, 23, 28)  # CHLD, CONT, URG, WINCH, by default (signal(7))
OF_THE_C_LIBRARY = (32, 33)  # ignored, as glibc's posix_spawn leaves them; another library may end by them
STOPPING = (19, 20, 21, 22)
KILLERS = [n for n in range(1, 65) if n not in (*IGNORED, *OF_THE_C_LIBRARY, *STOPPING)]


def assert_one_line(run: Run, *words: str) -> str:
    """One line on stderr that says these words, and no sign of a bug."""
    no_traceback(run)
    lines = run.err_text.splitlines()
    assert len(lines) == 1, run.failure("not one line")
    for word in words:
        assert word.lower() in lines[0].lower(), run.failure(f"no {word!r}")
    return lines[0]


def assert_end(app: App, run: Run, code: int) -> None:
    assert run.wait() == code, run.failure(f"not {code}")
    no_traceback(run)
    assert app.survivors() == {}


# --- codes and signals of children -----------------------------------------------------------------------------------

def ends(app: App, procfile: str, values: list[int]) -> Iterator[tuple[int, int, str]]:
    """Run `procman start` with each value as VALUE; yield the value, procman's code and what it wrote."""
    for value in values:
        app.write(f"{value}/Procfile", procfile)  # one each, for beside one Procfile a process type runs once
    for at in range(0, len(values), AT_ONCE):
        batch = {
            value: subprocess.Popen(
                start_argv(app, "--no-timestamp", "--no-port", "-f", f"{value}/Procfile", "-d", "."),
                cwd=app.root,
                env={**app.env, "VALUE": str(value)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for value in values[at : at + AT_ONCE]
        }
        for value, popen in batch.items():
            out, _ = popen.communicate(timeout=60)
            yield value, popen.returncode, out.decode()


@pytest.mark.parametrize("part", range(8))
def test_every_exit_code(app: App, part: int) -> None:
    for value, code, text in ends(app, "web: exit $VALUE", list(range(part * 32, part * 32 + 32))):
        assert code == value, text
        lines = text.splitlines()
        assert f"web.1  | exited with code {value}" in lines
        assert lines[-1] == f"system | web.1 exited with code {value}; nothing is left running"
        assert "Traceback" not in text


@pytest.mark.parametrize("part", range(2))
def test_every_signal(app: App, part: int) -> None:
    for value, code, text in ends(app, "web: ulimit -c 0; kill -$VALUE $$; sleep 60", KILLERS[part::2]):
        assert code == 128 + value, text
        try:
            name = signal.Signals(value).name
        except ValueError:
            name = f"signal {value}"
        assert f"web.1  | terminated by {name}" in text
        assert text.splitlines()[-1] == f"system | web.1 was terminated by {name}; nothing is left running"


def test_every_signal_that_ends_nothing(app: App) -> None:
    values = [*IGNORED, *OF_THE_C_LIBRARY]
    for value, code, text in ends(app, "web: kill -$VALUE $$; exit 5", values):
        assert code == 5 or (value in OF_THE_C_LIBRARY and code == 128 + value), text
        assert text.splitlines()[-1].endswith("; nothing is left running")


@pytest.mark.parametrize("signum", STOPPING)
def test_every_signal_that_stops(app: App, signum: int) -> None:
    """No end at all: the run goes on, and its end is in time."""
    app("web: exec sleep 1000\nother: echo marker; exit 4")
    run = app.start("--can-die", "other", "-t", "1000")
    run.wait_for("exited", "other.1", code=4)
    pid = run.pid_of("web.1")
    os.kill(pid, signum)
    # One in a session of its own has nobody who could continue it: only SIGSTOP stops it (setpgid(2), orphaned group).
    wait_until(lambda: stat_of(pid)[0] == ("T" if signum == signal.SIGSTOP else "S"), "a stop")
    run.signal(signal.SIGTERM)
    assert_end(app, run, 0)
    assert run.wait_for("exited", "web.1").signum == signal.SIGTERM


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM", "SIGUSR1"])
def test_signal_from_outside(app: App, name: str) -> None:
    """To a program of its own, no shell in between; and below a shell, which reports it as a code."""
    signum = getattr(signal, name)
    app("web: exec sleep 1000\nother: exec sleep 1000")
    run = app.start("web=1", "other=1")
    run.wait_for("ready", "other.1")
    os.kill(run.pid_of("web.1"), signum)
    assert_end(app, run, 128 + signum)
    assert last_word(run) == f"web.1 was terminated by {name}; nothing is left running"
    app(f"web: sh -c 'kill -{signum:d} $$'; exit $?")
    run = app.start()
    assert_end(app, run, 128 + signum)
    assert last_word(run) == f"web.1 exited with code {128 + signum}; nothing is left running"


def test_code_of_the_first_decides(app: App) -> None:
    gate = app.fifo()
    app(f"web: read x < {gate}; exit 7\nother: {app.child('term_slow', 9)}\nthird: {app.child('term_ignore')}")
    run = app.start("-t", "0.3")
    run.wait_output("up", "other.1")
    run.wait_output("ignoring", "third.1")
    gate.send()
    assert_end(app, run, 7)  # not 9 of the other, not 1 for what had to be killed
    assert [event.code for event in run.events if event.is_("exited")] == [7, 9, 137]


def test_clean_exit_of_the_first_and_a_kill(app: App) -> None:
    gate = app.fifo()
    app(f"web: read x < {gate}; exit 0\nthird: {app.child('term_ignore')}")
    run = app.start("-t", "0.3")
    run.wait_output("ignoring", "third.1")
    gate.send()
    assert_end(app, run, 1)


def test_stop_by_signal_is_no_failure_of_the_children(app: App) -> None:
    app(f"web: {app.child('term_slow', 9)}")
    run = app.start()
    run.wait_output("up", "web.1")
    run.signal(signal.SIGTERM)
    assert_end(app, run, 0)


# --- what cannot be started ------------------------------------------------------------------------------------------

def with_neighbour(app: App, line: str, **kwargs) -> App:
    return app(f"other: exec sleep 1000\nweb: {line}", **kwargs)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("nosuchprogram --x", 127),
        ("/no/such/file", 127),
        ("./plain.txt", 126),
        ("./directory", 126),
        ("VAR=1 nosuchprogram", 127),
        ("./bad-interpreter", 127),
    ],
)
def test_command_that_cannot_run(app: App, command: str, code: int) -> None:
    with_neighbour(app, command)
    app.write("plain.txt", "hello\n")
    app.write("bad-interpreter", "#!/no/such/interpreter\n", mode=0o755)
    (app.root / "directory").mkdir()
    run = app.start()
    assert_end(app, run, code)
    assert len(run.output_of("web.1")) == 1  # the shell's own words
    assert run.err == b""
    assert last_word(run) == f"web.1 exited with code {code}; nothing is left running"


@pytest.mark.skipif(not (IS_ROOT and can("unshare", "-m", "true")), reason="no mount namespaces here")
@pytest.mark.parametrize(("over", "code"), [("plain.txt", 126), ("bad-interpreter", 127)])
def test_system_without_a_shell(app: App, over: str, code: int) -> None:
    """The kernel refuses even /bin/sh: told by procman itself, with the codes of a shell."""
    app("web: exec sleep 1000\nother: exec sleep 1000")
    app.write("plain.txt", "hello\n")
    app.write("bad-interpreter", "#!/no/such/interpreter\n", mode=0o755)
    argv = shell_start(app, f"mount --bind {over} /bin/sh", "--no-timestamp", "--no-port")
    run = app.spawn(["unshare", "-m", *argv])
    assert_end(app, run, code)
    lines = [line for line in run.lines if "cannot start" in line]
    reason = os.strerror(errno.EACCES if code == 126 else errno.ENOENT).lower()
    assert lines == [f"web.1   | Procfile:1: web.1 cannot start: {reason} — it is /bin/sh that cannot be executed"]


def test_too_many_open_files(app: App) -> None:
    """Whatever the limit, there is a line and a code, and never a traceback."""
    app("web: exec sleep 1000")
    codes = {}
    for limit in (*range(5, 32, 2), 40):
        run = app.spawn(shell_start(app, f"ulimit -n {limit}", "web=60", "--no-port"))
        run.wait()
        said = run.err_text + run.text
        assert app.survivors() == {}, (limit, said)
        assert "Traceback" not in said, (limit, said)
        assert "a bug of ours" not in said, (limit, said)
        assert "too many open files" in said.lower(), (limit, said)
        codes[limit] = run.code
    assert set(codes.values()) == {71}, codes


def test_too_many_open_files_stops_what_runs(app: App) -> None:
    app("web: exec sleep 1000")
    run = app.spawn(shell_start(app, "ulimit -n 40", "web=60", "--no-port", "--no-timestamp"))
    assert_end(app, run, 71)
    assert run.text.count("started with pid") >= 10
    first = next(line for line in run.lines if "cannot start" in line)
    assert "too many open files" in first
    assert "ulimit -n" in first
    assert run.lines[-2].endswith("nothing is left running")


def test_soft_limit_of_open_files_is_not_the_end(app: App) -> None:
    """Up to the hard limit procman helps itself; its children have the user's soft limit (kernel rule 11)."""
    app("web: ulimit -n; exec sleep 1000")
    run = app.spawn(shell_start(app, "ulimit -S -n 40", "web=60", "--no-port", "--sink", "jsonl:fd=1"))
    run.wait_line(r'"name": "web.60".*"line": "40"')
    run.signal(signal.SIGTERM)
    assert_end(app, run, 0)


@pytest.fixture
def few_pids(app: App) -> Iterator[Path]:
    if not has_cgroup("pids"):
        pytest.skip("no pids controller of cgroup v1 to write to")
    with cgroup("pids", app.token) as path:
        yield path


def start_in(app: App, group: Path, limit: int, *arguments: str) -> Run:
    (group / "pids.max").write_text(str(limit))
    return app.spawn(shell_start(app, f"echo $$ > {group}/cgroup.procs", *arguments))


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_fork_refused(app: App, few_pids: Path, limit: int) -> None:
    """With 1 not even the supervisor can be forked, with 2 no child, later some of them."""
    app("web: exec sleep 1000")
    run = start_in(app, few_pids, limit, "web=3", "--no-port", "--no-timestamp")
    assert_end(app, run, 71)
    said = run.err_text + run.text
    assert "ulimit -u" in said, said
    if limit == 1:
        assert_one_line(run, "ulimit -u")
    else:
        first = next(line for line in run.lines if "cannot start" in line)
        assert first.startswith(f"web.{limit - 1} "), run.text
        assert run.lines[-2].endswith("nothing is left running")


def test_argument_list_too_long(app: App) -> None:
    """Each value is allowed, all together are not: a quarter of the stack limit (execve(2))."""
    names = [f"BIG{number}" for number in range(40)]
    with_neighbour(app, "exec sleep 1000", dotenv="".join(f"{name}={'x' * 100_000}\n" for name in names))
    run = app.start("--no-timestamp")
    assert_end(app, run, 71)
    line = next(line for line in run.lines if "cannot start" in line)
    assert "argument list too long" in line
    assert "too long together" in line
    assert "xxx" not in run.text  # values are secrets


def test_one_value_too_long(app: App) -> None:
    with_neighbour(app, "exec sleep 1000", dotenv=f"BIG={'x' * 200_000}\n")
    run = app.start()
    assert_end(app, run, 78)
    assert_one_line(run, ".env:1", "BIG")
    assert "xxx" not in run.err_text


def test_spawn_failure_later_in_the_run(app: App, few_pids: Path) -> None:
    """A restart that the kernel refuses is a failure like others: told, tried again, and the rest runs on."""
    gate = app.fifo()
    app(f"web: echo here; read x < {gate}; exit 1\nother: exec sleep 1000")
    run = start_in(app, few_pids, 4, "--no-port", "--no-timestamp", "--restart", "web")
    run.wait_line(r"^web\.1 +\| here")
    (few_pids / "pids.max").write_text("2")
    gate.send()
    run.wait_line(r"^web\.1 +\|.*cannot start.*ulimit -u")
    (few_pids / "pids.max").write_text("10")
    run.wait_until(lambda: run.out.count(b"| here") == 2, "second start")
    run.signal(signal.SIGTERM)
    assert_end(app, run, 0)


# --- files and directories -------------------------------------------------------------------------------------------

# Root reads everything, unless it gives up the capability to.
NO_OVERRIDE = ("setpriv", "--inh-caps=-dac_override,-dac_read_search",
               "--bounding-set=-dac_override,-dac_read_search") if IS_ROOT else ()  # fmt: skip
needs_rights = pytest.mark.skipif(IS_ROOT and not can(*NO_OVERRIDE, "true"), reason="root sees everything here")


@needs_rights
@pytest.mark.parametrize("name", [".env", "Procfile"])
def test_unreadable_file(app: App, name: str) -> None:
    app("web: exec sleep 1000", dotenv="A=1\n")
    (app.root / name).chmod(0)
    run = app.spawn([*NO_OVERRIDE, *start_argv(app)])
    assert_end(app, run, 66)
    assert_one_line(run, name, "permission denied")
    assert run.out == b""


@pytest.mark.parametrize("name", [".env", "Procfile"])
def test_directory_instead_of_a_file(app: App, name: str) -> None:
    app("web: exec sleep 1000", dotenv="A=1\n")
    (app.root / name).unlink()
    (app.root / name).mkdir()
    run = app.start()
    assert_end(app, run, 66)
    assert_one_line(run, name, "is a directory")
    assert run.out == b""


@pytest.mark.parametrize("name", ["nowhere", "file", "file/below"])
def test_root_that_is_no_directory(app: App, name: str) -> None:
    app("web: exec sleep 1000").write("file", "")
    run = app.start("-f", "Procfile", "-d", name)
    assert_end(app, run, 66)
    assert_one_line(run, name)


@needs_rights
def test_root_that_may_not_be_entered(app: App) -> None:
    app("web: exec sleep 1000")
    (app.root / "closed").mkdir(mode=0o400)
    run = app.spawn([*NO_OVERRIDE, *start_argv(app, "-f", "Procfile", "-d", "closed")])
    assert_end(app, run, 66)
    assert_one_line(run, "closed", "permission denied")


def test_working_directory_that_is_gone(app: App) -> None:
    app("web: exec sleep 1000")
    run = app.spawn(shell_start(app, "mkdir gone && cd gone && rmdir ../gone", "-f", str(app.root / "Procfile")))
    run.wait_line("started with pid")  # the processes run beside the Procfile
    run.signal(signal.SIGTERM)
    assert_end(app, run, 0)
    run = app.spawn(shell_start(app, "mkdir gone && cd gone && rmdir ../gone"))
    assert_end(app, run, 66)
    assert_one_line(run)


# --- sinks that fail -------------------------------------------------------------------------------------------------

def test_stdout_on_a_full_disk(app: App) -> None:
    with_neighbour(app, "while :; do echo line; done")
    run = app.spawn(shell_start(app, "", after="> /dev/full"))
    assert_end(app, run, 1)
    assert_one_line(run, "stdout", "no space left on device")


def test_events_on_a_full_disk(app: App) -> None:
    """The run is not what failed, but its record is: told once, and the code says so, unless it has more to say."""
    app("web: echo hello; exit 0")
    run = app.spawn(start_argv(app, "--sink", "jsonl:/dev/full"))
    assert_end(app, run, 1)
    assert_told_once(run, "/dev/full", "no space left on device")
    assert "hello" in run.text
    app("web: echo hello; exit 5")
    run = app.spawn(start_argv(app, "--sink", "jsonl:/dev/full"))
    assert_end(app, run, 5)


def assert_told_once(run: Run, *words: str) -> None:
    lines = [line for line in (run.err_text + run.text).splitlines() if all(word in line.lower() for word in words)]
    assert len(lines) == 1, run.failure("not one line")


@pytest.mark.skipif(not (IS_ROOT and can("unshare", "-m", "true")), reason="no mount namespaces here")
def test_events_on_a_small_disk(app: App) -> None:
    """The run goes on to its own end, the console has it all, and what fitted is lines of a file that ends."""
    app(f"web: {child(app, 'spout', 20_000)}\nother: exec sleep 1000")
    (app.root / "disk").mkdir()
    argv = shlex.join(start_argv(app, "--no-timestamp", "--sink", "jsonl:disk/log"))
    script = f"mount -t tmpfs -o size=64k none disk; {argv}; code=$?; cp disk/log kept; exit $code"
    run = app.spawn(["unshare", "-m", "/bin/sh", "-c", script])
    assert_end(app, run, 1)
    assert_told_once(run, "disk/log", "no space left on device")
    assert_numbered(payload(run, "web.1"), 20_000)
    *whole, cut = (app.root / "kept").read_bytes().split(b"\n")
    lines = [event["line"] for event in map(json.loads, whole) if event["event"] == "output"]
    assert lines == [f"line {number}" for number in range(len(lines))]
    assert len(lines) > 100
    assert not cut or not cut.endswith(b"}")


@pytest.mark.skipif(not (IS_ROOT and can("unshare", "-m", "true")), reason="no mount namespaces here")
def test_stdout_on_a_small_disk(app: App) -> None:
    """`procman start > log` until the disk is full: told, all stopped; what fitted is whole but for its end."""
    with_neighbour(app, child(app, "spout", 2_000_000_000))
    (app.root / "disk").mkdir()
    argv = shlex.join(start_argv(app, "--no-timestamp"))
    script = f"mount -t tmpfs -o size=64k none disk; {argv} >disk/log; code=$?; cp disk/log kept; exit $code"
    run = app.spawn(["unshare", "-m", "/bin/sh", "-c", script])
    assert_end(app, run, 1)
    assert_one_line(run, "stdout", "no space left on device")
    kept = re.findall(rb"(?m)^web\.1 +\| (line .*\n)", (app.root / "kept").read_bytes())
    assert assert_numbered(b"".join(kept)) > 100


def test_events_beyond_the_limit_of_file_size(app: App) -> None:
    app(f"web: {child(app, 'spout', 20_000)}")
    run = app.spawn(shell_start(app, "ulimit -f 8", "--no-timestamp", "--sink", "jsonl:log"))
    assert_end(app, run, 1)
    assert_told_once(run, "log", "file too large")


SINKS = {"jsonl:nowhere/log": 73, "jsonl:.": 73, "jsonl:fd=99": 73, "jsonl:/dev/full/x": 73} | dict.fromkeys(
    ("jsonl:fd=x", "jsonl:", "jsonl", "xml:log", "jsonl:fd=-1"), 2
)


@pytest.mark.parametrize("target", SINKS)
def test_sink_that_cannot_be_opened(app: App, target: str) -> None:
    """Refused before anything is started."""
    app("web: exec sleep 1000")
    run = app.spawn(start_argv(app, "--sink", target))
    run.wait()
    assert app.survivors() == {}
    no_traceback(run)
    assert run.code == SINKS[target]
    assert target.partition(":")[2].removeprefix("fd=") in run.err_text
    assert b"started with pid" not in run.out
    assert len(run.err_text.splitlines()) <= 4  # click's usage error has three


# --- locale and standard streams -------------------------------------------------------------------------------------

LOCALES = {
    "unknown": {"LC_ALL": "xx_YY.UTF-8"},
    "C": {"LC_ALL": "C"},
    "Latin-1": {"LANG": "de_DE.ISO-8859-1", "LC_ALL": None},
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "streams": {"PYTHONIOENCODING": "ascii"},
}


@pytest.mark.parametrize("locale", LOCALES)
def test_broken_locale(app: App, locale: str) -> None:
    app("web: echo \"Grüße $NAME\"; printf '\\377\\n'; exit 4", dotenv="NAME=Łódź\n")
    run = app.spawn(start_argv(app, "--no-timestamp"), env=LOCALES[locale])
    assert_end(app, run, 4)
    assert "web.1  | Grüße Łódź\n".encode() in run.out
    assert b"web.1  | \xff\n" in run.out
    assert run.err == b""


@pytest.mark.parametrize("locale", LOCALES)
def test_error_messages_in_a_broken_locale(app: App, locale: str) -> None:
    app("wéb: echo\nweb echo Grüße\n")
    run = app.spawn(start_argv(app), env=LOCALES[locale])
    assert_end(app, run, 65)
    assert b"Procfile:" in run.err


CLOSED = ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"]


@pytest.mark.parametrize("closed", CLOSED)
def test_standard_streams_closed_at_the_start(app: App, closed: str) -> None:
    app(f"web: {child(app, 'inherited', 'state.json')}; echo line; exit 6")
    run = app.spawn(shell_start(app, "", "--sink", "jsonl:log", after=closed))
    assert_end(app, run, 6)
    log = (app.root / "log").read_text()
    assert '"line": "line"' in log
    assert "nothing is left running" in log
    state = (app.root / "state.json").read_text()
    assert state.count('"0": "/dev/null"') == 1
    if ">&-" not in closed.replace("2>&-", ""):
        assert b"| line\n" in run.out


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_errors_with_closed_streams(app: App, closed: str) -> None:
    app("web\n")
    run = app.spawn(shell_start(app, "", after=closed))
    assert_end(app, run, 65)


def test_bad_usage_is_told_in_a_few_lines(app: App) -> None:
    app("web: exec sleep 1000")
    for arguments in (["--nosuch"], ["-t", "x"], ["-t", "-1"], ["nosuch"], ["web=-1"], ["-p", "0"], ["--restart"]):
        run = app.spawn(start_argv(app, *arguments))
        assert run.wait() == 2, run.failure(str(arguments))
        no_traceback(run)
        assert 1 <= len(run.err_text.splitlines()) <= 4, run.failure(str(arguments))
        assert run.out == b""


def test_environment_that_is_not_text(app: App) -> None:
    """A caller's variable that is no UTF-8 reaches the children byte for byte."""
    app("web: printf '%s\\n' \"$ODD\"; exit 3")
    argv = shell_start(app, r"ODD=$(printf 'a\377b'); export ODD", "--no-timestamp")
    run = app.spawn(argv, env={"LC_ALL": os.environ.get("LC_ALL", "C.UTF-8")})
    assert_end(app, run, 3)
    assert b"| a\xffb\n" in run.out
