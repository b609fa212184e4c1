"""How many instances of each process type run. The rules are in docs/configuration.md."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from procman.errors import ConfigError, UsageMistake, did_you_mean, quoted
from procman.procfile import ProcessType
from procman.records import NamedTuple

RELEASE = "release"
"""The type that runs once before the others (Heroku's release phase), when asked to; `all` does not mean it."""

ALL = "all"

MAX_COUNT = 65535


class _Counts(NamedTuple):
    """What one option, one setting or the arguments say; `faults` are texts for the user."""

    origin: str  # how messages name it
    counts: dict[str, int | None]  # in the order given; None where only a name stands
    faults: list[str]


def parse_counts(words: Iterable[str], *, origin: str) -> dict[str, int | None]:
    """Parse `web=2`, `worker` into {"web": 2, "worker": None}. `origin` names the option or argument in messages.

    Raises UsageMistake, for all words at once: a count that is no number from 0 up, a name given twice.
    """
    read = _read_counts(words, origin)
    if read.faults:
        raise UsageMistake("\n".join(read.faults))
    return read.counts


def resolve_formation(
    types: Sequence[ProcessType],
    *,
    names: Sequence[str] = (),
    foreman: str | None = None,
    honcho: str | None = None,
    setting: str | None = None,
    origin: str = "formation",
    releases: Collection[str] = (RELEASE,),
) -> dict[str, int]:
    """Return the count of every type of the Procfile, in file order (contract A1-A4, E10-E14).

    `names` are the arguments (`web=2`, `worker`): when there are any, only these run. `foreman` is `-m`, where a type
    that is not listed gets `all` or 0; `honcho` is `-c`, where it gets `all` or 1. `setting` is `-m` from a settings
    file or PROCMAN_FORMATION, which `origin` names; an option or argument overrides it. `releases` run only where they
    are named. Raises UsageMistake, or ConfigError for the setting, that tells everything wrong at once.
    """
    known = [entry.name for entry in types]
    arguments = _checked(_read_counts(names, "arguments"), known, needs_counts=False)
    options = {
        option: _checked(_read_counts(text.split(","), option), known, needs_counts=True)
        for option, text in (("-m", foreman), ("-c", honcho))
        if text is not None
    }
    faults = [fault for read in (*options.values(), arguments) for fault in read.faults]
    if len(options) == 2 and not faults and options["-m"].counts != options["-c"].counts:
        faults.append("-m and -c say different things — give one of them")
    option, listed = next(((option, read.counts) for option, read in options.items()), ("", {}))
    if names and not faults:
        faults += _contradictions(arguments.counts, option, listed)
    if faults:
        raise UsageMistake("\n".join(faults))
    if names:
        return _only(known, arguments.counts, listed, releases)
    if not options and setting is not None:
        read = _checked(_read_counts(setting.split(","), origin), known, needs_counts=True)
        if read.faults:
            raise ConfigError("\n".join(read.faults))
        option, listed = "-m", read.counts
    rest = listed.get(ALL, 0 if option == "-m" else 1)
    return {name: _count(listed, name, 0 if name in releases else rest or 0) for name in known}


def zeros(*texts: str | None) -> set[str]:
    """Return the types that one of `texts`, as after -m or as an argument, says shall not run: `web=0`."""
    words = [word for text in texts if text for word in text.split(",")]
    return {name for name, count in _read_counts(words, "").counts.items() if count == 0}


def _read_counts(words: Iterable[str], origin: str) -> _Counts:
    read = _Counts(origin, {}, [])
    for word in words:
        name, equals, count = (part.strip() for part in word.partition("="))
        if not word.strip():
            continue
        if not name:
            fault = f"{quoted(word)} names no process type — write NAME=COUNT, as in web=2"
        elif name in read.counts:
            fault = f"{quoted(name)} is given twice — give each process type once"
        elif equals and not _is_count(count):
            fault = f"{quoted(word)}: the count is no number from 0 to {MAX_COUNT} — write {name[:60]}=2"
        else:
            fault = ""
        if name:
            read.counts.setdefault(name, int(count) if _is_count(count) else 0 if equals else None)
        if fault:
            read.faults.append(f"{origin}: {fault}")
    return read


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(MAX_COUNT)) and int(text) <= MAX_COUNT


def _checked(read: _Counts, known: Sequence[str], *, needs_counts: bool) -> _Counts:
    """Return `read` with what its names get wrong among the faults."""
    faults = list(read.faults)
    for name, count in read.counts.items():
        if name not in known and name != ALL:
            faults.append(f"{read.origin}: unknown process type {quoted(name)} — {did_you_mean(name, known)}")
        elif count is None and needs_counts:
            faults.append(f"{read.origin}: {quoted(name)} has no count — write {name}=1")
    if needs_counts and not read.counts and not faults:
        faults.append(f"{read.origin}: no process type — write NAME=COUNT, as in web=2")
    return read._replace(faults=faults)


def _contradictions(chosen: Mapping[str, int | None], option: str, listed: Mapping[str, int | None]) -> Iterator[str]:
    """Yield where an argument and an option differ.

    Honcho's `start web -c web=2` runs two, which is no contradiction. Foreman's `start web -m web=2` runs one, and most
    readers expect two: told, not guessed.
    """
    said = dict(chosen)
    if chosen.get(ALL) is not None:
        said |= {name: chosen[ALL] for name in listed if name not in chosen}
    for name, count in said.items():
        wanted = listed.get(name, listed.get(ALL))
        if wanted is not None and wanted != count and not (count is None and option == "-c"):
            yield (
                f"{quoted(name)} as an argument and {option} {name}={wanted} say different things"
                f" — write {name}={wanted} as the argument, or leave out {option}"
            )


def _only(
    known: Sequence[str],
    chosen: Mapping[str, int | None],
    listed: Mapping[str, int | None],
    releases: Collection[str],
) -> dict[str, int]:
    """Return the counts when arguments select what runs; the option gives those that the arguments leave open."""
    counts = dict.fromkeys(known, 0)
    for name in sorted(chosen, key=lambda name: name != ALL):  # what is named beats `all`, wherever it stands
        for each in (name for name in known if name not in releases) if name == ALL else (name,):
            counts[each] = _count(chosen, name, _count(listed, each, _count(listed, ALL, 1)))
    return counts


def _count(counts: Mapping[str, int | None], name: str, otherwise: int) -> int:
    count = counts.get(name)
    return otherwise if count is None else count
