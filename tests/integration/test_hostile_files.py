"""Files that are no files, or no text: one clear line, the right exit code, no traceback, bounded time and memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.app import App, Run

# Where a file of ours stands: its name, and the exit code of one that is there and cannot be read as text.
PLACES = {"Procfile": 65, ".env": 65, "procman.toml": 78, "pyproject.toml": 78, ".foreman": 78}
WHOLE = {
    "Procfile": "web: true\n",
    ".env": "A=1\n",
    "procman.toml": "port = 7000\n",
    "pyproject.toml": "[tool.procman]\nport = 7000\n",
    ".foreman": "port: 7000\n",
}


@pytest.fixture
def app(app: App) -> App:
    """`check` has nothing to warn of: dependencies are declared."""
    app.write("requirements.txt", "")
    return app


def app_without(app: App, name: str) -> Path:
    """Write all files of an app but one; return the path of that one."""
    for other, text in WHOLE.items():
        app.write(other, text)
    (app.root / name).unlink()
    return app.root / name


def refused(run: Run, code: int, *starts: str) -> None:
    """The command ended with `code` and said these lines and nothing else."""
    run.wait()
    lines = run.err_text.splitlines()
    assert run.code == code, run.text + run.err_text
    assert run.out == b""
    assert len(lines) == len(starts), run.err_text
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True)), run.err_text


def link_loop(path: Path) -> None:
    path.symlink_to(path.name)


def dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**30)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "directory": (Path.mkdir, "is a directory"),
    "loop": (link_loop, "too many levels of symbolic links"),
    "dangling": (dangling_link, "a link that leads to no file"),
    "sparse": (sparse, "more than 16 MiB — is this the right file?"),
    "endless": (endless, "more than 16 MiB — is this the right file?"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("name", PLACES)
def test_no_file_to_read(app: App, name: str, kind: str) -> None:
    make, text = UNREADABLE[kind]
    make(app_without(app, name))
    run = app.call("check")
    if kind == "directory" and name == ".foreman":  # where Foreman looks for the user's own templates
        assert (run.code, run.text) == (0, "valid procfile detected (web)\n")
    else:
        refused(run, 66, f"{name}: {text}")


@pytest.mark.parametrize("option", ["-f", "-e"])
@pytest.mark.parametrize("kind", UNREADABLE)
def test_no_file_to_read_behind_an_option(app: App, kind: str, option: str) -> None:
    make, text = UNREADABLE[kind]
    make(app("web: touch started\n").root / "odd")
    for command in (("check",), ("start",), ("run", "true"), ("env",)):
        refused(app.call(*command[:1], option, "odd", *command[1:]), 66, f"odd: {text}")
    assert not (app.root / "started").exists()


BYTES = {
    "UTF-16": (WHOLE["Procfile"].encode("utf-16"), "the file is UTF-16, not UTF-8 — save the file as UTF-8"),
    "UTF-16 without its mark": ("web: x procman\n".encode("utf-16-be"), "NUL in the first character: UTF-16"),
    "UTF-32": (WHOLE["Procfile"].encode("utf-32"), "the file is UTF-32, not UTF-8 — save the file as UTF-8"),
    "NUL": (b"# procman\n# a\0b\n", "NUL character — remove it"),
    "Latin-1": (b"# procman\n# caf\xe9\n", "not UTF-8 — save the file as UTF-8"),
}


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("name", PLACES)
def test_no_text(app: App, name: str, kind: str) -> None:
    data, text = BYTES[kind]
    app_without(app, name).write_bytes(data)
    run = app.call("check")
    if name == "pyproject.toml" and b"procman" not in data:
        assert run.code == 0  # it says nothing to us, and other tools will say the rest
    else:
        place = {"NUL": ":2:4", "Latin-1": ":2:6", "UTF-16 without its mark": ":1"}.get(kind, "")
        assert run.code == PLACES[name]
        assert run.err_text.splitlines()[0].startswith(f"{name}{place}: {text}")
        assert "Traceback" not in run.err_text


# --- who may not read ---


def as_nobody(app: App, *words: str) -> Run:
    argv = [sys.executable, "-m", "procman", *words]
    if os.geteuid() == 0:
        argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *argv]
    return app.spawn(argv)


def can_be_nobody() -> bool:
    """Tell whether a user without rights can run this Python and enter the directories of tests."""
    if os.geteuid() != 0:
        return True
    if not shutil.which("setpriv"):
        return False
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", "import procman"]
    return subprocess.run(command, capture_output=True, cwd=Path(__file__).parents[2]).returncode == 0


@pytest.fixture
def shared() -> Iterator[App]:
    """An app in a directory that others may enter; pytest keeps them out of its own."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        built = App(Path(directory), 5000)
        built.root.chmod(0o755)
        yield built
        assert built.close() == {}


@pytest.mark.skipif(not can_be_nobody(), reason="root may read everything, and there is no setpriv to be somebody else")
@pytest.mark.parametrize("name", PLACES)
def test_no_right_to_read(shared: App, name: str) -> None:
    app_without(shared, name).write_text(WHOLE[name])
    (shared.root / name).chmod(0)
    refused(as_nobody(shared, "check"), 66, f"{name}: permission denied")


@pytest.mark.skipif(not can_be_nobody(), reason="root may read everything, and there is no setpriv to be somebody else")
def test_no_right_to_enter(shared: App) -> None:
    shared("web: true\n", requirements__txt="").write("closed/sub/Procfile", "web: true\n")
    (shared.root / "closed").chmod(0o700 if os.geteuid() == 0 else 0)
    try:
        refused(as_nobody(shared, "check", "-d", "closed/sub"), 66, "closed/sub: permission denied — give another one")
        refused(as_nobody(shared, "check", "-f", "closed/Procfile"), 66, "closed/Procfile: permission denied — given")
        refused(as_nobody(shared, "check", "-e", "closed/x"), 66, "closed/x: permission denied — given with -e")
    finally:
        (shared.root / "closed").chmod(0o755)


# --- pipes ---


def write_to_reader(fifo: Path, text: str) -> None:
    """Write once somebody reads, without waiting for that here."""
    threading.Thread(target=fifo.write_text, args=(text,), daemon=True).start()


@pytest.mark.parametrize("name", PLACES)
def test_a_fifo_is_read_once(app: App, name: str) -> None:
    """A second look would wait for ever: whoever writes has gone."""
    fifo = app_without(app, name)
    os.mkfifo(fifo)
    run = app.procman("check")
    write_to_reader(fifo, WHOLE[name])
    assert run.wait() == 0
    assert run.text == "valid procfile detected (web)\n"


def test_a_fifo_is_read_once_for_a_run(app: App) -> None:
    app("web: echo $A; echo $B\n")
    for name in ("a.env", "b.env"):
        os.mkfifo(app.root / name)
    run = app.start("-e", "a.env,b.env,a.env")
    write_to_reader(app.root / "a.env", "A=1\nB=1\n")
    write_to_reader(app.root / "b.env", "A=2\nB=2\n")
    assert run.wait() == 0
    assert run.output_of("web.1") == ["1", "1"]


def test_a_fifo_that_nobody_writes_is_told(app: App) -> None:
    app("web: true\n")
    os.mkfifo(app.root / ".env")
    run = app.procman("check")
    run.wait_err("procman: waiting for somebody to write .env\n")
    write_to_reader(app.root / ".env", "A=1\n")
    assert run.wait() == 0
    assert run.text == "valid procfile detected (web)\n"


def test_process_substitution(app: App) -> None:
    app("web: true\n")
    script = f"{sys.executable} -m procman run -e <(echo A=1; echo B=1) -e <(echo B=2) sh -c 'echo $A $B'"
    run = app.spawn(["bash", "-c", script])
    assert run.wait() == 0
    assert run.text == "1 2\n"
    script = f"{sys.executable} -m procman check -f <(echo 'web: true') -e <(echo A)"
    run = app.spawn(["bash", "-c", script])
    assert run.wait() == 65
    assert run.err_text.startswith("/dev/fd/")


# --- standard input ---


def from_stdin(app: App, text: str, *words: str) -> Run:
    path = app.write("input", text)
    with path.open() as file:
        return app.call(*words, stdin=file.fileno())


def test_standard_input(app: App) -> None:
    app("web: echo file\n")
    assert from_stdin(app, "web: echo $PORT\n", "run", "-f", "-", "web").text == "5000\n"
    assert from_stdin(app, "A=1\n", "run", "-e", "-", "sh", "-c", "echo $A").text == "1\n"
    run = from_stdin(app, "A=1\nA\n", "check", "-e", "-")
    refused(run, 65, "standard input:2: this line has no '='")
    run = from_stdin(app, "web: true\nweb\n", "check", "-f", "-")
    refused(run, 65, "standard input:2: not an entry")
    run = from_stdin(app, "A=1\n", "env", "-e", "-", "--origin", "--no-caller")
    assert run.text.startswith("A=1  # -e standard input:1\n")


@pytest.mark.parametrize("words", [("-f", "-", "-e", "-"), ("-e", "-,-"), ("-e", "-", "-e", "-")])
def test_standard_input_for_two(app: App, words: tuple[str, ...]) -> None:
    app("web: true\n")
    for command in ("check", "start", "env"):
        refused(from_stdin(app, "", command, *words), 2, "standard input can be read only once")


def test_standard_input_that_is_none(app: App) -> None:
    app("web: true\n")
    refused(app.call("check", "-f", "-"), 65, "standard input: no process types")
    run = app.spawn(["sh", "-c", f"exec {sys.executable} -m procman check -f - <&-"])
    refused(run, 65, "standard input: no process types")


@pytest.mark.parametrize("name", ["-", "./-"])
def test_only_an_option_means_standard_input(app: App, name: str) -> None:
    app.write("-", "web: echo file named dash\n")
    app.write("procman.toml", f"procfile = '{name}'\n")
    assert from_stdin(app, "web: echo stdin\n", "run", "web").text == "file named dash\n"


# --- names ---


@pytest.mark.parametrize("option", ["-f", "-e"])
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb", "a\\nb: no such file"),
        ("a\x1b[2Jb", "a\\x1b[2Jb: no such file"),
        ("caf\udce9", "caf\\udce9: no such file"),
        ("x" * 300, f"{'x' * 300}: file name too long"),
    ],
)
def test_odd_names(app: App, option: str, name: str, shown: str) -> None:
    refused(app("web: true\n").call("check", option, name), 66, shown)


def test_no_name(app: App) -> None:
    refused(app("web: true\n").call("check", "-f", ""), 66, '"": no such file — given with -f')


# --- what it costs ---


@pytest.mark.parametrize("option", ["-f", "-e"])
@pytest.mark.parametrize("kind", ["sparse", "endless"])
def test_bounded_memory(app: App, kind: str, option: str) -> None:
    UNREADABLE[kind][0](app("web: true\n").root / "odd")
    ceiling = 256 * 2**20  # Python alone takes some 20 MB of it, and the 16 MiB that are read come twice at most
    limited = f"ulimit -v {ceiling // 1024}; exec {sys.executable} -m procman check {option} odd"
    refused(app.spawn(["sh", "-c", limited]), 66, "odd: more than 16 MiB")


LARGE = {
    "Procfile": ("web%d: run\n", 65, "Procfile: more than 1000 process types — is this the right file?"),
    ".env": ("A%d=1\n", 65, ".env: more than 100000 assignments and comments, so the rest was not read"),
    "procman.toml": ("a%d = 1\n", 66, "procman.toml: more than 1 MiB — is this the right file?"),
    "pyproject.toml": ("# procman %d\n", 66, "pyproject.toml: more than 1 MiB — is this the right file?"),
    ".foreman": ("a%d: 1\n", 66, ".foreman: more than 1 MiB — is this the right file?"),
}


@pytest.mark.parametrize("name", LARGE)
def test_ten_megabytes(app: App, name: str) -> None:
    line, code, said = LARGE[name]
    app_without(app, name).write_text("".join(line % number for number in range(1_000_000))[:10_000_000])
    refused(app.call("check"), code, said)


def test_many_sections_without_a_type(app: App) -> None:
    app("web: true\n").write("procman.toml", "".join(f"[process.w{number}]\n" for number in range(5000)))
    run = app.call("check")
    lines = run.err_text.splitlines()
    assert (run.code, len(lines)) == (78, 101)
    assert lines[-1] == "settings: 4900 more like these"


def test_a_large_pyproject_of_others(app: App) -> None:
    app("web: true\n").write("pyproject.toml", "[tool.other]\n" + "a.b.c = 1\n" * 1_000_000)
    assert app.call("check").code == 0
