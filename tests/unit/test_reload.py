"""What a reload does to a formation: pure comparison."""

from __future__ import annotations

from typing import Any

import pytest

from procman.config import ProcessSettings, Settings
from procman.environment import Binding
from procman.errors import SourceRef
from procman.procfile import parse_procfile
from procman.reload import compare, fixed_changes, in_turn, with_fixed
from procman.spec import ProcessSpec, resolve

PROCFILE = "web: serve\nworker: work\n"


def specs(procfile: str = PROCFILE, env: dict[str, str] | None = None, **settings: Any) -> list[ProcessSpec]:
    types = parse_procfile(procfile.encode(), "Procfile").types
    counts = settings.pop("counts", {entry.name: 1 for entry in types})
    counts = {entry.name: counts.get(entry.name, 0) for entry in types}
    dotenv = {name: Binding(name, value, SourceRef(".env", 1)) for name, value in (env or {}).items()}
    return resolve(types, dotenv, counts, Settings("/app", **settings), {})


def section(line: int = 1, **fields: Any) -> ProcessSettings:
    return ProcessSettings(SourceRef("procman.toml", line), **fields)


def test_the_same_is_kept() -> None:
    changes = compare(specs(), specs())
    assert changes == ((), (), (), (), ("web.1", "worker.1"))


@pytest.mark.parametrize(
    ("after", "restarted"),
    [
        (specs("web: serve --fast\nworker: work\n"), ("web.1",)),
        (specs(env={"A": "1"}), ("web.1", "worker.1")),
        (specs(processes={"worker": section(env={"A": "1"})}), ("worker.1",)),
        (specs(base_port=7000), ("web.1", "worker.1")),
        (specs(base_port=None), ("web.1", "worker.1")),
    ],
)
def test_what_a_process_has_from_its_start_restarts_it(after: list[ProcessSpec], restarted: tuple[str, ...]) -> None:
    assert compare(specs(), after).restarted == restarted
    assert compare(after, specs()).restarted == restarted


def test_another_value_and_a_value_that_is_gone() -> None:
    assert compare(specs(env={"A": "1", "B": "1"}), specs(env={"A": "1", "B": "2"})).restarted == ("web.1", "worker.1")
    assert compare(specs(env={"A": "1", "B": ""}), specs(env={"A": "1"})).restarted == ("web.1", "worker.1")
    assert compare(specs(env={"A": "1", "B": "2"}), specs(env={"B": "2", "A": "1"})).restarted == ()


def test_a_variable_of_all_that_a_section_hides() -> None:
    hidden = {"web": section(env={"A": "own"})}
    assert compare(specs(env={"A": "1"}, processes=hidden), specs(env={"A": "2"}, processes=hidden)).restarted == (
        "worker.1",
    )


@pytest.mark.parametrize("settings", [{"grace_s": 9.0}, {"on_exit": "ignore"}, {"restart": ("web", "worker")}])
def test_policy_is_only_adjusted(settings: dict[str, Any]) -> None:
    changes = compare(specs(), specs(**settings))
    assert (changes.restarted, changes.adjusted) == ((), ("web.1", "worker.1"))


def test_policy_of_one_type() -> None:
    changes = compare(specs(), specs(processes={"web": section(stop_signal=2, grace_s=1.0)}))
    assert (changes.adjusted, changes.kept) == (("web.1",), ("worker.1",))


def test_lines_that_move_are_no_change() -> None:
    assert compare(specs(), specs(f"# new\n\n{PROCFILE}")).kept == ("web.1", "worker.1")


def test_new_and_gone() -> None:
    changes = compare(specs("web: serve\nold: x\n"), specs("web: serve\nnew: y\n"), {"PORT_OLD", "PORT_NEW"})
    assert changes == (("new.1",), (), ("old.1",), (), ("web.1",))


def test_ports_of_neighbours_that_are_no_longer_there_restart_nobody_but_others_do() -> None:
    before, after = specs("web: serve\nold: x\n"), specs("web: serve\nnew: y\n")
    assert compare(before, after).restarted == ("web.1",)  # without the names told apart
    moved = specs("first: y\nweb: serve\nworker: work\n")
    assert compare(specs(), moved, {"PORT_FIRST"}).restarted == ("web.1", "worker.1")


# --- ports that pass from one to another -----------------------------------------------------------------------------



def test_nobody_waits_without_need() -> None:
    assert in_turn(specs(), specs("web: other\nworker: work\nnew: y\n")) == (frozenset(), frozenset())
    assert in_turn(specs(base_port=None), specs(base_port=None)) == (frozenset(), frozenset())


def test_all_that_move_along_wait_for_each_other() -> None:
    wanted = specs("first: y\nweb: serve\nworker: work\n")
    assert in_turn(specs(), wanted) == (frozenset({"first.1", "web.1", "worker.1"}), frozenset({"web.1", "worker.1"}))


def test_a_new_one_waits_for_one_that_goes() -> None:
    assert in_turn(specs(), specs("web: serve\nnew: y\n")) == (frozenset({"new.1"}), frozenset({"worker.1"}))


def test_a_new_one_waits_for_one_that_moves_to_a_free_port() -> None:
    waiting, awaited = in_turn(specs("web: serve\n"), specs("new: y\nweb: serve\n"))
    assert waiting == {"new.1", "web.1"}
    assert awaited == {"web.1"}


# --- settings --------------------------------------------------------------------------------------------------------


def test_settings_of_the_run_stay() -> None:
    old, new = Settings("/app", quiet=("web",), log_bytes=1), Settings("/app", log_bytes=2, grace_s=9.0)
    assert fixed_changes(old, new) == ["quiet", "log_size"]
    assert with_fixed(old, new) == new._replace(quiet=("web",), log_bytes=1)
    assert fixed_changes(old, with_fixed(old, new)) == []
