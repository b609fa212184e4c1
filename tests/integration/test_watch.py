"""`watch`: process types are restarted when their files change."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.app import App, Run

SLEEP = "exec sleep 1000"
TWO = f"web: {SLEEP}\nworker: {SLEEP}\n"

needs_git = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed; CI has it")


def watching(app: App, procfile: str = TWO, *arguments: str, **patterns: list[str]) -> Run:
    """Start it with these `watch` patterns by process type; return when the files are watched."""
    sections = [f"[process.{name}]\nwatch = {some!r}\n" for name, some in patterns.items()]
    run = app(procfile, procman__toml="".join(sections)).start(*arguments)
    run.wait_notice("^watching files for ")
    return run


def changes(run: Run) -> list[str]:
    """Return what was told of changed files so far."""
    return [text for text in run.notices() if "changed: restarting" in text]


def count(run: Run, event: str, name: str) -> int:
    return sum(seen.is_(event, name) for seen in run.events)


def wait_restarts(run: Run, name: str, number: int) -> None:
    run.wait_until(lambda: count(run, "ready", name) == number + 1, f"restart {number} of {name}")


def replace(app: App, name: str, text: str = "new") -> None:
    """Write a file as editors do: a new one beside it takes its name."""
    app.write(f"{name}.tmp~", text)
    os.replace(app.root / f"{name}.tmp~", app.root / name)


def git(app: App, *arguments: str) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *identity, *arguments], cwd=app.root, env=app.env, check=True, capture_output=True)


# --- what restarts ---


def test_a_replaced_file_restarts_its_type_alone(app: App) -> None:
    app.write("app.py", "old")
    run = watching(app, web=["**/*.py"])
    pids = {name: run.pid_of(name) for name in ("web.1", "worker.1")}
    replace(app, "app.py")
    wait_restarts(run, "web.1", 1)
    assert changes(run) == ["app.py has changed: restarting web"]
    assert run.pid_of("web.1") != pids["web.1"]
    assert run.pid_of("worker.1") == pids["worker.1"]
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


def test_a_file_written_in_place_and_a_file_removed(app: App) -> None:
    app.write("lib/app.py", "old")
    run = watching(app, web=["lib/*.py"])
    app.write("lib/app.py", "")
    wait_restarts(run, "web.1", 1)
    (app.root / "lib/app.py").unlink()
    wait_restarts(run, "web.1", 2)
    assert changes(run) == ["lib/app.py has changed: restarting web"] * 2


def test_all_instances_and_several_types(app: App) -> None:
    run = watching(app, TWO, "web=2", "worker", web=["*.py"], worker=["app.*"])
    app.write("app.py", "")
    for name in ("web.1", "web.2", "worker.1"):
        wait_restarts(run, name, 1)
    assert changes(run) == ["app.py has changed: restarting web, worker"]


def test_a_thousand_files_are_one_restart(app: App) -> None:
    new = app.root.parent / "new"
    new.mkdir()
    for number in range(1000):
        (new / f"{number:04}.html").write_text("")
    (app.root / "templates").mkdir()
    run = watching(app, web=["templates/**"], worker=["last"])
    for file in new.iterdir():
        file.rename(app.root / "templates" / file.name)
    wait_restarts(run, "web.1", 1)
    app.write("last", "")
    wait_restarts(run, "worker.1", 1)
    first = "templates/0000.html, templates/0001.html, templates/0002.html and 997 more have changed: restarting web"
    assert changes(run) == [first, "last has changed: restarting worker"]
    assert count(run, "stopping", "web.1") == 1


def test_a_file_that_is_written_for_a_while_is_one_restart(app: App) -> None:
    run = watching(app, web=["bundle.js"], worker=["last"])
    end_s = time.monotonic() + 1.0
    while time.monotonic() < end_s:
        app.write("bundle.js", "all of it")
    run.wait_for("stopping", "web.1")
    app.write("last", "")
    wait_restarts(run, "worker.1", 1)
    assert count(run, "stopping", "web.1") <= 2  # on a busy machine the writing may have paused


def test_new_directories_are_watched(app: App) -> None:
    run = watching(app, web=["**/*.py"])
    (app.root / "pkg/deep").mkdir(parents=True)
    app.write("pkg/deep/a.py", "")
    wait_restarts(run, "web.1", 1)
    app.write("pkg/deep/b.py", "")
    wait_restarts(run, "web.1", 2)
    moved = app.root.parent / "moved"
    moved.mkdir()
    (moved / "c.py").write_text("")
    moved.rename(app.root / "pkg/moved")
    wait_restarts(run, "web.1", 3)
    assert changes(run) == [f"pkg/{name}.py has changed: restarting web" for name in ("deep/a", "deep/b", "moved/c")]


def test_a_pattern_that_matches_nothing_until_later(app: App) -> None:
    run = watching(app, web=["later/**/*.py"])
    app.write("other.py", "")
    app.write("later/a.txt", "")
    app.write("later/x/a.py", "")
    wait_restarts(run, "web.1", 1)
    assert changes(run) == ["later/x/a.py has changed: restarting web"]


def test_a_watched_directory_that_is_replaced(app: App) -> None:
    app.write("src/a.py", "")
    run = watching(app, web=["src/**"], worker=["src/b.py"])
    shutil.rmtree(app.root / "src")
    run.wait_notice("^src/ has changed: restarting web, worker")
    app.write("src/b.py", "")
    run.wait_notice(r"^src/b\.py has changed: restarting web, worker")


def test_a_file_with_an_odd_name(app: App) -> None:
    run = watching(app, web=["*"])
    app.write("a\nb\x1b[31m", "")
    wait_restarts(run, "web.1", 1)
    assert changes(run) == ["a?b?[31m has changed: restarting web"]


# --- what does not ---


@needs_git
def test_what_git_ignores_is_ignored(app: App) -> None:
    git(app, "init", "-q")
    app.write(".gitignore", "*.log\n/build/\n!kept.log\n")
    app.write("tracked.log", "")
    git(app, "add", "-f", "tracked.log")
    run = watching(app, web=["**"])
    for name in ("x.log", "build/a/b.py", "sub/y.log"):
        app.write(name, "")
    git(app, "commit", "-q", "-m", "x")  # which writes in .git
    for name in ("sub/kept.log", "tracked.log"):
        app.write(name, "new")
    wait_restarts(run, "web.1", 1)
    assert changes(run) == ["sub/kept.log and tracked.log have changed: restarting web"]


@needs_git
def test_patterns_for_what_git_ignores_are_told(app: App) -> None:
    git(app, "init", "-q")
    app.write(".gitignore", "/build/\n*.log\n")
    run = watching(app, web=["build/**/*.js", "src/**", "a.log", "*.py"])
    run.wait_notice("^git ignores a.log, build/: of these only files that it tracks count$")


@needs_git
def test_a_path_that_git_refuses_hides_no_other(app: App) -> None:
    git(app, "init", "-q")
    app.write(".gitignore", "*.log\n")
    (app.root.parent / "other").mkdir()
    (app.root / "aside").symlink_to(app.root.parent / "other")  # git knows nothing of what is behind it
    run = watching(app, web=["**/*.txt", "**/*.log"])
    for name in ("aside/a.txt", "b.log", "c.txt"):
        app.write(name, "")
    run.wait_until(lambda: re.search(r"c\.txt", str(changes(run))), "c.txt")
    assert "b.log" not in str(changes(run))


def test_without_git_the_usual_directories_are_ignored(app: App) -> None:
    run = watching(app, web=["**"])
    for name in ("node_modules/a/b.js", "__pycache__/a.pyc", ".git/index", ".procman/x", "a.py~", ".a.py.swp"):
        app.write(name, "")
    for name in ("#a.py#", "sub/.a.py.kate-swp", ".~lock.a.odt#"):  # nothing was saved
        app.write(name, "")
    app.write("seen.py", "")
    wait_restarts(run, "web.1", 1)
    assert changes(run) == ["seen.py has changed: restarting web"]


def test_a_root_below_an_ignored_name(app: App) -> None:
    app.root = app.root / "node_modules"
    app.root.mkdir()
    run = watching(app, web=["*.js"])
    app.write("a.js", "")
    wait_restarts(run, "web.1", 1)


def test_what_the_user_has_stopped_stays_down(app: App) -> None:
    run = watching(app, web=["*.py"], worker=["*.py"])
    assert app.call("stop", "web").code == 0
    app.write("app.py", "")
    wait_restarts(run, "worker.1", 1)
    assert changes(run) == ["app.py has changed: restarting worker"]
    assert count(run, "started", "web.1") == 1
    assert app.call("restart", "web").code == 0
    app.write("app.py", "again")
    wait_restarts(run, "web.1", 2)
    assert changes(run)[1:] == ["app.py has changed: restarting web, worker"]


# --- mistakes that are mended ---


def test_a_failed_process_is_started_by_the_next_change(app: App) -> None:
    """Nothing is left running meanwhile, and the run goes on."""
    app.write("app.sh", "echo wrong; exit 3")
    run = watching(app, "web: sh app.sh", web=["*.sh"])
    run.wait_for("exited", "web.1", code=3)
    app.write("app.sh", "echo right; exec sleep 1000")
    run.wait_output("right", "web.1")
    assert run.code is None
    assert run.output_of("web.1") == ["wrong", "right"]


def test_on_exit_counts_if_somebody_says_it(app: App) -> None:
    app("web: exit 3", procman__toml='on_exit = "stop"\n[process.web]\nwatch = ["*.py"]\n')
    assert app.start().wait() == 3


# --- the package, the thread ---

HIDDEN = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = classmethod(lambda cls, name, *more: None if name == "watchfiles" else find(name, *more))
"""


def without_package(app: App) -> dict[str, str | None]:
    app.write("hidden/sitecustomize.py", HIDDEN)
    return {"PYTHONPATH": f"{app.root / 'hidden'}:{app.env['PYTHONPATH']}"}


def test_missing_package_is_told_at_once(app: App) -> None:
    toml = '[process.web]\ngrace = 1\nwatch = ["*.py"]\n\n[process.worker]\nwatch = ["*.py"]\n'
    run = app(TWO, procman__toml=toml).start(env=without_package(app))
    assert run.wait() == 78
    assert run.err_text == "".join(
        f"procman.toml:{line}: watch needs a package that is not installed — "
        'pip install "procman-cli[watch]", or remove "watch"\n'
        for line in (3, 6)
    )
    assert not run.events


def test_without_watch_the_package_is_not_needed(app: App) -> None:
    app(TWO, procman__toml="[process.web]\ngrace = 1\n")
    run = app.start(env=without_package(app))
    run.wait_for("ready", "worker.1")


def test_a_pattern_that_cannot_be_is_refused(app: App) -> None:
    run = app(TWO, procman__toml='[process.web]\nwatch = ["[z-a]"]\n').start()
    assert run.wait() == 78
    assert run.err_text.startswith("procman.toml:2: watch: '[z-a]' is no pattern: ")


def test_signals_are_not_the_threads(app: App) -> None:
    run = watching(app, web=["**"])
    tasks = sorted(Path(f"/proc/{run.supervisor_pid()}/task").iterdir(), key=lambda task: int(task.name))
    assert len(tasks) > 1
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1):
        blocked = [is_blocked(task, signum) for task in tasks]
        assert blocked == [False, *[True] * (len(tasks) - 1)]


def is_blocked(task: Path, signum: int) -> bool:
    found = re.search(r"^SigBlk:\s*(\w+)$", (task / "status").read_text(), re.MULTILINE)
    assert found
    return bool(int(found[1], 16) >> (signum - 1) & 1)


def test_the_end_in_the_middle_of_changes(app: App) -> None:
    run = watching(app, web=["**"])
    for number in range(200):
        app.write(f"{number}.py", "")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert "nothing is left running" in run.notices()[-1]


def test_no_inotify_instance_is_left(app: App) -> None:
    limited = ("unshare", "-Ur", "sh", "-c", 'echo 0 >/proc/sys/user/max_inotify_instances && exec "$@"', "sh")
    try:
        subprocess.run([*limited, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no user namespace can be made here")
    app(TWO, procman__toml="[process.web]\nwatch = ['*.py']\n")
    run = app.spawn([*limited, sys.executable, "-m", "procman", "start", "-p", str(app.port)], has_events=True)
    run.wait_notice("^files are not watched: .* — raise fs.inotify.max_user_instances$")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
