"""`procman check` on what will not run elsewhere: five factors, warnings, `--strict` (issue 7, must hold 7)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.app import App

SECRET = "hunter2"
MANIFEST = "no dependency manifest or lock file beside it (twelve-factor II, dependencies)"
TRACKED = "git tracks this file, and every secret in it (twelve-factor III, config)"


def git(app: App, *arguments: str, cwd: Path | None = None) -> None:
    env = {**app.env, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "HOME": str(app.root)}
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        env.pop(name, None)
    subprocess.run(["git", *arguments], cwd=cwd or app.root, env=env, check=True, stdout=subprocess.DEVNULL)


def warnings(app: App, *options: str, **kwargs: object) -> list[str]:
    """Return what `check` warns of, without the hints; it must be well with the rest."""
    run = app.call("check", *options, **kwargs)
    assert run.code == 0, run.err_text
    assert SECRET not in run.text
    lines = [line for line in run.text.splitlines() if not line.startswith("procman: ")]
    assert lines.pop().startswith("valid procfile detected")
    assert all(": warning: " in line and " — " in line for line in lines)
    return [line.partition(" — ")[0].replace("warning: ", "") for line in lines]


@pytest.fixture
def bad(app: App) -> App:
    """An app with all five."""
    app("web: gunicorn -b 0.0.0.0:8000 app\n", dotenv=f"KEY={SECRET}\nDATABASE_URL=sqlite:///{SECRET}\n")
    app.write(".env.example", f"KEY=\nDATABASE_URL={SECRET}\nMAIL={SECRET}\n")
    app.write(".env.production", f"DATABASE_URL=postgres://u:{SECRET}@db/app\n")
    app.write(".env", f"KEY={SECRET}\nDATABASE_URL=sqlite:///{SECRET}\nDEBUG={SECRET}\n")
    git(app, "init", "-q")
    git(app, "add", "-f", ".env")
    return app


ALL = [
    'Procfile:1: "web" binds port 8000, not the one it is given (twelve-factor VII, port binding)',
    ".env.example: MAIL is missing from .env (twelve-factor X, dev/prod parity)",
    ".env: DEBUG is missing from .env.example (twelve-factor X, dev/prod parity)",
    ".env.production:1: DATABASE_URL is PostgreSQL here and a file in .env (twelve-factor IV, backing services)",
    f".env: {TRACKED}",
    f"Procfile: {MANIFEST}",
]


def test_all_of_them_and_still_valid(bad: App) -> None:
    assert warnings(bad) == ALL


def test_strict_makes_errors_of_them(bad: App) -> None:
    run = bad.call("check", "--strict")
    assert run.code == 65
    assert run.out == b""
    assert [line.partition(" — ")[0] for line in run.err_text.splitlines()] == ALL
    assert SECRET not in run.err_text


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"requirements.txt": "", "Procfile": "web: rails s -p 3000\n"}, 65),
        ({"requirements.txt": "", ".env": "A=1\n", ".env.example": "A=\nB=\n"}, 65),
        ({"requirements.txt": "", ".env": "A=1\n", ".env.sample": ""}, 65),
        ({"requirements.txt": "", ".env": "A=redis://x\n", ".env.production": "A=memcached://x:1\n"}, 65),
        ({}, 66),
        ({"requirements.txt": ""}, 0),
    ],
)
def test_each_alone_under_strict(app: App, files: dict[str, str], code: int) -> None:
    app("web: true\n")
    for name, text in files.items():
        app.write(name, text)
    assert app.call("check").code == 0
    run = app.call("check", "--strict")
    assert run.code == code, run.err_text
    assert len(run.err_text.splitlines()) == (1 if code else 0)


def test_only_check_says_it(bad: App) -> None:
    for command in (("run", "true"), ("env",)):
        run = bad.call(*command)
        assert run.code == 0
        assert "twelve-factor" not in run.text + run.err_text


def test_paths_are_those_of_the_root(bad: App) -> None:
    shutil.move(bad.root / ".env.example", bad.root / ".env.sample")
    expected = [text.replace(".env.example", ".env.sample") for text in ALL]
    assert warnings(bad) == expected
    (bad.root / "other").mkdir()
    found = warnings(bad, "-d", "..", cwd=bad.root / "other")
    assert found == ["../" + text.replace(" .env", " ../.env") for text in expected]


# --- .env and its example ---


def test_the_example_before_the_sample(app: App) -> None:
    app("web: true\n", dotenv="A=1\n").write("requirements.txt", "")
    app.write(".env.sample", "B=\n")
    assert len(warnings(app)) == 2
    app.write(".env.example", "A=\n")
    assert warnings(app) == []


def test_a_name_that_another_env_file_sets_is_not_missing(app: App) -> None:
    app("web: true\n", dotenv="A=1\n", requirements__txt="").write(".env.example", "A=\nB=\n")
    app.write("local.env", "B=2\n")
    assert len(warnings(app)) == 1
    assert warnings(app, "-e", ".env,local.env") == []


def test_without_a_dotenv_the_environment_counts(app: App) -> None:
    """As in CI, where the variables of the example are set by hand."""
    app("web: true\n", requirements__txt="").write(".env.example", "A_OF_OURS=\nB_OF_OURS=\n")
    assert warnings(app, env={"A_OF_OURS": SECRET, "B_OF_OURS": ""}) == []
    assert warnings(app, env={"A_OF_OURS": SECRET}) == [
        ".env.example: B_OF_OURS is not set: there is no .env (twelve-factor X, dev/prod parity)"
    ]


@pytest.mark.parametrize("text", ["{}", "A=1\0\n"])
def test_an_example_that_cannot_be_read_is_none(app: App, text: str) -> None:
    app("web: true\n", dotenv="B=1\n", requirements__txt="").write(".env.example", text)
    assert warnings(app) == []


def test_what_is_no_file_is_not_opened(app: App) -> None:
    """Whoever opens a FIFO waits for a writer."""
    app("web: true\n", dotenv="B=redis://x\n", requirements__txt="")
    for name in (".env.example", ".env.production"):
        os.mkfifo(app.root / name)
    (app.root / ".env.sample").mkdir()
    assert warnings(app) == []


def test_dotenv_switched_off(app: App) -> None:
    app("web: true\n", dotenv="A=1\n", requirements__txt="").write(".env.example", "B=\n")
    run = app.call("check", env={"PYTHON_DOTENV_DISABLED": "1"})
    assert "warning" not in run.text


# --- git ---


def test_a_repository_that_ignores_it(app: App) -> None:
    app("web: true\n", dotenv="A=1\n", requirements__txt="")
    git(app, "init", "-q")
    app.write(".gitignore", ".env\n")
    git(app, "add", ".")
    assert warnings(app) == []
    git(app, "add", "-f", ".env")
    assert warnings(app) == [f".env: {TRACKED}"]
    (app.root / ".env").unlink()
    assert warnings(app) == [f".env: {TRACKED}"]


def test_a_folder_of_a_repository(app: App) -> None:
    app.write("shop/Procfile", "web: true\n")
    app.write("shop/.env", "A=1\n")
    app.write("package.json", "{}")
    git(app, "init", "-q")
    git(app, "add", "shop/.env")
    assert warnings(app, "-d", "shop") == [f"shop/.env: {TRACKED}"]


def test_inside_a_hook_of_git_the_root_still_decides(app: App) -> None:
    app("web: true\n", dotenv="A=1\n", requirements__txt="")
    git(app, "init", "-q")
    git(app, "init", "-q", "other")
    app.write("other/Procfile", "web: true\n")
    app.write("other/.env", "")
    git(app, "add", ".env", cwd=app.root / "other")
    assert warnings(app, env={"GIT_DIR": str(app.root / "other/.git"), "GIT_INDEX_FILE": "other/.git/index"}) == []
    assert warnings(app, "-d", "other", env={"GIT_DIR": str(app.root / ".git")})[0] == f"other/.env: {TRACKED}"


def fake_git(app: App, script: str) -> dict[str, str]:
    app.write("bin/git", f"#!/bin/sh\n{script}\n", mode=0o755)
    return {"PATH": f"{app.root / 'bin'}:{app.env['PATH']}"}


def test_no_git_no_repository_no_answer(app: App) -> None:
    app("web: true\n", dotenv="A=1\n", requirements__txt="")
    assert warnings(app, env=fake_git(app, "echo .env")) == []  # not asked: there is no repository
    git(app, "init", "-q")
    git(app, "add", ".env")
    assert warnings(app, env={"PATH": str(app.root)}) == []
    assert warnings(app, env=fake_git(app, "echo .env; exit 128")) == []
    assert warnings(app, env=fake_git(app, "exec sleep 1000")) == []
    assert warnings(app) == [f".env: {TRACKED}"]


def test_a_repository_cannot_make_us_run_its_programs(app: App) -> None:
    app("web: true\n", dotenv="A=1\n", requirements__txt="")
    git(app, "init", "-q")
    git(app, "add", ".env")
    app.write("evil", "#!/bin/sh\ntouch hacked\n", mode=0o755)
    for key in ("core.fsmonitor", "core.pager", "pager.ls-files", "alias.ls-files"):
        git(app, "config", key, str(app.root / "evil"))
    assert warnings(app) == [f".env: {TRACKED}"]
    assert not (app.root / "hacked").exists()


# --- dependencies ---


def test_a_manifest_above_counts_up_to_the_root_of_the_repository(app: App) -> None:
    app.write("repository/apps/shop/Procfile", "web: true\n")
    words = ("-d", "repository/apps/shop")
    said = [f"repository/apps/shop/Procfile: {MANIFEST}"]
    app.write("package.json", "{}")
    assert warnings(app, *words) == said  # in no repository only the folder itself counts
    git(app, "init", "-q", "repository")
    assert warnings(app, *words) == said
    app.write("repository/pnpm-lock.yaml", "")
    assert warnings(app, *words) == []


def test_a_manifest_where_a_command_goes_counts(app: App) -> None:
    app("web: cd api && npm start\n").write("web/package.json", "{}")
    assert warnings(app) == [f"Procfile: {MANIFEST}"]
    app.write("api/package.json", "{}")
    assert warnings(app) == []


def test_a_procfile_elsewhere(app: App) -> None:
    app.write("deploy/Procfile", "web: true\n")
    app.write("Gemfile", "")
    assert warnings(app, "-f", "deploy/Procfile", "-d", ".") == []
    assert warnings(app, "-f", "deploy/Procfile") == [f"deploy/Procfile: {MANIFEST}"]
    app.write("deploy/go.mod", "")
    assert warnings(app, "-f", "deploy/Procfile") == []


def test_a_procfile_of_standard_input_has_nothing_beside_it(app: App) -> None:
    app("", x="web: true\n")
    with (app.root / "x").open() as file:
        assert warnings(app, "-f", "-", stdin=file.fileno()) == []


def test_the_example_app() -> None:
    """It is tracked on purpose; else there is nothing to say of it."""
    root = Path(__file__).parents[2]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PROCMAN_")}
    run = subprocess.run(
        [sys.executable, "-m", "procman", "check", "-d", "examples"],
        cwd=root, env={**env, "PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    lines = run.stdout.splitlines()
    assert len(lines) == (2 if (root / ".git").exists() else 1)
    assert all(line.startswith("examples/.env: warning: git tracks this file") for line in lines[:-1])
