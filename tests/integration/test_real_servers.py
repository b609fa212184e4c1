"""Backing services: the servers of tests/support/real_servers.py are asked, also while they start, and through a proxy
that delays, refuses, half-answers and speaks the wrong protocol (issue "one side file", backing services).
"""

from __future__ import annotations

import os
import re
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from procman.dialogue import Dialogue
from procman.loop import Loop
from procman.protocols import Verdict, backing_service
from procman.services import ServiceWatch
from tests.support import proxy as proxies
from tests.support.app import CEILING_S, App, Run
from tests.support.ports import port_block
from tests.support.proxy import Behaviour, Proxy
from tests.support.real_servers import (
    ADMIN_PASSWORD,
    PASSWORD,
    SECRETS,
    SERVERS,
    USER,
    Nginx,
    Redis,
    Server,
    speaks_tls,
)

PAUSE_S = 0.01  # between two questions to a server that starts
SHORT_S = 0.3  # given to who will not answer

STARTING = re.compile(r"start|load|recover", re.IGNORECASE)

# What others say, by themselves or to whatever they are told.
GREETINGS = {
    "ssh": b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n",
    "smtp": b"220 elsewhere.test ESMTP Postfix (Debian/GNU)\r\n",
    "http": b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "mariadb": b"\x59\0\0\0\x0a5.5.5-10.11.6-MariaDB-0+deb12u1\0\x05\0\0\0abcdefgh\0\xfe\xf7\x2d\x02\0\xff\x81\x15"
    b"\0\0\0\0\0\0\x1d\0\0\0abcdefghijkl\0mysql_native_password\0",
    "redis": b"-ERR unknown command 'GET', with args beginning with: '/' \r\n",
    "memcached": b"ERROR\r\n",
    "rabbitmq": b"AMQP\0\0\x09\x01",
    "beanstalkd": b"UNKNOWN_COMMAND\r\n",
    "postgresql": b"E\0\0\0\x85SFATAL\0VFATAL\0C0A000\0Munsupported frontend protocol\0\0",
    "tls alert": b"\x15\x03\x03\0\x02\x02\x28",
    "ftp's cousin": b"100 wait\r\n",
    "zeros": bytes(64),
    "ones": b"\xff" * 64,
    "an empty line": b"\r\n",
}


def ask(url: str, timeout_s: float = CEILING_S) -> tuple[Verdict, float]:
    """Have one conversation; return its verdict and how long it took."""
    service = backing_service("X_URL", url)
    assert service.talk is not None
    verdicts: list[Verdict] = []
    loop = Loop()

    def end(verdict: Verdict) -> None:
        verdicts.append(verdict)
        loop.stop()

    begun = time.monotonic()
    alarm = loop.call_later(timeout_s + CEILING_S, loop.stop)
    dialogue = Dialogue(loop, service.hosts, service.path, service.talk, timeout_s, end)
    try:
        loop.run()
    finally:
        alarm.cancel()
        dialogue.close()
        loop.close()
    assert len(verdicts) == 1, f"{len(verdicts)} verdicts"
    [verdict] = verdicts
    if not verdict.is_ok:
        assert verdict.reason
        assert verdict.reason.isprintable(), verdict.reason
        assert not any(secret in verdict.reason for secret in SECRETS), verdict.reason
    return verdict, time.monotonic() - begun


# --- the servers, each started once ---


class Subject(NamedTuple):
    """A server that has been asked without a pause since before its start."""

    server: Server
    proxy: Proxy
    verdicts: dict[str, list[Verdict]]  # by the kind of the URL, up to the first that is ok
    was_usable: dict[str, bool]  # for a real client, right after that
    was_usable_when_held: bool

    def through(self, kind: str, behaviour: Behaviour) -> str:
        """Return the URL that leads through the proxy."""
        url = self.server.urls[kind]
        port = urlsplit(url).port
        assert port is not None
        self.proxy.target = port
        self.proxy.behave(behaviour)
        return url.replace(f":{port}", f":{self.proxy.port}")


def group(*servers: type[Server]) -> list[object]:
    """The servers, by names from which tests/conftest.py knows that one worker should have all tests of a server."""
    return [pytest.param(server, id=f"@{server.name}") for server in servers]


def with_urls(*servers: type[Server]) -> list[object]:
    """The servers with each kind of URL that they have."""
    return [pytest.param(server, kind, id=f"@{server.name}-{kind}") for server in servers for kind in server.url_kinds]


each_server = pytest.mark.parametrize("subject", group(*SERVERS), indirect=True)
each_url = pytest.mark.parametrize(("subject", "kind"), with_urls(*SERVERS), indirect=["subject"])


@pytest.fixture(scope="module")
def started() -> Iterator[Callable[[type[Server]], Subject]]:
    """Start servers when they are first wanted; they stay until the last test of this file."""
    with ExitStack() as stack:

        @cache
        def start(kind: type[Server]) -> Subject | BaseException:
            try:
                port = stack.enter_context(port_block())
                server = stack.enter_context(kind(port))
                return followed(server, stack.enter_context(Proxy(server.port, port + 9)))
            except Exception as error:  # told to each test; none of them tries again
                return error

        def subject_of(kind: type[Server]) -> Subject:
            found = start(kind)
            if isinstance(found, BaseException):
                raise found
            return found

        yield subject_of


@pytest.fixture
def subject(request: pytest.FixtureRequest, started: Callable[[type[Server]], Subject]) -> Subject:
    if lacking := request.param.lacking():
        (pytest.fail if os.environ.get("TEST_NEEDS_SERVERS") else pytest.skip)(lacking)
    return started(request.param)


def followed(server: Server, proxy: Proxy) -> Subject:
    """Start the server, and ask all the time."""
    verdicts = {kind: [ask(url)[0]] for kind, url in server.urls.items()}
    was_usable: dict[str, bool] = {}
    was_usable_when_held, is_held = False, server.can_be_held
    server.start()
    deadline = time.monotonic() + 3 * CEILING_S
    while len(was_usable) < len(verdicts):
        server.check()
        assert time.monotonic() < deadline, f"{verdicts}\n{server.logs()[-8000:]}"
        for kind in verdicts.keys() - was_usable.keys():
            verdict, _ = ask(server.urls[kind])
            verdicts[kind].append(verdict)
            if verdict.is_ok:
                is_tls = port_of(server, kind) == server.tls_port
                was_usable[kind] = server.is_usable() and (speaks_tls(server.tls_port) if is_tls else True)
        if is_held and all(count_starting(told) >= 3 for told in verdicts.values()):
            was_usable_when_held = server.is_usable()
            server.release()
            is_held = False
        select.select([], [], [], PAUSE_S)
    return Subject(server, proxy, verdicts, was_usable, was_usable_when_held)


def port_of(server: Server, kind: str) -> int | None:
    return urlsplit(server.urls[kind]).port


def count_starting(verdicts: list[Verdict]) -> int:
    return sum(STARTING.search(verdict.reason) is not None for verdict in verdicts)


# --- while it starts ---


@each_server
def test_is_ready_when_a_client_can_use_it_and_not_before(subject: Subject) -> None:
    assert subject.was_usable == dict.fromkeys(subject.server.urls, True)
    for verdicts in subject.verdicts.values():
        *before, ready = verdicts
        assert ready == Verdict(True)
        assert not any(verdict.is_ok for verdict in before)
        assert "refused" in before[0].reason


@pytest.mark.parametrize("subject", group(*(server for server in SERVERS if server.can_be_held)), indirect=True)
def test_still_starting_is_not_ready(subject: Subject) -> None:
    """PostgreSQL says 57P03, Redis LOADING, for as long as the test wants."""
    assert not subject.was_usable_when_held
    for verdicts in subject.verdicts.values():
        assert count_starting(verdicts) >= 3
        assert {verdict.is_ok for verdict in verdicts if STARTING.search(verdict.reason)} == {False}


# --- through an honest proxy ---


@each_url
def test_answers(subject: Subject, kind: str) -> None:
    subject.proxy.said = b""
    assert ask(subject.through(kind, proxies.HONEST))[0] == Verdict(True)
    subject.proxy.behave(proxies.REFUSE)  # and all that was said has come
    for secret in SECRETS:
        assert secret.encode() not in subject.proxy.said


@each_url
def test_answers_by_name(subject: Subject, kind: str) -> None:
    assert ask(subject.server.urls[kind].replace("127.0.0.1", "localhost"))[0] == Verdict(True)


@each_url
@pytest.mark.parametrize("behaviour", [proxies.DRIBBLE, proxies.late(0.1)], ids=lambda behaviour: behaviour.name)
def test_answers_slowly(subject: Subject, kind: str, behaviour: Behaviour) -> None:
    assert ask(subject.through(kind, behaviour))[0] == Verdict(True)


# --- through one that is not ---


@each_url
@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (proxies.REFUSE, "refused"),
        (proxies.HANG_UP, "closed|reset"),
        (proxies.RESET, "closed|reset"),
        (proxies.half_and_end(3), "closed|reset|ended"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_no_answer_is_told_at_once(subject: Subject, kind: str, behaviour: Behaviour, reason: str) -> None:
    verdict, took_s = ask(subject.through(kind, behaviour))
    assert not verdict.is_ok
    assert re.search(reason, verdict.reason), verdict
    assert took_s < CEILING_S / 2


@each_url
@pytest.mark.parametrize(
    "behaviour",
    [proxies.SILENT, proxies.late(CEILING_S), proxies.half(3), proxies.flood(b"\0" * 4096), proxies.flood(b"2" * 4096)],
    ids=lambda behaviour: f"{behaviour.name} {behaviour.flood[:1].decode()}".strip(" \0"),
)
def test_waits_no_longer_than_it_may(subject: Subject, kind: str, behaviour: Behaviour) -> None:
    verdict, took_s = ask(subject.through(kind, behaviour), SHORT_S)
    assert not verdict.is_ok
    assert took_s < SHORT_S + CEILING_S / 10
    if not behaviour.flood:  # which it may be tired of before
        assert f"{SHORT_S:g} s" in verdict.reason
        assert took_s >= SHORT_S


@each_url
def test_another_protocol(subject: Subject, kind: str) -> None:
    """Whoever has taken the port, by itself or when spoken to: it is not the service."""
    for name, greeting in GREETINGS.items():
        if name == subject.server.name or (name == "http" and subject.server.name == "nginx"):
            continue
        if name == "smtp" and subject.server.name == "postfix":
            continue
        answers = [] if subject.server.speaks_first and kind == "plain" else [proxies.wrong(b"", greeting, ends=True)]
        for behaviour in (proxies.wrong(greeting, ends=True), *answers):
            verdict, _ = ask(subject.through(kind, behaviour))
            assert not verdict.is_ok, (name, behaviour)


@each_url
@pytest.mark.parametrize("greeting", ["ssh", "redis", "zeros"])
def test_another_protocol_that_stays(subject: Subject, kind: str, greeting: str) -> None:
    if greeting == subject.server.name:
        greeting = "memcached"
    verdict, took_s = ask(subject.through(kind, proxies.wrong(GREETINGS[greeting])), SHORT_S)
    assert not verdict.is_ok
    assert took_s < SHORT_S + CEILING_S / 10


@each_url
def test_is_ready_once_the_way_is_honest(subject: Subject, kind: str) -> None:
    """One watch through all of it: it says what is wrong, and that it is ready when it is, once."""
    bad = [proxies.REFUSE, proxies.SILENT, proxies.half(3), proxies.wrong(GREETINGS["ssh"], ends=True)]
    url = subject.through(kind, bad[0])
    ready: list[float] = []
    troubles: list[str] = []
    loop = Loop()
    deadline = time.monotonic() + CEILING_S

    def turn_again() -> None:
        """What the proxy has seen comes from another thread."""
        assert time.monotonic() < deadline, f"{subject.proxy.behaviour}: {troubles} {ready}"
        loop.call_later(PAUSE_S, turn_again)

    turn_again()
    watch = ServiceWatch(loop, backing_service("X_URL", url), ready.append, troubles.append)
    try:
        while not troubles:
            loop.turn()
        assert "refused" in troubles[0]
        for behaviour in bad[1:]:
            subject.proxy.behave(behaviour)
            while not subject.proxy.served:
                loop.turn()
        assert ready == []
        subject.proxy.behave(proxies.HONEST)
        while not ready:
            loop.turn()
    finally:
        watch.close()
        loop.close()
    assert len(ready) == 1, troubles
    assert len(troubles) >= 2
    assert not any(secret in trouble for trouble in troubles for secret in SECRETS)


# --- what the server saw ---


@each_server
def test_nobody_tried_to_log_in(subject: Subject) -> None:
    server = subject.server
    for url in server.urls.values():
        assert ask(url)[0].is_ok
    assert server.is_usable()  # it has served somebody who came later
    logs = server.logs()
    assert not any(secret in logs for secret in SECRETS)
    if server.logs_logins:  # else only `test_answers` can tell
        server.log_in()
        deadline = time.monotonic() + CEILING_S
        while not any(secret in server.logs() for secret in SECRETS):  # some write after they have answered
            assert time.monotonic() < deadline, "a login leaves no trace in the log"
            select.select([], [], [], PAUSE_S)


@pytest.mark.parametrize("subject", group(Nginx), indirect=True)
def test_status(subject: Subject) -> None:
    """Below 500 somebody is there who answers; a gateway without its server is not."""
    assert isinstance(subject.server, Nginx)
    url = subject.server.urls["plain"]
    assert ask(url.replace(f":{subject.server.port}", f":{subject.server.private_port}"))[0] == Verdict(True)
    verdict, _ = ask(url.replace(f":{subject.server.port}", f":{subject.server.closed_port}"))
    assert not verdict.is_ok
    assert "503" in verdict.reason


# --- by the real command line ---


def needing(app: App, url: str) -> App:
    return app(
        "web: echo up; exec sleep 1000\ntask: echo done\n",
        dotenv=f"SERVICE_URL='{url}'\n",
        procman__toml='[process.web]\nneeds = ["SERVICE_URL"]\n[process.task]\nneeds = ["SERVICE_URL"]\n',
    )


def shows_no_secret(run: Run) -> bool:
    shown = f"{run.text}{run.err_text}{run.events}"
    return not any(secret in shown for secret in SECRETS)


@each_server
def test_start_waits_for_it(app: App, subject: Subject) -> None:
    """And when the variable names another place, nothing else has to change."""
    kind = subject.server.url_kinds[-1]
    run = needing(app, subject.through(kind, proxies.HANG_UP)).start("web")
    subject.proxy.wait_connection()
    honest_at = time.time()
    subject.proxy.behave(proxies.HONEST)
    assert run.wait_for("started", "web.1").at >= honest_at
    run.wait_output("up", "web.1")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert shows_no_secret(run)
    subject.proxy.behave(proxies.REFUSE)
    app.write(".env", f"SERVICE_URL='{subject.server.urls['plain']}'\n")
    swapped = app.start("web")
    swapped.wait_output("up", "web.1")
    swapped.signal(signal.SIGTERM)
    assert swapped.wait() == 0


@each_server
def test_run_waits_for_it(app: App, subject: Subject) -> None:
    kind = subject.server.url_kinds[-1]
    run = needing(app, subject.through(kind, proxies.HANG_UP)).procman("run", "task")
    subject.proxy.wait_connection()
    assert run.out == b""
    subject.proxy.behave(proxies.HONEST)
    assert run.wait() == 0
    assert run.text == "done\n"
    assert shows_no_secret(run)


@each_server
def test_services_shows_it(app: App, subject: Subject) -> None:
    kind = subject.server.url_kinds[-1]
    url = subject.through(kind, proxies.HONEST)
    run = needing(app, url).call("services")
    assert run.code == 0, run.err_text
    service = backing_service("SERVICE_URL", url)
    for wanted in ("SERVICE_URL", service.kind, service.where):
        assert wanted in run.text
    assert PASSWORD not in run.text + run.err_text
    subject.proxy.behave(proxies.REFUSE)
    run = app.call("services")
    assert run.code != 0
    assert "refused" in run.text + run.err_text
    assert PASSWORD not in run.text + run.err_text


@pytest.mark.parametrize("subject", group(Redis), indirect=True)
def test_a_password_that_is_asked_for_is_an_answer(subject: Subject) -> None:
    """So Redis with a password counts as ready while it loads, too: it says NOAUTH then as well."""
    assert isinstance(subject.server, Redis)
    subject.server.demand_password(ADMIN_PASSWORD)
    assert not subject.server.is_usable()
    for url in subject.server.urls.values():
        assert ask(url)[0] == Verdict(True)
    subject.server.take_back_password(ADMIN_PASSWORD)
    assert subject.server.is_usable()


def test_the_secrets_are_in_the_urls() -> None:
    """Or the tests above would look for nothing."""
    assert USER in SECRETS
    assert PASSWORD in SECRETS
