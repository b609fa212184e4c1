"""One instance of a process type while it is supervised."""

from __future__ import annotations

from collections.abc import Callable

from procman.lifecycle import State
from procman.loop import Loop, Timer
from procman.process import ExitStatus, Process, Terminal
from procman.records import NamedTuple
from procman.restart import ON_FAILURE, History, RestartPolicy
from procman.spec import ProcessSpec

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing's own constant would be an import on the start path
    from procman.errors import SpawnError
    from procman.keyboard import Keyboard
    from procman.output import Feed
    from procman.probes import LogProber, NotifySocket, Prober


class Fault(NamedTuple):
    """Why procman itself counts an instance as failed, whatever its exit code says."""

    code: int
    text: str  # "was not ready within 30 s"
    comes_back: bool = False  # whatever its restart policy says


class Instance:
    """One instance of a process type: what it is, and what is wanted of it."""

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.state = State.PENDING
        self.is_wanted = True
        self.is_restart_asked = False
        self.process: Process | None = None
        self.feed: Feed | None = None
        self.status: ExitStatus | None = None  # of the leader, once it was reaped
        self.fault: Fault | None = None  # of its last run
        self.spawn_error: SpawnError | None = None  # why the last try to start it made no process
        self.history = History()
        self.timer: Timer | None = None
        self.prober: Prober | LogProber | None = None  # asks whether it is ready, and then whether it still lives
        self.notify: NotifySocket | None = None
        self.strays: list[int] = []  # descendants that left the group
        self.was_killed = False
        self.is_held = False  # down because the user asked for that: the run waits for its return
        self.is_removed = False  # scaled down: gone as soon as it has ended
        self.spawn_count = 0
        self.started_at = 0.0  # wall clock
        self.last_code: int | None = None  # of the last end
        self.keyboard: Keyboard | None = None  # of the terminal of `process`, once somebody has typed
        self.taps: list[Callable[[bytes], None]] = []  # who sees every byte of its output at once
        self.size: Terminal | None = None  # of the terminal of who is attached

    @property
    def code(self) -> int:
        """The exit code that its last end counts with."""
        assert self.status is not None
        return self.fault.code if self.fault else self.status.code

    @property
    def policy(self) -> RestartPolicy:
        """The restart policy that its last end is judged by."""
        policy = self.spec.restart
        return policy._replace(mode=ON_FAILURE) if self.fault and self.fault.comes_back else policy

    def arm(self, loop: Loop, delay_s: float, callback: Callable[[], None]) -> None:
        """Call back after `delay_s`, which may be inf; there is one timer, and it ends with `disarm` or the next."""
        self.disarm()
        if delay_s != float("inf"):
            self.timer = loop.call_later(delay_s, callback)

    def disarm(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def close_prober(self) -> None:
        if self.prober is not None:
            self.prober.close()
            self.prober = None

    def close_notify(self) -> None:
        if self.notify is not None:
            self.notify.close()
            self.notify = None
