"""`procman run`: a one-off in the environment of `start` (contract A5 to A7, architecture 5.13)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.support.app import App, Run

SIZE = (24, 80)


def output(app: App, *arguments: str, **kwargs: object) -> str:
    """Return the output of a one-off that ends well."""
    run = app.call("run", *arguments, **kwargs)
    assert run.code == 0, run.err_text
    return run.text


# --- which command ---


@pytest.mark.parametrize(
    ("command", "arguments", "shown"),
    [
        ("echo", ("a", "b"), "a b\n"),
        ("echo first", ("a b", "$HOME", "*", "'", '"', ";", ""), "first a b $HOME * ' \" ; \n"),
        ("echo one | cat", ("two",), None),  # reaches the last command: cat's file
        ("echo one && echo", ("two",), "one\ntwo\n"),
        ("echo one || echo", ("two",), "one\n"),
        ("cd . && echo $PS", ("--flag", "-x"), "run.1 --flag -x\n"),
        ("A=1 env | grep -x -e", ("A=1",), "A=1\n"),
        ("echo 'quoted ;'", ("a",), "quoted ; a\n"),
        ("echo \"#not\" '# a comment'", ("a",), "#not # a comment a\n"),
        ("echo a#b", ("c",), "a#b c\n"),
        ("echo $((1 + 1))", ("a",), "2 a\n"),
        ("echo ${PS}", ("a",), "run.1 a\n"),
        ("echo 2>&1 x", ("a",), "x a\n"),
        ("echo", ("a=1", "--", "-n"), "a=1 -- -n\n"),
        ("echo", ("--help",), "--help\n"),
        ("echo", ("line\nbreak", "ä"), "line\nbreak ä\n"),
    ],
)
def test_an_entry_with_further_arguments(app: App, command: str, arguments: tuple[str, ...], shown: str | None) -> None:
    app.write("two", "file two\n")
    app(f"other: true\nmanage: {command}")
    assert output(app, "manage", *arguments) == (shown or "file two\n")


@pytest.mark.parametrize(
    "command",
    [
        "sleep 0 &",
        "echo a;",
        "echo a # comment",
        "echo a >file",
        "echo a > file",
        "cat < Procfile",
        "echo a 2>&1",
        "echo a >> file",
        "(echo a)",
        "{ echo a; }",
        "if true; then echo a; fi",
        "for x in 1; do echo $x; done",
        "echo a |",
    ],
)
def test_arguments_that_would_go_astray_are_refused(app: App, command: str) -> None:
    app(f"manage: {command}")
    run = app.call("run", "manage", "migrate")
    assert run.code == 65
    assert run.out == b""
    assert "Procfile:1" in run.err_text
    assert '"$@"' in run.err_text
    assert not (app.root / "file").exists()


@pytest.mark.parametrize("command", ["echo a # comment", "echo a;", "(echo a)", "echo a 2>&1"])
def test_the_same_without_arguments_run(app: App, command: str) -> None:
    assert output(app(f"manage: {command}"), "manage") == "a\n"


def test_a_command(app: App) -> None:
    app("web: true")
    assert output(app, "echo", "a  b", "$HOME", "*", ";") == "a  b $HOME * ;\n"  # no shell in between
    assert output(app, sys.executable, "-S", "-c", "print('x')", "--version") == "x\n"
    assert output(app, "sh", "-c", "echo $0 $1", "zero", "one") == "zero one\n"


def test_a_type_beats_a_program_of_the_same_name(app: App) -> None:
    app("echo: printf 'type %s\\n'\n")
    assert output(app, "echo", "a") == "type a\n"
    assert output(app, "--", "echo", "a") == "a\n"
    assert output(app, "/bin/echo", "a") == "a\n"


def test_a_double_dash_later_is_the_commands(app: App) -> None:
    app("web: true")
    assert output(app, "printf", "%s ", "--", "a", "--", "b") == "-- a -- b "
    assert output(app, "--", "printf", "%s ", "--", "a") == "-- a "


def test_options_behind_the_first_word_are_the_commands(app: App) -> None:
    app("web: true", dotenv="A=1\n")
    assert output(app, "echo", "-f", "x", "-e", "y", "--verbose", "-p", "1") == "-f x -e y --verbose -p 1\n"
    assert output(app, "-e", "/dev/null", "echo", "-h") == "-h\n"


def test_verbose_shows_the_command(app: App) -> None:
    run = app("manage: echo one && echo").call("run", "--verbose", "manage", "a b")
    assert run.text == "one\na b\n"
    assert "echo one && echo 'a b'" in run.err_text
    run = app.call("run", "--verbose", "echo", "x")
    assert run.text == "x\n"
    assert "echo x" in run.err_text


def test_no_word_of_ours_in_its_output(app: App) -> None:
    run = app("web: echo out; echo err >&2").call("run", "web")
    assert (run.text, run.err_text) == ("out\n", "err\n")


def test_no_command_is_a_usage_error(app: App) -> None:
    app("web: true")
    assert app.call("run").code == 2
    assert app.call("run", "--").code == 2


def test_a_script_without_an_interpreter_line(app: App) -> None:
    app.write("script", 'echo "script $1"\n', mode=0o755)
    app("web: true")
    assert output(app, "./script", "a b") == "script a b\n"
    bin_directory = app.write("bin/tool", 'echo "tool $1"\n', mode=0o755).parent
    assert output(app, "tool", "a", env={"PATH": f"{bin_directory}:{app.env['PATH']}"}) == "tool a\n"


def test_the_path_of_the_env_file_counts(app: App) -> None:
    """As it does in `start`."""
    app.write("bin/tool", "#!/bin/sh\necho found\n", mode=0o755)
    app("web: tool", dotenv=f"PATH={app.root}/bin:{app.env['PATH']}\n")
    assert output(app, "tool") == "found\n"
    assert output(app, "web") == "found\n"
    run = app.start()
    run.wait()
    assert run.output_of("web.1") == ["found"]


# --- a formation ---


def test_a_formation_is_start(app: App) -> None:
    app("web: echo $PS $PORT\nworker: echo $PS $PORT\nclock: echo no\n")
    shown = []
    for command in ("run", "start"):
        run = app.procman(command, "-p", str(app.port), "web=2", "worker=1", "--on-exit", "ignore")
        assert run.wait() == 0
        shown.append(sorted(re.sub(r"\d\d:\d\d:\d\d|pid \d+", "", line) for line in run.lines))
    assert shown[0] == shown[1]
    assert any(f"web.2    | web.2 {app.port + 1}" in line for line in shown[0])


def test_options_of_start_in_a_formation(app: App) -> None:
    run = app(f"web: {app.child('term_ignore')}").procman("run", "web=1", "-t", "0.1", "--no-timestamp")
    run.wait_line(r"^web\.1  \| ignoring")
    run.signal(signal.SIGTERM)
    assert run.wait() == 1


@pytest.mark.parametrize(
    "words", [("web=2", "migrate"), ("web=2", "worker"), ("web=1", "echo", "x=1"), ("web=2", "--", "worker")]
)
def test_a_mix_is_a_usage_error(app: App, words: tuple[str, ...]) -> None:
    run = app("web: echo > started\nworker: true\n").call("run", *words)
    assert run.code == 2
    assert run.out == b""
    assert "web=2" in run.err_text or "web=1" in run.err_text
    assert not (app.root / "started").exists()


@pytest.mark.parametrize(("word", "code"), [("web=x", 2), ("wbe=1", 2), ("web=-1", 2), ("web=", 2)])
def test_a_formation_that_cannot_be(app: App, word: str, code: int) -> None:
    run = app("web: echo > started").call("run", word)
    assert run.code == code
    assert not (app.root / "started").exists()


# --- environment, directory, shell: those of start, but for the identity ---

IDENTITY = {
    "PS", "HONCHO_PROCESS_NAME", "FOREMAN_WORKER_NAME", "PROCMAN_PROCESS", "PROCMAN_PROCESS_TYPE", "PROCMAN_RUN",
    "_", "SHLVL",
}  # fmt: skip


def env_lines(lines: list[str]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_the_environment_is_that_of_start(app: App) -> None:
    app("clock: true\nweb: env\n", dotenv="FROM=file\nBOTH=file\nSPACES='a  b'\n")
    env = {"BOTH": "caller", "MINE": "1"}
    start = app.start("web", env=env)
    start.wait()
    started = env_lines(start.output_of("web.1"))
    ran = env_lines(output(app, "-p", str(app.port), "web", env=env).split("\n"))
    program = env_lines(output(app, "-p", str(app.port), "env", env=env).split("\n"))
    assert {**started, **dict.fromkeys(IDENTITY)} == {**ran, **dict.fromkeys(IDENTITY)}
    assert {**program, **dict.fromkeys(IDENTITY), "PORT": None} == {**ran, **dict.fromkeys(IDENTITY), "PORT": None}
    assert ran["PORT"] == started["PORT"] == str(app.port + 100)
    for one_off in (ran, program):
        assert one_off["PS"] == one_off["HONCHO_PROCESS_NAME"] == one_off["PROCMAN_PROCESS"] == "run.1"
        assert one_off["PORT_WEB"] == str(app.port + 100)
        assert (one_off["BOTH"], one_off["FROM"], one_off["SPACES"]) == ("file", "file", "a  b")


def test_a_program_has_no_port(app: App) -> None:
    app("web: env")
    assert "PORT" not in env_lines(output(app, "env").split("\n"))
    assert env_lines(output(app, "web").split("\n"))["PORT"] == "5000"


def test_the_directory_is_that_of_start(app: App) -> None:
    app.write("sub/Procfile", "web: pwd -P\n")
    app("web: pwd -P")
    for options in (("-d", "sub"), ("-f", "sub/Procfile")):
        for command in (("web",), ("pwd", "-P")):
            assert output(app, *options, *command) == f"{os.path.realpath(app.root)}/sub\n"
            run = app.call(*options, "run", *command)
            assert run.text == f"{os.path.realpath(app.root)}/sub\n"


def test_a_taken_port_does_not_hinder_a_one_off(app: App) -> None:
    assert output(app("web: echo $PORT"), "-p", str(app.port), "web") == f"{app.port}\n"


@pytest.mark.parametrize("arguments", [("-e", "missing"), ("-f", "missing"), ("-d", "missing")])
def test_missing_files(app: App, arguments: tuple[str, ...]) -> None:
    run = app("web: true").call("run", *arguments, "echo", "x")
    assert run.code == 66
    assert run.out == b""


# --- exit codes ---


@pytest.mark.parametrize("code", [0, 1, 2, 3, 64, 125, 255])
def test_the_exit_code_is_the_commands(app: App, code: int) -> None:
    app(f"web: exit {code}")
    assert app.call("run", "web").code == code
    assert app.call("run", "sh", "-c", f"exit {code}").code == code


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGPIPE, signal.SIGSEGV])
def test_death_by_a_signal_is_passed_on_as_it_is(app: App, signum: signal.Signals) -> None:
    app(f"web: kill -{signum.value} $$\nbehind: sh -c 'kill -{signum.value} $$'; exit $?\n")
    argv = [sys.executable, "-m", "procman", "run"]
    for words in (["web"], ["sh", "-c", f"kill -{signum.value} $$"]):
        done = subprocess.run([*argv, *words], cwd=app.root, env=app.env, capture_output=True)
        assert done.returncode == -signum.value  # a real signal: a shell shows 128 + n
    done = subprocess.run([*argv, "behind"], cwd=app.root, env=app.env, capture_output=True)
    assert done.returncode == 128 + signum.value


def test_not_found_and_not_executable(app: App) -> None:
    app.write("plain", "text\n")
    app("web: no-such-program\nplain: ./plain\n")
    for words, code, text in [
        (("no-such-program",), 127, "no-such-program: command not found"),
        (("./nothing",), 127, "./nothing"),
        (("./plain",), 126, "./plain: permission denied"),
        (("/",), 126, "/"),
        (("./plain/x",), 127, "./plain/x"),
        (("",), 127, ""),
    ]:
        run = app.call("run", "--", *words)
        assert (run.code, run.out) == (code, b""), words
        assert text in run.err_text
        assert "Traceback" not in run.err_text
    assert app.call("run", "web").code == 127
    assert app.call("run", "plain").code == 126


# --- signals, descriptors, terminal ---


def test_it_is_the_process_itself(app: App) -> None:
    run = app(f"web: {app.child('signals', 5)}").procman("run", "web")
    run.wait_line("up")
    run.signal(signal.SIGUSR1)
    run.wait_line("got SIGUSR1")
    run.signal(signal.SIGINT)
    run.wait_line("got SIGINT")
    run.signal(signal.SIGTERM)
    assert run.wait() == 5
    assert run.text == "up\ngot SIGUSR1\ngot SIGINT\ngot SIGTERM\n"


def test_signals_are_as_from_a_shell(app: App) -> None:
    app("web: exec grep ^Sig...: /proc/self/status")
    wanted = subprocess.run(["grep", "^Sig...:", "/proc/self/status"], capture_output=True, text=True).stdout
    assert output(app, "web") == wanted
    assert output(app, "grep", "^Sig...:", "/proc/self/status") == wanted


@pytest.mark.parametrize("name", ["HUP", "INT", "TERM"])
def test_what_the_caller_ignores_stays_ignored(app: App, name: str) -> None:
    app("web: grep ^SigIgn /proc/self/status")
    direct = ["sh", "-c", f'trap "" {name}; exec "$@"', "sh"]
    wanted = subprocess.run([*direct, "grep", "^SigIgn", "/proc/self/status"], capture_output=True, text=True).stdout
    run = app.spawn([*direct, sys.executable, "-m", "procman", "run", "web"])
    assert run.wait() == 0
    assert run.text == wanted


def test_no_descriptor_of_ours_is_left_open(app: App) -> None:
    app("web: ls /proc/self/fd")
    assert output(app, "web").split() == ["0", "1", "2", "3"]  # 3 is the directory that ls reads
    assert output(app, "ls", "/proc/self/fd").split() == ["0", "1", "2", "3"]


def test_stdin_stdout_stderr_are_the_callers(app: App) -> None:
    app("web: cat; echo err >&2")
    done = subprocess.run(
        [sys.executable, "-m", "procman", "run", "web"],
        cwd=app.root, env=app.env, input=b"every\0byte\xff", capture_output=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (b"every\0byte\xff", b"err\n")


def test_closed_standard_streams(app: App) -> None:
    app(f"web: {app.child('state', 'state.json')}")
    for closed in (">&-", "<&-", "<&- >&- 2>&-"):
        run = app.spawn(["sh", "-c", f"exec {sys.executable} -m procman run true {closed}"])
        assert run.wait() == 0, closed
        assert run.err == b""


def test_the_real_terminal_is_handed_through(app: App) -> None:
    run = app(f"web: {app.child('tty_info')}").procman("run", "web", size=SIZE)
    run.wait_line(r"^tty tty tty 80x24$")
    run.resize(30, 90)
    run.wait_line(r"^tty tty tty 90x30$")
    assert b"\x1b" not in run.out
    run.type("\x03")
    assert run.wait() == 130


def python(app: App) -> Run:
    """Type `procman run python3` at an interactive shell's prompt."""
    app("web: true")
    shell = app.spawn(["bash", "--noprofile", "--norc", "--noediting", "-i"], size=SIZE, env={"PS1": "shell> "})
    shell.wait_screen("shell>$")
    shell.type(f"{sys.executable} -m procman run {sys.executable} -q -S -E\n")
    shell.wait_screen(r">>>$")
    return shell


def leave(shell: Run) -> None:
    shell.type("exit\n")
    shell.wait()


def test_a_repl(app: App) -> None:
    shell = python(app)
    shell.type("import os; os.environ['PS'], 6 * 7\n")
    # Behind the prompt: an end of file typed before readline has taken the terminal over reaches it as a NUL.
    shell.wait_screen(r"\n\('run\.1', 42\)\n>>>$")
    shell.type("\x04")
    shell.wait_screen(r"shell>$")
    shell.type("echo code $?\n")
    shell.wait_screen("code 0")
    leave(shell)


def test_ctrl_c_in_a_repl_ends_the_statement_and_not_the_repl(app: App) -> None:
    shell = python(app)
    shell.type("import signal; print('wait' + 'ing'); signal.pause()\n")
    shell.wait_screen("waiting")
    shell.type("\x03")
    shell.wait_screen("KeyboardInterrupt")
    shell.type("'still' + ' here'\n")
    shell.wait_screen("'still here'")
    shell.type("raise SystemExit(7)\n")
    shell.wait_screen(r"shell>$")
    shell.type("echo code $?\n")
    shell.wait_screen("code 7")
    leave(shell)


def test_ctrl_z_and_fg_in_a_repl(app: App) -> None:
    shell = python(app)
    shell.type("x = 'kept'; x\n")
    shell.wait_screen(r"\n'kept'\n>>>$")  # Ctrl-Z throws away what is typed and not yet read
    shell.type("\x1a")
    shell.wait_screen(r"Stopped[^\n]*\n(.*\n)*shell>$")
    shell.type("jobs | wc -l\n")
    shell.wait_screen(r"\n1\n")
    shell.type("fg\n")
    shell.type("x + ' value'\n")
    shell.wait_screen(r"'kept value'\n>>>$")
    shell.type("\x04")
    shell.wait_screen(r"shell>$")
    leave(shell)


def test_ctrl_c_on_a_command_is_130_for_the_shell(app: App) -> None:
    app("web: echo here; exec sleep 1000")
    shell = app.spawn(["bash", "--noprofile", "--norc", "--noediting", "-i"], size=SIZE, env={"PS1": "shell> "})
    shell.wait_screen("shell>$")
    shell.type(f"{sys.executable} -m procman run web\n")
    shell.wait_screen("here")
    shell.type("\x03")
    shell.wait_screen(r"shell>$")
    shell.type("echo code $?\n")
    shell.wait_screen("code 130")
    leave(shell)


# --- while it waits for a backing service ---


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_ended_while_it_waits(app: App, signum: int) -> None:
    """Nothing is said of a time that is not over."""
    app("web: true", dotenv=f"U=tcp://127.0.0.1:{app.port}\n", procman__toml='[process.web]\nneeds = ["U"]\n')
    run = app.procman("run", "web")
    run.wait_err("waiting for U")
    run.signal(signum)
    assert run.wait() in (128 + signum, -signum)
    assert "did not answer" not in run.err_text
