"""Tells that a file which procman was started with has changed. It comes into every run, so it imports little."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from procman.cli.app import SETTINGS_FILES, STDIN_NAME, App, Origin, read_regular
from procman.control.directory import inside
from procman.loop import Loop
from procman.settings_watch import SettingsWatch


class ChangedFiles:
    """Tells the user once when a file that the run was started with has changed."""

    def __init__(self, loop: Loop, origin: Origin, app: App, tell: Callable[[str], None]) -> None:
        """Raises OSError where the system cannot tell of changes."""
        self._origin = origin
        self._tell = tell
        self._paths: list[str] = []  # of the files that a reload would read, relative to where `start` was called
        self._optional: list[str] = []  # of those which it can do without
        self._in_force: Mapping[str, bytes] = {}
        self._told: dict[str, bytes | str | None] = {}
        self._watch = SettingsWatch(loop, self._look)
        self.follow(app)

    def follow(self, app: App) -> None:
        """Take what was read for `app` as what is in force. Raises OSError."""
        self._optional = _optional(self._origin, app)
        read = [path for path in app.texts if path != STDIN_NAME and path not in app.once]
        self._paths = list(dict.fromkeys((*read, *self._optional)))
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
        missed = [path for path in gone if path not in self._optional]
        gone = [path for path in gone if path in self._optional]
        for paths, one, several in (
            (changed, "has changed — `procman reload` applies it", "have changed — `procman reload` applies them"),
            (gone, "is gone — `procman reload` applies it", "are gone — `procman reload` applies it"),
            (missed, "is gone, and `procman reload` needs it", "are gone, and `procman reload` needs them"),
        ):
            if paths:
                self._tell(f"{listed(paths)} {several if paths[1:] else one}")


def _optional(origin: Origin, app: App) -> list[str]:
    """Return the files that a reload reads if they are there."""
    beside = origin.given.get("root") or os.path.dirname(origin.given.get("procfile") or "")
    paths = [os.path.join(beside, name) for name in SETTINGS_FILES]
    if not app.settings.env_files and not os.environ.get("PYTHON_DOTENV_DISABLED"):
        paths.append(os.path.join(beside, ".env"))
    return paths


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


def listed(words: Sequence[str]) -> str:
    """Return `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if words[1:] else words[0]
