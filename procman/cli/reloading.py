"""`procman reload` inside the run: its files are read again, and what they say now is put beside what runs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from procman.cli.app import (
    App,
    Origin,
    load_app,
    said,
    said_of_input,
)
from procman.cli.changed_files import listed
from procman.cli.start import needed_besides
from procman.cli.watching import check_watch, watched
from procman.control.directory import inside
from procman.errors import ControlError
from procman.events import Event, Output
from procman.formation import ALL, resolve_formation, zeros
from procman.instance import Instance
from procman.lifecycle import ENDED, State
from procman.loop import Loop
from procman.records import NamedTuple
from procman.reload import Changes, compare, fixed_changes, in_turn, with_fixed
from procman.spec import ProcessSpec, after_release, release_types, resolve, without_needs
from procman.supervisor import Supervisor

NOBODY = f"{ALL}=0"


class Plan(NamedTuple):
    """What a reload is going to do. Nothing has happened yet."""

    app: App  # with the settings that count from now on
    counts: Mapping[str, int]
    specs: Sequence[ProcessSpec]
    changes: Changes
    fresh: Sequence[ProcessSpec]  # of which it is not known whether their ports are free
    waiting: frozenset[str]  # who can only start when `awaited` are down
    awaited: frozenset[str]
    notes: tuple[str, ...]


def plan_reload(origin: Origin, old: App, instances: Mapping[str, Instance], others: Mapping[str, int]) -> Plan:
    """Read all files and compare what they say with what runs; `others` are types that another supervisor runs here.

    Raises what `start` raises for such files.
    """
    if origin.directory_fd < 0:
        raise ControlError("the directory that procman was started in cannot be opened, so no file is read again")
    with inside(origin.directory_fd):
        app = load_app(origin.given, said(origin.options), old.once)
    root = app.settings.root
    if not _is_here(root):
        raise ControlError(
            f"{root} is another directory than when procman was started",
            hint="`procman quit` and a new start change to it",
        )
    if origin.options.get("no_needs"):
        app = app._replace(settings=without_needs(app.settings))
    check_watch(app.settings)
    fixed = fixed_changes(old.settings, app.settings)
    notes = [note for note in said_of_input(app) if note not in said_of_input(old)]
    if fixed:
        notes.append(f"{listed(fixed)} will count from the next start on")
    at_once = {
        "needs_within": app.settings.needs_within_s != old.settings.needs_within_s,
        "watch": watched(app.settings) != watched(old.settings),
    }
    notes += [f"{key} counts from now on" for key, has_changed in at_once.items() if has_changed]
    app = app._replace(settings=with_fixed(old.settings, app.settings))
    counts = _counts(origin, old, app, instances, others, notes)
    specs = resolve(app.procfile.types, app.dotenv, counts, app.settings, os.environ)
    if origin.options.get("release"):
        specs = after_release(specs, release_types(app.settings))
    there = [instance.spec for instance in instances.values() if not instance.is_removed]
    changes = compare(there, specs, _unheard(old, app))
    held = {name for name, instance in instances.items() if instance.is_held or _is_done(instance)}
    changes = changes._replace(
        restarted=tuple(name for name in changes.restarted if name not in held),
        adjusted=(*changes.adjusted, *(name for name in changes.restarted if name in held)),
    )
    up = {*changes.started, *changes.restarted}
    holders = [instance.spec for instance in instances.values()]
    waiting, awaited = in_turn(holders, [spec for spec in specs if spec.name in up])
    ports = {spec.port for spec in holders}
    fresh = [spec for spec in specs if spec.name in up and spec.port not in ports]
    return Plan(app, counts, specs, changes, fresh, waiting, awaited, tuple(notes))


def _is_done(instance: Instance) -> bool:
    """Whether it has ended as it should: a release step is no part of a reload."""
    ready = instance.spec.ready
    return ready is not None and ready.is_by_end and instance.state is State.EXITED


def _is_here(root: str) -> bool:
    try:
        return os.path.samestat(os.stat(root), os.stat("."))
    except OSError:
        return False


def _counts(
    origin: Origin,
    old: App,
    app: App,
    instances: Mapping[str, Instance],
    others: Mapping[str, int],
    notes: list[str],
) -> dict[str, int]:
    """Return the count of each type: what runs, and for types that are new in the Procfile what `start` would say.

    A run that was started for certain types takes no others but those that these need. Raises ConfigError for a
    formation that cannot be.
    """
    there = Counter(i.spec.process_type for i in instances.values() if not i.is_removed)
    known = {entry.name for entry in old.procfile.types}
    counts = {entry.name: 0 for entry in app.procfile.types} if origin.names else _formation(origin, app)
    counts |= {name: there[name] for name in counts if name in known}
    unwanted = zeros(*origin.names, *map(origin.options.get, ("formation", "concurrency")), app.settings.formation)
    needed = needed_besides(app.procfile.types, app.settings, counts, unwanted)
    counts |= {name: 1 for name in needed if name not in known}
    for name, count in counts.items():
        if name not in known and count and name in others:
            counts[name] = 0
            notes.append(f"{name} runs under procman with pid {others[name]}, and is left to it")
    if app.settings.formation != old.settings.formation:
        notes.append("the formation counts for types that are new; `procman scale` changes what runs")
    return counts


def _formation(origin: Origin, app: App) -> dict[str, int]:
    """Return the formation without arguments. Types that only options name may be gone: those cannot be changed."""
    known = {ALL, *(entry.name for entry in app.procfile.types)}
    foreman = _left(origin.options.get("formation"), known)
    honcho = _left(origin.options.get("concurrency"), known)
    where = app.settings.origin("formation")
    setting = app.settings.formation
    if where.startswith(("-", "PROCMAN_")):
        setting = _left(setting, known)
    return resolve_formation(
        app.procfile.types,
        foreman=NOBODY if foreman == "" else foreman,
        honcho=honcho or None,
        setting=NOBODY if setting == "" else setting,
        origin=where,
        releases=release_types(app.settings),
    )


def _left(counts: str | None, known: Collection[str]) -> str | None:
    """Return the counts of known types."""
    if counts is None:
        return None
    return ",".join(word for word in counts.split(",") if word.partition("=")[0].strip() in known)


def _unheard(old: App, new: App) -> set[str]:
    """Return the variables with the ports of types that are new or gone: nobody is restarted for these."""
    before, after = ({entry.name for entry in app.procfile.types} for app in (old, new))
    names = {f"PORT_{name.upper().replace('-', '_')}" for name in before ^ after}
    return names - old.dotenv.keys() - new.dotenv.keys()


# --- one after the other ---------------------------------------------------------------------------------------------


class Exchange:
    """A sink that starts some instances as soon as others are down: those have had their ports."""

    is_idle = True

    def __init__(self, loop: Loop, supervisor: Supervisor, plan: Plan, file_limit: int | None) -> None:
        self.is_going_on = True
        self._loop = loop
        self._supervisor = supervisor
        self._plan = plan
        self._file_limit = file_limit
        self._is_look_due = False
        there = supervisor.instances
        self._leaving = [there[name] for name in plan.awaited | plan.waiting if name in there]

    def begin(self) -> None:
        """Do all that can be done now."""
        plan, there = self._plan, self._supervisor.instances
        going = {name for name, instance in there.items() if not instance.is_removed}
        specs = [spec for spec in plan.specs if spec.name not in plan.waiting or spec.name in going]
        moving = [there[name] for name in plan.changes.restarted if name in plan.waiting]
        at_once = [name for name in plan.changes.restarted if name not in plan.waiting]
        self._supervisor.replace(specs, at_once, self._file_limit)
        self._supervisor.stop_instances(moving)
        self._look()

    def write(self, event: Event) -> None:
        # The event comes before the change that it tells of.
        if self.is_going_on and not self._is_look_due and type(event) is not Output:
            self._is_look_due = True
            self._loop.at_turn_end(self._look)

    def close(self) -> None:
        self.is_going_on = False

    def _look(self) -> None:
        self._is_look_due = False
        if not self.is_going_on or not all(instance.state in ENDED for instance in self._leaving):
            return
        self.is_going_on = False
        if self._supervisor.is_ending:
            return
        there = self._supervisor.instances
        moving = [there[name] for name in self._plan.changes.restarted if name in self._plan.waiting and name in there]
        self._supervisor.replace(self._plan.specs, (), self._file_limit)
        self._supervisor.start_instances(moving)
