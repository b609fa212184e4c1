"""What `procman reload` changes: the formation that runs beside the one that the files now say (docs/reload.md)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from procman.config import SETTINGS, Settings
from procman.records import NamedTuple
from procman.spec import ProcessSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What a process has from its start on, besides its environment; all else is said to the supervisor alone.
OF_THE_PROCESS = ("argv", "cwd", "port", "ready")
# What changes no behaviour: where the type stands in the Procfile, its text, and what is compared otherwise.
NO_POLICY = (*OF_THE_PROCESS, "shared_env", "own_env", "type_index", "command", "source")

FIXED = ("quiet", "color", "timestamp", "prefix", "log_size", "log_files", "log_memory", "log_memory_total")
"""Settings of the run and not of a process type: they count from the next start on. Nor can the root change."""


class Changes(NamedTuple):
    """Names of instances, each in one place."""

    started: tuple[str, ...]
    restarted: tuple[str, ...]
    stopped: tuple[str, ...]
    adjusted: tuple[str, ...]  # go on under another policy
    kept: tuple[str, ...]


class Outcome(NamedTuple):
    """What a reload has begun."""

    changes: Changes
    notes: tuple[str, ...]  # for the user
    is_waiting: Callable[[], bool]  # some are only started when others are down


def compare(
    running: Iterable[ProcessSpec], wanted: Sequence[ProcessSpec], unheard: Collection[str] = ()
) -> Changes:
    """Return what to do so that those `running` become those `wanted`.

    `unheard` are variables that restart nobody: the ports of neighbours that are new or gone.
    """
    there = {spec.name: spec for spec in running}
    shared = _SharedEnvironments(unheard)
    fates: dict[str, list[str]] = {"started": [], "restarted": [], "adjusted": [], "kept": []}
    for spec in wanted:
        old = there.pop(spec.name, None)
        if old is None:
            fate = "started"
        elif shared.differ(old, spec) or _differ(old, spec, OF_THE_PROCESS):
            fate = "restarted"
        else:
            fate = "adjusted" if _differ(old, spec, _policy(spec)) else "kept"
        fates[fate].append(spec.name)
    return Changes(stopped=tuple(there), **{fate: tuple(names) for fate, names in fates.items()})


def _policy(spec: ProcessSpec) -> list[str]:
    return [field for field in spec._fields if field not in NO_POLICY]


def _differ(old: ProcessSpec, new: ProcessSpec, fields: Iterable[str]) -> bool:
    return any(_sense(getattr(old, field, None)) != _sense(getattr(new, field, None)) for field in fields)


def _sense(value: Any) -> Any:
    """Return a value without the line of the file that says it: others may have been put above."""
    return value._replace(source=None) if "source" in getattr(value, "_fields", ()) else value


class _SharedEnvironments:
    """Compares environments; what the instances share is compared once for all."""

    def __init__(self, unheard: Collection[str]) -> None:
        self._unheard = frozenset(unheard)
        self._pair: tuple[Mapping[str, str], Mapping[str, str]] | None = None
        self._names: set[str] = set()

    def differ(self, old: ProcessSpec, new: ProcessSpec) -> bool:
        """Tell whether two specs give their process another environment."""
        if old.own_env == new.own_env:
            return any(name not in new.own_env for name in self._changed(old.shared_env, new.shared_env))
        mine, theirs = old.env, new.env
        return any(mine.get(name) != theirs.get(name) for name in (mine.keys() | theirs.keys()) - self._unheard)

    def _changed(self, old: Mapping[str, str], new: Mapping[str, str]) -> set[str]:
        if self._pair is None or self._pair[0] is not old or self._pair[1] is not new:
            self._pair = old, new
            self._names = {
                name for name in (old.keys() | new.keys()) - self._unheard if old.get(name) != new.get(name)
            }
        return self._names


def in_turn(holders: Iterable[ProcessSpec], wanted: Iterable[ProcessSpec]) -> tuple[frozenset[str], frozenset[str]]:
    """Return who of `wanted` can only start when others are down, and those others: they have its port until then.

    The others are among `holders`. One that goes on, with another port, is in both sets.
    """
    holder_of = {spec.port: spec.name for spec in holders if spec.port is not None}
    port_of = {spec.name: spec.port for spec in wanted}
    waiting: set[str] = set()
    awaited: set[str] = set()
    for name, port in port_of.items():
        holder = None if port is None else holder_of.get(port)
        if holder is not None and holder != name:
            waiting.add(name)
            awaited.add(holder)
    # Who gives up its port begins anew elsewhere, and its end must be seen before.
    return frozenset(waiting | (awaited & port_of.keys())), frozenset(awaited)


def fixed_changes(old: Settings, new: Settings) -> list[str]:
    """Return the keys of settings that have changed, but count from the next start on."""
    return [key for key in FIXED if getattr(old, SETTINGS[key].field) != getattr(new, SETTINGS[key].field)]


def with_fixed(old: Settings, new: Settings) -> Settings:
    """Return `new` as it counts in a run that was started with `old`."""
    return new._replace(**{SETTINGS[key].field: getattr(old, SETTINGS[key].field) for key in FIXED})
