"""What can go wrong and the exit code each kind owns (docs/exit-codes.md; sysexits.h where it has a word for it)."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator

from procman.records import NamedTuple


class SourceRef(NamedTuple):
    """A place in a file of the user's, as the user wrote its path. Line and column count from 1; 0 means unknown."""

    path: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        path = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in self.path)
        return ":".join([path, *(str(part) for part in (self.line, self.column) if part)])


class Problem(NamedTuple):
    """One finding about the input.

    `severity` is one of the constants below. Only REFUSED and AMBIGUOUS stop a run; `--lenient` lowers AMBIGUOUS (a
    line that a reader could take in two ways, or that says nothing) to a warning, never REFUSED.
    """

    severity: str
    message: str
    source: SourceRef
    hint: str = ""
    is_kept: bool = False  # AMBIGUOUS, yet under `--lenient` the line counts; others are left out then

    def __str__(self) -> str:
        mark = f"{self.severity}: " if self.severity in (WARNING, NOTE) else ""
        return f"{self.source}: {mark}{self.message}" + (f" — {self.hint}" if self.hint else "")


REFUSED = "error"
AMBIGUOUS = "ambiguous"
WARNING = "warning"
NOTE = "note"

MAX_PROBLEMS = 100
"""So many findings of one file are told one by one, and the others counted."""

MAX_FAULTS = 10_000
"""With so many lines that cannot be read a file is no longer read: 10 MB of another format hold millions of them."""


def judged(problems: Iterable[Problem], lenient: bool = False, strict: bool = False) -> list[Problem]:
    """Return `problems` as they count for this run, in the order given: each REFUSED, WARNING or NOTE.

    What is AMBIGUOUS is refused, or told as a warning under `lenient`. `strict` refuses what was a warning from the
    start.
    """
    return [_judge(problem, lenient, strict) for problem in problems]


def _judge(problem: Problem, lenient: bool, strict: bool) -> Problem:
    if problem.severity == AMBIGUOUS and lenient:
        fate = "" if problem.is_kept else "left out: "
        return problem._replace(severity=WARNING, message=fate + problem.message)
    if problem.severity == AMBIGUOUS or (problem.severity == WARNING and strict):
        return problem._replace(severity=REFUSED)
    return problem


def refused(problems: Iterable[Problem], lenient: bool = False, strict: bool = False) -> list[Problem]:
    """Return those of `problems` that stop the run."""
    return [problem for problem in judged(problems, lenient, strict) if problem.severity == REFUSED]


class ProcmanError(Exception):
    """Something the user should know. `str()` is the whole text for the terminal: where, what, and what to do.

    It never holds a value of the environment: they are secrets.
    """

    exit_code = 1

    def __init__(self, message: str, *, source: SourceRef | None = None, hint: str = "") -> None:
        place = f"{source}: " if source else ""
        super().__init__(f"{place}{message}" + (f" — {hint}" if hint else ""))

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> ProcmanError:
        """Return one error that tells all `problems`, a line each."""
        return cls("\n".join(str(problem) for problem in problems))


class UsageMistake(ProcmanError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class ProcfileError(ProcmanError):
    exit_code = 65


class EnvironmentFileError(ProcmanError):
    exit_code = 65


class MissingFileError(ProcmanError):
    exit_code = 66


class ControlError(ProcmanError):
    exit_code = 69


class ReadinessTimeout(ProcmanError):
    """Something that had to be ready, or a backing service, was not in time."""

    exit_code = 75


class SpawnError(ProcmanError):
    """The operating system refused to start a process."""

    exit_code = 71


class OutputFileError(ProcmanError):
    """A file that procman should write cannot be opened."""

    exit_code = 73


class ConfigError(ProcmanError):
    exit_code = 78


class Bug(ProcmanError):
    """Something that we did not foresee."""

    exit_code = 70


def failure_of(error: BaseException) -> ProcmanError:
    """Return what to tell of an exception that nobody has caught: the system refused something, or it is a bug of ours.

    To the first belongs an import for which no descriptor was left.
    """
    if isinstance(error, ImportError) and os.strerror(errno.EMFILE) in str(error):
        error = OSError(errno.EMFILE, "")
    if not isinstance(error, OSError):
        where = "" if os.environ.get("PROCMAN_DEBUG") else " — PROCMAN_DEBUG=1 shows where"
        return Bug(f"procman: a bug of ours: {type(error).__name__}: {error}{where}")
    reason = os.strerror(error.errno or 0).lower()
    hint = {
        errno.EMFILE: "raise the limit of open files (ulimit -n) or run fewer instances",
        errno.ENFILE: "the whole system has too many files open",
        errno.EAGAIN: "the limit of processes is reached (ulimit -u)",
        errno.ENOMEM: "the system is out of memory",
    }.get(error.errno or 0, "")
    if error.errno in (errno.ENOSPC, errno.EIO, errno.EFBIG):
        return ProcmanError(f"procman: cannot write: {reason}")
    return SpawnError(f"procman: {reason}", hint=hint)


EXIT_KILLED = 1
EXIT_BUG = Bug.exit_code
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
EXIT_INTERRUPTED = 130
EXIT_READER_GONE = 141


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `did you mean "web"?` for the nearest known word, or the list of all when none is near."""
    import difflib  # only on the way to an error message

    names = list(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"known: {', '.join(names)}" if names else ""


def capped(problems: Iterable[Problem], path: str) -> list[Problem]:
    """Return the first MAX_PROBLEMS of `problems`, and behind them a count of the others of each severity.

    At MAX_FAULTS of the others it takes no more and says REFUSED.
    """
    told: list[Problem] = []
    untold: dict[str, list[Problem]] = {}
    for problem in problems:
        if len(told) < MAX_PROBLEMS:
            told.append(problem)
            continue
        untold.setdefault(problem.severity, []).append(problem)
        if len(untold.get(AMBIGUOUS, ())) + len(untold.get(REFUSED, ())) == MAX_FAULTS:
            message = f"more than {MAX_FAULTS} lines cannot be read, so the rest was not looked at"
            return [*told, Problem(REFUSED, message, SourceRef(path), "is this the right file?")]
    for kind, others in untold.items():
        more = Problem(kind, f"{len(others)} more like these", SourceRef(path))
        told.append(others[0] if len(others) == 1 else more)
    return told


def quoted(word: str) -> str:
    """Return a word of the user's for a message: in quotes, on one line, no control characters, not endless."""
    short = word if len(word) <= 60 else word[:57] + "..."
    return f'"{short}"' if short.isprintable() else f'"{ascii(short)[1:-1]}"'


# --- what can be wrong with any text file ----------------------------------------------------------------------------

_WIDE_MARKS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_DAMAGE = "[\0\ud800-\udfff]"


def read_text(
    data: bytes, path: str, encoding: str = "utf-8", hint: str = "save the file as UTF-8"
) -> tuple[str, list[Problem]]:
    """Decode the bytes of a file and drop a byte order mark. Never raises.

    Undecodable bytes and NUL are REFUSED, a problem for each line that has one; U+FFFD stands for them in the text.
    `hint` is what to do about a wrong encoding.
    """
    if encoding.lower().replace("_", "-") not in ("utf-8", "utf8"):
        return _read_other(data, path, encoding, hint)
    for mark, name in _WIDE_MARKS:
        if data.startswith(mark):
            return "", [Problem(REFUSED, f"the file is {name}, not UTF-8", SourceRef(path), hint)]
    if b"\0" in data[:2] and len(data) > 2:
        return "", [Problem(REFUSED, "NUL in the first character: UTF-16, or no text at all", SourceRef(path, 1), hint)]
    try:
        text = data.decode("utf-8").lstrip("\ufeff")
    except UnicodeDecodeError:
        return _without_damage(data.decode("utf-8", "surrogateescape").lstrip("\ufeff"), path, hint)
    return _without_damage(text, path, hint) if "\0" in text else (text, [])


def _read_other(data: bytes, path: str, encoding: str, hint: str) -> tuple[str, list[Problem]]:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line, column = place_in(data[: error.start].decode("latin-1"))  # some codecs know no "replace"
        return "", [Problem(REFUSED, f"not {quoted(encoding)[1:-1]}", SourceRef(path, line, column), hint)]
    except (LookupError, ValueError):  # a NUL in the name is a ValueError, and so is what odd codecs raise
        return "", [Problem(REFUSED, f"{quoted(encoding)} is no encoding of text", SourceRef(path), hint)]
    return _without_damage(text.lstrip("\ufeff"), path, hint)


def _without_damage(text: str, path: str, hint: str) -> tuple[str, list[Problem]]:
    if not re.search(_DAMAGE, text):
        return text, []
    return re.sub(_DAMAGE, "\ufffd", text), capped(_damages(text, path, hint), path)


def _damages(text: str, path: str, hint: str) -> Iterator[Problem]:
    for number, line in enumerate(text.split("\n"), 1):
        if damage := re.search(_DAMAGE, line):
            what, fix = ("NUL character", "remove it") if damage[0] == "\0" else ("not UTF-8", hint)
            yield Problem(REFUSED, what, SourceRef(path, number, damage.start() + 1), fix)


def place_in(before: str) -> tuple[int, int]:
    """Return line and column, from 1, of the character that follows the text `before`."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")
