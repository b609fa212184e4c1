"""`procman start`: which processes, where, with what environment (contract A1 to A4, B1 to B5, D2, E8 to E14, I1)."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.app import App, Run

THREE = "web: echo on $PORT\nworker: echo work\nclock: echo tick\n"
ON = ("--on-exit", "ignore")


def started(run: Run) -> list[str]:
    return [event.name for event in run.events if event.is_("started")]


def state_of(app: App, run: Run, file: str = "state.json", name: str = "web.1") -> dict[str, Any]:
    """Return what a child (children/state.py) was given."""
    run.wait_output("written", name)
    state: dict[str, Any] = json.loads((app.root / file).read_text())
    return state


# --- formation ---


@pytest.mark.parametrize(
    ("arguments", "formation"),
    [
        ((), "web=1, worker=1, clock=1"),
        (("web",), "web=1, worker=0, clock=0"),
        (("web=2", "worker"), "web=2, worker=1, clock=0"),
        (("clock", "web"), "web=1, worker=0, clock=1"),
        (("all=2",), "web=2, worker=2, clock=2"),
        (("all", "worker=2"), "web=1, worker=2, clock=1"),
        (("web=0", "worker"), "web=0, worker=1, clock=0"),
        (("-m", "web=2"), "web=2, worker=0, clock=0"),
        (("-m", "all=1,worker=2"), "web=1, worker=2, clock=1"),
        (("-m", "web=1, worker=2"), "web=1, worker=2, clock=0"),
        (("--formation", "all=2,web=0"), "web=0, worker=2, clock=2"),
        (("-c", "web=2"), "web=2, worker=1, clock=1"),
        (("-c", "all=0,web=2"), "web=2, worker=0, clock=0"),
        (("--concurrency", "clock=0"), "web=1, worker=1, clock=0"),
        (("-m", "web=2", "-c", "web=2"), "web=2, worker=0, clock=0"),
        (("-c", "web=2", "web"), "web=2, worker=0, clock=0"),
    ],
)
def test_formation(app: App, arguments: tuple[str, ...], formation: str) -> None:
    run = app(THREE).start(*arguments, *ON)
    assert run.wait() == 0
    assert run.notices()[0] == f"formation: {formation}"
    wanted = [word.split("=") for word in formation.split(", ")]
    assert started(run) == [f"{name}.{number}" for name, count in wanted for number in range(1, int(count) + 1)]


def test_instances_start_in_the_order_of_the_procfile(app: App) -> None:
    run = app(THREE).start("clock=2", "web=2", *ON)
    run.wait()
    assert started(run) == ["web.1", "web.2", "clock.1", "clock.2"]


def test_release_is_not_started(app: App) -> None:
    run = app("release: echo no\nweb: true\n").start()
    assert run.wait() == 0
    assert run.notices()[0] == "formation: release=0, web=1"
    assert started(run) == ["web.1"]


@pytest.mark.parametrize("arguments", [("release",), ("-m", "release=1"), ("release=1",)])
def test_release_is_started_if_named(app: App, arguments: tuple[str, ...]) -> None:
    run = app("release: echo yes\nweb: true\n").start(*arguments)
    assert run.wait() == 0
    assert started(run) == ["release.1"]


def test_all_does_not_mean_release(app: App) -> None:
    run = app("release: echo no\nweb: true\n").start("all=1")
    assert run.wait() == 0
    assert started(run) == ["web.1"]


def test_nothing_to_run_says_so(app: App) -> None:
    run = app(THREE).start("web=0")
    assert run.wait() == 0
    assert run.notices() == ["formation: web=0, worker=0, clock=0", "every process has ended; nothing is left running"]


# --- the same program ---


def test_the_installed_command_is_the_same(app: App) -> None:
    command = Path(sys.executable).with_name("procman")
    assert command.exists(), "procman is not installed beside this Python"
    app(THREE)
    shown = []
    for argv in ([str(command)], [sys.executable, "-m", "procman"]):
        run = app.spawn([*argv, "start", "-p", str(app.port), "web"])
        assert run.wait() == 0
        shown.append(re.sub(r"\d\d:\d\d:\d\d|pid \d+", "", run.text))
    assert shown[0] == shown[1]
    assert f"on {app.port}" in shown[0]


# --- root, Procfile, .env (B1 to B5) ---


def where(app: App, run: Run) -> tuple[str, str]:
    """Return the directory (from the app's root) and FROM of the one child."""
    run.wait()
    directory, origin = run.output_of("web.1")
    return os.path.relpath(directory, app.root), origin


@pytest.fixture
def two(app: App) -> App:
    """Two directories that both have a Procfile and an .env."""
    app("web: pwd -P; echo here:$FROM", dotenv="FROM=here-env\n")
    app.write("sub/Procfile", "web: pwd -P; echo sub:$FROM")
    app.write("sub/.env", "FROM=sub-env\n")
    app.write("sub/other.procfile", "web: pwd -P; echo other:$FROM")
    app.write("one.env", "FROM=one\n")
    app.write("two.env", "FROM=two\n")
    app.write("bare/.keep", "")
    return app


@pytest.mark.parametrize(
    ("arguments", "directory", "origin"),
    [
        ((), ".", "here:here-env"),
        (("-f", "sub/Procfile"), "sub", "sub:sub-env"),
        (("-f", "sub/other.procfile"), "sub", "other:sub-env"),
        (("-f", "Procfile"), ".", "here:here-env"),
        (("-d", "sub"), "sub", "sub:sub-env"),
        (("-d", "sub", "-f", "Procfile"), "sub", "here:sub-env"),
        (("-d", "bare", "-f", "Procfile"), "bare", "here:"),
        (("-d", ".", "-f", "sub/Procfile"), ".", "sub:here-env"),
        (("-e", "one.env"), ".", "here:one"),
        (("-e", "one.env,two.env"), ".", "here:two"),
        (("-e", "two.env", "-e", "one.env"), ".", "here:one"),
        (("-d", "sub", "-e", "one.env"), "sub", "sub:one"),
        (("-d", "sub", "-e", "sub/.env"), "sub", "sub:sub-env"),
        (("-f", "sub/Procfile", "-e", ".env"), "sub", "sub:here-env"),
    ],
)
@pytest.mark.parametrize("is_before", [False, True])
def test_root_and_files(two: App, arguments: tuple[str, ...], directory: str, origin: str, is_before: bool) -> None:
    run = two.start(options=arguments) if is_before else two.start(*arguments)
    assert where(two, run) == (directory, origin)


def test_an_option_behind_the_command_beats_one_before(two: App) -> None:
    run = two.start("-e", "two.env", "-d", "sub", options=("-e", "one.env", "-d", "bare"))
    assert where(two, run) == ("sub", "sub:two")


def test_the_directory_is_absolute_whatever_the_callers(two: App) -> None:
    run = two.start("-d", "../sub", cwd=two.root / "bare")
    assert where(two, run) == ("sub", "sub:sub-env")


def test_which_default_env_was_read_is_said_when_the_caller_has_another(two: App) -> None:
    run = two.start("-d", "sub")
    run.wait()
    assert any("sub/.env" in text for text in run.notices())
    run = two.start()
    run.wait()
    assert not any(".env" in text for text in run.notices())


def test_procfile_from_stdin(two: App) -> None:
    run = two.start("-f", "-", stdin=os.open(two.root / "sub" / "other.procfile", os.O_RDONLY))
    assert where(two, run) == (".", "other:here-env")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("-e", "missing.env"), 66, "missing.env: no such file"),
        (("-e", "one.env,missing.env"), 66, "missing.env: no such file"),
        (("-f", "Procfile.missing"), 66, "Procfile.missing: no such file"),
        (("-d", "missing"), 66, "missing: no such directory"),
        (("-d", "bare"), 66, "bare/Procfile: no such file"),
        (("-f", "sub"), 66, "sub: is a directory"),
    ],
)
def test_what_is_missing_is_named(two: App, arguments: tuple[str, ...], code: int, text: str) -> None:
    two("web: echo started > started")
    run = two.start(*arguments)
    assert run.wait() == code
    assert text in run.err_text
    assert run.events == []
    assert run.out == b""
    assert not list(two.root.glob("**/started"))


def test_no_env_file_is_no_error(app: App) -> None:
    run = app("web: true").start()
    assert run.wait() == 0
    assert len(run.notices()) == 2


# --- the environment of children ---


def test_identity_and_ports(app: App) -> None:
    app(f"web: {app.child('state', 'web.json')}\nmy-worker: {app.child('state', '$PS.json')}\nrelease: true\n")
    run = app.start("web", "my-worker=2")
    env = state_of(app, run, "web.json")["env"]
    identity = {name: env[name] for name in ("PS", "HONCHO_PROCESS_NAME", "FOREMAN_WORKER_NAME", "PROCMAN_PROCESS")}
    assert set(identity.values()) == {"web.1"}
    assert env["PROCMAN_PROCESS_TYPE"] == "web"
    assert env["PROCMAN_INSTANCE"] == "1"
    assert env["PORT"] == str(app.port)
    assert {name: value for name, value in env.items() if name.startswith("PORT_")} == {
        "PORT_WEB": str(app.port),
        "PORT_MY_WORKER": str(app.port + 100),
        "PORT_RELEASE": str(app.port + 200),
    }
    assert env["PYTHONUNBUFFERED"] == "1"
    second = state_of(app, run, "my-worker.2.json", "my-worker.2")["env"]
    assert second["PS"] == "my-worker.2"
    assert second["PROCMAN_PROCESS_TYPE"] == "my-worker"
    assert second["PROCMAN_INSTANCE"] == "2"
    assert second["PORT"] == str(app.port + 101)
    assert second["PORT_MY_WORKER"] == str(app.port + 100)
    assert second["PROCMAN_RUN"] == env["PROCMAN_RUN"]
    run.signal(signal.SIGTERM)
    run.wait()


def test_every_procman_run_has_an_id_of_its_own(app: App) -> None:
    app("web: echo $PROCMAN_RUN")
    ids = set()
    for _ in range(3):
        run = app.start()
        run.wait()
        ids.add(run.output_of("web.1")[0])
    assert len(ids) == 3
    assert "" not in ids


def test_no_port(app: App) -> None:
    run = app("web: env").start("--no-port")
    run.wait()
    assert not [line for line in run.output_of("web.1") if line.startswith("PORT")]
    assert run.wait_for("started").port is None


def values(run: Run, name: str = "web.1") -> dict[str, str]:
    run.wait()
    return dict(line.split("=", 1) for line in run.output_of(name) if "=" in line)


def test_the_callers_environment_is_inherited(app: App) -> None:
    run = app("web: env").start(env={"MINE": "a b", "EMPTY": "", "HOME": "/nowhere"})
    env = values(run)
    assert (env["MINE"], env["EMPTY"], env["HOME"]) == ("a b", "", "/nowhere")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [((), "file"), (("--no-override",), "caller"), (("--env-wins",), "caller")],
)
def test_env_file_against_the_caller(app: App, arguments: tuple[str, ...], wanted: str) -> None:
    run = app("web: env", dotenv="BOTH=file\nONLY=file\n").start(*arguments, env={"BOTH": "caller"})
    env = values(run)
    assert (env["BOTH"], env["ONLY"]) == (wanted, "file")


def test_identity_beats_the_env_file_and_the_caller(app: App) -> None:
    dotenv = "PORT=7000\nPS=x\nPROCMAN_PROCESS=x\nHONCHO_PROCESS_NAME=x\nPROCMAN_RUN=x\n"
    run = app("web: env", dotenv=dotenv).start(env={"PS": "y", "PORT": "1", "FOREMAN_WORKER_NAME": "y"})
    env = values(run)
    assert {env[n] for n in ("PS", "PROCMAN_PROCESS", "HONCHO_PROCESS_NAME", "FOREMAN_WORKER_NAME")} == {"web.1"}
    assert env["PORT"] == str(app.port)
    assert env["PROCMAN_RUN"] != "x"


def test_the_mark_of_the_run_beats_the_section_of_a_type(app: App) -> None:
    """By it procman finds what a process has left behind."""
    run = app("web: env", procman__toml='[process.web]\nenv = { PROCMAN_RUN = "x", PROCMAN_PROCESS = "x" }\n').start()
    env = values(run)
    assert env["PROCMAN_RUN"] != "x"
    assert env["PROCMAN_PROCESS"] == "web.1"


def test_an_outer_procman_leaves_no_identity(app: App) -> None:
    """procman in procman: the inner children are the inner run's."""
    inner = f"{sys.executable} -m procman start -p {app.port + 300} -f inner"
    app(f"web: {inner}", inner="x: env\n")
    run = app.start()
    run.wait()
    text = "\n".join(run.output_of("web.1"))
    assert "PS=x.1" in text
    assert "PROCMAN_PROCESS=x.1" in text
    assert f"PORT={app.port + 300}" in text
    assert "PS=web.1" not in text


@pytest.mark.parametrize(("dotenv", "env", "wanted"), [
    (None, {}, "1"),
    ("PYTHONUNBUFFERED=0\n", {}, "0"),
    (None, {"PYTHONUNBUFFERED": "x"}, "x"),
    (None, {"PYTHONUNBUFFERED": ""}, ""),
])  # fmt: skip
def test_pythonunbuffered_unless_the_user_sets_it(
    app: App, dotenv: str | None, env: dict[str, str | None], wanted: str
) -> None:
    run = app("web: env", dotenv=dotenv).start(env=env)
    assert values(run)["PYTHONUNBUFFERED"] == wanted


def test_python_children_are_not_held_back(app: App) -> None:
    app.write("talk.py", "print('one'); import signal; signal.pause()")
    run = app(f"web: {sys.executable} talk.py {app.token}").start()
    run.wait_output("one")
    run.signal(signal.SIGTERM)
    run.wait()


def test_odd_values_arrive_untouched(app: App) -> None:
    app.write(".env", 'TEXT="a\'b \\"c\\" $HOME `x` ; ä #"\n')
    app(f"web: {app.child('state', 'state.json')}")
    run = app.start(env={"RAW": "line one\nline two"})
    env = state_of(app, run)["env"]
    assert env["TEXT"] == "a'b \"c\" $HOME `x` ; ä #"
    assert env["RAW"] == "line one\nline two"
    run.signal(signal.SIGTERM)
    run.wait()


# --- what else children are given (I1, 5.1, 5.2) ---


@pytest.mark.parametrize("size", [None, (24, 80)])
def test_children_inherit_no_descriptor(app: App, size: tuple[int, int] | None) -> None:
    app(f"web: {app.child('state', '$PS.json')}")
    run = app.start("web=3", size=size)
    for number in (1, 2, 3):
        fds = state_of(app, run, f"web.{number}.json", f"web.{number}")["fds"]
        own = {fd: target for fd, target in fds.items() if not target.startswith("/proc/")}  # it looked there
        assert sorted(own) == ["0", "1", "2"], own
        if size is None:
            assert own["0"] == "/dev/null"
            assert own["1"] == own["2"]
            assert own["1"].startswith("pipe:")
        else:
            assert len(set(own.values())) == 1
            assert own["0"].startswith("/dev/pts/")
    run.signal(signal.SIGTERM)
    run.wait()


def test_stdin_of_the_caller_reaches_no_child(app: App) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"for nobody\n")
    run = app("web: cat; echo end").start(stdin=reader)
    assert run.wait() == 0
    assert run.output_of("web.1") == ["end"]
    assert os.read(reader, 100) == b"for nobody\n"
    os.close(reader)
    os.close(writer)


def signals(status: str) -> dict[str, int]:
    """Return the three sets of /proc/PID/status; glibc's posix_spawn ignores its own two signals, 32 and 33."""
    return {name: int(value, 16) & ~(3 << 31) for name, value in re.findall(r"(Sig(?:Ign|Blk|Cgt)):\s*(\w+)", status)}


def status_of(app: App, argv: list[str], **kwargs: Any) -> dict[str, int]:
    # Not by Python, which changes what it is to tell.
    app("web: exec cat /proc/self/status > status")
    run = app.spawn([*argv, sys.executable, "-m", "procman", "start", "-p", str(app.port)], **kwargs)
    assert run.wait() == 0
    return signals((app.root / "status").read_text())


@pytest.mark.parametrize("size", [None, (24, 80)])
def test_signals_are_as_from_a_shell(app: App, size: tuple[int, int] | None) -> None:
    direct = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
    assert status_of(app, [], size=size) == signals(direct) == {"SigIgn": 0, "SigBlk": 0, "SigCgt": 0}


def test_blocked_signals_are_not_passed_on(app: App) -> None:
    mask = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])"
    blocking = f"import os, signal, sys; {mask}; os.execv(sys.argv[1], sys.argv[1:])"
    assert status_of(app, [sys.executable, "-c", blocking])["SigBlk"] == 0


def test_umask_is_the_callers(app: App) -> None:
    app("web: umask")
    run = app.spawn(["sh", "-c", f"umask 027; exec {sys.executable} -m procman start -p {app.port}"])
    run.wait()
    assert "| 0027\n" in run.text


def test_each_child_leads_a_session(app: App) -> None:
    app(f"web: {app.child('state', '$PS.json')}")
    run = app.start("web=2")
    states = [state_of(app, run, f"web.{number}.json", f"web.{number}") for number in (1, 2)]
    for number, state in enumerate(states, 1):
        assert state["pid"] == state["pgid"] == state["sid"] == run.pid_of(f"web.{number}")
    run.signal(signal.SIGTERM)
    run.wait()


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        ("echo one; echo two", ["one", "two"]),
        ("echo a && echo b", ["a", "b"]),
        ("false || echo b", ["b"]),
        ("A=1 sh -c 'echo $A'", ["1"]),
        ("echo $PS '$PS' \"$PS\"", ["web.1 $PS web.1"]),
        ("printf '%s\\n' *.txt", ["a.txt", "b.txt"]),
        ("echo x | tr x y", ["y"]),
        ("echo $(echo in)", ["in"]),
        ("if true; then echo yes; fi", ["yes"]),
        ("{ echo a; echo b; }", ["a", "b"]),
        ("(echo sub)", ["sub"]),
        ("echo a # comment", ["a"]),
        ("echo a\\;b", ["a;b"]),
        ("exec echo a", ["a"]),
        (": ; echo $0", ["/bin/sh"]),
        ("echo out > file; cat file", ["out"]),
        ("cat <<< x 2>/dev/null || echo posix", None),
        ("! false && echo not", ["not"]),
        ("~/none 2>/dev/null || echo home", ["home"]),
    ],
)
def test_the_shell_reads_the_command(app: App, command: str, lines: list[str] | None) -> None:
    run = app(f"web: {command}\n", a__txt="", b__txt="").start(*ON)
    run.wait()
    if lines is not None:
        assert run.output_of("web.1") == lines


@pytest.mark.parametrize(
    ("command", "is_leader"),
    [("{}", True), ("exec {}", True), ("cd . && {}", False), ("{}; true", False), ("A=1 {}", False)],
)
def test_a_simple_command_is_its_own_leader(app: App, command: str, is_leader: bool) -> None:
    """No shell stays in between, and the pid that procman tells is the program's (5.2)."""
    app(f"web: {command.format(app.child('state', 'state.json'))}")
    run = app.start()
    state = state_of(app, run)
    assert state["pgid"] == run.pid_of("web.1")
    assert (state["pid"] == run.pid_of("web.1")) == is_leader
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


# --- input that is refused ---


def test_all_errors_of_all_files_at_once(app: App) -> None:
    run = app("web: true\nweb: false\nno colon here\n", dotenv="A=1\n'broken\n").start()
    assert run.wait() == 65
    assert "Procfile:2" in run.err_text
    assert "Procfile:3" in run.err_text
    assert ".env:2" in run.err_text
    assert run.events == []


def test_values_of_the_environment_are_never_shown(app: App) -> None:
    for dotenv in ('SECRET="hunter2\n', "SECRET=hunter2\n'broken hunter2\n", f"SECRET=hunter2{'x' * 140_000}\n"):
        run = app("web: true", dotenv=dotenv).start()
        assert run.wait() != 0
        assert "hunter2" not in run.err_text + run.text
        assert ".env" in run.err_text


def test_an_empty_procfile(app: App) -> None:
    run = app("# nothing\n").start()
    assert run.wait() == 65
    assert "Procfile" in run.err_text
