"""Process type `worker`: takes jobs from the queue and counts their words, which takes `seconds`."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
import uuid

import store

LEASE_S = float(os.environ.get("LEASE_S", "30"))

# SQLite cannot tell another process that there is something new, so an idle worker has to ask; a fifth of a second
# is soon enough for a job. With PostgreSQL or Redis it would sleep in LISTEN or BLPOP.
POLL_S = 0.2


def stop(signum: int, _frame: object) -> None:
    """Leave whatever the worker is doing, by way of every `finally`."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)  # a second one must not disturb the giving back
    raise SystemExit(0)


def work(db: sqlite3.Connection, job: sqlite3.Row, owner: str) -> None:
    print(f"job {job['id']} started, attempt {job['attempts']}", flush=True)
    end = time.monotonic() + job["seconds"]
    while (left_s := end - time.monotonic()) > 0:
        time.sleep(min(left_s, LEASE_S / 3))
        if not store.renew(db, job["id"], owner, LEASE_S):
            break
    words = len(job["text"].split())
    if store.finish(db, job["id"], owner, words):
        print(f"job {job['id']} done: {words} words", flush=True)
    else:
        # This process was held up (a laptop asleep) for longer than its lease; whoever has the job now will finish it.
        print(f"job {job['id']} was given to somebody else", flush=True)


def main() -> None:
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stop)
    db = store.connect_migrated()
    # PS names the instance for people; it comes back after a restart and on other machines, so it is no identity.
    owner = f"{os.environ.get('PS', 'worker')}/{uuid.uuid4()}"
    try:
        print("waiting for jobs", flush=True)
        while True:
            if job := store.claim(db, owner, LEASE_S):
                work(db, job, owner)
            else:
                time.sleep(POLL_S)
    finally:
        # By owner, not by id: right even if the signal came between the claim and the next line of ours.
        for job_id in store.give_back(db, owner):
            print(f"job {job_id} given back", flush=True)


if __name__ == "__main__":
    main()
