"""Where events go: one class each, any object with these names."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing's own constant would be an import on the start path
    from typing import Protocol

    from procman.events import Event

    class Sink(Protocol):
        """Takes every event of a run, in order."""

        def write(self, event: Event) -> None: ...

        def close(self) -> None:
            """Write what is held back; `is_idle` tells when it is out."""

        @property
        def is_idle(self) -> bool: ...
