"""The supervisor against a model: no order of wishes, ends, failures and time loses, doubles or blocks an instance.

The world below it is made up: processes are entries of a dict, a clock passes when told to, SIGCHLD may come late and
stand for many. PROCMAN_MODEL_STEPS says how many steps to take (CI: 10,000), PROCMAN_MODEL_SEED repeats a run.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, seed, settings, stateful
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from procman import supervisor as module
from procman import sweep
from procman.errors import SourceRef, SpawnError
from procman.events import Event, Exited, GaveUp, Notice, Restarting, Started
from procman.leftovers import KILL_WAIT_S
from procman.lifecycle import Input, State
from procman.output import Multiplexer
from procman.process import ExitStatus, Process, Reaper
from procman.readiness import COMPLETED, PORT, Probe
from procman.restart import ALWAYS, NEVER, ON_FAILURE, RestartPolicy
from procman.spec import ProcessSpec
from procman.supervisor import Instance, Supervisor
from tests.support.turns import Turns

STEPS = int(os.environ.get("PROCMAN_MODEL_STEPS", "1500"))
SEED = int(os.environ.get("PROCMAN_MODEL_SEED") or random.SystemRandom().randrange(1 << 32))
RUN = "run-1"
US = 1
GRACE_S = 5.0
counted = SimpleNamespace(steps=0)


class Proc:
    """A process of the made-up world."""

    def __init__(self, pid: int, parent: int, group: int, name: str) -> None:
        self.pid = pid
        self.parent = parent
        self.group = group
        self.name = name  # of the instance whose mark it bears
        self.obeys = True
        self.is_frozen = False
        self.wait_status: int | None = None  # a zombie
        self.fate: int | None = None  # the wait status it will end with once it gets a turn

    def __repr__(self) -> str:
        return f"<{self.pid} of {self.name} group {self.group} parent {self.parent} {self.wait_status}>"


class World:
    """Processes as the kernel would keep them. `adopts`: orphans become ours, else init's."""

    def __init__(self, adopts: bool) -> None:
        self.adopts = adopts
        self.procs: dict[int, Proc] = {}
        self.next_pid = 100
        self.fails = 0  # so many spawns to come fail
        self.is_child_signal_due = False

    # --- what the supervisor calls ---

    def spawn(self, spec: ProcessSpec, env: object, terminal: object, now_s: float, *_: object) -> Process:
        if self.fails:
            self.fails -= 1
            raise SpawnError(f"{spec.name} cannot start: made up")
        leader = self.fork(US, None, spec.name)
        return Process(leader.pid, -1, -1, now_s)

    def signal_group(self, pgid: int, signum: int) -> bool:
        members = [proc for proc in self.procs.values() if proc.group == pgid]
        for proc in members:
            self.signal(proc, signum)
        return bool(members)

    def stop_group(self, pgid: int, signum: int) -> bool:
        return self.signal_group(pgid, signum)

    def group_exists(self, pgid: int) -> bool:
        return any(proc.group == pgid for proc in self.procs.values())

    def is_group_alive(self, pgid: int) -> bool:
        return any(proc.group == pgid and proc.wait_status is None for proc in self.procs.values())

    def signal_pid(self, pid: int, signum: int) -> None:
        if pid in self.procs:
            self.signal(self.procs[pid], signum)

    def stop_pid(self, pid: int) -> None:
        self.signal_pid(pid, signal.SIGTERM)

    def children(self) -> list[int]:
        return [proc.pid for proc in self.procs.values() if proc.parent == US]

    def marked(self, run_id: str) -> list[int]:
        return [proc.pid for proc in self.procs.values() if proc.wait_status is None]

    def mark_of(self, pid: int) -> tuple[str, str]:
        proc = self.procs.get(pid)
        return (RUN, proc.name) if proc and proc.wait_status is None else ("", "")  # a zombie has no environment

    def group_of(self, pid: int) -> int:
        return self.procs[pid].group if pid in self.procs else 0

    # --- what happens in it ---

    def fork(self, parent: int, group: int | None, name: str) -> Proc:
        pid = self.next_pid
        self.next_pid += 1
        self.procs[pid] = proc = Proc(pid, parent, group or pid, name)
        return proc

    def signal(self, proc: Proc, signum: int) -> None:
        if signum == signal.SIGKILL or (signum == signal.SIGTERM and proc.obeys and proc.fate is None):
            proc.fate = signum

    def end(self, proc: Proc, wait_status: int) -> None:
        proc.wait_status = wait_status
        for child in list(self.procs.values()):
            if child.parent == proc.pid:
                child.parent = US if self.adopts else 0
                if child.wait_status is not None:
                    self._reparented_zombie(child)
        if proc.parent == US:
            self.is_child_signal_due = True
        else:
            del self.procs[proc.pid]  # its parent, or init, reaps it

    def _reparented_zombie(self, child: Proc) -> None:
        if child.parent == US:
            self.is_child_signal_due = True
        else:
            del self.procs[child.pid]

    def living(self) -> list[Proc]:
        return [proc for proc in self.procs.values() if proc.wait_status is None]

    def zombie(self) -> Proc | None:
        return next((proc for proc in self.procs.values() if proc.parent == US and proc.wait_status is not None), None)

    def doomed(self) -> list[Proc]:
        return [proc for proc in self.living() if proc.fate is not None and not proc.is_frozen]


class MadeUpReaper(Reaper):
    world: World

    def reap(self) -> bool:
        while (proc := self.world.zombie()) is not None:  # one by one, for a callback may reap, too
            del self.world.procs[proc.pid]
            callback = self._callbacks.pop(proc.pid, None)
            if callback is not None:
                assert proc.wait_status is not None
                callback(ExitStatus.of(proc.wait_status))
        return bool(self.world.children())


def spec(name: str, restart: RestartPolicy, on_exit: str, instance: int = 1) -> ProcessSpec:
    return ProcessSpec(
        name=f"{name}.{instance}",
        process_type=name,
        instance=instance,
        type_index=0,
        command="",
        argv=("/bin/sh", "-c", ""),
        shared_env={},
        own_env={},
        cwd="/",
        port=None,
        stop_signal=signal.SIGTERM,
        grace_s=GRACE_S,
        restart=restart,
        on_exit=on_exit,
        source=SourceRef("Procfile", 1),
    )


SPECS = [
    spec("web", RestartPolicy(ALWAYS), "ignore"),
    spec("worker", RestartPolicy(ON_FAILURE), "ignore"),
    spec("job", RestartPolicy(NEVER), "ignore"),
    spec("task", RestartPolicy(NEVER), "fail"),
    spec("last", RestartPolicy(ON_FAILURE), "stop"),
]
MORE = [
    spec("web", RestartPolicy(ALWAYS), "ignore", 2),
    spec("worker", RestartPolicy(ON_FAILURE), "ignore", 2),
    spec("last", RestartPolicy(ON_FAILURE), "stop", 2),
]
NAMES = [one.name for one in SPECS]
ALL_NAMES = [*NAMES, *(one.name for one in MORE)]


LINE = SourceRef("procman.toml", 1)
NEEDS = {"web": ("worker",), "last": ("web", "job")}
PROBES = {
    "worker": Probe(PORT, LINE, port=1, within_s=10.0),
    "last": Probe(PORT, LINE, port=1, within_s=float("inf")),
    "job": Probe(COMPLETED, LINE, within_s=float("inf")),
}


def dependent(specs: list[ProcessSpec]) -> list[ProcessSpec]:
    return [
        one._replace(needs=NEEDS.get(one.process_type, ()), ready=PROBES.get(one.process_type)) for one in specs
    ]


class MadeUpProber:
    """Says that an instance is ready when the model wants it to."""

    reason = "nobody listens"

    def __init__(self, on_ready: Callable[[], None]) -> None:
        self.on_ready = on_ready
        self.is_open = True

    def hear_out(self) -> None:
        pass

    def close(self) -> None:
        self.is_open = False


class SupervisorModel(RuleBasedStateMachine):
    specs = SPECS
    more = MORE
    up = (State.READY,)
    longest_s = GRACE_S + 4 * KILL_WAIT_S + 1  # from the stop to the end

    @initialize(adopts=st.booleans(), fails=st.sampled_from([0, 0, 0, 1, 5]))
    def begin(self, adopts: bool, fails: int) -> None:
        self.world = World(adopts)
        self.world.fails = fails
        self.loop = Turns()
        self.patches = ExitStack()
        for name in ("spawn", "signal_group", "stop_group", "group_exists"):
            self.patches.enter_context(mock.patch.object(module, name, getattr(self.world, name)))
        self.patches.enter_context(mock.patch.object(sweep, "is_group_alive", self.world.is_group_alive))
        for name in ("children", "marked", "mark_of", "group_of", "signal_pid", "stop_pid"):
            self.patches.enter_context(mock.patch.object(sweep, name, getattr(self.world, name)))
        self.patches.enter_context(mock.patch.object(sweep, "describe", str))
        self.patches.enter_context(mock.patch.object(module, "become_subreaper", return_value=adopts))
        reaper = type("ReaperOfThisWorld", (MadeUpReaper,), {"world": self.world})
        self.patches.enter_context(mock.patch.object(module, "Reaper", reaper))
        self.events: list[Event] = []
        self.ends = 0
        self.stop_asked = False
        self.has_thawed = False
        self.asked_back: set[str] = set()  # who was told to come back, and has not yet
        self.probers: list[MadeUpProber] = []
        self.patches.enter_context(mock.patch("procman.probes.begin_ready", self.begin_ready))
        self.supervisor = Supervisor(self.loop, self.specs, {}, RUN, None, GRACE_S, self.on_end)
        self.supervisor._emit = self.on_event  # type: ignore[method-assign]
        self.supervisor.start()
        self.supervisor.attach(Multiplexer(self.loop, self.on_event, lambda: False, prompt_s=1.0))

    def begin_ready(self, *arguments: Any) -> MadeUpProber:
        self.probers.append(MadeUpProber(arguments[-1]))
        return self.probers[-1]

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Notice) and "cannot start" in event.text:
            self.asked_back.discard(event.name)
        # In order for each instance: a process starts only after the one before has ended, and all it left behind.
        if isinstance(event, Started):
            self.asked_back.discard(event.name)
            assert self.strays_of(event) == [], f"{event.name} starts beside what it left behind"
            assert not self.missing(self.supervisor.instances[event.name]), f"{event.name} starts without its needs"
            assert not self.supervisor.instances[event.name].is_removed, f"{event.name} starts, though scaled away"
            open_starts = [e for e in self.events if isinstance(e, Started | Exited) and e.name == event.name]
            kinds = [type(e) for e in open_starts]
            assert all(a is not b for a, b in itertools.pairwise(kinds)), f"{event.name} doubled: {kinds}"

    def strays_of(self, event: Started) -> list[Proc]:
        """What the supervisor could know of: orphans that bear the mark of an instance and are in nobody's group."""
        leaders = {one.process.pid for one in self.supervisor.instances.values() if one.process}
        return [
            proc
            for proc in self.world.living()
            if proc.name == event.name
            and proc.group not in leaders
            and not proc.is_frozen
            and (proc.parent == US or not self.world.adopts)
        ]

    def missing(self, instance: Instance) -> list[Instance]:
        """Who is needed and neither up nor done."""
        return [
            one
            for one in self.supervisor.instances.values()
            if one.spec.process_type in instance.spec.needs
            and not one.is_removed
            and not (one.state is State.READY or (one.state is State.EXITED and not one.is_held and one.last_code == 0))
        ]

    def on_end(self) -> None:
        self.ends += 1

    def instance(self, name: str) -> Instance | None:
        return self.supervisor.instances.get(name)

    @property
    def is_stopping(self) -> bool:
        return self.supervisor._stop_s is not None

    # --- wishes ---

    @rule(name=st.sampled_from(NAMES), wish=st.sampled_from([Input.START, Input.STOP, Input.RESTART]))
    def wish(self, name: str, wish: Input) -> None:
        counted.steps += 1
        instance = self.instance(name)
        if instance is None or instance.is_removed:
            return  # scaled away
        before = instance.state
        fails = self.world.fails
        was_stopping = self.is_stopping
        if wish is Input.STOP:
            self.asked_back.discard(name)
        elif before is State.STOPPING or (before is State.READY and wish is Input.RESTART):
            self.asked_back.add(name)
        if wish is not Input.STOP and self.supervisor._dependencies is not None and not was_stopping:
            self.supervisor._dependencies.let_go(instance, wish)  # as `start_instances` does
        self.supervisor._apply(instance, wish)
        if was_stopping or self.is_stopping:
            return
        if before in (State.EXITED, State.FAILED, State.BACKOFF) and wish in (Input.START, Input.RESTART) and not fails:
            assert instance.state in self.up
        if before is State.READY and wish is not Input.START:
            assert instance.state is State.STOPPING
        if before is State.READY and wish is Input.START:
            assert instance.state is State.READY
        if before is State.BACKOFF and wish is Input.STOP:
            assert instance.state is State.EXITED

    @rule(names=st.lists(st.sampled_from(ALL_NAMES), max_size=4), wish=st.sampled_from(["start", "stop", "restart"]))
    def asks_for_some(self, names: list[str], wish: str) -> None:
        """What a client of the control socket may ask for."""
        counted.steps += 1
        found = [one for name in dict.fromkeys(names) if (one := self.instance(name)) is not None]
        for one in found:
            if wish == "stop":
                self.asked_back.discard(one.spec.name)
            elif one.is_removed:
                pass  # scaled away: whatever is asked, it does not come back
            elif one.state is State.STOPPING or (one.state is State.READY and wish == "restart"):
                self.asked_back.add(one.spec.name)
        getattr(self.supervisor, f"{wish}_instances")(found)
        if wish == "stop" and not self.is_stopping:
            down = (State.STOPPING, State.EXITED, State.FAILED, State.LOST)
            assert all(one.state in down or self.is_needed(one) for one in found)

    def is_needed(self, instance: Instance) -> bool:
        """Whether one that has a process, and stops too, needs it."""
        return any(
            instance.spec.process_type in one.spec.needs and one.state in (State.STARTING, State.READY, State.STOPPING)
            for one in self.supervisor.instances.values()
        )

    @rule(chosen=st.lists(st.integers(0, len(ALL_NAMES) - 1), unique=True))
    @precondition(lambda self: not self.is_stopping)
    def scales(self, chosen: list[int]) -> None:
        counted.steps += 1
        specs = [[*self.specs, *self.more][at] for at in chosen]
        if not self.random_chance(3):
            return
        before = {name: one.state for name, one in self.supervisor.instances.items() if not one.is_removed}
        wanted = {one.name for one in specs}
        leaving = set(self.supervisor.instances) - wanted
        try:
            self.supervisor.scale(specs, None)
        except SpawnError:
            now = {name: one.state for name, one in self.supervisor.instances.items() if not one.is_removed}
            assert now == before, "nothing is done by halves"
            return
        self.asked_back -= leaving
        for name, one in self.supervisor.instances.items():
            if name not in wanted:
                assert one.is_removed
                assert one.state in (State.STOPPING, State.LOST), f"{name} is not wanted, and {one.state}"
            elif name in before:
                assert one.state is before[name], "who stays is left alone"
        assert wanted <= set(self.supervisor.instances)

    @rule()
    @precondition(lambda self: not self.stop_asked and self.ends == 0)
    def signal_to_stop(self) -> None:
        counted.steps += 1
        if self.random_chance(8):
            self.stop_asked = True
            self.supervisor.on_stop_signal(signal.SIGTERM)

    @rule()
    @precondition(lambda self: self.is_stopping and self.ends == 0)
    def second_signal(self) -> None:
        counted.steps += 1
        if self.random_chance(4):
            self.supervisor.on_stop_signal(signal.SIGTERM)

    def random_chance(self, one_in: int) -> bool:
        """Rare events, decided by how far this world has come: the same seed, the same run."""
        return (self.world.next_pid * 2_654_435_761 + len(self.events) * 40_503) % one_in == 0

    # --- what processes do ---

    def pick(self, procs: list[Proc], at: int) -> Proc | None:
        return procs[at % len(procs)] if procs else None

    @rule(at=st.integers(0, 30), code=st.sampled_from([0, 0, 1, 3, 255]))
    def exits_by_itself(self, at: int, code: int) -> None:
        counted.steps += 1
        proc = self.pick([proc for proc in self.world.living() if not proc.is_frozen], at)
        if proc:
            self.world.end(proc, code << 8)

    @rule(at=st.integers(0, 30), signum=st.sampled_from([9, 11, 15]))
    def dies_of_a_signal(self, at: int, signum: int) -> None:
        counted.steps += 1
        proc = self.pick([proc for proc in self.world.living() if not proc.is_frozen], at)
        if proc:
            self.world.end(proc, signum)

    @rule(at=st.integers(0, 30))
    def obeys(self, at: int) -> None:
        counted.steps += 1
        proc = self.pick(self.world.doomed(), at)
        if proc:
            assert proc.fate is not None
            self.world.end(proc, proc.fate)

    @rule(at=st.integers(0, 30), leaves=st.booleans())
    def forks(self, at: int, leaves: bool) -> None:
        """A child in the same group, or one that calls setsid."""
        counted.steps += 1
        able = [proc for proc in self.world.living() if not proc.is_frozen and proc.fate != signal.SIGKILL]
        parent = self.pick(able, at)
        if parent and len(self.world.procs) < 30:
            self.world.fork(parent.pid, None if leaves else parent.group, parent.name)

    @rule(at=st.integers(0, 30))
    def ignores_the_stop_signal(self, at: int) -> None:
        counted.steps += 1
        proc = self.pick(self.world.living(), at)
        if proc:
            proc.obeys = False

    @rule(at=st.integers(0, 30))
    def freezes(self, at: int) -> None:
        """State D: not even SIGKILL, for now."""
        counted.steps += 1
        proc = self.pick(self.world.living(), at)
        if proc and self.random_chance(3):
            proc.is_frozen = True

    @rule()
    def thaws(self) -> None:
        counted.steps += 1
        self.has_thawed = True
        for proc in self.world.living():
            proc.is_frozen = False

    @rule(at=st.integers(0, 30))
    def becomes_ready(self, at: int) -> None:
        counted.steps += 1
        asked = [prober for prober in self.probers if prober.is_open]
        if asked:
            asked[at % len(asked)].on_ready()

    @rule(count=st.integers(1, 6))
    def spawns_will_fail(self, count: int) -> None:
        counted.steps += 1
        self.world.fails = count

    # --- what the loop does ---

    @rule()
    def child_signal(self) -> None:
        counted.steps += 1
        if self.world.is_child_signal_due:
            self.world.is_child_signal_due = False
            self.supervisor._on_child_signal()

    @rule(seconds=st.sampled_from([0.0, 0.05, 0.5, 1.0, 2.1, 5.0, 31.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        """What was killed is gone by then, unless it is frozen, and a turn of the loop begins with its signals."""
        counted.steps += 1
        self.child_signal()  # may send a SIGKILL, too, to one that became ours by the end it tells
        while killed := [proc for proc in self.world.doomed() if proc.fate == signal.SIGKILL]:
            for proc in killed:
                self.world.end(proc, signal.SIGKILL)
            self.child_signal()
        self.loop.pass_time(seconds)

    # --- what must hold ---

    @invariant()
    def nobody_is_doubled_or_lost(self) -> None:
        if not hasattr(self, "supervisor"):
            return
        leaders = {one.process.pid: one for one in self.supervisor.instances.values() if one.process}
        for proc in self.world.living():
            if proc.pid == proc.group and proc.parent == US and proc.pid in self.supervisor._reaper.pids():
                assert proc.pid in leaders, f"{proc} leads a group that no instance knows"
                assert leaders[proc.pid].spec.name == proc.name

    @invariant()
    def states_are_true(self) -> None:
        if not hasattr(self, "supervisor") or self.world.is_child_signal_due:
            return  # the supervisor cannot know yet
        self.loop._finish_turn()
        for instance in self.supervisor.instances.values():
            self.state_is_true(instance)

    def state_is_true(self, instance: Instance) -> None:
        name, state = instance.spec.name, instance.state
        group = instance.process.pid if instance.process else 0
        members = [proc for proc in self.world.living() if proc.group == group]
        timer = instance.timer
        has_timer = timer is not None and timer.callback is not None
        match state:
            case State.PENDING:
                assert self.missing(instance), f"{name} waits for nobody"
                assert not self.is_stopping, f"{name} waits in a run that stops"
            case State.STARTING:
                assert instance.spec.ready is not None, f"{name} is still starting: nothing here takes time"
                assert group in {proc.pid for proc in members}, f"{name} is starting and has no process"
                is_asked = instance.prober is not None and instance.prober.is_open  # type: ignore[union-attr]
                assert is_asked == instance.spec.ready.is_asked
                assert not self.is_stopping or self.is_needed(instance), f"{name} is up in a run that stops"
            case State.READY:
                assert group in {proc.pid for proc in members}, f"{name} is ready and has no process"
                assert not self.is_stopping or self.is_needed(instance), f"{name} is up in a run that stops"
                assert not has_timer
            case State.STOPPING:
                assert has_timer, f"{name} is stopping for ever"
                own = [proc for proc in self.world.living() if proc.group == group or proc.pid in instance.strays]
                # Elsewhere than on Linux the end of an orphan is seen at the next look, which must be due.
                assert own or (not self.world.adopts and self.loop.due()), f"{name} waits for nobody"
            case State.BACKOFF:
                assert has_timer, f"{name} never comes back"
                assert not members
                assert not self.is_stopping
            case State.EXITED | State.FAILED:
                assert not members, f"{name} has ended, and {members} live"
                assert not has_timer, f"{name} has ended and has a timer"
                assert instance not in self.supervisor._alive
            case State.LOST:
                assert name in self.supervisor._lost

    @invariant()
    def who_was_asked_comes_back(self) -> None:
        if hasattr(self, "supervisor"):
            self.loop._finish_turn()
        if hasattr(self, "supervisor") and not self.is_stopping:
            for name in self.asked_back:
                one = self.instance(name)
                assert one is not None, f"{name} should have come back, and is forgotten"
                waits = one.state is State.PENDING and self.missing(one)
                dependencies = self.supervisor._dependencies
                is_kept = dependencies is not None and dependencies._kept.get(one) is Input.RESTART
                is_on_its_way = waits or is_kept or one.state in (State.STOPPING, State.LOST)
                assert is_on_its_way, f"{name} should have come back"

    @invariant()
    def run_ends_when_nothing_is_left(self) -> None:
        if not hasattr(self, "supervisor") or self.ends:
            return
        instances = self.supervisor.instances.values()
        if not self.is_stopping and (not instances or any(one.is_held for one in instances)):
            return  # the user has stopped them, and may want them back
        if all(one.state in (State.EXITED, State.FAILED, State.LOST) for one in instances):
            assert self.is_stopping, "nothing is left to run, and the run goes on"
            assert self.supervisor._leftovers.is_ending, "nobody ends what is left"

    def teardown(self) -> None:
        if not hasattr(self, "supervisor"):
            return
        try:
            self.comes_to_an_end()
        finally:
            self.patches.close()
            self.loop.close()

    def comes_to_an_end(self) -> None:
        """Whatever was before: asked to stop, it ends, within the grace time and what SIGKILL may take, truthfully."""
        self.stops_in_order()
        began_s = self.loop.clock.now_s
        while not self.ends:
            for proc in self.world.doomed():
                assert proc.fate is not None
                self.world.end(proc, proc.fate)
            self.child_signal()
            self.nobody_is_doubled_or_lost()
            self.states_are_true()
            if not self.ends:
                self.loop.pass_time(0.25)
            took_s = self.loop.clock.now_s - began_s
            assert took_s < self.longest_s, f"it hangs: {self.states()} {self.world.procs}"
        assert self.ends == 1
        left = self.world.living()
        # One that was frozen until the run had given it up has its SIGKILL, and dies of it as soon as it is scheduled.
        alive = [proc for proc in left if proc.fate != signal.SIGKILL]
        assert all(proc.is_frozen for proc in alive), f"left behind: {alive}"
        word = next(e.text for e in reversed(self.events) if isinstance(e, Notice) and e.name == "system")
        assert not left or "nothing is left running" not in word, f"{word}, but {left}"
        if not self.has_thawed:  # who thaws while the run gives it up may die behind its last word
            assert ("nothing is left running" in word) == (not left), f"{word}, but {left}"
        if left:
            assert self.supervisor.exit_code != 0
        self.says_what_happened()

    def stops_in_order(self) -> None:
        """Asked to stop, who is needed by a process that is there goes on, and all others have their signal."""
        was_stopping = self.is_stopping
        alive = [one for one in self.supervisor.instances.values() if one.state in (State.STARTING, State.READY)]
        kept = [one for one in alive if self.is_needed(one)]
        self.supervisor.stop(0, "the model says so")
        if not was_stopping:
            for one in alive:
                assert (one in kept) == (one.state in (State.STARTING, State.READY)), f"{one.spec.name} is {one.state}"

    def says_what_happened(self) -> None:
        for name in ALL_NAMES:
            own = [e for e in self.events if e.name == name]
            starts = sum(isinstance(e, Started) for e in own)
            ends = sum(isinstance(e, Exited) for e in own)
            assert ends <= starts <= ends + 1
            one = self.instance(name)
            assert starts == ends or (one is not None and one.state is State.LOST)
            delays = [e.delay_s for e in own if isinstance(e, Restarting)]
            assert all(1 <= delay <= 30 for delay in delays)
            assert name not in ("job.1", "task.1") or not (delays or any(isinstance(e, GaveUp) for e in own))

    def states(self) -> dict[str, State]:
        return {one.spec.name: one.state for one in self.supervisor.instances.values()}


class DependentModel(SupervisorModel):
    """The same where some need others, and not all are ready at once."""

    specs = dependent(SPECS)
    more = dependent(MORE)
    up = (State.READY, State.STARTING, State.PENDING)
    longest_s = 3 * (GRACE_S + KILL_WAIT_S) + 4 * KILL_WAIT_S + 1  # they stop one after the other

    @rule()
    @precondition(lambda self: not self.is_stopping)
    def is_stopped(self) -> None:
        counted.steps += 1
        if self.random_chance(10):
            self.stop_asked = True
            self.stops_in_order()


@pytest.fixture
def quiet_signals() -> Iterator[None]:
    """The loop takes SIGCHLD for itself; give it back."""
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("quiet_signals")
@pytest.mark.parametrize("model", [SupervisorModel, DependentModel], ids=["alone", "dependent"])
def test_any_order_of_things(model: type[SupervisorModel], record_property: Callable[[str, object], None]) -> None:
    counted.steps = 0
    rounds = 0
    few = settings(
        max_examples=20,
        stateful_step_count=60,
        deadline=None,
        report_multiple_bugs=False,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    record_property("PROCMAN_MODEL_SEED", SEED)  # tests/conftest.py prints it
    try:
        while counted.steps < STEPS:
            machine: Any = seed(SEED + rounds)(type("Model", (model,), {}))
            stateful.run_state_machine_as_test(machine, settings=few)
            rounds += 1
    except BaseException as error:
        error.add_note(f"PROCMAN_MODEL_SEED={SEED + rounds} repeats this")
        raise
    record_property("steps of the model", counted.steps)


@pytest.fixture
def begun(quiet_signals: None) -> Iterator[Callable[[type[SupervisorModel]], SupervisorModel]]:
    """Begin a run in the made-up world, to be led by hand."""
    models: list[SupervisorModel] = []

    def begin(kind: type[SupervisorModel]) -> SupervisorModel:
        models.append(kind())
        models[-1].begin(adopts=True, fails=0)
        return models[-1]

    yield begin
    for model in models:
        model.teardown()


@pytest.mark.parametrize("wish", ["stop", "scale"])
def test_one_that_is_lost_and_not_wanted_any_more(begun: Callable[..., SupervisorModel], wish: str) -> None:
    """It was to come back, could not be killed, and dies after all when nobody wants it."""
    model = begun(SupervisorModel)
    web = model.supervisor.instances["web.1"]
    assert web.process is not None
    leader = model.world.procs[web.process.pid]
    leader.is_frozen = True
    model.supervisor.restart_instances([web])
    model.time_passes(GRACE_S)
    model.time_passes(KILL_WAIT_S)
    assert web.state is State.LOST
    if wish == "stop":
        model.supervisor.stop_instances([web])
    else:
        model.supervisor.scale([one for one in SPECS if one.name != "web.1"], None)
    leader.is_frozen = False
    model.time_passes(0.0)
    assert web.state is State.EXITED
    assert sum(isinstance(event, Started) and event.name == "web.1" for event in model.events) == 1


def test_start_takes_no_restart_away(begun: Callable[..., SupervisorModel]) -> None:
    """It is asked for one that waits with its restart until those that need it have ended."""
    model = begun(DependentModel)
    web, worker = (model.supervisor.instances[name] for name in ("web.1", "worker.1"))
    model.becomes_ready(0)
    model.loop._finish_turn()
    assert (web.state, worker.state) == (State.READY, State.READY)
    model.supervisor.restart_instances([web, worker])
    assert (web.state, worker.state) == (State.STOPPING, State.READY)
    model.supervisor.start_instances([worker])
    assert web.process is not None
    model.world.end(model.world.procs[web.process.pid], signal.SIGTERM)
    model.child_signal()
    model.loop._finish_turn()
    assert (web.state, worker.state) == (State.PENDING, State.STOPPING)
