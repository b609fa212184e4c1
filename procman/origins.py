"""Where each variable of an instance's environment comes from, and which names are secrets, for `procman env`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from procman.config import Settings
from procman.environment import EnvFile
from procman.procfile import ProcessType
from procman.records import NamedTuple
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
    of_type = [(str(own.source_of(f"env.{name}")), {name: value}) for name, value in own.env.items()] if own else []
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
        *of_type,
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
    r"SECRET|PASSWORD|PASSWD|PASSPHRASE|TOKEN|CREDENTIAL|API_?KEY|PRIVATE_?KEY|ACCESS_?KEY"
    r"|(^|[_.])(KEY|PASS|PWD|PRIVATE|SALT|COOKIE|AUTH|DSN|SIGNATURE|JWT|HMAC|PAT|WEBHOOK|PEM)S?([_.0-9]|$)",
    re.IGNORECASE,
)
_NO_SECRET = frozenset(("PWD", "OLDPWD", "SSH_AUTH_SOCK", "XAUTHORITY"))
_NAMES_A_FILE = re.compile(r"_(FILE|PATH|DIR)S?$", re.IGNORECASE)
# Up to the last @ if what follows is no port: a password may hold "/", "?" and "#", though it should not.
_PASSWORD_OF_URL = re.compile(r"(?<=://)([^\s/?#:@]*):(?:[^\s/?#]+|(?![0-9]+[/?#])\S{1,500})@")
# As in https://ghp_…@github.com, and what clients of Redis and NATS take for a password, however short.
_TOKEN_OF_URL = re.compile(r"((?:rediss?|valkeys?|nats)://|://(?=[^\s/?#:@]{16}))[^\s/?#:@]+(?=@)")
# Of a URL, of a connection string such as `host=db password=…`, of a command line.
_PARAMETER = re.compile(r"""(?<![\w.-])(-{0,2}[A-Za-z][\w.-]*)=('[^']*'|"[^"]*"|[^\s&;#]+)""")


def masked(name: str, value: str) -> str:
    """Return `value` as it may be shown: nothing of a secret, a URL without its password and secret parameters."""
    is_secret = _SECRET_NAME.search(name) and name not in _NO_SECRET and not _NAMES_A_FILE.search(name)
    if value and (is_secret or ("-----BEGIN" in value and "PRIVATE KEY" in value)):
        return MASK
    shown = _TOKEN_OF_URL.sub(rf"\1{MASK}", _PASSWORD_OF_URL.sub(rf"\1:{MASK}@", value))
    return _PARAMETER.sub(_parameter, shown)


def _parameter(found: re.Match[str]) -> str:
    return f"{found[1]}={MASK}" if _SECRET_NAME.search(found[1].replace("-", "_")) else found[0]
