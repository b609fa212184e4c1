"""Ask a backing service again and again until it answers."""

from __future__ import annotations

from collections.abc import Callable

from procman.dialogue import Dialogue
from procman.loop import Loop
from procman.protocols import BackingService, Verdict

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0
ATTEMPT_S = 5.0


class ServiceWatch:
    """Waits for one backing service, for as long as it is not closed.

    `on_ready` gets the seconds it took. `on_trouble` gets a reason for not being ready whenever it is another one. Once
    ready it is left alone: MySQL locks hosts out that connect too often without a login.
    """

    def __init__(
        self,
        loop: Loop,
        service: BackingService,
        on_ready: Callable[[float], None],
        on_trouble: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._service = service
        self._on_ready = on_ready
        self._on_trouble = on_trouble
        self._begun_s = loop.now()
        self._pause_s = FIRST_PAUSE_S
        self._dialogue: Dialogue | None = None
        self.reason = ""  # for not being ready, as far as is known
        self._timer = loop.call_later(0.0, self._ask)  # never ready before the caller has this object

    def close(self) -> None:
        self._timer.cancel()
        if self._dialogue is not None:
            self._dialogue.close()
            self._dialogue = None

    def _ask(self) -> None:
        service = self._service
        if service.talk is None:
            self._on_ready(0.0)
            return
        self._dialogue = Dialogue(self._loop, service.hosts, service.path, service.talk, ATTEMPT_S, self._on_verdict)

    def _on_verdict(self, verdict: Verdict) -> None:
        self._dialogue = None
        if verdict.is_ok:
            self._on_ready(self._loop.now() - self._begun_s)
            return
        self._timer = self._loop.call_later(self._pause_s, self._ask)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        if verdict.reason != self.reason:
            self.reason = verdict.reason
            self._on_trouble(verdict.reason)
