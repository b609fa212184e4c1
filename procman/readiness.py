"""When an instance counts as ready, and as still alive: descriptions of probes, and the judging of their answers.

Nothing here opens, reads or waits: `probes.py` does. An answer is a text: "" is yes, anything else says why not.
"""

from __future__ import annotations

import re

from procman.errors import SourceRef
from procman.records import NamedTuple

PORT = "port"
HTTP = "http"
LOG = "log"
COMMAND = "command"
NOTIFY = "notify"
COMPLETED = "completed"

FIRST_PAUSE_S = 0.05
PAUSE_GROWTH = 1.5  # what has become ready is seen after about half of the time it took, and within a second
MAX_PAUSE_S = 1.0
MIN_PAUSE_S = 0.01  # also if `every` says 0: nobody gets a busy loop
LIVENESS_PAUSE_S = 10.0

MAX_REASON_CHARS = 200


class Probe(NamedTuple):
    """How it is known that an instance is ready, or alive. Times in seconds."""

    kind: str  # one of the constants above
    source: SourceRef  # procman.toml:9
    port: int | None = None  # PORT, HTTP: None means the instance's own
    path: str = "/"  # HTTP
    statuses: tuple[int, ...] = ()  # HTTP; (): any from 200 to 399
    pattern: str = ""  # LOG: a regular expression, searched in each line
    command: str = ""  # COMMAND: for the shell, in the environment and directory of the instance; 0 means ready
    within_s: float = 30.0  # readiness: from the spawn to ready, else it has failed; inf: for ever
    every_s: float | None = None  # pause between attempts; None: 0.05 s growing to 1 s, or 10 s for liveness
    timeout_s: float = 5.0  # of one attempt
    failures: int = 3  # liveness: so many in a row make it unhealthy

    @property
    def is_of_own_port(self) -> bool:
        """Whether it shows that the instance serves the port it was given."""
        return self.kind in (PORT, HTTP) and self.port is None

    @property
    def is_of_web(self) -> bool:
        """Whether it shows that the instance speaks HTTP on the port it was given."""
        return self.kind == HTTP and self.port is None

    @property
    def is_told(self) -> bool:
        """Whether the instance itself says so, on a socket of its own."""
        return self.kind == NOTIFY

    @property
    def is_by_end(self) -> bool:
        """Whether it is ready when it has ended well."""
        return self.kind == COMPLETED

    @property
    def is_asked(self) -> bool:
        """Whether something has to be done to learn it."""
        return self.kind not in (NOTIFY, COMPLETED)

# --- attempts --------------------------------------------------------------------------------------------------------


def ready_pause_s(probe: Probe, attempts: int) -> float:
    """Return the seconds to wait after `attempts` attempts to become ready; before the first one it is short."""
    grown_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * PAUSE_GROWTH ** min(max(attempts - 1, 0), 32))
    if probe.every_s is None:
        return grown_s
    return max(MIN_PAUSE_S, probe.every_s if attempts else min(FIRST_PAUSE_S, probe.every_s))


def liveness_pause_s(probe: Probe) -> float:
    """Return the seconds before each attempt, also before the first: it has only just become ready."""
    return LIVENESS_PAUSE_S if probe.every_s is None else max(MIN_PAUSE_S, probe.every_s)


def failures_after(failures: int, answer: str) -> int:
    """Return how many attempts in a row have failed, with `answer` the latest and `failures` before it."""
    return failures + 1 if answer else 0


def is_unhealthy(probe: Probe, failures: int) -> bool:
    return failures >= max(1, probe.failures)


def for_people(text: str) -> str:
    """Return what a program said, fit for one line of a message: no control characters, and not endless."""
    text = "".join(char if char.isprintable() else " " for char in _ESCAPE.sub("", text)).strip()
    return text if len(text) <= MAX_REASON_CHARS else text[: MAX_REASON_CHARS - 3] + "..."


def last_line(output: bytes) -> str:
    """Return the last line of `output` that says anything, for people."""
    lines = (for_people(line) for line in reversed(output.decode("utf-8", "replace").splitlines()))
    return next((line for line in lines if line), "")


# --- HTTP ------------------------------------------------------------------------------------------------------------

MAX_ANSWER_BYTES = 65_536
NO_HTTP = "does not speak HTTP"

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/[0-9](?:\.[0-9])? ([1-9][0-9][0-9])(?:[ \r\n])")
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*(?:[\r\n]|\Z)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\ntransfer-encoding:[^\r\n]*chunked", re.IGNORECASE)
_LAST_CHUNK = re.compile(rb"(?:\A|\r\n)0+(?:;[^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*\r\n\Z")


def http_request(path: str, port: int) -> bytes:
    """Return a request for `path`. What cannot stand in a request line is percent-encoded (RFC 3986, 2.1)."""
    raw = (path if path.startswith("/") else f"/{path}").encode("utf-8", "surrogateescape")
    target = "".join(chr(byte) if 0x21 <= byte <= 0x7E else f"%{byte:02X}" for byte in raw)
    lines = (
        f"GET {target} HTTP/1.1",
        f"Host: localhost:{port}",
        "User-Agent: procman",
        "Accept: */*",
        "Connection: close",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


def judge_http(data: bytes, is_closed: bool, statuses: tuple[int, ...]) -> str | None:
    """Return None while an answer is not complete, "" when its status is one of those wanted, else why not.

    `data` is all that came, `is_closed` whether that is all. The whole answer is waited for, as curl does: a server
    whose reader leaves in the middle of it complains in its log. One that is longer than MAX_ANSWER_BYTES is judged
    by its status. Interim answers (100 to 199, RFC 9110, 15.2) are passed over.
    """
    at = 0
    while True:
        head_end = _HEAD_END.search(data, at)
        if head_end is None:
            if not b"HTTP/".startswith(data[at : at + 5]) or len(data) > MAX_ANSWER_BYTES:
                return NO_HTTP
            return "closed the connection before it had answered" if is_closed else None
        status_line = _STATUS_LINE.match(data, at)
        if status_line is None:
            return NO_HTTP
        status = int(status_line[1])
        if status >= 200:
            break
        at = head_end.end()
    is_whole = _is_whole(status, data[at : head_end.start()], data[head_end.end() :])
    if not is_whole and len(data) <= MAX_ANSWER_BYTES:
        if not is_closed:
            return None
        if is_whole is not None:
            return "closed the connection in the middle of its answer"
    is_wanted = status in statuses if statuses else 200 <= status <= 399
    return "" if is_wanted else f"answered {status}"


def _is_whole(status: int, head: bytes, body: bytes) -> bool | None:
    """Tell whether the body is complete (RFC 9112, 6.3); None when only the end of the connection tells that."""
    if status in (204, 304):
        return True
    if _CHUNKED.search(head):
        return _LAST_CHUNK.search(body) is not None
    length = _LENGTH.search(head)
    return None if length is None else len(body) >= int(length[1])


# --- a line of the log -----------------------------------------------------------------------------------------------

LINE_BYTES = 16_384
OVERLAP_BYTES = 4_096

_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # ECMA-48, 5.4: a control sequence, such as a colour


class LogPattern:
    """Looks for a regular expression in each line of an output that comes in pieces.

    A line counts when its newline has come, for the expression may ask for its end. Colours are left out. A line longer
    than LINE_BYTES is searched in pieces of that length, so what is found there is at most OVERLAP_BYTES long.
    """

    __slots__ = ("_held", "_is_cut", "_search")

    def __init__(self, pattern: str) -> None:
        self._search = re.compile(pattern).search  # the settings have shown that it compiles
        self._held = bytearray()  # of the line that has no newline yet
        self._is_cut = False  # the line began before what is held

    @property
    def held_bytes(self) -> int:
        return len(self._held)

    def feed(self, chunk: bytes) -> bool:
        """Take the next piece; tell whether a line matches."""
        *ended, rest = chunk.split(b"\n")
        return any(self._add(piece) or self._end_line() for piece in ended) or self._add(rest)

    def _add(self, piece: bytes) -> bool:
        at = 0
        while len(self._held) + len(piece) - at > LINE_BYTES:
            room = LINE_BYTES - len(self._held)
            self._held += piece[at : at + room]
            at += room
            text = self._text()
            # The end of the piece is not that of the line: whatever follows, `$` and `\b` must not be misled.
            if all(self._finds(text + following) for following in "a "):
                return True
            del self._held[:-OVERLAP_BYTES]
            self._is_cut = True
        self._held += piece[at:]
        return False

    def _end_line(self) -> bool:
        is_found = self._finds(self._text().removesuffix("\r"))
        self._held.clear()
        self._is_cut = False
        return is_found

    def _text(self) -> str:
        text = self._held.decode("utf-8", "replace")
        return _ESCAPE.sub("", text) if "\x1b" in text else text

    def _finds(self, text: str) -> bool:
        # With a position `^` still means the beginning of the text, which is not that of the line.
        return self._search(text, 1 if self._is_cut else 0) is not None


# --- notify (sd_notify(3)) -------------------------------------------------------------------------------------------

MAX_DATAGRAM_BYTES = 4_096  # as systemd has it


class Notification(NamedTuple):
    """What one datagram says of what matters here."""

    is_ready: bool
    status: str  # for people; "" if it says nothing


def parse_notify(datagram: bytes) -> Notification:
    """Read lines such as `READY=1` and `STATUS=loading`; all others, and garbage, say nothing."""
    is_ready, status = False, ""
    for line in datagram.split(b"\n"):
        name, _, value = line.partition(b"=")
        if name == b"READY":
            is_ready = is_ready or value == b"1"
        elif name == b"STATUS":
            status = for_people(value.decode("utf-8", "replace"))
    return Notification(is_ready, status)
