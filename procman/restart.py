"""Whether and when an instance comes back after its end."""

from __future__ import annotations

from procman.records import NamedTuple

NEVER = "no"
ON_FAILURE = "on-failure"
ALWAYS = "always"


class RestartPolicy(NamedTuple):
    """When an instance comes back. Times in seconds; `ok_codes` are exit codes that count as success."""

    mode: str = NEVER
    first_delay_s: float = 1.0
    max_delay_s: float = 30.0
    stable_s: float = 60.0  # a run this long forgets the ends before it
    limit: int = 5  # this many failures in `within_s` are the last
    within_s: float = 60.0
    ok_codes: tuple[int, ...] = (0,)


class History:
    """The recent ends of one instance: how many in a row, and when it failed (monotonic seconds)."""

    __slots__ = ("ends", "failed_s")

    def __init__(self) -> None:
        self.ends = 0
        self.failed_s: list[float] = []

    def forget(self) -> None:
        self.ends = 0
        self.failed_s.clear()


class Decision(NamedTuple):
    """What follows from an end: come back after `delay_s` (None: stay down), and whether it `failed`."""

    delay_s: float | None
    failed: bool
    reason: str = ""


def decide(policy: RestartPolicy, history: History, code: int, ran_s: float, now_s: float) -> Decision:
    """Decide after an end with exit code `code` (128 + n for signal n), `ran_s` seconds after its start.

    Keeps `history` up to date. The delay doubles from `first_delay_s` to `max_delay_s` with every end in a row, a clean
    one under `always` too: a loop of them would burn a core.
    """
    failed = code not in policy.ok_codes
    if stays_down(policy, code):
        return Decision(None, failed)
    if ran_s >= policy.stable_s:
        history.forget()
    delay_s = min(policy.max_delay_s, policy.first_delay_s * 2 ** min(history.ends, 32))
    history.ends += 1
    if failed:
        history.failed_s = [at for at in history.failed_s if now_s - at <= policy.within_s] + [now_s]
        if len(history.failed_s) >= policy.limit:
            return Decision(None, True, f"failed {policy.limit} times in {policy.within_s:.0f} s, giving up")
    return Decision(delay_s, failed)


def stays_down(policy: RestartPolicy, code: int) -> bool:
    """Tell whether an end with exit code `code` is final, whatever the history."""
    return policy.mode == NEVER or (policy.mode == ON_FAILURE and code in policy.ok_codes)
