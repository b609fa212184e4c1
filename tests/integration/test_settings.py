"""Each setting, from each place, reaches what `start` and `run` do (contract B13, B14; docs/configuration.md)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.support.app import App, Run

SOURCES = ("option", "variable", "procman.toml", "pyproject.toml", ".foreman")


class Place(NamedTuple):
    """How one place says a setting: words of the command line, and the environment; files are written already."""

    words: tuple[str, ...]
    env: dict[str, str | None]


def put(app: App, source: str, key: str, option: tuple[str, ...], word: str, toml: str, foreman: str) -> Place:
    if source == "option":
        return Place(option, {})
    if source == "variable":
        return Place((), {"PROCMAN_ENV_FILES" if key == "env" else f"PROCMAN_{key.upper()}": word})
    text = {
        "procman.toml": f"{key} = {toml}\n",
        "pyproject.toml": f"[project]\nname = 'x'\n\n[tool.procman]\n{key} = {toml}\n",
        ".foreman": f"# settings\n{foreman}\n",
    }[source]
    app.write(source, text)
    return Place((), {})


# --- what shows that a setting arrived: each returns one thing without it and another one with it ---


def said_by(app: App, place: Place, *command: str) -> str:
    run = app.call("run", *place.words, *command, env=place.env)
    assert run.code == 0, run.err_text
    return run.text.strip()


def started(app: App, place: Place, *arguments: str) -> Run:
    return app.start(*place.words, *arguments, env=place.env)


def ended(app: App, place: Place, *arguments: str) -> Run:
    run = started(app, place, *arguments)
    run.wait()
    return run


def procfile(app: App, place: Place) -> str:
    app("web: echo default\n").write("other", "web: echo other\n")
    return said_by(app, place, "web")


def env_files(app: App, place: Place) -> str:
    app("web: true\n", dotenv="A=default\n").write("a.env", "A=a\nB=a\n")
    app.write("b.env", "B=b\n")
    return said_by(app, place, "sh", "-c", "echo $A $B")


def formation(app: App, place: Place) -> str:
    run = ended(app("web: true\nworker: true\nclock: true\n"), place)
    return str(run.notices()[0])


def port(app: App, place: Place) -> str:
    return said_by(app("other: true\nweb: echo $PORT\n"), place, "web")


def is_killed_soon(app: App, place: Place) -> bool:
    app(f"web: {app.child('term_ignore')}\n")
    run = started(app, place)
    run.wait_output("ignoring", "web.1")
    before = time.monotonic()
    run.signal(signal.SIGTERM)
    assert run.wait() == 1
    return time.monotonic() - before < 4  # the default is 5


def winner(app: App, place: Place) -> str:
    app("web: true\n", dotenv="BOTH=file\n")
    app.env["BOTH"] = "caller"
    return said_by(app, place, "sh", "-c", "echo $BOTH")


def outlives_the_first(app: App, place: Place) -> bool:
    """Tell whether the end of web lets worker go on."""
    gate = app.fifo()
    run = started(app(f"web: true\nworker: read x < {gate}; echo done\n"), place)
    run.wait_for("exited", "web.1")
    gate.send()
    run.wait()
    return run.output_of("worker.1") == ["done"]


def is_started_again(app: App, place: Place) -> bool:
    gate = app.fifo()
    run = started(app(f"web: test -e first && read x < {gate}; touch first\n"), place)
    run.wait_until(
        lambda: run.code is not None or sum(event.is_("started", "web.1") for event in run.events) == 2, "second start"
    )
    if run.code is None:
        run.signal(signal.SIGTERM)
        run.wait()
    return sum(event.is_("started", "web.1") for event in run.events) > 1


def shown(app: App, place: Place) -> str:
    """Return the line of web that is on stdout, or ''."""
    run = ended(app("web: echo shown\n"), place)
    return next((line for line in run.lines if "shown" in line), "")


def interpolated(app: App, place: Place) -> str:
    app("web: true\n", dotenv="A=1\nB=${A}2\n")
    return said_by(app, place, "sh", "-c", "echo $B")


def decoded(app: App, place: Place) -> str:
    app("web: true\n").write(".env", "A=ä\n".encode("latin-1"))
    run = app.call("run", *place.words, "sh", "-c", "echo $A", env=place.env)
    return run.text.strip() if run.code == 0 else str(run.code)


class Case(NamedTuple):
    key: str
    option: tuple[str, ...]
    word: str  # of the variable
    toml: str
    foreman: str  # a whole line, '' if Foreman has no such setting
    seen: Callable[[App, Place], object]
    default: object
    wanted: object


TIME = r"\d\d:\d\d:\d\d "
CASES = [
    Case("procfile", ("-f", "other"), "other", '"other"', "procfile: other", procfile, "default", "other"),
    Case("env", ("-e", "a.env,b.env"), "a.env,b.env", '["a.env", "b.env"]', "env: a.env,b.env",
         env_files, "default", "a b"),
    Case("formation", ("-m", "web=2,clock=1"), "web=2,clock=1", "{web = 2, clock = 1}", "formation: web=2,clock=1",
         formation, "formation: web=1, worker=1, clock=1", "formation: web=2, worker=0, clock=1"),
    Case("port", ("-p", "7000"), "7000", "7000", "port: 7000", port, "5100", "7100"),
    Case("port", ("--no-port",), "none", "false", "", port, "5100", ""),
    Case("port_step", ("--port-step", "7"), "7", "7", "", port, "5100", "5007"),
    Case("grace", ("-t", "100ms"), "100ms", '"100ms"', "timeout: 0.1", is_killed_soon, None, True),
    Case("override", ("--no-override",), "no", "false", "", winner, "file", "caller"),
    Case("on_exit", ("--on-exit", "ignore"), "ignore", '"ignore"', "", outlives_the_first, False, True),
    Case("can_die", ("--can-die", "web"), "web", '["web"]', "", outlives_the_first, False, True),
    Case("restart", ("--restart", "web"), "web", '"web"', "", is_started_again, False, True),
    Case("quiet", ("-q", "web"), "web", '["web"]', "", lambda app, place: bool(shown(app, place)), True, False),
    Case("color", ("--color", "always"), "always", '"always"', "color: true",
         lambda app, place: "\x1b[" in shown(app, place), False, True),
    Case("timestamp", ("--no-timestamp",), "false", "false", "timestamp: false",
         lambda app, place: shown(app, place) == "web.1  | shown", False, True),
    Case("prefix", ("--no-prefix",), "off", "false", "", lambda app, place: shown(app, place) == "shown", False, True),
    Case("interpolate", ("--interpolate",), "1", "true", "", interpolated, "${A}2", "12"),
    Case("env_encoding", ("--env-encoding", "latin-1"), "latin-1", "'latin-1'", "", decoded, "65", "ä"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("case", "source"),
    [
        pytest.param(case, source, id=f"{case.key}={case.word} {source}")
        for case in CASES
        for source in SOURCES
        if case.foreman or source != ".foreman"
    ],
)
def test_each_setting_from_each_place(app: App, case: Case, source: str) -> None:
    place = put(app, source, case.key, case.option, case.word, case.toml, case.foreman)
    assert case.seen(app, place) == case.wanted


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.key}={case.word}")
def test_the_defaults(app: App, case: Case) -> None:
    """Else the test above would show nothing."""
    if case.default is not None:
        assert case.seen(app, Place((), {})) == case.default


# --- which place wins ---


def test_precedence_of_the_port(app: App) -> None:
    app("web: echo $PORT\n")
    app.write("procman.toml", "port = 1003\n")
    app.write("pyproject.toml", "[tool.procman]\nport = 1004\n")
    app.write(".foreman", "port: 1005\n")
    app.write(".env", "PORT=1006\n")
    words, env = ["-p", "1001"], {"PROCMAN_PORT": "1002", "PORT": "1007"}
    steps: list[Callable[[], object]] = [
        words.clear,
        lambda: env.pop("PROCMAN_PORT"),
        (app.root / "procman.toml").unlink,
        (app.root / "pyproject.toml").unlink,
        (app.root / ".foreman").unlink,
        (app.root / ".env").unlink,
        lambda: env.pop("PORT"),
    ]
    found = []
    for step in [*steps, lambda: None]:
        found.append(said_by(app, Place(tuple(words), dict(env)), "web"))
        step()
    assert found == ["1001", "1002", "1003", "1004", "1005", "1006", "1007", "5000"]


def test_precedence_of_the_procfile(app: App) -> None:
    for number in range(1, 8):
        app.write(f"p{number}", f"web: echo {number}\n")
    app("web: echo default\n")
    app.write("procman.toml", "procfile = 'p3'\n")
    app.write(".foreman", "procfile: p4\n")
    app.write(".env", "PROCFILE=p5\n")
    words, env = ["-f", "p1"], {"PROCMAN_PROCFILE": "p2", "PROCFILE": "p6"}
    steps: list[Callable[[], object]] = [
        words.clear,
        lambda: env.pop("PROCMAN_PROCFILE"),
        (app.root / "procman.toml").unlink,
        (app.root / ".foreman").unlink,
        (app.root / ".env").unlink,
        lambda: env.pop("PROCFILE"),
    ]
    found = []
    for step in [*steps, lambda: None]:
        found.append(said_by(app, Place(tuple(words), dict(env)), "web"))
        step()
    assert found == ["1", "2", "3", "4", "5", "6", "default"]


def test_an_option_takes_a_setting_back(app: App) -> None:
    app("web: echo $PORT\n", dotenv="BOTH=file\nA=1\nB=${A}\n")
    app.write("procman.toml", "override = false\ninterpolate = true\ntimestamp = false\nprefix = false\n")
    command = ("sh", "-c", "echo $BOTH $B")
    assert said_by(app, Place((), {"BOTH": "caller"}), *command) == "caller 1"
    assert said_by(app, Place(("--override", "--no-interpolate"), {"BOTH": "caller"}), *command) == "file ${A}"
    run = ended(app, Place(("--timestamp", "--prefix"), {}))
    assert any(line.endswith(f"web.1  | {app.port}") for line in run.lines)


def test_an_empty_variable_is_no_setting(app: App) -> None:
    app("web: echo $PORT\n").write("procman.toml", "port = 7000\n")
    assert said_by(app, Place((), {"PROCMAN_PORT": "", "PORT": ""}), "web") == "7000"


def test_a_setting_in_dotenv_is_none(app: App) -> None:
    app("web: echo $PORT\n", dotenv="PROCMAN_PORT=7000\n")
    assert said_by(app, Place((), {}), "web") == "5000"


def test_the_formation_of_arguments_beats_the_setting(app: App) -> None:
    app("web: true\nworker: true\n").write("procman.toml", "formation = {web = 2, worker = 2}\n")
    for words, wanted in (
        ((), "web=2, worker=2"),
        (("worker",), "web=0, worker=1"),
        (("-m", "worker=1"), "web=0, worker=1"),
        (("-c", "worker=3"), "web=1, worker=3"),
    ):
        assert ended(app, Place(words, {})).notices()[0] == f"formation: {wanted}"


def test_paths_of_a_settings_file_are_its_own(app: App) -> None:
    app.write("sub/Procfile", "web: echo $A\n")
    app.write("sub/procman.toml", "env = ['local.env']\n")
    app.write("sub/local.env", "A=sub\n")
    app.write("local.env", "A=here\n")
    assert said_by(app, Place(("-d", "sub"), {}), "web") == "sub"
    assert said_by(app, Place(("-f", "sub/Procfile", "-e", "local.env"), {}), "web") == "here"
    assert said_by(app, Place(("-f", "sub/Procfile"), {"PROCMAN_ENV_FILES": "local.env"}), "web") == "here"


def test_a_directory_named_foreman_is_none_of_ours(app: App) -> None:
    app("web: echo fine\n").write(".foreman/templates/x", "")
    assert said_by(app, Place((), {}), "web") == "fine"


@pytest.mark.parametrize("command", ["start", "run"])
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("procman.toml", "prot = 1\ngrace = true\n", ("procman.toml:1: unknown key", "procman.toml:2: grace")),
        ("pyproject.toml", "[tool.procman]\nport = 'x'\n", ("pyproject.toml:2: port",)),
        (".foreman", "port: x\nconcurrency: y\n", (".foreman:1: port", '.foreman:2: unknown key "concurrency"')),
        (
            "procman.toml",
            "prot = 1\nformation = 'wbe=2'\n",
            ('unknown key "prot"', 'procman.toml:2: unknown process type "wbe" — did you mean "web"?'),
        ),
        ("procman.toml", "[process.wbe]\n", ('procman.toml:1: unknown process type "wbe" — did you mean "web"?',)),
    ],
)
def test_settings_that_cannot_be_stop_the_run(
    app: App, command: str, name: str, text: str, said: tuple[str, ...]
) -> None:
    app("web: touch started\n").write(name, text)
    run = app.call(command, *(["web"] if command == "run" else []))
    assert run.code == 78
    assert all(words in run.err_text for words in said)
    assert len(run.err_text.splitlines()) == len(said)
    assert not (app.root / "started").exists()


# --- [process.NAME] ---


def test_env_of_one_type(app: App) -> None:
    app("web: echo $A $B\nworker: echo $A $B\n", dotenv="A=file\n")
    app.write("procman.toml", "[process.web.env]\nA = 'own'\nB = 'two words'\nPS = 'x'\n")
    run = ended(app, Place(("--on-exit", "ignore"), {"A": "caller"}))
    assert run.output_of("web.1") == ["own two words"]
    assert run.output_of("worker.1") == ["file"]
    assert said_by(app, Place((), {}), "web") == "own two words"
    assert said_by(app, Place((), {}), "sh", "-c", "echo $A $B") == "file"


def test_grace_of_one_type(app: App) -> None:
    app(f"web: {app.child('term_ignore')}\n").write("procman.toml", "grace = 'inf'\n[process.web]\ngrace = 0.1\n")
    run = app.start()
    run.wait_output("ignoring", "web.1")
    run.signal(signal.SIGTERM)
    assert run.wait() == 1
    assert run.wait_for("exited", "web.1").signum == signal.SIGKILL


def test_stop_signal_of_one_type(app: App) -> None:
    app(f"web: {app.child('signals')}\nworker: {app.child('signals')}\n")
    app.write("procman.toml", "[process.web]\nstop_signal = 'USR1'\n[process.worker]\nstop_signal = 'SIGUSR2'\n")
    run = app.start("-t", "inf")
    for name in ("web.1", "worker.1"):
        run.wait_output("up", name)
    run.signal(signal.SIGTERM)
    run.wait_output("got SIGUSR1", "web.1")
    run.wait_output("got SIGUSR2", "worker.1")
    for name in ("web.1", "worker.1"):
        os.kill(run.pid_of(name), signal.SIGTERM)
    assert run.wait() == 0


@pytest.mark.parametrize(("policy", "code", "is_again"), [
    ("on-failure", 1, True), ("on-failure", 0, False), ("always", 0, True), ("no", 1, False),
])  # fmt: skip
def test_restart_of_one_type(app: App, policy: str, code: int, is_again: bool) -> None:
    gate = app.fifo()
    app(f"web: test -e first && read x < {gate}; touch first; exit {code}\n")
    app.write("procman.toml", f"[process.web]\nrestart = '{policy}'\n")
    run = app.start()
    run.wait_until(
        lambda: run.code is not None or sum(event.is_("started", "web.1") for event in run.events) == 2, "second start"
    )
    assert (run.code is None) == is_again
    if is_again:
        run.signal(signal.SIGTERM)
    assert run.wait() == (0 if is_again else code)


@pytest.mark.parametrize(("policy", "code", "goes_on"), [
    ("stop", 0, False), ("fail", 0, True), ("fail", 1, False), ("ignore", 1, True),
])  # fmt: skip
def test_on_exit_of_one_type(app: App, policy: str, code: int, goes_on: bool) -> None:
    gate = app.fifo()
    app(f"web: exit {code}\nworker: read x < {gate}; echo done\n")
    app.write("procman.toml", f"on_exit = 'stop'\n[process.web]\non_exit = '{policy}'\n")
    run = app.start()
    run.wait_for("exited", "web.1")
    gate.send()
    run.wait()
    assert run.output_of("worker.1") == (["done"] if goes_on else [])


@pytest.mark.parametrize(("section", "option", "goes_on"), [
    ("on_exit = 'stop'", ("--on-exit", "ignore"), False),
    ("on_exit = 'ignore'", ("--on-exit", "stop"), True),
    ("on_exit = 'stop'", ("--can-die", "web"), True),
])  # fmt: skip
def test_a_section_beats_what_is_said_for_all(app: App, section: str, option: tuple[str, ...], goes_on: bool) -> None:
    gate = app.fifo()
    app(f"web: true\nworker: read x < {gate}; echo done\n").write("procman.toml", f"[process.web]\n{section}\n")
    run = app.start(*option)
    run.wait_for("exited", "web.1")
    gate.send()
    run.wait()
    assert run.output_of("worker.1") == (["done"] if goes_on else [])


@pytest.mark.parametrize("option", ["web", "all"])
def test_a_type_that_is_named_for_a_restart_beats_its_section(app: App, option: str) -> None:
    app.write("procman.toml", "[process.web]\nrestart = 'no'\n")
    assert is_started_again(app, Place(("--restart", option), {}))


# --- PORT and PROCFILE in .env ---


def test_port_and_procfile_of_dotenv(app: App) -> None:
    app("web: echo default\n", dotenv="PORT=6000\nPROCFILE=deep/other\n")
    app.write("deep/other", "a: true\nweb: echo $PORT\n")
    assert said_by(app, Place((), {}), "web") == "6100"
    assert said_by(app, Place(("-p", "7000"), {}), "web") == "7100"
    assert said_by(app, Place(("--no-override",), {"PORT": "1", "PROCFILE": "x"}), "web") == "6100"  # both are settings
    assert said_by(app, Place(("-f", "Procfile"), {}), "web") == "default"


@pytest.mark.parametrize(
    ("dotenv", "code", "said"),
    [
        ("PORT=hunter2\n", 78, ".env:1: PORT is not a number from 1 to 65535 — or give -p\n"),
        ("PORT=false\n", 78, ".env:1: PORT is not"),
        ("PROCFILE=../hunter2\n", 78, ".env:1: PROCFILE is not a file inside the root — or give -f\n"),
        ("PROCFILE=/etc/passwd\n", 78, ".env:1: PROCFILE is not"),
        ("PROCFILE=-\n", 66, "./-: no such file — named by .env:1\n"),
        ("PROCFILE=gone\n", 66, "gone: no such file — named by .env:1\n"),
    ],
)
def test_port_and_procfile_that_cannot_be(app: App, dotenv: str, code: int, said: str) -> None:
    run = app("web: touch started\n", dotenv=dotenv).call("start")
    assert run.code == code
    assert run.err_text.startswith(said)
    assert "hunter2" not in run.err_text


# --- what a run tells of its input ---

DOUBTFUL = {"procfile": "web: true\nworker : true\n", "dotenv": "A=1\nA=hunter2\nB=hunter2#y\nC\nHOME=hunter2\n"}
LEFT_OUT = [
    "Procfile:2:7: warning: left out: space before ':' — write \"worker: …\"",
    ".env:4: warning: left out: this line has no '=' — write NAME=value, or start the line with \"#\"",
]
COUNTED = ".env: 2 warnings — `procman check` shows them"
IN_FULL = [
    '.env:2: warning: "A" is set again, so line 1 has no effect — remove one of them',
    ".env:3: warning: '#' inside an unquoted value is kept",
]
OVERRIDES = ".env overrides A, HOME of your environment"


def notices_before_the_formation(run: Run) -> list[str]:
    texts = run.notices()
    return texts[: next(at for at, text in enumerate(texts) if text.startswith("formation: "))]


def test_start_tells_each_line_left_out_and_counts_warnings(app: App) -> None:
    app(DOUBTFUL["procfile"], dotenv=DOUBTFUL["dotenv"])
    assert app.call("start").code == 65
    run = ended(app, Place(("--lenient",), {"A": "caller"}))
    assert run.code == 0
    assert notices_before_the_formation(run) == [*LEFT_OUT, COUNTED]
    for text in (*LEFT_OUT, COUNTED):
        assert f"system | {text}" in run.text
    assert "hunter2" not in run.text


def test_run_tells_it_on_stderr(app: App) -> None:
    app(DOUBTFUL["procfile"], dotenv=DOUBTFUL["dotenv"])
    run = app.call("run", "--lenient", "echo", "x", env={"A": "caller"})
    assert (run.code, run.text) == (0, "x\n")
    assert run.err_text.splitlines() == [f"procman: {text}" for text in (*LEFT_OUT, COUNTED)]


def test_verbose_tells_warnings_in_full_and_what_is_overridden(app: App) -> None:
    app(DOUBTFUL["procfile"], dotenv=DOUBTFUL["dotenv"])
    run = ended(app, Place(("--lenient", "--verbose"), {"A": "caller"}))
    texts = notices_before_the_formation(run)
    assert texts[0] == OVERRIDES
    assert all(any(text.startswith(wanted) for text in texts[1:]) for wanted in (*LEFT_OUT, *IN_FULL))
    assert len(texts) == 5
    run = app.call("-v", "run", "--lenient", "echo", "x", env={"A": "caller"})
    assert run.text == "x\n"
    assert f"procman: {OVERRIDES}\n" in run.err_text
    for seen in (run.text, run.err_text):
        assert "hunter2" not in seen


def test_verbose_where_the_caller_wins(app: App) -> None:
    app("web: true\n", dotenv="A=1\nB=2\nC=3\n")
    run = app.call("run", "-v", "--no-override", "true", env={"A": "x", "B": "2"})
    assert "procman: your environment overrides A of .env\n" in run.err_text


def test_nothing_is_told_of_input_that_is_fine(app: App) -> None:
    app("web: true\r\n", dotenv="A= 1 # note\nHOME=x\n")
    assert notices_before_the_formation(ended(app, Place((), {}))) == []
    assert app.call("run", "true").err == b""


def test_warnings_of_many_files_are_a_line_each(app: App) -> None:
    app("web: true\nhttp://x\n", dotenv="A=1\nA=2\n").write("b.env", "B=x#y\nB=z#y\n")
    run = app.call("run", "-e", ".env,b.env", "true", env={"PROCMAN_GARCE": "1"})
    assert run.code == 0
    assert run.err_text.splitlines() == [
        "procman: Procfile: 1 warning — `procman check` shows them",
        "procman: .env: 1 warning — `procman check` shows them",
        "procman: b.env: 3 warnings — `procman check` shows them",
        "procman: PROCMAN_GARCE: 1 warning — `procman check` shows them",
    ]


def test_dotenv_switched_off(app: App) -> None:
    app("web: echo A=$A\n", dotenv="A=1\n")
    env = {"PYTHON_DOTENV_DISABLED": "1"}
    run = ended(app, Place((), dict(env)))
    assert run.output_of("web.1") == ["A="]
    assert notices_before_the_formation(run) == ["PYTHON_DOTENV_DISABLED is set, so .env is not read"]
    assert said_by(app, Place(("-e", ".env"), dict(env)), "web") == "A=1"
    assert said_by(app, Place(("-e", "/dev/null"), {}), "web") == "A="


def test_a_parent_directory_is_never_read(app: App) -> None:
    """python-dotenv would walk up to the root of the file system."""
    app.write(".env", "LEAKED=yes\n")
    app.write("procman.toml", "port = 1\n")
    app.write("below/Procfile", "web: echo leaked=$LEAKED\n")
    for arguments in (["-d", "below"], ["-f", "below/Procfile"]):
        run = app.call("start", *arguments, "-p", str(app.port))
        assert run.code == 0
        assert "leaked=" in run.text
        assert "leaked=yes" not in run.text
    inside = app.call("run", "sh", "-c", "echo leaked=$LEAKED port=$PORT_WEB", cwd=app.root / "below")
    assert inside.lines[0] == "leaked= port=5000"
