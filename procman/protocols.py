"""The URL of a backing service -> what it is, where it is, and what to ask it. Pure; docs/services.md has the rules.

A `BackingService` keeps no user, password or query of its URL, and no message here holds any part of a URL.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from procman.greetings import (
    AMQP,
    BEANSTALKD,
    HTTP,
    MEMCACHED,
    MEMCACHED_BINARY_QUIT,
    MEMCACHED_BINARY_VERSION,
    MONGODB,
    MYSQL,
    POSTGRES_SSL_REQUEST,
    POSTGRESQL,
    REDIS,
    SMTP,
    TALKS,
    http_talk,
    judge_connected,
    judge_postgres_tls,
)
from procman.greetings import Talk as Talk
from procman.greetings import Verdict as Verdict
from procman.records import NamedTuple

TCP = "TCP"
SOCKET = "socket"
FILE = "file"

Hosts = tuple[tuple[str, int], ...]


class BackingService(NamedTuple):
    """An attached resource: what a variable names. Any of its hosts will do."""

    variable: str  # DATABASE_URL
    kind: str  # "PostgreSQL"
    hosts: Hosts  # (host, port) in order; with a `path` tried after it
    path: str = ""  # of a Unix socket; of a file that is a database
    talk: Talk | None = None  # None: there is nothing to ask, so it counts as there
    note: str = ""  # why nothing is asked: "a file"

    @property
    def where(self) -> str:
        """Return `localhost:5432` or a path, for messages: all that is tried."""
        return ",".join([*([self.path] if self.path else []), *(_address(host, port) for host, port in self.hosts)])


class _Scheme(NamedTuple):
    kind: str
    port: int = 0  # unless the URL says another; 0: it must
    is_tls: bool = False
    host: str = ""  # that clients take for an empty one


_LOCAL = "localhost"
_POSTGRES = _Scheme(POSTGRESQL, 5432, host=_LOCAL)
_MYSQL = _Scheme(MYSQL, 3306, host=_LOCAL)
_REDIS = _Scheme(REDIS, 6379, host=_LOCAL)
_REDIS_TLS = _Scheme(REDIS, 6379, is_tls=True, host=_LOCAL)
_SENTINEL = _Scheme(REDIS, 26379)
_FILE = _Scheme(FILE)

SCHEMES = {
    **dict.fromkeys(("postgres", "postgresql", "postgis"), _POSTGRES),
    "cockroachdb": _Scheme(POSTGRESQL, 26257),
    "redshift": _Scheme(POSTGRESQL, 5439),
    **dict.fromkeys(("mysql", "mysql2", "mysqlgis", "trilogy"), _MYSQL),
    "mariadb": _MYSQL._replace(kind="MariaDB"),
    **dict.fromkeys(("redis", "valkey"), _REDIS),
    **dict.fromkeys(("rediss", "valkeys", "redis+ssl", "redis+tls"), _REDIS_TLS),
    **dict.fromkeys(("redis+sentinel", "redis-sentinel"), _SENTINEL),
    **dict.fromkeys(("memcached", "memcache"), _Scheme(MEMCACHED, 11211)),
    **dict.fromkeys(("amqp", "pyamqp"), _Scheme(AMQP, 5672, host=_LOCAL)),
    "amqps": _Scheme(AMQP, 5671, is_tls=True, host=_LOCAL),
    **dict.fromkeys(("beanstalkd", "beanstalk"), _Scheme(BEANSTALKD, 11300)),
    "smtp": _Scheme(SMTP, 25),
    "submission": _Scheme(SMTP, 587),
    **dict.fromkeys(("smtps", "smtp+ssl", "submissions"), _Scheme(SMTP, 465, is_tls=True)),
    "http": _Scheme(HTTP, 80),
    "https": _Scheme(HTTP, 443, is_tls=True),
    "s3": _Scheme("S3", 443, is_tls=True),
    "mongodb": _Scheme(MONGODB, 27017),
    "mongodb+srv": _Scheme(MONGODB, 27017, is_tls=True),
    "tcp": _Scheme(TCP),
    "unix": _Scheme(SOCKET),
    **dict.fromkeys(("sqlite", "sqlite3", "spatialite", "file"), _FILE),
}
"""By the scheme of the URL; behind a `+` that is not here a driver is named, as in postgresql+psycopg."""

_UNIX_DRIVERS = ("unix", "socket")  # redis+unix:///run/redis.sock
_SMTPS_PORT = 465


class _Url(NamedTuple):
    """The parts of a URL as they stand in it."""

    scheme: str
    userinfo: str
    hosts: str
    path: str
    query: str


# The scheme, what stands up to the first / ? or #, the path, the query. No URL has blanks or control characters.
_URL = re.compile(r"(?:jdbc:)?([A-Za-z][A-Za-z0-9+.-]*)://([^\s/?#]*)([^\s?#]*)(?:\?([^\s#]*))?(?:#(\S*))?")


def backing_service(variable: str, url: str) -> BackingService:
    """Return what `variable`, with the value `url`, names. Raises ValueError, whose text holds nothing of the value."""
    urls = re.split(r";(?=[A-Za-z][A-Za-z0-9+.-]*://)", url.strip())
    if urls[1:]:  # Celery's way to name the brokers that stand in for each other
        found = [backing_service(variable, each) for each in urls]
        if any((each.kind, each.path, each.talk) != (found[0].kind, "", found[0].talk) for each in found):
            raise ValueError("it names services of several kinds")
        return found[0]._replace(hosts=tuple(host for each in found for host in each.hosts))
    if re.match(r"sqlite3?:(?!//)", url.strip()):  # sqlite::memory:, sqlite:app.db
        return BackingService(variable, FILE, (), note="a file")
    parts = _split(url)
    scheme, is_unix = _scheme_of(parts)
    if scheme.kind == FILE:
        path = re.sub("^/", "", parts.path) if parts.scheme != "file" else parts.path  # sqlite:////var/app.db
        return BackingService(variable, FILE, (), _printable(_decoded(path)), note="a file")
    if parts.scheme == "mongodb+srv":
        host = _host(parts.hosts, scheme)
        return BackingService(variable, MONGODB, ((host, 0),), note="its hosts stand in SRV records of the DNS")
    if scheme.kind == "S3" and not re.search(":[0-9]+$", parts.hosts):
        return BackingService(variable, "S3", (), note="a bucket, at no host of its own")
    query = _query(parts.query)
    hosts, path = _places(parts, scheme, query, is_unix)
    # unix:// is how Redis clients name their socket, and others theirs.
    if scheme.kind == SOCKET and re.search("redis|valkey", f"{variable} {path}", re.IGNORECASE):
        scheme = _REDIS
    return BackingService(variable, scheme.kind, hosts, path, _talk(parts, scheme, query, hosts, path))


def named(service: BackingService) -> str:
    """Return `DATABASE_URL (PostgreSQL at localhost:5432)`, for messages."""
    place = f" at {service.where}" if service.where else ""
    return f"{service.variable} ({service.kind}{place})"


def is_known(url: str) -> bool:
    """Tell whether this is the URL of a backing service by its scheme alone. http and https may be any page."""
    scheme = re.match(r"\s*(?:jdbc:)?([A-Za-z][A-Za-z0-9+.-]*):", url)
    if scheme is None:
        return False
    name = _plain(scheme[1].lower())[0]
    return name in SCHEMES and name not in ("http", "https", "file", "unix") and ("://" in url or name == "sqlite")


def _split(url: str) -> _Url:
    found = re.fullmatch(_URL, url.strip())
    if found is None:
        raise ValueError("it is no URL such as postgres://localhost/name")
    scheme, authority, path, query, fragment = (part or "" for part in found.groups())
    userinfo, _, hosts = authority.rpartition("@")
    # A raw / ? or # in a password ends the host too early: then what looks like host and port is part of the secret.
    is_web = scheme.lower() in ("http", "https")
    odd_query = any("@" in part.partition("=")[0] for part in query.split("&"))
    if (not is_web and "@" in path) or "@" in fragment or odd_query:
        raise ValueError("it has an @ behind its host; / ? # and @ of a password must be written %2F %3F %23 %40")
    return _Url(scheme.lower(), userinfo, hosts, path, query)


def _plain(scheme: str) -> tuple[str, str]:
    """Return the scheme without what names a driver or a wrapper, and the driver."""
    scheme = scheme.removeprefix("db+")  # Celery's
    if scheme in SCHEMES:
        return scheme, ""
    base, _, driver = scheme.partition("+")
    return base, driver


def _scheme_of(url: _Url) -> tuple[_Scheme, bool]:
    """Return the scheme, and whether the URL names a Unix socket by its path."""
    name, driver = _plain(url.scheme)
    if name == "unix":
        return _Scheme(SOCKET), True
    scheme = SCHEMES.get(name)
    if scheme is None:
        if not re.search(":[0-9]+$", url.hosts):
            known = "postgres, mysql, redis, memcached, amqp, beanstalkd, smtp, https, mongodb"
            raise ValueError(f"its scheme is not known and it has no port; known: {known}; else tcp://host:port")
        return _Scheme(TCP), False
    return scheme, driver in _UNIX_DRIVERS


# --- where it is -----------------------------------------------------------------------------------------------------

_POSTGRES_DIRECTORY = "/var/run/postgresql"


def _places(url: _Url, scheme: _Scheme, query: dict[str, str], is_unix: bool) -> tuple[Hosts, str]:
    """Return hosts, and the path of a Unix socket."""
    if is_unix:
        path = _decoded(url.hosts or url.path)  # http+unix://%2Frun%2Fapp.sock/page
        return (), _socket_path(path)
    if scheme.kind == POSTGRESQL:
        return _postgres_places(url, scheme, query)
    if scheme.kind in (MYSQL, "MariaDB"):
        named = next((query[name] for name in ("unix_socket", "socket", "socketpath") if query.get(name)), "")
        if named:
            return (), _socket_path(named)
    if scheme.kind == MEMCACHED and not url.hosts and url.path.strip("/"):
        return (), _socket_path(_decoded(url.path))
    paths, hosts = _listed(url.hosts, scheme)
    return hosts, paths[0] if paths else ""


def _listed(text: str, scheme: _Scheme) -> tuple[list[str], Hosts]:
    """Return the Unix sockets and the hosts of `a:1,b:2`."""
    paths, hosts = [], []
    for part in text.split(","):
        if _decoded(part).startswith("/"):
            paths.append(_socket_path(_decoded(part)))
            continue
        found = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::([^:]*))?", part)
        if found is None:
            raise ValueError("its host is none; an IPv6 address stands in brackets, as in [::1]:5432")
        hosts.append((_host(found[1], scheme), _port(found[2] or "", scheme)))
    return paths, tuple(hosts)


def _postgres_places(url: _Url, scheme: _Scheme, query: dict[str, str]) -> tuple[Hosts, str]:
    """libpq's rules: a host of the query wins, one that begins with / is the directory of a Unix socket."""
    text = query.get("hostaddr") or query.get("host", "")
    ports = query.get("port", "").split(",")
    if text:
        words = text.split(",")
        ports = ports if len(ports) == len(words) else ports[:1] * len(words)
        named = [(word, _port(port, scheme)) for word, port in zip(words, ports, strict=True)]
    else:
        named = []
        for part in url.hosts.split(","):
            word, _, port = part.rpartition(":") if re.search(r":[^:\]]*$", part) else (part, "", "")
            named.append((_decoded(word) if "%2f" in word.lower() else word, _port(port or ports[0], scheme)))
    paths = [f"{word.rstrip('/')}/.s.PGSQL.{port}" for word, port in named if word.startswith(("/", "@"))]
    if not text and not url.hosts:
        paths = [f"{_POSTGRES_DIRECTORY}/.s.PGSQL.{named[0][1]}"]  # where libpq looks first, and other clients never
    hosts = tuple((_host(word, scheme), port) for word, port in named if not word.startswith(("/", "@")))
    return hosts, _socket_path(paths[0]) if paths else ""


def _host(text: str, scheme: _Scheme) -> str:
    """Return a host name in ASCII, or an address without its brackets."""
    if text.startswith("[") and text.endswith("]"):
        address = _decoded(text[1:-1])
        if not re.fullmatch(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]+)?", address):
            raise ValueError("what stands in brackets is no IPv6 address")
        return address
    name = _decoded(text).lower() or scheme.host
    if not name:
        raise ValueError("it has no host")
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError:
            raise ValueError("its host is no host name") from None
    if ":" in name and re.fullmatch(r"[0-9a-f:.]+", name):  # host=::1 in a query
        return name
    if not re.fullmatch(r"[a-z0-9_-][a-z0-9._-]{0,252}", name):
        raise ValueError("its host is no host name")
    return name


def _port(text: str, scheme: _Scheme) -> int:
    if not text and scheme.port:
        return scheme.port
    if not text:
        raise ValueError("it has no port")
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= 65_535:
        raise ValueError("its port is no number from 1 to 65535")
    return int(text)


def _socket_path(path: str) -> str:
    if not path.startswith(("/", "@")) or "\0" in path or not path.isprintable() or len(path) < 2:
        raise ValueError("it names no path of a socket")
    return path


def _address(host: str, port: int) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"{name}:{port}" if port else name


def _printable(path: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in path)


def _decoded(text: str) -> str:
    """Resolve %2F and the like."""
    if "%" not in text:
        return text
    data = text.encode("utf-8", "replace")
    data = re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), data)
    return data.decode("utf-8", "replace")


def _query(text: str) -> dict[str, str]:
    """Return the parameters of the query by name, in lower case."""
    pairs = (part.partition("=") for part in text.split("&") if part)
    return {_decoded(name).lower(): _decoded(value) for name, _, value in pairs}


# --- what to ask it --------------------------------------------------------------------------------------------------

_YES = ("1", "true", "yes", "on", "require", "required")


def _talk(url: _Url, scheme: _Scheme, query: dict[str, str], hosts: Hosts, path: str) -> Talk:
    special: dict[str, Callable[[], Talk]] = {
        TCP: lambda: Talk(b"", judge_connected),
        SOCKET: lambda: Talk(b"", judge_connected),
        HTTP: lambda: _web_talk(hosts, scheme),
        "S3": lambda: _web_talk(hosts, scheme),
        POSTGRESQL: lambda: _postgres_talk(query, path),
        "MariaDB": lambda: TALKS[MYSQL],
        MEMCACHED: lambda: _memcached_talk(url),
    }
    talk = special[scheme.kind]() if scheme.kind in special else TALKS[scheme.kind]
    is_tls = scheme.is_tls and scheme.kind != "S3"
    if scheme.kind == SMTP and hosts:
        is_tls = is_tls or hosts[0][1] == _SMTPS_PORT
    if scheme.kind == MONGODB:
        is_tls = any(query.get(name, "").lower() in _YES for name in ("tls", "ssl"))
    return talk._replace(tls="first") if is_tls and not path else talk


def _web_talk(hosts: Hosts, scheme: _Scheme) -> Talk:
    if not hosts:
        return http_talk(_LOCAL)
    host, port = hosts[0]
    is_tls = scheme.is_tls and (scheme.kind == HTTP or port == scheme.port)
    talk = http_talk(_address(host.partition("%")[0], 0 if port == scheme.port else port))
    return talk._replace(tls="first") if is_tls else talk


def _postgres_talk(query: dict[str, str], path: str) -> Talk:
    """TLS where the client would insist on it; libpq never does on a Unix socket."""
    talk = TALKS[POSTGRESQL]
    is_tls = query.get("sslmode", "") in ("require", "verify-ca", "verify-full") or query.get("ssl", "") in _YES
    if not is_tls or path:
        return talk
    if query.get("sslnegotiation") == "direct":
        return talk._replace(tls="first", alpn=("postgresql",))
    return talk._replace(tls="upgrade", upgrade=POSTGRES_SSL_REQUEST, upgrade_judge=judge_postgres_tls)


def _memcached_talk(url: _Url) -> Talk:
    """Where users log in (SASL) only the protocol in bytes is spoken, which no longer every server does."""
    if not url.userinfo:
        return TALKS[MEMCACHED]
    return TALKS[MEMCACHED]._replace(hello=MEMCACHED_BINARY_VERSION, goodbye=MEMCACHED_BINARY_QUIT)


# --- what may be shown -----------------------------------------------------------------------------------------------

MASK = "***"
_LOGGED_IN_BY_NAME = (POSTGRESQL, MYSQL, "MariaDB", AMQP, SMTP, MONGODB)
"""Kinds where what stands alone in front of the @ is a user."""
_SHOWN_PARAMETERS = re.compile(
    r"(ssl|tls)(mode|negotiation)?|host(addr)?|port|db|dbname|unix_?socket|socket(path)?|charset|encoding|replicaset"
    r"|authsource|connect_?timeout|timeout|pool(_?size)?|retrywrites|family|heartbeat",
    re.IGNORECASE,
)


def masked(url: str) -> str:
    """Return `url` as it may be shown: no password, no path of a web page, no parameter that is not known as harmless.

    Where user and host end is taken by the last @, so that nothing of a badly written password is shown.
    """
    scheme, sign, rest = url.strip().partition("://")
    if not sign or not re.fullmatch("[A-Za-z][A-Za-z0-9+.:-]*", scheme):
        return MASK
    userinfo, at, rest = rest.rpartition("@")
    rest, hash_sign, _ = rest.partition("#")
    rest, question, query = rest.partition("?")
    rest, semicolon, _ = rest.partition(";")  # parameters as JDBC writes them
    host, slash, path = rest.partition("/")
    user, colon, _ = userinfo.partition(":")
    # A token as in https://ghp_…@github.com or nats://…@host, a password as in redis://…@host; a @ far behind the host.
    known = SCHEMES.get(_plain(scheme.lower().removeprefix("jdbc:"))[0])
    is_name = known is not None and known.kind in _LOGGED_IN_BY_NAME and len(user) < 16
    is_secret = (not colon and not is_name) or re.search("[/?#]", user)
    is_web = scheme.lower() in ("http", "https")
    shown = [
        f"{scheme}://",
        MASK if is_secret and at else user,
        f":{MASK}" if colon else "",
        at,
        host,
        slash,
        MASK if is_web and path else path,
        f";{MASK}" if semicolon else "",
        question,
        "&".join(_masked_parameter(part) for part in query.split("&")) if query else "",
        f"#{MASK}" if hash_sign else "",
    ]
    return _printable("".join(shown))


def _masked_parameter(part: str) -> str:
    name, sign, _ = part.partition("=")
    return part if not sign or re.fullmatch(_SHOWN_PARAMETERS, name) else f"{name}={MASK}"
