"""Whether and when an instance comes back after its end."""

from __future__ import annotations

from typing import NamedTuple

NEVER = "no"
ON_FAILURE = "on-failure"
ALWAYS = "always"


class RestartPolicy(NamedTuple):
    """When an instance comes back. Times in seconds; `ok_codes` are exit codes that count as success."""

    mode: str = NEVER
    first_delay_s: float = 1.0
    max_delay_s: float = 30.0
    stable_s: float = 60.0  # a run this long forgets the failures before it
    limit: int = 5
    within_s: float = 60.0  # more than `limit` failures in this time end the attempts
    ok_codes: tuple[int, ...] = (0,)


class Decision(NamedTuple):
    """What follows from an end: come back after `delay_s` (None: stay down), and whether it `failed`."""

    delay_s: float | None
    failed: bool
    reason: str = ""


def decide(policy: RestartPolicy, failures: list[float], code: int, ran_s: float, now_s: float) -> Decision:
    """Decide after an end with exit code `code` (128 + n for signal n), `ran_s` seconds after its start.

    `failures` holds the monotonic times of recent failures and is kept up to date here. Back-off doubles from
    `first_delay_s` to `max_delay_s`.
    """
    failed = code not in policy.ok_codes
    if ran_s >= policy.stable_s:
        failures.clear()
    if stays_down(policy, code):
        return Decision(None, failed)
    # Under `always` a quick clean exit is paced like a failure: a loop of them would burn a core.
    failures.append(now_s)
    recent = [at for at in failures if now_s - at <= policy.within_s]
    if failed and len(recent) >= policy.limit:
        return Decision(None, True, f"failed {len(recent)} times in {policy.within_s:.0f} s, giving up")
    return Decision(min(policy.max_delay_s, policy.first_delay_s * 2 ** (len(failures) - 1)), failed)


def stays_down(policy: RestartPolicy, code: int) -> bool:
    """Tell whether an end with exit code `code` is final, whatever the history."""
    return policy.mode == NEVER or (policy.mode == ON_FAILURE and code in policy.ok_codes)
