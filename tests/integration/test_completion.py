"""Completion: what `procman completion` prints, tried at the prompt of the real shells, and the answers it asks for."""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.app import REPOSITORY, App, Run

COMMANDS = (
    *("start", "run", "check", "env", "services", "ps", "top", "logs", "attach", "stop", "restart", "reload", "scale"),
    *("signal", "wait", "quit", "completion", "version"),
)
SHELLS = ("bash", "zsh", "fish")
PROMPT = "READY> "
KILL_LINE, CLEAR_SCREEN = "\x15", "\x0c"
PROCFILE = "web: gunicorn app -b :$PORT\nworker: python work.py\nmanage: python manage.py\n"


# --- at a real prompt ------------------------------------------------------------------------------------------------


class Prompt:
    """An interactive shell on a terminal, at its prompt."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @property
    def line(self) -> str:
        """What stands before the cursor behind the last prompt: fish shows a suggestion after it."""
        screen = self.run.screen
        assert screen is not None
        start = 0 if screen.cursor.y == 0 else screen.cursor.y - 1  # a long line goes over two
        last = screen.display[screen.cursor.y][: screen.cursor.x]
        return "".join([*screen.display[start : screen.cursor.y], last])

    def shows(self, line: str) -> None:
        """Wait until the line before the cursor is exactly this, to the last blank."""
        self.run.wait_until(lambda: self.line.endswith(f"{PROMPT}{line}"), f"line {line!r}")

    def press(self, keys: str, line: str) -> None:
        """Type at the empty prompt, and wait for what becomes of the line; then empty it.

        One key more tells that the shell is through with the others.
        """
        self.run.type(keys + ".")
        self.shows(line + ".")
        self.clear()

    def lists(self, keys: str, pattern: str, without: str = "") -> None:
        """Type, and wait for the list of choices."""
        self.run.type(keys)
        self.run.wait_screen(pattern)
        if without:
            assert not re.search(without, self.run.screen_text)
        self.clear()

    def clear(self) -> None:
        """Leave the line, and have an empty screen for the next one."""
        self.run.type(KILL_LINE + CLEAR_SCREEN)
        self.run.wait_screen(rf"\A{PROMPT.rstrip()}\Z")
        self.shows("")

    def enter(self, command: str) -> None:
        """Run a command that prints nothing."""
        self.run.type(f"{command}\r")
        self.shows("")


def write_home(app: App, shell: str) -> Path:
    """Make a home directory in which only the prompt is set."""
    home = app.root / "home"
    if shell == "bash":
        app.write("home/.bashrc", f"PS1='{PROMPT}'\nbind 'set bell-style none' 'set show-all-if-ambiguous on'\n")
    elif shell == "zsh":
        app.write("home/.zshrc", f"PS1='{PROMPT}' PROMPT_SP= PROMPT_EOL_MARK=\nautoload -Uz compinit && compinit -u\n")
    else:
        prompt = (
            f"function fish_prompt; echo -n '{PROMPT}'; end\nfunction fish_right_prompt; end\nset -g fish_greeting\n"
        )
        app.write("home/.config/fish/config.fish", prompt)
        (home / ".config/fish/completions").mkdir()
    return home


@contextlib.contextmanager
def prompt_of(app: App, shell: str) -> Iterator[Prompt]:
    home = app.root / "home"
    app.write("home/bin/a-tool-of-the-test", "", mode=0o755)
    env: dict[str, str | None] = {"HOME": str(home), "PATH": f"{home}/bin:{app.env['PATH']}", "ZDOTDIR": None}
    env |= {f"XDG_{name}_HOME": None for name in ("CONFIG", "DATA", "CACHE")}
    run = app.spawn([shell, "-i"], size=(40, 100), env=env)
    prompt = Prompt(run)
    try:
        prompt.shows("")
        yield prompt
    finally:
        if run.code is None:
            run.signal(signal.SIGKILL)  # bash forgets a SIGHUP that finds it between two keys
            run.wait()


def installation(shell: str, help_text: str) -> str:
    """Return the line of the help that installs the completion."""
    found = re.search(rf"^ *(.*procman completion {shell}\b.*>.*)$", help_text, re.MULTILINE)
    assert found, help_text
    return found[1]


def test_the_readme_installs_it_as_the_help_does(app: App) -> None:
    readme = (REPOSITORY / "README.md").read_text()
    for shell in SHELLS:
        assert installation(shell, readme).partition("  #")[0].rstrip() == installation(
            shell, app.call("completion", "-h").text
        )


@pytest.fixture(params=SHELLS)
def prompt(app: App, request: pytest.FixtureRequest) -> Iterator[Prompt]:
    """A shell in which the completion is installed as the help says."""
    shell = request.param
    home = write_home(app, shell)
    line = installation(shell, app.call("completion", "--help").text)
    install = app.spawn(["sh", "-c", line], env={"HOME": str(home)})
    assert install.wait() == 0, install.err_text
    app(PROCFILE)
    with prompt_of(app, shell) as prompt:
        yield prompt


def test_commands_and_options(prompt: Prompt) -> None:
    prompt.press("procman sta\t", "procman start ")
    prompt.press("procman com\t", "procman completion ")
    prompt.press("procman start --on\t", "procman start --on-exit ")
    prompt.lists("procman start --no-\t", r"--no-timestamp")
    prompt.lists("procman \t", r"start\b[^$]*version", without="worker")


def test_values(prompt: Prompt) -> None:
    prompt.press("procman start --on-exit ig\t", "procman start --on-exit ignore ")
    prompt.press("procman start --color=al\t", "procman start --color=always ")
    prompt.press("procman completion f\t", "procman completion fish ")
    prompt.press("procman start -p \t", "procman start -p ")


def test_process_types_and_counts(prompt: Prompt) -> None:
    prompt.press("procman start wo\t", "procman start worker")
    prompt.press("procman start worker=\t", "procman start worker=")
    prompt.press("procman start worker=2 man\t=3 we\t=", "procman start worker=2 manage=3 web=")
    prompt.press("procman start -m web=2,wo\t3", "procman start -m web=2,worker=3")
    prompt.press("procman start -mX -c wo\t3", "procman start -mX -c worker=3")
    prompt.lists("procman start w\t", r"web=\s[^$]*worker=", without="manage")


def test_lists_of_process_types(prompt: Prompt) -> None:
    prompt.press("procman start -q man\t", "procman start -q manage")
    prompt.press("procman start --can-die web,wor\t,man\t", "procman start --can-die web,worker,manage ")
    prompt.press("procman start --restart=al\t", "procman start --restart=all ")


def test_files_and_directories(app: App, prompt: Prompt) -> None:
    app.write("some files/local.env", "")
    app.write("some files/Procfile.dev", "api: true\n")
    prompt.press("procman start -f some\tPro\t", r"procman start -f some\ files/Procfile.dev ")
    prompt.press("procman start --procfile=some\tPro\t", r"procman start --procfile=some\ files/Procfile.dev ")
    prompt.press("procman -d som\t", r"procman -d some\ files/")
    app.write("other/x.env", "")
    app.write("a.env", "")
    prompt.press("procman start -e a.\t", "procman start -e a.env ")
    prompt.press("procman start -e a.env,oth\t", "procman start -e a.env,other/")
    prompt.press("procman start --sink js\toth\tx\t", "procman start --sink jsonl:other/x.env ")


def test_another_procfile(app: App, prompt: Prompt) -> None:
    app.write("some files/Procfile", "api: true\n")
    app.write("home/other/Procfile.dev", "clock: true\n")
    prompt.press("procman -f ~/other/Procfile.dev start cl\t", "procman -f ~/other/Procfile.dev start clock")
    prompt.press("procman start -d some\\ files ap\t", "procman start -d some\\ files api")
    prompt.press("procman start --root='some files' ap\t", "procman start --root='some files' api")
    prompt.press("procman start -f $HOME/other/Procfile.dev cl\t", "procman start -f $HOME/other/Procfile.dev clock")
    prompt.press("procman start cl\t", "procman start cl")


def test_words_of_a_one_off(app: App, prompt: Prompt) -> None:
    app.write("data/input.txt", "")
    app.write("our data.txt", "")
    prompt.press("procman run mana\t mi\t", "procman run manage mi")
    prompt.press("procman run manage -d dat\tin\t", "procman run manage -d data/input.txt ")
    prompt.press("procman run manage --verb\t", "procman run manage --verb")
    prompt.press("procman run --verb\t", "procman run --verbose ")
    prompt.press("procman run web=2 wor\t4", "procman run web=2 worker=4")
    prompt.press("procman run a-tool-of\tour\t", r"procman run a-tool-of-the-test our\ data.txt ")
    prompt.press("procman run -- a-tool-of\t", "procman run -- a-tool-of-the-test ")
    prompt.press("procman run data/in\t", "procman run data/input.txt ")


@pytest.mark.parametrize("shell", SHELLS)
def test_nothing_is_told_of_a_procfile_that_cannot_be_read(app: App, shell: str) -> None:
    """Missing, no text, a FIFO that nobody writes to, the terminal itself."""
    write_home(app, shell)
    app.write("binary", b"\0\xff no colon\n")
    app.write("empty", "")
    app.fifo("fifo")
    app.write("script", app.call("completion", shell).text)
    app.write("home/.hushlogin", "")
    with prompt_of(app, shell) as prompt:
        prompt.enter(f". {shlex.quote(str(app.root / 'script'))}")
        prompt.press("procman start w\t", "procman start w")
        for name in ("missing", "binary", "empty", "fifo", "-", "/dev/tty", "/"):
            prompt.press(f"procman -f {name} start w\t", f"procman -f {name} start w")


def test_a_program_that_is_not_in_the_path(app: App, prompt: Prompt) -> None:
    """It is asked itself: another one may have other options."""
    app.write("home/here/procman", "#!/bin/sh\necho plain,other-answer\n", mode=0o755)
    prompt.press("home/here/procman o\t", "home/here/procman other-answer ")
    prompt.press("~/here/procman o\t", "~/here/procman other-answer ")


def test_what_stands_before_and_behind_it(prompt: Prompt) -> None:
    prompt.press("NAME=1 procman start wo\t", "NAME=1 procman start worker")
    prompt.press("true; procman start wo\t", "true; procman start worker")
    prompt.press("procman start wo mana\x02\x02\x02\x02\x02\t\x04\x04\x04\x04\x04", "procman start worker")


def test_zsh_loads_it_from_a_directory_of_functions(app: App) -> None:
    """The first and the second time are not the same."""
    write_home(app, "zsh")
    app(PROCFILE).write("home/functions/_procman", app.call("completion", "zsh").text)
    with prompt_of(app, "zsh") as prompt:
        prompt.enter("fpath=(~/functions $fpath); compinit -u -D")
        for _ in range(3):
            prompt.press("procman start wo\t", "procman start worker")


# --- what the scripts ask for ----------------------------------------------------------------------------------------


def answers(app: App, line: str, *, shell: str = "bash", part: str | None = None) -> list[str]:
    """Return what procman says when TAB is pressed at the end of the line."""
    env = {"_PROCMAN_COMPLETE": f"{shell}_complete", "COMP_LINE": line, "COMP_PART": part}
    run = app.procman(env=env)
    assert run.wait() == 0
    assert run.err == b""
    return run.text.splitlines()


def values(app: App, line: str) -> list[str]:
    return [answer.partition(",")[2] for answer in answers(app, line) if answer]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("procman ", [f"plain,{name}" for name in COMMANDS]),
        ("procman start --on-exit ", ["plain,stop", "plain,fail", "plain,ignore"]),
        ("procman start --on-exit=f", ["plain,--on-exit=fail"]),
        ("procman start w", ["plain,web", "open,web=", "plain,worker", "open,worker="]),
        ("procman start web", ["plain,web", "open,web="]),
        ("procman start web=", []),
        ("procman start web=2 worker w", []),
        ("procman start al", ["open,all="]),
        ("procman start -m ", ["open,web=", "open,worker=", "open,manage=", "open,all="]),
        ("procman start -c web=1,m", ["open,web=1,manage="]),
        ("procman start -q w", ["open,web", "open,worker"]),
        ("procman start -q web,manage,", ["plain,web,manage,worker"]),
        ("procman start --restart=a", ["plain,--restart=all"]),
        ("procman start -t ", []),
        ("procman start -e a.env,b", ["file,a.env,"]),
        ("procman start --sink jsonl:x", ["file,jsonl:"]),
        ("procman -d ", ["dir,"]),
        ("procman --procfile=x", ["file,--procfile="]),
        ("procman run ", ["plain,web", "open,web=", "plain,worker", "open,worker=", "plain,manage", "open,manage="]),
        ("procman run m", ["plain,manage", "open,manage=", "command,"]),
        ("procman run ./m", ["file,"]),
        ("procman run web=1 ", ["open,worker=", "open,manage="]),
        ("procman run -- we", ["command,"]),
        ("procman run -- web we", ["file,"]),
        ("procman run tool -p ", ["file,"]),
        ("procman run tool --x=a", ["file,--x="]),
        ("procman run tool --verb", []),
        ("procman env w", ["plain,web", "open,web.", "plain,worker", "open,worker."]),
        ("procman env web.", []),
        ("procman check --he", ["plain,--heroku", "plain,--help"]),
        ("procman stop w", ["plain,web", "open,web.", "plain,worker", "open,worker."]),
        ("procman scale w", ["open,web=", "open,worker="]),
        ("procman logs --procfile x", ["file,"]),
        ("procman version ", []),
    ],
)
def test_answers(app: App, line: str, expected: list[str]) -> None:
    assert [answer for answer in answers(app(PROCFILE), line) if answer] == expected


def test_answers_for_bash_go_on_from_its_own_word(app: App) -> None:
    """`=` and `:` part words for bash."""
    app(PROCFILE)
    assert answers(app, "procman start -m web=2,wo", part="2,wo") == ["open,2,worker="]
    assert answers(app, "procman start --color=al", part="al") == ["plain,always"]
    assert answers(app, "procman start --color=", part="") == ["plain,auto", "plain,always", "plain,never"]
    assert answers(app, "procman start -f a:b\\ c", part="b\\ c") == ["file,"]
    assert answers(app, "procman start 'we", part="we") == ["plain,web", "open,web="]


def test_answers_of_the_other_shells_have_descriptions(app: App) -> None:
    app("web: printf '\x1b[31m' " + "x" * 100 + "\nworker: a:b\n")
    web = f"printf ' [31m' {'x' * 44}…"
    assert answers(app, "procman start web", shell="zsh") == [f"plain,web:{web}", "open,web="]
    assert answers(app, "procman start web", shell="fish") == [f"plain,web\t{web}", "open,web="]
    assert answers(app, "procman start -q wo", shell="fish") == ["open,worker\ta:b", "open,worker,"]
    assert answers(app, "procman start --sink j", shell="zsh")[0].startswith(r"open,jsonl\::")


def test_which_procfile(app: App) -> None:
    app(PROCFILE)
    app.write("other/Procfile", "api: true\n")
    app.write("other/dev", "clock: true\n")
    assert values(app, "procman -d other start ") == ["api", "api="]
    assert values(app, "procman start --root=other ") == ["api", "api="]
    assert values(app, "procman -f other/dev -d . run ") == ["clock", "clock="]
    assert values(app, "procman -f other/dev start -f other/Procfile ") == ["api", "api="]
    assert values(app, "procman start -f 'missing file' ") == []


def test_a_mistake_in_the_procfile_hides_no_other_line(app: App) -> None:
    app("web: true\nweb: again\nno colon\nworker: true\n")
    assert values(app, "procman start ") == ["web", "web=", "worker", "worker="]


@pytest.mark.parametrize("instruction", ["bash_complete", "bash_frobnicate", "frobnicate", "tcsh_complete"])
def test_a_question_that_makes_no_sense_is_no_noise(app: App, instruction: str) -> None:
    run = app.call("start", env={"_PROCMAN_COMPLETE": instruction, "COMP_LINE": None})
    assert (run.code, run.text, run.err_text) == (1, "", "")


def test_the_procfile_that_the_settings_name(app: App) -> None:
    app(PROCFILE)
    app.write("sub/procman.toml", 'procfile = "Procfile.dev"\nport = "wrong"\n')
    app.write("sub/Procfile.dev", "api: true\n")
    app.write("sub/pyproject.toml", "[tool.procman\n")
    assert values(app, "procman -d sub start ") == ["api", "api="]
    assert values(app, "procman start ") == values(app, "procman -f Procfile -d sub start ")


def test_no_env_file_is_read(app: App) -> None:
    """It may be a pipe that somebody fills once."""
    app.fifo(".env")
    assert values(app(PROCFILE), "procman start we") == ["web", "web="]


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_by_name_by_login_shell_and_by_clicks_protocol(app: App, shell: str) -> None:
    script = app.call("completion", shell)
    assert (script.code, script.err) == (0, b"")
    assert "_PROCMAN_COMPLETE" in script.text
    assert app.call("completion", env={"SHELL": f"/usr/local/bin/{shell}"}).out == script.out
    assert app.call(env={"_PROCMAN_COMPLETE": f"{shell}_source"}).out.rstrip() == script.out.rstrip()
    check = app.spawn([shell, "-n", str(app.write("script", script.text))])
    assert (check.wait(), check.err) == (0, b"")


@pytest.mark.parametrize("login_shell", [None, "", "/bin/sh"])
def test_no_known_login_shell(app: App, login_shell: str | None) -> None:
    run = app.call("completion", env={"SHELL": login_shell})
    assert (run.code, run.out) == (2, b"")
    assert "bash, zsh, fish" in run.err_text
