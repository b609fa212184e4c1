"""The one place where names, ports, environment and policies meet: `resolve()`."""

from __future__ import annotations

import re
import signal
from collections.abc import Collection, Iterable, Mapping, Sequence

from procman.config import DEFAULT, Settings
from procman.errors import REFUSED, ConfigError, Problem, ProcfileError, SourceRef
from procman.formation import RELEASE
from procman.ports import assign_ports, port_of, uses_port
from procman.procfile import ProcessType
from procman.records import NamedTuple
from procman.restart import ALWAYS, NEVER, ON_FAILURE, RestartPolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from procman.config import ProcessSettings
    from procman.environment import Binding
    from procman.protocols import BackingService
    from procman.readiness import Probe

SHELL = "/bin/sh"

# Linux refuses a single argument or environment string of 32 pages, its closing NUL included (execve(2), E2BIG).
MAX_STRING_BYTES = 131_072


class ProcessSpec(NamedTuple):
    """Everything needed to run one instance; nothing left to look up."""

    name: str  # "web.1", unique
    process_type: str  # "web"
    instance: int  # counts from 1
    type_index: int  # position of the type in the Procfile, from 0: its colour and its ports
    command: str  # as the Procfile says it
    argv: tuple[str, ...]  # ("/bin/sh", "-c", "exec gunicorn app")
    shared_env: Mapping[str, str]  # of all instances, one object: ports of the types, then .env files in order
    own_env: Mapping[str, str]  # of this one, over that: what its section says, then PORT and PS
    cwd: str  # absolute
    port: int | None
    stop_signal: int
    grace_s: float  # from stop signal to SIGKILL; 0 means at once, inf never
    restart: RestartPolicy
    on_exit: str  # "stop", "fail" or "ignore": what its end means for the run
    source: SourceRef  # Procfile:3, for messages
    ready: Probe | None = None  # None: as soon as it was spawned
    liveness: Probe | None = None
    needs: tuple[str, ...] = ()  # process types that must be ready first
    services: tuple[BackingService, ...] = ()  # and backing services that must answer

    @property
    def serves_port(self) -> bool:
        """Whether it is to listen on its PORT: the command uses it, or a probe asks there."""
        is_asked = any(probe is not None and probe.is_of_own_port for probe in (self.ready, self.liveness))
        return self.port is not None and (is_asked or uses_port(self.command))

    @property
    def env(self) -> dict[str, str]:
        """The overlay on the inherited environment."""
        return {**self.shared_env, **self.own_env}


def resolve(
    types: Sequence[ProcessType],
    dotenv: Mapping[str, Binding],
    counts: Mapping[str, int],
    settings: Settings,
    caller: Mapping[str, str],
) -> list[ProcessSpec]:
    """Return a spec for each instance of the formation `counts`, in Procfile order.

    `dotenv` is the merged `.env`, `caller` the inherited environment, of which only names are used, with `dotenv_wins`
    off, and the addresses of backing services. Raises ConfigError for ports and for a variable that should name a
    backing service, ProcfileError or ConfigError for a string too long to exec.
    """
    ports = assign_ports(counts, settings.base_port, settings.port_step) if settings.base_port is not None else {}
    env = {**defaults(types, settings, caller), **_base_env(dotenv, settings, caller)}
    specs = [
        _spec(entry, index, instance, ports, env, settings)
        for index, entry in enumerate(types)
        for instance in range(1, counts.get(entry.name, 0) + 1)
    ]
    if any(own.needs for own in settings.processes.values()):
        from procman.requirements import needs_by_type, services_by_type

        needs = needs_by_type(types, settings)
        running = {name: needed for name, needed in needs.items() if counts.get(name)}
        services = services_by_type(running, settings, {**caller, **env})
        specs = [
            spec._replace(needs=needs[spec.process_type].types, services=services.get(spec.process_type, ()))
            if spec.process_type in needs
            else spec
            for spec in specs
        ]
    _refuse_too_long(specs, dotenv)
    _refuse_without_port(specs)
    return specs


def resolve_one_off(
    entry: ProcessType,
    types: Sequence[ProcessType],
    dotenv: Mapping[str, Binding],
    settings: Settings,
    caller: Mapping[str, str],
) -> ProcessSpec:
    """Return the spec for `procman run` of `entry`: what `start` gives, but for the identity `run.1`.

    An entry of the Procfile gets its type's first port, any other command none (contract A5-A7). It waits for the
    backing services of its type, a command that says nothing of any for those of all types.
    """
    index = next((at for at, known in enumerate(types) if known.name == entry.name), None)
    with_port = index is not None and settings.base_port is not None
    counts = {known.name: int(with_port and known.name == entry.name) for known in types}
    ports = assign_ports(counts, settings.base_port or 0, settings.port_step) if with_port else {}
    env = {**defaults(types, settings, caller), **_base_env(dotenv, settings, caller)}
    spec = _spec(entry, index or 0, 1, ports, env, settings, shown="run.1")
    if any(own.needs for own in settings.processes.values()):
        from procman.requirements import needs_by_type, reachable_services, services_by_type

        needs = needs_by_type(types, settings)
        if entry.name in needs:
            own = {entry.name: needs[entry.name]}
            services = services_by_type(own, settings, {**caller, **env}).get(entry.name, ())
        else:
            services = reachable_services(needs, {**caller, **env})
        spec = spec._replace(services=services)
    _refuse_too_long([spec], dotenv)
    return spec


def release_types(settings: Settings) -> frozenset[str]:
    """Return the types that run to their end before the rest, when asked to (`start --release`)."""
    return frozenset((RELEASE, *(name for name, own in settings.processes.items() if own.phase == RELEASE)))


def after_release(specs: Sequence[ProcessSpec], releases: Collection[str]) -> list[ProcessSpec]:
    """Return `specs` with those of `releases` run to their end first, one after the other; a failure stops the run.

    What one of them needs is there before it: that starts as ever.
    """
    from procman.needs import closure, order
    from procman.readiness import COMPLETED, Probe

    needs = {spec.process_type: spec.needs for spec in specs}
    ordered = [name for step in order(needs) for name in step if name in releases]
    needed = closure(ordered, needs)
    found = []
    for spec in specs:
        if spec.process_type in ordered:
            first = ordered[: ordered.index(spec.process_type)]
            spec = spec._replace(
                ready=Probe(COMPLETED, spec.source, within_s=float("inf")),
                restart=spec.restart._replace(mode=NEVER),
                on_exit="fail",
            )
        else:
            first = [] if spec.process_type in needed else ordered
        found.append(spec._replace(needs=tuple(dict.fromkeys((*first, *spec.needs)))))
    return found


def without_needs(settings: Settings) -> Settings:
    """Return settings in which nothing waits for anything."""
    return settings._replace(
        processes={name: own._replace(needs=None) for name, own in settings.processes.items()},
    )


def _base_env(dotenv: Mapping[str, Binding], settings: Settings, caller: Mapping[str, str]) -> dict[str, str]:
    return {
        binding.name: binding.value
        for binding in dotenv.values()
        if settings.dotenv_wins or binding.name not in caller
    }


def defaults(types: Sequence[ProcessType], settings: Settings, caller: Mapping[str, str]) -> dict[str, str]:
    """Return what every instance is given, which `.env` may say otherwise.

    PORT_WEB=5000 … for every type: where an instance finds its neighbours.
    """
    # A pipe makes Python children hold their output back in blocks; nobody wants that from a process manager.
    env = {} if "PYTHONUNBUFFERED" in caller else {"PYTHONUNBUFFERED": "1"}
    if settings.base_port is not None:
        for index, entry in enumerate(types):
            name = f"PORT_{entry.name.upper().replace('-', '_')}"
            env[name] = str(port_of(settings.base_port, settings.port_step, index, 1))
    return env


def identity(shown: str, instance: int, port: int | None, root: str) -> dict[str, str]:
    """Return what tells an instance who and where it is; nothing overrides it."""
    env = {
        "PS": shown,
        "HONCHO_PROCESS_NAME": shown,
        "FOREMAN_WORKER_NAME": shown,
        "PROCMAN_PROCESS": shown,
        "PROCMAN_PROCESS_TYPE": shown.partition(".")[0],
        "PROCMAN_INSTANCE": str(instance),
        "PWD": root,
    }
    return env if port is None else {**env, "PORT": str(port)}


def _spec(
    entry: ProcessType,
    index: int,
    instance: int,
    ports: Mapping[str, range],
    env: Mapping[str, str],
    settings: Settings,
    shown: str = "",
) -> ProcessSpec:
    shown = shown or f"{entry.name}.{instance}"
    port = ports[entry.name][instance - 1] if entry.name in ports else None
    own = settings.processes.get(entry.name)
    ready = _ready(entry, own)
    mode = _restart_mode(entry.name, own, settings)
    if ready is not None and ready.is_by_end and mode == ALWAYS:
        mode = ON_FAILURE  # else it would never be done
    return ProcessSpec(
        name=shown,
        process_type=entry.name,
        instance=instance,
        type_index=index,
        command=entry.command,
        argv=shell_argv(entry.command),
        shared_env=env,
        own_env={**(own.env if own else {}), **identity(shown, instance, port, settings.root)},
        cwd=settings.root,
        port=port,
        stop_signal=signal.SIGTERM if own is None or own.stop_signal is None else own.stop_signal,
        grace_s=settings.grace_s if own is None or own.grace_s is None else own.grace_s,
        restart=RestartPolicy(mode, ok_codes=(0, *(() if own is None else own.success_codes))),
        on_exit=_on_exit(entry.name, own, ready, settings),
        source=entry.source,
        ready=ready,
        liveness=own.liveness if own else None,
    )


def _restart_mode(name: str, own: ProcessSettings | None, settings: Settings) -> str:
    section = None if own is None else own.restart
    # Of one file, what it says of this type counts before what it says of all; an option or variable beats both.
    is_of_file = not settings.origin("restart").startswith(("-", "PROCMAN_"))
    if name in settings.restart or ("all" in settings.restart and not (section and is_of_file)):
        return ALWAYS
    return section or NEVER


def _ready(entry: ProcessType, own: ProcessSettings | None) -> Probe | None:
    is_release = entry.name == RELEASE or (own is not None and own.phase == RELEASE)
    if not is_release or (own is not None and own.ready is not None):
        return None if own is None else own.ready
    from procman.readiness import COMPLETED, Probe

    return Probe(COMPLETED, entry.source, within_s=float("inf"))  # whoever needs a release step needs it done


def _on_exit(name: str, own: ProcessSettings | None, ready: Probe | None, settings: Settings) -> str:
    if name in settings.can_die:
        return "ignore"
    if own is None or own.on_exit is None:
        if own is not None and own.watch and settings.origin("on_exit") == DEFAULT:
            return "ignore"  # a mistake in a file is mended in the next minute
        # One that is there to end must not end the run by that.
        is_done = ready is not None and ready.is_by_end
        return "fail" if is_done and settings.on_exit == "stop" else settings.on_exit
    return own.on_exit


def _refuse_without_port(specs: Iterable[ProcessSpec]) -> None:
    """Raise ConfigError for probes of a port that no instance gets."""
    probes = dict.fromkeys(
        (spec.process_type, probe)
        for spec in specs
        if spec.port is None
        for probe in (spec.ready, spec.liveness)
        if probe is not None and probe.is_of_own_port
    )
    if probes:
        text = "has no port of its own to be asked on"
        hint = "write the number of the port, or let procman give ports"
        raise ConfigError.of(Problem(REFUSED, f"{name} {text}", probe.source, hint) for name, probe in probes)


def _refuse_too_long(specs: Iterable[ProcessSpec], dotenv: Mapping[str, Binding]) -> None:
    for binding in dotenv.values():
        size = len(os_bytes(binding.name)) + len(os_bytes(binding.value)) + 2
        if size > MAX_STRING_BYTES:
            raise ConfigError(
                f"the value of {binding.name} is too long: {size} bytes, and the system passes on {MAX_STRING_BYTES}",
                source=binding.source,
                hint="put it into a file and name the file here",
            )
    for spec in specs:
        if len(os_bytes(spec.argv[-1])) + 1 > MAX_STRING_BYTES:
            raise ProcfileError(
                f'the command of "{spec.process_type}" is too long for the system to start',
                source=spec.source,
                hint="put it into a script",
            )


def encoded(env: Mapping[str, str]) -> dict[bytes, bytes]:
    """Return an environment as execve gets it, whatever the locale says (`.env` is UTF-8)."""
    return {os_bytes(name): os_bytes(value) for name, value in env.items()}


def os_bytes(text: str) -> bytes:
    """Return the bytes execve gets for `text` (os.fsencode where the locale says UTF-8, as it must for `.env`)."""
    return text.encode("utf-8", "surrogateescape")


# --- the shell (kernel rule 2) ---------------------------------------------------------------------------------------

# dash(1) and bash(1), their builtins and reserved words: `exec` before one of these fails or finds another program.
_SHELL_WORDS = frozenset(
    """
    . : [ [[ alias bg bind break builtin caller case cd chdir command compgen complete compopt continue coproc declare
    dirs disown do done echo elif else enable esac eval exec exit export false fc fg fi for function getopts hash help
    history if in jobs kill let local logout mapfile popd printf pushd pwd read readarray readonly return select set
    shift shopt source suspend test then time times trap true type typeset ulimit umask unalias unset until wait while
    { } !
    """.split()  # noqa: SIM905 - a literal would take a line a word
)
_CONTROL = frozenset(";&|<>()`")
_BLANKS = " \t"
# ${NAME}, $(command) and `command` without another one inside: part of a word, like a letter.
_EXPANSION = re.compile(r"\$\{[^{}]*\}|\$\((?:[^()]|\([^()]*\))*\)|`[^`]*`")
_EXPANDS = frozenset("$\"'\\*?[~")


def is_simple(command: str) -> bool:
    """Tell whether `exec command` means the same as `command`: one program, no shell syntax around it."""
    first = command.strip(_BLANKS).partition(" ")[0].partition("\t")[0]
    if not first or "\n" in command or first in _SHELL_WORDS or first[0] in "#{-" or "=" in first:
        return False
    # What the first word expands to is unknown, but with a slash in it it can only be a path.
    if "/" not in first and _EXPANDS & set(first):
        return False
    return not any(char in _CONTROL for char, quote in _shell_chars(command) if not quote)


def shell_argv(command: str) -> tuple[str, str, str]:
    """Return the argv that runs `command` by the shell; a simple one replaces the shell, so the pid is its own."""
    return (SHELL, "-c", f"exec {command.lstrip(_BLANKS)}" if is_simple(command) else command)


def with_arguments(entry: ProcessType, arguments: Sequence[str]) -> ProcessType:
    """Return `entry` with `arguments` appended to its text, quoted for the shell.

    They reach the last command of a pipeline or `a && b`, as with `npm run`. Raises ProcfileError where they would go
    astray: after `&`, `;`, a comment or a redirection.
    """
    if not arguments:
        return entry
    import shlex

    ending = _ending(entry.command)
    if not ending and re.search(r"(?:^|[;&|])\s*(?:[A-Za-z_][A-Za-z0-9_]*=\S*\s*)+$", entry.command):
        ending = "an assignment"
    if ending:
        raise ProcfileError(
            f'"{entry.name}" ends in {ending}, so further arguments would go astray',
            source=entry.source,
            hint='put the command into a script that uses "$@"',
        )
    return entry._replace(command=f"{entry.command} {shlex.join(arguments)}")


def _ending(command: str) -> str:
    """Name what stands at the end of `command` that would swallow an argument put behind it, or return ''."""
    if not _is_closed(command):
        return "an open quotation"
    # What is quoted is replaced by a letter, so that only the shell's own syntax is left to look at.
    text = "".join(char if not quote else "q" for char, quote in _shell_chars(command)).rstrip()
    text = _EXPANSION.sub("q", text)
    if re.search(r"(?:^|[\s;&|()])#", text.rpartition("\n")[2]):
        return "a comment"
    if re.search(r"[<>][&|]?\s*[^\s;&|()<>]*$", text):
        return "a redirection"
    if text[-1:] in ("&", ";", "|"):
        return f'"{text[-1]}"'
    if text.endswith(")"):
        return "a subshell"
    closing = re.search(r"(?:^|[\s;&|()])(fi|done|esac|\})$", text)
    # These words close something only where a command could begin.
    if closing and re.search(r"(?:^|[;&|\n)])\s*$|\b(?:fi|done|esac|\})\s*$", text[: closing.start(1)]):
        return f'"{closing[1]}"'
    return ""


def _is_closed(command: str) -> bool:
    import shlex

    try:
        shlex.split(command, comments=False)
    except ValueError:
        return False
    return True


def _shell_chars(command: str) -> Iterable[tuple[str, str]]:
    """Yield each character with the quotation it stands in: `'`, `"`, `\\` (escaped), or '' for none.

    A backtick and `$(` also run commands inside double quotes, but as arguments of the same program: `exec` is right.
    """
    quote = ""
    escaped = False
    for char in command:
        if escaped:
            escaped = False
            yield char, "\\"
        elif char == "\\" and quote != "'":
            escaped = True
            yield char, quote or "\\"
        elif quote:
            yield char, quote
            if char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
            yield char, quote
        else:
            yield char, ""



def name_width(counts: Mapping[str, int]) -> int:
    """Return the width of Foreman's name column: 6, or the longest name, a dot and the digits of the largest count."""
    digits = len(str(max(counts.values(), default=0)))
    return max([len("system"), *(len(name) + 1 + digits for name in counts)])
