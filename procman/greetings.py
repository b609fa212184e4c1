"""What is said to a backing service, and whether its answer means that it is ready: bytes only, no sockets.

No user name, password or other part of a URL is ever said, but the host to an HTTP server. A judge gets all bytes
received so far and whether the peer has closed; it returns None as long as it needs more. What it says of a service is
for the user: of the peer's own words only what is printable, and not much.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from procman.records import NamedTuple


class Verdict(NamedTuple):
    """Whether a service is ready, and if not, why: "connection refused"."""

    is_ok: bool
    reason: str = ""


class Talk(NamedTuple):
    """One conversation, from the side of the client."""

    hello: bytes  # sent when connected, or after TLS; b"": the server speaks first, or connecting is enough
    judge: Callable[[bytes, bool], Verdict | None]  # asked once before anything came
    tls: str = ""  # "", "first" (at once) or "upgrade" (when `upgrade_judge` says so)
    upgrade: bytes = b""
    upgrade_judge: Callable[[bytes], bool | Verdict | None] | None = None  # True: TLS now; False: go on without
    alpn: tuple[str, ...] = ()
    goodbye: bytes = b""  # sent after the verdict, if there is room for it


POSTGRESQL = "PostgreSQL"
MYSQL = "MySQL"
REDIS = "Redis"
MEMCACHED = "Memcached"
AMQP = "AMQP"
BEANSTALKD = "Beanstalkd"
SMTP = "SMTP"
HTTP = "HTTP"
MONGODB = "MongoDB"

READY = Verdict(True)

MAX_LINE = 1024
MAX_TOLD = 100  # characters of the peer's own words

_Reading = Verdict | bool | None
"""True: ready; a verdict: not ready; False: another protocol; None: more is needed."""


def _judge(kind: str) -> Callable[[Callable[[bytes], _Reading]], Callable[[bytes, bool], Verdict | None]]:
    """Make a judge of a function that reads an answer which is not empty."""

    def decorate(read: Callable[[bytes], _Reading]) -> Callable[[bytes, bool], Verdict | None]:
        def judge(received: bytes, is_closed: bool) -> Verdict | None:
            reading = read(received) if received else None
            if reading is True:
                return READY
            if reading is False:
                return Verdict(False, f"speaks no {kind}{_but_another(kind, received)}")
            if reading is None and is_closed:
                when = "in the middle of its answer" if received else "without an answer"
                return Verdict(False, f"closed the connection {when}")
            return reading

        judge.__doc__ = f"Judge the answer of {kind}."
        return judge

    return decorate


def _but_another(kind: str, received: bytes) -> str:
    if received[:2] in (b"\x15\x03", b"\x16\x03"):  # an alert or a handshake
        return ", but TLS"
    names = {b"HTTP/": HTTP, b"SSH-": "SSH", b"220": SMTP, b"+PONG": REDIS, b"-ERR": REDIS, b"AMQP": AMQP}
    found = next((name for start, name in names.items() if received.startswith(start)), kind)
    return "" if found == kind else f", but {found}"


def told(data: bytes) -> str:
    """Return what a peer said as it may be shown: one line, printable, not long."""
    text = "".join(char if char.isprintable() else " " for char in data[: 8 * MAX_TOLD].decode("utf-8", "replace"))
    text = " ".join(text.split())
    return text if len(text) <= MAX_TOLD else f"{text[: MAX_TOLD - 3]}..."


def _line(received: bytes) -> bytes | None:
    """Return the first line without its end; None as long as it may still come."""
    line, end, _ = received.partition(b"\n")
    return line.removesuffix(b"\r") if end else None


def _may_become(received: bytes, *words: bytes) -> bool:
    """Tell whether `received` starts with one of `words`, or could when more has come."""
    return any(received[: len(word)] == word[: len(received)] for word in words)


# --- the judges ------------------------------------------------------------------------------------------------------


def judge_connected(received: bytes, is_closed: bool) -> Verdict | None:
    """Be content with a connection."""
    return READY


# 57P01: stopping; 57P02: it has crashed; 57P03: starting up, or a standby that takes nobody yet.
_POSTGRES_NOT_READY = (b"57P01", b"57P02", b"57P03")


@_judge(POSTGRESQL)
def judge_postgres(received: bytes) -> _Reading:
    """Any demand for authentication, and any error but 57P01 to 57P03, mean that it is up: so says pg_isready.

    So 53300, too many connections, is ready: that server has long started, and waiting would not make room.
    """
    kind, length = received[:1], int.from_bytes(received[1:5], "big")
    if kind not in (b"R", b"E"):
        return False
    if len(received) < 5:
        return None
    if kind == b"R":
        return (True if len(received) >= 9 else None) if 8 <= length <= 2000 else False
    if not 8 <= length <= 30_000:
        return _postgres_without_length(received[1:])
    if len(received) <= length:
        return None
    fields = {field[:1]: field[1:] for field in received[5 : 1 + length].split(b"\0")}
    if not re.fullmatch(rb"[0-9A-Z]{5}", fields.get(b"C", b"")):
        return False
    if fields[b"C"] not in _POSTGRES_NOT_READY:
        return True
    return Verdict(False, told(fields.get(b"M", b"")) or "is not ready")


def _postgres_without_length(text: bytes) -> _Reading:
    """Read an error in the old form, which the server uses still when it cannot fork."""
    if b"\r" in text or len(text) > MAX_LINE:
        return False
    text, end, _ = text.partition(b"\0")
    return Verdict(False, told(text) or "is not ready") if end else None


def judge_postgres_tls(received: bytes) -> bool | Verdict | None:
    """Judge the answer to SSLRequest: S or N, and nothing behind it before the handshake."""
    if not received or received == b"S":
        return True if received else None
    if received == b"N":
        return Verdict(False, "offers no TLS, which its URL asks for")
    verdict = judge_postgres(received, False)
    if verdict is None or not verdict.is_ok:
        return verdict
    return Verdict(False, "refuses TLS, which its URL asks for")


_MYSQL_TOO_MANY_CONNECTIONS = 1040


@_judge(MYSQL)
def judge_mysql(received: bytes) -> _Reading:
    """The server greets first, and only when it takes logins. An error instead is none, unless it is merely full."""
    size = int.from_bytes(received[:3], "little")
    if len(received) < 5:
        return None if len(received) < 4 or (received[3] == 0 and 0 < size <= 4096) else False
    if received[3] != 0 or not 3 <= size <= 4096 or received[4] not in (10, 255):
        return False
    packet = received[4 : 4 + size]
    if len(packet) < size:
        return None
    if packet[0] == 10:
        version, end, _ = packet[1:].partition(b"\0")
        return bool(version and end)
    code = int.from_bytes(packet[1:3], "little")
    if code == _MYSQL_TOO_MANY_CONNECTIONS:
        return True
    return Verdict(False, told(re.sub(rb"^#[0-9A-Z]{5}", b"", packet[3:])) or f"error {code}")


_REDIS_NOT_READY = (b"LOADING", b"MASTERDOWN", b"BUSY")


@_judge(REDIS)
def judge_redis(received: bytes) -> _Reading:
    """Any error but three comes from a server that is up: -NOAUTH, -NOPERM, -DENIED, -ERR max number of clients."""
    if not _may_become(received, b"+PONG\r", b"+PONG\n", b"-"):
        return False
    line = _line(received)
    if line is None:
        return None if len(received) <= MAX_LINE else False
    if line == b"+PONG":
        return True
    word = re.match(rb"-([A-Z]+)(?: |$)", line)
    if word is None:
        return False
    return Verdict(False, told(line[1:])) if word[1] in _REDIS_NOT_READY else True


@_judge(MEMCACHED)
def judge_memcached(received: bytes) -> _Reading:
    """Judge the answer to `version` in words, or to the same in bytes."""
    if received[:1] == b"\x81":
        return None if len(received) < 24 else received[1] == 0x0B
    if not _may_become(received, b"VERSION ", b"CLIENT_ERROR", b"SERVER_ERROR ", b"ERROR Too many open connections"):
        return False
    line = _line(received)
    if line is None:
        return None if len(received) <= MAX_LINE else False
    return Verdict(False, told(line)) if line.startswith(b"SERVER_ERROR") else True


@_judge(BEANSTALKD)
def judge_beanstalkd(received: bytes) -> _Reading:
    """Judge the answer to `list-tube-used`."""
    if not _may_become(received, b"USING ", b"OUT_OF_MEMORY", b"INTERNAL_ERROR", b"DRAINING"):
        return False
    line = _line(received)
    if line is None:
        return None if len(received) <= MAX_LINE else False
    return True if line.startswith(b"USING ") else Verdict(False, told(line))


@_judge(SMTP)
def judge_smtp(received: bytes) -> _Reading:
    """The server greets: 220 if it takes mail, 4xx or 5xx if not."""
    if not re.fullmatch(rb"[0-9]{1,3}|[0-9]{3}[ \r\n-].*", received, re.DOTALL):
        return False
    line = _line(received)
    if line is None:
        return None if len(received) <= MAX_LINE else False
    if line[:3] == b"220":
        return True
    return Verdict(False, told(line)) if line[:1] in (b"4", b"5") and len(line) >= 3 else False


@_judge(HTTP)
def judge_http(received: bytes) -> _Reading:
    """Any status below 500 is an answer; so is 501, of a server that knows no HEAD."""
    if not _may_become(received, b"HTTP/1.0 ", b"HTTP/1.1 "):
        return False
    if len(received) < 13:
        return None if re.fullmatch(rb"[0-9]{0,3}", received[9:]) else False
    status = re.match(rb"HTTP/1\.[01] ([1-9][0-9]{2})[ \r\n]", received)
    if status is None:
        return False
    if status[1] >= b"500" and status[1] != b"501":
        return Verdict(False, f"answers {status[1].decode()}")
    return True if re.search(rb"\n\r?\n", received) else None  # the answer to HEAD ends with its header


_AMQP_START = b"\0\x0a\0\x0a"  # class 10, method 10


@_judge(AMQP)
def judge_amqp(received: bytes) -> _Reading:
    """A frame with Connection.Start, or the header of the version that the server would speak."""
    if not _may_become(received, b"AMQP", b"\x01\0\0"):
        return False
    if received[:1] == b"A":
        return True if len(received) >= 8 else None
    if len(received) < 11:
        return None
    return 4 <= int.from_bytes(received[3:7], "big") <= 131_072 and received[7:11] == _AMQP_START


_MONGO_REQUEST = 0x70726F63  # any number: the answer repeats it
_OP_MSG = 2013


@_judge(MONGODB)
def judge_mongodb(received: bytes) -> _Reading:
    """Whatever it answers to `hello` as a whole message: it reads commands."""
    length, answers, operation = (int.from_bytes(received[at : at + 4], "little") for at in (0, 8, 12))
    if len(received) >= 4 and not 21 <= length <= 65_536:
        return False
    if len(received) < 16:
        return None
    if answers != _MONGO_REQUEST or operation != _OP_MSG:
        return False
    return True if len(received) >= length else None


# --- what is said ----------------------------------------------------------------------------------------------------


def _postgres_startup() -> bytes:
    """A start of protocol 3.0 as a user that need not exist: whatever the server says to that, it is up."""
    words = ("user", "procman", "database", "postgres", "application_name", "procman", "")
    body = (3 << 16).to_bytes(4, "big") + b"".join(word.encode() + b"\0" for word in words)
    return (len(body) + 4).to_bytes(4, "big") + body


def _mongo_hello() -> bytes:
    """The document {hello: 1, $db: "admin"} in an OP_MSG."""
    elements = b"\x10hello\0\x01\0\0\0" + b"\x02$db\0\x06\0\0\0admin\0"
    body = b"\0\0\0\0\0" + (len(elements) + 5).to_bytes(4, "little") + elements + b"\0"
    head = (16 + len(body), _MONGO_REQUEST, 0, _OP_MSG)
    return b"".join(number.to_bytes(4, "little") for number in head) + body


POSTGRES_SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")

MEMCACHED_BINARY_VERSION = b"\x80\x0b" + bytes(22)
MEMCACHED_BINARY_QUIT = b"\x80\x07" + bytes(22)

# PostgreSQL gets no Terminate: it logs that as an error where it waits for a password, but not a mere end of the
# connection. MySQL knows no goodbye before a login.
TALKS = {
    POSTGRESQL: Talk(_postgres_startup(), judge_postgres),
    MYSQL: Talk(b"", judge_mysql),
    REDIS: Talk(b"*1\r\n$4\r\nPING\r\n", judge_redis),
    MEMCACHED: Talk(b"version\r\n", judge_memcached, goodbye=b"quit\r\n"),
    AMQP: Talk(b"AMQP\0\0\x09\x01", judge_amqp),
    BEANSTALKD: Talk(b"list-tube-used\r\n", judge_beanstalkd, goodbye=b"quit\r\n"),
    SMTP: Talk(b"", judge_smtp, goodbye=b"QUIT\r\n"),
    MONGODB: Talk(_mongo_hello(), judge_mongodb),
}


def http_talk(host: str) -> Talk:
    """Ask for "/" and not for the path of the URL, which may hold a secret. `host` is what Host: says."""
    lines = ("HEAD / HTTP/1.1", f"Host: {host}", "User-Agent: procman", "Accept: */*", "Connection: close", "", "")
    return Talk("\r\n".join(lines).encode("ascii"), judge_http)
