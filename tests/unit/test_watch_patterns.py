"""The patterns of `watch`, and what the kernel's events look like."""

from __future__ import annotations

import re
import struct

import pytest

from procman.patterns import base_of, compiled, expression, is_never_watched
from procman.settings_watch import IN_CLOSE_WRITE, IN_MOVED_TO, events_in


def matches(pattern: str, path: str) -> bool:
    return compiled([pattern]).fullmatch(path) is not None


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("app.py", "app.py"),
        ("*.py", "app.py"),
        ("*.py", ".py"),
        ("**/*.py", "app.py"),
        ("**/*.py", "a/app.py"),
        ("**/*.py", "a/b/c/app.py"),
        ("**/*.py", ".hidden/app.py"),
        ("**", "a"),
        ("**", "a/b"),
        ("templates/**", "templates/a.html"),
        ("templates/**", "templates/a/b.html"),
        ("templates/", "templates/a/b.html"),
        ("templates", "templates/a/b.html"),
        ("templates", "templates"),
        ("./templates/**", "templates/a.html"),
        ("a//b", "a/b"),
        (".", "a/b"),
        ("src/**/test/*.py", "src/test/a.py"),
        ("src/**/test/*.py", "src/x/y/test/a.py"),
        ("src/**/**/a", "src/a"),
        ("**/**", "a"),
        ("a?c", "abc"),
        ("[ab].py", "a.py"),
        ("[!ab].py", "c.py"),
        ("[a-c]?", "bb"),
        ("[]]", "]"),
        ("[!]]", "a"),
        ("[", "["),
        ("a[b", "a[b"),
        ("[[]x", "[x"),
        ("[\\]", "\\"),
        ("a**b", "axxb"),
        ("a+b(c).{d}|$^", "a+b(c).{d}|$^"),
        ("*.py", "line\nbreak.py"),
        ("**/*.py", "a\nb/c.py"),
        ("naïve/*", "naïve/ü"),
    ],
)
def test_matches(pattern: str, path: str) -> None:
    assert matches(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("app.py", "a/app.py"),
        ("app.py", "appxpy"),
        ("app.py", "app.pyc"),
        ("*.py", "a/app.py"),
        ("*.py", "APP.PY"),
        ("**/*.py", "app.pyc"),
        ("**/*.py", "apppy"),
        ("templates/**", "templates"),
        ("templates/**", "my/templates/a"),
        ("templates/*", "templates/a/b"),
        ("templates", "templates2"),
        ("templates", "templates2/a"),
        ("src/**/test/*.py", "src/mytest/a.py"),
        ("src/**/test/*.py", "src/test/x/a.py"),
        ("a**b", "a/b"),
        ("a?c", "a/c"),
        ("a[/]c", "a/c"),
        ("a[!b]c", "a/c"),
        ("[!ab].py", "a.py"),
        ("[ab].py", "c.py"),
        ("a*", ""),
        ("**", ""),
    ],
)
def test_does_not_match(pattern: str, path: str) -> None:
    assert not matches(pattern, path)


def test_several_are_one_expression() -> None:
    both = compiled(["a|b", "*.py"])
    assert [bool(both.fullmatch(path)) for path in ("a|b", "a", "x.py", "x.pyc")] == [True, False, True, False]


def test_what_is_no_range_is_told() -> None:
    with pytest.raises(ValueError, match="range"):
        compiled(["[z-a]"])


def test_long_path_and_many_stars_end_soon() -> None:
    assert not matches("**/a/**/b/**/c", "a/" * 300 + "x")
    assert re.compile(expression("*" * 1000 + "x")).fullmatch("y" * 1000) is None


@pytest.mark.parametrize(
    ("pattern", "base"),
    [
        ("**/*.py", ""),
        ("app.py", ""),
        ("templates/**", "templates"),
        ("./src/app/*.py", "src/app"),
        ("src/app/main.py", "src/app"),
        ("src/*/x/y", "src"),
        ("src/[ab]/x", "src"),
        ("templates", ""),
        ("a/b/", "a"),
        (".", ""),
    ],
)
def test_base_of(pattern: str, base: str) -> None:
    assert base_of(pattern) == base


@pytest.mark.parametrize(
    ("path", "is_never"),
    [(".git/index", True), ("sub/.git", True), (".procman/log/x.log", True), (".github/x", False), ("git", False)],
)
def test_never_watched(path: str, is_never: bool) -> None:
    assert is_never_watched(path) == is_never


def test_events_of_the_kernel() -> None:
    def event(number: int, mask: int, name: bytes) -> bytes:
        return struct.pack("iIII", number, mask, 0, len(name)) + name

    data = event(1, IN_CLOSE_WRITE, b".env\0\0\0\0") + event(2, IN_MOVED_TO, b"")
    data += event(1, 0x4000, b"Procfile" + b"\0" * 8)
    assert list(events_in(data)) == [(1, IN_CLOSE_WRITE, b".env"), (2, IN_MOVED_TO, b""), (1, 0x4000, b"Procfile")]
    assert list(events_in(data[:10])) == []
    assert list(events_in(b"")) == []
