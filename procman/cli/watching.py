"""What a run does when a watched file has changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from procman.cli.changed_files import listed
from procman.config import Settings
from procman.errors import ConfigError
from procman.instance import Instance
from procman.loop import Loop
from procman.patterns import compiled
from procman.supervisor import Supervisor
from procman.watch import Watcher, is_installed

MAX_NAMED = 3


def watched(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the patterns of each process type that has some."""
    return {name: process.watch for name, process in settings.processes.items() if process.watch}


def check_watch(settings: Settings) -> None:
    """Raise ConfigError, for all process types at once, if what their `watch` says cannot be done."""
    faults = []
    for name, patterns in watched(settings).items():
        source = settings.processes[name].source_of("watch")
        if not is_installed():
            faults.append(
                f"{source}: watch needs a package that is not installed — "
                'pip install "procman-cli[watch]", or remove "watch"'
            )
        for pattern in patterns:
            try:
                compiled([pattern])
            except ValueError as error:
                faults.append(f"{source}: watch: {pattern!a} is no pattern: {error}")
    if faults:
        raise ConfigError("\n".join(faults))


class Watching:
    """Restarts process types when files that they watch have changed."""

    def __init__(self, loop: Loop, supervisor: Supervisor, root: str, tell: Callable[[str], None]) -> None:
        self._loop = loop
        self._supervisor = supervisor
        self._root = root
        self._tell = tell
        self._watcher: Watcher | None = None

    def watch(self, patterns: Mapping[str, Sequence[str]]) -> None:
        """Watch these from now on, by process type, and nothing else."""
        if self._watcher is not None:
            if self._watcher.patterns == patterns:
                return
            self._watcher.close()
            self._watcher = None
        if patterns:
            try:
                self._watcher = Watcher(self._loop, self._root, patterns, self._on_change, self._on_note)
            except (OSError, RuntimeError) as error:
                self._on_note(f"files are not watched: {error}", True)
                return
        self._supervisor.watch_types(frozenset(patterns))

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.close()

    def _on_note(self, text: str, is_end: bool) -> None:
        self._tell(text)
        if is_end:
            self._supervisor.watch_types(())

    def _on_change(self, types: Sequence[str], paths: Sequence[str]) -> None:
        if self._supervisor.is_ending:
            return
        instances = [i for i in self._supervisor.instances.values() if i.spec.process_type in types and _is_wanted(i)]
        if instances:
            names = dict.fromkeys(instance.spec.process_type for instance in instances)
            self._tell(f"{changed_text(paths)}: restarting {', '.join(names)}")
            self._supervisor.restart_instances(instances)


def _is_wanted(instance: Instance) -> bool:
    """Tell whether the user has not stopped it: one that has ended, or failed, may do better now."""
    return not instance.is_held and not instance.is_removed


def changed_text(paths: Sequence[str]) -> str:
    """Return `a.py, b.py, c.py and 4 more have changed`."""
    shown = ["".join(char if char.isprintable() else "?" for char in path) for path in paths[:MAX_NAMED]]
    names = f"{', '.join(shown)} and {len(paths) - MAX_NAMED} more" if len(paths) > MAX_NAMED else listed(shown)
    return f"{names} {'have' if paths[1:] else 'has'} changed"
