"""When an instance counts as ready, and as still alive: descriptions of probes, and the counting of their answers."""

from __future__ import annotations

from procman.errors import SourceRef
from procman.records import NamedTuple

PORT = "port"
HTTP = "http"
LOG = "log"
COMMAND = "command"
NOTIFY = "notify"
COMPLETED = "completed"


class Probe(NamedTuple):
    """How it is known that an instance is ready, or alive. Times in seconds."""

    kind: str  # one of the constants above
    source: SourceRef  # procman.toml:9
    port: int | None = None  # PORT, HTTP: None means the instance's own
    path: str = "/"  # HTTP
    statuses: tuple[int, ...] = ()  # HTTP; (): any from 200 to 399
    pattern: str = ""  # LOG: a regular expression, searched in each line
    command: str = ""  # COMMAND: for the shell, in the environment and directory of the instance; 0 means ready
    within_s: float = 30.0  # readiness: from the spawn to ready, else it has failed; inf: for ever
    every_s: float | None = None  # pause between attempts; None: 0.05 s growing to 1 s, or 10 s for liveness
    timeout_s: float = 5.0  # of one attempt
    failures: int = 3  # liveness: so many in a row make it unhealthy

    @property
    def is_of_own_port(self) -> bool:
        """Whether it shows that the instance serves the port it was given."""
        return self.kind in (PORT, HTTP) and self.port is None

    @property
    def is_told(self) -> bool:
        """Whether the instance itself says so, on a socket of its own."""
        return self.kind == NOTIFY

    @property
    def is_asked(self) -> bool:
        """Whether something has to be done to learn it."""
        return self.kind not in (NOTIFY, COMPLETED)
