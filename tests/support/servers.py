"""Small servers of a test: each connection is handled by a function of the test, in a thread of its own."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Sequence

from tests.support.app import CEILING_S

Handler = Callable[["Peer"], None]


class Peer:
    """The server's side of one connection."""

    def __init__(self, connection: socket.socket, server: Server) -> None:
        self.socket = connection
        self.server = server

    def hears(self, count: int) -> bytes:
        """Read `count` bytes, or less if the client closes before."""
        heard = b""
        with contextlib.suppress(OSError):
            while len(heard) < count and (data := self.socket.recv(min(65_536, count - len(heard)))):
                heard += data
                self.server.note(data)
        return heard

    def hears_all(self) -> bytes:
        """Read until the client closes."""
        return self.hears(1 << 30)

    def says(self, data: bytes, *, in_pieces: bool = False) -> None:
        """Send `data`, in pieces a byte at a time; a client that has gone is no mistake of ours."""
        with contextlib.suppress(OSError):
            for piece in ([data[at : at + 1] for at in range(len(data))] if in_pieces else [data]):
                self.socket.sendall(piece)

    def resets(self) -> None:
        """Close so that the client is told: reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def shakes_hands(self, context: ssl.SSLContext) -> bool:
        """Go on with TLS; False if the client does not."""
        try:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        except OSError:
            return False
        return True


class Server:
    """Listens on a free port of all `hosts`, or at `path`. `heard` is all that clients said."""

    def __init__(
        self,
        handle: Handler,
        hosts: Sequence[str] = ("127.0.0.1",),
        path: str = "",
        backlog: int = 16,
    ) -> None:
        self._handle = handle
        self.heard = b""
        self.count = 0  # of connections
        self._seen = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._peers: list[Peer] = []
        self._is_closed = False
        self.port = 0
        self._listeners = [self._listen(host, path, backlog) for host in hosts]
        for listener in self._listeners:
            self._run(self._accept, listener)

    def _listen(self, host: str, path: str, backlog: int) -> socket.socket:
        family = socket.AF_UNIX if path else socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if path:
            listener.bind(path)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, self.port))
            self.port = listener.getsockname()[1]
        listener.listen(backlog)
        return listener

    def _run(self, function: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._seen:
                if self._is_closed:
                    connection.close()
                    return
                peer = Peer(connection, self)
                self._peers.append(peer)
                self.count += 1
                self._seen.notify_all()
            self._run(self._talk, peer)

    def _talk(self, peer: Peer) -> None:
        try:
            self._handle(peer)
        finally:
            with contextlib.suppress(OSError):
                peer.socket.close()

    def note(self, data: bytes) -> None:
        with self._seen:
            self.heard += data
            self._seen.notify_all()

    def wait_until(self, is_true: Callable[[], bool], what: str) -> None:
        """Wait for something that clients do."""
        with self._seen:
            assert self._seen.wait_for(is_true, CEILING_S), f"no {what}; heard {self.heard!r}"

    def close(self) -> None:
        """Close everything and wait for all threads."""
        with self._seen:
            self._is_closed = True
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
            listener.close()
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(CEILING_S)
            assert not thread.is_alive(), "a handler does not end"
