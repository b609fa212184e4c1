"""What instances wait for before they start, and the order in which they stop.

Only a run in which somebody needs something has this. `needs` between types are checked for circles before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from procman.errors import ReadinessTimeout
from procman.events import SYSTEM
from procman.instance import Fault, Instance
from procman.lifecycle import RUNNING, Input, State
from procman.loop import Loop, Timer

TYPE_CHECKING = False
if TYPE_CHECKING:  # a run that needs no backing service does not load these
    from procman.protocols import BackingService
    from procman.services import ServiceWatch


class Dependencies:
    """Who waits for whom. `apply` gives an instance its input, `tell` takes a name and a line for the user.

    `within_s` is how long a backing service is waited for.
    """

    def __init__(
        self,
        loop: Loop,
        instances: Mapping[str, Instance],
        within_s: float,
        apply: Callable[[Instance, Input], None],
        tell: Callable[[str, str], None],
    ) -> None:
        self._loop = loop
        self._instances = instances
        self._within_s = within_s
        self._apply = apply
        self._tell = tell
        self._waiting: dict[Instance, set[BackingService]] = {}  # and what has not answered yet
        self._asked: dict[BackingService, _Asked] = {}
        self._kept: dict[Instance, Input] = {}  # to be stopped, or restarted, when those are gone that need them
        self._is_due = False

    # --- starting ---

    def await_needs(self, instance: Instance) -> None:
        """Let `instance` start as soon as all it needs is there: at once, or in a later turn of the loop."""
        services = set(instance.spec.services)
        missing = [name for name in instance.spec.needs if not self._are_ready(self._of_type(name))]
        if not services and not missing:
            self._apply(instance, Input.NEEDS_READY)
            return
        self._waiting[instance] = services
        if missing:
            self._tell(instance.spec.name, f"waiting for {', '.join(missing)}")
        for service in services:
            self._ask(service)
        self.look_later()

    def missing(self, instance: Instance) -> list[str]:
        """Return what `instance` waits for: process types and variables."""
        if instance not in self._waiting:
            return []
        types = [name for name in instance.spec.needs if not self._are_ready(self._of_type(name))]
        return types + [service.variable for service in instance.spec.services if service in self._waiting[instance]]

    def look_later(self) -> None:
        """Some state has changed: look at the end of the turn who may start, or stop, now."""
        if not self._is_due:
            self._is_due = True
            self._loop.at_turn_end(self._look)

    def _of_type(self, name: str) -> list[Instance]:
        return [i for i in self._instances.values() if i.spec.process_type == name and not i.is_removed]

    def _look(self) -> None:
        self._is_due = False
        by_type: dict[str, list[Instance]] = {}
        for instance in self._instances.values():
            if not instance.is_removed:
                by_type.setdefault(instance.spec.process_type, []).append(instance)
        for instance, services in list(self._waiting.items()):
            if instance.state is not State.PENDING:
                del self._waiting[instance]  # stopped meanwhile
                continue
            needs = [by_type.get(name, []) for name in instance.spec.needs]
            failed = [i for needed in needs for i in needed if i.state in (State.FAILED, State.LOST)]
            if failed:
                self._fail(instance, Fault(failed[0].last_code or 1, f"{failed[0].spec.name} has failed"))
            elif not services and all(map(self._are_ready, needs)):
                del self._waiting[instance]
                self._apply(instance, Input.NEEDS_READY)
        for service in [asked for asked in self._asked if not any(asked in left for left in self._waiting.values())]:
            self._asked.pop(service).close()
        self._stop_kept()

    def _are_ready(self, needed: Iterable[Instance]) -> bool:
        """Tell whether all are up and stay so, or have done what they had to do."""
        return all(
            (i.state is State.READY and i not in self._kept)
            or (i.state is State.EXITED and not i.is_held and i.last_code in i.spec.restart.ok_codes)
            for i in needed
        )

    def _fail(self, instance: Instance, fault: Fault) -> None:
        self._waiting.pop(instance, None)
        instance.fault = fault
        self._apply(instance, Input.NEEDS_FAILED)

    # --- backing services ---

    def _ask(self, service: BackingService) -> None:
        if service not in self._asked:
            from procman.protocols import named
            from procman.services import ServiceWatch

            watch = ServiceWatch(
                self._loop,
                service,
                lambda waited_s: self._on_answer(service, waited_s),
                lambda reason: self._on_trouble(service, reason),
            )
            self._asked[service] = _Asked(named(service), watch)
            self._limit(service)

    def _limit(self, service: BackingService) -> None:
        """Wait for it no longer than `within_s` from now."""
        asked = self._asked[service]
        if asked.timer is not None:
            asked.timer.cancel()
        is_limited = self._within_s != float("inf")
        asked.timer = self._loop.call_later(self._within_s, lambda: self._on_timeout(service)) if is_limited else None

    def wait_at_most(self, within_s: float) -> None:
        """Take another limit: for those that are waited for it begins now."""
        if within_s != self._within_s:
            self._within_s = within_s
            for service in self._asked:
                self._limit(service)

    def _on_trouble(self, service: BackingService, reason: str) -> None:
        asked = self._asked[service]
        asked.reason = reason
        self._tell(SYSTEM, f"waiting for {asked.name}: {reason}")

    def _on_answer(self, service: BackingService, waited_s: float) -> None:
        asked = self._asked.pop(service)
        asked.close()
        if asked.reason:
            self._tell(SYSTEM, f"{asked.name} answers after {waited_s:.1f} s")
        for services in self._waiting.values():
            services.discard(service)
        self.look_later()

    def _on_timeout(self, service: BackingService) -> None:
        asked = self._asked.pop(service)
        asked.close()
        reason = f": {asked.reason}" if asked.reason else ""
        text = f"{asked.name} did not answer within {self._within_s:g} s{reason}"
        for instance, services in list(self._waiting.items()):
            if service in services:
                self._fail(instance, Fault(ReadinessTimeout.exit_code, text))

    def close(self) -> None:
        """Nothing starts any more: ask nobody."""
        for asked in self._asked.values():
            asked.close()
        self._asked.clear()

    # --- stopping ---

    def first_to_stop(self, instances: Iterable[Instance], given: Input = Input.STOP) -> list[Instance]:
        """Return those of `instances` that none of the others needs; the rest is given `given` when those are gone."""
        asked = list(instances)
        needed = {name for instance in asked if instance.state in RUNNING for name in instance.spec.needs}
        first = []
        for instance in asked:
            if instance.state in (State.STARTING, State.READY) and instance.spec.process_type in needed:
                self._kept[instance] = given
            else:
                self._kept.pop(instance, None)
                first.append(instance)
        self.look_later()
        return first

    @property
    def keeps_any(self) -> bool:
        """Whether some have yet to be told to stop."""
        return bool(self._kept)

    def let_go(self, instance: Instance, given: Input) -> None:
        """It shall not stop any more, or is told to begin anew now; whose restart is yet to come starts with that."""
        if given is Input.RESTART or self._kept.get(instance) is Input.STOP:
            self._kept.pop(instance, None)

    def hurry(self) -> None:
        """Stop all that are left, in no order."""
        kept, self._kept = self._kept, {}
        for instance in kept:
            self._apply(instance, Input.STOP)

    def _stop_kept(self) -> None:
        if not self._kept:
            return
        leaving = [i for i in self._instances.values() if i.state is State.STOPPING or i in self._kept]
        needed = {name for instance in leaving if instance.state in RUNNING for name in instance.spec.needs}
        for instance in list(self._kept):
            if instance.spec.process_type not in needed:
                self._apply(instance, self._kept.pop(instance))


class _Asked:
    """A backing service that somebody waits for."""

    def __init__(self, name: str, watch: ServiceWatch) -> None:
        self.name = name  # for people
        self.watch = watch
        self.timer: Timer | None = None
        self.reason = ""  # why it is not there yet, as told last

    def close(self) -> None:
        self.watch.close()
        if self.timer is not None:
            self.timer.cancel()
