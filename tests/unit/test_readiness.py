"""What an answer means, without a clock, a socket or a process."""

from __future__ import annotations

import pytest

from procman.errors import SourceRef
from procman.readiness import (
    HTTP,
    LINE_BYTES,
    LIVENESS_PAUSE_S,
    MAX_ANSWER_BYTES,
    MAX_PAUSE_S,
    MAX_REASON_CHARS,
    NO_HTTP,
    OVERLAP_BYTES,
    LogPattern,
    Notification,
    Probe,
    failures_after,
    for_people,
    http_request,
    is_unhealthy,
    judge_http,
    last_line,
    liveness_pause_s,
    parse_notify,
    ready_pause_s,
)

PROBE = Probe(HTTP, SourceRef("procman.toml", 3))


# --- attempts ---


def test_pauses_grow_from_short_to_a_second() -> None:
    pauses_s = [ready_pause_s(PROBE, attempts) for attempts in range(100)]
    assert pauses_s[:2] == [0.05, 0.05]  # before the first attempt, and after it
    assert pauses_s[2] == pytest.approx(0.075)
    assert pauses_s == sorted(pauses_s)
    assert pauses_s[-1] == MAX_PAUSE_S == 1.0


def test_what_becomes_ready_is_seen_soon_after() -> None:
    at_s = 0.0
    for attempts in range(12):
        pause_s = ready_pause_s(PROBE, attempts)
        assert attempts < 2 or pause_s <= at_s * 0.76
        at_s += pause_s


def test_pauses_that_the_user_chose() -> None:
    every = PROBE._replace(every_s=4.0)
    assert [ready_pause_s(every, attempts) for attempts in range(3)] == [0.05, 4.0, 4.0]
    quick = PROBE._replace(every_s=0.02)
    assert [ready_pause_s(quick, attempts) for attempts in range(3)] == [0.02, 0.02, 0.02]
    assert ready_pause_s(PROBE._replace(every_s=0.0), 7) > 0  # no busy loop
    assert ready_pause_s(PROBE, 1 << 40) == 1.0


def test_pauses_of_liveness() -> None:
    assert liveness_pause_s(PROBE) == LIVENESS_PAUSE_S == 10.0
    assert liveness_pause_s(PROBE._replace(every_s=0.5)) == 0.5
    assert liveness_pause_s(PROBE._replace(every_s=0.0)) > 0


@pytest.mark.parametrize(
    ("limit", "answers", "at"),
    [
        (3, ["no", "no", "no"], 3),
        (3, ["no", "no", "", "no", "no", "no"], 6),
        (1, ["", "", "no"], 3),
        (3, ["no", "", "no", "", "no", ""], None),
        (0, ["", "no"], 2),  # nobody is unhealthy without a failure
    ],
)
def test_failures_count_in_a_row(limit: int, answers: list[str], at: int | None) -> None:
    failures, found = 0, None
    for number, answer in enumerate(answers, 1):
        failures = failures_after(failures, answer)
        if is_unhealthy(PROBE._replace(failures=limit), failures):
            found = number
            break
    assert found == at


# --- words for people ---


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (b"", ""),
        (b"\n\n", ""),
        (b"one\ntwo\n", "two"),
        (b"one\ntwo\n\n  \n", "two"),
        (b"no newline", "no newline"),
        (b"\x1b[31mred\x1b[0m\n", "red"),
        (b"\x1b]0;title\x07 bell\n", "]0;title  bell"),
        (b"caf\xc3\xa9 \xff\n", "café \ufffd"),
        (b"told\n\x1b[2J\n", "told"),
    ],
)
def test_last_line(output: bytes, line: str) -> None:
    assert last_line(output) == line


def test_reasons_are_not_endless() -> None:
    assert for_people("x" * MAX_REASON_CHARS) == "x" * MAX_REASON_CHARS
    assert for_people("x" * 10_000) == "x" * (MAX_REASON_CHARS - 3) + "..."


# --- HTTP ---


def answer(status: str, body: bytes = b"ok", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(headers or (f"Content-Length: {len(body)}",)), "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.mark.parametrize(
    ("status", "statuses", "told"),
    [
        ("200 OK", (), ""),
        ("200", (), ""),
        ("204 No Content", (), ""),
        ("302 Found", (), ""),
        ("399 Odd", (), ""),
        ("400 Bad Request", (), "answered 400"),
        ("404 Not Found", (), "answered 404"),
        ("503 \x1b[2J", (), "answered 503"),
        ("404 Not Found", (404,), ""),
        ("200 OK", (404,), "answered 200"),
        ("302 Found", (200, 204), "answered 302"),
        ("204 No Content", (200, 204), ""),
    ],
)
def test_statuses(status: str, statuses: tuple[int, ...], told: str) -> None:
    assert judge_http(answer(status), False, statuses) == told


WHOLE = [
    answer("200 OK", b"hello"),
    answer("200 OK", b"", "content-length:0"),
    answer("204 No Content", b"", "Server: x"),
    answer("304 Not Modified", b"", "Content-Length: 500"),
    answer("200 OK", b"5\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked"),
    answer("200 OK", b"5;x=y\r\nhello\r\n0\r\nTrailer: a\r\n\r\n", "Transfer-Encoding: gzip, chunked"),
    answer("200 OK", b"0\r\n\r\n", "Transfer-Encoding: chunked"),
    b"HTTP/1.0 200 OK\nContent-Length: 2\n\nok",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer("200 OK", b"hello"),
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + answer("200 OK", b"x"),
]


@pytest.mark.parametrize("data", WHOLE)
def test_an_answer_counts_when_it_is_whole(data: bytes) -> None:
    for end in range(len(data)):
        assert judge_http(data[:end], False, ()) is None, data[:end]
        assert judge_http(data[:end], True, ()) not in (None, ""), data[:end]
    assert judge_http(data, False, ()) == ""
    assert judge_http(data, True, ()) == ""


def test_without_a_length_the_end_of_the_connection_is_that_of_the_answer() -> None:
    data = answer("200 OK", b"until the end", "Content-Type: text/plain")
    assert judge_http(data, False, ()) is None
    assert judge_http(data, True, ()) == ""


def test_an_answer_that_is_too_long_is_judged_by_its_status() -> None:
    for status, told in (("200 OK", ""), ("500 Oh", "answered 500")):
        head = answer(status, b"", "Content-Length: 1000000")
        assert judge_http(head.ljust(MAX_ANSWER_BYTES, b"x"), False, ()) is None
        assert judge_http(head.ljust(MAX_ANSWER_BYTES + 1, b"x"), False, ()) == told


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"GET / HTTP/1.1\r\n",  # our own words, from one that echoes them
        b"\x15\x03\x01\x00\x02",  # a TLS alert
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 200OK\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nwhat?",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * MAX_ANSWER_BYTES,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 4000,
    ],
)
@pytest.mark.parametrize("is_closed", [False, True])
def test_what_is_not_http(data: bytes, is_closed: bool) -> None:
    assert judge_http(data, is_closed, ()) == NO_HTTP


def test_the_request() -> None:
    text = http_request("/healthz", 5000).decode()
    first, *headers = text.split("\r\n")
    assert first == "GET /healthz HTTP/1.1"
    assert "Host: localhost:5000" in headers
    assert "Connection: close" in headers
    assert text.endswith("\r\n\r\n")
    assert text.count("\r\n\r\n") == 1


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("up", "/up"),
        ("/a?b=c&d=%20", "/a?b=c&d=%20"),
        ("/a b", "/a%20b"),
        ("/é", "/%C3%A9"),
        ("/ HTTP/1.1\r\nX: y\r\n\r\n", "/%20HTTP/1.1%0D%0AX:%20y%0D%0A%0D%0A"),
    ],
)
def test_no_path_writes_a_header(path: str, target: str) -> None:
    assert http_request(path, 1).split(b"\r\n")[0].decode() == f"GET {target} HTTP/1.1"


# --- a line of the log ---


def finds(pattern: str, *chunks: bytes) -> bool:
    """Feed the chunks up to the first that makes it match."""
    log = LogPattern(pattern)
    return any(log.feed(chunk) for chunk in chunks)


@pytest.mark.parametrize(
    ("pattern", "output", "is_found"),
    [
        ("Listening on", b"boot\nINFO Listening on :5000\nmore\n", True),
        ("Listening on", b"boot\nlistening on :5000\n", False),
        ("(?i)listening", b"LISTENING\n", True),
        ("^ready$", b"not ready\nready\n", True),
        ("^ready$", b"not ready\nready now\n", False),
        ("^ready$", b"ready\r\n", True),  # a terminal that does output processing
        ("a.*b", b"a\nb\n", False),  # in one line
        ("a\\sb", b"a\nb\n", False),
        ("ready", b"ready", False),  # the line may go on
        ("port 80$", b"port 8080\n", False),
        ("^$", b"a\n\n", True),
        ("", b"x", False),
        ("", b"\n", True),
        ("^Listening", b"\x1b[32mListening\x1b[0m\n", True),
        ("Listening on", b"Listening\x1b[1;31m on\n", True),
        ("caf\u00e9$", b"caf\xc3\xa9\n", True),
        ("x", b"\xff\xfe\x00x\n", True),
    ],
)
def test_lines_however_they_are_cut(pattern: str, output: bytes, is_found: bool) -> None:
    assert finds(pattern, output) == is_found
    assert finds(pattern, *(output[at : at + 1] for at in range(len(output)))) == is_found
    for cut in range(1, len(output)):
        assert finds(pattern, output[:cut], output[cut:]) == is_found, cut


def test_a_match_is_told_with_the_chunk_that_ends_its_line() -> None:
    log = LogPattern("ready")
    assert [log.feed(chunk) for chunk in (b"re", b"ady", b" now", b"\nmore")] == [False, False, False, True]


@pytest.mark.parametrize("step", [1000, LINE_BYTES, 65_536])
@pytest.mark.parametrize("at", [0, LINE_BYTES - 3, LINE_BYTES, 1_000_000, 9_999_990])
def test_a_line_of_10_mb_in_bounded_memory(step: int, at: int) -> None:
    line = bytearray(b"x" * 10_000_000)
    line[at : at + 9] = b"-needle- "
    log = LogPattern("needle")
    found_at = None
    for begin in range(0, len(line), step):
        if log.feed(bytes(line[begin : begin + step])):
            found_at = begin + step
            break
        assert log.held_bytes <= LINE_BYTES
    if found_at is None:  # its end is in the last piece, and the line has not ended
        assert at + 9 > len(line) - LINE_BYTES
        assert log.feed(b"\n")
    else:
        assert at < found_at <= at + 2 * LINE_BYTES + 2 * step


def test_what_is_found_across_two_pieces_of_a_long_line() -> None:
    needle = b"a" + b"-" * (OVERLAP_BYTES - 2) + b"z"
    for before in range(LINE_BYTES - len(needle) - 2, LINE_BYTES + 2, 97):
        line = b"x" * before + needle + b"x" * 3 * LINE_BYTES
        assert finds("a-+z", line)
        assert finds("a-+z", *(line[at : at + 7] for at in range(0, len(line), 7)))


@pytest.mark.parametrize("pattern", ["^x", "x$", "\\Ax", "x\\Z", "b\\b"])
def test_the_ends_of_a_piece_are_not_those_of_the_line(pattern: str) -> None:
    line = b"a" + b"x" * LINE_BYTES * 5 + b"bb" * LINE_BYTES + b"y"
    assert not finds(pattern, line)
    assert not finds(pattern, *(line[at : at + 1] for at in range(len(line))))
    assert not finds(pattern, line, b"\n")


def test_the_beginning_and_the_end_of_a_long_line() -> None:
    line = b"begin" + b"x" * LINE_BYTES * 3 + b"end"
    assert finds("^begin", line)
    assert not finds("end$", line)
    assert finds("end$", line, b"\n")
    assert finds("^next", line, b"\nnext\n")
    assert finds("in.*", line)  # although it has no end yet


# --- notify ---


@pytest.mark.parametrize(
    ("datagram", "told"),
    [
        (b"READY=1", Notification(True, "")),
        (b"READY=1\n", Notification(True, "")),
        (b"STATUS=up\nREADY=1\nMAINPID=7", Notification(True, "up")),
        (b"STATUS=loading 3 of 7", Notification(False, "loading 3 of 7")),
        (b"STATUS=a=b", Notification(False, "a=b")),
        (b"STATUS=\x1b[2J\x07bell", Notification(False, "bell")),
        (b"STATUS=caf\xc3\xa9 \xff", Notification(False, "café \ufffd")),
        (b"READY=0", Notification(False, "")),
        (b"READY=11", Notification(False, "")),
        (b"READY=1 ", Notification(False, "")),
        (b"READY=1\0", Notification(False, "")),
        (b" READY=1", Notification(False, "")),
        (b"XREADY=1", Notification(False, "")),
        (b"READY", Notification(False, "")),
        (b"STATUS=READY=1", Notification(False, "READY=1")),
        (b"WATCHDOG=1\nSTOPPING=1\nBARRIER=1", Notification(False, "")),
        (b"", Notification(False, "")),
        (b"\n\n=\n==", Notification(False, "")),
        (bytes(range(256)) * 16, Notification(False, "")),
    ],
)
def test_notifications(datagram: bytes, told: Notification) -> None:
    assert parse_notify(datagram) == told
