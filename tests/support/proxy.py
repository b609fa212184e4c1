"""A TCP proxy that misbehaves as it is told.

    with Proxy(server_port, port) as proxy:
        proxy.behave(Half(10))       # from now on; connections of before are dropped
        proxy.behave(HONEST)

`proxy.said` holds what clients said, to whatever it was.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from typing import NamedTuple, Self

from tests.support.app import CEILING_S

HOST = "127.0.0.1"


class Behaviour(NamedTuple):
    """What happens to a connection."""

    name: str
    is_listening: bool = True
    asks_server: bool = True  # else nobody stands behind it
    greeting: bytes = b""  # said at once instead of what the server says
    answer: bytes = b""  # said to the first word of the client
    delay_s: float = 0.0  # before each piece of an answer
    limit_bytes: int | None = None  # of what comes from the server
    ends: bool = False  # after the limit or the last word; else it stays silent
    is_reset: bool = False  # ends with RST
    piece_bytes: int = 65_536  # passed on at a time
    flood: bytes = b""  # said again and again


HONEST = Behaviour("honest")
REFUSE = Behaviour("refuse", is_listening=False)
HANG_UP = Behaviour("hang up", asks_server=False, ends=True)
RESET = Behaviour("reset", asks_server=False, ends=True, is_reset=True)
SILENT = Behaviour("silent", asks_server=False)
DRIBBLE = Behaviour("dribble", piece_bytes=1)


def half(size: int) -> Behaviour:
    """Pass only the first `size` bytes of the server's answer, then say no more."""
    return Behaviour("half and stall", limit_bytes=size)


def half_and_end(size: int) -> Behaviour:
    return Behaviour("half and end", limit_bytes=size, ends=True)


def late(delay_s: float) -> Behaviour:
    return Behaviour("late", delay_s=delay_s)


def wrong(greeting: bytes, answer: bytes = b"", *, ends: bool = False) -> Behaviour:
    """Speak as another server does: by itself, or when spoken to."""
    return Behaviour("wrong", asks_server=False, greeting=greeting, answer=answer, ends=ends)


def flood(what: bytes) -> Behaviour:
    return Behaviour("flood", asks_server=False, flood=what)


class _Ended(Exception):
    """This connection is over."""


class Proxy:
    """Listens on `port`; what it passes on goes to `target`."""

    def __init__(self, target: int, port: int) -> None:
        self.target, self.port = target, port
        self.said = b""
        self.behaviour = REFUSE
        self._changed = threading.Condition()
        self.served = 0  # connections that came since `behave`
        self._stop_fds: tuple[socket.socket, socket.socket] | None = None  # closed: everybody ends
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.behave(REFUSE)

    def behave(self, behaviour: Behaviour) -> None:
        """Treat the connections from now on so, and drop those there are."""
        if self._stop_fds is not None:
            self._stop_fds[0].close()
            for thread in self._threads:
                thread.join(CEILING_S)
                assert not thread.is_alive(), f"the proxy hangs in {self.behaviour}"
            self._stop_fds[1].close()
        self._stop_fds, self._threads, self.served = None, [], 0
        self.behaviour = behaviour
        if behaviour.is_listening:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((HOST, self.port))
            listener.listen()
            self._stop_fds = socket.socketpair()
            self._run(self._accept, listener, self._stop_fds[1])

    def wait_connection(self) -> None:
        """Wait until somebody has come since `behave`."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.served, CEILING_S), f"nobody came to {self.behaviour}"

    # --- in threads ---

    def _run(self, what: object, *arguments: object) -> None:
        thread = threading.Thread(target=what, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket, stop: socket.socket) -> None:
        with listener:
            while stop not in select.select([listener, stop], [], [])[0]:
                client = listener.accept()[0]
                with self._changed:
                    self.served += 1
                    self._changed.notify_all()
                self._run(self._serve, client, stop)

    def _serve(self, client: socket.socket, stop: socket.socket) -> None:
        # A peer that goes away, or `behave`, may end it at any point.
        with client, contextlib.suppress(_Ended, OSError):
            try:
                if self.behaviour.asks_server:
                    with socket.create_connection((HOST, self.target), timeout=CEILING_S) as server:
                        _Connection(self, client, stop).pass_on(server)
                else:
                    _Connection(self, client, stop).speak()
            finally:
                if self.behaviour.is_reset:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def note(self, said: bytes) -> None:
        with self._changed:
            self.said += said


class _Connection:
    """One client, treated as the proxy was told when it came."""

    def __init__(self, proxy: Proxy, client: socket.socket, stop: socket.socket) -> None:
        self.proxy, self.client, self.stop, self.how = proxy, client, stop, proxy.behaviour

    def _wait(self, *sockets: socket.socket, timeout_s: float | None = None) -> list[socket.socket]:
        ready = select.select([self.stop, *sockets], [], [], timeout_s)[0]
        if self.stop in ready:
            raise _Ended
        return ready

    def _say(self, data: bytes) -> None:
        for at in range(0, len(data), self.how.piece_bytes):
            self.client.sendall(data[at : at + self.how.piece_bytes])
            if self.how.piece_bytes == 1:
                self._wait(timeout_s=0.001)  # or the kernel would put the pieces together again

    def _hear(self) -> bytes:
        data = self.client.recv(65_536)
        self.proxy.note(data)
        if not data:
            raise _Ended
        return data

    def pass_on(self, server: socket.socket) -> None:
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        left = self.how.limit_bytes
        sources = [self.client, server]
        while True:
            ready = self._wait(*sources)
            if self.client in ready:
                server.sendall(self._hear())
            if server in ready:
                data = server.recv(65_536)
                if not data and (left is None or self.how.ends):
                    raise _Ended
                if not data:
                    sources.remove(server)  # what is withheld stays so
                if self.how.delay_s:
                    self._wait(timeout_s=self.how.delay_s)
                self._say(data[:left])
                left = None if left is None else max(0, left - len(data))
                if left == 0 and self.how.ends:
                    raise _Ended

    def speak(self) -> None:
        self._say(self.how.greeting)
        if self.how.flood:
            self._flood()
        if self.how.ends and not self.how.answer:
            raise _Ended
        self._wait(self.client)
        self._hear()
        self._say(self.how.answer)
        if self.how.ends:
            raise _Ended
        while True:  # silent, until the client or the test has enough
            self._wait(self.client)
            self._hear()

    def _flood(self) -> None:
        self.client.setblocking(False)
        while True:
            if self.stop in select.select([self.stop], [self.client], [])[0]:
                raise _Ended
            with contextlib.suppress(BlockingIOError):
                self.client.send(self.how.flood)
