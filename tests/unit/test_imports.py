"""Who may import whom, and what may be loaded before the first child runs."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from procman.cli import start_options
from procman.cli.group import cli
from tests.support.ports import port_block

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "procman"

# The floors of the architecture. A room may import the rooms named, and floor 0.
FLOOR_0_TO_2 = (
    "procfile environment config settings_files formation ports spec origins heroku events lifecycle restart readiness "
    "kernel loop process keyboard output ring probes dialogue services watch guard sweep sinks "
    "probe_settings needs parity"
)
ROOMS = {
    "__init__": "",
    "errors": "",
    "records": "",
    "procfile": "",
    "environment": "",
    "config": "ports readiness needs",
    "settings_files": "config probe_settings",
    "probe_settings": "config ports readiness",
    "needs": "",
    "parity": "procfile environment protocols",
    "requirements": "procfile config protocols",
    "greetings": "",
    "protocols": "greetings",
    "formation": "procfile",
    "ports": "",
    "spec": "procfile environment config formation ports restart readiness requirements protocols needs",
    "origins": "procfile environment config spec",
    "heroku": "procfile environment",
    "kernel": "",
    "events": "",
    "lifecycle": "",
    "restart": "",
    "readiness": "",
    "loop": "",
    "process": "spec loop",
    "keyboard": "loop process",
    "output": "events loop",
    "probes": "dialogue kernel loop process protocols readiness spec sweep",
    "dialogue": "loop protocols resolver tls",
    "resolver": "loop",
    "tls": "",
    "services": "loop protocols dialogue",
    "patterns": "",
    "watch": "loop patterns",
    "settings_watch": "kernel loop",
    "reload": "config spec",
    "guard": "kernel sweep modes",
    "modes": "",
    "sweep": "kernel",
    "ring": "events",
    "sinks": "events loop",
    "sinks/stream": "events loop",
    "sinks/terminal": "",
    "sinks/typed": "sinks/terminal",
    "sinks/console": "events loop kernel sinks/stream sinks/terminal sinks/typed",
    "sinks/jsonl": "events loop sinks/stream",
    "sinks/file": "events loop sinks/stream",
    "sinks/syslog": "events loop sinks/stream",
    "sinks/http": "events loop",
    "instance": "spec lifecycle restart loop process keyboard output probes",
    "dependencies": "events lifecycle loop protocols services instance",
    "health": "events lifecycle loop probes process spec sweep instance",
    "supervisor": f"{FLOOR_0_TO_2} instance dependencies health leftovers",
    "leftovers": "loop process sweep",
    "control": "",
    "control/protocol": "events",
    "control/directory": "",
    "control/server": "__init__ control/directory control/protocol control/requests events loop sinks/stream",
    "control/requests": "control/protocol control/server events lifecycle process reload ring instance supervisor",
    "control/client": "control/directory control/protocol",
    "control/viewer": "control/client control/protocol",
    "control/usage": "sweep",
    "control/table": "",
    "exporters": "procfile environment config formation ports spec events lifecycle restart readiness",
    "tui": "control/client control/protocol control/table control/usage sinks/console sinks/terminal",
    "cli": "*",
    "__main__": "cli",
}
# Whole rooms: each file in them follows the one row.
SHARED_ROOMS = ("cli", "exporters", "tui")
THIRD_PARTY = {
    "click": ("cli",),
    "dotenv": ("environment",),
    "psutil": ("sweep", "control/usage"),
    "colorama": ("sinks/console",),
    "watchfiles": ("watch",),
    "textual": ("tui",),
    "rich": ("tui",),
}


def room_of(path: Path) -> str:
    """Return the row of the table that the file belongs to."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if parts[0] in SHARED_ROOMS:
        return parts[0]
    return "/".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def room_of_module(module: str) -> str:
    path = PACKAGE / Path(*module.split(".")[1:])
    return room_of(path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py")


def imported(source: str) -> set[str]:
    """Return the modules that a file imports, wherever the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            for alias in node.names:
                # `from procman import sweep` names a module, `from procman.loop import Loop` does not.
                whole = f"{node.module}.{alias.name}"
                found.add(whole if _is_module(whole) else str(node.module))
    return found


def _is_module(name: str) -> bool:
    path = REPOSITORY / Path(*name.split("."))
    return name.startswith("procman.") and (path.with_suffix(".py").exists() or path.is_dir())


def may_import(room: str, other: str) -> bool:
    allowed = ROOMS[room].split()
    if other in ("records", "errors", "__init__", room) or "*" in allowed:
        return True
    if room != "cli" and other == "cli" and room != "__main__":
        return False
    return other in allowed or other.partition("/")[0] in allowed


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_arrow_is_in_the_table(path: Path) -> None:
    room = room_of(path)
    assert room in ROOMS, f"{room} is in no row of the table"
    for module in imported(path.read_text()):
        top = module.partition(".")[0]
        if top == "procman":
            other = room_of_module(module)
            assert may_import(room, other), f"{room} must not import {other}"
        elif top not in sys.stdlib_module_names:
            assert room in THIRD_PARTY.get(top, ()), f"{room} must not import {top}"


def test_the_live_view_has_no_way_around_the_client() -> None:
    """`control/client` is its only road to a supervisor or a process; `cli/top` adds the command `procman attach`."""
    roads = {"socket", "subprocess", "multiprocessing", "ctypes", "psutil", "procman.control.directory"}
    for path in (PACKAGE / "tui").glob("*.py"):
        assert not roads & imported(path.read_text()), path
    ours = {module for module in imported((PACKAGE / "cli/top.py").read_text()) if module.startswith("procman.")}
    cli = {"procman.cli.app", "procman.cli.control", "procman.cli.options"}
    assert ours == {*cli, "procman.errors", "procman.tui.app", "procman.tui.feed"}


def test_this_test_sees_an_arrow() -> None:
    source = """
def lazy():
    from procman import supervisor
    from procman.cli.main import main
    import psutil, os.path
"""
    assert imported(source) == {"procman.supervisor", "procman.cli.main", "psutil", "os.path"}
    assert not may_import("loop", "process")
    assert not may_import("supervisor", "cli")
    assert not may_import("errors", "events")
    assert not may_import("sinks/jsonl", "sinks/terminal")
    assert may_import("supervisor", "sinks/console")


def test_floor_0_imports_nothing_above() -> None:
    ours = {
        module
        for name in ("errors", "records")
        for module in imported((PACKAGE / f"{name}.py").read_text())
        if module.startswith("procman")
    }
    assert ours <= {"procman.records"}


def test_start_of_every_file() -> None:
    for path in FILES:
        text = path.read_text()
        tree = ast.parse(text)
        has_code = any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body)
        assert not has_code or "from __future__ import annotations" in text, path


# --- before the first spawn ------------------------------------------------------------------------------------------

# Told by the audit event of the interpreter itself, in the forked supervisor, right before the first child.
WATCHER = """
import os, sys
at_start = set(sys.modules)
report = os.environ.pop("TEST_REPORT")

def watch(event, args):
    if event == "os.posix_spawn" and not os.path.exists(report):
        with open(report, "w") as file:
            file.write("\\n".join(set(sys.modules) - at_start))

sys.addaudithook(watch)
from procman.cli.main import main
sys.argv = ["procman", "start", *sys.argv[1:]]
main()
"""

NEVER = [
    *("asyncio", "logging", "json", "psutil", "argparse", "subprocess", "selectors", "socket", "shlex"),
    *("colorama", "ctypes"),
]
ONLY_WITH = {"dotenv": ".env", "tomllib": "procman.toml"}

# What resolves and spawns; the sinks and everything else come after the first child.
NEEDED = {
    "",
    *(".cli", ".cli.app", ".cli.main", ".cli.start", ".control", ".control.directory"),
    *(".config", ".environment", ".errors", ".events", ".formation", ".guard", ".kernel", ".lifecycle", ".loop"),
    *(".leftovers", ".ports", ".process", ".procfile", ".records", ".restart", ".spec", ".supervisor", ".sweep"),
}


# What reads a command line that has options; click is with it.
NEEDED_FOR_OPTIONS = {".cli.options", ".cli.start_options"}


def modules_at_first_spawn(root: Path, *options: str) -> set[str]:
    report = root / "modules"
    with port_block() as port:  # one that is taken would be told with the name of its holder, which psutil finds
        done = subprocess.run(
            [sys.executable, "-c", WATCHER, *options],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TEST_REPORT": str(report), "PROCMAN_PORT": str(port)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert report.exists(), done.stderr
    assert done.returncode == 0, done.stderr
    return set(report.read_text().split("\n"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    root = tmp_path_factory.mktemp("plain")
    (root / "Procfile").write_text("web: true\n")
    return modules_at_first_spawn(root)


@pytest.fixture(scope="module")
def with_option(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    root = tmp_path_factory.mktemp("option")
    (root / "Procfile").write_text("web: true\n")
    return modules_at_first_spawn(root, "--no-prefix")


@pytest.mark.parametrize("name", [*NEVER, *ONLY_WITH, "click", "typing"])
def test_never_loaded_before_the_first_child(plain: set[str], name: str) -> None:
    assert not [module for module in plain if module.partition(".")[0] == name]


@pytest.mark.parametrize("name", [*NEVER, *ONLY_WITH])
def test_nor_with_an_option(with_option: set[str], name: str) -> None:
    assert "click" in with_option
    assert not [module for module in with_option if module.partition(".")[0] == name]


LATE = (".sinks", ".output", ".control.server", ".control.requests", ".control.protocol", ".ring", ".tui")


def test_ours_before_the_first_child(plain: set[str], with_option: set[str]) -> None:
    for loaded, needed in ((plain, NEEDED), (with_option, NEEDED | NEEDED_FOR_OPTIONS)):
        ours = {module.removeprefix("procman") for module in loaded if module.partition(".")[0] == "procman"}
        assert ".supervisor" in ours, "the watcher saw nothing"
        assert len(ours) <= len(needed), f"{len(ours)} modules of ours; not known as needed: {sorted(ours - needed)}"
        assert not [module for module in ours if module.startswith(LATE)]


def test_all_together_stay_few(plain: set[str], with_option: set[str]) -> None:
    """Ceilings against a careless import; click brings most of the second."""
    assert len(plain) < 70, json.dumps(sorted(plain))
    assert len(with_option) < 170, json.dumps(sorted(with_option))


def test_without_options_click_would_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`procman start` is run with no options at all, where click has nothing to read: it must mean the same."""
    told: list[tuple[object, ...]] = []
    monkeypatch.setattr(start_options, "start", lambda *told_of: told.append(told_of))
    cli.main(["start", "web=2", "worker"], prog_name="procman", standalone_mode=False)
    [(given, names, options)] = told
    assert (given, names) == ({}, ("web=2", "worker"))
    assert isinstance(options, dict)
    assert not [name for name, value in options.items() if value]


def test_dotenv_is_loaded_for_a_file_only(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("web: true\n")
    (tmp_path / ".env").write_text("NAME=value\n")
    loaded = modules_at_first_spawn(tmp_path)
    assert "dotenv.parser" in loaded
    late = ("asyncio", "json", "psutil", "argparse", "click")
    assert not [module for module in loaded if module.partition(".")[0] in late]
