"""The log file: no line is lost or split, the disk may be full, and nobody else's file is touched."""

from __future__ import annotations

import os
import re
import resource
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from procman.events import Notice, Output
from procman.sinks import file
from procman.sinks.console import Console, Style
from procman.sinks.file import RETRY_S, LogFile, Place, append, claim_place, open_log
from procman.sinks.stream import FULL_BYTES
from tests.support.turns import Turns

LIMIT = 4096


class Log:
    """A log below `parent`, and what it told."""

    def __init__(self, parent: Path, limit_bytes: int = LIMIT, count: int = 3) -> None:
        self.parent_fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
        self.path = parent / "log" / "procman.log"
        self.loop = Turns()
        self.told: list[str] = []
        self.is_closed = False
        self.place = claim_place(self.parent_fd, "log", "procman")
        self.file = LogFile(self.loop, self.place, limit_bytes, count, self._tell)
        self.on_tell: Callable[[str], None] = lambda text: None

    def _tell(self, text: str) -> None:
        self.told.append(text)
        self.on_tell(text)

    def write(self, *buffers: bytes) -> None:
        """Write, and take a turn."""
        self.file.write(*buffers)
        self.loop.turn()

    def texts(self) -> list[bytes]:
        """Return the content of all files, the oldest first."""
        paths = sorted(self.path.parent.glob("procman.log.[0-9]*"), key=lambda path: -int(path.suffix[1:]))
        return [path.read_bytes() for path in [*paths, self.path]]

    def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self.loop.close()
        os.close(self.file._fd)
        release(self.place)
        os.close(self.parent_fd)


def release(place: Place) -> None:
    os.close(place.lock_fd)
    os.close(place.directory_fd)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Log]]:
    made: list[Log] = []

    def build(**options: int) -> Log:
        made.append(Log(tmp_path, **options))
        return made[-1]

    yield build
    for log in made:
        log.close()


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """No file may grow beyond `size`: write(2) says EFBIG, and before that writes a part, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def lines(first: int, last: int) -> list[bytes]:
    return [b"line %d\n" % number for number in range(first, last)]


# --- an ordinary life ---


def test_it_is_private_and_appended_to(make: Callable[..., Log]) -> None:
    mask = os.umask(0)
    try:
        first = make()
    finally:
        os.umask(mask)
    first.write(b"one\n", memoryview(b"two\n"))
    assert first.texts() == [b"one\ntwo\n"]
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(first.path.parent.stat().st_mode) == 0o700
    first.close()
    second = make()
    second.write(b"three\n")
    assert second.path.read_bytes() == b"one\ntwo\nthree\n"


def test_what_is_too_open_is_closed(tmp_path: Path, make: Callable[..., Log]) -> None:
    (tmp_path / "log").mkdir(mode=0o755)
    (tmp_path / "log" / "procman.log").touch(mode=0o644)
    log = make()
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.path.parent.stat().st_mode) == 0o700


def test_all_of_a_turn_is_one_write(make: Callable[..., Log]) -> None:
    log = make()
    log.file.write(b"one\n")
    log.file.write(b"two\n")
    assert not log.file.is_idle
    assert log.texts() == [b""]
    log.loop.turn()
    assert log.file.is_idle
    assert log.texts() == [b"one\ntwo\n"]


@pytest.mark.parametrize("is_at_once", [False, True])
def test_rotation(make: Callable[..., Log], is_at_once: bool) -> None:
    log = make()
    written = lines(0, 5000)
    if is_at_once:
        log.write(*written)
    else:
        for line in written:
            log.write(line)
    texts = log.texts()
    assert [name for name in sorted(os.listdir(log.path.parent)) if not name.endswith(".lock")] == [
        "procman.log", "procman.log.1", "procman.log.2",
    ]  # fmt: skip
    assert b"".join(written).endswith(b"".join(texts))
    assert [len(text) > LIMIT - 20 for text in texts[:-1]] == [True, True]
    for text in texts:
        assert len(text) <= LIMIT
        assert text.startswith(b"line ")
        assert text.endswith(b"\n")
    for path in log.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert log.told == []


def test_one_file_only(make: Callable[..., Log]) -> None:
    log = make(count=1)
    log.write(*lines(0, 1000))
    [text] = log.texts()
    assert b"".join(lines(0, 1000)).endswith(text)
    assert 0 < len(text) <= LIMIT


def test_the_size_of_what_was_there_counts(tmp_path: Path, make: Callable[..., Log]) -> None:
    (tmp_path / "log").mkdir()
    old = b"x" * (LIMIT - 6) + b"\n"
    (tmp_path / "log" / "procman.log").write_bytes(old)
    log = make()
    log.write(b"12345\n")
    assert log.texts() == [old, b"12345\n"]


def test_a_line_longer_than_a_file(make: Callable[..., Log]) -> None:
    log = make(count=9)
    long = b"x" * 3 * LIMIT + b"\n"
    log.write(b"before\n" + long + b"after\n")
    assert log.texts() == [b"before\n", long, b"after\n"]


def test_a_long_line_in_pieces(make: Callable[..., Log]) -> None:
    log = make(count=9)
    log.write(b"before\nweb | ")
    for _ in range(10):
        log.write(b"x" * 1000)
    log.write(b"end\nafter\n")
    assert log.texts() == [b"before\nweb | " + b"x" * 10_000 + b"end\n", b"after\n"]


def test_half_a_line_of_a_run_that_was_killed(tmp_path: Path, make: Callable[..., Log]) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "procman.log").write_bytes(b"whole\nhal")
    log = make()
    log.write(b"next\n")
    assert log.texts() == [b"whole\nhal\nnext\n"]


def test_append_for_one_who_has_died(make: Callable[..., Log]) -> None:
    log = make()
    append(log.place, b"first\n")
    log.write(b"hal")
    append(log.place, b"second\n")
    assert log.texts() == [b"first\nhal\nsecond\n"]


def test_a_file_that_is_deleted_is_made_again(make: Callable[..., Log]) -> None:
    log = make()
    log.write(b"one\n")
    log.path.unlink()
    log.write(b"two\n")
    assert log.texts() == [b"two\n"]
    assert log.told == []


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.binary(max_size=40) | st.just(b"\n") | st.just(b"x" * 100), max_size=5), max_size=30),
    st.integers(1, 200),
)
def test_no_byte_is_lost_and_no_line_split(
    tmp_path_factory: pytest.TempPathFactory, turns: list[list[bytes]], limit: int
) -> None:
    log = Log(tmp_path_factory.mktemp("log"), limit_bytes=limit, count=10_000)
    try:
        for buffers in turns:
            log.write(*buffers)
        texts = log.texts()
        assert b"".join(texts) == b"".join(b"".join(buffers) for buffers in turns)
        assert all(text.endswith(b"\n") for text in texts[:-1])
        assert all(text[:-1].rfind(b"\n") < limit for text in texts), "one more line than fits"
    finally:
        log.close()


# --- a disk that is full ---


def test_full_disk_is_told_once_and_tried_again(make: Callable[..., Log]) -> None:
    log = make(limit_bytes=10**6)
    log.on_tell = lambda text: log.file.write(b"system | " + text.encode() + b"\n")
    with file_limit(10):
        for line in lines(0, 5):
            log.write(line)
        for _ in range(10):
            log.loop.pass_time(RETRY_S)
        assert log.texts() == [b"line 0\nlin"]
        assert log.loop.due() == 1
        assert not log.file.is_idle
    assert log.told == ["the log cannot be written: file too large; trying again every second"]
    log.loop.pass_time(RETRY_S)
    log.loop.turn()
    assert log.told[1:] == ["the log can be written again"]
    [text] = log.texts()
    assert sorted(text.splitlines(keepends=True)) == sorted(
        [*lines(0, 5), *(b"system | " + told.encode() + b"\n" for told in log.told)]
    )
    assert log.loop.due() == 0
    assert log.file.is_idle


def test_what_waits_for_a_full_disk_is_bounded_and_counted(make: Callable[..., Log]) -> None:
    log = make(limit_bytes=10**9)
    log.on_tell = lambda text: log.file.write(b"system | " + text.encode() + b"\n")
    block = b"x" * 65_535 + b"\n"
    with file_limit(0):
        for _ in range(100):
            log.write(block)
            log.loop.pass_time(RETRY_S)
        assert FULL_BYTES <= log.file._queued_bytes < FULL_BYTES + len(block)
    log.loop.pass_time(RETRY_S)
    log.write(b"after\n")
    [text] = log.texts()
    kept = text.count(block)
    assert log.told[1] == (
        f"the log can be written again; {(100 - kept) * len(block)} bytes are missing before this line"
    )
    assert text.endswith(b"x\nsystem | " + log.told[1].encode() + b"\nafter\n")


def test_full_disk_at_the_end_does_not_keep_the_run(make: Callable[..., Log]) -> None:
    log = make()
    with file_limit(0):
        log.write(b"line\n")
        log.file.close()
    assert log.file.is_idle
    assert log.loop.due() == 0


def test_disk_that_has_room_at_the_end(make: Callable[..., Log]) -> None:
    log = make()
    with file_limit(0):
        log.write(b"line\n")
    log.file.close()
    assert log.texts() == [b"line\n"]


def test_lines_around_a_gap_are_whole(make: Callable[..., Log], monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the console: an unfinished line before the gap gets its newline, the end of one in it is dropped."""
    monkeypatch.setattr(file, "FULL_BYTES", 10)
    log = make(limit_bytes=10**6)
    console = Console(log.file, Style(3, has_timestamp=False), lambda name: 0)
    log.on_tell = lambda text: console.write(Notice("system", 0.0, text))

    def say(text: bytes) -> None:
        console.write(Output("web", 0.0, text))
        log.loop.turn()

    say(b"begin")
    with file_limit(0):
        say(b" middle")
        say(b" lost")
        say(b" lost, too")
    log.loop.pass_time(RETRY_S)
    log.loop.turn()
    say(b" end of it\nnext\n")
    [text] = log.texts()
    told = [f"system | {line}".encode() for line in log.told]
    assert len(told) == 2
    written = text.split(b"\n")
    assert written[0] == b"web | begin middle"
    assert written[-4:] == [told[1], b"web |  end of it", b"web | next", b""]
    assert b"" not in written[:-1]


OPERATIONS = st.lists(
    st.tuples(st.just("write"), st.integers(1, 30))
    | st.tuples(st.just("pieces"), st.integers(1, 5))
    | st.tuples(st.just("limit"), st.integers(0, 3000))
    | st.tuples(st.sampled_from(["lift", "wait", "turn"]), st.just(0)),
    max_size=40,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OPERATIONS)
def test_every_line_is_whole_whatever_the_disk_does(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, int]]
) -> None:
    """In order, each once, and the gaps are told with their size."""
    full, file.FULL_BYTES = file.FULL_BYTES, 300  # type: ignore[misc]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = Log(tmp_path_factory.mktemp("log"), limit_bytes=1000, count=10_000)
    console = Console(log.file, Style(3, has_prefix=False), lambda name: 0)
    log.on_tell = lambda text: console.write(Notice("system", 0.0, f"TOLD {text}"))
    number = 0
    try:
        for name, count in operations:
            if name == "write":
                console.write(Output("web", 0.0, b"".join(lines(number, number + count))))
                number += count
            elif name == "pieces":
                for line in lines(number, number + count):
                    for piece in (line[:3], line[3:]):
                        console.write(Output("web", 0.0, piece))
                        log.loop.turn()
                number += count
            elif name == "limit":
                resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
            elif name == "lift":
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            elif name == "wait":
                log.loop.pass_time(RETRY_S)
            else:
                log.loop.turn()
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        log.loop.pass_time(RETRY_S)
        log.loop.turn()
        written = b"".join(log.texts()).splitlines(keepends=True)
        told = [line for line in written if line.startswith(b"TOLD")]
        kept = [line for line in written if line in set(lines(0, number))]
        others = [line for line in written if line not in told and line not in kept]
        assert all(line.rstrip(b"\n") in b"".join(lines(0, number)) for line in others), "a mixture"
        assert [int(line[5:]) for line in kept] == sorted({int(line[5:]) for line in kept})
        missing = [int(found[1]) for text in log.told if (found := re.search(r"(\d+) bytes are missing", text))]
        # Where a message stands inside a line that came in pieces, that line has a newline more.
        given_bytes = sum(map(len, lines(0, number))) + sum(len(f"TOLD {text}\n") for text in log.told)
        assert 0 <= sum(map(len, written)) + sum(missing) - given_bytes <= len(log.told)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        file.FULL_BYTES = full  # type: ignore[misc]
        log.close()


def test_rotation_that_cannot_be_is_told_once(make: Callable[..., Log]) -> None:
    log = make(count=2)
    (log.path.parent / "procman.log.1").mkdir()
    log.write(*lines(0, 3000))
    assert log.told == ["the log grows over its limit: is a directory"]
    assert log.path.read_bytes() == b"".join(lines(0, 3000))
    (log.path.parent / "procman.log.1").rmdir()
    log.write(*lines(3000, 5000))
    assert b"".join(lines(0, 5000)).endswith(b"".join(log.texts()))
    assert len(log.texts()) == 2


# --- what somebody else has put there ---


def test_links_are_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "log").symlink_to(tmp_path)
    parent_fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError, match=r"Not a directory|Too many"):
            claim_place(parent_fd, "log", "procman")
        (tmp_path / "log").unlink()
        (tmp_path / "log").mkdir()
        (tmp_path / "log" / "procman.log.lock").symlink_to(target)
        with pytest.raises(OSError, match="Too many levels"):
            claim_place(parent_fd, "log", "procman")
        (tmp_path / "log" / "procman.log.lock").unlink()
        place = claim_place(parent_fd, "log", "procman")
        for planted in (target, tmp_path / "missing"):
            (tmp_path / "log" / "procman.log").symlink_to(planted)
            with pytest.raises(OSError, match="Too many levels"):
                open_log(place)
            (tmp_path / "log" / "procman.log").unlink()
        os.mkfifo(tmp_path / "log" / "procman.log")
        with pytest.raises(OSError, match="no regular file"):
            open_log(place)
        release(place)
    finally:
        os.close(parent_fd)
    assert target.read_text() == "precious"
    assert not (tmp_path / "missing").exists()


def test_a_link_planted_for_the_next_file(make: Callable[..., Log], tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    log = make()
    for name in ("procman.log.new", "procman.log.1", "procman.log.2"):
        (log.path.parent / name).symlink_to(target)
    log.write(*lines(0, 3000))
    assert target.read_text() == "precious"
    assert b"".join(lines(0, 3000)).endswith(b"".join(log.texts()))
    assert len(log.texts()) == 3


def test_two_runs_have_two_files(tmp_path: Path) -> None:
    parent_fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    first, second = (claim_place(parent_fd, "log", "procman") for _ in range(2))
    assert (first.name, second.name) == ("procman.log", "procman-2.log")
    release(first)
    third = claim_place(parent_fd, "log", "procman")
    assert third.name == "procman.log"
    release(second)
    release(third)
    os.close(parent_fd)
