"""The backing service: a queue of jobs in the database that DATABASE_URL names.

Each operation is one SQL statement, hence atomic: any number of processes may share the queue, and a kill -9 at any
moment leaves nothing half done.
"""

from __future__ import annotations

import os
import sqlite3
import time
from urllib.parse import unquote, urlsplit

MIGRATIONS = (
    """
    CREATE TABLE jobs (
        id          INTEGER PRIMARY KEY AUTOINCREMENT,
        text        TEXT NOT NULL,
        seconds     REAL NOT NULL,
        state       TEXT NOT NULL DEFAULT 'queued',   -- queued, running or done
        attempts    INTEGER NOT NULL DEFAULT 0,
        owner       TEXT,                             -- the worker it is leased to
        lease_until REAL,                             -- wall clock, the only one that processes share
        words       INTEGER                           -- the result
    )
    """,
    "CREATE INDEX jobs_by_state ON jobs (state, id)",
)


def connect() -> sqlite3.Connection:
    """Open the database of DATABASE_URL: `sqlite:///relative/path` or `sqlite:////absolute/path`."""
    url = urlsplit(os.environ.get("DATABASE_URL", ""))
    path = unquote(url.path[1:])
    if url.scheme != "sqlite" or url.netloc or not path:
        # Not the value itself: a real one holds a password.
        raise SystemExit("DATABASE_URL must look like sqlite:///app.sqlite3; procman reads it from .env")
    # Without an isolation level each statement commits by itself. The timeout is the wait for another writer.
    db = sqlite3.connect(path, isolation_level=None, timeout=3)
    db.row_factory = sqlite3.Row
    return db


def connect_migrated() -> sqlite3.Connection:
    """Like connect(), but end the process with one line of advice if the schema is missing or old."""
    try:
        db = connect()
        is_current = _version(db) >= len(MIGRATIONS)
    except sqlite3.Error as error:
        raise SystemExit(f"cannot use the database of DATABASE_URL: {error}") from None
    if not is_current:
        raise SystemExit("the database has no up-to-date schema; run: procman run manage migrate")
    return db


def migrate(db: sqlite3.Connection) -> int:
    """Bring the schema up to date and return how many steps that took; safe to repeat, and to run twice at once."""
    db.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not wait for each other; kept in the file
    with db:
        db.execute("BEGIN IMMEDIATE")
        pending = MIGRATIONS[_version(db) :]
        for statement in pending:
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    return len(pending)


def _version(db: sqlite3.Connection) -> int:
    return db.execute("PRAGMA user_version").fetchone()[0]


def enqueue(db: sqlite3.Connection, text: str, seconds: float) -> int:
    return db.execute("INSERT INTO jobs (text, seconds) VALUES (?, ?) RETURNING id", (text, seconds)).fetchall()[0][0]


def find(db: sqlite3.Connection, job_id: int) -> sqlite3.Row | None:
    return db.execute("SELECT id, state, attempts, words FROM jobs WHERE id = ?", (job_id,)).fetchone()


def count_by_state(db: sqlite3.Connection) -> dict[str, int]:
    return dict(db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())


def claim(db: sqlite3.Connection, owner: str, lease_s: float) -> sqlite3.Row | None:
    """Lease the oldest queued job to `owner`; None if there is none. Two workers never get the same one."""
    rows = db.execute(
        """
        UPDATE jobs SET state = 'running', owner = ?, lease_until = ?, attempts = attempts + 1
        WHERE id = (SELECT id FROM jobs WHERE state = 'queued' ORDER BY id LIMIT 1)
        RETURNING *
        """,
        (owner, time.time() + lease_s),
    ).fetchall()
    return rows[0] if rows else None


def renew(db: sqlite3.Connection, job_id: int, owner: str, lease_s: float) -> bool:
    """Extend the lease; False if the job was given to somebody else meanwhile."""
    sql = "UPDATE jobs SET lease_until = ? WHERE id = ? AND owner = ?"
    return db.execute(sql, (time.time() + lease_s, job_id, owner)).rowcount == 1


def finish(db: sqlite3.Connection, job_id: int, owner: str, words: int) -> bool:
    """Store the result; False if the job was given to somebody else meanwhile."""
    sql = "UPDATE jobs SET state = 'done', owner = NULL, lease_until = NULL, words = ? WHERE id = ? AND owner = ?"
    return db.execute(sql, (words, job_id, owner)).rowcount == 1


def give_back(db: sqlite3.Connection, owner: str) -> list[int]:
    """Queue again what `owner` holds and return the ids."""
    return _queue_again(db, "owner = ?", owner)


def give_back_lost(db: sqlite3.Connection) -> list[int]:
    """Queue again what a worker stopped renewing, for example after a kill -9, and return the ids."""
    return _queue_again(db, "lease_until < ?", time.time())


def _queue_again(db: sqlite3.Connection, which: str, value: str | float) -> list[int]:
    sql = f"UPDATE jobs SET state = 'queued', owner = NULL, lease_until = NULL WHERE {which} RETURNING id"
    return [row["id"] for row in db.execute(sql, (value,)).fetchall()]
