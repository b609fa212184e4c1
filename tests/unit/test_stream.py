"""The way out: pipes, files, sockets and terminals that others share, none of which may block the loop."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from procman.loop import PATIENCE_TURNS, Loop
from procman.sinks.stream import FULL_BYTES, MAX_BUFFERS, WORTH_BYTES, Stream
from tests.support.turns import Pipes, Turns, read_now

PIPE_BYTES = 65_536
REPOSITORY = Path(__file__).parents[2]


class Sent:
    """A stream and what it told."""

    def __init__(self) -> None:
        self.loop = Turns()
        self.pipes = Pipes()
        self.gone: list[str] = []
        self.room = 0
        self.idle = 0

    def stream(self, fd: int) -> Stream:
        return Stream(self.loop, fd, self.gone.append, self._on_room)

    def _on_room(self) -> None:
        self.room += 1

    def on_idle(self) -> None:
        self.idle += 1

    def close(self) -> None:
        self.loop.close()
        self.pipes.close_all()


@pytest.fixture
def sent() -> Iterator[Sent]:
    made = Sent()
    yield made
    made.close()


def _is_nonblocking(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK)


# --- every kind of descriptor gets the bytes ---


def _pipe(sent: Sent, tmp_path: Path) -> tuple[int, Callable[[], bytes]]:
    reader, writer = sent.pipes.pipe()
    return writer, lambda: read_now(reader)


def _file(sent: Sent, tmp_path: Path) -> tuple[int, Callable[[], bytes]]:
    path = tmp_path / "log"
    fd = sent.pipes.keep(os.open(path, os.O_WRONLY | os.O_CREAT))
    reader = sent.pipes.keep(os.open(path, os.O_RDONLY))
    return fd, lambda: read_now(reader)


def _appended_file(sent: Sent, tmp_path: Path) -> tuple[int, Callable[[], bytes]]:
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    fd = sent.pipes.keep(os.open(path, os.O_WRONLY | os.O_APPEND))
    reader = sent.pipes.keep(os.open(path, os.O_RDONLY))
    assert os.read(reader, 100) == b"before\n"
    return fd, lambda: read_now(reader)


def _named_pipe(sent: Sent, tmp_path: Path) -> tuple[int, Callable[[], bytes]]:
    os.mkfifo(tmp_path / "fifo")
    reader = sent.pipes.keep(os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK))
    return sent.pipes.keep(os.open(tmp_path / "fifo", os.O_WRONLY)), lambda: read_now(reader)


def _socket(sent: Sent, tmp_path: Path) -> tuple[int, Callable[[], bytes]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    reader, writer = sent.pipes.keep(theirs.detach()), sent.pipes.keep(ours.detach())
    return writer, lambda: read_now(reader)


def _pty(sent: Sent, tmp_path: Path) -> tuple[int, Callable[[], bytes]]:
    master, slave = (sent.pipes.keep(fd) for fd in os.openpty())
    os.set_blocking(master, False)
    return slave, lambda: read_now(master).replace(b"\r\n", b"\n")


def _gather(sent: Sent, arrived: Callable[[], bytes], size: int) -> bytes:
    """Take turns until `size` bytes have arrived. The kernel moves a pty's bytes when it finds the time."""
    got = b""
    give_up_s = time.monotonic() + 10
    while len(got) < size and time.monotonic() < give_up_s:
        sent.loop.turn()
        got += arrived()
        os.sched_yield()
    return got


KINDS = [_pipe, _file, _appended_file, _named_pipe, _socket, _pty]


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_arrive_in_order_at_the_end_of_the_turn(sent: Sent, tmp_path: Path, kind: Any) -> None:
    fd, arrived = kind(sent, tmp_path)
    stream = sent.stream(fd)
    stream.write(b"one ", memoryview(b"two "))
    stream.write(b"", b"three\n")
    assert arrived() == b""
    assert not stream.is_idle
    assert _gather(sent, arrived, 14) == b"one two three\n"
    assert stream.is_idle
    assert sent.gone == []


@pytest.mark.parametrize("kind", KINDS)
def test_flags_of_the_shared_description_stay_as_they_are(sent: Sent, tmp_path: Path, kind: Any) -> None:
    """O_NONBLOCK on stdout would be set on the user's shell, too."""
    fd, _ = kind(sent, tmp_path)
    before = fcntl.fcntl(fd, fcntl.F_GETFL)
    stream = sent.stream(fd)
    stream.write(b"x\n" * 1000)
    sent.loop.settle(3)
    assert fcntl.fcntl(fd, fcntl.F_GETFL) == before
    assert not _is_nonblocking(fd)


@pytest.mark.parametrize("kind", KINDS)
def test_more_buffers_than_one_call_takes(sent: Sent, tmp_path: Path, kind: Any) -> None:
    fd, arrived = kind(sent, tmp_path)
    stream = sent.stream(fd)
    lines = [b"%d\n" % number for number in range(MAX_BUFFERS * 2 + 5)]
    for line in lines:
        stream.write(line)
    whole = b"".join(lines)
    assert _gather(sent, arrived, len(whole)) == whole


def test_dev_null_takes_everything(sent: Sent) -> None:
    fd = sent.pipes.keep(os.open(os.devnull, os.O_WRONLY))
    stream = sent.stream(fd)
    stream.write(bytes(FULL_BYTES))
    sent.loop.turn()
    assert stream.is_idle
    assert not stream.is_full
    assert (sent.gone, sent.room) == ([], 1)


def test_a_full_disk_is_told_with_its_reason(sent: Sent) -> None:
    fd = sent.pipes.keep(os.open("/dev/full", os.O_WRONLY))
    stream = sent.stream(fd)
    stream.write(b"x")
    sent.loop.turn()
    assert sent.gone == ["no space left on device"]
    stream.write(b"more")
    sent.loop.turn()
    assert sent.gone == ["no space left on device"]
    assert stream.is_idle


# --- a slow reader ---


@pytest.mark.parametrize("kind", [_pipe, _named_pipe, _socket, _pty])
def test_partial_writes_go_on_where_they_stopped(sent: Sent, tmp_path: Path, kind: Any) -> None:
    fd, arrived = kind(sent, tmp_path)
    stream = sent.stream(fd)
    whole = b"".join(b"%07d\n" % number for number in range(60_000))
    for at in range(0, len(whole), 50_001):
        stream.write(whole[at : at + 50_001])
    sent.loop.turn()
    assert not stream.is_idle
    assert _gather(sent, arrived, len(whole)) == whole
    sent.loop.turn()
    assert stream.is_idle


def test_little_waits_for_more_while_others_are_ready(sent: Sent) -> None:
    """A child on a pty is read 4 KiB at a time: a write for each would wake the reader too often."""
    reader, writer = sent.pipes.pipe()
    stream = sent.stream(writer)
    stream.write(b"one\n")
    Loop.turn(sent.loop)  # one descriptor of it is always ready
    assert read_now(reader) == b""
    stream.write(b"two\n")
    Loop.turn(sent.loop)
    assert read_now(reader) == b""
    stream.write(bytes(WORTH_BYTES))
    Loop.turn(sent.loop)
    assert read_now(reader) == b"one\ntwo\n" + bytes(WORTH_BYTES)
    stream.write(b"last\n")
    for _ in range(PATIENCE_TURNS + 1):
        Loop.turn(sent.loop)
    assert read_now(reader) == b"last\n"


def test_full_until_it_has_emptied(sent: Sent) -> None:
    reader, writer = sent.pipes.pipe()
    stream = sent.stream(writer)
    stream.on_idle = sent.on_idle
    stream.write(bytes(FULL_BYTES - 1))
    assert not stream.is_full
    stream.write(b"x")
    assert stream.is_full
    sent.loop.turn()
    assert sent.room == 0
    assert sent.idle == 0
    got = 0
    while got < FULL_BYTES:
        got += len(read_now(reader))
        # The last pipeful has left the queue before it was read.
        assert sent.room == 0 or got >= FULL_BYTES - PIPE_BYTES
        sent.loop.turn()
    assert got == FULL_BYTES
    assert not stream.is_full
    assert (sent.room, sent.idle) == (1, 1)
    stream.write(b"small")
    sent.loop.turn()
    assert (sent.room, sent.idle) == (1, 2)


def test_writes_while_waiting_keep_their_order(sent: Sent) -> None:
    reader, writer = sent.pipes.pipe()
    stream = sent.stream(writer)
    stream.write(b"a" * 100_000)
    sent.loop.turn()
    stream.write(b"b")
    sent.loop.turn()
    got = read_now(reader)
    sent.loop.turn()
    assert got + read_now(reader) == b"a" * 100_000 + b"b"


def test_waiting_costs_nothing_once_all_is_out(sent: Sent) -> None:
    """A pipe is nearly always writable: watched for room without need, it would burn a core."""
    reader, writer = sent.pipes.pipe()
    stream = sent.stream(writer)
    stream.on_idle = sent.on_idle
    stream.write(bytes(100_000))
    sent.loop.turn()
    read_now(reader)
    sent.loop.settle()
    assert sent.idle == 1


# --- a reader that leaves ---


@pytest.mark.parametrize("kind", ["pipe", "fifo", "socket", "pty"])
@pytest.mark.parametrize("is_writing", [False, True])
def test_reader_that_left_is_told_once(sent: Sent, tmp_path: Path, kind: str, is_writing: bool) -> None:
    if kind == "pipe":
        reader, writer = sent.pipes.pipe()
    elif kind == "fifo":
        os.mkfifo(tmp_path / "fifo")
        reader = sent.pipes.keep(os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK))
        writer = sent.pipes.keep(os.open(tmp_path / "fifo", os.O_WRONLY))
    elif kind == "socket":
        ours, theirs = socket.socketpair()
        reader, writer = sent.pipes.keep(theirs.detach()), sent.pipes.keep(ours.detach())
    else:
        reader, writer = (sent.pipes.keep(fd) for fd in os.openpty())
    stream = sent.stream(writer)
    stream.on_idle = sent.on_idle
    if is_writing:
        stream.write(bytes(2 * FULL_BYTES))
        sent.loop.turn()
        assert stream.is_full
    sent.loop.settle(2)
    assert sent.gone == []
    sent.pipes.close(reader)
    sent.loop.settle()
    assert sent.gone == [""]
    assert stream.is_gone
    assert stream.is_idle
    assert not stream.is_full
    assert sent.idle >= 1
    assert sent.room == int(is_writing)
    stream.write(b"dropped")
    stream.flush()
    sent.loop.settle()
    assert stream.is_idle
    assert sent.gone == [""]


def test_pipe_whose_reader_left_before(sent: Sent) -> None:
    reader, writer = sent.pipes.pipe()
    sent.pipes.close(reader)
    stream = sent.stream(writer)
    stream.write(b"x")
    sent.loop.settle()
    assert sent.gone == [""]
    assert stream.is_idle


def test_broken_pipe_ends_nobody(sent: Sent) -> None:
    """CPython ignores SIGPIPE and sockets are sent to with MSG_NOSIGNAL, whatever the signal does."""
    ours, theirs = socket.socketpair()
    theirs.close()
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        stream = sent.stream(sent.pipes.keep(ours.detach()))
        stream.write(b"x")
        stream.flush()
        assert sent.gone == [""]
    finally:
        signal.signal(signal.SIGPIPE, before)


def test_tcp_socket(sent: Sent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    fd = sent.pipes.keep(ours.detach())
    stream = sent.stream(fd)
    whole = bytes(FULL_BYTES * 8)
    stream.write(whole)
    got = 0
    with theirs:
        theirs.settimeout(5)
        while got < len(whole):
            sent.loop.turn()
            got += len(theirs.recv(1 << 20))
    assert got == len(whole)
    assert not _is_nonblocking(fd)


# --- one that cannot be opened anew ---

NO_REOPEN = """
import fcntl, os, select, threading  # all before we may no longer read their files
from procman.sinks.stream import Stream
from tests.support.turns import Turns, read_now

reader, writer = os.pipe()
os.set_blocking(reader, False)
if os.geteuid() == 0:
    os.seteuid(65534)
    try:
        os.open(f"/dev/fd/{writer}", os.O_WRONLY)
    except PermissionError:
        pass
    else:
        raise SystemExit("it can be opened")
    stream = Stream(loop := Turns(), writer, print, lambda: None)
    assert stream._thread is not None
else:
    stream = Stream(loop := Turns(), writer, print, lambda: None)
    stream._write = stream._threaded_writer(writer)
before = fcntl.fcntl(writer, fcntl.F_GETFL)
whole = b"".join(b"%07d\\n" % number for number in range(40_000))
stream.write(whole)
got = b""
while len(got) < len(whole):
    loop.turn()
    select.select([reader], [], [], 5)
    got += read_now(reader)
loop.settle()
assert stream.is_idle
stream.finish()
assert got == whole
assert fcntl.fcntl(writer, fcntl.F_GETFL) == before
print("whole")
"""


def test_pipe_of_another_user_gets_a_writer_thread() -> None:
    """After su or sudo stdout belongs to somebody else, and /dev/fd/1 says EACCES."""
    done = subprocess.run(
        [sys.executable, "-c", NO_REOPEN],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("whole\n", 0), done.stderr


def _threaded(sent: Sent, fd: int) -> Stream:
    """Return a stream of a kind that is told from others by its writer thread only."""
    stream = sent.stream(fd)
    sent.loop.remove(stream._fd)
    stream._write = stream._threaded_writer(fd)
    return stream


def test_thread_tells_that_the_reader_has_gone(sent: Sent) -> None:
    reader, writer = sent.pipes.pipe()
    stream = _threaded(sent, writer)
    sent.pipes.close(reader)
    stream.write(b"x")
    sent.loop.turn()
    assert stream._thread is not None
    stream._thread.join(5)
    sent.loop.settle()
    assert sent.gone == [""]
    stream.finish()


def test_thread_bounds_what_waits(sent: Sent) -> None:
    reader, writer = sent.pipes.pipe()
    stream = _threaded(sent, writer)
    stream.write(bytes(FULL_BYTES * 2))
    sent.loop.settle()
    assert stream.is_full
    got: list[int] = []
    os.set_blocking(reader, True)

    def read_all() -> None:
        while sum(got) < FULL_BYTES * 2:
            got.append(len(os.read(reader, 1 << 20)))

    other = threading.Thread(target=read_all)
    other.start()
    while other.is_alive():
        sent.loop.turn()
    sent.loop.settle()
    assert stream.is_idle
    assert sent.room == 1
    stream.finish()


def test_finish_without_a_thread_leaves_the_descriptor_open(sent: Sent) -> None:
    reader, writer = sent.pipes.pipe()
    stream = sent.stream(writer)
    stream.finish()
    os.write(writer, b"x")
    assert read_now(reader) == b"x"


def test_every_descriptor_is_closed_on_exec(sent: Sent) -> None:
    _, writer = sent.pipes.pipe()
    ours, theirs = socket.socketpair()
    with theirs:
        for fd in (writer, sent.pipes.keep(ours.detach())):
            stream = sent.stream(fd)
            assert stream._fd != fd
            assert not os.get_inheritable(stream._fd)
