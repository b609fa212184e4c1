"""How many instances of each process type run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from procman.errors import UsageMistake, did_you_mean
from procman.procfile import ProcessType

RELEASE = "release"
"""The type that runs once before the others (Heroku's release phase); `all` does not mean it."""

MAX_COUNT = 65535


def parse_counts(words: Iterable[str], *, origin: str) -> dict[str, int | None]:
    """Parse `web=2`, `worker` into {"web": 2, "worker": None}. `origin` names the option or argument in messages.

    Raises UsageMistake for a count that is no number from 0 up, or a name given twice.
    """
    counts: dict[str, int | None] = {}
    for word in words:
        name, equals, count = (part.strip() for part in word.partition("="))
        if not name:
            raise UsageMistake(f'{origin}: "{word}" names no process type', hint="write NAME=COUNT, as in web=2")
        if name in counts:
            raise UsageMistake(f'{origin}: "{name}" is given twice', hint="give each process type once")
        if equals and not (count.isascii() and count.isdigit() and len(count) <= 5 and int(count) <= MAX_COUNT):
            raise UsageMistake(
                f'{origin}: "{word}": the count is no number from 0 to {MAX_COUNT}', hint=f"write {name}=2"
            )
        counts[name] = int(count) if equals else None
    return counts


def resolve_formation(
    types: Sequence[ProcessType],
    *,
    names: Sequence[str] = (),
    foreman: str | None = None,
    honcho: str | None = None,
) -> dict[str, int]:
    """Return the count of every type of the Procfile, in file order.

    `names` are the arguments (`web=2`, `worker`): when there are any, only these run. `foreman` is `-m`, where a type
    that is not listed gets `all` or 0; `honcho` is `-c`, where it gets `all` or 1. Raises UsageMistake (contract
    A1-A4, E10-E14).
    """
    known = [entry.name for entry in types]
    chosen = parse_counts(names, origin="formation")
    by_option = {
        option: parse_counts((word for word in text.split(",") if word.strip()), origin=option)
        for option, text in (("-m", foreman), ("-c", honcho))
        if text is not None
    }
    for given, words in [*by_option.items(), ("formation", chosen)]:
        for name in words:
            if name not in known and name != "all":
                raise UsageMistake(f'{given}: unknown process type "{name}"', hint=did_you_mean(name, known))
            if words[name] is None and given != "formation":
                raise UsageMistake(f'{given}: "{name}" has no count', hint=f"write {name}=1")
    if len(by_option) == 2 and by_option["-m"] != by_option["-c"]:
        raise UsageMistake("-m and -c say different things", hint="give one of them")
    option, listed = next(iter(by_option.items()), ("-m", {"all": 1}))
    if chosen:
        return _only(known, chosen, option, listed if by_option else {})
    rest = listed.get("all", 0 if option == "-m" else 1)
    return {name: _count(listed, name, rest or 0) for name in known}


def _count(listed: Mapping[str, int | None], name: str, rest: int) -> int:
    count = listed.get(name, 0 if name == RELEASE else rest)
    return rest if count is None else count


def _only(
    known: Sequence[str], chosen: Mapping[str, int | None], option: str, listed: Mapping[str, int | None]
) -> dict[str, int]:
    """Return the counts when arguments select what runs; the option may give counts, but not contradict."""
    counts = dict.fromkeys(known, 0)
    if "all" in chosen:
        each = 1 if chosen["all"] is None else chosen["all"]
        counts.update({name: each for name in known if name != RELEASE})
    for name, count in chosen.items():
        if name == "all":
            continue
        # Honcho's `start web -c web=2` runs two; Foreman's `start web -m web=2` runs one: told, not guessed.
        wanted = listed.get(name)
        if wanted is not None and wanted != count and not (count is None and option == "-c"):
            raise UsageMistake(
                f'"{name}" as an argument and {option} {name}={wanted} say different things',
                hint=f"write {name}={wanted} as the argument",
            )
        counts[name] = count if count is not None else wanted if wanted is not None else 1
    return counts
