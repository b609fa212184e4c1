"""One settings record for a run, and where each value came from."""

from __future__ import annotations

from typing import NamedTuple

from procman.ports import DEFAULT_BASE, DEFAULT_STEP


class Settings(NamedTuple):
    """What the user decided for this run. All paths are absolute."""

    root: str
    base_port: int | None = DEFAULT_BASE  # None: no instance gets a port
    port_step: int = DEFAULT_STEP
    grace_s: float = 5.0
    dotenv_wins: bool = True  # False: a variable of the caller's beats the same name in `.env`
    on_exit: str = "stop"  # what an instance's end means for the run, for types not named below
    can_die: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
