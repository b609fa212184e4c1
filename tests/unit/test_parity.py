"""Warnings of what will not run elsewhere (issue 7, must hold 7; docs/check.md)."""

from __future__ import annotations

from pathlib import Path

import pytest

from procman.environment import EnvFile, parse_env
from procman.errors import WARNING, SourceRef
from procman.parity import (
    MANIFESTS,
    bound_port,
    folders_named,
    has_manifest,
    kinds_beside,
    literal_port,
    names_beside,
    no_manifest,
    tracked,
)
from procman.procfile import ProcessType, parse_procfile

PROCFILES = Path(__file__).parents[1] / "corpus" / "procfiles"


def env(text: str, path: str = ".env") -> EnvFile:
    return parse_env(text.encode(), path)


# --- X: .env and its example ---


def beside(example: str, mine: str | None, *others: str) -> list[str]:
    found = names_beside(env(example, ".env.example"), example, None if mine is None else env(mine), others)
    assert all(problem.severity == WARNING for problem in found)
    assert "hunter2" not in str(found)
    return [str(problem) for problem in found]


MISSING = "set there what the app needs; here comment out what it can do without"
UNKNOWN = "name there, without values, what others need to know of"


def test_a_warning_for_each_direction() -> None:
    assert beside("A=\nB=hunter2\nC=\n", "Z=hunter2\nB=hunter2\nD=1\nZ=2\n") == [
        f".env.example: warning: A and C are missing from .env (twelve-factor X, dev/prod parity) — {MISSING}",
        f".env: warning: Z and D are missing from .env.example (twelve-factor X, dev/prod parity) — {UNKNOWN}",
    ]
    assert beside("A=\n", "B=1\nA=\n") == [
        f".env: warning: B is missing from .env.example (twelve-factor X, dev/prod parity) — {UNKNOWN}"
    ]


@pytest.mark.parametrize(
    ("example", "mine"),
    [
        ("A=\nB=x\n", "B=1\nA=2\n"),
        ("", ""),
        ("# A=\n#B = x\n  # # export C=1\n", "A=1\nB=2\nC=3\n"),
        ("# A=optional\nB=\n", "B=1\n"),
        ("export A=\n", "A=1\n"),
    ],
)
def test_nothing_to_say(example: str, mine: str) -> None:
    assert beside(example, mine) == []


def test_prose_in_a_comment_names_nothing() -> None:
    assert beside("# set A=1 or B=2\n# C\n", "A=1\nB=1\nC=1\n")[0].startswith(".env: warning: A, B and C are missing")


def test_what_is_set_elsewhere_is_not_missing() -> None:
    assert beside("A=\nB=\n", "A=1\n", "B", "C") == []
    assert beside("A=\nB=\n", None, "A", "B") == []
    assert beside("A=\nB=\n", None, "A") == [
        (
            ".env.example: warning: B is not set: there is no .env (twelve-factor X, dev/prod parity)"
            " — copy this file to .env and fill it in"
        )
    ]


def test_many_names_are_counted() -> None:
    [text] = beside("".join(f"N{number}=\n" for number in range(12)), "")
    assert "N0, N1, N2, N3, N4, N5, N6, N7, N8 and 3 more are missing" in text
    [text] = beside("".join(f"N{number}=\n" for number in range(10)), "")
    assert "N7, N8 and N9 are missing" in text


# --- III and II ---


def test_tracked() -> None:
    text = str(tracked("app/.env"))
    assert text.startswith("app/.env: warning: git tracks this file, and every secret in it (twelve-factor III, c")
    assert " — git rm --cached .env, add it to .gitignore" in text


def test_no_manifest() -> None:
    assert str(no_manifest("app/Procfile")).startswith(
        "app/Procfile: warning: no dependency manifest or lock file beside it (twelve-factor II, dependencies)"
    )


# --- IV: kinds of backing services ---


def kinds(mine: str, theirs: str) -> list[str]:
    found = kinds_beside(env(f"X=1\nA_URL='{mine}'\n"), env(f"\nA_URL='{theirs}'\nY=1\n", ".env.production"))
    assert all(problem.severity == WARNING for problem in found)
    return [str(problem) for problem in found]


@pytest.mark.parametrize(
    ("mine", "theirs", "said"),
    [
        ("sqlite:///app.db", "postgres://u:hunter2@db/app", "is PostgreSQL here and a file in .env"),
        ("mysql://db/app", "postgresql+psycopg2://db/app", "is PostgreSQL here and MySQL in .env"),
        ("redis://localhost", "amqps://mq.example.org", "is AMQP here and Redis in .env"),
        ("memcached://localhost:11211", "rediss://cache", "is Redis here and Memcached in .env"),
        ("file:///var/files", "s3://bucket", "is S3 here and a file in .env"),
        ("sqlite::memory:", "jdbc:postgresql://db/app", "is PostgreSQL here and a file in .env"),
        ("sqlite:///app.db", "postgres://USER:PASSWORD@HOST:PORT/NAME", "is PostgreSQL here and a file in .env"),
    ],
)
def test_a_service_of_another_kind(mine: str, theirs: str, said: str) -> None:
    [text] = kinds(mine, theirs)
    assert text == (
        f".env.production:2: warning: A_URL {said} (twelve-factor IV, backing services)"
        " — use the same kind of backing service everywhere"
    )


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("postgres://localhost/app", "postgresql+asyncpg://u:p@db.example.org/app"),
        ("redis://localhost", "rediss://cache.example.org"),
        ("mysql2://localhost", "mariadb://db"),
        ("http://localhost:3000", "https://example.org"),
        ("http://localhost:9000/bucket", "s3://bucket"),
        ("file:///schema.json", "https://example.org/schema.json"),
        ("tcp://localhost:5432", "postgres://db"),
        ("unix:///run/redis.sock", "redis://cache"),
        ("locmem://", "redis://cache"),  # nothing is known of it
        ("localhost:5432", "postgres://db"),
        ("", "postgres://db"),
        ("redis", "postgres"),
        ("redis: none", "postgres://db"),
        ("true", "no"),
    ],
)
def test_the_same_kind_or_none_that_is_known(mine: str, theirs: str) -> None:
    assert kinds(mine, theirs) == []
    assert kinds(theirs, mine) == []


def test_what_only_one_file_sets_has_no_kind_to_differ_from() -> None:
    assert kinds_beside(env("A=sqlite:///x\n"), env("B=postgres://db\n")) == []
    assert kinds_beside(env("A=postgres://db\nA=sqlite:///x\n"), env("A=sqlite:///y\nA=postgres://db\n")) != []


# --- VII: ports ---

BOUND = {
    "rails server -p 3000": 3000,
    "bin/rails s -b 0.0.0.0 -p3000": 3000,
    "bundle exec puma -p 8080": 8080,
    "puma -b tcp://0.0.0.0:9292": 9292,
    "puma -b 'ssl://0.0.0.0:9292?key=a&cert=b'": 9292,
    "env A=1 rails s -p 3000": 3000,
    "gunicorn app:app -b 0.0.0.0:8000": 8000,
    "gunicorn app:app -b ${HOST:-0.0.0.0}:8000": 8000,
    "gunicorn app:app --bind=$HOST:8000": 8000,
    "gunicorn app:app --bind=:8000": 8000,
    "gunicorn -b '[::]:8000' app:app": 8000,
    "uvicorn app:app --host 0.0.0.0 --port 8000": 8000,
    "uvicorn app:app --port=8000": 8000,
    "hypercorn -b localhost:8000 app": 8000,
    "waitress-serve --listen=*:8080 app:app": 8080,
    "daphne -b 0.0.0.0 -p 8000 app": 8000,
    "flask run -p 5001": 5001,
    "python -m flask run --port 5001": 5001,
    "python manage.py runserver 8000": 8000,
    "python manage.py runserver 0.0.0.0:8000": 8000,
    "python manage.py runserver --noreload 0.0.0.0:8000": 8000,
    "python -m http.server 8000": 8000,
    "python -m debugpy --listen 5678 manage.py runserver 0.0.0.0:8000": 8000,
    "php -S localhost:8000 -t public": 8000,
    "php artisan serve --port=8000": 8000,
    "java -Dserver.port=8080 -jar app.jar": 8080,
    "java -jar app.jar --server.port=8080": 8080,
    "uwsgi --http :8080 --module app": 8080,
    "uwsgi --http-socket 8080": 8080,
    "serve -l 3000": 3000,
    "npx serve -s build -l 3000": 3000,
    "next start -p 3000": 3000,
    "dotnet app.dll --urls http://+:5000": 5000,
    "./app -addr :8080": 8080,
    "./app 0.0.0.0:8080": 8080,
    "PORT=3000 npm start": 3000,
    'PORT="3000" npm start': 3000,
    "cd client && PORT=3000 npm start": 3000,
    "cross-env PORT=3000 node server.js": 3000,
    "bash -c 'rails s -p 3000'": 3000,
    "bash -lc \"rails s -p 3000\"": 3000,
    "mkdir -p 3000 && rails s -p 4000": 4000,
    "docker run -p 8080:80 nginx": 8080,
    "docker run --publish=127.0.0.1:8080:80 nginx": 8080,
}  # fmt: skip

NOT_BOUND = [
    # They use PORT.
    "rails server -p $PORT",
    "rails server -p ${PORT:-3000}",
    "gunicorn -b 0.0.0.0:${PORT} --statsd-host localhost:8125 app",
    "uvicorn app:app --port $PORT & prometheus --web.listen-address :9090",
    "node -e 'listen(process.env.PORT)' --port 3000",
    "server.exe --port %PORT%",
    "PORT=${WEB_PORT:-3000} npm start",
    "sh -c 'rails s -p $PORT'",
    # Another variable is not literal.
    "rails server -p $WEB_PORT",
    "gunicorn -b 0.0.0.0:$WEB_PORT app",
    # They read PORT themselves, or a file.
    "npm start",
    "python app.py",
    "bundle exec puma -C config/puma.rb",
    "gunicorn app:app --workers 4 --timeout 120 --max-requests 1000",
    "bundle exec puma -t 5:5",
    # -p is no port.
    "supervisor -p 10000 main.js",
    "mkdir -p 3000 && npm start",
    "gunicorn -p 3000 app",
    "uwsgi -p 8000",
    "node -p 3000",
    # Somebody else's port.
    "psql --port 5432 -c 'select 1' && npm start",
    "wait-for-it db:5432 && npm start",
    "nc -l 8080",
    "curl http://localhost:8000",
    "node --inspect=0.0.0.0:9229 server.js",
    "node --inspect 0.0.0.0:9229 server.js",
    "python -m debugpy --listen 0.0.0.0:5678 app.py",
    "dlv debug --listen=:2345",
    "java -agentlib:jdwp=transport=dt_socket,address=*:5005 -jar app.jar",
    "java -Dmanagement.server.port=8081 -jar app.jar",
    "DATABASE_URL=postgres://localhost:5432/app npm start",
    "SITE_BASE_URL=http://localhost:8000 python manage.py runserver",
    "BASE_URL=http://0.0.0.0:8000 npm start",
    "WEBPACK_PORT=3035 npm start",
    "./app --redis-addr localhost:6379",
    "./app --addr localhost:6379",
    "docker run -e PORT=3000 app",
    "ngrok http 3000",
    "celery -b localhost:5672 worker",
    # No ports at all.
    "gunicorn --bind unix:/tmp/app.sock app",
    "bin/rails s -b 0.0.0.0",
    "sleep 3000",
    "echo 8000",
    "rails s -p 99999",
    "rails s # -p 3000",
    "rails s -p '3000",
    "",
]


@pytest.mark.parametrize(("command", "port"), BOUND.items(), ids=BOUND)
def test_a_literal_port(command: str, port: int) -> None:
    assert bound_port(command) == port


@pytest.mark.parametrize("command", NOT_BOUND)
def test_no_literal_port(command: str) -> None:
    assert bound_port(command) is None


def test_only_web_is_bound_to_use_its_port() -> None:
    source = SourceRef("Procfile", 2)
    assert literal_port(ProcessType("admin", "rails s -p 3000", source)) == []
    [problem] = literal_port(ProcessType("web", "rails s -p 3000", source))
    assert str(problem) == (
        'Procfile:2: warning: "web" binds port 3000, not the one it is given (twelve-factor VII, port binding)'
        " — write $PORT for 3000"
    )
    [problem] = literal_port(ProcessType("web", "PORT=3000 npm start", source))
    assert problem.hint == "remove PORT=3000: PORT is set by whoever starts it"


CORPUS = {
    "004": 3000, "005": 8000, "008": 5000, "038": 3000, "055": 5000, "059": 3000, "062": 5000, "066": 3000,
    "259": 5000, "260": 5000, "263": 3000, "272": 3000, "273": 3000, "286": 8000,
}  # fmt: skip


def test_the_real_procfiles() -> None:
    """Each of these was looked at: the number is a port that the command listens on. No other file has one."""
    found = {
        path.stem: bound_port(entry.command)
        for path in sorted(PROCFILES.glob("*.txt"))
        for entry in parse_procfile(path.read_bytes(), path.name).types
        if literal_port(entry)
    }
    assert found == CORPUS


# --- II: dependencies ---


@pytest.mark.parametrize("name", [name for names in MANIFESTS.values() for name in names])
def test_manifests(name: str) -> None:
    assert has_manifest(["Procfile", "README.md", name.replace("*", "app")])


def test_what_is_none() -> None:
    names = ["Procfile", ".env", "app.py", "README.md", "package.json.bak", "Dockerfile", "GEMFILE", "my-pom.xml"]
    assert not has_manifest(names)
    assert not has_manifest([])


def test_folders_that_commands_name() -> None:
    types = parse_procfile(
        b"web: cd api/v1 && npm start\nworker: python shop/app.py --dir=./data\n"
        b"odd: /usr/bin/x ../y ~/z $A/b -d/c 'q r/s'\n",
        "Procfile",
    ).types
    found = folders_named(types)
    assert [name for name in found if "/" in name or name in ("api", "shop", "data", "r")] == [
        "api/v1", "api", "shop/app.py", "shop", "data", "r/s", "r"
    ]  # fmt: skip
    assert not [name for name in found if name.startswith(("/", "..", "~", "$", "-", "usr"))]
    assert len(folders_named([ProcessType("x", " ".join(f"a{n}/b" for n in range(500)), SourceRef(""))])) <= 101
