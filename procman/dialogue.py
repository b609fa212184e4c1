"""One conversation with a server, non-blocking, on the loop: find its addresses, connect, TLS, speak, judge, leave."""

from __future__ import annotations

import _socket  # the part of socket that needs no other module
import errno
import os
from collections.abc import Callable, Sequence
from functools import partial

from procman.loop import Loop
from procman.protocols import Talk, Verdict
from procman.records import NamedTuple
from procman.resolver import RESOLVER, Lookup, unresolved
from procman.tls import Tls

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself would be an import on the way to the first child
    from typing import Any

MAX_ANSWER = 64 * 1024  # of a server; no judge needs more
CHUNK = 16 * 1024

# The more a reason tells, the higher: it is the one of several addresses that is told.
_NO_WAY, _REFUSED, _SILENT, _SPOKE = range(4)


class _Target(NamedTuple):
    """Where to connect: an address, or a name that must be resolved."""

    host: str  # as TLS is told
    family: int = 0  # 0: a name
    address: Any = None  # as connect() takes it; of a name the port


class Dialogue:
    """One conversation with whichever host gives a good answer first. It ends with one verdict, or is closed.

    A path is that of a Unix socket, "@" in front of it an abstract one; it is tried before the hosts.
    """

    def __init__(
        self,
        loop: Loop,
        hosts: Sequence[tuple[str, int]],
        path: str,
        talk: Talk,
        timeout_s: float,
        on_verdict: Callable[[Verdict], None],
        resolver: Sequence[str] = RESOLVER,
    ) -> None:
        self._loop = loop
        self._talk = talk
        self._timeout_s = timeout_s
        self._deadline = loop.now() + timeout_s
        self._on_verdict: Callable[[Verdict], None] | None = on_verdict
        self._resolver = resolver
        self._targets = [_Target("", _socket.AF_UNIX, path)] if path else []
        for host, port in hosts:
            self._targets += _targets(host, port)
        self._peer: _Peer | Lookup | None = None
        self._rank = -1
        self._reason = "there is no address to ask"
        # The verdict may come at once, but never before the caller has this object.
        self._timer = loop.call_later(0.0, self._next)

    def close(self) -> None:
        """Say and hear no more; nothing is left open, and the helper child is killed."""
        self._on_verdict = None
        self._leave()

    def _leave(self) -> None:
        self._timer.cancel()
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.close()

    def _next(self) -> None:
        """Go on with the next address, for its share of the time."""
        self._leave()
        left_s = self._deadline - self._loop.now()
        if not self._targets or (left_s <= 0 and self._rank >= 0):
            self._finish(Verdict(False, self._reason))
            return
        share_s = max(0.0, left_s) / len(self._targets)
        target = self._targets.pop(0)
        self._timer = self._loop.call_later(share_s, self._on_timeout)
        try:
            if target.family:
                self._peer = _Peer(self._loop, target, self._talk, self._on_connected, self._on_answer)
            else:
                found = partial(self._on_found, target)
                self._peer = Lookup(self._loop, target.host, share_s + 1.0, found, self._on_unresolved, self._resolver)
        except OSError as error:
            # Through the loop, or a thousand refusals at once would be as deep a stack.
            failure = Verdict(False, _why_not_tried(target, error))
            rank = _rank_of(error.errno or 0)
            self._timer.cancel()
            self._timer = self._loop.call_later(0.0, lambda: self._on_answer(failure, rank))

    def _on_found(self, target: _Target, addresses: list[str]) -> None:
        self._targets[:0] = [found for address in addresses for found in _numeric(target.host, address, target.address)]
        self._next()

    def _on_unresolved(self, reason: str, is_told: bool) -> None:
        self._on_answer(Verdict(False, reason), _SILENT if is_told else _NO_WAY)

    def _on_answer(self, verdict: Verdict, rank: int) -> None:
        if verdict.is_ok:
            self._finish(verdict)
            return
        self._note(verdict.reason, rank)
        self._next()

    def _on_connected(self) -> None:
        """What listens may take all the time that is left; only the way to it has a share."""
        self._timer.cancel()
        self._timer = self._loop.call_later(max(0.0, self._deadline - self._loop.now()), self._on_timeout)

    def _on_timeout(self) -> None:
        if self._peer is not None:
            self._note(f"{self._peer.what_is_missing} within {self._timeout_s:g} s", _SILENT)
        self._next()

    def _note(self, reason: str, rank: int) -> None:
        if rank >= self._rank:
            self._rank, self._reason = rank, reason

    def _finish(self, verdict: Verdict) -> None:
        self._leave()
        on_verdict, self._on_verdict = self._on_verdict, None
        if on_verdict is not None:
            on_verdict(verdict)


def _targets(host: str, port: int) -> list[_Target]:
    if host in ("", "localhost"):
        return [_Target(host, _socket.AF_INET, ("127.0.0.1", port)), _Target(host, _socket.AF_INET6, ("::1", port))]
    try:
        # With AI_NUMERICHOST nothing is looked up (getaddrinfo(3)).
        found = _socket.getaddrinfo(host.encode("ascii"), port, 0, _socket.SOCK_STREAM, 0, _socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return [_Target(host, 0, port)]
    return [_Target(host, int(family), address) for family, _, _, _, address in found[:1]]


def _numeric(host: str, address: str, port: int) -> list[_Target]:
    return [target._replace(host=host) for target in _targets(address, port) if target.family]


def _why_not_tried(target: _Target, error: OSError) -> str:
    if not target.family:
        return unresolved(os.strerror(error.errno or 0))
    return _reason_of(error.errno) if error.errno else "the path of its socket is too long"


_REASONS = {
    errno.ENOENT: "no such socket",
    errno.EAGAIN: "takes no more connections",
    errno.ECONNRESET: "closed the connection without an answer",
    errno.ETIMEDOUT: "no connection: it does not answer",
}


def _reason_of(number: int) -> str:
    return _REASONS.get(number) or os.strerror(number).lower()


def _rank_of(number: int) -> int:
    if number == errno.ECONNRESET:
        return _SPOKE
    return _REFUSED if number in (errno.ECONNREFUSED, errno.ENOENT, errno.EACCES, errno.EAGAIN) else _NO_WAY


# --- one address -----------------------------------------------------------------------------------------------------


class _Peer:
    """One connection, from the first packet to the answer. Raises OSError where not even a try can be made."""

    def __init__(
        self,
        loop: Loop,
        target: _Target,
        talk: Talk,
        on_connected: Callable[[], None],
        on_answer: Callable[[Verdict, int], None],
    ) -> None:
        self.what_is_missing = "no connection"
        self._tell_connected = on_connected
        self._loop = loop
        self._host = target.host
        self._talk = talk
        self._on_answer = on_answer
        self._unsent = b""
        self._received = b""
        self._is_upgrading = False
        self._tls: Tls | None = None
        self._socket = _socket.socket(target.family, _socket.SOCK_STREAM)  # close-on-exec (PEP 446)
        try:
            self._socket.setblocking(False)
            address = target.address
            if target.family == _socket.AF_UNIX and address.startswith("@"):
                address = f"\0{address[1:]}"
            failure = self._socket.connect_ex(address)
            if failure not in (0, errno.EINPROGRESS):
                raise OSError(failure, "")
            loop.add_writer(self._socket.fileno(), self._on_connected)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        fd = self._socket.fileno()
        if fd >= 0:
            self._loop.remove(fd)
            self._socket.close()

    def _answer(self, verdict: Verdict, rank: int = _SPOKE) -> None:
        if self._talk.goodbye and rank == _SPOKE and self._received and not self._is_upgrading:
            self._send(self._talk.goodbye)  # as much as there is room for: nobody waits for the rest
        self.close()
        self._on_answer(verdict, rank)

    def _on_connected(self) -> None:
        self._loop.remove_writer(self._socket.fileno())
        failure = self._socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if not failure and self._is_own_echo():
            failure = errno.ECONNREFUSED
        if failure:
            self._answer(Verdict(False, _reason_of(failure)), _rank_of(failure))
            return
        self.what_is_missing = "no answer"
        self._loop.add_reader(self._socket.fileno(), self._on_readable)
        self._tell_connected()
        if self._talk.tls == "first":
            self._begin_tls()
        elif self._talk.tls == "upgrade":
            self._is_upgrading = True
            self._send(self._talk.upgrade)
        else:
            self._begin_talk()

    def _is_own_echo(self) -> bool:
        """Tell whether we are connected to ourselves: TCP does that where the kernel chose the very port we called."""
        if self._socket.family == _socket.AF_UNIX:
            return False
        try:
            return bool(self._socket.getsockname() == self._socket.getpeername())
        except OSError:  # gone again
            return False

    def _begin_talk(self) -> None:
        self._is_upgrading = False
        self._received = b""
        self._send(self._talk.hello)
        self._judge(is_closed=False)

    def _begin_tls(self) -> None:
        self.what_is_missing = "no TLS handshake"
        self._tls = Tls(self._host, self._talk.alpn)
        self._hand_shake(b"", is_closed=False)

    def _send(self, data: bytes) -> None:
        self._unsent += self._tls.encrypted(data) if self._tls and data else data
        self._flush()

    def _flush(self) -> None:
        fd = self._socket.fileno()
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent, _NO_SIGNAL) :]
        except BlockingIOError:
            self._loop.add_writer(fd, self._flush)
            return
        except OSError:  # it has closed, maybe behind a last word: that is what we read next
            self._unsent = b""
        self._loop.remove_writer(fd)

    def _on_readable(self) -> None:
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:  # reset
            data = b""
        if self._tls is None:
            self._received += data
            self._judge(is_closed=not data)
        elif not self._tls.is_ready:
            self._hand_shake(data, is_closed=not data)
        else:
            self._read_tls(data, is_closed=not data)

    def _hand_shake(self, data: bytes, is_closed: bool) -> None:
        assert self._tls is not None
        problem = self._tls.hand_shake(data)
        self._unsent += self._tls.outgoing()
        self._flush()
        if problem or (is_closed and not self._tls.is_ready):
            self._answer(Verdict(False, problem or "closed the connection in the TLS handshake"))
        elif self._tls.is_ready:
            self.what_is_missing = "no answer"
            self._begin_talk()
            if self._socket.fileno() >= 0:
                self._read_tls(b"", is_closed=False)  # what came with the end of the handshake

    def _read_tls(self, data: bytes, is_closed: bool) -> None:
        assert self._tls is not None
        plain, is_over, wants_certificate = self._tls.decrypted(data, MAX_ANSWER + 1 - len(self._received))
        self._received += plain
        if wants_certificate:
            self._answer(Verdict(True))
        else:
            self._judge(is_closed or is_over)

    def _judge(self, is_closed: bool) -> None:
        if self._is_upgrading:
            self._judge_upgrade(is_closed)
            return
        verdict = self._talk.judge(self._received, is_closed)
        if verdict is None and is_closed:
            verdict = Verdict(False, "closed the connection")
        if verdict is None and len(self._received) > MAX_ANSWER:
            verdict = Verdict(False, "its answer has no end")
        if verdict is not None:
            self._answer(verdict)

    def _judge_upgrade(self, is_closed: bool) -> None:
        assert self._talk.upgrade_judge is not None
        found = self._talk.upgrade_judge(self._received)
        if found is True:
            self._is_upgrading = False
            self._begin_tls()
        elif found is False:
            self._begin_talk()
        elif found is not None:
            self._answer(found)
        elif is_closed or len(self._received) > MAX_ANSWER:
            reason = "closed the connection without an answer" if is_closed else "its answer has no end"
            self._answer(Verdict(False, reason))


_NO_SIGNAL = getattr(_socket, "MSG_NOSIGNAL", 0)  # Python ignores SIGPIPE; this holds whatever it is set to
