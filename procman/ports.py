"""Which port each instance gets: Foreman's arithmetic over the whole Procfile (contract E1-E5)."""

from __future__ import annotations

from collections.abc import Mapping

from procman.errors import ConfigError

DEFAULT_BASE = 5000
DEFAULT_STEP = 100
MAX_PORT = 65535


def port_of(base: int, step: int, index: int, instance: int) -> int:
    """Return the port of instance `instance` (from 1) of the type at `index` (from 0) among all Procfile entries.

    The index counts every entry, so starting a subset changes no port.
    """
    return base + step * index + instance - 1


def assign_ports(counts: Mapping[str, int], base: int, step: int) -> dict[str, range]:
    """Return the ports of each type's instances; `counts` holds every type of the Procfile in file order.

    Raises ConfigError when two instances of this formation would share a port, or one lies outside 1..65535.
    """
    ports: dict[str, range] = {}
    owner: dict[int, str] = {}
    for index, (name, count) in enumerate(counts.items()):
        first = port_of(base, step, index, 1)
        ports[name] = range(first, first + count)
        if count and not 1 <= first <= first + count - 1 <= MAX_PORT:
            raise ConfigError(
                f"{name}={count} needs ports {first} to {first + count - 1}, and ports end at {MAX_PORT}",
                hint="choose a lower base with -p, a smaller --port-step, or --no-port",
            )
        for instance, port in enumerate(ports[name], 1):
            if port in owner:
                raise ConfigError(
                    f"{owner[port]} and {name}.{instance} would both get port {port}",
                    hint=f"choose a --port-step above {step}, or fewer instances",
                )
            owner[port] = f"{name}.{instance}"
    return ports


def uses_port(command: str) -> bool:
    """Tell whether a command's text uses PORT (and does not merely set it): it would fail on a port that is taken."""
    import re

    return re.search(r"(?<![A-Za-z0-9_])PORT(?![A-Za-z0-9_=])", command) is not None
