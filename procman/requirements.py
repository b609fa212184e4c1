"""What process types wait for, as the settings say it: other types by name, backing services by variable."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from procman.config import Settings
from procman.errors import REFUSED, ConfigError, Problem, SourceRef
from procman.procfile import ProcessType
from procman.records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from procman.protocols import BackingService



class Needs(NamedTuple):
    """What a process type waits for: other types, and variables that name backing services."""

    types: tuple[str, ...]
    variables: tuple[str, ...]
    source: SourceRef


def needs_by_type(types: Sequence[ProcessType], settings: Settings) -> dict[str, Needs]:
    """Return the needs of each type that says something of them. A name that is no type's is a variable's."""
    known = {entry.name for entry in types}
    return {
        name: Needs(
            tuple(need for need in dict.fromkeys(own.needs) if need in known),
            tuple(need for need in dict.fromkeys(own.needs) if need not in known),
            own.source_of("needs"),
        )
        for name, own in settings.processes.items()
        if own.needs is not None
    }


def reachable_services(needs: Mapping[str, Needs], env: Mapping[str, str]) -> tuple[BackingService, ...]:
    """Return the backing services of all types, as far as they are set: one that is not may be of no interest here."""
    variables = dict.fromkeys(name for needed in needs.values() for name in needed.variables if env.get(name))
    if not variables:
        return ()
    from procman.protocols import backing_service

    found = []
    for name in variables:
        with contextlib.suppress(ValueError):
            found.append(backing_service(name, env[name]))
    return tuple(found)


def services_by_type(
    needs: Mapping[str, Needs], settings: Settings, env: Mapping[str, str]
) -> dict[str, tuple[BackingService, ...]]:
    """Return the backing services of each type of `needs`; the same one is the same object everywhere.

    Raises ConfigError for all variables that are not set, or name nothing that could be asked.
    """
    if not any(needed.variables for needed in needs.values()):
        return {}
    from procman.protocols import backing_service  # only for those who wait for one

    found: dict[tuple[str, str], BackingService] = {}
    problems = []
    services: dict[str, tuple[BackingService, ...]] = {}
    for name, needed in needs.items():
        own_env = settings.processes[name].env
        for variable in needed.variables:
            value = own_env.get(variable, env.get(variable, ""))
            try:
                if not value:
                    raise ValueError("it is not set")
                service = found.get((variable, value)) or backing_service(variable, value)
            except ValueError as error:
                text = f"{name} needs {variable}: {error}"
                hint = "give it the URL of the backing service, in .env or in your environment"
                problems.append(Problem(REFUSED, text, needed.source, hint))
            else:
                found[variable, value] = service
                services[name] = (*services.get(name, ()), service)
    if problems:
        raise ConfigError.of(problems)
    return services
