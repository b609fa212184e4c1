"""The socket of a running procman, on the supervisor's loop (docs/control-protocol.md).

Imported behind the first spawn; what the first client needs is loaded soon after.
"""

from __future__ import annotations

import _socket  # the part of socket that needs no other module
import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from procman import __version__
from procman.control.directory import Claim, inside
from procman.errors import ControlError, ProcmanError, failure_of
from procman.events import Event, Output
from procman.loop import Loop
from procman.records import NamedTuple
from procman.sinks.stream import Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from procman.control.requests import Requests

MAX_CONNECTIONS = 100
WARM_UP_S = 0.1
WARM_UP_PAUSE_S = 0.02
# What the first client needs, a ms each: no output is passed on meanwhile.
WARM_UP_MODULES = ("json", "base64", "procman.control.protocol")
NO_DESCRIPTOR_WAIT_S = 1.0
HELD_BYTES = 1024 * 1024  # of output that waits for a slow client
PIECE_BYTES = 256 * 1024  # encoded in one turn
LAST_WORD_S = 0.5  # how long the end of a run waits for a client that does not read

Message = dict[str, "Any"]


class Lost(NamedTuple):
    """Stands where output of an instance is missing."""

    name: str
    lost_bytes: int


class Raw(NamedTuple):
    """Bytes of an instance as they came, for who is attached to its terminal."""

    name: str
    block: bytes


# What can be told to a client.
Told = Event | Lost | Raw | Message


class Connection:
    """One client: its request, and the replies. What is to be told is encoded only as fast as the client reads."""

    def __init__(self, loop: Loop, fd: int, server: Server) -> None:
        self.wants: Callable[[str], bool] | None = None  # of which instances it follows the events
        self.on_message: Callable[[Message], None] | None = None  # what comes after the request
        self.on_close: Callable[[], None] | None = None
        self.is_closed = False
        self._loop = loop
        self._fd = fd
        self._server = server
        self._received = b""
        self.has_asked = False
        self._events: deque[Told] = deque()
        self._held_bytes = 0  # of output among them
        self._last: Iterator[bytes] | None = None  # goes out when no event is left
        self._is_over = False
        self._stream = Stream(loop, fd, lambda reason: self.close(), self._pump)
        self._stream.on_idle = self._on_idle
        loop.add_reader(fd, self._on_readable)

    # --- to the client ---

    def send(self, message: Message) -> None:
        from procman.control.protocol import encode

        self._stream.write(encode(message))

    def send_events(self, events: Iterable[Told]) -> None:
        """Tell all of `events`, however slow the client is."""
        self._events.extend(events)
        self._pump()

    def follow(self, event: Event | Raw) -> None:
        """Tell an event that happens now, or count what it tells as lost if the client is slow."""
        size = _size_of(event)
        if size and self._held_bytes + size > HELD_BYTES:
            last = self._events[-1] if self._events else None
            if isinstance(last, Lost) and last.name == event.name:
                self._events[-1] = Lost(event.name, last.lost_bytes + size)
            else:
                self._events.append(Lost(event.name, size))
            return
        self._events.append(event)
        self._held_bytes += size
        if len(self._events) == 1:
            self._pump()

    def end(self, message: Message) -> None:
        """Send the last reply behind what waits; close when it is out."""
        if self._last is None and not self._is_over:
            from procman.control.protocol import encoded_in_pieces

            self.wants = self.on_message = None
            self._last = encoded_in_pieces(message)
            self._pump()

    def fail(self, error: ProcmanError) -> None:
        self.end({"error": str(error), "code": error.exit_code})

    def _pump(self) -> None:
        """Encode a piece of what waits; the rest in later turns, for others want the loop, too."""
        from procman.control.protocol import encoded_bytes, message_of

        room = PIECE_BYTES
        while self._events and room > 0 and not self._stream.is_full:
            event = self._events.popleft()
            size = _size_of(event)
            self._held_bytes = max(0, self._held_bytes - size)
            room -= size + 1000
            if isinstance(event, dict):
                self.send(event)
            elif isinstance(event, Lost):
                self.send({"event": "lost", **event._asdict()})
            elif isinstance(event, Raw):
                self.send({"bytes": encoded_bytes(event.block)})
            else:
                self.send(message_of(event))
        if self._last is None or self._events:
            return
        if (piece := next(self._last, None)) is not None:
            self._stream.write(piece)
        elif self._stream.is_idle:  # else `_on_idle` comes back
            self._last, self._is_over = None, True
            self.close()

    def _on_idle(self) -> None:
        if self._events or self._last is not None:
            self._loop.call_later(0, self._pump)

    # --- from the client ---

    def _on_readable(self) -> None:
        from procman.control.protocol import MAX_LINE_BYTES

        try:
            chunk = os.read(self._fd, 65_536)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not chunk:
            # It may have closed only its own half, and wait for the answer; one that is gone is told by POLLHUP.
            self._loop.remove_reader(self._fd)
            if not self.has_asked:
                self.close()
            return
        *lines, self._received = (self._received + chunk).split(b"\n")
        for line in lines:
            self._take(line)
        if len(self._received) > MAX_LINE_BYTES and not self.is_closed:
            self._received = b""
            self._loop.remove_reader(self._fd)
            self.fail(ControlError(f"a line of more than {MAX_LINE_BYTES} bytes"))

    def _take(self, line: bytes) -> None:
        from procman.control.protocol import decode

        if self.is_closed or self._is_over or self._last is not None:
            return
        try:
            message = decode(line)
            if not self.has_asked:
                self.has_asked = True
                self._server.ask(message, self)
            elif self.on_message is not None:
                self.on_message(message)
        except ProcmanError as error:
            self.fail(error)
        except Exception as error:  # a bug of ours is the client's to hear, and nothing for the run to die of
            self.fail(failure_of(error))

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._events.clear()
            self._loop.remove(self._fd)
            self._stream.close()
            os.close(self._fd)
            self._server.forget(self)
            if self.on_close is not None:
                self.on_close()


def _load(name: str) -> None:
    __import__(name)


def _size_of(event: Told) -> int:
    return len(event.block) if isinstance(event, (Output, Raw)) else 0


class Server:
    """Listens in the claimed directory. It is a sink, too: events reach the clients that follow them."""

    def __init__(
        self,
        loop: Loop,
        claim: Claim,
        root: str,
        make_requests: Callable[[], Requests],
        on_idle: Callable[[], None],
    ) -> None:
        """`make_requests` is called soon, but behind the first child: its modules take a few ms. `on_idle` is called
        whenever the last client has left."""
        self._loop = loop
        self._claim = claim
        self._root = root
        self._make_requests = make_requests
        self._on_idle = on_idle
        self._requests: Requests | None = None
        self._connections: dict[Connection, None] = {}
        self._is_look_due = False
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)

    def listen(self) -> None:
        """Bind the socket and accept clients. Raises OSError."""
        with inside(self._claim.directory_fd):
            name = self._claim.socket_name
            new = f"{name}.new"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)  # ours: we hold its lock
            mask = os.umask(0o177)
            try:
                self._socket.bind(new)
            finally:
                os.umask(mask)
            self._socket.listen(MAX_CONNECTIONS)
            os.rename(new, name)  # so that whoever sees it finds somebody listening
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket.fileno(), self._on_client)
        for at, name in enumerate(WARM_UP_MODULES):
            self._loop.call_later(WARM_UP_S + at * WARM_UP_PAUSE_S, partial(_load, name))
        self._loop.call_later(WARM_UP_S + len(WARM_UP_MODULES) * WARM_UP_PAUSE_S, self._warm_up)

    def _warm_up(self) -> None:
        if self._requests is None:
            self._requests = self._make_requests()

    def ask(self, message: Message, connection: Connection) -> None:
        self._warm_up()
        assert self._requests is not None
        self._requests.handle(message, connection)

    def forget(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        if not self._connections:
            self._on_idle()

    def _on_client(self) -> None:
        try:
            fd, _ = self._socket._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return
        except OSError:  # no descriptor is left, and the socket stays ready: look again later, do not spin
            self._loop.remove_reader(self._socket.fileno())
            self._loop.call_later(NO_DESCRIPTOR_WAIT_S, self._accept_again)
            return
        try:
            self._welcome(fd)
        except OSError:  # no descriptor for its other half, or it has left already
            with contextlib.suppress(OSError):
                os.close(fd)

    def _welcome(self, fd: int) -> None:
        if not _is_ours(fd):
            os.close(fd)
            return
        os.set_blocking(fd, False)
        if len(self._connections) >= MAX_CONNECTIONS:
            self._drop_silent()
        connection = Connection(self._loop, fd, self)
        self._connections[connection] = None
        pid = self._claim.pid
        if len(self._connections) > MAX_CONNECTIONS:
            connection.fail(ControlError(f"the procman with pid {pid} has {MAX_CONNECTIONS} clients and takes no more"))
            return
        types = list(self._claim.types)
        connection.send({"procman": __version__, "protocol": 1, "pid": pid, "types": types, "root": self._root})

    def _drop_silent(self) -> None:
        """Close the oldest connection that has asked nothing yet, if there is one: it must not keep others out."""
        silent = next((connection for connection in self._connections if not connection.has_asked), None)
        if silent is not None:
            silent.close()

    def _accept_again(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket.fileno(), self._on_client)

    # --- as a sink ---

    @property
    def is_idle(self) -> bool:
        return not self._connections

    def write(self, event: Event) -> None:
        if not self._connections:
            return
        for connection in list(self._connections):
            if connection.wants is not None and connection.wants(event.name):
                connection.follow(event)
        # The event comes before the change that it tells of, so who waits for that is asked at the end of the turn.
        if not isinstance(event, Output) and not self._is_look_due:
            self._is_look_due = True
            self._loop.at_turn_end(self._look)

    def _look(self) -> None:
        self._is_look_due = False
        if self._requests is not None:
            self._requests.look()

    def close(self) -> None:
        """Tell every client that the run has ended; wait for them, but not long."""
        if self._socket.fileno() >= 0:
            self._loop.remove(self._socket.fileno())
            self._socket.close()
        if self._requests is not None:
            self._requests.close()
        for connection in list(self._connections):
            connection.end({"error": "the run has ended", "code": 69})
        if self._connections:
            self._loop.call_later(LAST_WORD_S, self._drop_all)

    def _drop_all(self) -> None:
        for connection in list(self._connections):
            connection.close()


def _is_ours(fd: int) -> bool:
    """Tell whether the user of the process at the other end is ours (SO_PEERCRED, unix(7))."""
    if not hasattr(_socket, "SO_PEERCRED"):
        return True  # only we can enter the directory
    peer = _socket.socket(fileno=os.dup(fd))
    try:
        # struct ucred: pid, uid and gid, four bytes each; the module struct would be 0.3 ms more at every start.
        credentials = peer.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        uid = int.from_bytes(credentials[4:8], sys.byteorder)
    finally:
        peer.close()
    return uid == os.geteuid()
