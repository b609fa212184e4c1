"""What each request does: the one place where a client's words become calls of the supervisor."""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from procman.control.protocol import Message, decoded_bytes
from procman.control.server import Connection, Lost, Raw
from procman.errors import EXIT_KILLED, ControlError, UsageMistake, did_you_mean, quoted
from procman.events import SYSTEM
from procman.instance import Instance
from procman.lifecycle import ENDED, State
from procman.process import Terminal
from procman.reload import Outcome
from procman.ring import Ring
from procman.supervisor import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UP = frozenset({State.READY, State.EXITED})  # one that had nothing more to do was up, too

TAIL_BYTES = 4096  # of what was written before, for who attaches
SPARE_ROWS = 3  # of the client's screen: its command line, what it says, and one that is being written

# Returns the last reply, or None as long as the client has to wait.
Look = Callable[[], Message | None]


class Requests:
    """Handles the requests of all clients.

    `plan_scale` gets new counts of types, raises what makes them impossible, and returns what brings them about.
    `plan_reload` reads all files again, and does likewise.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        ring: Ring,
        types: Sequence[str],
        plan_scale: Callable[[Mapping[str, int]], Callable[[], None]],
        plan_reload: Callable[[], Callable[[], Outcome]],
    ) -> None:
        self._supervisor = supervisor
        self._ring = ring
        self._types = types
        self._plan_scale = plan_scale
        self._plan_reload = plan_reload
        self._waiting: dict[Connection, Look] = {}
        self._quitting: list[Connection] = []
        self._attached: dict[Connection, Attachment] = {}
        self._handlers: dict[str, Callable[[Message, Connection], None]] = {
            "ps": self._ps,
            "stop": self._stop,
            "start": self._start,
            "restart": self._restart,
            "scale": self._on_scale,
            "reload": self._on_reload,
            "signal": self._signal,
            "wait": self._on_wait,
            "logs": self._logs,
            "attach": self._attach,
            "quit": self._quit,
        }

    def handle(self, request: Message, connection: Connection) -> None:
        """Begin what is asked. Raises ProcmanError for what cannot be."""
        handler = self._handlers.get(str(request.get("do")))
        if handler is None:
            raise UsageMistake(f"unknown request {quoted(str(request.get('do')))}")
        handler(request, connection)
        self.look()  # a stop of what had no process is told by no event

    def look(self) -> None:
        """Something has changed: answer those who waited for it."""
        for connection, look in list(self._waiting.items()):
            self._answer(connection, look)
        for attachment in list(self._attached.values()):
            attachment.look()

    def close(self) -> None:
        """The run has ended."""
        self.look()  # what has just become true is not undone by the end
        for connection in self._quitting:
            connection.end({"done": True, "code": self._supervisor.exit_code})
        for connection, attachment in list(self._attached.items()):
            attachment.look()
            connection.end({"done": True, "why": "the run has ended"})

    def _wait(self, connection: Connection, look: Look) -> None:
        self._waiting[connection] = look
        self._answer(connection, look)

    def _answer(self, connection: Connection, look: Look) -> None:
        # Also for a client that has left: what it asked for goes on, one step after the other.
        reply = look()
        if reply is not None:
            self._waiting.pop(connection, None)
            if not connection.is_closed:
                connection.end(reply)

    # --- names ---

    def _names(self, request: Message) -> list[str]:
        names = request.get("names") or []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UsageMistake('"names" is no list of strings')
        return names

    def _instances(self, request: Message, comes_back: bool = False) -> list[Instance]:
        """Return the instances that the request names, in the order of the Procfile. Raises UsageMistake.

        With `comes_back` those that are scaled away do not count, though they may need some time yet to end.
        """
        names = self._names(request)
        there = self._supervisor.instances
        running = {name: there[name] for name in there if not (comes_back and there[name].is_removed)}
        known = {*running, *(instance.spec.process_type for instance in running.values())}
        for name in names:
            if name not in known:
                if name in there:
                    process_type, _, count = name.rpartition(".")
                    hint = f"`procman scale {process_type}={count}` brings it back"
                    raise UsageMistake(f"{quoted(name)} is being scaled away", hint=hint)
                is_scaled_away = name in self._types
                hint = f"`procman scale {name}=1` starts it" if is_scaled_away else did_you_mean(name, sorted(known))
                raise UsageMistake(f"{quoted(name)} does not run here", hint=hint)
        chosen = [i for i in running.values() if not names or i.spec.name in names or i.spec.process_type in names]
        return sorted(chosen, key=lambda instance: (instance.spec.type_index, instance.spec.instance))

    def _is_only_checked(self, request: Message, connection: Connection) -> bool:
        """Tell whether to do nothing: the client only asks what would be refused, and all that can refuse has not."""
        if not request.get("check"):
            return False
        connection.end({"done": True})
        return True

    def _done(self, instances: Sequence[Instance]) -> Message:
        records = [record_of(instance, self._supervisor.missing(instance)) for instance in instances]
        return {"done": True, "instances": records}

    # --- requests ---

    def _ps(self, request: Message, connection: Connection) -> None:
        connection.end(self._done(self._instances(request)))

    def _stop(self, request: Message, connection: Connection) -> None:
        instances = self._instances(request)
        if self._is_only_checked(request, connection):
            return
        self._supervisor.stop_instances(instances)
        self._wait(connection, lambda: self._look_down(instances))

    def _look_down(self, instances: Sequence[Instance]) -> Message | None:
        if not all(instance.state in ENDED for instance in instances):
            return None
        lost = [instance.spec.name for instance in instances if instance.state is State.LOST]
        if lost:
            return {"error": f"{', '.join(lost)} could not be killed", "code": EXIT_KILLED}
        return self._done(instances)

    def _start(self, request: Message, connection: Connection) -> None:
        self._check_runs()
        instances = self._instances(request, comes_back=True)
        if self._is_only_checked(request, connection):
            return
        self._supervisor.start_instances(instances)
        self._wait(connection, lambda: self._look_up(instances))

    def _check_runs(self) -> None:
        if self._supervisor.is_ending:
            raise ControlError("the run is ending, so nothing is started any more")

    def _look_up(self, instances: Sequence[Instance], spawns: Mapping[Instance, int] | None = None) -> Message | None:
        """Tell whether all are up, each spawned more often than `spawns` says."""
        failed = [instance for instance in instances if instance.state in (State.FAILED, State.LOST)]
        if failed:
            names = ", ".join(instance.spec.name for instance in failed)
            reasons = dict.fromkeys(_why_never_ready(instance, False).removeprefix("failed: ") for instance in failed)
            return {"error": f"{names} did not come up: {'; '.join(reasons)}", "code": EXIT_KILLED}
        stopped = [i.spec.name for i in instances if i.state is State.EXITED and not i.is_wanted]
        if stopped and not self._supervisor.is_ending:
            verb = "was" if len(stopped) == 1 else "were"
            return {"error": f"{', '.join(stopped)} {verb} stopped", "code": EXIT_KILLED}
        for instance in instances:
            if instance.state not in UP or (spawns is not None and instance.spawn_count <= spawns[instance]):
                return None
        return self._done(instances)

    def _restart(self, request: Message, connection: Connection) -> None:
        self._check_runs()
        instances = self._instances(request, comes_back=True)
        if self._is_only_checked(request, connection):
            return
        groups = [[instance] for instance in instances] if request.get("rolling") else [instances]
        self._restart_each(groups, instances, connection)

    def _restart_each(
        self, groups: Iterable[list[Instance]], everyone: list[Instance], connection: Connection
    ) -> None:
        """Restart one group after another, each when the last is up: also if the client has left by then."""
        left = iter(groups)
        group: list[Instance] = []
        spawns: dict[Instance, int] = {}

        def look() -> Message | None:
            nonlocal group, spawns
            while (reply := self._look_up(group, spawns)) is not None and "error" not in reply:
                following = next(left, None)
                if following is None:
                    return self._done(everyone)
                group = following
                spawns = {instance: instance.spawn_count for instance in group}
                self._supervisor.restart_instances(group)  # one that was down may be up at once
            return reply

        self._wait(connection, look)

    def _on_scale(self, request: Message, connection: Connection) -> None:
        self._check_runs()
        counts = self._counts(request.get("counts"))
        scale = self._plan_scale(counts)
        if self._is_only_checked(request, connection):
            return
        before = {i for i in self._supervisor.instances.values() if not i.is_removed}
        scale()
        of_types = [i for i in self._supervisor.instances.values() if i.spec.process_type in counts]
        self._wait(connection, lambda: self._look_scaled(of_types, before))

    def _look_scaled(self, instances: Sequence[Instance], before: Collection[Instance]) -> Message | None:
        """Tell whether what is new is up and what was too much is gone; those between are as they were."""
        staying = [i for i in instances if not i.is_removed and i not in before]
        if any(i.is_removed and i.state not in ENDED for i in instances):
            return None
        reply = self._look_up(staying)
        return self._done([i for i in instances if not i.is_removed]) if reply and "done" in reply else reply

    def _on_reload(self, request: Message, connection: Connection) -> None:
        self._check_runs()
        reload = self._plan_reload()
        if self._is_only_checked(request, connection):
            return
        before = dict(self._supervisor.instances)
        spawns = {instance: instance.spawn_count for instance in before.values()}
        outcome = reload()
        leaving = [before[name] for name in outcome.changes.stopped]
        coming = [*outcome.changes.started, *outcome.changes.restarted]

        def look() -> Message | None:
            instances = [found for name in coming if (found := self._supervisor.instances.get(name)) is not None]
            if outcome.is_waiting() or any(instance.state not in ENDED for instance in leaving):
                return None
            if lost := [instance.spec.name for instance in leaving if instance.state is State.LOST]:
                return {"error": f"{', '.join(lost)} could not be killed", "code": EXIT_KILLED}
            reply = self._look_up(instances, {instance: spawns.get(instance, 0) for instance in instances})
            if reply is None or "error" in reply:
                return reply
            return {**self._done(self._instances({})), **outcome.changes._asdict(), "notes": outcome.notes}

        self._wait(connection, look)

    def _counts(self, asked: Any) -> dict[str, int]:
        """Return the count of every type that is asked for: a number, or "+2" and "-1" from what there is."""
        if not isinstance(asked, dict) or not asked:
            raise UsageMistake("no counts", hint="write web=3 or web=+1")
        counts: dict[str, int] = {}
        faults = []
        for name, count in asked.items():
            there = sum(i.spec.process_type == name and not i.is_removed for i in self._supervisor.instances.values())
            is_step = isinstance(count, str) and count[:1] in ("+", "-") and count[1:].isdecimal() and count.isascii()
            if name not in self._types:
                faults.append(f"unknown process type {quoted(name)} — {did_you_mean(name, self._types)}")
            elif is_step and len(count) < 8:
                counts[name] = there + int(count)
                if counts[name] < 0:
                    faults.append(f"{name}{count}: only {there} of it run")
            elif type(count) is int and 0 <= count <= 65535:
                counts[name] = count
            else:
                faults.append(f"{quoted(f'{name}={count}')}: no count from 0 to 65535")
        if faults:
            raise UsageMistake("\n".join(faults))
        return counts

    def _signal(self, request: Message, connection: Connection) -> None:
        signum = _signal_number(request.get("signal"))
        instances = self._instances(request)
        if self._is_only_checked(request, connection):
            return
        self._supervisor.signal_instances(instances, signum)
        connection.end(self._done(instances))

    def _on_wait(self, request: Message, connection: Connection) -> None:
        names = self._names(request)
        running = {instance.spec.process_type for instance in self._supervisor.instances.values()}
        later = [name for name in names if (entry := type_in(name)) in self._types and entry not in running]
        now = [name for name in names if name not in later]
        instances = self._instances({"names": now}) if now or not names else []
        if later:
            raise ControlError(f"not started here: {', '.join(later)}")
        if not self._is_only_checked(request, connection):
            self._wait(connection, lambda: self._look_ready(instances))

    def _look_ready(self, instances: Sequence[Instance]) -> Message | None:
        """Tell whether all are up or have done their work, or why that will not be."""
        if all(i.state is State.READY or (i.state is State.EXITED and i.is_wanted) for i in instances):
            return self._done(instances)
        ends = self._supervisor.is_ending
        if failed := [f"{i.spec.name} {why}" for i in instances if (why := _why_never_ready(i, ends))]:
            return {"error": "; ".join(failed), "code": EXIT_KILLED}
        if ends:
            return {"error": f"the run is ending: {self._supervisor.why_ending}", "code": EXIT_KILLED}
        return None

    def _logs(self, request: Message, connection: Connection) -> None:
        names = [instance.spec.name for instance in self._instances(request)]
        wanted = frozenset(request.get("names") or ())
        limit_bytes = request.get("bytes")
        if limit_bytes is not None and (type(limit_bytes) is not int or limit_bytes < 0):
            raise UsageMistake("bytes must be a number, 0 or more")
        events, dropped = self._ring.history([*names, *(() if wanted else (SYSTEM,))], limit_bytes)
        connection.send_events([*(Lost(name, size) for name, size in dropped.items()), *events])
        if request.get("follow"):
            connection.send_events([{"event": "live"}])
            connection.wants = lambda name: not wanted or name in wanted or name.rpartition(".")[0] in wanted
        else:
            connection.end({"done": True})

    def _attach(self, request: Message, connection: Connection) -> None:
        instances = self._instances({"names": [request.get("name")]})
        if len(instances) > 1:
            names = ", ".join(instance.spec.name for instance in instances)
            raise UsageMistake("only one can be attached", hint=f"choose one of {names}")
        instance = instances[0]
        # One that is down will have a terminal when it comes back.
        process = None if is_down(instance) else instance.process
        if process.slave_fd < 0 if process else not self._supervisor.gives_terminals:
            raise ControlError(
                f"{instance.spec.name} has no terminal", hint="run procman in a terminal, or with `start --pty`"
            )
        attachment = Attachment(self._supervisor, instance, connection, lambda: self._leave(connection))
        self._attached[connection] = attachment
        attachment.begin(request, self._ring.tail(instance.spec.name, TAIL_BYTES))

    def _leave(self, connection: Connection) -> None:
        """Forget one that was attached; the terminal has the size of the last one that still is."""
        instance = self._attached.pop(connection).instance
        sizes = [other.size for other in self._attached.values() if other.instance is instance and other.size]
        self._supervisor.resize_one(instance, sizes[-1] if sizes else None)

    def _quit(self, request: Message, connection: Connection) -> None:
        self._quitting.append(connection)
        self._supervisor.stop(0, "stopped by procman quit")


class Attachment:
    """A client at the terminal of an instance."""

    def __init__(
        self, supervisor: Supervisor, instance: Instance, connection: Connection, on_end: Callable[[], object]
    ) -> None:
        self.instance = instance
        self.size: Terminal | None = None
        self._supervisor = supervisor
        self._connection = connection
        self._on_end = on_end
        self._spawn_count = instance.spawn_count
        self._is_down = False  # and the client knows

    def begin(self, request: Message, tail: bytes) -> None:
        """Show what was written last, and pass bytes both ways."""
        self._connection.send({"attached": self.instance.spec.name})
        self._resize(request)
        feed = self.instance.feed
        written = tail + (b"".join(feed.pieces) if feed else b"")
        self._tap(_fitting(written, self.size) if self.size else written)
        self.instance.taps.append(self._tap)
        self._connection.on_message = self._on_message
        self._connection.on_close = self._end
        self.look()

    def look(self) -> None:
        """Tell of a new process, or of the end of the last one."""
        name = self.instance.spec.name
        if self.instance.spawn_count != self._spawn_count:
            self._spawn_count = self.instance.spawn_count
            self._is_down = False
            self._connection.send_events([{"attached": name}])
        if is_down(self.instance) and not self._is_down:
            self._is_down = True
            self._connection.send_events([{"exited": name, "code": self.instance.last_code}])
        if self.instance.is_removed and self.instance.state in ENDED:
            self._connection.end({"done": True, "why": f"{name} was scaled away"})

    def _tap(self, chunk: bytes) -> None:
        self._connection.follow(Raw(self.instance.spec.name, chunk))

    def _on_message(self, message: Message) -> None:
        if "keys" in message:
            keys = decoded_bytes(message["keys"])
            if keyboard := self._supervisor.keyboard_of(self.instance):
                keyboard.type(keys)
        elif message.get("detach"):
            self._connection.end({"done": True})
        else:
            self._resize(message)

    def _resize(self, message: Message) -> None:
        rows, columns = message.get("rows"), message.get("columns")
        if type(rows) is int and type(columns) is int and 0 < rows < 65536 and 0 < columns < 65536:
            self.size = Terminal(rows, columns)
            self._supervisor.resize_one(self.instance, self.size)

    def _end(self) -> None:
        self.instance.taps.remove(self._tap)
        self._on_end()


def _fitting(written: bytes, size: Terminal) -> bytes:
    """Return the last lines of `written`, so many that what the client has said itself stays on its screen."""
    *whole, last = written.split(b"\n")
    lines = [line + b"\n" for line in whole] + ([last] if last else [])
    left = size.rows - SPARE_ROWS
    first = len(lines)
    while first > 0 and (left := left - max(1, -(-len(lines[first - 1]) // size.columns))) >= 0:
        first -= 1
    return b"".join(lines[min(first, len(lines) - 1) :]) if lines else b""


def type_in(name: str) -> str:
    """Return the process type of `web` or `web.2`."""
    stem, _, number = name.rpartition(".")
    return stem if number.isdecimal() else name


def _why_never_ready(instance: Instance, ends: bool) -> str:
    """Return what keeps it from ever becoming ready by itself; "" if nothing does. A run that `ends` stops all."""
    match instance.state:
        case State.FAILED:
            if instance.fault is not None:
                return f"failed: {instance.fault.text}"
            code = "" if instance.last_code is None else f" with code {instance.last_code}"
            return f"failed{code}"
        case State.LOST:
            return "could not be killed"
        case State.EXITED if not instance.is_wanted and not ends:
            return "was stopped"
    return ""


def is_down(instance: Instance) -> bool:
    """Tell whether there is no process: it has ended, or not begun."""
    return instance.process is None or instance.state in (*ENDED, State.BACKOFF, State.PENDING)


def record_of(instance: Instance, waits_for: Sequence[str]) -> Message:
    """Return an instance as clients see it."""
    spec, process = instance.spec, instance.process
    is_there = process is not None and not is_down(instance)
    return {
        "name": spec.name,
        "type": spec.process_type,
        "instance": spec.instance,
        "state": str(instance.state),
        "wanted": instance.is_wanted,
        "pid": process.pid if process is not None and is_there else None,
        "port": spec.port,
        "started_at": instance.started_at if is_there else None,
        "restarts": max(0, instance.spawn_count - 1),
        "code": instance.last_code,
        "command": spec.command,
        "has_terminal": process is not None and is_there and process.slave_fd >= 0,
        "waits_for": list(waits_for),
    }


def _signal_number(asked: Any) -> int:
    """Return the number of 10, "10", "USR1" or "SIGUSR1". Raises UsageMistake."""
    try:
        if isinstance(asked, str) and not asked.isdecimal():
            return int(signal.Signals["SIG" + asked.upper().removeprefix("SIG")])
        return int(signal.Signals(int(asked)))
    except (KeyError, ValueError, TypeError):
        hint = "write a name such as USR1, or a number"
        raise UsageMistake(f"{quoted(str(asked))} is no signal", hint=hint) from None
