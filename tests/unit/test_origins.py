"""Where each variable comes from, and what is shown of it."""

from __future__ import annotations

import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procman.config import ProcessSettings, Settings
from procman.environment import Binding, EnvFile, merged
from procman.errors import SourceRef
from procman.origins import CALLER, MASK, PROCMAN, Origin, masked, origins
from procman.procfile import ProcessType
from procman.spec import ProcessSpec, resolve, resolve_one_off

EXAMPLES = int(os.environ.get("PROCMAN_FUZZ_EXAMPLES", "200"))
TYPES = [ProcessType(name, "run", SourceRef("Procfile", line)) for line, name in enumerate(("web", "worker"), 1)]
COUNTS = {"web": 2, "worker": 1}


def env_file(path: str, *pairs: tuple[str, str]) -> EnvFile:
    bindings = (Binding(name, value, SourceRef(path, line)) for line, (name, value) in enumerate(pairs, 1))
    return EnvFile(path, tuple(bindings), ())


def found(
    files: list[EnvFile], found_settings: Settings, caller: dict[str, str], name: str = "web.1"
) -> dict[str, list[Origin]]:
    specs = resolve(TYPES, merged(files), COUNTS, found_settings, caller)
    spec = next(spec for spec in specs if spec.name == name)
    return origins(spec, TYPES, files, found_settings, caller)


# --- all layers ---

# Names that every layer may have, so that they meet: those procman sets among them.
NAMES = st.sampled_from(
    ["A", "B", "PORT", "PORT_WEB", "PORT_WORKER", "PS", "PWD", "PYTHONUNBUFFERED", "PROCMAN_PROCESS", "PROCMAN_RUN"]
)
PAIRS = st.lists(st.tuples(NAMES, st.sampled_from(["1", "2", "", "x y"])), max_size=8)
LAYERS = st.dictionaries(NAMES, st.sampled_from(["3", "4", ""]))


@settings(max_examples=EXAMPLES, deadline=None, database=None, print_blob=True)
@given(
    st.lists(PAIRS, max_size=3), LAYERS, LAYERS, st.booleans(), st.none() | st.sampled_from([1, 5000]), st.booleans()
)
def test_the_last_origin_is_what_the_process_gets(
    files: list[list[tuple[str, str]]],
    caller: dict[str, str],
    own: dict[str, str],
    dotenv_wins: bool,
    base_port: int | None,
    is_one_off: bool,
) -> None:
    """The environment as origins tell it is the one that `spec` and the caller make, whatever says what."""
    read = [env_file(f"{number}.env", *pairs) for number, pairs in enumerate(files)]
    given_settings = Settings(
        "/app",
        dotenv_wins=dotenv_wins,
        base_port=base_port,
        processes={"web": ProcessSettings(SourceRef("procman.toml", 1), env=own)},
    )
    specs: list[ProcessSpec]
    if is_one_off:
        entry = ProcessType("", "", SourceRef("command line"))
        specs = [resolve_one_off(entry, TYPES, merged(read), given_settings, caller)]
    else:
        specs = resolve(TYPES, merged(read), COUNTS, given_settings, caller)
    for spec in specs:
        told = origins(spec, TYPES, read, given_settings, caller)
        assert {name: setters[-1].value for name, setters in told.items()} == {**caller, **spec.env}
        assert list(told) == sorted(told)
        for name, setters in told.items():
            says = [name in caller, name in own and spec.process_type == "web"]
            says += [name == named for pairs in files for named, _ in pairs]
            assert sum(setter.place != PROCMAN for setter in setters) == sum(says)  # nobody is forgotten


def test_places() -> None:
    files = [env_file("a.env", ("A", "1"), ("A", "2")), env_file("b.env", ("A", "3"), ("PORT", "9"))]
    own = ProcessSettings(SourceRef("procman.toml", 7), env={"A": "4"})
    told = found(files, Settings("/app", processes={"web": own}), {"A": "0", "B": "x"})
    assert told["A"] == [
        Origin(CALLER, "0"),
        Origin("a.env:1", "1"),
        Origin("a.env:2", "2"),
        Origin("b.env:1", "3"),
        Origin("procman.toml:7", "4"),
    ]
    assert told["B"] == [Origin(CALLER, "x")]
    assert told["PORT"] == [Origin("b.env:2", "9"), Origin(PROCMAN, "5000")]
    assert told["PORT_WORKER"] == [Origin(PROCMAN, "5100")]
    other = found(files, Settings("/app", processes={"web": own}), {}, "worker.1")
    assert other["A"][-1] == Origin("b.env:1", "3")  # the table of another type


def test_places_where_the_caller_wins() -> None:
    told = found([env_file(".env", ("A", "1"), ("B", "2"))], Settings("/app", dotenv_wins=False), {"A": "0"})
    assert told["A"] == [Origin(".env:1", "1"), Origin(CALLER, "0")]
    assert told["B"] == [Origin(".env:2", "2")]


# --- secrets ---


@pytest.mark.parametrize(
    "name",
    [
        "API_KEY", "APIKEY", "STRIPE_API_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "SECRET_KEY_BASE",
        "RAILS_MASTER_KEY", "DB_PASSWORD", "PGPASSWORD", "MYSQL_PWD", "DB_PASS", "GITHUB_TOKEN", "apiToken",
        "SENTRY_DSN", "PASSPHRASE", "PRIVATE_KEY", "GOOGLE_CREDENTIALS", "SESSION_COOKIE", "NPM_CONFIG__AUTH", "KEY",
        "KEY_1", "KEYS", "spring.datasource.password", "jwt.key", "GITHUB_PAT", "SLACK_WEBHOOK_URL", "JWT",
    ],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    assert masked(name, "hunter2") == MASK
    assert masked(name, "") == ""  # that it is empty is what one looks for


@pytest.mark.parametrize(
    "name",
    [
        "PATH", "HOME", "PWD", "OLDPWD", "SSH_AUTH_SOCK", "XAUTHORITY", "KEYBOARD", "MONKEY", "BYPASS", "COMPASS_URL",
        "AUTHOR", "DATABASE_URL", "SSL_CERT_FILE", "SECRET_KEY_FILE", "TOKEN_PATH", "PATTERN", "PORT", "LANG",
    ],
)  # fmt: skip
def test_names_of_others(name: str) -> None:
    assert masked(name, "/some/value") == "/some/value"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("postgres://u:hunter2@host/db", f"postgres://u:{MASK}@host/db"),
        ("redis://:hunter2@host", f"redis://:{MASK}@host"),
        ("postgres://u:hun/ter?2#@host/db", f"postgres://u:{MASK}@host/db"),
        ("a://u:hunter2@h,b://v:hunter2@i", f"a://u:{MASK}@h,b://v:{MASK}@i"),
        ("x a://u:hunter2@h y", f"x a://u:{MASK}@h y"),
        ("https://ghp_0123456789abcdef@github.com/x", f"https://{MASK}@github.com/x"),
        ("redis://hunter2@host/0", f"redis://{MASK}@host/0"),
        ("nats://hunter2@host:4222", f"nats://{MASK}@host:4222"),
        ("postgres://u@host/db", "postgres://u@host/db"),
        ("jdbc:mysql://h/db?user=u&password=hunter2&x=1", f"jdbc:mysql://h/db?user=u&password={MASK}&x=1"),
        ("jdbc:sqlserver://h:1;pwd=hunter2;x=1", f"jdbc:sqlserver://h:1;pwd={MASK};x=1"),
        ("https://h/b?X-Amz-Signature=hunter2", f"https://h/b?X-Amz-Signature={MASK}"),
        ("host=h password='hunter 2' dbname=x", f"host=h password={MASK} dbname=x"),
        ("-Dtrust.password=hunter2 --api-key=hunter2 -Xkey=1", f"-Dtrust.password={MASK} --api-key={MASK} -Xkey=1"),
        ("-----BEGIN RSA PRIVATE KEY-----\nhunter2\n", MASK),
        ("http://localhost:3000/@vite", "http://localhost:3000/@vite"),
        ("http://host:80/?mail=a@b", "http://host:80/?mail=a@b"),
        ("ssh://git@github.com/x", "ssh://git@github.com/x"),
        ("-----BEGIN CERTIFICATE-----\nMII", "-----BEGIN CERTIFICATE-----\nMII"),
        ("12:30 a@b", "12:30 a@b"),
    ],
)
def test_values_with_a_secret_inside(value: str, shown: str) -> None:
    assert masked("X", value) == shown


@pytest.mark.parametrize(
    "piece", ["://x:", "://", "://a:b@", "://a:" + "b" * 300, "@", "://x:1/", "a-", "a=", "a='", "-"]
)
def test_masking_ends_soon(piece: str) -> None:
    before = time.monotonic()
    masked("X", piece * (130_000 // len(piece)))
    assert time.monotonic() - before < 10  # the square of it would be minutes
