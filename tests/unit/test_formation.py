"""The formation: Foreman's -m, Honcho's -c, arguments, a setting (contract A1-A4, E10-E14)."""

from __future__ import annotations

import pytest

from procman.errors import ConfigError, SourceRef, UsageMistake
from procman.formation import MAX_COUNT, parse_counts, resolve_formation
from procman.procfile import ProcessType

TYPES = [ProcessType(name, "run", SourceRef("P", 1)) for name in ("release", "web", "worker", "clock")]

# what is given -> counts of release, web, worker, clock
COUNTS: dict[str, tuple[dict[str, object], tuple[int, int, int, int]]] = {
    "nothing: all but release": ({}, (0, 1, 1, 1)),
    "-m: the others do not run": ({"foreman": "web=2"}, (0, 2, 0, 0)),
    "-m all": ({"foreman": "all=3"}, (0, 3, 3, 3)),
    "-m all and one": ({"foreman": "web=2,all=3"}, (0, 2, 3, 3)),
    "-m all and none of one": ({"foreman": "all=1,web=0"}, (0, 0, 1, 1)),
    "-m release": ({"foreman": "release=1"}, (1, 0, 0, 0)),
    "-m blanks": ({"foreman": " web = 2 , ,worker=1,"}, (0, 2, 1, 0)),
    "-c: the others run once": ({"honcho": "web=2"}, (0, 2, 1, 1)),
    "-c none of one": ({"honcho": "web=0"}, (0, 0, 1, 1)),
    "-c all": ({"honcho": "all=2,web=3"}, (0, 3, 2, 2)),
    "-m and -c, the same words": ({"foreman": "web=2", "honcho": "web=2"}, (0, 2, 0, 0)),
    "names: only these": ({"names": ["worker", "web"]}, (0, 1, 1, 0)),
    "counts as names": ({"names": ["web=2", "worker"]}, (0, 2, 1, 0)),
    "release by name": ({"names": ["release"]}, (1, 0, 0, 0)),
    "all by name": ({"names": ["all"]}, (0, 1, 1, 1)),
    "all by name, with a count": ({"names": ["web=1", "all=2"]}, (0, 1, 2, 2)),
    "names and -c: Honcho's start web -c web=2": ({"names": ["web"], "honcho": "web=2"}, (0, 2, 0, 0)),
    "names and -c all": ({"names": ["web"], "honcho": "all=2"}, (0, 2, 0, 0)),
    "names and -m of others": ({"names": ["web"], "foreman": "worker=3"}, (0, 1, 0, 0)),
    "names and -m agree": ({"names": ["web=2"], "foreman": "web=2"}, (0, 2, 0, 0)),
    "setting: as -m": ({"setting": "web=2"}, (0, 2, 0, 0)),
    "option over setting": ({"setting": "web=2", "honcho": "worker=3"}, (0, 1, 3, 1)),
    "names over setting": ({"setting": "web=2,worker=2", "names": ["web"]}, (0, 1, 0, 0)),
    "the highest count": ({"names": [f"web={MAX_COUNT}"]}, (0, MAX_COUNT, 0, 0)),
}


@pytest.mark.parametrize(("given", "counts"), COUNTS.values(), ids=COUNTS)
def test_counts(given: dict[str, object], counts: tuple[int, ...]) -> None:
    found = resolve_formation(TYPES, **given)  # type: ignore[arg-type]
    assert list(found) == ["release", "web", "worker", "clock"]
    assert tuple(found.values()) == counts


MISTAKES: dict[str, tuple[dict[str, object], list[str]]] = {
    "E12 unknown": ({"foreman": "wbe=2"}, ['-m: unknown process type "wbe" — did you mean "web"?']),
    "E14 unknown argument": (
        {"names": ["wokrer"]},
        ['arguments: unknown process type "wokrer" — did you mean "worker'],
    ),
    "E13 no number": ({"honcho": "web=x"}, ['-c: "web=x": the count is no number from 0 to 65535 — write web=2']),
    "E13 negative": ({"foreman": "web=-1"}, ['-m: "web=-1": the count is no number']),
    "E13 empty": ({"foreman": "web="}, ['-m: "web=": the count is no number']),
    "E13 other digits": ({"names": ["web=٣"]}, ['arguments: "web=٣": the count is no number']),
    "E13 too many": ({"names": ["web=65536"]}, ['arguments: "web=65536": the count is no number']),
    "E13 endless": ({"names": ["web=" + "9" * 5000]}, ['arguments: "web=9999']),
    "no count": ({"foreman": "web"}, ['-m: "web" has no count — write web=1']),
    "no name": ({"foreman": "=2"}, ['-m: "=2" names no process type']),
    "no words": ({"foreman": " , "}, ["-m: no process type — write NAME=COUNT"]),
    "twice": ({"foreman": "web=1,web=2"}, ['-m: "web" is given twice']),
    "-m and -c differ": ({"foreman": "web=1", "honcho": "web=2"}, ["-m and -c say different things"]),
    "Foreman's start web -m web=2": ({"names": ["web"], "foreman": "web=2"}, ['"web" as an argument and -m web=2 say']),
    "start web=1 -c web=2": ({"names": ["web=1"], "honcho": "web=2"}, ['"web" as an argument and -c web=2 say']),
    "start all=1 -c web=2": ({"names": ["all=1"], "honcho": "web=2"}, ['"web" as an argument and -c web=2 say']),
    "all at once": (
        {"names": ["a", "web=x"], "foreman": "b=1,web"},
        [
            '-m: unknown process type "b"',
            '-m: "web" has no count',
            'arguments: "web=x": the count',
            'arguments: unknown process type "a"',
        ],
    ),
}


@pytest.mark.parametrize(("given", "starts"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(given: dict[str, object], starts: list[str]) -> None:
    with pytest.raises(UsageMistake) as caught:
        resolve_formation(TYPES, **given)  # type: ignore[arg-type]
    lines = str(caught.value).splitlines()
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts


def test_a_setting_is_named_by_its_file() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_formation(TYPES, setting="wbe=2,web=x", origin="procman.toml:3")
    assert str(caught.value).splitlines() == [
        'procman.toml:3: "web=x": the count is no number from 0 to 65535 — write web=2',
        'procman.toml:3: unknown process type "wbe" — did you mean "web"?',
    ]


def test_words_to_counts() -> None:
    assert parse_counts(["web=2", "worker", ""], origin="scale") == {"web": 2, "worker": None}
    with pytest.raises(UsageMistake, match=r"^scale: .*\nscale: "):
        parse_counts(["web=x", "=1"], origin="scale")
