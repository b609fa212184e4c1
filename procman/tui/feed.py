"""What the view gets from the supervisors, in threads, for the client blocks; each waits until its last was taken."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import threading
from collections.abc import Callable, Mapping, Sequence

from procman.control.client import Connection, Control, Nobody, Peer, failure_of, is_last
from procman.control.protocol import Message, block_of, event_of
from procman.control.usage import Meter
from procman.errors import ControlError, ProcmanError
from procman.errors import failure_of as failure_of_exception
from procman.records import NamedTuple
from procman.sinks.console import text_of
from procman.sinks.terminal import Screen

LOOK_S = 1.0
FRAME_S = 0.1  # nobody reads faster than ten screens a second
FLOOD_BYTES = 64 * 1024  # of a frame: who writes more is looked at, and no longer followed
HISTORY_BYTES = 64 * 1024  # asked for at a look
AGAIN_S = 1.0
ACTION_S = 60.0  # how long an answer is waited for; what was asked for goes on
MAX_ACTIONS = 8  # under way

TEXT, OWN, GAP = "text", "own", "gap"

Find = Callable[[], Control]


def finder(directory: str, pid: int | None = None) -> Find:
    """Return what finds the supervisors of a directory, or only the one with that pid. It raises ControlError."""

    def find() -> Control:
        control = Control(directory)
        if pid is not None:
            for peer in control.peers:
                if peer.pid != pid:
                    peer.close()
            control.peers = [peer for peer in control.peers if peer.pid == pid]
            if not control.peers:
                raise Nobody("the run has not begun yet, or has ended")
        return control

    return find


class Look(NamedTuple):
    """What runs, and what is to be said of who does not answer."""

    instances: Sequence[Message]
    trouble: str = ""


class Looks:
    """Asks what runs and measures it, once a second. `on_look` is called from the thread when there is a new one."""

    def __init__(self, find: Find, on_look: Callable[[], object]) -> None:
        self._find = find
        self._on_look = on_look
        self._meter = Meter()
        self._looks: queue.Queue[Look] = queue.Queue(1)
        self._is_hurried = threading.Event()
        self._is_closed = False

    def begin(self) -> None:
        threading.Thread(target=self._run, daemon=True, name="looks").start()

    def close(self) -> None:
        """Let the thread end, when it has its answer."""
        self._is_closed = True
        self.take()
        self.hurry()

    def hurry(self) -> None:
        """Look at once: something has just been done."""
        self._is_hurried.set()

    def take(self) -> Look | None:
        with contextlib.suppress(queue.Empty):
            return self._looks.get_nowait()
        return None

    def _run(self) -> None:
        while not self._is_closed:
            self._looks.put(self._look())
            self._on_look()
            self._is_hurried.wait(LOOK_S)
            self._is_hurried.clear()

    def _look(self) -> Look:
        try:
            with contextlib.closing(self._find()) as control:
                return Look(self._meter.measured(control.instances()), control.complaint)
        except Exception as error:
            return Look((), _told(error))


class Frame(NamedTuple):
    """What has come of one instance's log: parts of a kind, text, bytes that are missing."""

    name: str
    is_new: bool  # the first of this instance
    parts: Sequence[tuple[str, str, int]]
    trouble: str = ""


class Log:
    """Follows the log of one instance, ten times a second at most.

    One that writes more than anybody can read is not followed, but looked at: each time anew what the supervisor has
    kept of it. So the supervisor encodes no more for us than we show, and what is shown is the latest. Where an
    instance stands is told by the bytes that have dropped out of what is kept; so we know how many were passed over.
    """

    def __init__(self, find: Find, on_frame: Callable[[], object]) -> None:
        self._find = find
        self._on_frame = on_frame
        self._frames: queue.Queue[Frame] = queue.Queue(1)
        self._wanted = ("", False)
        self._wakeup_fd, self._wake_fd = os.pipe()
        os.set_blocking(self._wakeup_fd, False)
        os.set_blocking(self._wake_fd, False)
        self._shown = ("", False)
        self._is_closed = False
        self._connection: Connection | None = None
        self._begin("")

    # --- for the view ---

    def begin(self) -> None:
        threading.Thread(target=self._run, daemon=True, name="log").start()

    def show(self, name: str, is_paused: bool = False) -> None:
        """Follow this one from now on, "" for none; a paused one is not read at all."""
        self._wanted = name, is_paused
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_fd, b"!")

    def close(self) -> None:
        """Let the thread end, when it has its answer. Nothing may be shown any more."""
        self._is_closed = True
        self.take()
        os.close(self._wake_fd)  # its end wakes the thread, too

    def take(self) -> Frame | None:
        with contextlib.suppress(queue.Empty):
            return self._frames.get_nowait()
        return None

    # --- the thread ---

    def _run(self) -> None:
        while not self._is_closed:
            try:
                self._follow_wish()
                name, is_paused = self._shown
                if not name or is_paused:
                    self._rest(None)
                else:
                    self._turn(name)
            except Exception as error:
                self._drop()
                self._put(_told(error))
                self._rest(AGAIN_S)
        self._drop()
        os.close(self._wakeup_fd)

    def _follow_wish(self) -> None:
        wanted = name, is_paused = self._wanted
        if wanted == self._shown:
            return
        if name != self._shown[0]:
            self._begin(name)
        elif is_paused:
            self._drop()
        self._shown = wanted

    def _begin(self, name: str) -> None:
        self._drop()
        self._name = name
        self._is_new = True
        self._is_flooded = False
        self._pid = 0
        self._position = -1  # of the next byte of its output, counted from its first; not known yet
        self._event_at = 0.0  # of the last event that was no output
        self._screen = Screen()
        self._parts: list[tuple[str, str, int]] = []

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _turn(self, name: str) -> None:
        if self._connection is None:
            self._is_flooded = self._look(name)
            if self._is_flooded:
                self._drop()
        elif self._is_readable(self._connection):
            size = sum(self._take(message) for message in self._connection.receive())
            if size >= FLOOD_BYTES:
                self._is_flooded = True
                self._drop()
        else:
            return  # only woken up
        self._put()
        self._rest(FRAME_S)

    def _look(self, name: str) -> bool:
        """Open a connection, and take what it tells of the past; return whether something is missing."""
        with contextlib.closing(self._find()) as control:
            ((peer, names),) = control.route([name]).items()
            request = {"do": "logs", "names": names, "follow": not self._is_flooded, "bytes": HISTORY_BYTES}
            self._connection = peer.ask(request)
        if peer.pid != self._pid:
            self._pid, self._position, self._event_at = peer.pid, -1, 0.0
        messages: list[Message] = []
        while not any(message.get("event") == "live" or is_last(message) for message in messages):
            messages += self._connection.receive()
        live = next((at for at, message in enumerate(messages) if message.get("event") == "live"), len(messages))
        if "done" in messages[-1]:  # not followed
            live -= 1
            self._drop()
        is_missing = self._take_past(messages[:live])
        if self._connection is not None:
            for message in messages[live:]:
                self._take(message)
        return is_missing

    def _take_past(self, messages: Sequence[Message]) -> bool:
        """Take what we do not have of what was kept."""
        seen, self._position = self._position, 0
        missing = 0
        for message in messages:
            if message.get("event") == "lost":
                self._position += int(message.get("lost_bytes", 0))
                missing = max(0, self._position - seen) if seen >= 0 else self._position
                self._miss(missing)
            elif message.get("event") == "output":
                block = block_of(message)
                self._position += len(block)
                new = min(len(block), self._position - seen)
                self._write(block[-new:] if new > 0 else b"")
            else:
                self._take(message)
        return missing > 0 and seen >= 0

    def _take(self, message: Message) -> int:
        """Take what happens now; return how much text it was."""
        if message.get("event") == "lost":
            size = int(message.get("lost_bytes", 0))
            self._position += size
            self._miss(size)
        elif message.get("event") == "output":
            block = block_of(message)
            self._position += len(block)
            self._write(block)
            return len(block)
        elif is_last(message):
            raise failure_of([message]) if "error" in message else ControlError("the run has ended")
        elif (event := event_of(message)) is not None and event.at > self._event_at:
            self._event_at = event.at
            if text := text_of(event):
                self._parts.append((OWN, text, 0))
        return 0

    def _write(self, block: bytes) -> None:
        if block:
            self._parts.append((TEXT, self._screen.cleaned(block, b"").decode("utf-8", "replace"), 0))

    def _miss(self, size: int) -> None:
        if size:
            self._screen = Screen()  # what it had begun is among it
            self._parts.append((GAP, "", size))

    def _put(self, trouble: str = "") -> None:
        frame = Frame(self._name, self._is_new, self._parts, trouble)
        self._is_new, self._parts = False, []
        self._frames.put(frame)
        self._on_frame()

    # --- waiting ---

    def _is_readable(self, connection: Connection) -> bool:
        """Wait until there is something; False when the wish has changed."""
        poll = select.poll()
        poll.register(self._wakeup_fd, select.POLLIN)
        poll.register(connection.fileno(), select.POLLIN)
        ready = {fd for fd, _ in poll.poll()}
        if self._wakeup_fd in ready:
            self._forget_wakeups()
            return False
        return True

    def _rest(self, wait_s: float | None) -> None:
        poll = select.poll()
        poll.register(self._wakeup_fd, select.POLLIN)
        if poll.poll(None if wait_s is None else wait_s * 1000):
            self._forget_wakeups()

    def _forget_wakeups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup_fd, 4096)


class Actions:
    """Asks for what the user wants, each in a thread of its own; `tell` is called from there with what came of it."""

    def __init__(self, find: Find, tell: Callable[[str, bool], object]) -> None:
        self._find = find
        self._tell = tell
        self._free = threading.Semaphore(MAX_ACTIONS)

    def of_instance(self, words: str, name: str, request: Message) -> None:
        """Send a request about instance `name`. `words` say it, for the answer."""

        def requests(control: Control) -> Mapping[Peer, Message]:
            return {peer: {**request, "names": names} for peer, names in control.route([name]).items()}

        self._begin(words, requests)

    def scale(self, words: str, process_type: str, step: str) -> None:
        """Change the count of a type by `step`, as in "+1"."""

        def requests(control: Control) -> Mapping[Peer, Message]:
            routed = control.route_counts({process_type: step})
            return {peer: {"do": "scale", "counts": counts} for peer, counts in routed.items()}

        self._begin(words, requests)

    def _begin(self, words: str, requests: Callable[[Control], Mapping[Peer, Message]]) -> None:
        if not self._free.acquire(blocking=False):
            self._tell(f"{words}: {MAX_ACTIONS} requests are under way — wait for one of them", True)
            return
        self._tell(f"{words} …", False)
        threading.Thread(target=self._run, args=(words, requests), daemon=True, name="action").start()

    def _run(self, words: str, requests: Callable[[Control], Mapping[Peer, Message]]) -> None:
        try:
            with contextlib.closing(self._find()) as control:
                control.ask(requests(control), ACTION_S)
        except Exception as error:
            self._tell(f"{words}: {_told(error)}", True)
        else:
            self._tell(f"{words}: done", False)
        finally:
            self._free.release()


def _told(error: Exception) -> str:
    """Return an error as one line."""
    failure = error if isinstance(error, ProcmanError) else failure_of_exception(error)
    return " — ".join(str(failure).splitlines())
