"""The life of one instance as a table, and nothing else: no timers, no pids.

What an instance *is* (State) and what the user *wants* of it (up or down, kept by the supervisor) are two things. The
table is total: every pair of state and input is a row here or is IGNORED by name.
"""

from __future__ import annotations

from enum import StrEnum

from procman.records import NamedTuple


class State(StrEnum):
    PENDING = "pending"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    EXITED = "exited"
    FAILED = "failed"
    LOST = "lost"


class Input(StrEnum):
    NEEDS_READY = "needs_ready"
    NEEDS_FAILED = "needs_failed"
    IS_READY = "is_ready"
    SPAWN_FAILED = "spawn_failed"
    READY_TIMEOUT = "ready_timeout"
    UNHEALTHY = "unhealthy"
    LEADER_EXIT = "leader_exit"  # the leader ended, others of its group live on
    EXIT = "exit"  # the leader ended and its group is empty
    STOP = "stop"
    START = "start"
    RESTART = "restart"
    GRACE_EXPIRED = "grace_expired"
    KILL_IGNORED = "kill_ignored"
    DELAY_ELAPSED = "delay_elapsed"


class Action(StrEnum):
    NOTHING = "nothing"
    AWAIT = "await"  # look whether what it needs is there, and wait for it
    AWAIT_AFRESH = "await_afresh"  # forget past failures first
    SPAWN = "spawn"
    ANNOUNCE = "announce"  # emit Ready, release dependents
    STOP = "stop"  # stop signal to the group, grace timer
    KILL = "kill"  # SIGKILL to the group
    DECIDE = "decide"  # the policy picks one of the next states
    CANCEL = "cancel"  # cancel the back-off timer
    NAME_NEED = "name_need"  # say which need failed
    NAME_LOST = "name_lost"  # say what could not be killed


class Row(NamedTuple):
    """The states that may come next (one, unless `action` is DECIDE) and what is done on the way."""

    to: tuple[State, ...]
    action: Action


def _row(to: State | tuple[State, ...], action: Action = Action.NOTHING) -> Row:
    return Row(to if isinstance(to, tuple) else (to,), action)


_S, _I, _A = State, Input, Action
_ENDED = (_S.BACKOFF, _S.EXITED, _S.FAILED)

TABLE: dict[tuple[State, Input], Row] = {
    (_S.PENDING, _I.NEEDS_READY): _row(_S.STARTING, _A.SPAWN),
    (_S.PENDING, _I.NEEDS_FAILED): _row(_S.FAILED, _A.NAME_NEED),
    (_S.PENDING, _I.STOP): _row(_S.EXITED),
    (_S.STARTING, _I.IS_READY): _row(_S.READY, _A.ANNOUNCE),
    (_S.STARTING, _I.SPAWN_FAILED): _row((_S.BACKOFF, _S.FAILED), _A.DECIDE),
    (_S.STARTING, _I.READY_TIMEOUT): _row(_S.STOPPING, _A.STOP),
    (_S.STOPPING, _I.GRACE_EXPIRED): _row(_S.STOPPING, _A.KILL),
    (_S.STOPPING, _I.STOP): _row(_S.STOPPING, _A.KILL),
    (_S.STOPPING, _I.LEADER_EXIT): _row(_S.STOPPING),
    (_S.STOPPING, _I.KILL_IGNORED): _row(_S.LOST, _A.NAME_LOST),
    (_S.STOPPING, _I.START): _row(_S.STOPPING),
    (_S.STOPPING, _I.RESTART): _row(_S.STOPPING),
    (_S.STOPPING, _I.EXIT): _row((_S.PENDING, *_ENDED), _A.DECIDE),
    (_S.LOST, _I.EXIT): _row((_S.PENDING, *_ENDED), _A.DECIDE),
    (_S.BACKOFF, _I.DELAY_ELAPSED): _row(_S.PENDING, _A.AWAIT),
    (_S.BACKOFF, _I.START): _row(_S.PENDING, _A.AWAIT_AFRESH),
    (_S.BACKOFF, _I.RESTART): _row(_S.PENDING, _A.AWAIT_AFRESH),
    (_S.BACKOFF, _I.STOP): _row(_S.EXITED, _A.CANCEL),
}
for _up in (_S.STARTING, _S.READY):
    TABLE[_up, _I.UNHEALTHY] = _row(_S.STOPPING, _A.STOP)
    TABLE[_up, _I.LEADER_EXIT] = _row(_S.STOPPING, _A.STOP)
    TABLE[_up, _I.EXIT] = _row(_ENDED, _A.DECIDE)
    TABLE[_up, _I.STOP] = _row(_S.STOPPING, _A.STOP)
    TABLE[_up, _I.RESTART] = _row(_S.STOPPING, _A.STOP)
for _down in (_S.EXITED, _S.FAILED):
    TABLE[_down, _I.START] = _row(_S.PENDING, _A.AWAIT_AFRESH)
    TABLE[_down, _I.RESTART] = _row(_S.PENDING, _A.AWAIT_AFRESH)

IGNORED: frozenset[tuple[State, Input]] = frozenset(
    {
        # A timer or a probe that was on its way when its reason went; a wish that is fulfilled already.
        *((_S.PENDING, i) for i in (_I.IS_READY, _I.READY_TIMEOUT, _I.UNHEALTHY, _I.START, _I.RESTART)),
        *((_S.STARTING, i) for i in (_I.NEEDS_READY, _I.NEEDS_FAILED, _I.START)),
        *((_S.READY, i) for i in (_I.NEEDS_READY, _I.NEEDS_FAILED, _I.IS_READY, _I.READY_TIMEOUT, _I.START)),
        *((_S.STOPPING, i) for i in (_I.NEEDS_READY, _I.NEEDS_FAILED, _I.IS_READY, _I.READY_TIMEOUT, _I.UNHEALTHY)),
        *((_S.BACKOFF, i) for i in (_I.NEEDS_READY, _I.NEEDS_FAILED, _I.IS_READY, _I.READY_TIMEOUT, _I.UNHEALTHY)),
        *(
            (state, i)
            for state in (_S.EXITED, _S.FAILED)
            for i in (_I.NEEDS_READY, _I.NEEDS_FAILED, _I.IS_READY, _I.READY_TIMEOUT, _I.UNHEALTHY, _I.STOP)
        ),
        *(
            (_S.LOST, i)
            for i in Input
            if i not in (_I.EXIT, _I.SPAWN_FAILED, _I.DELAY_ELAPSED, _I.GRACE_EXPIRED)
        ),
        # Timers are cancelled with their state, but one that is due in the same turn still fires.
        *((state, _I.GRACE_EXPIRED) for state in State if state is not _S.STOPPING),
        *((state, _I.KILL_IGNORED) for state in State if state is not _S.STOPPING),
        *((state, _I.DELAY_ELAPSED) for state in State if state is not _S.BACKOFF),
        # Only a process that exists can exit or fail to spawn: nothing sends these, and nothing happens if it did.
        *((state, _I.SPAWN_FAILED) for state in State if state is not _S.STARTING),
        *((state, i) for state in (_S.PENDING, *_ENDED) for i in (_I.LEADER_EXIT, _I.EXIT)),
    }
)

RUNNING = frozenset({_S.STARTING, _S.READY, _S.STOPPING})
"""States in which a process exists."""
ENDED = frozenset({_S.EXITED, _S.FAILED, _S.LOST})
"""States nothing leaves by itself."""


def row(state: State, given: Input) -> Row | None:
    """Return what follows, or None when the pair is ignored. Raises KeyError for a pair that is neither: a bug."""
    found = TABLE.get((state, given))
    if found is None and (state, given) not in IGNORED:
        raise KeyError((state, given))
    return found
