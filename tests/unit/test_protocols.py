"""URLs of backing services: what they mean, what is asked, what is never said; and the judges, byte by byte."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procman import greetings
from procman.greetings import POSTGRES_SSL_REQUEST, TALKS, Verdict, judge_postgres_tls, told
from procman.protocols import BackingService, backing_service, is_known, masked, named

EXAMPLES = int(os.environ.get("PROCMAN_FUZZ_EXAMPLES", "200"))
LIBPQ_SOCKET = "/var/run/postgresql/.s.PGSQL.5432"

# --- what a URL means ------------------------------------------------------------------------------------------------

URLS = [
    # url, kind, where, tls
    ("postgres://u:p@db.example.org/name", "PostgreSQL", "db.example.org:5432", ""),
    ("postgresql://u:p@[::1]:5433/name", "PostgreSQL", "[::1]:5433", ""),
    ("postgresql+psycopg2://u@db/name", "PostgreSQL", "db:5432", ""),
    ("postgis://db", "PostgreSQL", "db:5432", ""),
    ("jdbc:postgresql://db:5/name?user=u&password=p", "PostgreSQL", "db:5", ""),
    ("db+postgresql://u:p@db/name", "PostgreSQL", "db:5432", ""),
    ("cockroachdb://root@db/name", "PostgreSQL", "db:26257", ""),
    ("postgres://u:p@a:1,b,[::1]:3/name", "PostgreSQL", "a:1,b:5432,[::1]:3", ""),
    ("postgres://db/name?sslmode=disable", "PostgreSQL", "db:5432", ""),
    ("postgres://db/name?sslmode=prefer", "PostgreSQL", "db:5432", ""),
    ("postgres://db/name?sslmode=allow", "PostgreSQL", "db:5432", ""),
    ("postgres://db/name?sslmode=require", "PostgreSQL", "db:5432", "upgrade"),
    ("postgres://db/name?x=1&sslmode=verify-ca", "PostgreSQL", "db:5432", "upgrade"),
    ("postgres://db/name?sslmode=verify-full", "PostgreSQL", "db:5432", "upgrade"),
    ("postgres://db/name?ssl=true", "PostgreSQL", "db:5432", "upgrade"),
    ("postgres://db/name?sslmode=require&sslnegotiation=direct", "PostgreSQL", "db:5432", "first"),
    ("postgresql:///name?host=/run/pg", "PostgreSQL", "/run/pg/.s.PGSQL.5432", ""),
    ("postgresql:///name?host=/run/pg&port=6", "PostgreSQL", "/run/pg/.s.PGSQL.6", ""),
    ("postgresql:///name?host=/run/pg&sslmode=require", "PostgreSQL", "/run/pg/.s.PGSQL.5432", ""),
    ("postgresql:///name?host=db&port=6", "PostgreSQL", "db:6", ""),
    ("postgresql:///name?host=a,b&port=6,7", "PostgreSQL", "a:6,b:7", ""),
    ("postgresql:///name?host=::1", "PostgreSQL", "[::1]:5432", ""),
    ("postgresql://u@%2Frun%2Fpg:6/name", "PostgreSQL", "/run/pg/.s.PGSQL.6", ""),
    ("postgresql:///name?host=@pg", "PostgreSQL", "@pg/.s.PGSQL.5432", ""),
    ("postgresql:///name", "PostgreSQL", f"{LIBPQ_SOCKET},localhost:5432", ""),
    ("postgresql://", "PostgreSQL", f"{LIBPQ_SOCKET},localhost:5432", ""),
    ("mysql://u:p@db/name", "MySQL", "db:3306", ""),
    ("mysql2://u:p@db/name?encoding=utf8", "MySQL", "db:3306", ""),
    ("mysql+pymysql://u:p@db/name", "MySQL", "db:3306", ""),
    ("trilogy://u:p@db/name", "MySQL", "db:3306", ""),
    ("mariadb://db", "MariaDB", "db:3306", ""),
    ("mysql:///name", "MySQL", "localhost:3306", ""),
    ("mysql://u:p@localhost/name?unix_socket=/run/mysqld/mysqld.sock", "MySQL", "/run/mysqld/mysqld.sock", ""),
    ("mysql2://u@localhost/name?socket=%2Frun%2Fm.sock", "MySQL", "/run/m.sock", ""),
    ("redis://", "Redis", "localhost:6379", ""),
    ("redis:///0", "Redis", "localhost:6379", ""),
    ("redis://:p@cache:6380/1", "Redis", "cache:6380", ""),
    ("redis://:p@:6380/1", "Redis", "localhost:6380", ""),
    ("valkey://cache", "Redis", "cache:6379", ""),
    ("rediss://:p@cache", "Redis", "cache:6379", "first"),
    ("redis+unix://:p@/run/redis.sock", "Redis", "/run/redis.sock", ""),
    ("redis+socket:///run/redis.sock?virtual_host=1", "Redis", "/run/redis.sock", ""),
    ("rediss+unix:///run/redis.sock", "Redis", "/run/redis.sock", ""),
    ("redis+sentinel://a,b:7/mymaster", "Redis", "a:26379,b:7", ""),
    ("unix:///run/redis.sock?db=1", "Redis", "/run/redis.sock", ""),
    ("memcached://cache", "Memcached", "cache:11211", ""),
    ("memcache://a:1,b:2", "Memcached", "a:1,b:2", ""),
    ("memcached:///run/m.sock", "Memcached", "/run/m.sock", ""),
    ("amqp://guest:guest@mq/%2F", "AMQP", "mq:5672", ""),
    ("amqp://", "AMQP", "localhost:5672", ""),
    ("pyamqp://guest@mq//", "AMQP", "mq:5672", ""),
    ("amqps://mq", "AMQP", "mq:5671", "first"),
    ("amqp://u:p@a:1//;amqp://u:p@b//", "AMQP", "a:1,b:5672", ""),
    ("amqps://u:p@a;amqps://u:p@b", "AMQP", "a:5671,b:5671", "first"),
    ("beanstalkd://q", "Beanstalkd", "q:11300", ""),
    ("beanstalk://q:1", "Beanstalkd", "q:1", ""),
    ("smtp://u:p@mail", "SMTP", "mail:25", ""),
    ("smtp://u:p@mail:587?from=a@b.example", "SMTP", "mail:587", ""),
    ("smtp://mail:465", "SMTP", "mail:465", "first"),
    ("smtps://mail", "SMTP", "mail:465", "first"),
    ("smtp+ssl://mail", "SMTP", "mail:465", "first"),
    ("submission://mail", "SMTP", "mail:587", ""),
    ("http://web/path?x=1", "HTTP", "web:80", ""),
    ("https://key:secret@s3.example.org/bucket", "HTTP", "s3.example.org:443", "first"),
    ("https://[2001:db8::1]/", "HTTP", "[2001:db8::1]:443", "first"),
    ("https://npm/@scope/x", "HTTP", "npm:443", "first"),
    ("http+unix://%2Frun%2Fapp.sock/x", "HTTP", "/run/app.sock", ""),
    ("s3://key:secret@minio:9000/bucket", "S3", "minio:9000", ""),
    ("s3://key:secret@minio:443/bucket", "S3", "minio:443", "first"),
    ("mongodb://u:p@db/name", "MongoDB", "db:27017", ""),
    ("mongodb://a,b:2/name?replicaSet=r", "MongoDB", "a:27017,b:2", ""),
    ("mongodb://db/?tls=true", "MongoDB", "db:27017", "first"),
    ("mongodb://db/?ssl=true&x=1", "MongoDB", "db:27017", "first"),
    ("mongodb://%2Ftmp%2Fmongodb-27017.sock/name", "MongoDB", "/tmp/mongodb-27017.sock", ""),
    ("tcp://db:1", "TCP", "db:1", ""),
    ("kafka://broker:9092", "TCP", "broker:9092", ""),
    ("REDIS://CACHE.Example.ORG", "Redis", "cache.example.org:6379", ""),
    ("redis://b%C3%BCcher.example", "Redis", "xn--bcher-kva.example:6379", ""),
    ("redis://bücher.example", "Redis", "xn--bcher-kva.example:6379", ""),
    ("redis://my_cache-1:1", "Redis", "my_cache-1:1", ""),
    ("redis://u:p%2Fw%40@cache", "Redis", "cache:6379", ""),
    ("redis://u:p@w@cache", "Redis", "cache:6379", ""),
    ("redis://[fe80::1%25eth0]", "Redis", "[fe80::1%eth0]:6379", ""),
    (" redis://cache ", "Redis", "cache:6379", ""),
]


@pytest.mark.parametrize(("url", "kind", "where", "tls"), URLS, ids=[url for url, *_ in URLS])
def test_what_a_url_means(url: str, kind: str, where: str, tls: str) -> None:
    service = backing_service("DATABASE_URL", url)
    assert (service.variable, service.kind, service.where) == ("DATABASE_URL", kind, where)
    assert service.talk is not None
    assert service.talk.tls == tls
    assert service.note == ""
    assert bool(service.path) == where.startswith(("/", "@"))


NOTHING_TO_ASK = [
    ("sqlite:///app.db", "file", "app.db", "a file"),
    ("sqlite:////var/app.db", "file", "/var/app.db", "a file"),
    ("sqlite3:app.db", "file", "", "a file"),
    ("sqlite::memory:", "file", "", "a file"),
    ("sqlite://:memory:", "file", "", "a file"),
    ("file:///var/x", "file", "/var/x", "a file"),
    ("s3://bucket/prefix", "S3", "", "a bucket, at no host of its own"),
    ("mongodb+srv://u:p@db.example.org/name", "MongoDB", "db.example.org", "its hosts stand in SRV records of the DNS"),
]


@pytest.mark.parametrize(("url", "kind", "where", "note"), NOTHING_TO_ASK)
def test_where_nothing_is_asked_it_says_why(url: str, kind: str, where: str, note: str) -> None:
    service = backing_service("X", url)
    assert (service.kind, service.where, service.note, service.talk) == (kind, where, note, None)


def test_libpq_looks_at_its_socket_and_other_clients_at_localhost() -> None:
    service = backing_service("X", "postgresql:///name")
    assert service.hosts == (("localhost", 5432),)
    assert service.path == LIBPQ_SOCKET


SECRET = "Zq7sEcret"
WRONG = [
    # url, what is said
    ("", "no URL"),
    (SECRET, "no URL"),
    (f"{SECRET}:{SECRET}", "no URL"),
    (f"postgres:{SECRET}", "no URL"),
    (f"redis://u:{SECRET} x@h", "no URL"),
    (f"redis://u:{SECRET}\n@h", "no URL"),
    (f"host=h password={SECRET}", "no URL"),
    (f"redis://u:{SECRET}@h:0/1", "port"),
    (f"redis://u:{SECRET}@h:65536", "port"),
    (f"redis://u:{SECRET}@h:99999999999999999999", "port"),
    (f"redis://h:{SECRET}", "port"),
    (f"redis://h:-1/{SECRET}", "port"),
    (f"redis://h:²/{SECRET}", "port"),
    (f"postgres://u:{SECRET}/w@h/name", "%2F"),
    (f"postgres://u:1{SECRET}/w@h/name", "%2F"),
    (f"postgres://u:12/{SECRET}@h/name", "%2F"),  # 12 would pass for the port
    (f"postgres://u:p@{SECRET}/w@h/name", "%2F"),  # and this for the host
    (f"postgres://u:12?{SECRET}@h/name", "%2F"),
    (f"postgres://u:12#{SECRET}@h/name", "%2F"),
    (f"https://u:{SECRET}/w@h/", "port"),
    (f"tcp://:{SECRET}", "no host"),
    ("tcp://:1", "no host"),
    ("tcp://h", "no port"),
    ("http://", "no host"),
    ("smtp://", "no host"),
    ("smtp://:25", "no host"),
    ("beanstalkd:///x", "no host"),
    ("mongodb:///x", "no host"),
    ("mongodb://a,/x", "no host"),
    (f"mongodb+srv:///{SECRET}", "no host"),
    (f"redis://u:{SECRET}@::1", "brackets"),
    (f"redis://[{SECRET}]", "IPv6"),
    (f"redis://[::1/{SECRET}", "brackets"),
    ("redis://[::1]x:1", "brackets"),
    (f"redis://{SECRET}\u202e", "no host name"),
    (f"redis://a%20{SECRET}", "no host name"),
    (f"redis://%00{SECRET}", "no host name"),
    (f"redis://{'ü' * 300}", "no host name"),
    (f"redis://-..ü..{SECRET}", "no host name"),
    (f"unix://{SECRET}", "path of a socket"),
    ("unix:///", "path of a socket"),
    (f"unix:///%00{SECRET}", "path of a socket"),
    (f"mysql://h/?socket={SECRET}", "path of a socket"),
    (f"{SECRET}://h/x", "not known"),
    (f"nats://{SECRET}", "not known"),
    (f"postgresql:///x?host=h&port={SECRET}", "port"),
    (f"amqp://u:{SECRET}@a//;redis://:{SECRET}@b", "several kinds"),
]


@pytest.mark.parametrize(("url", "said"), WRONG)
def test_what_is_no_url_is_told_without_the_value(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        backing_service("DATABASE_URL", url)
    text = str(caught.value)
    assert SECRET.lower() not in text.lower()
    assert text.isprintable()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None, "a traceback would show the value"


ASKED = [
    *(url for url, *_ in URLS),
    "http://h:8080/",
]


def all_that_is_said(service: BackingService) -> bytes:
    talk = service.talk
    assert talk is not None
    return talk.hello + talk.upgrade + talk.goodbye


@pytest.mark.parametrize("scheme", sorted({url.partition(":")[0] for url in ASKED} - {"jdbc", "unix"}))
def test_nothing_of_user_password_path_or_query_is_said_or_kept(scheme: str) -> None:
    scheme = scheme.strip()
    words = ("sayUser", "sayPass", "sayPath", "sayQuery", "sayValue", "sayFragment")
    for host, extra in (("h.example:77", ""), ("h.example:77", "sslmode=require&tls=true&"), ("%2Frun%2Fs", "")):
        user, password, path, name, value, fragment = words
        url = f"{scheme}://{user}:{password}@{host}/{path}?{extra}{name}={value}#{fragment}"
        try:
            service = backing_service("X", url)
        except ValueError:
            assert host.startswith("%2F") or scheme.endswith(("+unix", "+socket"))
            continue
        if service.talk is None:
            assert scheme == "s3"
            continue
        everything = all_that_is_said(service).decode("latin-1") + repr(service._replace(talk=None))
        assert not [word for word in words if word.lower() in everything.lower()]


def test_the_same_url_gives_the_same_service() -> None:
    """A reload compares what a process needs, so equal must be equal; and they are keys of dicts."""
    for url in ASKED:
        first, second = backing_service("X", url), backing_service("X", url)
        assert first == second
        assert hash(first) == hash(second)


def test_named() -> None:
    assert named(backing_service("DATABASE_URL", "postgres://db/x")) == "DATABASE_URL (PostgreSQL at db:5432)"
    assert named(backing_service("DATABASE_URL", "sqlite::memory:")) == "DATABASE_URL (file)"


def test_what_http_is_asked() -> None:
    def head(url: str) -> bytes:
        talk = backing_service("X", url).talk
        assert talk is not None
        return talk.hello

    assert head("http://h/secret?x=1").startswith(b"HEAD / HTTP/1.1\r\nHost: h\r\n")
    assert head("http://h/").endswith(b"Connection: close\r\n\r\n")
    assert b"\r\nHost: h:8080\r\n" in head("http://h:8080")
    assert b"\r\nHost: h\r\n" in head("https://h:443")
    assert b"\r\nHost: h:443\r\n" in head("http://h:443")
    assert b"\r\nHost: [::1]:81\r\n" in head("http://[::1]:81")
    assert b"\r\nHost: [fe80::1]\r\n" in head("http://[fe80::1%25eth0]")
    assert b"\r\nHost: localhost\r\n" in head("http+unix://%2Frun%2Fs")


def test_a_socket_without_a_protocol_is_redis_only_where_it_says_so() -> None:
    redis = TALKS[greetings.REDIS]
    assert backing_service("X", "unix:///run/redis.sock").talk == redis
    assert backing_service("REDIS_URL", "unix:///run/s").talk == redis
    assert backing_service("DOCKER_HOST", "unix:///run/docker.sock").talk != redis


def test_with_a_login_memcached_is_asked_in_bytes() -> None:
    for url, start in (("memcached://h", b"version\r\n"), ("memcached://u:p@h", b"\x80\x0b")):
        talk = backing_service("X", url).talk
        assert talk is not None
        assert talk.hello.startswith(start)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        *((url, True) for url, kind, *_ in URLS if kind not in ("HTTP", "TCP") and url[:4] != "unix"),
        ("tcp://h:1", True),
        ("sqlite:///app.db", True),
        ("sqlite::memory:", True),
        ("mongodb+srv://h", True),
        ("http://h", False),
        ("https://h", False),
        ("unix:///run/x", False),
        ("file:///x", False),
        ("kafka://h:1", False),
        ("postgres", False),
        ("postgres:x", False),
        ("redis", False),
        ("a: b", False),
        ("", False),
    ],
)
def test_which_urls_name_a_backing_service_by_themselves(url: str, expected: bool) -> None:
    assert is_known(url) is expected


@settings(max_examples=EXAMPLES, deadline=None, database=None, print_blob=True)
@given(st.text(max_size=60), st.sampled_from(["", "redis://", "postgres://", "mysql://u:p@", "mongodb://a,", "s3://"]))
def test_any_text_is_a_service_or_an_error_for_people(text: str, start: str) -> None:
    is_known(start + text)
    masked(start + text)
    failure: Exception | None = None
    try:
        service = backing_service("X", start + text)
    except ValueError as error:
        failure = error
    if failure is not None:
        assert type(failure) is ValueError  # no UnicodeError
        assert str(failure).startswith(("it", "its", "what"))
        return
    assert service.where.isprintable()
    assert all(host.isascii() and 0 <= port <= 65_535 for host, port in service.hosts)


# --- what may be shown -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgres://u:p@db/name?sslmode=require", "postgres://u:***@db/name?sslmode=require"),
        ("postgres://u@db/name", "postgres://u@db/name"),
        ("jdbc:mysql://u@db/name", "jdbc:mysql://u@db/name"),
        ("postgresql+psycopg://u@db/name", "postgresql+psycopg://u@db/name"),
        ("redis://p@db/0", "redis://***@db/0"),  # Lettuce takes it for the password
        ("nats://token@db:4222", "nats://***@db:4222"),
        ("https://token@h", "https://***@h"),
        ("amqp://u:p@a//;amqp://u:q@b//", "amqp://u:***@b//"),
        ("redis://:p@db:1/0", "redis://:***@db:1/0"),
        ("redis://u:p@w@db", "redis://u:***@db"),
        ("redis://u:p/w@db/0", "redis://u:***@db/0"),
        ("redis://u:p?w#x@db/0", "redis://u:***@db/0"),
        ("redis://u:12/w@db", "redis://u:***@db"),
        ("redis://db/0?mail=a@b", "redis://***@b"),
        ("https://ghp_0123456789abcdef@github.com", "https://***@github.com"),
        ("https://hooks.example.org/services/T0/B0/xyz", "https://hooks.example.org/***"),
        ("https://h/", "https://h/"),
        ("https://h", "https://h"),
        ("https://h?token=x&port=1#y", "https://h?token=***&port=1#***"),
        ("postgres:///x?password=p&host=/run/pg&flag", "postgres:///x?password=***&host=/run/pg&flag"),
        ("mysql://u:p@a,b/n", "mysql://u:***@a,b/n"),
        ("mysql://h/n;user=u;password=p", "mysql://h/n;***"),
        ("jdbc:sqlserver://h:1433;user=u;password=p", "jdbc:sqlserver://h:1433;***"),
        ("sqlite:///app.db", "sqlite:///app.db"),
        ("jdbc:postgresql://db/x?user=u&password=p", "jdbc:postgresql://db/x?user=***&password=***"),
        ("redis://u:p@db/\x1b[31m\u202e", "redis://u:***@db/?[31m?"),
        ("secret", "***"),
        ("", "***"),
        ("sec ret://x", "***"),
    ],
)
def test_masked(url: str, shown: str) -> None:
    assert masked(url) == shown


ODD_PASSWORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=20)


@settings(max_examples=EXAMPLES, deadline=None, database=None, print_blob=True)
@given(ODD_PASSWORDS, st.sampled_from(["postgres", "https", "redis", "amqp"]), st.sampled_from(["", "u"]))
def test_no_piece_of_a_password_is_shown_however_it_is_written(password: str, scheme: str, user: str) -> None:
    shown = masked(f"{scheme}://{user}:{password}@db.example/0")
    assert shown == f"{scheme}://{user}:***@db.example/{'***' if scheme == 'https' else '0'}"


# --- the judges ------------------------------------------------------------------------------------------------------


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def postgres_error(code: str, text: str) -> bytes:
    return message(b"E", f"SFATAL\0VFATAL\0C{code}\0M{text}\0Fpostmaster.c\0L2329\0\0".encode())


def packet(body: bytes, number: int = 0) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([number]) + body


def mysql_error(code: int, text: str) -> bytes:
    return packet(b"\xff" + code.to_bytes(2, "little") + text.encode())


MYSQL_GREETING = packet(b"\x0a11.4.2-MariaDB\0" + bytes(60))
AMQP_START = b"\x01\0\0\0\0\x01\xf2\0\x0a\0\x0a\0\x09" + bytes(489) + b"\xce"


def mongo_reply(answers: int = 0x70726F63, operation: int = 2013, length: int | None = None) -> bytes:
    document = b"\x10\0\0\0\x01ok\0" + bytes(8) + b"\0"
    body = b"\0\0\0\0\0" + document
    head = (16 + len(body) if length is None else length, 99, answers, operation)
    return b"".join(number.to_bytes(4, "little") for number in head) + body


ANSWERS = [
    # kind, answer, None: ready, else the reason
    ("PostgreSQL", message(b"R", (10).to_bytes(4, "big") + b"SCRAM-SHA-256\0\0"), None),
    ("PostgreSQL", message(b"R", bytes(4)) + message(b"S", b"a\0b\0"), None),
    ("PostgreSQL", postgres_error("28000", 'role "procman" does not exist'), None),
    ("PostgreSQL", postgres_error("53300", "sorry, too many clients already"), None),
    ("PostgreSQL", postgres_error("57P03", "the database system is starting up"), "the database system is starting up"),
    ("PostgreSQL", postgres_error("57P01", "terminating\n\x1b[31m connection"), "terminating [31m connection"),
    ("PostgreSQL", postgres_error("57P02", "x" * 500), "x" * 97 + "..."),
    ("PostgreSQL", b"Ecould not fork new process: no memory\n\0", "could not fork new process: no memory"),
    ("PostgreSQL", postgres_error("no", "x"), "speaks no PostgreSQL"),
    ("PostgreSQL", b"HTTP/1.1 400 Bad Request\r\n", "speaks no PostgreSQL, but HTTP"),
    ("PostgreSQL", b"ERROR\r\n", "speaks no PostgreSQL"),
    ("PostgreSQL", b"RFB 003.008\n", "speaks no PostgreSQL"),
    ("PostgreSQL", b"E" * 2000, "speaks no PostgreSQL"),
    ("MySQL", MYSQL_GREETING, None),
    ("MySQL", mysql_error(1040, "Too many connections"), None),
    ("MySQL", mysql_error(1129, "Host 'x' is blocked\x07"), "Host 'x' is blocked"),
    ("MySQL", mysql_error(1053, "#08S01Server shutdown in progress"), "Server shutdown in progress"),
    ("MySQL", mysql_error(1053, ""), "error 1053"),
    ("MySQL", packet(b"\x0a11.4", number=2), "speaks no MySQL"),
    ("MySQL", packet(b"\x0a11.4.2 without an end"), "speaks no MySQL"),
    ("MySQL", packet(b"\x09old"), "speaks no MySQL"),
    ("MySQL", b"220 mail ESMTP\r\n", "speaks no MySQL, but SMTP"),
    ("MySQL", b"SSH-2.0-OpenSSH\r\n", "speaks no MySQL, but SSH"),
    ("Redis", b"+PONG\r\n", None),
    ("Redis", b"-NOAUTH Authentication required.\r\n", None),
    ("Redis", b"-DENIED Redis is running in protected mode because\r\n", None),
    ("Redis", b"-NOPERM this user has no permissions\r\n", None),
    ("Redis", b"-ERR max number of clients reached\r\n", None),
    ("Redis", b"-LOADING Redis is loading the dataset in memory\r\n", "LOADING Redis is loading the dataset in memory"),
    ("Redis", b"-MASTERDOWN Link with MASTER is down\r\n", "MASTERDOWN Link with MASTER is down"),
    ("Redis", b"-BUSY Redis is busy running a script.\r\n", "BUSY Redis is busy running a script."),
    ("Redis", b"+OK POP3 ready\r\n", "speaks no Redis"),
    ("Redis", b"+PONGO\r\n", "speaks no Redis"),
    ("Redis", b"-lower\r\n", "speaks no Redis"),
    ("Redis", b"-" + b"A" * 5000, "speaks no Redis"),
    ("Redis", b"HTTP/1.0 400 x\r\n", "speaks no Redis, but HTTP"),
    ("Redis", b"\x15\x03\x01\0\x02\x02\x46", "speaks no Redis, but TLS"),
    ("Memcached", b"VERSION 1.6.38\r\n", None),
    ("Memcached", b"CLIENT_ERROR unauthenticated\r\n", None),
    ("Memcached", b"ERROR Too many open connections\r\n", None),
    ("Memcached", b"SERVER_ERROR out of memory\r\n", "SERVER_ERROR out of memory"),
    ("Memcached", b"\x81\x0b\0\0\0\0\0\0\0\0\0\x06" + bytes(12) + b"1.6.38", None),
    ("Memcached", b"\x81\x0a" + bytes(22), "speaks no Memcached"),
    ("Memcached", b"ERROR\r\n", "speaks no Memcached"),
    ("Memcached", b"-ERR unknown command\r\n", "speaks no Memcached, but Redis"),
    ("AMQP", AMQP_START, None),
    ("AMQP", b"AMQP\0\x01\0\0", None),
    ("AMQP", b"\x01\0\0\0\0\x01\xf2\0\x0a\0\x0b", "speaks no AMQP"),
    ("AMQP", b"\x01\0\0\xff\xff\xff\xff\0\x0a\0\x0a", "speaks no AMQP"),
    ("AMQP", b"\x01\0\x01\0\0\x01\xf2\0\x0a\0\x0a", "speaks no AMQP"),
    ("AMQP", b"ERROR\r\n", "speaks no AMQP"),
    ("Beanstalkd", b"USING default\r\n", None),
    ("Beanstalkd", b"DRAINING\r\n", "DRAINING"),
    ("Beanstalkd", b"UNKNOWN_COMMAND\r\n", "speaks no Beanstalkd"),
    ("SMTP", b"220 mail ESMTP Postfix\r\n", None),
    ("SMTP", b"220-mail\r\n220 more\r\n", None),
    ("SMTP", b"421 mail too busy\r\n", "421 mail too busy"),
    ("SMTP", b"450 later\n", "450 later"),
    ("SMTP", b"554 no \x00\xff SMTP here\r\n", "554 no \ufffd SMTP here"),
    ("SMTP", b"250 ok\r\n", "speaks no SMTP"),
    ("SMTP", b"2200 x\r\n", "speaks no SMTP"),
    ("SMTP", b"+OK\r\n", "speaks no SMTP"),
    ("HTTP", b"HTTP/1.1 200 OK\r\n\r\n", None),
    ("HTTP", b"HTTP/1.0 301\r\n\r\n", None),
    ("HTTP", b"HTTP/1.1 401 Unauthorized\r\nA: b\r\n\r\n", None),
    ("HTTP", b"HTTP/1.1 404 Not Found\n\n", None),
    ("HTTP", b"HTTP/1.1 501 Unsupported method ('HEAD')\r\n\r\n", None),
    ("HTTP", b"HTTP/1.1 500 Oops\r\n", "answers 500"),
    ("HTTP", b"HTTP/1.1 503 \x1b]0;x\x07\r\n", "answers 503"),
    ("HTTP", b"HTTP/1.1 2000 OK\r\n", "speaks no HTTP"),
    ("HTTP", b"HTTP/1.1 abc\r\n", "speaks no HTTP"),
    ("HTTP", b"HTTP/2.0 200 \r\n", "speaks no HTTP"),
    ("HTTP", b"+PONG\r\n", "speaks no HTTP, but Redis"),
    ("MongoDB", mongo_reply(), None),
    ("MongoDB", mongo_reply(answers=1), "speaks no MongoDB"),
    ("MongoDB", mongo_reply(operation=1), "speaks no MongoDB"),
    ("MongoDB", mongo_reply(length=20), "speaks no MongoDB"),
    ("MongoDB", mongo_reply(length=2**31), "speaks no MongoDB"),
    ("MongoDB", b"HTTP/1.0 200 OK\r\n", "speaks no MongoDB, but HTTP"),
]  # fmt: skip

JUDGES: dict[str, Callable[[bytes, bool], Verdict | None]] = {
    **{kind: talk.judge for kind, talk in TALKS.items()},
    "HTTP": greetings.judge_http,
}


@pytest.mark.parametrize(("kind", "answer", "reason"), ANSWERS)
def test_judges_take_any_cut_of_an_answer(kind: str, answer: bytes, reason: str | None) -> None:
    """Whatever the pieces: first more is needed, then there is one verdict, and it is the same as for the whole."""
    judge = JUDGES[kind]
    whole = judge(answer, False)
    assert whole == (Verdict(True) if reason is None else Verdict(False, reason))
    before: Verdict | None = None
    for end in range(len(answer) + 1):
        verdict = judge(answer[:end], False)
        if before is None:
            closed = judge(answer[:end], True)
            assert closed is not None, "the end of the connection is the end of waiting"
            if verdict is None:
                when = "in the middle of its" if end else "without an"
                assert closed.reason == f"closed the connection {when} answer"
        elif verdict is not None:
            assert verdict.is_ok == before.is_ok
        before = verdict or before
    assert before is not None
    assert before.is_ok == (reason is None)


def test_judges_need_more_of_nothing() -> None:
    for judge in JUDGES.values():
        assert judge(b"", False) is None
        assert judge(b"", True) == Verdict(False, "closed the connection without an answer")
    assert greetings.judge_connected(b"", False) == Verdict(True)


HOSTILE = st.one_of(
    st.binary(max_size=200),
    st.tuples(st.sampled_from([answer for _, answer, _ in ANSWERS]), st.integers(0, 60), st.binary(max_size=40)).map(
        lambda parts: parts[0][: parts[1]] + parts[2]
    ),
)


@settings(max_examples=EXAMPLES, deadline=None, database=None, print_blob=True)
@given(HOSTILE, st.booleans())
def test_no_answer_upsets_a_judge(answer: bytes, is_closed: bool) -> None:
    for kind, judge in JUDGES.items():
        verdict = judge(answer, is_closed)
        assert verdict is not None or not is_closed, kind
        if verdict is not None:
            assert verdict.reason.isprintable()
            assert len(verdict.reason) <= 120
            assert verdict.is_ok == (verdict.reason == "")
    found = judge_postgres_tls(answer)
    assert found is not True or answer == b"S"


@pytest.mark.parametrize("kind", sorted(JUDGES))
def test_no_judge_waits_for_ever(kind: str) -> None:
    """64 KiB of one byte: the conversation ends there at the latest, most judges much before."""
    for byte in range(256):
        assert JUDGES[kind](bytes([byte]) * 2000, False) is not None, byte


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", None),
        (b"S", True),
        (b"N", Verdict(False, "offers no TLS, which its URL asks for")),
        (b"SX", Verdict(False, "speaks no PostgreSQL")),  # CVE-2021-23222: nothing comes before the handshake
        (b"E", None),
        (postgres_error("57P03", "starting up"), Verdict(False, "starting up")),
        (postgres_error("08P01", "unsupported"), Verdict(False, "refuses TLS, which its URL asks for")),
        (b"HTTP/1.1", Verdict(False, "speaks no PostgreSQL, but HTTP")),
    ],
)
def test_the_answer_to_a_request_for_tls(answer: bytes, expected: bool | Verdict | None) -> None:
    assert judge_postgres_tls(answer) == expected


# --- what is said ----------------------------------------------------------------------------------------------------


def test_postgres_is_greeted_as_the_protocol_says() -> None:
    hello = TALKS["PostgreSQL"].hello
    assert int.from_bytes(hello[:4], "big") == len(hello)
    assert hello[4:8] == b"\0\x03\0\0"
    words = hello[8:].split(b"\0")
    assert words == [b"user", b"procman", b"database", b"postgres", b"application_name", b"procman", b"", b""]
    assert list(POSTGRES_SSL_REQUEST) == [0, 0, 0, 8, 4, 210, 22, 47]


def test_mongodb_is_greeted_as_the_protocol_says() -> None:
    hello = TALKS["MongoDB"].hello
    assert int.from_bytes(hello[:4], "little") == len(hello)
    assert int.from_bytes(hello[12:16], "little") == 2013
    document = hello[21:]
    assert int.from_bytes(document[:4], "little") == len(document)
    assert document[4:] == b"\x10hello\0\x01\0\0\0\x02$db\0\x06\0\0\0admin\0\0"


def test_what_a_peer_said_is_one_printable_line() -> None:
    assert told(b"a\r\n\tb\x1b[0m \xff\xe2\x80\xae c") == "a b [0m \ufffd c"
    assert told(b"x" * 1000) == "x" * 97 + "..."
    assert told(b"") == ""
