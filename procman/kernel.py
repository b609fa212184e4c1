"""The few calls Python lacks. Each returns False where the system has no such thing."""

from __future__ import annotations

import sys

PR_SET_CHILD_SUBREAPER = 36  # prctl(2), Linux 3.4


def become_subreaper() -> bool:
    """Make orphaned descendants children of this process instead of init's (prctl(2)). Not inherited by fork."""
    if sys.platform != "linux":
        return False
    import ctypes  # 1.3 ms: after the first spawn

    # CDLL(None) is the running program itself; find_library would fork a compiler driver.
    prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)
    return prctl is not None and prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
