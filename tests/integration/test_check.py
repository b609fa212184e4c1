"""`procman check`: everything wrong or doubtful, in all files, at once (contract A8; docs/exit-codes.md)."""

from __future__ import annotations

import pytest

from tests.support.app import App, Run


@pytest.fixture
def app(app: App) -> App:
    """An app with nothing to warn of: its dependencies are declared (test_parity.py has the others)."""
    app.write("requirements.txt", "")
    return app


def check(app: App, *arguments: str, code: int = 0, **kwargs: object) -> Run:
    run = app.call("check", *arguments, **kwargs)
    assert run.code == code, run.text + run.err_text
    assert "Traceback" not in run.err_text
    return run


# --- all is well ---


def test_a_valid_procfile(app: App) -> None:
    run = check(app("web: true\nworker: false\n", dotenv="A=1\n"))
    assert run.text == "valid procfile detected (web, worker)\n"
    assert run.err == b""


def test_nothing_runs_and_nothing_is_written(app: App) -> None:
    app("web: touch started\nrelease: touch started\n")
    before = sorted(app.root.iterdir())
    check(app)
    assert sorted(app.root.iterdir()) == before


@pytest.mark.parametrize("options", [("-f", "sub/Procfile"), ("-d", "sub")])
def test_options_before_and_behind_the_command(app: App, options: tuple[str, ...]) -> None:
    app("web: true\n", dotenv="A\n").write("sub/Procfile", "other: true\n")
    app.write("sub/requirements.txt", "")
    for words in ((*options, "check"), ("check", *options)):
        run = app.call(*words)
        assert (run.code, run.text) == (0, "valid procfile detected (other)\n")


# --- errors ---


def test_every_error_of_all_files_at_once(app: App) -> None:
    app("web: true\nweb: false\nno colon here\n", dotenv="A=1\nB\n").write("procman.toml", 'prot = 1\ngrace = "x"\n')
    run = check(app, "-e", ".env,missing.env", code=65, env={"PROCMAN_PORT": "x"})
    assert run.out == b""
    assert [line.partition(" — ")[0] for line in run.err_text.splitlines()] == [
        'Procfile:2: "web" already defined on line 1',
        "Procfile:3: not an entry",
        ".env:2: this line has no '='",
        "missing.env: no such file",
        "PROCMAN_PORT: expected a number from 1 to 65535, or false for no ports",
        'procman.toml:1: unknown key "prot"',
        'procman.toml:2: grace: expected a number of seconds from 0 up, or a time such as "10s", "500ms", "2m"',
    ]


@pytest.mark.parametrize(
    ("files", "options", "code", "text"),
    [
        ({"Procfile": "web : true\n"}, (), 65, "Procfile:1:4: space before ':'"),
        ({"Procfile": "# nothing\n"}, (), 65, 'Procfile: no process types — write "web: <command>"'),
        ({"Procfile": "web: true\n", ".env": "A\n"}, (), 65, ".env:1: this line has no '='"),
        ({}, (), 66, "Procfile: no such file — give its path with -f"),
        ({}, ("-f", "x"), 66, "x: no such file — given with -f"),
        ({}, ("-d", "x"), 66, "x: no such directory — give another one with -d"),
        ({}, ("-f", "x/y"), 66, "x: no such directory — the directory of -f is the root"),
        ({"x": ""}, ("-d", "x"), 66, "x: not a directory — give another one with -d"),
        ({"Procfile": "web: true\n"}, ("-e", "x.env"), 66, "x.env: no such file — given with -e"),
        ({".env": "#\nPROCFILE=other\n"}, (), 66, "other: no such file — named by .env:2"),
        ({"procman.toml": "procfile = 'o'\n"}, (), 66, "o: no such file — named by procman.toml:1"),
        ({"Procfile": "web: true\n", "procman.toml": "port = 0\n"}, (), 78, "procman.toml:1: port: expected a number"),
        ({"Procfile": "web: true\n", ".foreman": "prot: 1\n"}, (), 78, '.foreman:1: unknown key "prot" — did you mean'),
        ({"Procfile": "web: true\n", ".env": "PORT=x\n"}, (), 78, ".env:1: PORT is not a number from 1 to 65535"),
        ({"Procfile": "web: true\n", "procman.toml": "[process.wbe]\n"}, (), 78, 'procman.toml:1: unknown process'),
        ({"Procfile": "web: true\n", "procman.toml": "process.web.needs = ['wbe']\n"}, (), 78, ":1: unknown"),
        (
            {"Procfile": "a: x\nb: x\n", "procman.toml": "process.a.needs = 'b'\nprocess.b.needs = 'a'\n"},
            (), 78, "procman.toml:1: needs go in a circle: a → b → a",
        ),
        ({"Procfile": "web: a\nb: a\n"}, ("-p", "65500"), 78, "ports end at 65535"),
        ({"Procfile": "web: true\n", ".foreman": "formation: wbe=1\n"}, (), 78, '.foreman:1: unknown process type'),
        ({"Procfile": "web: true " + "x" * 131_072}, (), 65, 'Procfile:1: the command of "web" is too long'),
        ({"Procfile": "web: true"}, ("-p", "0"), 2, "expected a number from 1 to 65535"),
        ({"Procfile": "web: true"}, ("web",), 2, "unexpected extra argument"),
    ],
)  # fmt: skip
def test_exit_codes(app: App, files: dict[str, str], options: tuple[str, ...], code: int, text: str) -> None:
    for name, content in files.items():
        app.write(name, content)
    run = check(app, *options, code=code)
    assert text in run.err_text
    assert run.out == b""


def test_it_refuses_what_start_refuses(app: App) -> None:
    """A formation that cannot be is told along with everything else."""
    app("web: true\nworker: true\n", dotenv="A\n").write("procman.toml", "formation = {web = 101, wrk = 1}\n")
    run = check(app, code=65)
    assert ".env:1" in run.err_text
    assert 'procman.toml:1: unknown process type "wrk"' in run.err_text
    app.write("procman.toml", "formation = {web = 101, worker = 1}\n")
    run = check(app, code=65)
    assert "would both get port 5100" in run.err_text
    app.write("procman.toml", "[process.web]\nwatch = ['[z-a].py']\n")
    run = check(app("web: true\n", dotenv=""), code=78)
    assert "procman.toml:2: watch: '[z-a].py' is no pattern" in run.err_text


def test_types_of_a_procfile_that_cannot_be_read_are_not_called_unknown(app: App) -> None:
    app("web: true\nworker : true\n").write("procman.toml", "formation = {worker = 1}\n[process.worker]\ngrace = 1\n")
    run = check(app, code=65)
    assert run.err_text.splitlines() == ["Procfile:2:7: space before ':' — write \"worker: …\""]
    run = check(app, "--lenient", code=78)  # now it has no worker
    assert run.err_text.count('unknown process type "worker"') == 2


def test_no_value_in_any_message(app: App) -> None:
    sentinel = "hunter2"
    dotenv = f"""
A={sentinel}#{sentinel}
A={sentinel}
{sentinel}
B: {sentinel}
C-D={sentinel}
E='{sentinel}'{sentinel}
F=${{{sentinel}}}
G="{sentinel}\\n{sentinel}"
{sentinel}: x
PORT={sentinel}
H="{sentinel}
I={sentinel}
"""
    app("web: true\n", dotenv=dotenv).write("procman.toml", f'[process.web]\nenv = {{X = "{sentinel}"}}\n')
    for options in ((), ("--lenient",), ("--strict",), ("--verbose", "--heroku"), ("--lenient", "--interpolate", "-v")):
        env = {"A": f"{sentinel}-caller", "PROCMAN_GRACE": sentinel, "PROCMAN_GARCE": sentinel}
        run = app.call("check", *options, env=env)
        assert run.code in (65, 78)
        assert sentinel not in run.text + run.err_text, options


# --- warnings and notes ---

DOUBTFUL = "A=1\nA=2\nB=x#y\n"


def test_warnings_are_told_and_change_nothing(app: App) -> None:
    run = check(app("web: true\nhttp://x/y\n", dotenv=DOUBTFUL))
    assert run.err == b""
    lines = run.text.splitlines()
    assert [line.partition(": ")[0] for line in lines[:3]] == ["Procfile:2", ".env:2", ".env:3"]
    assert all(": warning: " in line for line in lines[:3])
    assert lines[3:] == ["valid procfile detected (web, http)"]


def test_strict_makes_errors_of_them(app: App) -> None:
    run = check(app("web: true\n", dotenv=DOUBTFUL), "--strict", code=65)
    assert run.out == b""
    assert [line.partition(": ")[0] for line in run.err_text.splitlines()] == [".env:2", ".env:3"]
    assert check(app("web: true\r\n", dotenv="A= x\n"), "--strict").code == 0  # notes stay notes
    run = check(app("web: true\n", dotenv=""), "--strict", code=78, env={"PROCMAN_GARCE": "1"})
    assert 'did you mean "PROCMAN_GRACE"?' in run.err_text


def test_lenient_tells_what_it_leaves_out(app: App) -> None:
    app("web: true\nworker : true\n", dotenv="A=1\nB\n1C=3\n")
    check(app, code=65)
    run = check(app, "--lenient")
    lines = [line.partition(" — ")[0] for line in run.text.splitlines()]
    assert lines == [
        "Procfile:2:7: warning: left out: space before ':'",
        ".env:2: warning: left out: this line has no '='",
        '.env:3:1: warning: a name cannot start with "1"',
        "valid procfile detected (web)",
    ]
    assert check(app("web: true\n", dotenv="A=1\0\n"), "--lenient", code=65)


def test_notes(app: App) -> None:
    lines = check(app("web: true\r\n", dotenv="A= x\n")).text.splitlines()
    assert lines[0].startswith("Procfile: note: lines end in CR LF")
    assert lines[1].startswith(".env:1: note: Foreman keeps the blank")
    run = check(app("web: true\n", dotenv=""), env={"PROCMAN_SOMETHING_OF_OURS": "1"})
    assert "PROCMAN_SOMETHING_OF_OURS: note:" in run.text


def test_which_files_were_not_read(app: App) -> None:
    app("web: true\n", dotenv="A\n")
    assert "PYTHON_DOTENV_DISABLED is set, so .env is not read" in check(app, env={"PYTHON_DOTENV_DISABLED": "1"}).text
    check(app, "-e", ".env", env={"PYTHON_DOTENV_DISABLED": "1"}, code=65)  # named by hand: read all the same
    app.write("sub/Procfile", "web: true\n")
    app.write("sub/.env", "A=1\n")
    assert "procman: reading sub/.env, not the .env of this directory\n" in check(app, "-f", "sub/Procfile").text


def test_any_locale_and_any_path(app: App) -> None:
    app("web: true\nhttp://x\n").write("caf\udce9/Procfile", "web: true\nhttp://x\n")
    for options in ((), ("-f", "caf\udce9/Procfile")):
        for env in ({"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "utf-8:strict"}, {"LC_ALL": "C"}):
            run = check(app, *options, env=env)
            assert b"\xe2\x80\x94" in run.out


# --- verbose, heroku ---


def test_verbose_shows_each_setting_and_its_origin(app: App) -> None:
    app("web: true\nworker: true\n", dotenv="PORT=6000\nHOME=/x\nTERM=hunter2\n").write(
        "procman.toml", 'grace = "2m"\n[process.worker]\nstop_signal = "INT"\nenv = {A = "hunter2"}\n'
    )
    run = check(app, "-v", "--port-step", "10", env={"PROCMAN_QUIET": "web"})
    rows = {line.split()[0]: line.split()[1:] for line in run.text.splitlines()}
    assert rows["port"] == ["6000", ".env:1"]
    assert rows["port_step"] == ["10", "--port-step"]
    assert rows["grace"] == ["120", "procman.toml:1"]
    assert rows["quiet"] == ["web", "PROCMAN_QUIET"]
    assert rows["on_exit"] == ["stop", "default"]
    assert rows["env"] == [".env", "default"]
    assert rows["process.worker.stop_signal"] == ["SIGINT", "procman.toml:3"]
    assert rows["process.worker.env"] == ["A", "procman.toml:4"]
    assert ".env overrides HOME, TERM of your environment" in run.text
    assert "hunter2" not in run.text
    run = check(app, "-v", "--no-override")
    assert "your environment overrides HOME, TERM of .env" in run.text


def test_verbose_shows_what_a_section_says(app: App) -> None:
    text = """
[process.web]
ready = { http = "/healthz", within = "2m" }
liveness = { command = "test -e up", failures = 1 }
needs = ["DATABASE_URL", "assets"]
watch = ["**/*.py"]
success_codes = [1, 143]
grace = 0
env = {}
[process.assets]
phase = "release"
ready.completed = true
"""
    app("web: true\nassets: true\n").write("procman.toml", f"needs_within = 'inf'\n{text}")
    lines = check(app, "-v", env={"DATABASE_URL": "sqlite:///x"}).text.splitlines()
    rows = {line.split("  ")[0]: [part.strip() for part in line.split("  ")[1:] if part.strip()] for line in lines}
    assert rows["needs_within"] == ["inf", "procman.toml:1"]
    assert rows["process.web.ready"] == ["http /healthz, within 120 s, timeout 5 s", "procman.toml:4"]
    assert rows["process.web.liveness"] == [
        'command "test -e up", every 10 s, timeout 5 s, 1 failure', "procman.toml:5"
    ]  # fmt: skip
    assert rows["process.web.needs"] == ["DATABASE_URL,assets", "procman.toml:6"]
    assert rows["process.web.watch"] == ["**/*.py", "procman.toml:7"]
    assert rows["process.web.success_codes"] == ["1,143", "procman.toml:8"]
    assert rows["process.web.grace"] == ["0", "procman.toml:9"]
    assert rows["process.web.env"] == ["none", "procman.toml:10"]
    assert rows["process.assets.phase"] == ["release", "procman.toml:12"]
    assert rows["process.assets.ready"] == ["completed, within any time", "procman.toml:13"]
    assert "process.assets.needs" not in rows


def test_heroku(app: App) -> None:
    app("web: true\nmy-worker: true\n", dotenv="A=x#y\n")
    run = check(app, "--heroku")
    assert 'Procfile:2: note: Heroku: `heroku local` refuses "-" in the name "my-worker" — use "_"\n' in run.text
    assert '.env:1: note: Heroku: `heroku local` reads another value of A, cut at "#"\n' in run.text
    assert run.text.endswith("valid procfile detected (web, my-worker)\n")
    assert "Heroku" not in check(app).text


def test_heroku_from_standard_input(app: App) -> None:
    app("", x="my-web: true\n")
    with (app.root / "x").open() as file:
        assert "standard input:1: note: Heroku" in check(app, "--heroku", "-f", "-", stdin=file.fileno()).text
