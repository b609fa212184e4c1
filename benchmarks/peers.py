"""Every tool that is measured: one record each, which says how it runs the commands of an app, and what it can do.

All tools run in the app's folder, with their defaults: only what hinders a thousand children is set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.app import CHILDREN, App

CHILDREN_MOST = 6000


class Peer(NamedTuple):
    """`argv` writes the files that the tool reads into the app's folder and returns its command line."""

    name: str
    program: str  # what must be on PATH, or where install.py puts it
    argv: Callable[[App], list[str]]
    stamps: bool  # each line carries the time
    prefixes: bool = True  # each line carries the name of the process
    keeps_lines: bool = True  # it means to keep lines whole
    gives_pty: bool = False  # its processes write to a terminal, if its own output is one
    reads_env: bool = True  # .env
    is_floor: bool = False  # no process manager, but the least that any could cost
    flood_mb: int = 0  # it queues without bound, so more than this would take minutes to come out
    only: tuple[str, ...] = ("",)  # the tests it takes part in, by how their names begin

    def takes_part(self, test: str) -> bool:
        return test.startswith(self.only)


def procfile(app: App) -> None:
    lines = [f"{name}: {command}\n" for name, command in zip(app.names, app.commands, strict=True)]
    (app.folder / "Procfile").write_text("".join(lines))


def with_procfile(*argv: str) -> Callable[[App], list[str]]:
    def command_line(app: App) -> list[str]:
        procfile(app)
        return list(argv)

    return command_line


def procman_counted(app: App) -> list[str]:
    """One process type, many instances: with many types, each process gets the ports of all of them (`PORT_<TYPE>`)."""
    assert len(set(app.commands)) == 1
    (app.folder / "Procfile").write_text(f"w: {app.commands[0]}\n")
    return [*PROCMAN, f"w={len(app.commands)}"]


def supervisor(app: App) -> list[str]:
    parts = [
        "[supervisord]\nnodaemon=true\nsilent=true\nlogfile=/dev/null\nlogfile_maxbytes=0\n",
        f"pidfile={app.folder}/pid\nchildlogdir={app.folder}\nminfds={3 * CHILDREN_MOST}\n",
    ]
    for name, command in zip(app.names, app.commands, strict=True):
        parts.append(
            f"[program:{name}]\ncommand={command}\nredirect_stderr=true\n"
            "stdout_logfile=/dev/fd/1\nstdout_logfile_maxbytes=0\n"
        )
    (app.folder / "supervisord.conf").write_text("".join(parts))
    return ["supervisord", "-c", "supervisord.conf"]


def circus(app: App) -> list[str]:
    ends = ("endpoint", "pubsub_endpoint")
    parts = ["[circus]\n", *(f"{end} = ipc://{app.folder}/{end}\n" for end in ends)]
    for name, command in zip(app.names, app.commands, strict=True):
        parts.append(f"[watcher:{name}]\ncmd = {command}\ncopy_env = True\nstdout_stream.class = StdoutStream\n")
    (app.folder / "circus.ini").write_text("".join(parts))
    return ["circusd", "--log-level", "ERROR", "--log-output", "/dev/null", "circus.ini"]


def concurrently(app: App) -> list[str]:
    return ["concurrently", "--names", ",".join(app.names), *app.commands]


def process_compose(app: App) -> list[str]:
    pairs = zip(app.names, app.commands, strict=True)
    processes = "".join(f"  {name}:\n    command: {command}\n" for name, command in pairs)
    (app.folder / "process-compose.yaml").write_text(f'version: "0.5"\nprocesses:\n{processes}')
    return ["process-compose", "up", "--tui=false", "--no-server", "--log-file", "log"]


def cat(app: App) -> list[str]:
    """Run all children with one pipe for their output, and `cat` behind it."""
    return ["sh", "-c", f"({' & '.join(app.commands)} & wait) | cat"]


def relay(app: App) -> list[str]:
    """Give each child a terminal, and pass on what it writes as it comes."""
    program = f"{sys.executable} -I -S {CHILDREN}/relay.py"
    # As a variable, for a path of the app among the arguments would make it one of the children (processes.of_run).
    started = "".join(f"RELAYED='{command}' {program} & " for command in app.commands)
    return ["sh", "-c", f"{started}wait"]


def script(app: App) -> list[str]:
    """Let the program of util-linux pass on what the app's one child writes to a terminal of its own."""
    return ["script", "--quiet", "--command", f"exec {app.commands[0]}", os.devnull]


def python(*argv: str, modules: str) -> Callable[[App], list[str]]:
    """Let Python import what a manager needs, and start one shell, which runs the app's one command."""

    def command_line(app: App) -> list[str]:
        if not modules:
            return ["python", *argv, "-c", "import os; os.write(1, b'@up\\n')"]
        start = f"os.posix_spawn('/bin/sh', ['sh', '-c', 'exec {app.commands[0]}'], os.environ); os.wait()"
        return ["python", *argv, "-c", f"import os, {modules}; {start}"]

    return command_line


# One port for each of thousands of types, above what is usual on a developer's machine. As variables, for most people
# type `procman start` alone; an option brings the parser of the command line, which `procman with options` shows.
VARIABLES = {"PROCMAN_PORT": "20000", "PROCMAN_PORT_STEP": "1"}
PROCMAN = ("procman", "start")

PEERS = (
    Peer("procman", "procman", with_procfile(*PROCMAN), stamps=True, gives_pty=True),
    Peer("procman with options", "procman", with_procfile(*PROCMAN, "-t", "5"), stamps=True, only=("start",)),
    Peer("procman --no-pty", "procman", with_procfile(*PROCMAN, "--no-pty"), stamps=True, only=("throughput:pty",)),
    Peer("procman w=N", "procman", procman_counted, stamps=True, only=("memory", "scale")),
    Peer("honcho", "honcho", with_procfile("honcho", "start"), stamps=True, flood_mb=8),
    Peer("foreman", "foreman", with_procfile("foreman", "start"), stamps=True),
    Peer("nf", "nf", with_procfile("nf", "start"), stamps=True),
    Peer("concurrently", "concurrently", concurrently, stamps=False, reads_env=False),
    Peer("supervisor", "supervisord", supervisor, stamps=False, prefixes=False, keeps_lines=False, reads_env=False),
    Peer("circus", "circusd", circus, stamps=False, prefixes=False, keeps_lines=False, reads_env=False),
    Peer("hivemind", "hivemind", with_procfile("hivemind", "Procfile"), stamps=False, gives_pty=True, reads_env=False),
    Peer("overmind", "overmind", with_procfile("overmind", "start"), stamps=False, gives_pty=True),
    Peer("goreman", "goreman", with_procfile("goreman", "-rpc-server=false", "start"), stamps=True),
    Peer("forego", "forego", with_procfile("forego", "start"), stamps=False),
    Peer("process-compose", "process-compose", process_compose, stamps=False),
    Peer("cat", "cat", cat, stamps=False, prefixes=False, keeps_lines=False, is_floor=True),
    Peer("relay", "sh", relay, stamps=False, prefixes=False, keeps_lines=False, gives_pty=True, is_floor=True),
    Peer(
        "script",
        "script",
        script,
        stamps=False,
        prefixes=False,
        keeps_lines=False,
        gives_pty=True,
        is_floor=True,
        only=("throughput:pty:1",),
    ),
    Peer("python", "python", python(modules=""), stamps=False, prefixes=False, is_floor=True),
    Peer("python -I", "python", python("-I", modules=""), stamps=False, prefixes=False, is_floor=True),
    Peer("python+click+sh", "python", python(modules="click"), stamps=False, prefixes=False, is_floor=True),
    Peer(
        "python+click+dotenv+sh",
        "python",
        python(modules="click, dotenv.parser"),
        stamps=False,
        prefixes=False,
        is_floor=True,
    ),
)

VERSIONS = {
    "procman": ["procman", "version"],
    "honcho": ["honcho", "--version"],
    "foreman": ["foreman", "version"],
    "nf": ["nf", "--version"],
    "concurrently": ["concurrently", "--version"],
    "supervisor": ["supervisord", "--version"],
    "circus": ["circusd", "--version"],
    "hivemind": ["hivemind", "--version"],
    "overmind": ["overmind", "--version"],
    "goreman": ["goreman", "version"],
    "forego": ["forego", "version"],
    "process-compose": ["process-compose", "version", "--short"],
    "python": ["python", "--version"],
}
