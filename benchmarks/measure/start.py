"""How long until the first line of a child is there?"""

from __future__ import annotations

from benchmarks.app import UP, App
from benchmarks.peers import Peer
from benchmarks.plan import Column, Sample, Scale, Test
from benchmarks.session import Session

LIMIT_S = 20
ENV = "DATABASE_URL=postgres://localhost/app\nSECRET='a b c'\n# a comment\nWEB_WORKERS=4\n"


def sample(peer: Peer, env: str) -> Sample:
    with App().idle(1) as app:
        if env:
            (app.folder / ".env").write_text(env)
        with Session(peer, app) as session:
            return {"first_ms": 1000 * session.wait_for_lines(UP, 1, LIMIT_S)}


def tests(scale: Scale) -> list[Test]:
    columns = (Column("first_ms", "first line ms"),)
    floors = ("python", "python -I", "python+click+sh")
    return [
        Test(
            "start",
            "Start to the first line of a child",
            columns,
            lambda peer: sample(peer, ""),
            floors,
            repetitions=20,
        ),
        Test(
            "start:env",
            "Start to the first line of a child, with a .env",
            columns,
            lambda peer: sample(peer, ENV),
            ("python+click+dotenv+sh",),
            repetitions=20,
            refuses=lambda peer: "" if peer.reads_env else "does not read .env",
        ),
    ]
