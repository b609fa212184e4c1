"""Blocking client of the supervisors that run in one directory, for the commands (docs/control-protocol.md)."""

from __future__ import annotations

import _thread
import contextlib
import math
import os
import select
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from procman.control.directory import inside, sockets
from procman.control.protocol import VERSION, Message, decode, encode
from procman.errors import ControlError, ProcmanError, UsageMistake, did_you_mean, quoted

GREETING_S = 2.0
LOOK_S = 1.0
READ_BYTES = 256 * 1024
MAX_REPLY_BYTES = 64 * 1024 * 1024  # of one line: `ps` tells 5,000 instances in 2 MB
MAX_ADDRESS_BYTES = 107  # of a socket's path: sun_path less the NUL at its end (unix(7))

_moving = _thread.allocate_lock()  # the working directory is that of all threads (chdir(2)), and the view has several


class NotInTime(ProcmanError):
    """What was asked for has not happened yet. It goes on."""


class Lost(ControlError):
    """The other side has closed the connection before its last word."""


class Nobody(ControlError):
    """No supervisor listens."""


class Silent(ControlError):
    """There are supervisors, but none answers."""


class Connection:
    """A socket that carries messages."""

    def __init__(self, path: str, timeout_s: float) -> None:
        """Connect. Raises OSError where nobody listens."""
        self._path = path
        self._received = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        if len(os.fsencode(self._path)) <= MAX_ADDRESS_BYTES:
            self._socket.connect(self._path)
            return
        directory_fd = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with _moving, inside(directory_fd):
                self._socket.connect(os.path.basename(self._path))
        finally:
            os.close(directory_fd)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, message: Message) -> None:
        try:
            self._socket.sendall(encode(message))
        except OSError:
            raise Lost(_gone(self._path)) from None

    def receive(self) -> list[Message]:
        """Return the messages that have come, waiting for some bytes. Raises ControlError."""
        try:
            chunk = self._socket.recv(READ_BYTES)
        except OSError:
            chunk = b""
        if not chunk:
            raise Lost(_gone(self._path))
        *lines, self._received = (self._received + chunk).split(b"\n")
        if len(self._received) > MAX_REPLY_BYTES:
            raise ControlError(f"{self._path}: an endless line; whoever listens there is no procman")
        return [decode(line) for line in lines]


class Peer:
    """A supervisor that has greeted us. It takes one request a connection; the first is open already."""

    def __init__(self, path: str, connection: Connection, greeting: Message) -> None:
        """Take in what it says of itself. Raises ControlError for another protocol than ours."""
        if greeting.get("protocol") != VERSION or type(greeting.get("pid")) is not int:
            theirs = quoted(str(greeting.get("procman", "something else")))
            raise ControlError(
                f"{path}: procman {theirs} speaks protocol {greeting.get('protocol')}, this one protocol {VERSION}",
                hint="use the procman that was started there",
            )
        self._path = path
        self._open: Connection | None = connection
        self.pid = int(greeting["pid"])
        self.types = [str(name) for name in greeting.get("types", ())]

    def ask(self, request: Message) -> Connection:
        """Send a request; return the connection that brings the replies. Raises ControlError."""
        connection, self._open = self._open, None
        try:
            connection = connection or Connection(self._path, GREETING_S)
        except OSError:
            raise Lost(_gone(self._path)) from None
        with contextlib.suppress(Lost):  # then its last words say more, and whoever waits for them hears of the end
            connection.send(request)
        return connection

    def close(self) -> None:
        if self._open is not None:
            self._open.close()


class Control:
    """The supervisors that run in one directory, each with process types of its own."""

    def __init__(self, directory: str, greeting_s: float = GREETING_S) -> None:
        """Find them. Raises ControlError where none runs, or none answers."""
        self._directory = directory
        self._tried: set[tuple[str, int, int]] = set()
        self.silent: dict[int, str] = {}
        """Pids of supervisors that are there and do not answer, each with what it says instead, or ""."""
        self.peers = self._greeted(self._connected(greeting_s), time.monotonic() + greeting_s)
        if not self.peers:
            raise self._nobody()

    @property
    def types(self) -> list[str]:
        """All that run here, in the order in which the supervisors came and tell them."""
        return [name for peer in self.peers for name in peer.types]

    @property
    def complaint(self) -> str:
        """What to tell of supervisors that do not answer; "" if all do."""
        lines = [said for said in self.silent.values() if said]
        if mute := [str(pid) for pid, said in self.silent.items() if not said]:
            do = "do" if mute[1:] else "does"
            lines.append(f"the procman with pid {' and '.join(mute)} {do} not answer — is it suspended (Ctrl-Z)?")
        return "\n".join(lines)

    def close(self) -> None:
        for peer in self.peers:
            peer.close()

    # --- who is there ---

    def newcomers(self) -> list[Peer]:
        """Return the supervisors that have come since the last look; what is no procman of ours is passed over."""
        try:
            found = self._greeted(self._connected(GREETING_S), time.monotonic() + GREETING_S)
        except ControlError:
            return []
        self.peers = [*found, *self.peers]  # one that has ended may have run the same types
        return found

    def _connected(self, timeout_s: float) -> dict[str, Connection]:
        found = {}
        for path in sockets(self._directory):
            if (identity := _identity(path)) in self._tried:
                continue
            self._tried.add(identity)
            try:
                found[path] = Connection(path, timeout_s)
            except (ConnectionRefusedError, ConnectionResetError, FileNotFoundError):
                continue  # it has ended; whoever starts next removes what it left
            except (BlockingIOError, TimeoutError):
                self.silent[_pid_in(path)] = ""  # too many wait for it already
            except OSError as error:
                raise ControlError(f"{path}: {os.strerror(error.errno or 0).lower()}") from None
        return found

    def _greeted(self, connections: Mapping[str, Connection], deadline: float) -> list[Peer]:
        waiting = {connection.fileno(): path for path, connection in connections.items()}
        peers = {}
        while waiting and (ready := _readable(waiting, deadline)):
            for fd in ready:
                path = waiting[fd]
                try:
                    messages = connections[path].receive()
                    if not messages:
                        continue
                    if "error" in messages[0]:  # it takes no more clients
                        self.silent[_pid_in(path)] = str(messages[0]["error"])
                        connections[path].close()
                    else:
                        peers[path] = Peer(path, connections[path], messages[0])
                except Lost:
                    connections[path].close()  # it is just ending
                del waiting[fd]
        for path in waiting.values():
            self.silent[_pid_in(path)] = ""
            connections[path].close()
        return [peers[path] for path in connections if path in peers]

    def _nobody(self) -> ControlError:
        if self.complaint:
            return Silent(self.complaint)
        if os.path.isdir(self._directory) and not os.access(self._directory, os.R_OK | os.X_OK):
            return ControlError(f"{self._directory}: permission denied", hint="it belongs to another user")
        root = os.path.dirname(self._directory)
        place = "here" if root == os.getcwd() else f"in {root}"
        return Nobody(
            f"no procman runs {place}", hint="start one with `procman start`; -f or -d names another directory"
        )

    # --- whom to ask ---

    def route(self, names: Iterable[str]) -> dict[Peer, list[str]]:
        """Return which of `names` to ask each supervisor for; without names all supervisors for []: all they have.

        Raises UsageMistake for a type that runs nowhere here, ControlError if somebody who is silent may run it.
        """
        routed, unknown = self.owners(names)
        if unknown:
            self.refuse(unknown, self.types)
        return routed or {peer: [] for peer in self.peers}

    def route_counts(
        self, counts: Mapping[str, int | str], timeout_s: float = GREETING_S
    ) -> dict[Peer, dict[str, int | str]]:
        """Return which counts to ask each supervisor for. Raises as `route`, with what the others would refuse.

        A single supervisor is asked for types that do not run yet, too: it knows the Procfile. Of several each might
        start such a type, so none is asked.
        """
        if len(self.peers) == 1 and not self.silent:
            return {self.peers[0]: dict(counts)}
        routed, unknown = self.owners(counts)
        chosen = {peer: {name: counts[name] for name in names} for peer, names in routed.items()}
        if unknown:
            requests = {peer: {"do": "scale", "counts": some} for peer, some in chosen.items()}
            more = [str(refusal["error"]) for refusal in self._refusals(requests, timeout_s)]
            if not self.silent:
                more.append("beside several procmans a type that none of them runs gets its own: `procman start TYPE`")
            self.refuse(unknown, self.types, more)
        return chosen

    def owners(self, names: Iterable[str]) -> tuple[dict[Peer, list[str]], list[str]]:
        """Return who runs which of `names`, and those whose type nobody runs."""
        routed: dict[Peer, list[str]] = {}
        unknown = []
        for name in dict.fromkeys(names):
            owner = self._owner(name)
            if owner is None:
                unknown.append(name)
            else:
                routed.setdefault(owner, []).append(name)
        return routed, unknown

    def _owner(self, name: str) -> Peer | None:
        stem, _, number = name.rpartition(".")
        process_type = stem if number.isdecimal() else name
        return next((peer for peer in self.peers if process_type in peer.types), None)

    def refuse(self, unknown: Sequence[str], known: Collection[str], more: Sequence[str] = ()) -> None:
        faults = []
        for name in unknown:
            hint = did_you_mean(name, known)
            faults.append(f"{quoted(name)} does not run here" + (f" — {hint}" if hint else ""))
        faults += more
        if self.complaint:
            raise ControlError("\n".join([*faults, self.complaint]))
        raise UsageMistake("\n".join(faults))

    # --- asking ---

    def converse(
        self,
        requests: Mapping[Peer, Message],
        timeout_s: float = math.inf,
        watched_fd: int = -1,
        newcomers: Callable[[], Mapping[Peer, Message]] | None = None,
    ) -> Iterator[tuple[Peer, Message]]:
        """Ask all at once and yield what comes, until each supervisor has said its last: done or error.

        One that is lost midway has an error, too. Every second `newcomers` tells of further ones, and what to ask them.
        Raises NotInTime; BrokenPipeError when whoever read `watched_fd` has left.
        """
        deadline = time.monotonic() + timeout_s
        look_at = time.monotonic() + LOOK_S if newcomers else math.inf
        waiting: dict[int, tuple[Peer, Connection]] = {}
        try:
            for peer, request in requests.items():
                connection = peer.ask(request)
                waiting[connection.fileno()] = peer, connection
            while waiting:
                ready = _readable(waiting, min(deadline, look_at), watched_fd)
                if newcomers and time.monotonic() >= look_at:
                    for peer, request in newcomers().items():
                        with contextlib.suppress(Lost):
                            connection = peer.ask(request)
                            waiting[connection.fileno()] = peer, connection
                    look_at = time.monotonic() + LOOK_S
                elif not ready:
                    raise NotInTime(f"not done within {timeout_s:g} s")
                for fd in ready:
                    peer, connection = waiting[fd]
                    messages = _received(connection)
                    if any(is_last(message) for message in messages):
                        del waiting[fd]
                        connection.close()
                    for message in messages:
                        if "procman" not in message:  # the greeting
                            yield peer, message
        finally:
            for _, connection in waiting.values():
                connection.close()

    def check(self, requests: Mapping[Peer, Message], timeout_s: float = GREETING_S) -> None:
        """Let none of several supervisors begin what another one would refuse. Raises ProcmanError with all refusals.

        This reserves nothing: two clients that ask for the last port at once may both be told that it is free, and
        then one of them is refused midway.
        """
        if len(requests) > 1 and (refusals := self._refusals(requests, timeout_s)):
            raise failure_of(refusals)

    def _refusals(self, requests: Mapping[Peer, Message], timeout_s: float) -> list[Message]:
        checks = {peer: {**request, "check": True} for peer, request in requests.items()}
        try:
            told = {peer: message for peer, message in self.converse(checks, timeout_s) if "error" in message}
        except NotInTime:
            raise NotInTime(f"nothing was done: no answer within {timeout_s:g} s whether it can be") from None
        return [told[peer] for peer in requests if peer in told]

    def ask(self, requests: Mapping[Peer, Message], timeout_s: float = GREETING_S) -> list[Message]:
        """Return the last reply of each, in the order asked. Raises ProcmanError with every error among them."""
        last = {peer: message for peer, message in self.converse(requests, timeout_s) if is_last(message)}
        errors = [message for message in last.values() if "error" in message]
        if errors:
            raise failure_of(errors)
        return [last[peer] for peer in requests]

    def instances(self, names: Collection[str] = (), timeout_s: float = GREETING_S) -> list[Message]:
        """Return the instances `names`, or all. Raises UsageMistake for what is not there."""
        routed = self.route(names)
        found = instances_in(self.ask({peer: {"do": "ps"} for peer in routed}, timeout_s))
        known = {str(instance["name"]) for instance in found} | set(self.types)
        if unknown := [name for name in names if name not in known]:
            self.refuse(unknown, sorted(known))
        return [i for i in found if not names or i["name"] in names or i["type"] in names]


def is_last(message: Message) -> bool:
    return "done" in message or "error" in message


def instances_in(replies: Iterable[Message]) -> list[Message]:
    return [instance for reply in replies for instance in reply.get("instances", ())]


def failure_of(errors: Sequence[Message]) -> ProcmanError:
    """Return one error for the error replies, with the exit code of the first."""
    failure = ProcmanError("\n".join(dict.fromkeys(str(message["error"]) for message in errors)))
    code = errors[0].get("code")
    failure.exit_code = code if type(code) is int and 0 < code < 256 else 1
    return failure


def _received(connection: Connection) -> list[Message]:
    try:
        return connection.receive()
    except ControlError as error:
        return [{"error": str(error), "code": error.exit_code, "is_lost": True}]


def _readable(fds: Iterable[int], deadline: float, watched_fd: int = -1) -> list[int]:
    """Return which of `fds` can be read, none when the time is over. Raises BrokenPipeError; see `converse`."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    if watched_fd >= 0:
        poll.register(watched_fd, 0)
    left_s = max(0.0, deadline - time.monotonic())
    ready = poll.poll(None if left_s == math.inf else min(left_s, 86_400.0) * 1000)
    if any(fd == watched_fd for fd, _ in ready):
        raise BrokenPipeError
    return [fd for fd, _ in ready]


def _identity(path: str) -> tuple[str, int, int]:
    """Return what tells a socket from another one of the same name."""
    try:
        found = os.stat(path)
    except OSError:
        return path, 0, 0
    return path, found.st_ino, found.st_mtime_ns


def _gone(path: str) -> str:
    return f"the procman with pid {_pid_in(path)} has gone away without an answer"


def _pid_in(path: str) -> int:
    stem = os.path.basename(path).partition(".")[0]
    return int(stem) if stem.isdecimal() else 0
