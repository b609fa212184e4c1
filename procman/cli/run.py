"""`procman run`: a one-off in the environment of the regular processes, or a formation."""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from procman.cli.app import App, enter, load_app, said_of_input
from procman.cli.options import completing, given_of, input_options
from procman.errors import EXIT_KILLED, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, ReadinessTimeout, SourceRef
from procman.kernel import complain, flush_standard_streams
from procman.process import ExitStatus
from procman.procfile import ProcessType
from procman.spec import SHELL, ProcessSpec, encoded, os_bytes, resolve_one_off, with_arguments, without_needs

if TYPE_CHECKING:
    from procman.protocols import BackingService

COUNT = re.compile(r"[A-Za-z0-9_-]+=.*", re.DOTALL)
PROGRAM = "\0program"  # stands behind `--`, which click removes


class OneOff(click.Command):
    """A command whose words belong to another one from the first that is no option; it remembers a leading `--`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            args.insert(args.index("--") + 1, PROGRAM)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Behind the first word nothing is completed as an option of ours."""
        params = super().get_params(ctx)
        is_behind = ctx.resilient_parsing and ctx.params.get("words")
        return [param for param in params if param.name == "words"] if is_behind else params


@click.command(
    short_help="Run one command as the processes run.",
    cls=OneOff,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "ignore_unknown_options": False,
        "allow_interspersed_args": False,
    },
    epilog="""\b
Examples:
  procman run manage migrate        the Procfile entry `manage`, with a further argument
  procman run web                   the Procfile entry `web`, once, in the foreground
  procman run python -m this --x    any command, in the app's environment and directory
  procman run -- manage.sh          a program, even if a process type has its name
  procman run web=2 worker=4        the same as `procman start web=2 worker=4`
""",
)
@input_options
@click.option("--no-needs", is_flag=True, help="Wait for no backing service.")
@click.argument(
    "words",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    metavar="COMMAND [ARG]...",
    shell_complete=completing("one_off"),
)
@click.pass_context
def command(context: click.Context, no_needs: bool, words: tuple[str, ...]) -> Any:
    """Run one command exactly as the regular processes run: same environment, directory and shell.

    A process type's name runs its entry, with further arguments appended. The exit code is the command's. It waits for
    the backing services that `needs` in procman.toml names: those of its entry, or else of all types.
    """
    is_program = words[0] == PROGRAM
    words = tuple(word for word in words if word != PROGRAM)
    if not words:
        raise click.UsageError("Missing argument 'COMMAND'.", context)
    if not is_program and COUNT.fullmatch(words[0]):
        return _start(context, list(words))
    app = load_app(given_of(context))
    if no_needs:
        app = app._replace(settings=without_needs(app.settings))
    for note in said_of_input(app):
        click.echo(f"procman: {note}", err=True)
    entry = None if is_program else next((known for known in app.procfile.types if known.name == words[0]), None)
    if entry is not None:
        entry = with_arguments(entry, words[1:])
    # A program has no name among the types, whatever it is called: neither their port nor their settings are its own.
    spec = _spec(app, entry or ProcessType("", "", SourceRef("command line")))
    argv = spec.argv if entry else words
    if app.is_verbose:
        click.echo(f"procman: {entry.command if entry else ' '.join(words)}", err=True)
    if spec.services and (code := _wait_for(spec.services, app.settings.needs_within_s)):
        return code
    return _replace_self(spec, argv)


def _wait_for(services: Sequence[BackingService], within_s: float) -> int:
    """Wait until all backing services answer; return 0, or the exit code for what has been told.

    A child does it: its helpers are not to be among the children of the command, and what the caller's are is not ours
    to wait for. It ends with us, whatever ends us.
    """
    our_fd, its_fd = os.pipe()
    flush_standard_streams()
    pid = os.fork()
    if pid == 0:
        os.close(its_fd)
        os._exit(_ask(services, within_s, our_fd))
    os.close(our_fd)
    _, status = os.waitpid(pid, 0)
    os.close(its_fd)
    return ExitStatus.of(status).code


def _ask(services: Sequence[BackingService], within_s: float, parent_fd: int) -> int:
    """Ask all services until they answer, or `parent_fd` is at its end; tell what is waited for."""
    from procman.loop import Loop
    from procman.protocols import named
    from procman.services import ServiceWatch

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # our parent ends of it, and we with it: behind our helpers
    loop = Loop()
    reasons = dict.fromkeys(services, "")
    is_alone = False

    def on_trouble(service: BackingService, reason: str) -> None:
        reasons[service] = reason
        complain(f"procman: waiting for {named(service)}: {reason}")

    def on_ready(service: BackingService, waited_s: float) -> None:
        if reasons.pop(service):
            complain(f"procman: {named(service)} answers after {waited_s:.1f} s")
        if not reasons:
            loop.stop()

    def on_parent_gone() -> None:
        nonlocal is_alone
        is_alone = True
        loop.stop()

    watches = [ServiceWatch(loop, each, partial(on_ready, each), partial(on_trouble, each)) for each in services]
    loop.add_reader(parent_fd, on_parent_gone)
    if within_s != float("inf"):
        loop.call_later(within_s, loop.stop)
    loop.run()
    for watch in watches:
        watch.close()
    if is_alone:
        return EXIT_KILLED  # nobody hears of it
    for service, reason in reasons.items():
        why = f": {reason}" if reason else ""
        complain(f"procman: {named(service)} did not answer within {within_s:g} s{why} — --no-needs does not wait")
    return ReadinessTimeout.exit_code if reasons else 0


def _spec(app: App, entry: ProcessType) -> ProcessSpec:
    return resolve_one_off(entry, app.procfile.types, app.dotenv, app.settings, os.environ)


def _start(context: click.Context, words: list[str]) -> Any:
    """`run web=2 worker=4` is `start web=2 worker=4`, options and all; a mix of both meanings is refused."""
    from procman.cli.start_options import command as start

    with start.make_context("start", list(words), parent=context.parent) as started:
        odd = next((name for name in started.params["names"] if not COUNT.fullmatch(name)), None)
        if odd is not None:
            raise click.UsageError(
                f'"{words[0]}" is a formation and "{odd}" is not: write `procman start {" ".join(words)}`, '
                f"or `procman run -- env {' '.join(words)}` for a variable",
                context,
            )
        return start.invoke(started)


def _replace_self(spec: ProcessSpec, argv: tuple[str, ...]) -> int:
    """Become the command (execve): its terminal, its signals and its exit code are the caller's own affair."""
    # Python changed these from what the caller had; ignored signals would stay ignored (signal(7)).
    for name in ("SIGINT", "SIGPIPE", "SIGXFSZ"):
        if signal.getsignal(getattr(signal, name)) is not None and not _was_ignored(name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    enter(spec.cwd)
    env = encoded({**os.environ, **spec.env})
    flush_standard_streams()
    try:
        if not argv[0]:
            raise FileNotFoundError(errno.ENOENT, "")
        os.execvpe(argv[0], [os_bytes(word) for word in argv], env)
    except OSError as error:
        if error.errno == errno.ENOEXEC:  # a script without #!, which a shell runs by itself
            import shutil

            path = shutil.which(argv[0], path=os.fsdecode(env.get(b"PATH", os.defpath.encode()))) or argv[0]
            os.execve(SHELL, [SHELL, path, *argv[1:]], env)
        not_found = error.errno in (errno.ENOENT, errno.ENOTDIR)
        reason = "command not found" if not_found else os.strerror(error.errno or 0).lower()
        click.echo(f"procman: {argv[0]}: {reason}", err=True)
        return EXIT_NOT_FOUND if not_found else EXIT_NOT_EXECUTABLE


def _was_ignored(name: str) -> bool:
    """Tell whether the caller had this one ignored: only SIGINT, which Python then leaves alone."""
    return name == "SIGINT" and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
