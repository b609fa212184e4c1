"""`procman start`: run a formation."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from procman import kernel, sweep
from procman.cli.app import App, Origin, control_directory, enter, load_app, said, said_of_input, wants_colour
from procman.control.directory import Claim, running_elsewhere
from procman.errors import (
    EXIT_KILLED,
    ControlError,
    OutputFileError,
    SpawnError,
    UsageMistake,
    did_you_mean,
    quoted,
)
from procman.events import SYSTEM, Notice
from procman.formation import resolve_formation, zeros
from procman.guard import run_guarded, tell_stderr
from procman.loop import Loop
from procman.process import Terminal
from procman.spec import ProcessSpec, after_release, name_width, release_types, resolve, without_needs
from procman.supervisor import Supervisor

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing's own constant would be an import on the start path
    from typing import Any

    from procman.cli.changed_files import ChangedFiles
    from procman.cli.detach import Background
    from procman.cli.reloading import Exchange, Plan
    from procman.cli.watching import Watching
    from procman.config import Settings
    from procman.control.requests import Requests
    from procman.keyboard import Keyboard, StandardInput
    from procman.modes import Modes
    from procman.procfile import ProcessType
    from procman.reload import Outcome
    from procman.sinks import Sink
    from procman.sinks.console import Target
    from procman.sinks.stream import Stream

SPARE_FILES = 64  # what procman opens for itself, with some room
HURRIED_WAIT_S = 1.0  # how long a reader that does not read is waited for after a second signal
PROMPT_S = 1.0  # a partial line this long silent is shown as a prompt
PROMPT_TERMINAL_S = 0.15
CHANGED_FILES_S = 0.2  # from the first processes to the look at procman's own files, which costs some ms


def start(given: Mapping[str, Any], names: Sequence[str], options: Mapping[str, Any]) -> int:
    """Run the formation to its end; return the exit code. `given` are the `input_options`, `options` those of `start`.

    What was not given may be missing in both.
    """
    app = load_app(given, said(options))
    if options.get("no_needs"):
        app = app._replace(settings=without_needs(app.settings))
    if any(process.watch for process in app.settings.processes.values()):
        from procman.cli.watching import check_watch

        check_watch(app.settings)
    counts, notes = _counts(control_directory(given), app, names, options)
    specs = resolve(app.procfile.types, app.dotenv, counts, app.settings, os.environ)
    if options.get("release"):
        specs = after_release(specs, release_types(app.settings))
    if options.get("attach"):
        options = {**options, "attach": _attached(options["attach"], specs), "pty": True}
    if options.get("top") and options.get("pty") is None:
        options = {**options, "pty": True}
    begin = partial(_begin, app, counts, specs, notes, Origin(given, names, options, control_directory(given)))
    if not options.get("detach") and not options.get("top"):
        return begin()
    from procman.cli.detach import detach, under_view

    targets = options.get("sinks", ())
    sink_fds = [int(place) for target in targets if (place := target.rpartition(":fd=")[2]).isdecimal()]
    directory = control_directory(given)
    if options.get("detach"):
        return detach(begin, directory, sink_fds)
    from procman.cli.top import view

    leave = "this run ends with it"
    return under_view(begin, directory, sink_fds, lambda pid, until: view(directory, pid, leave, until))


def _counts(
    directory: str, app: App, names: Sequence[str], options: Mapping[str, Any]
) -> tuple[dict[str, int], list[str]]:
    """Return the count of every type, with those that others need and those of `--release`; and what to tell of it."""
    settings, types = app.settings, app.procfile.types
    releases = release_types(settings)
    said = {"foreman": options.get("formation"), "honcho": options.get("concurrency"), "setting": settings.formation}
    counts = resolve_formation(types, names=names, origin=settings.origin("formation"), releases=releases, **said)
    unwanted = zeros(*names, *said.values())
    if options.get("release"):
        asked = [entry.name for entry in types if entry.name in releases and entry.name not in unwanted]
        if not asked:
            hint = 'name it `release`, or write phase = "release" into its section of procman.toml'
            raise UsageMistake("--release: no process type of the Procfile is for that", hint=hint)
        counts |= {name: counts[name] or 1 for name in asked}
    brought = needed_besides(types, settings, counts, unwanted)
    running = running_elsewhere(directory) if brought else {}
    counts |= {name: 1 for name in brought if name not in running}
    there = [name for name in brought if name in running]
    return counts, [f"{name} runs already, under procman with pid {running[name]}" for name in there]


def needed_besides(
    types: Sequence[ProcessType], settings: Settings, counts: Mapping[str, int], unwanted: Collection[str]
) -> list[str]:
    """Return the types that those of `counts` need and that are not among them, as far as nobody has said `web=0`."""
    if not any(own.needs for own in settings.processes.values()):
        return []
    from procman.needs import closure
    from procman.requirements import needs_by_type

    needs = {name: needed.types for name, needed in needs_by_type(types, settings).items()}
    graph = {name: [need for need in needs.get(name, ()) if need not in unwanted] for name in counts}
    return [name for name in closure([name for name, count in counts.items() if count], graph) if not counts[name]]


def _attached(asked: str, specs: Sequence[ProcessSpec]) -> str:
    """Return the name of the instance that gets the keys. Raises UsageMistake."""
    names = [spec.name for spec in specs if asked in (spec.name, spec.process_type)]
    if len(names) > 1:
        raise UsageMistake(f"--attach {asked}: only one can be attached", hint=f"choose one of {', '.join(names)}")
    if not names:
        known = dict.fromkeys(name for spec in specs for name in (spec.process_type, spec.name))
        raise UsageMistake(f"--attach: {quoted(asked)} is not started", hint=did_you_mean(asked, known))
    return names[0]


def _begin(
    app: App,
    counts: Mapping[str, int],
    specs: Sequence[ProcessSpec],
    notes: Sequence[str],
    origin: Origin,
    background: Background | None = None,
) -> int:
    notes = [*said_of_input(app), *notes]
    claim = _claim(origin.control_directory, counts, notes, background.option if background else "")
    notes += _port_notes(specs)
    sink_fds = [_open_target(target) for target in origin.options.get("sinks", ())]
    here_fd = _open_here()
    enter(app.settings.root)
    # A caller that blocks signals must not make us deaf: SIGTERM would never arrive, SIGCHLD never wake us.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    width = name_width(counts)
    if background is not None and claim is not None:
        background.begin(claim, notes, width)
    notes.append(_formation_note(counts))
    run = _Run(app, specs, origin._replace(directory_fd=here_fd), notes, sink_fds, width, claim, background)
    return run_guarded(run.supervise, run.run_id, background.tell if background else tell_stderr, run.modes)


def _open_here() -> int:
    """Return a descriptor of the directory that we were called in, -1 if it may not be read."""
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1


def _claim(directory: str, counts: Mapping[str, int], notes: list[str], needed_by: str) -> Claim | None:
    """Claim the types of the formation in `.procman/`. Raises ControlError if one of them runs here already, and
    OutputFileError if control is needed by an option and cannot be."""
    try:
        claim = Claim(directory, os.getpid())
        claim.take([name for name, count in counts.items() if count])
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        if needed_by:
            needed = f"{needed_by} needs {directory} for its control socket and its log"
            raise OutputFileError(f"{needed}: {reason}") from None
        notes.append(f"no control from other terminals: {directory}: {reason}")
        return None
    return claim


def _formation_note(counts: Mapping[str, int]) -> str:
    return "formation: " + ", ".join(f"{name}={count}" for name, count in counts.items())


def _port_notes(specs: Sequence[ProcessSpec]) -> list[str]:
    """Tell of ports that something else listens on. Raises SpawnError where the command would need one of them."""
    taken = [
        (spec, f"port {spec.port} is taken ({sweep.holder_of_port(spec.port)})")
        for spec in specs
        if spec.port is not None and sweep.is_taken(spec.port)
    ]
    needed = [f"{spec.source}: {spec.name} uses PORT, but {text}" for spec, text in taken if spec.serves_port]
    if needed:
        raise SpawnError("\n".join(needed), hint="stop that process, or choose another base port with -p")
    return [f"{spec.name}: {text}" for spec, text in taken]


def _check_file_limit(specs: Sequence[ProcessSpec]) -> None:
    """Raise SpawnError where so many can never run beside each other: each has at least one descriptor of ours."""
    limit = kernel.hard_file_limit()
    if len(specs) >= limit:
        text = f"{len(specs)} instances are too many open files for procman, whose limit is {limit} (ulimit -Hn)"
        raise SpawnError(text, hint="scale to fewer, or raise that limit before `procman start`")


class _Run:
    """The supervisor's process: the wiring of loop, supervisor and sinks."""

    def __init__(
        self,
        app: App,
        specs: Sequence[ProcessSpec],
        origin: Origin,
        notes: list[str],
        sink_fds: list[int],
        width: int,
        claim: Claim | None,
        background: Background | None,
    ) -> None:
        self._app = app
        self._settings = app.settings
        self._specs = specs
        self._origin = origin
        self._options = options = origin.options
        self._notes = notes
        self._sink_fds = sink_fds
        self._width = width
        self._claim = claim
        self._background = background
        self._is_terminal = os.isatty(1)
        self._streams: list[Stream] = []
        self._sinks: list[Sink] = []
        self._types: list[str] = []  # of the Procfile
        self._watching: Watching | None = None
        self._changed_files: ChangedFiles | None = None
        self._exchange: Exchange | None = None
        self._input: StandardInput | None = None
        self._is_ending = False
        self._sink_failure = 0
        self._began = time.time()  # of what is told before the first process, though the stream is there behind it
        self.run_id = f"{os.getpid()}-{time.time_ns()}"
        self.modes = self._modes() if options.get("attach") else None

    def _modes(self) -> Modes | None:
        """Return the modes of the user's terminal, if there is one."""
        from procman.modes import Modes, all_but_signals

        return Modes(0, all_but_signals) if os.isatty(0) else None

    def supervise(self, guard_fd: int) -> int:
        """Run the formation to its end; return the exit code."""
        self._loop = Loop()
        has_pty = self._options.get("pty") if self._options.get("pty") is not None else self._is_terminal
        self._file_limit = kernel.raise_file_limit(2 * len(self._specs) + SPARE_FILES)
        self._supervisor = Supervisor(
            self._loop,
            self._specs,
            os.environ,
            self.run_id,
            self._terminal() if has_pty else None,
            self._settings.grace_s,
            self._end,
            self._file_limit,
            self._settings.needs_within_s,
        )
        self._supervisor.watch_types(self._patterns().keys())
        self._listen(guard_fd)
        self._supervisor.start()
        kernel.keep_freed_memory()
        self._attach_output()
        self._open_control()
        self._watch()
        if self._options.get("attach"):
            self._attach_input(self._options["attach"])
        gc.freeze()  # what is there now stays: shared with the guard, and not looked at again
        gc.enable()
        self._loop.run()
        for stream in self._streams:
            stream.finish()
        if self._claim is not None:
            self._claim.release()
        return self._supervisor.exit_code or self._sink_failure

    def _listen(self, guard_fd: int) -> None:
        loop, supervisor = self._loop, self._supervisor
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            # nohup's ignored SIGHUP stays ignored
            if signum != signal.SIGHUP or signal.getsignal(signum) is not signal.SIG_IGN:
                loop.on_signal(signum, lambda signum=signum: self._on_stop_signal(signum))  # type: ignore[misc]
        for signum in (signal.SIGUSR1, signal.SIGUSR2):
            loop.on_signal(signum, lambda signum=signum: supervisor.forward(signum))  # type: ignore[misc]
        if os.environ.get(kernel.FAULT_SWITCH) == "crash":
            loop.on_signal(signal.SIGUSR1, _crash)
        loop.on_signal(signal.SIGWINCH, lambda: supervisor.resize(self._terminal()))
        loop.add_reader(guard_fd, lambda: self._on_guard_gone(guard_fd))
        if self._background is not None and self._background.owner_fd >= 0:
            owner_fd = self._background.owner_fd
            loop.add_reader(owner_fd, lambda: self._on_owner_gone(owner_fd))

    def _on_stop_signal(self, signum: int) -> None:
        if signum == signal.SIGINT and self._is_terminal and self._streams and self.modes is None:
            self._streams[0].write(b"\r")  # the terminal has just echoed ^C
        self._supervisor.on_stop_signal(signum)

    def _on_guard_gone(self, guard_fd: int) -> None:
        self._loop.remove(guard_fd)
        if self.modes is not None:
            self.modes.give_back()
        if self._input is not None:
            self._input.leave()
        self._console.leave_line()
        who = "the procman process that you started"
        if self._background is not None and self._claim is not None:  # that one has ended long ago
            who = f"the procman process with pid {self._claim.pid}"
        self._supervisor.on_guard_gone(who)

    def _on_owner_gone(self, owner_fd: int) -> None:
        """Who shows this run has gone without a word."""
        self._loop.remove(owner_fd)
        self._supervisor.on_terminal_gone()

    def _terminal(self) -> Terminal:
        """Return the size of what the prefix leaves of the user's terminal."""
        try:
            columns, rows = os.get_terminal_size(1)
        except OSError:
            columns, rows = 80, 24
        return Terminal(rows or 24, max(20, (columns or 80) - self._prefix_columns()))

    def _prefix_columns(self) -> int:
        if not self._settings.prefix:
            return 0
        return self._width + len(" | ") + (len("00:00:00 ") if self._settings.timestamp else 0)

    def _attach_output(self) -> None:
        from procman.output import Multiplexer
        from procman.ring import Ring

        self._ring = Ring(self._settings.log_memory, self._settings.log_memory_total)
        self._multiplexer = multiplexer = Multiplexer(
            self._loop,
            self._emit,
            self._is_full,
            PROMPT_TERMINAL_S if self._is_terminal else PROMPT_S,
            redraws=self._is_terminal,
            attached=self._options.get("attach") or "",
        )
        self._open_sinks(multiplexer.resume)
        for note in self._notes:
            multiplexer.emit(Notice(SYSTEM, self._began, note))
        self._supervisor.attach(multiplexer)

    def _open_sinks(self, on_room: Any) -> None:
        from procman.sinks.console import Console, Style
        from procman.sinks.stream import Stream

        style = Style(
            width=self._width,
            has_timestamp=self._settings.timestamp,
            has_date=self._background is not None,
            has_prefix=self._settings.prefix,
            has_colour=wants_colour(self._settings.color, self._is_terminal),
            is_filtered=self._is_terminal and not self._options.get("raw"),
            muted=frozenset(self._settings.quiet),
            attached=self._options.get("attach") or "",
        )
        output: Target
        if self._background is None:
            output = Stream(self._loop, 1, self._on_stdout_gone, on_room)
            self._streams.append(output)
        else:
            output = self._background.log_file(self._loop, self._settings, self._tell)
            self._sinks.append(self._background.watch(self._loop, self._supervisor))
        self._console = Console(output, style, self._index_of)
        self._sinks.append(self._console)
        for fd, target in zip(self._sink_fds, self._options.get("sinks", ()), strict=True):
            from procman.sinks.jsonl import JsonLines

            stream = Stream(self._loop, fd, partial(self._on_sink_gone, target), on_room)
            self._streams.append(stream)
            self._sinks.append(JsonLines(stream))

    def _index_of(self, name: str) -> int:
        """Return the position of a process type in the Procfile: its colour."""
        return next((index for index, entry in enumerate(self._app.procfile.types) if entry.name == name), 0)

    def _open_control(self) -> None:
        if self._claim is None:
            return
        from procman.control.server import Server

        server = Server(self._loop, self._claim, self._settings.root, self._make_requests, self._on_sink_idle)
        try:
            server.listen()
        except OSError as error:
            text = f"no control from other terminals: {os.strerror(error.errno or 0).lower()}"
            self._tell(text)
            if self._background is not None:
                self._supervisor.stop(ControlError.exit_code, text)
        else:
            self._sinks.append(server)

    def _attach_input(self, name: str) -> None:
        from procman.keyboard import StandardInput

        def keyboard() -> Keyboard | None:
            instance = self._supervisor.instances.get(name)
            return self._supervisor.keyboard_of(instance) if instance is not None else None

        self._input = StandardInput(self._loop, keyboard)
        self._input.begin()

    def _make_requests(self) -> Requests:
        from procman.control.requests import Requests

        self._types = [entry.name for entry in self._app.procfile.types]
        return Requests(self._supervisor, self._ring, self._types, self._plan_scale, self._plan_reload)

    def _plan_scale(self, changes: Mapping[str, int]) -> Callable[[], None]:
        """Return what changes the counts of some types, all or none; change nothing.

        Raises what `resolve` raises, ControlError, SpawnError.
        """
        self._check_exchange()
        instances = self._supervisor.instances.values()
        there = Counter(instance.spec.process_type for instance in instances if not instance.is_removed)
        counts = {entry.name: changes.get(entry.name, there[entry.name]) for entry in self._app.procfile.types}
        specs = resolve(self._app.procfile.types, self._app.dotenv, counts, self._settings, os.environ)
        _check_file_limit(specs)
        notes = _port_notes([spec for spec in specs if spec.name not in self._supervisor.instances])
        assert self._claim is not None
        self._claim.check([name for name, count in counts.items() if count])
        return partial(self._scale, counts, specs, [*notes, _formation_note(counts)])

    def _scale(self, counts: Mapping[str, int], specs: Sequence[ProcessSpec], notes: Sequence[str]) -> None:
        self._make_room(counts, specs, notes)
        try:
            self._supervisor.scale(specs, self._file_limit)
        except SpawnError:
            self._tell("formation: as before")
            raise

    def _make_room(self, counts: Mapping[str, int], specs: Sequence[ProcessSpec], notes: Sequence[str]) -> None:
        """Prepare for another formation, the last step that can fail. Raises ControlError."""
        assert self._claim is not None
        self._claim.take([name for name, count in counts.items() if count])  # another may have come in between
        limit = kernel.raise_file_limit(2 * len(specs) + SPARE_FILES)
        self._file_limit = limit if self._file_limit is None else self._file_limit
        self._console.widen(name_width(counts))
        for note in notes:
            self._tell(note)

    def _check_exchange(self) -> None:
        """Raise ControlError while a reload waits for the end of some, to start others on their ports."""
        if self._exchange is not None and self._exchange.is_going_on:
            raise ControlError("a reload is going on: it waits for processes to stop", hint="`procman ps` shows which")

    def _plan_reload(self) -> Callable[[], Outcome]:
        """Read all files again, and return what does what they say, all or nothing; change nothing.

        Raises what `start` raises, and ControlError.
        """
        from procman.cli.reloading import plan_reload

        self._check_exchange()
        assert self._claim is not None
        plan = plan_reload(self._origin, self._app, self._supervisor.instances, self._claim.others())
        _check_file_limit(plan.specs)
        notes = [*_port_notes(plan.fresh), *plan.notes]
        if plan.changes.started or plan.changes.stopped:
            notes.append(_formation_note(plan.counts))
        self._claim.check([name for name, count in plan.counts.items() if count])
        return partial(self._reload, plan, notes)

    def _reload(self, plan: Plan, notes: Sequence[str]) -> Outcome:
        from procman.cli.reloading import Exchange
        from procman.reload import Outcome

        self._make_room(plan.counts, plan.specs, notes)
        self._app, self._settings = plan.app, plan.app.settings
        self._supervisor.take_times(self._settings.grace_s, self._settings.needs_within_s)
        self._types[:] = [entry.name for entry in self._app.procfile.types]
        self._exchange = exchange = Exchange(self._loop, self._supervisor, plan, self._file_limit)
        self._sinks = [*(sink for sink in self._sinks if not isinstance(sink, Exchange)), exchange]
        exchange.begin()
        self._follow()
        return Outcome(plan.changes, plan.notes, lambda: exchange.is_going_on)

    # --- files ---

    def _watch(self) -> None:
        """Begin to look at files, behind the first child."""
        if self._settings.processes:
            self._follow()
        if self._claim is not None:
            self._loop.call_later(CHANGED_FILES_S, self._watch_own_files)

    def _patterns(self) -> dict[str, tuple[str, ...]]:
        """Return the patterns of each process type that watches files."""
        return {name: process.watch for name, process in self._settings.processes.items() if process.watch}

    def _follow(self) -> None:
        """Watch the files that process types want watched, and those that a reload would read."""
        patterns = self._patterns()
        if self._watching is None and patterns:
            from procman.cli.watching import Watching

            self._watching = Watching(self._loop, self._supervisor, self._settings.root, self._tell)
        if self._watching is not None:
            self._watching.watch(patterns)
        if self._changed_files is not None:
            try:
                self._changed_files.follow(self._app)
            except OSError:
                self._changed_files = None

    def _watch_own_files(self) -> None:
        if self._is_ending or self._origin.directory_fd < 0:
            return
        try:
            from procman.cli.changed_files import ChangedFiles

            self._changed_files = ChangedFiles(self._loop, self._origin, self._app, self._tell)
        except (OSError, ImportError):  # no inotify, or no descriptor: then nothing is told
            pass

    def _tell(self, text: str) -> None:
        self._multiplexer.emit(Notice(SYSTEM, time.time(), text))

    def _is_full(self) -> bool:
        return any(stream.is_full for stream in self._streams)

    def _emit(self, event: Any) -> None:
        self._ring.write(event)
        for sink in self._sinks:
            sink.write(event)

    def _on_sink_gone(self, target: str, reason: str) -> None:
        if reason:
            text = f"--sink {target} cannot be written: {reason}"
            if self._background is not None:
                self._tell(text)
            else:
                kernel.complain(f"procman: {text}")
            self._sink_failure = EXIT_KILLED

    def _on_stdout_gone(self, reason: str) -> None:
        if reason:
            kernel.complain(f"procman: stdout cannot be written: {reason}")
            self._supervisor.stop(EXIT_KILLED, "stopped because stdout cannot be written")
        elif not self._is_terminal:
            self._supervisor.on_reader_gone()
        elif signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup's run goes on without its terminal
            self._supervisor.on_terminal_gone()

    def _end(self) -> None:
        """Stop the loop once everything is written; when told again, at once."""
        if self._is_ending:
            self._loop.stop()
            return
        for files in (self._watching, self._changed_files):
            if files is not None:
                files.close()
        self._is_ending = True
        if self._supervisor.is_hurried:
            self._loop.call_later(HURRIED_WAIT_S, self._loop.stop)
        for stream in self._streams:
            stream.on_idle = self._stop_if_idle
        for sink in self._sinks:
            sink.close()
        self._stop_if_idle()

    def _on_sink_idle(self) -> None:
        if self._is_ending:
            self._stop_if_idle()

    def _stop_if_idle(self) -> None:
        if all(sink.is_idle for sink in self._sinks):
            self._loop.stop()


def _crash() -> None:
    raise RuntimeError("asked for by a test")


def _open_target(target: str) -> int:
    """Return the descriptor of `jsonl:fd=3` or `jsonl:FILE`, close-on-exec so that no child has it."""
    kind, _, place = target.partition(":")
    if kind != "jsonl" or not place or (place.startswith("fd=") and not place[3:].isdecimal()):
        raise UsageMistake(f"--sink {target}: write jsonl:fd=3 or jsonl:FILE")
    try:
        if place.startswith("fd="):
            fd = int(place[3:])
            os.set_inheritable(fd, False)
            return fd
        # O_NONBLOCK for a FIFO without a reader, which is refused. Private, and never through a link that somebody
        # else has planted.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(place, flags, 0o600)
    except (OSError, OverflowError) as error:
        reason = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else "no such descriptor"
        raise OutputFileError(f"--sink {target}: {reason}") from None
