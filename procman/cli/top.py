"""`procman top`: a live view of what runs; and `procman start --top`, a run of its own under it."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import click

import procman
from procman.cli.app import control_directory
from procman.cli.control import HELP, control_of, control_options
from procman.cli.options import given_of
from procman.errors import ControlError, UsageMistake

SWITCH_S = 0.0005  # threads that decode answers give way to keys ten times sooner than Python's default


@click.command(
    short_help="Watch and control what runs, live.",
    context_settings=HELP,
    epilog="""\b
Examples:
  procman top                   all that runs here
  procman top -d /srv/app       what runs there
  procman start --top           start everything, under a view that ends it
""",
)
@control_options
@click.pass_context
def command(context: click.Context) -> int:
    """Watch and control what runs, live: instances, what they use, and the log of one of them.

    The footer names the keys; ? explains them. It is one client more: leaving it stops nothing, and several may look
    at once. It goes on while procman is down, and finds the next one.

    It needs the extra `tui`: pip install "procman-cli[tui]".
    """
    check_view()
    with control_of(context):
        pass  # there is none: that is told as by any command
    return view(control_directory(given_of(context)))


def check_view() -> None:
    """Raise ProcmanError where no view can be shown."""
    if importlib.util.find_spec("textual") is None:
        raise ControlError("the view needs Textual", hint='pip install "procman-cli[tui]"')
    if _is_drawn_elsewhere():
        return
    hint = "`procman ps --watch` prints a table"
    if not (os.isatty(0) and os.isatty(1)):
        raise UsageMistake("the view needs a terminal", hint=hint)
    if os.environ.get("TERM") == "dumb":
        raise UsageMistake("the view cannot be drawn on this terminal (TERM=dumb)", hint=hint)


def _is_drawn_elsewhere() -> bool:
    """Tell whether textual-serve draws it, in a browser."""
    return bool(os.environ.get("TEXTUAL_DRIVER"))


def view(
    directory: str,
    pid: int | None = None,
    leave: str = "everything goes on",
    until: Callable[[], object] | None = None,
) -> int:
    """Show what runs in a directory, or only the supervisor with that pid, until the user leaves or `until` returns.

    Returns the exit code of the view. Raises what has gone wrong in it.
    """
    if os.environ.get("NO_COLOR") == "":  # no-color.org: empty is as if it were not there
        del os.environ["NO_COLOR"]
    from procman.tui.app import Top
    from procman.tui.feed import finder

    gc.freeze()  # what is there now stays
    gc.enable()
    sys.setswitchinterval(SWITCH_S)

    root = os.path.dirname(directory)
    top = Top(finder(directory, pid), lambda name: _attach(root, name), _shown(root), leave, until)
    code = top.run()
    if top.failure is not None:
        raise top.failure
    return code or 0


def _shown(path: str) -> str:
    """Return a path as people write it."""
    home = os.path.expanduser("~")
    return f"~{path[len(home) :]}" if home != "/" and f"{path}/".startswith(f"{home}/") else path


def _attach(root: str, name: str) -> str:
    """Be at the terminal of an instance, as `procman attach` is; return its last words if it failed."""
    argv = [sys.executable, "-P", "-m", "procman", "attach", "-d", root, name]
    ours = os.path.dirname(os.path.dirname(procman.__file__))  # whatever lies in the current directory
    path = os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH")]))
    # A Ctrl-C in its first moments waits until it has a handler, or there would be a traceback of Python's.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGQUIT))
    try:
        process = subprocess.Popen(argv, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path})
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert process.stderr is not None
    last = b""
    for line in process.stderr:
        last = line
        os.write(2, line)
    code = process.wait()
    if code < 0 or code > 128:
        return f"attach {name} was ended by signal {-code if code < 0 else code - 128}"
    return last.decode("utf-8", "replace").strip() if code else ""
