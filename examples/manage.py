"""Process type `manage`: admin commands as one-off processes, in the code and environment of the app.

    procman run manage migrate
    procman run manage enqueue 20 --seconds 2
    procman run manage stats

Without a command it is the janitor, which `procman start` runs beside web and worker.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time

import store

LEASE_S = float(os.environ.get("LEASE_S", "30"))


def migrate(_options: argparse.Namespace) -> None:
    """Create the schema, or bring it up to date."""
    print(f"migrated, {store.migrate(store.connect())} step(s) applied")


def stats(_options: argparse.Namespace) -> None:
    """Show how many jobs are in each state."""
    counts = store.count_by_state(store.connect_migrated())
    print(", ".join(f"{counts.get(state, 0)} {state}" for state in ("queued", "running", "done")))


def enqueue(options: argparse.Namespace) -> None:
    """Put COUNT jobs into the queue."""
    db = store.connect_migrated()
    for number in range(1, options.count + 1):
        store.enqueue(db, f"job {number} of {options.count}", options.seconds)
    print(f"{options.count} job(s) queued")


def janitor(_options: argparse.Namespace) -> None:
    """Give back the jobs of workers that died, until stopped (the default)."""
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: sys.exit(0))
    db = store.connect_migrated()
    print(f"giving back lost jobs every {LEASE_S:g} s", flush=True)
    while True:
        for job_id in store.give_back_lost(db):
            print(f"job {job_id} given back, its worker is lost", flush=True)
        time.sleep(LEASE_S)


def main() -> None:
    parser = argparse.ArgumentParser(prog="manage", description="Admin commands of the example app.")
    parser.set_defaults(run=janitor)
    commands = parser.add_subparsers(metavar="COMMAND")
    for command in (migrate, stats, enqueue, janitor):
        sub = commands.add_parser(command.__name__, help=command.__doc__)
        sub.set_defaults(run=command)
        if command is enqueue:
            sub.add_argument("count", metavar="COUNT", type=int)
            sub.add_argument("--seconds", type=float, default=0.0)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
