"""Which port each instance gets: Foreman's arithmetic over the whole Procfile (contract E1-E5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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

    Raises ConfigError, for all types at once, when two instances of this formation would share a port or one lies
    outside 1..65535.
    """
    ports: dict[str, range] = {}
    for index, (name, count) in enumerate(counts.items()):
        first = port_of(base, step, index, 1)
        ports[name] = range(first, first + count)
    faults = [*_outside(ports), *_shared(ports, step)]
    if faults:
        raise ConfigError("\n".join(faults))
    return ports


def _outside(ports: Mapping[str, range]) -> Iterator[str]:
    for name, taken in ports.items():
        if not taken or 1 <= taken[0] <= taken[-1] <= MAX_PORT:
            continue
        needs = f"port {taken[0]}" if len(taken) == 1 else f"ports {taken[0]} to {taken[-1]}"
        if taken[0] < 1:
            end, hint = "start at 1", "choose a higher base with -p, or --no-port"
        else:
            end, hint = f"end at {MAX_PORT}", "choose a lower base with -p, a smaller --port-step, or --no-port"
        yield f"{name}={len(taken)} needs {needs}, and ports {end} — {hint}"


def _shared(ports: Mapping[str, range], step: int) -> Iterator[str]:
    """Yield the first port that two types share, for each type that runs into one before it."""
    by_first = sorted((item for item in ports.items() if item[1]), key=lambda item: item[1][0])
    reaching = by_first[0] if by_first else ("", range(0))  # of those so far the one with the highest last port
    for name, taken in by_first[1:]:
        if taken[0] in reaching[1]:
            before, port = reaching[0], taken[0]
            yield (
                f"{before}.{reaching[1].index(port) + 1} and {name}.1 would both get port {port}"
                f" — choose a --port-step above {step}, or fewer instances"
            )
        if taken[-1] > reaching[1][-1]:
            reaching = (name, taken)


def uses_port(command: str) -> bool:
    """Tell whether a command's text uses PORT (and does not merely set it): it would fail on a port that is taken."""
    import re

    return re.search(r"(?<![A-Za-z0-9_])PORT(?![A-Za-z0-9_=])", command) is not None
