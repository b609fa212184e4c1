"""The command `procman`: chooses who reads the command line, and turns every error into a line and an exit code."""

from __future__ import annotations

import gc
import os
import sys

gc.disable()  # nothing made while starting is garbage: looking for some costs a tenth of the time to the first child

from procman.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_READER_GONE, ProcmanError, failure_of  # noqa: E402
from procman.kernel import complain, flush_standard_streams  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing's own constant would be an import on the start path
    from typing import Any, NoReturn


def main() -> None:
    """Run the command line and exit by the table in docs/exit-codes.md; never a traceback."""
    _open_standard_streams()
    os.environ.pop("NOTIFY_SOCKET", None)  # whoever started us waits there for us, not for our children (sd_notify(3))
    try:
        code = _run(sys.argv[1:])
    except KeyboardInterrupt:
        complain("")
        code = EXIT_INTERRUPTED
    except ProcmanError as error:
        complain(str(error))
        code = error.exit_code
    except BrokenPipeError:
        code = EXIT_READER_GONE
    except Exception as error:
        failure = failure_of(error)
        if os.environ.get("PROCMAN_DEBUG") and failure.exit_code == EXIT_BUG:
            raise
        complain(str(failure))
        code = failure.exit_code
    _exit(code if isinstance(code, int) else 0)


def _exit(code: int) -> NoReturn:
    """End at once: taking the interpreter apart takes 10 ms, and a signal in them would find no handler of ours."""
    try:
        flush_standard_streams()
    except BrokenPipeError:
        code = EXIT_READER_GONE
    except OSError as error:
        if not code:
            complain(str(failure_of(error)))
            code = 1
    os._exit(code)


def _run(words: list[str]) -> Any:
    if os.environ.get("_PROCMAN_COMPLETE"):
        from procman.cli.completion import answer
        from procman.cli.group import cli

        return answer(cli)
    if words[:1] == ["start"] and not any(word.startswith("-") for word in words):
        # Without options there is nothing to parse, and click would be 19 of the 50 ms (of CPU) to the first line.
        from procman.cli.start import start

        return start({}, words[1:], {})
    from procman.cli.options import run_by_click

    if words[:1] == ["start"]:  # the group around it has eleven options more for click to make and look for: 2 ms
        from procman.cli.start_options import command

        return run_by_click(command, "procman start", words[1:])
    from procman.cli.group import cli

    return run_by_click(cli, "procman", words)


def _open_standard_streams() -> None:
    """Fill 0, 1 and 2 where the caller closed them: the next file opened would pass for one of them."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number (open(2)), which is this one
            os.set_inheritable(fd, True)
