"""`procman reload` inside the run: its files are read again, and what they say now is put beside what runs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from procman.cli.app import (
    SETTINGS_FILES,
    STDIN_NAME,
    App,
    Origin,
    load_app,
    read_regular,
    said,
    said_of_input,
)
from procman.cli.watching import check_watch, listed
from procman.control.directory import inside
from procman.environment import is_disabled
from procman.errors import ControlError
from procman.events import Event, Output
from procman.formation import ALL, resolve_formation
from procman.instance import Instance
from procman.lifecycle import ENDED, State
from procman.loop import Loop
from procman.records import NamedTuple
from procman.reload import Changes, compare, fixed_changes, in_turn, with_fixed
from procman.spec import ProcessSpec, after_release, release_types, resolve, without_needs
from procman.supervisor import Supervisor
from procman.watch import SettingsWatch

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

    A run that was started for certain types takes no others. Raises ConfigError for a formation that cannot be.
    """
    there = Counter(i.spec.process_type for i in instances.values() if not i.is_removed)
    known = {entry.name for entry in old.procfile.types}
    counts = {entry.name: 0 for entry in app.procfile.types} if origin.names else _formation(origin, app)
    for name, count in counts.items():
        if name in known:
            counts[name] = there[name]
        elif count and name in others:
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

    is_full = False
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


# --- what has changed and is not in force yet ------------------------------------------------------------------------


class ChangedFiles:
    """Tells the user once when a file that the run was started with has changed."""

    def __init__(self, loop: Loop, origin: Origin, app: App, tell: Callable[[str], None]) -> None:
        """Raises OSError where the system cannot tell of changes."""
        self._origin = origin
        self._tell = tell
        self._paths: list[str] = []
        self._in_force: Mapping[str, bytes] = {}
        self._told: dict[str, bytes | str | None] = {}
        self._watch = SettingsWatch(loop, self._look)
        self.follow(app)

    def follow(self, app: App) -> None:
        """Take what was read for `app` as what is in force. Raises OSError."""
        self._paths = _paths(self._origin, app)
        self._in_force = app.texts
        self._told.clear()
        with inside(self._origin.directory_fd):
            self._watch.follow(self._paths)
        self._look()

    def close(self) -> None:
        self._watch.close()

    def _look(self) -> None:
        changed: list[str] = []
        gone: list[str] = []
        try:
            with inside(self._origin.directory_fd):
                found = {path: _now(path) for path in self._paths}
        except OSError:  # no descriptor is left, and nothing of this is worth an end
            return
        for path, now in found.items():
            in_force = _sense(path, self._in_force.get(path))
            now = _sense(path, now) if isinstance(now, bytes) else now
            if now == in_force:
                self._told.pop(path, None)
                continue
            if path in self._told and self._told[path] == now:
                continue
            self._told[path] = now
            if isinstance(now, str):
                self._tell(f"{path} has changed, and cannot be read now: {now}")
            else:
                (gone if now is None else changed).append(path)
        for paths, what in ((changed, "changed"), (gone, "gone")):
            if paths:
                verb, it = ("have", "them") if paths[1:] else ("has", "it")
                verb = verb if what == "changed" else ("are" if paths[1:] else "is")
                self._tell(f"{listed(paths)} {verb} {what} — `procman reload` applies {it}")


def _paths(origin: Origin, app: App) -> list[str]:
    """Return the files that a reload would read, there or not, relative to where `start` was called."""
    beside = origin.given.get("root") or os.path.dirname(origin.given.get("procfile") or "")
    paths = [path for path in app.texts if path != STDIN_NAME and path not in app.once]
    paths += [os.path.join(beside, name) for name in SETTINGS_FILES]
    if not app.settings.env_files and not is_disabled(os.environ):
        paths.append(os.path.join(beside, ".env"))
    return list(dict.fromkeys(paths))


def _now(path: str) -> bytes | str | None:
    """Return what is in a file, None if there is none, or why it cannot be read."""
    try:
        return read_regular(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):  # the last for a directory .foreman
        return None
    except OSError as error:
        return os.strerror(error.errno or 0).lower()
    except ValueError:
        return "no regular file"


def _sense(path: str, data: bytes | None) -> bytes | None:
    """Return what of a file is procman's: most of pyproject.toml is not."""
    if data is None or os.path.basename(path) != "pyproject.toml":
        return data
    if b"procman" not in data:
        return None
    import tomllib

    try:
        table = tomllib.loads(data.decode()).get("tool", {}).get("procman")
    except (ValueError, RecursionError, AttributeError):
        return data
    return None if table is None else repr(table).encode()
