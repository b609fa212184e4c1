"""`procman env`: what it prints is what a process gets, and a shell reads it back (docs/environment.md)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.app import App, Run

NOT_COMPARED = ("PROCMAN_RUN", "_", "SHLVL")

# Values that a shell, a reader of lines or an encoder could spoil.
ODD = {
    "QUOTES": "it's \"quoted\" `x` $(y) $HOME ${HOME} \\ \\n",
    "LINES": "one\ntwo\n\n three ",
    "BLANKS": "  a \t b  ",
    "SPECIAL": "; & | > # ! * ? [a] {b} ~ =",
    "HASH": "#x",
    "UNICODE": "ä € 😀 \u2028 \u00a0",
    "EMPTY": "",
    "CONTROL": "a\x1b[1m\x07\r",
    "DASH": "-n",
    "API_KEY": "s3cr#t",
    "DATABASE_URL": "postgres://u:pa'ss@host/db",
}


def env_of(app: App, *arguments: str, **kwargs: object) -> str:
    run = app.call("env", *arguments, **kwargs)
    assert run.code == 0, run.err_text
    return run.text


def quoted(value: str) -> str:
    """Return `value` as a double-quoted one of `.env`."""
    escaped = value.translate({ord("\\"): "\\\\", ord('"'): '\\"', ord("\n"): "\\n", ord("\r"): "\\r"})
    return f'"{escaped}"'


def odd_app(app: App) -> App:
    """An app with odd values from everywhere: the caller, `.env`, settings, procman."""
    dotenv = "".join(f"{name}={quoted(value)}\n" for name, value in ODD.items())
    app("clock: true\nmy-web: env -0 > seen.$PS\n", dotenv=f"{dotenv}BOTH=file\nPORT=6000\nX.Y=1\nHOME=/x\n")
    own = "[process.my-web]\nenv = {OWN = \"it's\", BOTH = 'own'}\n[process.clock]\nenv = {NOT = ''}\n"
    app.write("procman.toml", own)
    app.env |= {
        "BOTH": "caller", "FROM_CALLER": "a\nb'c", "BYTES": "\udce9\udcff", "PS": "x", "PYTHONUNBUFFERED": "",
        "BASH_FUNC_f%%": "() {  echo x\n}", "odd-name": "1",
    }  # fmt: skip
    return app


def from_zeros(data: bytes) -> dict[str, str]:
    pairs = (entry.decode("utf-8", "surrogateescape").split("=", 1) for entry in data.split(b"\0") if entry)
    return {name: value for name, value in pairs if name not in NOT_COMPARED}


def printed(app: App, *arguments: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(env_of(app, "--json", "--show-secrets", *arguments))
    return {name: value for name, value in found.items() if name not in NOT_COMPARED}


# --- it is what a process gets ---


@pytest.mark.parametrize("options", [(), ("--no-override",), ("--no-port",), ("--port-step", "7", "--interpolate")])
def test_an_instance_sees_the_same(app: App, options: tuple[str, ...]) -> None:
    odd_app(app)
    if "--interpolate" in options:
        app.write(".env", "A=1\nB=${A} ${FROM_CALLER}\nC='${A}'\n")
    run = app.start("my-web=2", "--on-exit", "ignore", *options)
    assert run.wait() == 0, run.failure("")
    for name in ("my-web.1", "my-web.2"):
        seen = from_zeros((app.root / f"seen.{name}").read_bytes())
        wanted = printed(app, name, "-p", str(app.port), *options)
        # dash, which runs the command, passes on no name that it cannot read itself.
        assert seen == {key: value for key, value in wanted.items() if key.isidentifier() or key in seen}
        assert seen["OWN"] == "it's"
        assert seen["BYTES"] == "\udce9\udcff"
        assert "NOT" not in seen
        if not options:
            assert {key: seen[key] for key in ODD} == ODD
            assert seen["PORT"] == str(app.port + 100 + (name == "my-web.2"))


@pytest.mark.parametrize("options", [(), ("--no-override",), ("--no-port",)])
def test_a_one_off_sees_the_same(app: App, options: tuple[str, ...]) -> None:
    odd_app(app)
    run = app.call("run", *options, "env", "-0")
    assert run.code == 0
    seen = from_zeros(run.out)
    assert seen == printed(app, *options)
    assert seen["PS"] == "run.1"


@pytest.mark.parametrize("name", ["env", "run", "other"])
def test_a_program_is_no_process_type_even_if_it_has_its_name(app: App, name: str) -> None:
    app(f"web: true\n{name}: true\n").write("procman.toml", f'[process.{name}]\nenv = {{OWN = "1"}}\n')
    run = app.call("run", "--", "env", "-0")
    assert run.code == 0
    seen = from_zeros(run.out)
    assert seen == printed(app)
    assert not {"PORT", "OWN"} & seen.keys()


def test_a_bare_type_is_its_first_instance(app: App) -> None:
    app("web: true\nworker: true\n")
    assert env_of(app, "worker") == env_of(app, "worker.1")
    assert "\nPORT=5100\n" in env_of(app, "worker")
    assert "\nPORT=5101\n" in env_of(app, "worker.2")


# --- a shell reads it ---


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_a_shell_reads_it_back(app: App, shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"no {shell}")
    odd_app(app)
    text = env_of(app, "my-web.1", "--show-secrets", "--origin")
    app.write("it", text.encode("utf-8", "surrogateescape"))
    names = [*ODD, "OWN", "BOTH", "FROM_CALLER", "BYTES", "PORT", "PS", "PROCMAN_PROCESS"]
    words = " ".join(f'"${name}"' for name in names)
    script = f'eval "$(/bin/cat it)"; /usr/bin/printf "%s\\0" {words}'
    run = app.spawn(["env", "-i", shutil.which(shell) or shell, "-c", script])
    assert run.wait() == 0
    assert run.err == b""
    wanted = printed(app, "my-web.1")
    assert run.text == "".join(f"{wanted[name]}\0" for name in names)


def test_a_shell_exports_it(app: App) -> None:
    """As docs/environment.md says."""
    app("web: true\n", dotenv="A='x y'\nAPI_KEY=1\n")
    script = 'set -a; eval "$(procman env web --no-caller --show-secrets)"; set +a; printenv A API_KEY PORT'
    run = app.spawn(["sh", "-c", script])
    assert run.wait() == 0
    assert (run.text, run.err) == ("x y\n1\n5000\n", b"")


def test_what_is_hidden_or_unreadable_is_a_comment(app: App) -> None:
    odd_app(app)
    lines = env_of(app, "my-web.1", "--no-caller").splitlines()
    assert "# API_KEY=********  # hidden; --show-secrets" in lines
    assert "# DATABASE_URL=postgres://u:********@host/db  # hidden; --show-secrets" in lines
    assert "# X.Y=1  # no shell can read this name" in lines
    text = env_of(app, "my-web.1")
    assert "# BASH_FUNC_f%%='() {  echo x\n# }'  # no shell can read this name\n" in text
    assert "# odd-name=1  # no shell can read this name\n" in text
    app.write("it", text.encode("utf-8", "surrogateescape"))
    run = app.spawn(["env", "-i", "/bin/sh", "-c", 'eval "$(/bin/cat it)"; echo "${API_KEY-unset}"'])
    assert run.wait() == 0
    assert (run.text, run.err) == ("unset\n", b"")


# --- what is shown ---


def test_sorted_and_nothing_else(app: App) -> None:
    app("web: true\n", dotenv="B=1\nA='x y'\n")
    names = [line.partition("=")[0] for line in env_of(app, "--show-secrets").splitlines()]
    assert names == sorted(names)
    assert env_of(app, "--no-caller").startswith("A='x y'\nB=1\n")


def test_no_caller(app: App) -> None:
    app("web: true\n", dotenv="A=1\nBOTH=file\n")
    text = env_of(app, "web.1", "--no-caller", env={"MINE": "1", "BOTH": "caller", "PORT_WEB": "1"})
    assert text.splitlines() == [
        "A=1",
        "BOTH=file",
        "FOREMAN_WORKER_NAME=web.1",
        "HONCHO_PROCESS_NAME=web.1",
        "PORT=5000",
        "PORT_WEB=5000",
        "PROCMAN_INSTANCE=1",
        "PROCMAN_PROCESS=web.1",
        "PROCMAN_PROCESS_TYPE=web",
        "PS=web.1",
        f"PWD={app.root}",
        "PYTHONUNBUFFERED=1",
    ]
    text = env_of(app, "--no-caller", "--no-override", env={"BOTH": "caller"})
    assert "BOTH" not in text


def test_origin(app: App) -> None:
    app("web: true\n", dotenv="A=1\nA=2\nBOTH=file\nONLY=x\nPORT=1\n")
    app.write("local.env", "#\n\nA=3\n")
    app.write("procman.toml", "[process.web]\nenv = {A = '4'}\n")
    env = {"BOTH": "caller", "MINE": "1", "PORT": "2"}

    def lines(*arguments: str) -> list[str]:
        return env_of(app, "--origin", *arguments, env=env).splitlines()

    found = lines("web")
    assert "A=4  # procman.toml:2, overrides .env:2 and .env:1" in found
    assert "BOTH=file  # .env:3, overrides caller" in found
    assert "ONLY=x  # .env:4" in found
    assert "MINE=1  # caller" in found
    assert "PORT=1  # procman, overrides .env:5 and caller" in found
    assert "PS=web.1  # procman" in found
    found = lines("-e", ".env,local.env")
    assert "A=3  # -e local.env:3, overrides -e .env:2 and -e .env:1" in found
    assert "BOTH=file  # -e .env:3, overrides caller" in found
    found = lines("--no-override")
    assert "BOTH=caller  # caller, overrides .env:3" in found


IDENTITY = ("PORT", "PS", "PWD", "HONCHO_PROCESS_NAME", "FOREMAN_WORKER_NAME", "PROCMAN_PROCESS", "PROCMAN_INSTANCE")


@pytest.mark.parametrize("options", [(), ("--no-override",)])
def test_the_env_of_a_section_loses_only_to_port_and_identity(app: App, options: tuple[str, ...]) -> None:
    own = "".join(f"{name} = 'own'\n" for name in ("A", "PYTHONUNBUFFERED", "PORT_WORKER", "TZ", *IDENTITY))
    app("web: env -0 > seen\nworker: true\n", dotenv="A=file\nPORT_WORKER=1\n")
    app.write("procman.toml", f"[process.web]\ngrace = 1\n[process.web.env]\n{own}")
    app.env["A"] = "caller"
    words = ("-p", str(app.port), *options)
    found = json.loads(env_of(app, "web", "--json", "--origin", *words))
    for line, name in enumerate(("A", "PYTHONUNBUFFERED", "PORT_WORKER", "TZ"), 4):
        assert (found[name]["value"], found[name]["origin"]) == ("own", f"procman.toml:{line}")
    assert set(found["A"]["overrides"]) == {".env:1", "caller"}
    for line, name in enumerate(IDENTITY, 8):
        assert found[name]["value"] != "own"
        assert (found[name]["origin"], found[name]["overrides"][0]) == ("procman", f"procman.toml:{line}")
    assert app.call("start", "web", *words).code == 0
    seen = from_zeros((app.root / "seen").read_bytes())
    assert seen == {name: part["value"] for name, part in found.items() if name not in NOT_COMPARED}


def test_json(app: App) -> None:
    app("web: true\n", dotenv='A="x\ny"\nAPI_KEY=1\n')
    found = json.loads(env_of(app, "--json"))
    assert found["A"] == "x\ny"
    assert found["API_KEY"] is None
    found = json.loads(env_of(app, "--json", "--origin", "--no-caller"))
    assert found["A"] == {"value": "x\ny", "origin": ".env:1", "overrides": []}
    assert found["API_KEY"] == {"value": None, "origin": ".env:3", "overrides": []}
    assert found["PWD"]["overrides"] == ["caller"]
    assert json.loads(env_of(app, "--json", "--show-secrets"))["API_KEY"] == "1"


def test_secrets_are_hidden_unless_asked(app: App) -> None:
    app("web: true\n", dotenv="API_KEY=hunter2\nURL=a://u:hunter2@h\nX='-----BEGIN PRIVATE KEY-----hunter2'\n")
    env = {"DB_PASSWORD": "hunter2"}
    for options in ((), ("--json",), ("--origin",), ("--json", "--origin"), ("--verbose",)):
        run = app.call("env", *options, env=env)
        assert run.code == 0
        assert "hunter2" not in run.text + run.err_text
    assert env_of(app, "--show-secrets", env=env).count("hunter2") == 4


def test_whatever_the_locale(app: App) -> None:
    app("web: true\n", dotenv="A=ä€\n")
    for env in ({"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii:strict"}):
        assert "A='ä€'\n" in env_of(app, env=env)


# --- warnings, mistakes ---


def test_warnings_do_not_stand_in_the_output(app: App) -> None:
    app("web: true\n", dotenv="A=1\nA=2\n")
    run = app.call("env")
    assert run.code == 0
    assert run.err_text == "procman: .env: 1 warning — `procman check` shows them\n"
    assert ": warning" not in run.text


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("wbe", 'unknown process type "wbe" — did you mean "web"?'),
        ("web.0", '"web.0" is no instance — write web.1, or web.2 for the second'),
        ("web.x", '"web.x" is no instance'),
        ("web.", '"web." is no instance'),
        ("web.1.2", '"web.1.2" is no instance'),
        ("web.65536", '"web.65536" is no instance'),
        ("web.01", '"web.01" is no instance'),
        ("web.²", '"web.²" is no instance'),
        ("", 'unknown process type ""'),
        ("a\nb", 'unknown process type "a\\nb"'),
    ],
)
def test_no_such_instance(app: App, word: str, text: str) -> None:
    run = app("web: true\n").call("env", word)
    assert run.code == 2
    assert run.out == b""
    assert run.err_text.startswith(text)
    assert run.err_text.count("\n") == 1


def test_a_port_that_cannot_be(app: App) -> None:
    run: Run = app("web: true\n").call("env", "web.65535")
    assert run.code == 78
    assert "ports end at 65535" in run.err_text
    assert "PORT=" not in env_of(app, "web.65535", "--no-port", "--no-caller")


def test_errors_of_the_files(app: App) -> None:
    for dotenv, code in (("A\n", 65), ("PORT=x\n", 78)):
        run = app("web: true\n", dotenv=dotenv).call("env")
        assert (run.code, run.out) == (code, b"")
    Path(app.root, "Procfile").unlink()
    assert app("", dotenv="").call("env", "-f", "missing").code == 66


def test_a_reader_that_left(app: App) -> None:
    run = app("web: true\n").spawn(["bash", "-c", "set -o pipefail; procman env --json | true; echo ${PIPESTATUS[0]}"])
    run.wait()
    assert run.err == b""
    assert run.text in ("0\n", "141\n")
