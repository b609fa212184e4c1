"""The options of `procman start`. What it does is in start.py, which a command line without options gets to alone."""

from __future__ import annotations

from typing import Any

import click

from procman.cli.options import OfSetting, completing, flattened, given_of, input_options
from procman.cli.start import start
from procman.errors import UsageMistake

COUNTS: Any = {"metavar": "TYPE=N,...", "shell_complete": completing("formation")}
TYPES: Any = {"metavar": "TYPE,...", "multiple": True, "callback": flattened}


@click.command(
    short_help="Start the process types and merge their output.",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  procman start                     every process type of ./Procfile once
  procman start web=2 worker        only these; counts as arguments
  procman start -m all=1,worker=4   Foreman's formation: types not listed run `all` or 0
  procman start -c web=2            Honcho's concurrency: types not listed run once
  procman start -f app/Procfile -e app/.env,local.env -p 7000
  procman start --attach web        for a debugger in web: your keys go there
  procman start --detach            in the background; then ps, logs -f, quit
  procman start --top               under a live view; q ends both
""",
)
@input_options
@click.argument("names", nargs=-1, metavar="[TYPE[=COUNT]]...", shell_complete=completing("names"))
@click.option("-m", "--formation", **COUNTS, help="Counts; `all=1` for the rest, which is else 0.")
@click.option("-c", "--concurrency", **COUNTS, is_flag=False, flag_value="", help="Counts; the rest once.")
@click.option("-t", "--timeout", "grace", metavar="TIME", type=OfSetting("grace"), help="Grace period; or 2m, inf. [5]")
@click.option("--on-exit", type=click.Choice(["stop", "fail", "ignore"]), help="What one's end means. [stop]")
@click.option("--can-die", **TYPES, type=OfSetting("can_die"), help="Types whose end does not end the run.")
@click.option("--restart", **TYPES, type=OfSetting("restart"), help="Types that come back after an end; `all` for all.")
@click.option("--no-needs", is_flag=True, help="Bring and wait for nothing that `needs` names.")
@click.option("--release", is_flag=True, help="Run the release step first, to its end.")
@click.option("-q", "--quiet", **TYPES, type=OfSetting("quiet"), help="Types whose output is not shown.")
@click.option("--color", "--colour", type=click.Choice(["auto", "always", "never"]), help="[auto]")
@click.option("--no-color", "--no-colour", is_flag=True, help="The same as --color never.")
@click.option("--timestamp/--no-timestamp", default=None, help="Show the time. [yes]")
@click.option("--prefix/--no-prefix", default=None, help="Show time and name. [yes]")
@click.option("--raw", is_flag=True, help="Let screen control sequences through to the terminal.")
@click.option("--pty/--no-pty", default=None, help="Give the processes a terminal. [if stdout is one]")
@click.option("-D", "--detach", is_flag=True, help="Run in the background; return when all is up.")
@click.option("--top", is_flag=True, help="Show the run in a live view (`procman top`); leaving it ends the run.")
@click.option(
    "--attach",
    metavar="TYPE[.N]",
    shell_complete=completing("instance"),
    help="Your keys go to this process; implies --pty.",
)
@click.option(
    "--sink",
    "sinks",
    multiple=True,
    metavar="jsonl:fd=N",
    shell_complete=completing("sink"),
    help="Events as JSON lines; or jsonl:FILE.",
)
@click.pass_context
def command(context: click.Context, /, names: tuple[str, ...], **options: Any) -> int:
    """Start the process types of the Procfile and merge their output.

    Ctrl-C stops all: SIGTERM, the grace period, SIGKILL. A second one kills at once; also with --attach. With --detach
    the output goes to .procman/log/procman.log beside the Procfile, and `procman quit` stops all.
    """
    if options["concurrency"] == "":
        raise click.UsageError("-c needs counts, as in -c web=2; for colour write --color always.")
    if options["attach"] and options["pty"] is False:
        raise UsageMistake("--attach needs a terminal for the process", hint="leave --no-pty out")
    if options["attach"] and options["detach"]:
        raise UsageMistake("--detach leaves the terminal, and --attach needs it", hint="choose one of them")
    if options["top"]:
        if options["detach"] or options["attach"]:
            raise UsageMistake("--top has the terminal for itself", hint="leave --detach and --attach out")
        from procman.cli.top import check_view

        check_view()
    if options["no_color"]:
        options["color"] = "never"
    return start(given_of(context), names, options)
