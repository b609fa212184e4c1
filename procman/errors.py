"""What can go wrong and the exit code each kind owns (docs/exit-codes.md; sysexits.h where it has a word for it)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class SourceRef(NamedTuple):
    """A place in a file of the user's, as the user wrote its path. Line and column count from 1; 0 means unknown."""

    path: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return ":".join([self.path, *(str(part) for part in (self.line, self.column) if part)])


class Problem(NamedTuple):
    """One finding about the input.

    `severity` is one of the constants below. Only REFUSED and AMBIGUOUS stop a run; `--lenient` lowers AMBIGUOUS (a
    line that a reader could take in two ways, or that says nothing) to a warning, never REFUSED.
    """

    severity: str
    message: str
    source: SourceRef
    hint: str = ""

    def __str__(self) -> str:
        mark = f"{self.severity}: " if self.severity in (WARNING, NOTE) else ""
        return f"{self.source}: {mark}{self.message}" + (f" — {self.hint}" if self.hint else "")


REFUSED = "error"
AMBIGUOUS = "ambiguous"
WARNING = "warning"
NOTE = "note"


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


class SpawnError(ProcmanError):
    """The operating system refused to start a process."""

    exit_code = 71


class ConfigError(ProcmanError):
    exit_code = 78


EXIT_KILLED = 1
EXIT_BUG = 70
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
EXIT_READER_GONE = 141


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `did you mean "web"?` for the nearest known word, or the list of all when none is near."""
    import difflib  # only on the way to an error message

    names = list(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"known: {', '.join(names)}" if names else ""
