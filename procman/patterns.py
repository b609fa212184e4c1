"""Patterns of files, as `watch` in procman.toml has them (docs/reload.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable

NEVER_WATCHED = (".git", ".procman")


def expression(pattern: str) -> str:
    """Return the regular expression of a pattern, for whole paths below the root.

    `*` and `?` stop at a slash, `**` between slashes is any depth, none included, and at the end all below. A pattern
    without any of these and `[abc]` is a file, or a directory with all below.
    """
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if not parts or pattern.endswith("/"):
        parts.append("**")
    words: list[str] = []
    for at, part in enumerate(parts):
        if part != "**":
            words.append(_component(part) + ("" if at == len(parts) - 1 else "/"))
        elif at == len(parts) - 1:
            words.append(".+")
        elif parts[at + 1] != "**":
            words.append("(?:[^/]+/)*")
    return "".join(words) + ("" if is_glob(pattern) else "(?:/.+)?")


def is_glob(text: str) -> bool:
    """Tell whether it is more than a name."""
    return any(char in text for char in "*?[")


def _component(part: str) -> str:
    words: list[str] = []
    at = 0
    while at < len(part):
        char = part[at]
        end = part.find("]", at + (3 if part[at + 1 : at + 2] == "!" else 2)) if char == "[" else -1
        if char == "*":
            if words[-1:] != ["[^/]*"]:
                words.append("[^/]*")
        elif char == "?":
            words.append("[^/]")
        elif end > 0:
            inside = re.sub(r"([\\\[\]&~|^])", r"\\\1", part[at + 1 : end].removeprefix("!"))
            words.append(f"(?!/)[{'^' if part[at + 1] == '!' else ''}{inside}]")
            at = end
        else:
            words.append(re.escape(char))
        at += 1
    return "".join(words)


def compiled(patterns: Iterable[str]) -> re.Pattern[str]:
    """Return one expression for all `patterns`. Raises ValueError for one that cannot be, such as `[z-a]`."""
    try:
        return re.compile("|".join(f"(?:{expression(pattern)})" for pattern in patterns), re.DOTALL)
    except re.error as error:
        raise ValueError(str(error)) from None


def base_of(pattern: str) -> str:
    """Return the directory, relative to the root, below which everything lies that the pattern can match; "" is it."""
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    fixed = 0
    while fixed < len(parts) and not is_glob(parts[fixed]):
        fixed += 1
    return "/".join(parts[: min(fixed, len(parts) - 1)])


def is_never_watched(path: str) -> bool:
    return any(part in NEVER_WATCHED for part in path.split("/"))
