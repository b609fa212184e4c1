"""The life of one instance: the table of the architecture, written down a second time and compared."""

from __future__ import annotations

import itertools

import pytest

from procman.lifecycle import ENDED, IGNORED, RUNNING, TABLE, Action, Input, State, row

ENDS = "backoff exited failed"

# state | inputs | next states | action
ROWS = f"""
pending  | needs_ready                       | starting          | spawn
pending  | stop                              | exited            | nothing
pending  | needs_failed                      | failed            | name_need
starting | is_ready                          | ready             | announce
starting | spawn_failed                      | backoff failed    | decide
starting | ready_timeout unhealthy           | stopping          | stop
ready    | unhealthy                         | stopping          | stop
starting | leader_exit                       | stopping          | stop
ready    | leader_exit                       | stopping          | stop
starting | exit                              | {ENDS}            | decide
ready    | exit                              | {ENDS}            | decide
starting | stop restart                      | stopping          | stop
ready    | stop restart                      | stopping          | stop
stopping | grace_expired stop                | stopping          | kill
stopping | leader_exit                       | stopping          | nothing
stopping | kill_ignored                      | lost              | name_lost
stopping | start restart                     | stopping          | nothing
stopping | exit                              | pending {ENDS}    | decide
lost     | exit                              | pending {ENDS}    | decide
backoff  | delay_elapsed                     | pending           | await
backoff  | start restart                     | pending           | await_afresh
backoff  | stop                              | exited            | cancel
exited   | start restart                     | pending           | await_afresh
failed   | start restart                     | pending           | await_afresh
"""


def _rows() -> dict[tuple[State, Input], tuple[frozenset[State], Action]]:
    rows = {}
    for line in ROWS.strip().splitlines():
        state, inputs, to, action = (part.strip() for part in line.split("|"))
        for given in inputs.split():
            rows[State(state), Input(given)] = (frozenset(map(State, to.split())), Action(action))
    return rows


PAIRS = list(itertools.product(State, Input))
HAS_PROCESS = (State.STARTING, State.READY, State.STOPPING)


@pytest.mark.parametrize(("state", "given"), PAIRS)
def test_every_pair_is_a_row_or_ignored(state: State, given: Input) -> None:
    assert ((state, given) in TABLE) != ((state, given) in IGNORED)


@pytest.mark.parametrize(("state", "given"), PAIRS)
def test_table_is_the_architecture(state: State, given: Input) -> None:
    expected = _rows().get((state, given))
    found = row(state, given)
    assert (found and (frozenset(found.to), found.action)) == expected


def test_nothing_is_listed_that_is_no_pair() -> None:
    assert set(TABLE) | set(IGNORED) == set(PAIRS)


def test_row_of_a_stranger_is_a_bug() -> None:
    with pytest.raises(KeyError):
        row("no state", Input.STOP)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", State)
def test_only_decisions_have_a_choice(state: State) -> None:
    for (_, given), found in TABLE.items():
        assert len(set(found.to)) == len(found.to), given
        assert (len(found.to) > 1) == (found.action is Action.DECIDE), given


@pytest.mark.parametrize("state", HAS_PROCESS)
def test_stop_of_a_process_leads_to_stopping(state: State) -> None:
    found = row(state, Input.STOP)
    assert found is not None
    assert found.to == (State.STOPPING,)
    assert found.action is (Action.KILL if state is State.STOPPING else Action.STOP)


@pytest.mark.parametrize("state", State)
def test_stop_never_spawns_and_never_stays_up(state: State) -> None:
    found = row(state, Input.STOP)
    to = found.to if found else (state,)
    assert set(to) <= {State.STOPPING, *ENDED}
    assert found is None or found.action not in (Action.SPAWN, Action.AWAIT, Action.AWAIT_AFRESH)


@pytest.mark.parametrize("given", [Input.START, Input.RESTART])
@pytest.mark.parametrize("state", [State.BACKOFF, State.EXITED, State.FAILED])
def test_a_wish_brings_back_what_is_down_and_forgets_its_failures(state: State, given: Input) -> None:
    found = row(state, given)
    assert found is not None
    assert (found.to, found.action) == ((State.PENDING,), Action.AWAIT_AFRESH)


@pytest.mark.parametrize("state", HAS_PROCESS)
def test_an_end_is_decided_from_every_state_with_a_process(state: State) -> None:
    found = row(state, Input.EXIT)
    assert found is not None
    assert found.action is Action.DECIDE


def test_there_is_one_way_up() -> None:
    """Nothing becomes `starting` but by a spawn, and behind its needs: no state can claim a process it has not."""
    ways = [(state, given, found.action) for (state, given), found in TABLE.items() if State.STARTING in found.to]
    assert ways == [(State.PENDING, Input.NEEDS_READY, Action.SPAWN)]


def test_running_process_is_never_forgotten() -> None:
    """From a state with a process only an exit (or a failed spawn, or giving up on SIGKILL) leads out."""
    for (state, given), found in TABLE.items():
        if state in HAS_PROCESS and not set(found.to) <= set(HAS_PROCESS):
            assert given in (Input.EXIT, Input.SPAWN_FAILED, Input.KILL_IGNORED), (state, given)


def _reachable(start: State, inputs: set[Input]) -> set[State]:
    seen = {start}
    todo = [start]
    while todo:
        state = todo.pop()
        for given in inputs:
            found = row(state, given)
            for to in found.to if found else ():
                if to not in seen:
                    seen.add(to)
                    todo.append(to)
    return seen


def test_every_state_is_reachable() -> None:
    assert _reachable(State.PENDING, set(Input)) == set(State)


@pytest.mark.parametrize("state", State)
def test_every_state_can_end_and_can_come_back(state: State) -> None:
    reachable = _reachable(state, set(Input))
    assert State.EXITED in reachable
    assert State.STARTING in reachable


def test_running_and_ended() -> None:
    assert frozenset(HAS_PROCESS) == RUNNING
    assert frozenset({State.EXITED, State.FAILED, State.LOST}) == ENDED
