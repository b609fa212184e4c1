"""Whether instances are ready, and stay healthy: begins the probes, takes their word, and tells when all are ready.

Only a run in which something is asked or awaited has this.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial

from procman import sweep
from procman.errors import ReadinessTimeout
from procman.events import SYSTEM
from procman.instance import Fault, Instance
from procman.lifecycle import Input, State
from procman.loop import Loop
from procman.process import Reaper
from procman.spec import ProcessSpec, encoded

WEB = "web"
MAX_PLACES = 8  # in the one line that tells where everything is


class Health:
    """The probes of all instances. `environment` is what an instance of a spec gets, `apply` gives an instance its
    input, `tell` takes a name and a line for the user."""

    def __init__(
        self,
        loop: Loop,
        reaper: Reaper,
        run_id: str,
        instances: Mapping[str, Instance],
        environment: Callable[[ProcessSpec], Mapping[bytes, bytes]],
        apply: Callable[[Instance, Input], None],
        tell: Callable[[str, str], None],
    ) -> None:
        self._loop = loop
        self._reaper = reaper
        self._run_id = run_id
        self._instances = instances
        self._environment = environment
        self._apply = apply
        self._tell = tell
        self._began_s = loop.now()
        self._awaited: dict[Instance, None] = {}  # since the start, until all of these are ready

    def address_for(self, instance: Instance) -> dict[bytes, bytes]:
        """Return NOTIFY_SOCKET of its own for one that tells itself when it is ready (sd_notify(3))."""
        instance.close_notify()
        if instance.spec.ready is None or not instance.spec.ready.is_told:
            return {}
        from procman.probes import NotifySocket

        try:
            instance.notify = NotifySocket(self._loop, self._run_id, instance.spec.name)
        except OSError as error:
            place, reason = sweep.socket_directory(self._run_id), os.strerror(error.errno or 0).lower()
            text = f"no socket for its notifications: {place}: {reason} — TMPDIR names the directory"
            self._tell(instance.spec.name, text)
            return {}
        return encoded({"NOTIFY_SOCKET": instance.notify.address})

    def begin(self, instance: Instance) -> None:
        """Ask the process that was just spawned whether it is ready."""
        spec, probe = instance.spec, instance.spec.ready
        assert probe is not None
        # The stop signal has a timer of its own, so this one ends with the state.
        instance.arm(self._loop, probe.within_s, partial(self._on_timeout, instance))
        on_ready = partial(self._apply, instance, Input.IS_READY)
        if instance.notify is not None:
            instance.notify.on_ready = on_ready
        if probe.is_asked:
            from procman.probes import begin_ready

            env = self._environment(spec)
            instance.prober = begin_ready(self._loop, probe, spec, env, self._reaper, instance.taps, on_ready)

    def _on_timeout(self, instance: Instance) -> None:
        assert instance.spec.ready is not None
        text = f"was not ready within {instance.spec.ready.within_s:g} s{_reason(instance)}"
        self._fail(instance, Fault(ReadinessTimeout.exit_code, text), Input.READY_TIMEOUT)

    def on_end(self, instance: Instance) -> None:
        """It has ended before it was ready, unless its last words say otherwise: a failure, whatever its exit code."""
        asked = instance.prober or instance.notify
        if asked is not None:
            asked.hear_out()
        probe = instance.spec.ready
        is_failed = instance.status is not None and instance.status.code not in instance.policy.ok_codes
        if instance.state is State.STARTING and probe is not None and not probe.is_by_end and not is_failed:
            instance.fault = Fault(ReadinessTimeout.exit_code, f"ended before it was ready{_reason(instance)}")
            self._tell(instance.spec.name, instance.fault.text)

    def _fail(self, instance: Instance, fault: Fault, given: Input) -> None:
        if instance.state in (State.STARTING, State.READY):
            instance.fault = fault
            self._tell(instance.spec.name, fault.text)
            self._apply(instance, given)

    def on_ready(self, instance: Instance) -> None:
        """It is ready: say so if that was asked for, and look from now on whether it stays alive."""
        spec = instance.spec
        if spec.ready is not None:
            assert instance.process is not None
            instance.disarm()
            self._tell(spec.name, f"ready after {self._loop.now() - instance.process.started_s:.1f} s")
        self.watch_over(instance)
        self.settle(instance)

    def watch_over(self, instance: Instance) -> None:
        """Look from now on whether one that is ready stays alive, as its spec says it."""
        spec = instance.spec
        instance.close_prober()
        if spec.liveness is not None:
            from procman.probes import begin_liveness

            env = self._environment(spec)
            on_unhealthy = partial(self._on_unhealthy, instance)
            instance.prober = begin_liveness(self._loop, spec.liveness, spec, env, self._reaper, on_unhealthy)

    def _on_unhealthy(self, instance: Instance, reason: str) -> None:
        fault = Fault(ReadinessTimeout.exit_code, f"is not healthy: {reason}", comes_back=True)
        self._fail(instance, fault, Input.UNHEALTHY)

    # --- all of them ---

    def expect(self, instance: Instance) -> None:
        """Count it among those that all together are told to be ready."""
        if is_awaited(instance.spec):
            self._awaited[instance] = None

    def forget(self, instance: Instance) -> None:
        """It is gone, and nobody waits for it."""
        self._awaited.pop(instance, None)

    def settle(self, instance: Instance) -> None:
        """It is ready, or done. If it was the last one, tell once where everything is."""
        if instance not in self._awaited:
            return
        del self._awaited[instance]
        if self._awaited:
            return
        specs = [other.spec for other in self._instances.values() if other.state is State.READY]
        places = [f"{spec.name} http://localhost:{spec.port}" for spec in specs if _is_web(spec)]
        if len(places) > MAX_PLACES:
            places[MAX_PLACES:] = [f"and {len(places) - MAX_PLACES} more"]
        where = f": {', '.join(places)}" if places else ""
        self._tell(SYSTEM, f"all ready after {self._loop.now() - self._began_s:.1f} s{where}")


def _reason(instance: Instance) -> str:
    """Return why it is not ready, to stand behind what is said of that."""
    asked = instance.prober or instance.notify
    is_by_end = instance.spec.ready is not None and instance.spec.ready.is_by_end
    reason = "it has not ended" if is_by_end else asked.reason if asked is not None else "it has no NOTIFY_SOCKET"
    return f": {reason}" if reason else ""


def _is_web(spec: ProcessSpec) -> bool:
    """Tell whether a browser gets an answer: its probe shows that, or it is the type that platforms route HTTP to."""
    if spec.port is None or spec.process_type != WEB:
        return spec.port is not None and spec.ready is not None and spec.ready.is_of_web
    # The command may leave it to the program to look at PORT. The kernel knows whether somebody listens there.
    return spec.serves_port or (spec.ready is not None and spec.port in sweep.listening_ports())


def is_awaited(spec: ProcessSpec) -> bool:
    """Tell whether something has to happen before an instance of `spec` is ready."""
    return bool(spec.ready or spec.needs or spec.services)
