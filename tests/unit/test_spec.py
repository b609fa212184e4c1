"""resolve() and the shell: what runs, with which environment, and what may replace the shell in between."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from procman.config import ProcessSettings, Settings
from procman.environment import Binding, merged, parse_env
from procman.errors import ConfigError, ProcfileError, SourceRef
from procman.procfile import ProcessType, parse_procfile
from procman.readiness import COMPLETED, HTTP, PORT, Probe
from procman.restart import ALWAYS, NEVER, ON_FAILURE
from procman.spec import (
    MAX_STRING_BYTES,
    SHELL,
    ProcessSpec,
    is_simple,
    name_width,
    resolve,
    resolve_one_off,
    shell_argv,
    with_arguments,
)

# --- simple or not ---------------------------------------------------------------------------------------------------

SIMPLE = [
    "run",
    "run a b c",
    "  run a",
    "\trun\ta ",
    "./run",
    "../bin/run",
    "/usr/bin/env true",
    "bundle exec run -p $PORT",
    "run ${PORT}",
    "run ${PORT:-5000}",
    'run "${PORT:-5000}"',
    "run $VAR",
    "run '$VAR'",
    "run 'a;b'",
    'run "a;b|c&d>e<f"',
    "run 'a|b'",
    'run "it\'s"',
    "run 'say \"x\"'",
    r"run a\;b",
    r"run \$PORT",
    r"run a\ b",
    'run "a\\"; b"',
    'run "$(date; date)"',
    'run "`date`"',
    "run *.txt",
    "run ~/x",
    "run [a-z]",
    "run a=b",
    "run --set a=b",
    "run {a,b}",
    "run a#b",
    "run # comment",
    "run !",
    "run if then",
    "run 'x' # it is not quoted",
    "~/bin/run a",
    "$HOME/bin/run",
    '"$HOME/my app/run" a',
    '"/x y/z"',
    "'/x y/z' a",
    "/x\\ y/z",
    "run-it",
    "run.sh",
    "echoes",
    "if-up",
    "timeout 5 run",
    "env A=1 run",
    "nice -n 5 run",
]

NOT_SIMPLE = [
    "",
    "   ",
    # assignments
    "A=1 run",
    "A= run",
    "A=1",
    "A='x y' run",
    "A=$B run",
    "./a=b",  # not sure, and so the shell stays
    # builtins and keywords
    "exec run",
    "cd x",
    "cd x && run",
    ". ./env",
    "source env",
    "echo a",
    "printf a",
    "true",
    "test -f x",
    "[ -f x ]",
    "[[ -f x ]]",
    "export A=1",
    "set -e",
    "trap x INT",
    "wait",
    "ulimit -n 100",
    "umask 022",
    "command run",
    "eval run",
    "time run",
    "! run",
    "if true",
    "while true",
    "for a in b",
    "case a in",
    "{ run",
    "{run",
    # what the first word may turn out to be
    "$VAR a",
    "${RUNNER} a",
    '"$VAR" a',
    "'run' a",
    "\\run",
    "r*n",
    "r?n",
    "[r]un",
    "~",
    "~user",
    # what the shell has to do
    "run; run",
    "run;",
    "run && run",
    "run || run",
    "run | run",
    "run &",
    "run > log",
    "run 2>&1",
    "run>log",
    "run < in",
    "run << end",
    "(run)",
    "run $(date)",
    "run `date`",
    "$(which run) a",
    "`which run` a",
    "run\nrun",
    "run # it's\nrun",
    "run 'a' ; run 'b'",
    'run "a" > "b"',
    "run a\\\\;run",
    "# comment",
    "#run",
    "run() { x; }",
    "-x",
]


@pytest.mark.parametrize("command", SIMPLE)
def test_simple(command: str) -> None:
    assert is_simple(command)
    assert shell_argv(command) == (SHELL, "-c", f"exec {command.lstrip(' ' + chr(9))}")


@pytest.mark.parametrize("command", NOT_SIMPLE)
def test_not_simple(command: str) -> None:
    assert not is_simple(command)
    assert shell_argv(command) == (SHELL, "-c", command)


@pytest.mark.parametrize("blank", ["\u00a0", "\v", "\f", "\u2003"])
def test_only_the_shells_blanks_are_blanks(blank: str) -> None:
    """Whatever else looks like one is part of a name."""
    assert shell_argv(f"{blank}run")[2].endswith(f"{blank}run")
    assert shell_argv(f"run{blank}; a")[2] == f"run{blank}; a"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of programs that say how they were called."""
    root = tmp_path_factory.mktemp("shell")
    say = '#!/bin/sh\nprintf \'<%s>\' "${0##*/}" "$@"\necho\n'
    for path in ("bin/say", "bin/a b/say", "home/bin/say"):
        program = root / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(say)
        program.chmod(0o755)
    (root / "bin/fail").write_text("#!/bin/sh\nexit 7\n")
    (root / "bin/fail").chmod(0o755)
    (root / "bin/no-mark").write_text("echo no mark\n")
    (root / "bin/no-mark").chmod(0o755)
    (root / "bin/plain").write_text("data\n")
    (root / "x1.txt").touch()
    (root / "x2.txt").touch()
    return root


def _sh(command: str, root: Path) -> tuple[bytes, int]:
    env = {
        "PATH": f"{root}/bin:/usr/bin:/bin",
        "HOME": f"{root}/home",
        "PORT": "5000",
        "TWO": "two words",
        "NONE": "",
        "DIR": f"{root}/bin",
    }
    done = subprocess.run(
        [SHELL, "-c", command], cwd=root, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    return done.stdout, done.returncode


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("say", 0),
        ("say a  b\tc", 0),
        ("  say indented ", 0),
        ("say $PORT ${PORT} ${MISSING:-else} $MISSING end", 0),
        ("say $TWO", 0),
        ('say "$TWO"', 0),
        ("say '$TWO' \\$TWO", 0),
        ("say 'a;b' \"c|d\" e\\&f", 0),
        ('say "$(echo inner; echo more)"', 0),
        ('say "`echo inner`"', 0),
        ("say *.txt x?.txt [x]1.txt none*", 0),
        ("say ~ ~/x a~", 0),
        ("say a=b --set=c", 0),
        ("say {a,b}", 0),
        ("say a#b # a comment", 0),
        ("say x # it's a comment", 0),
        ("say ! if then fi", 0),
        ("./bin/say path", 0),
        ("~/bin/say home", 0),
        ("$HOME/bin/say home", 0),
        ("$NONE/bin/false", None),
        ('"bin/a b/say" quoted', 0),
        ("bin/a\\ b/say escaped", 0),
        ("'bin/a b/say' quoted", 0),
        ('"$DIR/a b/say" both', 0),
        ("env A=1 say env", 0),
        ("fail", 7),
        ("no-mark", 0),
        ("missing-program", 127),
        ("./missing/program", 127),
        ("./bin/plain", 126),
        ("./bin", 126),
        ("sh -c 'exit 3'", 3),
        ("sh -c 'kill -9 $$'", None),
    ],
)
def test_exec_means_the_same_to_the_real_shell(sandbox: Path, command: str, code: int | None) -> None:
    assert is_simple(command)
    output, plain_code = _sh(command, sandbox)
    exec_output, exec_code = _sh(shell_argv(command)[2], sandbox)
    assert exec_output == output
    # Killed by signal n the program is known as -n itself, and as 128 + n to a shell in between.
    assert exec_code in (plain_code, 128 - plain_code)
    assert code in (None, plain_code)


@pytest.mark.parametrize("command", ["cd home && say x", "A=1 say x", "say x; say y", "say a | cat", "exec say x"])
def test_the_shell_stays_where_exec_would_differ(sandbox: Path, command: str) -> None:
    assert _sh(shell_argv(command)[2], sandbox) == _sh(command, sandbox)


# --- further arguments -----------------------------------------------------------------------------------------------


def _with(command: str, *arguments: str) -> str:
    return with_arguments(ProcessType("web", command, SourceRef("Procfile", 3)), arguments).command


@pytest.mark.parametrize(
    ("command", "arguments", "output"),
    [
        ("say", ("a",), b"<say><a>\n"),
        ("say x", ("two words", "it's", "$HOME", "*", ""), b"<say><x><two words><it's><$HOME><*><>\n"),
        ("say x", ("a\nb",), b"<say><x><a\nb>\n"),
        ("say x", ("-v", "--", "-"), b"<say><x><-v><--><->\n"),
        ("fail || say b", ("z",), b"<say><b><z>\n"),
        ("say a && say b", ("z",), b"<say><a>\n<say><b><z>\n"),
        ("say a; say b", ("z",), b"<say><a>\n<say><b><z>\n"),
        ("say a & wait; say b", ("z",), b"<say><a>\n<say><b><z>\n"),
        ("say a | xargs -d '\\n' say", ("z",), b"<say><z><<say><a>>\n"),
        ("A=1 say a", ("z",), b"<say><a><z>\n"),
        ("exec say a", ("z",), b"<say><a><z>\n"),
        ("cd home && ../bin/say", ("z",), b"<say><z>\n"),
        ("say $PORT", ("z",), b"<say><5000><z>\n"),
        ("say ${PORT}", ("z",), b"<say><5000><z>\n"),
        ("say -b :${PORT}", ("z",), b"<say><-b><:5000><z>\n"),
        ("say ${MISSING:-5000}", ("z",), b"<say><5000><z>\n"),
        ('say "${PORT}"', ("z",), b"<say><5000><z>\n"),
        ("say $(echo 4)", ("z",), b"<say><4><z>\n"),
        ('say "$(echo 4)"', ("z",), b"<say><4><z>\n"),
        ("say `echo 4`", ("z",), b"<say><4><z>\n"),
        ("say 'a # b'", ("z",), b"<say><a # b><z>\n"),
        ('say "a # b;"', ("z",), b"<say><a # b;><z>\n"),
        ("say a#b", ("z",), b"<say><a#b><z>\n"),
        ("say \\#", ("z",), b"<say><#><z>\n"),
        ("say $#", ("z",), b"<say><0><z>\n"),
        ("say 'a;' ';'", ("z",), b"<say><a;><;><z>\n"),
        ("say a\\;", ("z",), b"<say><a;><z>\n"),
        ("say a\\&", ("z",), b"<say><a&><z>\n"),
        ("say 'x > y'", ("z",), b"<say><x > y><z>\n"),
        ("say done", ("z",), b"<say><done><z>\n"),
        ("say fi", ("z",), b"<say><fi><z>\n"),
        ("say }", ("z",), b"<say><}><z>\n"),
        ("say < /dev/null x", ("z",), b"<say><x><z>\n"),
        ("if true; then say a; fi; say b", ("z",), b"<say><a>\n<say><b><z>\n"),
        ("(say a); say b", ("z",), b"<say><a>\n<say><b><z>\n"),
    ],
)
def test_arguments_reach_the_last_command(
    sandbox: Path, command: str, arguments: tuple[str, ...], output: bytes
) -> None:
    assert _sh(_with(command, *arguments), sandbox) == (output, 0)


@pytest.mark.parametrize(
    ("command", "ending"),
    [
        ("run &", '"&"'),
        ("run & ", '"&"'),
        ("run &&", '"&"'),
        ("run;", '";"'),
        ("run |", '"|"'),
        ("run ||", '"|"'),
        ("run # comment", "a comment"),
        ("run #", "a comment"),
        ("# all of it", "a comment"),
        ("run;# comment", "a comment"),
        ("run &# comment", "a comment"),
        ("run 'a' # b", "a comment"),
        ("run > log", "a redirection"),
        ("run >log", "a redirection"),
        ("run >> log", "a redirection"),
        ("run 2>&1", "a redirection"),
        ("run > log 2>&1", "a redirection"),
        ("run < in", "a redirection"),
        ('run > "my log"', "a redirection"),
        ("(run)", "a subshell"),
        ("(run; run )", "a subshell"),
        ("{ run; }", '"}"'),
        ("if a; then b; fi", '"fi"'),
        ("while a; do b; done", '"done"'),
        ("case a in a) b;; esac", '"esac"'),
        ("run 'open", "an open quotation"),
        ('run "open', "an open quotation"),
        ("run open\\", "an open quotation"),
        ('run "a\\"', "an open quotation"),
    ],
)
def test_arguments_that_would_go_astray_are_refused(command: str, ending: str) -> None:
    with pytest.raises(ProcfileError) as raised:
        _with(command, "x")
    assert str(raised.value) == (
        f'Procfile:3: "web" ends in {ending}, so further arguments would go astray'
        ' — put the command into a script that uses "$@"'
    )
    assert raised.value.exit_code == 65


def test_without_arguments_nothing_is_refused() -> None:
    assert _with("run > log &") == "run > log &"


@pytest.mark.parametrize("command", ["A=1", "run; A=1", "A=1 B=2"])
def test_arguments_of_an_assignment_are_refused(command: str) -> None:
    """They would be run as a command."""
    with pytest.raises(ProcfileError):
        _with(command, "rm")


# --- resolve ---------------------------------------------------------------------------------------------------------

PROCFILE = b"web: run -p $PORT\nworker: A=1 work\nmail-out: mail; more\n"
TYPES = parse_procfile(PROCFILE, "Procfile").types
SETTINGS = Settings(root="/app")
IDENTITY = {"PS", "HONCHO_PROCESS_NAME", "FOREMAN_WORKER_NAME", "PROCMAN_PROCESS"}


def _dotenv(text: str) -> Mapping[str, Binding]:
    return merged([parse_env(text.encode(), ".env")])


def _resolve(
    counts: Mapping[str, int],
    dotenv: str = "",
    settings: Settings = SETTINGS,
    caller: Mapping[str, str] | None = None,
) -> dict[str, ProcessSpec]:
    every = {entry.name: counts.get(entry.name, 0) for entry in TYPES}
    return {spec.name: spec for spec in resolve(TYPES, _dotenv(dotenv), every, settings, caller or {})}


def test_one_spec_for_each_instance_in_procfile_order() -> None:
    specs = _resolve({"mail-out": 1, "web": 2})
    assert list(specs) == ["web.1", "web.2", "mail-out.1"]
    assert [(spec.process_type, spec.instance, spec.type_index) for spec in specs.values()] == [
        ("web", 1, 0),
        ("web", 2, 0),
        ("mail-out", 1, 2),
    ]


def test_all_that_a_spec_says() -> None:
    web = _resolve({"web": 1})["web.1"]
    assert web == ProcessSpec(
        name="web.1",
        process_type="web",
        instance=1,
        type_index=0,
        command="run -p $PORT",
        argv=("/bin/sh", "-c", "exec run -p $PORT"),
        shared_env=web.shared_env,
            own_env=web.own_env,
        cwd="/app",
        port=5000,
        stop_signal=signal.SIGTERM,
        grace_s=5.0,
        restart=web.restart,
        on_exit="stop",
        source=SourceRef("Procfile", 1),
    )
    assert web.restart.mode == NEVER
    assert _resolve({"worker": 1})["worker.1"].argv == ("/bin/sh", "-c", "A=1 work")


def test_ports_count_all_entries_of_the_procfile() -> None:
    specs = _resolve({"web": 2, "worker": 1, "mail-out": 1})
    assert [spec.port for spec in specs.values()] == [5000, 5001, 5100, 5200]
    assert [spec.env["PORT"] for spec in specs.values()] == ["5000", "5001", "5100", "5200"]
    assert _resolve({"mail-out": 1})["mail-out.1"].port == 5200
    moved = SETTINGS._replace(base_port=7000, port_step=10)
    assert _resolve({"worker": 2}, settings=moved)["worker.2"].port == 7011


def test_no_port() -> None:
    spec = _resolve({"web": 1}, settings=SETTINGS._replace(base_port=None))["web.1"]
    assert spec.port is None
    assert not [name for name in spec.env if name.startswith("PORT")]


def test_ports_that_clash_are_refused() -> None:
    with pytest.raises(ConfigError):
        _resolve({"web": 2, "worker": 1}, settings=SETTINGS._replace(port_step=1))


def test_identity() -> None:
    env = _resolve({"mail-out": 2})["mail-out.2"].env
    assert {env[name] for name in IDENTITY} == {"mail-out.2"}
    assert (env["PROCMAN_PROCESS_TYPE"], env["PROCMAN_INSTANCE"]) == ("mail-out", "2")


def test_instances_do_not_share_an_environment() -> None:
    specs = _resolve({"web": 2}, "A=1")
    assert (specs["web.1"].env["PS"], specs["web.2"].env["PS"]) == ("web.1", "web.2")
    assert specs["web.1"].env["A"] == specs["web.2"].env["A"] == "1"


def test_neighbours_ports() -> None:
    env = _resolve({"worker": 2})["worker.2"].env
    assert (env["PORT_WEB"], env["PORT_WORKER"], env["PORT_MAIL_OUT"]) == ("5000", "5100", "5200")


def test_dotenv_wins_over_a_neighbours_port_but_not_over_the_own() -> None:
    env = _resolve({"web": 1}, "PORT_WORKER=elsewhere\nPORT=9\nPS=no\nPROCMAN_INSTANCE=no")["web.1"].env
    assert env["PORT_WORKER"] == "elsewhere"
    assert (env["PORT"], env["PS"], env["PROCMAN_INSTANCE"]) == ("5000", "web.1", "1")


def test_overlay_holds_nothing_of_the_caller() -> None:
    env = _resolve({"web": 1}, "A=1", caller={"HOME": "/root", "SECRET": "x"})["web.1"].env
    assert "HOME" not in env
    assert "SECRET" not in env
    assert env["A"] == "1"


@pytest.mark.parametrize(("dotenv_wins", "seen"), [(True, "file"), (False, None)])
def test_who_wins(dotenv_wins: bool, seen: str | None) -> None:
    settings = SETTINGS._replace(dotenv_wins=dotenv_wins)
    env = _resolve({"web": 1}, "A=file\nB=file", settings, {"A": "caller", "C": "caller"})["web.1"].env
    assert env.get("A") == seen
    assert env["B"] == "file"


def test_empty_value_of_the_caller_wins_too() -> None:
    env = _resolve({"web": 1}, "A=file", SETTINGS._replace(dotenv_wins=False), {"A": ""})["web.1"].env
    assert "A" not in env


@pytest.mark.parametrize(
    ("dotenv", "caller", "value"),
    [("", {}, "1"), ("", {"PYTHONUNBUFFERED": ""}, None), ("PYTHONUNBUFFERED=0", {}, "0")],
)
def test_unbuffered(dotenv: str, caller: dict[str, str], value: str | None) -> None:
    assert _resolve({"web": 1}, dotenv, caller=caller)["web.1"].env.get("PYTHONUNBUFFERED") == value


def test_policies() -> None:
    settings = SETTINGS._replace(grace_s=2.0, on_exit="fail", can_die=("worker",), restart=("mail-out",))
    specs = _resolve({"web": 1, "worker": 1, "mail-out": 1}, settings=settings)
    assert {spec.grace_s for spec in specs.values()} == {2.0}
    assert [spec.on_exit for spec in specs.values()] == ["fail", "ignore", "fail"]
    assert [spec.restart.mode for spec in specs.values()] == [NEVER, NEVER, ALWAYS]
    every = _resolve({"web": 1, "worker": 1}, settings=SETTINGS._replace(restart=("all",)))
    assert {spec.restart.mode for spec in every.values()} == {ALWAYS}


def test_settings_of_a_type() -> None:
    own = ProcessSettings(
        SourceRef("procman.toml", 3),
        restart="on-failure",
        on_exit="ignore",
        grace_s=30.0,
        stop_signal=signal.SIGINT,
        env={"A": "type", "B": "type"},
    )
    specs = _resolve({"web": 1, "worker": 1}, "A=file", SETTINGS._replace(processes={"worker": own}))
    worker, web = specs["worker.1"], specs["web.1"]
    assert (worker.restart.mode, worker.on_exit, worker.grace_s) == (ON_FAILURE, "ignore", 30.0)
    assert worker.stop_signal == signal.SIGINT
    assert worker.env["B"] == "type"
    assert (web.restart.mode, web.on_exit, web.grace_s, web.stop_signal) == (NEVER, "stop", 5.0, signal.SIGTERM)
    assert "B" not in web.env


# --- what the system cannot pass on ---


def test_longest_value() -> None:
    longest = "x" * (MAX_STRING_BYTES - len("NAME=") - 1)
    assert _resolve({"web": 1}, f"NAME={longest}")["web.1"].env["NAME"] == longest
    with pytest.raises(ConfigError) as raised:
        _resolve({"web": 1}, f"A=1\nNAME={longest}x")
    assert str(raised.value) == (
        ".env:2: the value of NAME is too long: 131073 bytes, and the system passes on 131072"
        " — put it into a file and name the file here"
    )


def test_length_is_counted_in_bytes() -> None:
    with pytest.raises(ConfigError):
        _resolve({"web": 1}, f"NAME={'é' * (MAX_STRING_BYTES // 2)}")


def test_longest_command() -> None:
    for size, is_refused in ((MAX_STRING_BYTES - len("exec ") - 1, False), (MAX_STRING_BYTES - len("exec "), True)):
        entry = ProcessType("web", "r" * size, SourceRef("Procfile", 3))
        if is_refused:
            with pytest.raises(ProcfileError) as raised:
                resolve([entry], {}, {"web": 1}, SETTINGS, {})
            assert str(raised.value).startswith('Procfile:3: the command of "web" is too long')
        else:
            assert resolve([entry], {}, {"web": 1}, SETTINGS, {})[0].port == 5000


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="the limit is Linux's")
@pytest.mark.parametrize(("size", "fits"), [(MAX_STRING_BYTES - 1, True), (MAX_STRING_BYTES, False)])
def test_the_limit_is_the_kernels(size: int, fits: bool) -> None:
    try:
        pid = os.posix_spawn("/bin/sh", ["sh", "-c", ":"], {"A": "x" * (size - 2)})
    except OSError:
        assert not fits
    else:
        assert os.waitpid(pid, 0)[1] == 0
        assert fits


# --- one-offs --------------------------------------------------------------------------------------------------------


def _one_off(entry: ProcessType, dotenv: str = "", settings: Settings = SETTINGS) -> ProcessSpec:
    return resolve_one_off(entry, TYPES, _dotenv(dotenv), settings, {})


def test_one_off_of_an_entry_is_what_start_gives_but_for_its_identity() -> None:
    started = _resolve({"worker": 1}, "A=1")["worker.1"]
    spec = _one_off(TYPES[1], "A=1")
    assert spec.name == "run.1"
    assert (spec.port, spec.argv, spec.cwd) == (5100, started.argv, started.cwd)
    assert {spec.env[name] for name in IDENTITY} == {"run.1"}
    assert spec.env["PROCMAN_PROCESS_TYPE"] == "run"
    differing = {name for name in started.env if started.env[name] != spec.env.get(name)}
    assert differing == IDENTITY | {"PROCMAN_PROCESS_TYPE"}
    assert spec.env.keys() == started.env.keys()


def test_one_off_of_another_command_has_no_port_but_its_neighbours() -> None:
    spec = _one_off(ProcessType("manage.sh", "manage.sh migrate", SourceRef("command line")))
    assert spec.port is None
    assert "PORT" not in spec.env
    assert spec.env["PORT_WORKER"] == "5100"
    assert spec.env["PS"] == "run.1"


def test_one_off_with_no_port() -> None:
    spec = _one_off(TYPES[0], settings=SETTINGS._replace(base_port=None))
    assert spec.port is None
    assert not [name for name in spec.env if name.startswith("PORT")]


def test_one_off_does_not_care_for_a_clash_of_others() -> None:
    assert _one_off(TYPES[1], settings=SETTINGS._replace(port_step=1)).port == 5001


def test_one_off_that_is_too_long() -> None:
    with pytest.raises(ProcfileError):
        _one_off(TYPES[0]._replace(command="r" * MAX_STRING_BYTES))


# --- the name column -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "width"),
    [
        ({}, 6),
        ({"a": 1}, 6),
        ({"web": 1}, 6),  # as "system"
        ({"web": 10}, 6),
        ({"web": 100}, 7),
        ({"worker": 1}, 8),
        ({"worker": 9}, 8),
        ({"worker": 10}, 9),
        ({"web": 10, "worker": 1}, 9),  # the longest name with the digits of the largest count
        ({"web": 1, "worker": 0}, 8),  # types that do not run count, too
        ({"web": 0}, 6),
    ],
)
def test_name_width_is_foremans(counts: dict[str, int], width: int) -> None:
    assert name_width(counts) == width


# --- probes ----------------------------------------------------------------------------------------------------------

LINE = SourceRef("procman.toml", 3)
MIGRATING = [ProcessType(name, "run", SourceRef("Procfile", at)) for at, name in enumerate(("web", "mig"), 1)]


def resolved(section: ProcessSettings, **settings: object) -> ProcessSpec:
    said = Settings("/app", processes={"mig": section})._replace(**settings)
    return resolve(MIGRATING, {}, {"web": 1, "mig": 1}, said, {})[-1]


def test_a_release_step_that_somebody_needs_is_needed_done() -> None:
    spec = resolved(ProcessSettings(LINE, phase="release"))
    assert spec.ready is not None
    assert spec.ready.is_by_end
    assert spec.on_exit == "fail"  # its end is not that of the run
    assert resolved(ProcessSettings(LINE)).ready is None


@pytest.mark.parametrize("settings", [{}, {"restart": ("all",)}, {"restart": ("mig",)}])
def test_what_is_there_to_end_does_not_begin_again_behind_a_success(settings: dict[str, object]) -> None:
    section = ProcessSettings(LINE, ready=Probe(COMPLETED, LINE), restart=None if settings else ALWAYS)
    assert resolved(section, **settings).restart.mode == ON_FAILURE


@pytest.mark.parametrize("kind", [PORT, HTTP])
@pytest.mark.parametrize("key", ["ready", "liveness"])
def test_a_port_that_nobody_gives_cannot_be_asked(kind: str, key: str) -> None:
    asked = ProcessSettings(LINE)._replace(**{key: Probe(kind, LINE)})
    with pytest.raises(ConfigError, match=r"procman\.toml:3: mig has no port of its own to be asked on"):
        resolved(asked, base_port=None)
    resolved(ProcessSettings(LINE)._replace(**{key: Probe(kind, LINE, port=80)}), base_port=None)
