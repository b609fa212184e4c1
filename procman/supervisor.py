"""Runs a formation: applies the decisions of the floors below. The only owner of running state."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from procman import lifecycle, sweep
from procman.errors import EXIT_BUG, EXIT_KILLED, EXIT_READER_GONE, SpawnError
from procman.events import SYSTEM, Event, Exited, GaveUp, Notice, Ready, Restarting, Started, Stopping
from procman.instance import Instance
from procman.kernel import become_subreaper, signal_name
from procman.leftovers import KILL_WAIT_S, POLL_S, Leftovers
from procman.lifecycle import ENDED, RUNNING, Action, Input, State
from procman.loop import Loop
from procman.process import (
    ExitStatus,
    Reaper,
    Terminal,
    group_exists,
    ignored_by_caller,
    signal_group,
    spawn,
    stop_group,
)
from procman.restart import decide, stays_down
from procman.spec import ProcessSpec, encoded

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing's own constant would be an import on the start path
    from procman.dependencies import Dependencies
    from procman.health import Health
    from procman.keyboard import Keyboard
    from procman.output import Feed, Multiplexer

SECOND_SIGNAL_S = 0.5  # npm, make and uv deliver one Ctrl-C twice


class Supervisor:
    """Starts `specs`, keeps them by their policies, and ends with nothing left.

    `env` is the environment children inherit and `run_id` its mark; `terminal` is the size of the ptys they get, None
    for pipes. `on_end` is called when nothing is left to supervise; `exit_code` is then procman's own. A backing
    service that somebody needs is waited for `needs_within_s` seconds.
    """

    def __init__(
        self,
        loop: Loop,
        specs: Sequence[ProcessSpec],
        env: Mapping[str, str],
        run_id: str,
        terminal: Terminal | None,
        grace_s: float,
        on_end: Callable[[], None],
        file_limit: int | None = None,
        needs_within_s: float = 60.0,
    ) -> None:
        self.exit_code = 0
        self.is_hurried = False  # a second signal came: wait for nobody
        self._loop = loop
        self.instances = {spec.name: Instance(spec) for spec in specs}
        self._alive = set(self.instances.values())  # those whose state is not an end
        self._env = env
        self._mark = {"PROCMAN_RUN": run_id}
        self._mark_bytes = encoded(self._mark)
        self._shared_env: Mapping[str, str] | None = None
        self._base_env: dict[bytes, bytes] = {}
        self._terminal = terminal
        self._file_limit = file_limit
        self._ignored = ignored_by_caller()
        self._grace_s = grace_s
        self._on_end = on_end
        self._reaper = Reaper()
        # Before the first spawn: an orphan made in between would be the guard's, and a restart would not see it.
        self._adopts = become_subreaper()
        self._leftovers = Leftovers(loop, self._reaper, run_id, self._adopts, self._notice_system)
        self._multiplexer: Multiplexer | None = None
        self._early: list[Event] = []
        self._feeds: dict[Feed, None] = {}
        self._headless: dict[Instance, None] = {}  # the leader is gone, others are left
        self._needs_within_s = needs_within_s
        self._dependencies: Dependencies | None = None
        self._health: Health | None = None
        self._stop_s: float | None = None  # monotonic time at which the run's end began
        self._last_stop_s = 0.0  # and at which the last one was told to stop
        self._signal_s: float | None = None
        self._is_quit = False  # and whether it was SIGQUIT
        self._end_text = "every process has ended"
        self._killed: list[str] = []
        self._lost: list[str] = []
        self._is_scaled = False
        self._watched: Collection[str] = ()  # process types that a changed file starts again
        self._is_over = False

    # --- from outside ---

    def start(self) -> None:
        """Spawn everything. Events are kept until `attach()`, so that nothing has to be imported before."""
        self._loop.on_signal(signal.SIGCHLD, self._on_child_signal)
        self._provide([instance.spec for instance in self.instances.values()])
        for instance in self.instances.values():
            if self._health is not None:
                self._health.expect(instance)
            self._await_needs(instance)

    def attach(self, multiplexer: Multiplexer) -> None:
        """Begin to read the instances' output and pass events on."""
        self._multiplexer = multiplexer
        early, self._early = self._early, []
        for event in early:
            multiplexer.emit(event)
        for instance in self.instances.values():
            self._read_output(instance)
            if instance.state is State.STARTING and self._health is not None:
                self._health.begin(instance)
        self._on_child_signal()
        self._end_if_over()

    def on_stop_signal(self, signum: int) -> None:
        """SIGINT, SIGTERM, SIGHUP, SIGQUIT: stop the formation; a second one, later than an echo of the first, kills
        it, and SIGQUIT behind another one at once."""
        now_s = self._loop.now()
        if self._signal_s is None:
            self._signal_s = now_s
            self._is_quit = signum == signal.SIGQUIT
            if self._is_over:
                return  # only the reader is waited for; the next one ends that too
            name = signal.Signals(signum).name
            self._notice(SYSTEM, f"{name} received, starting shutdown")
            self.stop(0, f"stopped by {name}")
        elif now_s - self._signal_s >= SECOND_SIGNAL_S or (signum == signal.SIGQUIT and not self._is_quit):
            self.kill()

    def stop(self, code: int, why: str) -> None:
        """End the run with `code`: stop every group, then whatever else is left of ours."""
        if self._stop_s is not None:
            return
        self._stop_s = self._loop.now()
        self.exit_code = code
        self._end_text = why
        if self._alive:
            self._notice(SYSTEM, "sending SIGTERM to all processes")
        self._last_stop_s = self._stop_s
        if self._dependencies is not None:
            self._dependencies.close()
        first = self._first_to_stop(self.instances.values())
        if self._dependencies is None or not self._dependencies.keeps_any:
            self._leftovers.stop(self._groups())  # else they may belong to who has yet to be told
        for instance in first:
            if instance.state is State.STOPPING:
                instance.is_wanted = False  # it has its signal and its time already
            else:
                self._apply(instance, Input.STOP)
        self._end_if_over()

    def kill(self) -> None:
        """Do not wait any longer: SIGKILL to all that is left. Ends the run if it was only waiting for its reader."""
        self.exit_code = self.exit_code or EXIT_KILLED
        if self._is_over:
            self._on_end()
            return
        self.is_hurried = True
        self.stop(EXIT_KILLED, "killed")
        self._notice(SYSTEM, "sending SIGKILL to all processes")
        if self._dependencies is not None:
            self._dependencies.hurry()
        for instance in list(self.instances.values()):  # one that is scaled away is forgotten with its end
            if instance.state is State.STOPPING:
                self._apply(instance, Input.STOP)
        self._end_if_over()
        self._leftovers.kill()

    def on_guard_gone(self, who: str) -> None:
        self.stop(EXIT_BUG, f"stopped because {who} was killed")

    def on_reader_gone(self) -> None:
        self.stop(EXIT_READER_GONE, "stopped because nobody reads the output any more")

    def on_terminal_gone(self) -> None:
        """The terminal was closed: SIGHUP says so too, but may come later or go to others."""
        self.stop(0, "stopped because the terminal was closed")

    def forward(self, signum: int) -> None:
        self.signal_instances(self.instances.values(), signum)

    def signal_instances(self, instances: Iterable[Instance], signum: int) -> None:
        """Pass a user's signal to the programs, not to a shell in between that would die of it."""
        groups = sweep.programs_by_group()
        for instance in instances:
            if instance.process is not None and instance.status is None:
                for pid in groups.get(instance.process.pid, [instance.process.pid]):
                    sweep.signal_pid(pid, signum)

    def resize(self, terminal: Terminal) -> None:
        self._terminal = terminal
        for instance in self.instances.values():
            if instance.process is not None and instance.size is None:
                instance.process.resize(terminal)

    # --- one by one, as the user asks ---

    @property
    def gives_terminals(self) -> bool:
        return self._terminal is not None

    @property
    def is_ending(self) -> bool:
        return self._stop_s is not None

    @property
    def why_ending(self) -> str:
        return self._end_text

    def stop_instances(self, instances: Iterable[Instance]) -> None:
        """Stop these; the run goes on, even with nothing left, for they may be started again."""
        asked = list(instances)
        for instance in asked:
            instance.is_held = True
        for instance in self._first_to_stop(asked):
            if instance.state in (State.STOPPING, State.LOST):
                instance.is_wanted = instance.is_restart_asked = False  # it has its signal and its time already
            else:
                self._apply(instance, Input.STOP)

    def start_instances(self, instances: Iterable[Instance]) -> None:
        self._bring_up(instances, Input.START)

    def restart_instances(self, instances: Iterable[Instance]) -> None:
        self._bring_up(instances, Input.RESTART)

    def _bring_up(self, instances: Iterable[Instance], given: Input) -> None:
        if self.is_ending:
            return  # nothing begins in a run that ends
        asked = [instance for instance in instances if not instance.is_removed]
        first = self._first_to_stop(asked, given) if given is Input.RESTART else asked
        for instance in set(asked).difference(first):
            instance.is_held = False
        # Who is up is told before who is down: that one may need it, and then waits for its return.
        for instance in sorted(first, key=lambda instance: instance.state not in RUNNING):
            # One that is lost cannot come back: if it was stopped, the run still waits for the user.
            instance.is_held = instance.is_held and instance.state is State.LOST
            if self._dependencies is not None:
                self._dependencies.let_go(instance, given)
            self._apply(instance, given)

    def scale(self, specs: Sequence[ProcessSpec], file_limit: int | None) -> None:
        """Make `specs` the formation: start what is new, stop what is not in it, the highest numbers first.

        `file_limit` is the soft limit of open files that children get from now on. Raises SpawnError when one of the
        new cannot be started: then none of them is left, and all others run on.
        """
        self._file_limit = file_limit
        added: list[Instance] = []
        for instance in self._add(specs, holds=True):
            added.append(instance)
            if instance.spawn_error is not None and instance.state is State.FAILED:
                self._remove(reversed(added))
                raise instance.spawn_error
        self._remove_others(specs)

    def _add(self, specs: Sequence[ProcessSpec], holds: bool) -> Iterator[Instance]:
        """Start what of `specs` is not there, and yield each. With `holds` one that cannot be started ends no run."""
        self._is_scaled = True
        self._provide(specs)
        for spec in specs:
            if self.is_ending:
                return  # one of them could not start, and that was an end for all
            instance = self.instances.get(spec.name)
            if instance is None:
                instance = self.instances[spec.name] = Instance(spec)
                instance.is_held = holds
                self._alive.add(instance)
                self._await_needs(instance)
                instance.is_held = False
                yield instance
            elif instance.is_removed:
                instance.is_removed = False
                self.start_instances([instance])
                yield instance

    def _remove_others(self, specs: Sequence[ProcessSpec]) -> None:
        names = {spec.name for spec in specs}
        self._remove(i for i in reversed(list(self.instances.values())) if i.spec.name not in names)

    def _remove(self, instances: Iterable[Instance]) -> None:
        for instance in instances:
            instance.is_removed = True
            self.stop_instances([instance])
            self._forget_if_removed(instance)

    def replace(self, specs: Sequence[ProcessSpec], restarted: Collection[str], file_limit: int | None) -> None:
        """Make `specs` the formation, as `scale` does; who runs on takes its new spec, and `restarted` begin anew.

        One that the user has stopped stays down.
        """
        other_needs, other_liveness = [], []
        for spec in specs:
            if spec.name in self.instances:
                instance = self.instances[spec.name]
                if (instance.spec.needs, instance.spec.services) != (spec.needs, spec.services):
                    other_needs.append(instance)
                if instance.spec.liveness != spec.liveness:
                    other_liveness.append(instance)
                instance.spec = spec
        self._file_limit = file_limit
        self._remove_others(specs)
        for _ in self._add(specs, holds=False):
            pass
        for instance in other_liveness:
            if instance.state is State.READY and self._health is not None:
                self._health.watch_over(instance)
        for instance in other_needs:
            if instance.state is State.PENDING and not self.is_ending:
                self._await_needs(instance)  # what it has waited for may not matter any more
        named = [self.instances[name] for name in restarted if name in self.instances]
        self.restart_instances(instance for instance in named if not instance.is_held)

    def take_times(self, grace_s: float, needs_within_s: float) -> None:
        """Let these count from now on, as they would have from the start."""
        self._grace_s, self._needs_within_s = grace_s, needs_within_s
        if self._dependencies is not None:
            self._dependencies.wait_at_most(needs_within_s)

    def watch_types(self, types: Collection[str]) -> None:
        """Make `types` those that a changed file starts again: the run does not end while one of them is down."""
        self._watched = types
        self._end_if_over()

    def keyboard_of(self, instance: Instance) -> Keyboard | None:
        """Return what types at the instance's terminal; None if it has none, or no process."""
        from procman.keyboard import Keyboard

        process, feed = instance.process, instance.feed
        if process is None or feed is None or feed.fd < 0 or process.slave_fd < 0:
            return None
        if instance.keyboard is None or instance.keyboard.process is not process:
            instance.keyboard = Keyboard(self._loop, process, feed.fd)
        return instance.keyboard

    def resize_one(self, instance: Instance, terminal: Terminal | None) -> None:
        """Give the instance's terminal the size of who is attached; None: that of all others."""
        size = terminal or self._terminal
        if instance.process is not None and size is not None and size != (instance.size or self._terminal):
            instance.process.resize(size)
        instance.size = terminal

    def _forget_if_removed(self, instance: Instance) -> None:
        if instance.is_removed and instance.state in (State.EXITED, State.FAILED):
            self.instances.pop(instance.spec.name, None)
            if self._health is not None:
                self._health.forget(instance)
            if instance.feed is not None and instance.feed.fd < 0:
                self._feeds.pop(instance.feed, None)

    # --- the table (lifecycle.py) ---

    def _apply(self, instance: Instance, given: Input) -> None:
        if given in (Input.START, Input.RESTART) and self.is_ending:
            return
        row = lifecycle.row(instance.state, given)
        if row is None:
            return
        if given is Input.STOP:
            instance.is_wanted = instance.is_restart_asked = False
        elif given in (Input.START, Input.RESTART):
            instance.is_wanted = instance.is_restart_asked = True
        if row.action is Action.DECIDE:
            self._decide(instance)
            return
        self._set_state(instance, row.to[0])
        self._act(instance, row.action)
        self._end_if_over()

    def _set_state(self, instance: Instance, state: State) -> None:
        instance.state = state
        if state is not State.STARTING:
            instance.close_prober()
        if self._dependencies is not None:
            self._dependencies.look_later()
        if state in ENDED:
            self._alive.discard(instance)
            self._forget_if_removed(instance)
        else:
            self._alive.add(instance)

    def _act(self, instance: Instance, action: Action) -> None:
        match action:
            case Action.AWAIT:
                self._await_needs(instance)
            case Action.AWAIT_AFRESH:
                instance.history.forget()
                self._await_needs(instance)
            case Action.SPAWN:
                self._spawn(instance)
            case Action.ANNOUNCE:
                self._announce(instance)
            case Action.STOP:
                self._send_stop(instance)
            case Action.KILL:
                self._send_kill(instance)
            case Action.CANCEL:
                instance.disarm()
            case Action.NAME_NEED:
                self._name_need(instance)
            case Action.NAME_LOST:
                self._name_lost(instance)

    # --- what it needs ---

    def _provide(self, specs: Sequence[ProcessSpec]) -> None:
        """See to it that who needs something can wait for it, and that who has a probe is asked."""
        if self._health is None and any(spec.ready or spec.liveness or spec.needs or spec.services for spec in specs):
            from procman.health import Health

            self._health = Health(
                self._loop,
                self._reaper,
                self._mark["PROCMAN_RUN"],
                self.instances,
                self._environment,
                self._apply,
                self._notice,
            )
        if self._dependencies is None and any(spec.needs or spec.services for spec in specs):
            from procman.dependencies import Dependencies

            self._dependencies = Dependencies(
                self._loop, self.instances, self._needs_within_s, self._apply_late, self._notice
            )

    def _apply_late(self, instance: Instance, given: Input) -> None:
        if given is Input.STOP:
            self._last_stop_s = self._loop.now()
            if self.is_ending and self._dependencies is not None and not self._dependencies.keeps_any:
                self._leftovers.stop(self._groups())
        self._apply(instance, given)

    def _await_needs(self, instance: Instance) -> None:
        instance.disarm()
        if self._dependencies is None:
            self._apply(instance, Input.NEEDS_READY)
        else:
            self._dependencies.await_needs(instance)

    def missing(self, instance: Instance) -> list[str]:
        """Return what `instance` waits for before it starts: process types and variables."""
        return self._dependencies.missing(instance) if self._dependencies is not None else []

    def _first_to_stop(self, instances: Iterable[Instance], given: Input = Input.STOP) -> list[Instance]:
        """Return who is to be told now; those that others of them need are told behind these."""
        if self._dependencies is None:
            return list(instances)
        return self._dependencies.first_to_stop(instances, given)

    def _name_need(self, instance: Instance) -> None:
        assert instance.fault is not None
        fault = instance.fault = instance.fault._replace(text=f"cannot start: {instance.fault.text}")
        instance.last_code = fault.code
        instance.status = ExitStatus(fault.code, 0)
        self._notice(instance.spec.name, fault.text)
        self._end_run_if_ruled(instance, True)

    # --- start, readiness ---

    def _spawn(self, instance: Instance) -> None:
        instance.disarm()
        instance.status = instance.fault = instance.spawn_error = None
        instance.was_killed = instance.is_restart_asked = False
        instance.strays.clear()
        spec = instance.spec
        try:
            env = self._environment(spec)
            if self._health is not None:
                env |= self._health.address_for(instance)
            terminal = self._terminal and (instance.size or self._terminal)
            process = spawn(spec, env, terminal, self._loop.now(), self._file_limit, self._ignored)
        except SpawnError as error:
            instance.process = None
            instance.status = ExitStatus(error.exit_code, 0)
            instance.last_code = error.exit_code
            instance.spawn_error = error
            self._notice(spec.name, str(error))
            self._apply(instance, Input.SPAWN_FAILED)
            return
        instance.process = process
        instance.spawn_count += 1
        instance.started_at = time.time()
        self._reaper.watch(process.pid, lambda status: self._on_leader_exit(instance, status))
        self._emit(Started(spec.name, time.time(), process.pid, spec.port))
        if self._terminal is not None and process.slave_fd < 0:
            self._notice(spec.name, "no terminal is left on this system, so it got a pipe")
        self._read_output(instance)
        if spec.ready is None:
            self._apply(instance, Input.IS_READY)
        elif self._multiplexer is not None and self._health is not None:
            self._health.begin(instance)

    def _announce(self, instance: Instance) -> None:
        self._emit(Ready(instance.spec.name, time.time()))
        if self._health is not None:
            self._health.on_ready(instance)

    def _environment(self, spec: ProcessSpec) -> dict[bytes, bytes]:
        """Return the whole environment of an instance. What all share is put together once: it names all types."""
        if self._shared_env is not spec.shared_env:
            self._shared_env = spec.shared_env
            self._base_env = encoded({**self._env, **spec.shared_env})
        return {**self._base_env, **encoded(spec.own_env), **self._mark_bytes}

    def _read_output(self, instance: Instance) -> None:
        if self._multiplexer is not None and instance.process is not None and instance.process.output_fd >= 0:
            feed = self._multiplexer.add(
                instance.spec.name,
                instance.process.output_fd,
                is_pty=instance.process.slave_fd >= 0,
                taps=instance.taps,
            )
            instance.process.output_fd = -1
            # The feed before it is kept only as long as somebody who was left behind has its pipe open.
            if instance.feed is not None and instance.feed.fd < 0:
                self._feeds.pop(instance.feed, None)
            instance.feed = feed
            self._feeds[feed] = None

    def _send_stop(self, instance: Instance) -> None:
        assert instance.process is not None
        spec = instance.spec
        stop_group(instance.process.pid, spec.stop_signal)
        for pid in instance.strays:
            sweep.stop_pid(pid)
        self._emit(Stopping(spec.name, time.time(), spec.stop_signal))
        instance.arm(self._loop, spec.grace_s, lambda: self._apply(instance, Input.GRACE_EXPIRED))

    def _send_kill(self, instance: Instance) -> None:
        assert instance.process is not None
        if not instance.was_killed:
            instance.was_killed = True
            self._killed.append(instance.spec.name)
            self._notice(instance.spec.name, "did not stop in time, sending SIGKILL")
        signal_group(instance.process.pid, signal.SIGKILL)
        # A zombie of the group may be the child of one that left it, so those go too.
        instance.strays = self._find_strays(instance)
        for pid in instance.strays:
            sweep.signal_pid(pid, signal.SIGKILL)
        instance.arm(self._loop, KILL_WAIT_S, lambda: self._apply(instance, Input.KILL_IGNORED))

    def _name_lost(self, instance: Instance) -> None:
        assert instance.process is not None
        self._lost.append(instance.spec.name)
        self._notice(instance.spec.name, f"could not be killed: {sweep.describe(instance.process.pid)} is still there")

    def _decide(self, instance: Instance) -> None:
        """An end, or a spawn that failed: the policy says what follows."""
        if instance.state is State.LOST:
            self._lost.remove(instance.spec.name)
        instance.disarm()
        assert instance.status is not None
        ran_s = self._loop.now() - instance.process.started_s if instance.process else 0.0
        if not instance.is_wanted:
            self._set_state(instance, State.EXITED)
        elif instance.is_restart_asked and self._stop_s is None:
            self._set_state(instance, State.PENDING)
            instance.history.forget()
            self._await_needs(instance)
            return
        else:
            self._decide_by_policy(instance, ran_s)
        self._end_if_over()

    def _decide_by_policy(self, instance: Instance, ran_s: float) -> None:
        spec = instance.spec
        decision = decide(instance.policy, instance.history, instance.code, ran_s, self._loop.now())
        if decision.delay_s is not None and self._stop_s is None:
            self._set_state(instance, State.BACKOFF)
            self._emit(Restarting(spec.name, time.time(), decision.delay_s))
            instance.arm(self._loop, decision.delay_s, lambda: self._apply(instance, Input.DELAY_ELAPSED))
            return
        self._set_state(instance, State.FAILED if decision.failed else State.EXITED)
        if decision.reason:
            self._emit(GaveUp(spec.name, time.time(), decision.reason))
        if not decision.failed and self._health is not None and not self.is_ending:
            self._health.settle(instance)
        self._end_run_if_ruled(instance, decision.failed)

    def _end_run_if_ruled(self, instance: Instance, failed: bool) -> None:
        on_exit = "ignore" if instance.is_held else instance.spec.on_exit
        if on_exit == "stop" or (on_exit == "fail" and failed):
            assert instance.status is not None
            how = instance.fault.text if instance.fault else ending_text(instance.status)
            self.stop(instance.code if failed else 0, f"{instance.spec.name} {how}")

    # --- ends ---

    def _on_child_signal(self) -> None:
        self._reaper.reap()
        if self._headless:
            self._check_headless()
        self._leftovers.check()

    def _on_leader_exit(self, instance: Instance, status: ExitStatus) -> None:
        instance.status = status
        assert instance.process is not None
        if instance.state is State.STARTING and self._health is not None and not self.is_ending:
            if instance.feed is not None and self._multiplexer is not None:
                self._multiplexer.drain(instance.feed)  # its last words may say that it is ready
            self._health.on_end(instance)
        if not self._is_anything_left(instance):
            self._on_gone(instance)
            return
        self._headless[instance] = None
        if stays_down(instance.policy, instance.code) and instance.is_wanted and not instance.is_restart_asked:
            # The rest of its group has the grace time, but the others need not wait for that.
            self._end_run_if_ruled(instance, instance.code not in instance.policy.ok_codes)
        self._apply(instance, Input.LEADER_EXIT)
        self._watch_headless()

    def _is_anything_left(self, instance: Instance) -> bool:
        assert instance.process is not None
        if self._is_group_alive(instance.process.pid):
            return True
        if self._stop_s is not None or self._ends_run(instance):
            return False  # the sweep at the end finds them, once for all instances
        strays = self._find_strays(instance)
        if instance.state is State.STOPPING:
            for pid in strays:
                if pid not in instance.strays:
                    sweep.stop_pid(pid)
        instance.strays = strays
        return bool(strays)

    def _is_group_alive(self, pgid: int) -> bool:
        # Where init adopts, a group may for a while be nothing but zombies that it has yet to reap.
        return group_exists(pgid) and (self._adopts or sweep.is_group_alive(pgid))

    def _ends_run(self, instance: Instance) -> bool:
        on_exit, policy, code = instance.spec.on_exit, instance.policy, instance.code
        if not instance.is_wanted or instance.is_restart_asked or not stays_down(policy, code):
            return False
        return on_exit == "stop" or (on_exit == "fail" and code not in policy.ok_codes)

    def _find_strays(self, instance: Instance) -> list[int]:
        return self._leftovers.of_instance(instance.spec.name, self._groups())

    def _groups(self) -> set[int]:
        """Return the process groups of all instances that have one."""
        return self._reaper.pids() | {i.process.pid for i in self._headless if i.process}

    def _check_headless(self) -> None:
        for instance in list(self._headless):
            # The end of one may end the run, and that looks here, too.
            if instance in self._headless and not self._is_anything_left(instance):
                self._on_gone(instance)

    def _watch_headless(self) -> None:
        if self._headless and not self._adopts:
            self._loop.call_later(POLL_S, self._poll_headless)

    def _poll_headless(self) -> None:
        self._check_headless()
        self._watch_headless()

    def _on_gone(self, instance: Instance) -> None:
        """Nothing of the instance is left: its last output, then its end."""
        self._headless.pop(instance, None)
        assert instance.process is not None
        assert instance.status is not None
        if instance.feed is not None and self._multiplexer is not None:
            self._multiplexer.drain(instance.feed)
        if instance.keyboard is not None:
            instance.keyboard.close()
        instance.close_notify()
        instance.process.close_slave()
        instance.last_code = instance.code
        self._emit(Exited(instance.spec.name, time.time(), *instance.status))
        self._apply(instance, Input.EXIT)

    # --- the end of the run ---

    def _end_if_over(self) -> None:
        if self._is_over or self._alive or self._multiplexer is None:
            return  # before `attach()` nobody would hear of it: it looks again
        if self._stop_s is None:
            if (self._is_scaled and not self.instances) or any(map(self._may_return, self.instances.values())):
                return
            self._stop_s = self._loop.now()
            failed = (i.code for i in self.instances.values() if i.state is State.FAILED and i.status)
            self.exit_code = next(failed, 0)
        rest_s = max(self._stop_s, self._last_stop_s) + self._grace_s - self._loop.now()
        lost = {i.process.pid for i in self.instances.values() if i.state is State.LOST and i.process}
        self._leftovers.end(rest_s, lost, self._finish)

    def _may_return(self, instance: Instance) -> bool:
        """Tell whether one that is down may be wanted again: the user has stopped it, or mends its files."""
        is_watched = instance.spec.process_type in self._watched and instance.state is not State.LOST
        return instance.is_held or is_watched

    def _finish(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._check_headless()  # one that was given up may have gone after all
        if self._multiplexer is not None:
            for feed in self._feeds:
                self._multiplexer.drain(feed)
                self._multiplexer.close(feed)
        killed_names = [*self._killed, *self._leftovers.killed]
        lost_names = [*self._lost, *self._leftovers.lost]
        if killed_names or lost_names:
            self.exit_code = self.exit_code or EXIT_KILLED
        proof = f"still there: {', '.join(lost_names)}" if lost_names else "nothing is left running"
        killed = f", {len(killed_names)} had to be killed" if killed_names else ""
        self._notice(SYSTEM, f"{self._end_text}{killed}; {proof}")
        self._on_end()

    # --- events ---

    def _emit(self, event: Event) -> None:
        if self._multiplexer is None:
            self._early.append(event)
        else:
            self._multiplexer.emit(event)

    def _notice_system(self, text: str) -> None:
        self._notice(SYSTEM, text)

    def _notice(self, name: str, text: str) -> None:
        self._emit(Notice(name, time.time(), text))


def ending_text(status: ExitStatus) -> str:
    """Return "exited with code 3" or "was terminated by SIGSEGV"."""
    if status.signum:
        return f"was terminated by {signal_name(status.signum)}"
    return f"exited with code {status.code}"
