"""What happens in a run, as records. Every sink gets every event; `at` is wall clock, seconds since the epoch."""

from __future__ import annotations

from procman.records import NamedTuple


class Started(NamedTuple):
    """A process was spawned for instance `name`."""

    name: str
    at: float
    pid: int
    port: int | None


class Output(NamedTuple):
    """Bytes an instance wrote, untouched: whole lines, or a piece of one when `block` does not end in a newline."""

    name: str
    at: float
    block: bytes


class Ready(NamedTuple):
    name: str
    at: float


class Stopping(NamedTuple):
    """The stop signal `signum` went to the process group of instance `name`."""

    name: str
    at: float
    signum: int


class Exited(NamedTuple):
    """Nothing of the instance's process group is left. `signum` is 0, or the signal that ended its leader."""

    name: str
    at: float
    code: int  # as a shell reports it: 128 + n for signal n
    signum: int


class Restarting(NamedTuple):
    """The instance comes back after `delay_s` seconds."""

    name: str
    at: float
    delay_s: float


class GaveUp(NamedTuple):
    """The instance stays down although its policy would bring it back."""

    name: str
    at: float
    reason: str


class Notice(NamedTuple):
    """procman's own message; `name` is an instance or "system"."""

    name: str
    at: float
    text: str


Event = Started | Output | Ready | Stopping | Exited | Restarting | GaveUp | Notice

SYSTEM = "system"
