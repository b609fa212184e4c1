"""Where each variable of an instance's environment comes from, and which names are secrets, for `procman env`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from procman.config import Settings
from procman.environment import EnvFile
from procman.procfile import ProcessType
from procman.spec import ProcessSpec, defaults, identity

CALLER = "caller"
PROCMAN = "procman"


class Origin(NamedTuple):
    """One place that sets a variable."""

    place: str  # "caller", "procman", ".env:12", "procman.toml:7"
    value: str


def origins(
    spec: ProcessSpec,
    types: Sequence[ProcessType],
    files: Iterable[EnvFile],
    settings: Settings,
    caller: Mapping[str, str],
) -> dict[str, list[Origin]]:
    """Return for each variable all who set it, sorted by name. The last one counts: its value is what `spec` gets."""
    own = settings.processes.get(spec.process_type)
    from_files = [
        (str(binding.source), {binding.name: binding.value}, settings.dotenv_wins or binding.name not in caller)
        for file in files
        for binding in file.bindings
    ]
    layers: list[tuple[str, Mapping[str, str]]] = [
        *((place, values) for place, values, wins in from_files if not wins),
        (CALLER, caller),
        (PROCMAN, defaults(types, settings, caller)),
        *((place, values) for place, values, wins in from_files if wins),
        (str(own.source) if own else "", own.env if own else {}),
        (PROCMAN, identity(spec.name, spec.instance, spec.port, settings.root)),
    ]
    found: dict[str, list[Origin]] = {}
    for place, values in layers:
        for name, value in values.items():
            found.setdefault(name, []).append(Origin(place, value))
    return dict(sorted(found.items()))


# --- secrets ---------------------------------------------------------------------------------------------------------

MASK = "********"

_SECRET_NAME = re.compile(
    r"SECRET|PASSWORD|PASSWD|PASSPHRASE|TOKEN|CREDENTIAL|APIKEY|PRIVATE_?KEY"
    r"|(^|[_.])(KEY|PASS|PWD|PRIVATE|SALT|COOKIE|AUTH|DSN|SIGNATURE|CERT|PEM)S?([_.0-9]|$)",
    re.IGNORECASE,
)
_NO_SECRET = frozenset(("PWD", "OLDPWD", "SSH_AUTH_SOCK", "XAUTHORITY"))
_PASSWORD_OF_URL = re.compile(r"(?<=://)([^\s/?#:@]*):([^\s/?#]+)@")


def masked(name: str, value: str) -> str:
    """Return `value` as it may be shown: nothing of a secret, a URL without its password."""
    if value and name not in _NO_SECRET and _SECRET_NAME.search(name):
        return MASK
    return _PASSWORD_OF_URL.sub(rf"\1:{MASK}@", value)
