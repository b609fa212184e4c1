"""What `procman check` says of an app that will not run elsewhere as it runs here: five of the twelve factors.

Texts and facts come in, warnings go out; who reads the files and asks git is cli/check.py. No message holds a value of
an env file. In doubt nothing is said: a warning that is wrong once is not read again. Rules: docs/check.md.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from procman.environment import EnvFile
from procman.errors import WARNING, Problem, SourceRef, quoted
from procman.procfile import ProcessType
from procman.protocols import FILE, SCHEMES, SOCKET, TCP

ENV = ".env"
PRODUCTION = ".env.production"
EXAMPLES = (".env.example", ".env.sample")
"""The first that is there counts."""


def _warning(message: str, factor: str, source: SourceRef, hint: str) -> Problem:
    return Problem(WARNING, f"{message} (twelve-factor {factor})", source, hint)


# --- X: .env and its example -----------------------------------------------------------------------------------------

MOST_NAMES = 10


def names_beside(example: EnvFile, text: str, env: EnvFile | None, others: Iterable[str] = ()) -> list[Problem]:
    """Return what only one of `.env` and its example names: a warning for each direction.

    `text` is that of the example. `others` are names that need not stand in `.env`: another env file,
    or the caller, sets them. A name that is commented out in the example is optional: it may be missing, and it is
    known.
    """
    mine = {binding.name for binding in env.bindings} if env else set()
    theirs = {binding.name for binding in example.bindings}
    found = []
    if missing := _in_order(example, theirs - mine - {*others}):
        if env:
            message = f"{_listed(missing)} missing from {SourceRef(env.path)}"
            hint = "set there what the app needs; here comment out what it can do without"
        else:
            message, hint = f"{_listed(missing)} not set: there is no {ENV}", f"copy this file to {ENV} and fill it in"
        found.append(_warning(message, "X, dev/prod parity", SourceRef(example.path), hint))
    if env and (unknown := _in_order(env, mine - theirs - _commented_out(text))):
        hint = "name there, without values, what others need to know of"
        message = f"{_listed(unknown)} missing from {SourceRef(example.path)}"
        found.append(_warning(message, "X, dev/prod parity", SourceRef(env.path), hint))
    return found


def _in_order(file: EnvFile, names: set[str]) -> list[str]:
    return [name for name in dict.fromkeys(binding.name for binding in file.bindings) if name in names]


def _listed(names: list[str]) -> str:
    """Return `A is`, `A and B are`, `A, B and 7 more are`."""
    shown = [quoted(name)[1:-1] for name in names]
    if len(names) > MOST_NAMES:
        shown[MOST_NAMES - 1 :] = [f"{len(names) - MOST_NAMES + 1} more"]
    if len(shown) == 1:
        return f"{shown[0]} is"
    return f"{', '.join(shown[:-1])} and {shown[-1]} are"


def _commented_out(text: str) -> set[str]:
    return set(re.findall(r"^[ \t]*#[# \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.]*)[ \t]*=", text, re.MULTILINE))


# --- III: .env in git ------------------------------------------------------------------------------------------------


def tracked(path: str) -> Problem:
    """Return what to say of an env file that git tracks."""
    hint = f"git rm --cached {posixpath.basename(path)}, add it to .gitignore, and change the secrets that were in it"
    return _warning("git tracks this file, and every secret in it", "III, config", SourceRef(path), hint)


# --- IV: the kinds of backing services -------------------------------------------------------------------------------

_ALIKE = {"S3": "HTTP", "MariaDB": "MySQL"}
"""What an URL of the other kind may name, too: MinIO is reached by http://, MariaDB by mysql://."""

_SHOWN = {FILE: "a file"}
_SAYS_NOTHING = (TCP, SOCKET)


def kinds_beside(env: EnvFile, production: EnvFile) -> list[Problem]:
    """Return a warning for each backing service that is of one kind in `.env` and of another in production."""
    here = {binding.name: binding for binding in env.bindings}
    there = {binding.name: binding for binding in production.bindings}
    found = []
    for name, binding in there.items():
        mine, theirs = _scheme(here[name].value) if name in here else "", _scheme(binding.value)
        if not mine or not theirs or {mine, theirs} <= {"http", "https", "file"}:  # a page, or a copy of it
            continue
        kinds = SCHEMES[mine].kind, SCHEMES[theirs].kind
        if len({_ALIKE.get(kind, kind) for kind in kinds}) == 1:
            continue
        mine, theirs = (_SHOWN.get(kind, kind) for kind in kinds)
        message = f"{quoted(name)[1:-1]} is {theirs} here and {mine} in {SourceRef(env.path)}"
        hint = "use the same kind of backing service everywhere"
        found.append(_warning(message, "IV, backing services", binding.source, hint))
    return found


def _scheme(url: str) -> str:
    """Return the scheme of a URL that names a backing service of a known kind, or "".

    Nothing but the scheme is looked at: the rest of a template need not be a URL yet.
    """
    found = re.match(r"\s*(?:jdbc:)?([A-Za-z][A-Za-z0-9+.-]*):", url)
    if found is None or not (url[found.end() :].startswith("//") or found[1].lower().startswith("sqlite")):
        return ""
    name = found[1].lower().removeprefix("db+")
    name = name if name in SCHEMES else name.partition("+")[0]  # without the driver
    return name if name in SCHEMES and SCHEMES[name].kind not in _SAYS_NOTHING else ""


# --- VII: a web process that binds a port of its own -----------------------------------------------------------------


def literal_port(entry: ProcessType) -> list[Problem]:
    """Return a warning if `entry` is `web` and its command binds a port that stands in it, whatever PORT says."""
    if entry.name != "web" or (port := bound_port(entry.command)) is None:
        return []
    message = f'"web" binds port {port}, not the one it is given'
    if re.search(rf"(?<![A-Za-z0-9_])PORT=[\"']?{port}\b", entry.command):
        hint = f"remove PORT={port}: PORT is set by whoever starts it"
    else:
        hint = f"write $PORT for {port}"
    return [_warning(message, "VII, port binding", entry.source, hint)]


_MENTIONS_PORT = r"(?<![A-Za-z0-9_])PORT(?![A-Za-z0-9_]|=[\"']?[0-9])"
"""PORT, but not as the name of an assignment of a number: $PORT, ${PORT:-5000}, %PORT%, process.env.PORT."""

_HOSTS = r"0\.0\.0\.0|127\.0\.0\.1|localhost|\[[0-9A-Fa-f:.]*\]|\*|\+|\$[A-Za-z_]\w*|\$\{[^{}]*\}"
_PLACE = rf"(?:(?:tcp|ssl|http|https)://)?(?:{_HOSTS})?:([0-9]{{2,5}})(?:[/?].*)?"  # :80, 0.0.0.0:80, tcp://0.0.0.0:80
_EVERYWHERE = r"(?:0\.0\.0\.0|\[::\]|\*)"  # nobody connects to these
_NUMBER = r"([0-9]{2,5})"

_PORT_OPTIONS = frozenset(("--port", "--http-port", "--http.port", "--server.port", "--server-port", "--listen-port"))
_PLACE_OPTIONS = frozenset((
    *("-b", "--bind", "-bind", "-l", "--listen", "-listen", "-S", "--http", "-http", "--http-socket", "--urls"),
    *("--listen-address", "--web.listen-address"),
))  # fmt: skip
_ADDRESS_OPTIONS = frozenset(("--addr", "-addr", "--address", "-address", "--http-address"))
"""A client is told such an address, too, so it must be one to listen on."""

_NUMBER_TOO = frozenset(("--listen", "-listen", "--http", "--http-socket"))
"""Options for places that take a number alone as well."""

_SHORT_PORT = frozenset(
    """
    airflow daphne flask http-server hugo json-server litestar live-server mlflow next nuxt parcel passenger pserve puma
    rackup rails rainbows sanic serve shotgun superset thin twistd unicorn
    """.split()  # noqa: SIM905 - as in spec.py
)
"""Servers whose -p is the port. Elsewhere it may be a pid file, a number of processes or an interval."""

_NO_SERVER = frozenset(
    """
    bundle-audit celery curl debugpy dlv dockerize kafkacat kcat mongo mongosh mysql mysqladmin mysqldump nc ncat ngrok
    pg_isready psql ptvsd rdbg rdebug-ide redis-cli scp ssh telnet wait-for wait-for-it wait-for-it.sh wait-for.sh
    wait-on wget
    """.split()  # noqa: SIM905
)
"""Programs whose port is another's, or a debugger's."""

_JAVA_PORT = re.compile(
    r"-D(?:server|http|jetty|jetty\.http|quarkus\.http|micronaut\.server|play\.server\.http)\.port=([0-9]{2,5})"
)
_CONTAINERS = frozenset(("docker", "podman", "nerdctl"))
_SHELLS = frozenset(("sh", "bash", "dash", "zsh"))
_SEPARATORS = frozenset(("&&", "||", ";", "|", "&", "(", ")", ";;", "|&"))


MAX_COMMAND = 10_000
"""Characters that are looked at: the time of shlex grows with the square of a word's length."""


def bound_port(command: str) -> int | None:
    """Return the port that stands in `command` and that a server in it binds; None if there is none, or in doubt."""
    if len(command) > MAX_COMMAND or re.search(_MENTIONS_PORT, command):
        return None
    for words in _commands(command):
        for word in _ports(words):
            if 1 <= int(word) <= 65_535:
                return int(word)
    return None


def _commands(command: str) -> Iterator[list[str]]:
    """Yield the words of each simple command, those of `sh -c "…"` among them."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    try:
        for word in lexer:
            if word.startswith("#"):
                break
            if word in _SEPARATORS:
                yield words
                words = []
            elif len(words) > 1 and re.fullmatch("-[a-z]*c", words[-1]) and _program(words[-2]) in _SHELLS:
                yield from _commands(word)
            else:
                words.append(word)
    except ValueError:  # a quotation that does not close
        return
    yield words


def _program(word: str) -> str:
    return posixpath.basename(word)


def _ports(words: list[str]) -> Iterator[str]:
    """Yield each literal port that the one command `words` binds."""
    programs = {_program(word) for word in words}
    if programs & _NO_SERVER:
        # What the debugger runs may still be `runserver 0.0.0.0:8000`.
        words = words[next((at for at, word in enumerate(words) if word.startswith("runserver")), len(words)) :]
    has_short_port = bool(programs & _SHORT_PORT)
    for before, word, after in zip(["", *words], words, [*words[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        if name == "PORT" and equals and before not in ("-e", "--env"):
            yield from re.findall(f"^{_NUMBER}$", value)
        value = value if equals else after
        if name in _PORT_OPTIONS or (name == "-p" and has_short_port):
            yield from re.findall(f"^{_NUMBER}$", value)
        elif has_short_port and (short := re.fullmatch(f"-p{_NUMBER}", word)):
            yield short[1]
        elif name in _PLACE_OPTIONS:
            yield from re.findall(f"^{_PLACE}$", value)
            if name in _NUMBER_TOO or (name == "-l" and "serve" in programs):
                yield from re.findall(f"^{_NUMBER}$", value)
        elif name in _ADDRESS_OPTIONS:
            yield from re.findall(f"^{_EVERYWHERE}?:{_NUMBER}$", value)
        elif name in ("-p", "--publish") and programs & _CONTAINERS:
            yield from re.findall(f"^(?:[^:]*:)?{_NUMBER}:[0-9]+$", value)
        elif java := _JAVA_PORT.fullmatch(word):
            yield java[1]
        elif before in ("runserver", "runserver_plus", "http.server", "SimpleHTTPServer"):
            yield from re.findall(rf"^(?:[^\s:]*:|\[[^\]]*\]:)?{_NUMBER}$", word)
        elif not before.startswith("-") or "runserver" in words:
            yield from re.findall(f"^{_EVERYWHERE}:{_NUMBER}$", word)


# --- II: dependencies ------------------------------------------------------------------------------------------------

MANIFESTS: Mapping[str, tuple[str, ...]] = {
    "Python": (
        *("pyproject.toml", "requirements*.txt", "requirements*.in", "requirements", "setup.py", "setup.cfg"),
        *("Pipfile", "Pipfile.lock", "poetry.lock", "uv.lock", "pdm.lock", "pylock*.toml", "environment.yml"),
        *("environment.yaml", "conda-lock.yml", "pixi.toml", "pixi.lock"),
    ),
    "Node": ("package.json", "package-lock.json", "npm-shrinkwrap.json", "yarn.lock", "pnpm-lock.yaml"),
    "Bun": ("bun.lock", "bun.lockb"),
    "Deno": ("deno.json", "deno.jsonc", "deno.lock", "import_map.json"),
    "Ruby": ("Gemfile", "Gemfile.lock", "gems.rb", "gems.locked", "*.gemspec"),
    "Go": ("go.mod", "go.sum", "go.work", "Gopkg.toml", "glide.yaml"),
    "Rust": ("Cargo.toml", "Cargo.lock"),
    "PHP": ("composer.json", "composer.lock"),
    "Java, Kotlin, Scala": (
        *("pom.xml", "build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts", "gradle.lockfile"),
        *("build.sbt", "build.sc", "ivy.xml", "MODULE.bazel", "WORKSPACE", "WORKSPACE.bazel"),
    ),
    "Clojure": ("project.clj", "deps.edn", "shadow-cljs.edn", "build.boot"),
    "Elixir, Erlang, Gleam": ("mix.exs", "mix.lock", "rebar.config", "rebar.lock", "gleam.toml"),
    ".NET": (
        *("*.csproj", "*.fsproj", "*.vbproj", "*.sln", "*.slnx", "packages.config", "packages.lock.json"),
        *("paket.dependencies", "Directory.Packages.props", "Directory.Build.props", "project.json"),
    ),
    "Haskell": ("*.cabal", "stack.yaml", "stack.yaml.lock", "package.yaml", "cabal.project", "cabal.project.freeze"),
    "Swift": ("Package.swift", "Package.resolved"),
    "Dart": ("pubspec.yaml", "pubspec.lock"),
    "Nix, Guix": ("flake.nix", "flake.lock", "shell.nix", "default.nix", "devbox.json", "devenv.nix", "manifest.scm"),
    "Perl": ("cpanfile", "cpanfile.snapshot", "Makefile.PL", "Build.PL", "dist.ini", "META.json"),
    "R": ("renv.lock", "DESCRIPTION", "packrat", "init.R"),
    "Julia": ("Project.toml", "Manifest.toml", "JuliaProject.toml"),
    "Crystal": ("shard.yml", "shard.lock"),
    "OCaml": ("dune-project", "*.opam", "opam", "esy.json"),
    "Lua": ("*.rockspec", "luarocks.lock"),
    "Nim": ("*.nimble",),
    "D": ("dub.json", "dub.sdl"),
    "Elm": ("elm.json",),
    "Zig": ("build.zig.zon",),
    "C, C++": ("conanfile.txt", "conanfile.py", "vcpkg.json", "CMakeLists.txt", "meson.build"),
    "Common Lisp": ("*.asd", "qlfile", "qlfile.lock"),
}
"""Where each language declares what it depends on: names of files, with * for anything."""

_MANIFESTS = tuple(dict.fromkeys(name for names in MANIFESTS.values() for name in names))
_EXACT = frozenset(name for name in _MANIFESTS if "*" not in name)
_PATTERNS = tuple(name for name in _MANIFESTS if "*" in name)

MOST_FOLDERS = 100


def has_manifest(names: Iterable[str]) -> bool:
    """Tell whether one of the file `names` declares dependencies."""
    return any(name in _EXACT or any(fnmatchcase(name, known) for known in _PATTERNS) for name in names)


def folders_named(types: Iterable[ProcessType]) -> list[str]:
    """Return the relative folders that commands may name, as in `cd api && npm start` or `python shop/app.py`."""
    found: dict[str, None] = {}
    for entry in types:
        for word in re.split(r"[\s\"'=;&|()<>:,]+", entry.command[:MAX_COMMAND]):
            path = posixpath.normpath(word) if word else ""
            if not path or path.startswith(("/", "..", "-", "$", "~")) or path == "." or "\0" in path:
                continue
            while path and len(found) < MOST_FOLDERS:
                found[path] = None
                path = posixpath.dirname(path)
    return list(found)


def no_manifest(procfile: str) -> Problem:
    """Return what to say of a Procfile with no declaration of dependencies beside it, or above it in its repository."""
    hint = "declare what the app needs, in pyproject.toml, package.json, Gemfile, go.mod or what your language has"
    message = "no dependency manifest or lock file beside it"
    return _warning(message, "II, dependencies", SourceRef(procfile), hint)
