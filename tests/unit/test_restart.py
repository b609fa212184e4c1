"""Whether and when an instance comes back. All times are given, none is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procman.restart import ALWAYS, NEVER, ON_FAILURE, Decision, History, RestartPolicy, decide, stays_down

QUICK_S = 0.1


@pytest.mark.parametrize(
    ("mode", "code", "ok_codes", "comes_back", "failed"),
    [
        (NEVER, 0, (0,), False, False),
        (NEVER, 1, (0,), False, True),
        (NEVER, 3, (0, 3), False, False),
        (NEVER, 143, (0,), False, True),
        (ON_FAILURE, 0, (0,), False, False),
        (ON_FAILURE, 1, (0,), True, True),
        (ON_FAILURE, 3, (0, 3), False, False),
        (ON_FAILURE, 0, (3,), True, True),
        (ON_FAILURE, 137, (0,), True, True),
        (ALWAYS, 0, (0,), True, False),
        (ALWAYS, 1, (0,), True, True),
        (ALWAYS, 3, (0, 3), True, False),
        (ALWAYS, 143, (0, 143), True, False),
    ],
)
def test_mode(mode: str, code: int, ok_codes: tuple[int, ...], comes_back: bool, failed: bool) -> None:
    policy = RestartPolicy(mode, ok_codes=ok_codes)
    decision = decide(policy, History(), code, QUICK_S, 100.0)
    assert decision == Decision(1.0 if comes_back else None, failed)
    assert stays_down(policy, code) is not comes_back


def _delays(policy: RestartPolicy, count: int, code: int = 1, ran_s: float = QUICK_S) -> list[float | None]:
    history = History()
    now_s = 1000.0
    delays = []
    for _ in range(count):
        now_s += ran_s
        delay_s = decide(policy, history, code, ran_s, now_s).delay_s
        delays.append(delay_s)
        now_s += delay_s or 0
    return delays


def test_delay_doubles_up_to_the_cap() -> None:
    policy = RestartPolicy(ALWAYS, first_delay_s=0.5, max_delay_s=6.0, limit=100)
    assert _delays(policy, 7) == [0.5, 1, 2, 4, 6, 6, 6]


def test_cap_below_the_first_delay() -> None:
    assert _delays(RestartPolicy(ALWAYS, first_delay_s=8.0, max_delay_s=3.0), 2) == [3, 3]


def test_no_delay_at_all() -> None:
    assert _delays(RestartPolicy(ALWAYS, first_delay_s=0.0), 3) == [0, 0, 0]


def test_stable_run_forgets_failures() -> None:
    policy = RestartPolicy(ALWAYS, stable_s=10.0)
    history = History()
    assert decide(policy, history, 1, QUICK_S, 1.0).delay_s == 1
    assert decide(policy, history, 1, QUICK_S, 3.0).delay_s == 2
    assert decide(policy, history, 1, 9.999, 14.0).delay_s == 4
    assert decide(policy, history, 1, 10.0, 30.0).delay_s == 1
    assert decide(policy, history, 1, QUICK_S, 32.0).delay_s == 2


def test_stable_run_counts_for_the_limit_too() -> None:
    policy = RestartPolicy(ON_FAILURE, stable_s=5.0, limit=2, within_s=1000.0)
    history = History()
    assert decide(policy, history, 1, QUICK_S, 1.0).delay_s == 1
    assert decide(policy, history, 1, 6.0, 8.0).delay_s == 1


def test_limit_ends_the_attempts_and_says_so() -> None:
    policy = RestartPolicy(ON_FAILURE, limit=3, within_s=60.0)
    history = History()
    decisions = [decide(policy, history, 1, QUICK_S, now_s) for now_s in (1.0, 3.0, 6.0)]
    assert [decision.delay_s for decision in decisions] == [1, 2, None]
    assert decisions[-1] == Decision(None, True, "failed 3 times in 60 s, giving up")


@pytest.mark.parametrize(("last_s", "gives_up"), [(60.0, True), (60.01, False)])
def test_limit_counts_only_the_window(last_s: float, gives_up: bool) -> None:
    policy = RestartPolicy(ON_FAILURE, limit=3, within_s=60.0, stable_s=1000.0)
    history = History()
    decide(policy, history, 1, QUICK_S, 0.0)
    decide(policy, history, 1, QUICK_S, 30.0)
    decision = decide(policy, history, 1, QUICK_S, last_s)
    assert (decision.delay_s is None) is gives_up
    assert bool(decision.reason) is gives_up
    assert decision.failed


def test_clean_ends_under_always_are_paced_but_never_given_up() -> None:
    assert _delays(RestartPolicy(ALWAYS, limit=3), 8, code=0) == [1, 2, 4, 8, 16, 30, 30, 30]


def test_clean_ends_are_no_failures_for_the_limit() -> None:
    policy = RestartPolicy(ALWAYS, limit=3, within_s=1000.0)
    history = History()
    for now_s in (1.0, 2.0, 3.0, 4.0):
        decide(policy, history, 0, QUICK_S, now_s)
    assert decide(policy, history, 1, QUICK_S, 5.0).delay_s is not None
    assert decide(policy, history, 1, QUICK_S, 6.0).delay_s is not None
    assert decide(policy, history, 1, QUICK_S, 7.0) == Decision(None, True, "failed 3 times in 1000 s, giving up")


@pytest.mark.parametrize("code", [0, 1])
def test_thousands_of_ends_outside_the_window(code: int) -> None:
    """A run of 59 s is not yet stable: this goes on for days, in bounded memory and without overflow."""
    policy = RestartPolicy(ALWAYS)
    history = History()
    for number in range(3000):
        decision = decide(policy, history, code, 59.0, number * 90.0)
        assert decision.delay_s is not None
        assert decision.delay_s <= 30.0
    assert len(history.failed_s) < 10


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 100), st.floats(0, 100)), max_size=40),
    st.sampled_from([NEVER, ON_FAILURE, ALWAYS]),
    st.integers(1, 6),
)
def test_what_holds_for_every_history(ends: list[tuple[int, float, float]], mode: str, limit: int) -> None:
    policy = RestartPolicy(mode, limit=limit, ok_codes=(0, 2))
    history = History()
    now_s = 0.0
    for code, ran_s, waited_s in ends:
        now_s += ran_s + waited_s
        decision = decide(policy, history, code, ran_s, now_s)
        assert decision.failed is (code not in (0, 2))
        if decision.delay_s is None:
            assert decision.reason or stays_down(policy, code)
        else:
            assert not stays_down(policy, code)
            assert 1.0 <= decision.delay_s <= 30.0
            assert not decision.reason
