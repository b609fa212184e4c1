"""Changed files that process types watch -> callback. A thread looks at them.

The rules are in docs/reload.md. What a change means is not known here.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from procman.loop import Loop
from procman.patterns import NEVER_WATCHED, base_of, compiled, is_glob, is_never_watched
from procman.records import NamedTuple

STEP_MS = 100  # so long nothing may change before the changes so far are told; a look takes as long
MOST_MS = 1600  # and so long they are held back at most
LOOK_MS = 2000  # how often to look whether a watched directory is still the same, when nothing changes
ABSENT_WAIT_S = 1.0

# What an editor keeps of a text that is not saved yet, or a lock on it, besides what the package knows: of Emacs, Kate
# and LibreOffice.
NOT_SAVED = ("^#.*#$", r"\.kate-swp$", r"^\.~lock\..*#$")

MAX_NEW_FILES = 10_000  # looked for in a directory that has appeared
MAX_REFUSED_PATHS = 8  # by git, for which it is asked again about the others
READ_BYTES = 65_536


# --- the files of process types --------------------------------------------------------------------------------------


def is_installed() -> bool:
    """Tell whether the package that looks at files is there."""
    from importlib.machinery import PathFinder

    return PathFinder.find_spec("watchfiles") is not None


class Change(NamedTuple):
    """What the thread tells: process types, and the files they watch that have changed; or a line for the user."""

    types: tuple[str, ...]
    paths: tuple[str, ...]
    note: str = ""
    is_end: bool = False  # nothing will be told any more


class Watcher:
    """Tells of changed files. `patterns` are by process type; `on_change` gets types, and paths relative to the
    root; `on_note` a line for the user, and whether nothing will be told any more."""

    def __init__(
        self,
        loop: Loop,
        root: str,
        patterns: Mapping[str, Sequence[str]],
        on_change: Callable[[Sequence[str], Sequence[str]], None],
        on_note: Callable[[str, bool], None],
    ) -> None:
        """Begin. Raises OSError where no descriptor is left, RuntimeError where there can be no thread."""
        import threading

        self.patterns = patterns
        self._loop = loop
        self._on_change = on_change
        self._on_note = on_note
        self._changes: deque[Change] = deque()
        self._is_over = threading.Event()
        self._wakeup_fd, self._thread_fd = os.pipe()
        for fd in (self._wakeup_fd, self._thread_fd):
            os.set_blocking(fd, False)
        thread = threading.Thread(target=self._run, args=(root,), name="watch", daemon=True)  # nobody waits for its end
        # A thread has the mask of the one that makes it: signals are the loop's.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            thread.start()
        except RuntimeError:
            os.close(self._thread_fd)
            os.close(self._wakeup_fd)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        loop.add_reader(self._wakeup_fd, self._take)

    def close(self) -> None:
        """Tell nothing any more. The thread ends soon; nobody waits for it."""
        if not self._is_over.is_set():
            self._is_over.set()
            self._loop.remove(self._wakeup_fd)
            os.close(self._wakeup_fd)

    def _take(self) -> None:
        try:
            if not os.read(self._wakeup_fd, READ_BYTES):
                self._loop.remove_reader(self._wakeup_fd)  # the thread has ended
        except BlockingIOError:
            pass
        while self._changes and not self._is_over.is_set():
            change = self._changes.popleft()
            if change.note:
                self._on_note(change.note, change.is_end)
            else:
                self._on_change(change.types, change.paths)

    # --- in the thread ---

    def _run(self, root: str) -> None:
        try:
            _Search(root, self.patterns, self._tell, self._is_over).run()
        except Exception as error:  # whatever the package raises: the run goes on without it
            reason = " ".join(str(error).split()) or type(error).__name__
            limits = {"limit": "watches", "Too many open files": "instances"}
            hints = [f" — raise fs.inotify.max_user_{what}" for words, what in limits.items() if words in reason]
            self._tell(Change((), (), f"files are not watched: {reason}{''.join(hints)}", is_end=True))
        finally:
            os.close(self._thread_fd)

    def _tell(self, change: Change) -> None:
        self._changes.append(change)
        try:
            os.write(self._thread_fd, b"\0")
        except (BlockingIOError, BrokenPipeError):  # woken already, or nobody listens any more
            pass


class _End:
    """The event that watchfiles asks again and again whether to stop. It asks first when everything is in place."""

    def __init__(self, event: Any, on_begun: Callable[[], None]) -> None:
        self._event = event
        self._on_begun: Callable[[], None] | None = on_begun

    def is_set(self) -> bool:
        if self._on_begun is not None:
            on_begun, self._on_begun = self._on_begun, None
            on_begun()
        return bool(self._event.is_set())


# What a directory is known by: another one may have its name tomorrow.
Identity = tuple[int, int] | None


class _Search:
    """Looks for changes of the files that match, all in the thread."""

    def __init__(
        self, root: str, patterns: Mapping[str, Sequence[str]], tell: Callable[[Change], None], is_over: Any
    ) -> None:
        import watchfiles

        self._root = root
        self._roots = tuple(dict.fromkeys(f"{path.rstrip('/')}/" for path in (root, os.path.realpath(root))))
        self._expressions = {name: compiled(some) for name, some in patterns.items()}
        self._named = {pattern for some in patterns.values() for pattern in some if not is_glob(pattern)}
        self._types_below: dict[str, list[str]] = {}  # types by the directories of their patterns
        for name, some in patterns.items():
            for base in dict.fromkeys(map(base_of, some)):
                self._types_below.setdefault(base, []).append(name)
        self._tell = tell
        self._is_over = is_over
        self._told = "; ".join(f"{name}: {', '.join(some)}" for name, some in patterns.items())
        patterns_left_out = (*watchfiles.DefaultFilter.ignore_entity_patterns, *NOT_SAVED)
        self._is_plain = watchfiles.DefaultFilter(ignore_dirs=[], ignore_entity_patterns=patterns_left_out)
        self._is_wanted = watchfiles.DefaultFilter()

    def run(self) -> None:
        known = self._identities()
        gone: list[str] = []
        while not self._is_over.is_set():
            bases = self._bases()
            if not bases:  # the root itself is not there
                self._is_over.wait(ABSENT_WAIT_S)
                continue
            watched = {base: identity_of(self._absolute(base)) for base in bases}
            try:
                known, gone = self._follow(watched, partial(self._begin, known, gone), known)
            except FileNotFoundError:  # it went in this moment
                gone = list(watched)
                self._is_over.wait(STEP_MS / 1000)

    def _follow(
        self, watched: Mapping[str, Identity], on_begun: Callable[[], None], known: dict[str, Identity]
    ) -> tuple[dict[str, Identity], list[str]]:
        """Tell of changes below `watched` until one of these directories is another one.

        Return what was known of all directories before that, and which of them are gone.
        """
        import watchfiles

        rounds = watchfiles.watch(
            *map(self._absolute, watched),
            watch_filter=None,
            debounce=STEP_MS,
            step=STEP_MS,
            rust_timeout=STEP_MS,
            yield_on_timeout=True,
            stop_event=_End(self._is_over, on_begun),
            raise_interrupt=False,
            ignore_permission_denied=True,
        )
        # The package holds changes back only while other files change, too; one may be written for a while.
        held: set[tuple[Any, str]] = set()
        tell_s = look_s = 0.0
        for changes in rounds:
            now_s = time.monotonic()
            if not changes and not held and now_s < look_s:
                continue
            if changes and not held:
                tell_s = now_s + MOST_MS / 1000
            held |= changes
            gone = self._gone(watched, changes)
            if held and (gone or not changes or now_s >= tell_s):
                self._look_at(held)
                held = set()
            if gone:
                return known, gone
            known = self._identities()
            look_s = now_s + LOOK_MS / 1000
        return known, []

    def _gone(self, watched: Mapping[str, Identity], changes: Iterable[tuple[Any, str]]) -> list[str]:
        """Return which of the directories are not there any more, or others."""
        import watchfiles

        # Another directory can have the very number of the one that was removed.
        removed = {path for change, path in changes if change == watchfiles.Change.deleted}
        return [
            base
            for base, identity in watched.items()
            if self._absolute(base) in removed or identity_of(self._absolute(base)) != identity
        ]

    def _begin(self, known: Mapping[str, Identity], gone: Collection[str]) -> None:
        """Everything is in place: tell so, and what has happened to directories that were another's until now."""
        if self._told:
            self._tell(Change((), (), f"watching files for {self._told}"))
            self._told = ""
            if ignored := ", ".join(sorted(self._ignored_places())):
                self._tell(Change((), (), f"git ignores {ignored}: of these only files that it tracks count"))
        for base, identity in self._identities().items():
            is_below = any(base == path or base.startswith(f"{path}/") or not path for path in gone)
            if is_below and base and (identity or known.get(base)):
                self._tell(Change(tuple(self._types_below[base]), (f"{base}/",)))

    def _ignored_places(self) -> set[str]:
        """Return the directories that patterns are about, and files that they name, as far as git ignores all of it."""
        bases = {f"{base}/" for base in self._types_below if base}
        return (ignored_by_git(self._root, sorted(bases | self._named)) or set()) if is_in_git(self._root) else set()

    def _identities(self) -> dict[str, Identity]:
        return {base: identity_of(self._absolute(base)) for base in self._types_below}

    def _absolute(self, base: str) -> str:
        return os.path.join(self._root, base) if base else self._root

    def _bases(self) -> list[str]:
        """Return the directories to watch, none inside another: for each pattern the nearest one that is there."""
        found = set()
        for base in self._types_below:
            while base and not os.path.isdir(self._absolute(base)):
                base = base.rpartition("/")[0]
            found.add(base)
        if "" in found:
            return [""] if os.path.isdir(self._root) else []
        return [base for base in sorted(found) if not any(base.startswith(f"{other}/") for other in found)]

    # --- what has changed ---

    def _look_at(self, changes: Iterable[tuple[Any, str]]) -> None:
        found: dict[str, list[str]] = {}
        for name in self._names(changes):
            if name not in found and not is_never_watched(name):
                types = [of for of, matching in self._expressions.items() if matching.fullmatch(name)]
                if types:
                    found[name] = types
        kept = self._wanted(list(found)) if found else []
        if kept:
            concerned = dict.fromkeys(of for name in kept for of in found[name])
            self._tell(Change(tuple(concerned), tuple(kept)))

    def _names(self, changes: Iterable[tuple[Any, str]]) -> Iterator[str]:
        """Yield the changed files, relative to the root; of a directory that has appeared all that are in it."""
        import watchfiles

        for change, path in sorted(changes, key=lambda item: item[1]):
            if not os.path.isdir(path):
                yield self._relative(path)
            elif change == watchfiles.Change.added:
                yield from self._files_in(path)  # they may be older than the watch on it

    def _files_in(self, path: str) -> Iterator[str]:
        count = 0
        for directory, subdirectories, files in os.walk(path):
            subdirectories[:] = [name for name in subdirectories if name not in NEVER_WATCHED]
            for name in files:
                count += 1
                if count > MAX_NEW_FILES:
                    return
                yield self._relative(os.path.join(directory, name))

    def _relative(self, path: str) -> str:
        for root in self._roots:
            if path.startswith(root):
                return path[len(root) :]
        return path

    def _wanted(self, names: list[str]) -> list[str]:
        """Leave out what editors leave behind, and what git ignores; without git, what the package ignores."""
        import watchfiles

        names = [name for name in names if self._is_plain(watchfiles.Change.modified, f"/{name}")]
        ignored = ignored_by_git(self._root, names) if names and is_in_git(self._root) else None
        if ignored is not None:
            return [name for name in names if name not in ignored]
        return [name for name in names if self._is_wanted(watchfiles.Change.modified, f"/{name}")]


def identity_of(path: str) -> Identity:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


# --- git -------------------------------------------------------------------------------------------------------------


def is_in_git(path: str) -> bool:
    """Tell whether a directory above, or `path` itself, has a repository's `.git`."""
    while not os.path.exists(os.path.join(path, ".git")):
        path, last = os.path.dirname(path), path
        if path == last:
            return False
    return True


def ignored_by_git(root: str, names: Sequence[str]) -> set[str] | None:
    """Return which of `names`, relative to `root`, git ignores; None where it cannot be asked.

    It gives up at a path that it knows nothing of, as in a submodule: that one counts, and it is asked for the rest.
    """
    ignored: set[str] = set()
    left = list(names)
    has_answered = False
    for _ in range(MAX_REFUSED_PATHS):
        answers = _ask_git(root, left)
        if answers is None:
            return None
        has_answered = has_answered or bool(answers)
        ignored.update(name for name, is_ignored in zip(left, answers, strict=False) if is_ignored)
        left = left[len(answers) + 1 :]
        if not left:
            break
    return ignored if has_answered and not left else None


def _ask_git(root: str, names: Sequence[str]) -> list[bool] | None:
    """Return for the first of `names`, as far as git got, whether it ignores them; None where it cannot run.

    Its end is not waited for: that is the reaper's, and there is one for the whole process.
    """
    import tempfile

    # GIT_DIR and the like are those of a hook that we may have been started from.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    argv = ["git", "-C", root, "check-ignore", "--stdin", "-z", "--verbose", "--non-matching"]
    try:
        with tempfile.TemporaryFile() as file:  # a pipe could be full at both ends
            file.write(b"".join(os.fsencode(name) + b"\0" for name in names))
            file.seek(0)
            reader, writer = os.pipe()
            null_fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.posix_spawnp(
                    "git",
                    argv,
                    {**env, "GIT_OPTIONAL_LOCKS": "0"},
                    file_actions=[
                        (os.POSIX_SPAWN_DUP2, fd, at) for at, fd in enumerate((file.fileno(), writer, null_fd))
                    ],
                    setsid=True,
                    setsigmask=(),
                    setsigdef=(signal.SIGPIPE,),
                )
            except OSError:
                os.close(reader)
                raise
            finally:
                os.close(writer)
                os.close(null_fd)
    except OSError:  # no git, no descriptor, no room
        return None
    with open(reader, "rb") as output:
        fields = output.read().split(b"\0")
    # A record is source, line, pattern, path; all but the last are empty for a path that no pattern matches.
    patterns = fields[2::4]
    return [pattern != b"" and not pattern.startswith(b"!") for pattern in patterns[: len(fields) // 4]]
