"""The command line itself: help, mistakes, and errors that are lines and never tracebacks (architecture 8)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import procman
from tests.support.app import App

COMMANDS = (
    *("start", "run", "ps", "top", "logs", "attach", "stop", "restart", "reload", "scale", "signal", "wait", "quit"),
    *("check", "env", "services", "completion", "version"),
)


def test_version(app: App) -> None:
    run = app.call("version")
    assert (run.code, run.text) == (0, f"procman {procman.__version__}\n")


def test_help_names_every_command(app: App) -> None:
    for option in ("--help", "-h"):
        run = app.call(option)
        assert run.code == 0
        assert run.text.startswith("Usage: procman ")
        for command in COMMANDS:
            assert re.search(rf"^  {command} +\w", run.text, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_has_examples(app: App, command: str) -> None:
    for option in ("--help", "-h"):
        run = app.call(command, option)
        assert run.code == 0
        assert run.text.startswith(f"Usage: procman {command}")
        assert re.search(rf"Examples?:\n +procman {command}\b", run.text)
        assert run.err == b""


def test_help_needs_no_files(app: App) -> None:
    assert not list(app.root.iterdir())
    assert app.call("start", "--help").code == 0
    assert app.call("-f", "missing", "start", "--help").code == 0


def test_options_shown_in_help_are_those_of_the_contract(app: App) -> None:
    text = app.call("start", "--help").text
    for option in (
        "-f", "-d", "-e", "-p", "-m", "-c", "-t", "-q", "--formation", "--concurrency", "--timeout", "--color",
        "--colour", "--no-color", "--no-colour", "--no-timestamp", "--no-prefix", "--raw", "--pty", "--no-pty",
        "--sink", "--can-die", "--on-exit", "--restart", "--no-port", "--no-override", "--env-wins", "--port-step",
    ):  # fmt: skip
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", text), option


def test_no_command_shows_the_help_and_is_wrong_usage(app: App) -> None:
    run = app.call()
    assert run.code == 2
    assert "Usage: procman" in run.text + run.err_text


@pytest.mark.parametrize("words", [("frobnicate",), ("start", "--frobnicate"), ("--frobnicate",), ("version", "x")])
def test_wrong_usage_is_2(app: App, words: tuple[str, ...]) -> None:
    run = app("web: touch started").call(*words)
    assert run.code == 2
    assert run.out == b""
    assert "Usage: procman" in run.err_text
    assert words[-1] in run.err_text
    assert not (app.root / "started").exists()


def test_bare_c_names_color(app: App) -> None:
    """Foreman's -c forces colour, Honcho's is the concurrency (contract B9)."""
    run = app("web: touch started").call("start", "-c")
    assert run.code == 2
    assert "--color" in run.err_text
    run = app.call("start", "-c", "web")  # Foreman: colour, and the type web
    assert run.code == 2
    assert not (app.root / "started").exists()


@pytest.mark.parametrize("option", ["--can-die", "--restart", "-q"])
def test_unknown_types_in_options_are_refused(app: App, option: str) -> None:
    run = app("web: touch started").start(option, "wbe")
    assert run.wait() == 2
    assert 'did you mean "web"?' in run.err_text
    assert not (app.root / "started").exists()


@pytest.mark.parametrize(
    ("procfile", "words", "code"),
    [
        (None, ("start",), 66),
        (None, ("run", "echo"), 66),
        ("no colon\n", ("start",), 65),
        ("no colon\n", ("run", "echo"), 65),
        ("web: true\nweb: true\n", ("start",), 65),
        ("web:\n", ("start",), 65),
        ("web: true\0\n", ("start",), 65),
        ("web: \udcff\n", ("start",), 65),
    ],
)
def test_errors_are_lines(app: App, procfile: str | None, words: tuple[str, ...], code: int) -> None:
    if procfile is not None:
        app.write("Procfile", procfile.encode("utf-8", "surrogateescape"))
    run = app.call(*words)
    assert run.code == code
    assert run.out == b""
    assert run.err_text.startswith("Procfile")
    assert "Traceback" not in run.err_text
    assert "bug" not in run.err_text


def test_a_command_too_long_for_the_system(app: App) -> None:
    run = app("web: true " + "x" * 131_072).start()
    assert run.wait() == 65
    assert "Procfile:1" in run.err_text


@pytest.mark.skipif(
    os.geteuid() == 0 and subprocess.run(["unshare", "-U", "true"], capture_output=True).returncode != 0,
    reason="root may enter every directory, and there is no user namespace to lose that in",
)
def test_a_directory_that_cannot_be_entered(app: App) -> None:
    app("web: touch started")
    app.write("closed/.keep", "").parent.chmod(0)
    try:
        without_rights = ["unshare", "-U"] if os.geteuid() == 0 else []
        run = app.spawn([*without_rights, sys.executable, "-m", "procman", "start", "-d", "closed", "-f", "Procfile"])
        assert run.wait() not in (0, 70)
        assert "closed" in run.err_text
        assert "bug" not in run.err_text
    finally:
        (app.root / "closed").chmod(0o755)


def test_a_name_that_is_no_utf8(app: App) -> None:
    directory = os.fsencode(app.root) + b"/caf\xe9"
    os.mkdir(directory)
    Path(os.fsdecode(directory), "Procfile").write_text("web: pwd\n")
    run = app.start("-d", os.fsdecode(b"caf\xe9"))
    assert run.wait() == 0
    assert b"/caf\xe9\n" in run.out


@pytest.mark.parametrize("words", [("version",), ("--help",), ("start", "--help")])
def test_output_that_cannot_be_written(app: App, words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        run = app.call(*words, stdout=full.fileno())
    assert run.code not in (0, 70)
    assert "Traceback" not in run.err_text
    assert "bug" not in run.err_text


def test_a_reader_that_left_is_no_traceback(app: App) -> None:
    run = app.spawn(["bash", "-c", f"{sys.executable} -m procman --help | true; echo code ${{PIPESTATUS[0]}}"])
    run.wait()
    assert run.err == b""
    assert run.text in ("code 0\n", "code 141\n")


def test_errors_with_stderr_closed(app: App) -> None:
    run = app.spawn(["sh", "-c", f"exec {sys.executable} -m procman start -f missing 2>&-"])
    assert run.wait() == 66
    assert run.out == b""


def test_ctrl_c_before_anything_started(app: App) -> None:
    """While it waits for a Procfile on stdin."""
    reader, writer = os.pipe()
    run = app.procman("start", "-f", "-", stdin=reader)
    os.close(reader)
    status = Path(f"/proc/{run.pid}/wchan")
    while "pipe" not in status.read_text():
        assert run.code is None
    run.signal(signal.SIGINT)
    assert run.wait() == 130
    assert "Traceback" not in run.err_text
    os.close(writer)


def test_python_m_is_the_same(app: App) -> None:
    command = Path(sys.executable).with_name("procman")
    for words in (["--help"], ["start", "--help"], ["run"], ["start", "wbe"]):
        app("web: true")
        first, second = app.spawn([str(command), *words]), app.procman(*words)
        assert first.wait() == second.wait()
        assert (first.out, first.err) == (second.out, second.err)
