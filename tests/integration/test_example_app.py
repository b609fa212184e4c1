"""The example app, driven end to end: through the command line, real processes and real HTTP."""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.ports import port_block

EXAMPLES = Path(__file__).parents[2] / "examples"
CEILING_S = 30

# Whatever proxy the machine is told to use, it cannot reach our loopback.
HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Run:
    """One running procman and the lines it has shown."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self._popen = popen
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.seen: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def until(self, *patterns: str) -> list[re.Match[str]]:
        """Wait until each pattern was found in a line, in whatever order, also among lines seen before."""
        deadline = time.monotonic() + CEILING_S
        while missing := [pattern for pattern in patterns if not self._find(pattern)]:
            if not self._take_line(deadline):
                raise self._failure(f"the output ended without {missing}")
        return [self._find(pattern) for pattern in patterns]

    def send(self, signum: int) -> None:
        self._popen.send_signal(signum)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Signal procman and return its exit code."""
        self.send(signum)
        return self.wait()

    def wait(self) -> int:
        """Read to the end of the output and return procman's exit code."""
        deadline = time.monotonic() + CEILING_S
        while self._take_line(deadline):
            pass
        return self._popen.wait(CEILING_S)

    def _find(self, pattern: str) -> re.Match[str] | None:
        return next((match for line in self.seen if (match := re.search(pattern, line))), None)

    def _take_line(self, deadline: float) -> bool:
        """Wait for one more line and put it into `seen`; False at the end of the output."""
        try:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise self._failure(f"nothing more came within {CEILING_S} s") from None
        if line is not None:
            self.seen.append(line)
        return line is not None

    def _failure(self, complaint: str) -> AssertionError:
        return AssertionError("\n".join([f"{complaint}; the output so far:", *self.seen]))

    def _read(self) -> None:
        with self._popen.stdout as lines:
            for line in lines:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)


class App:
    """A copy of the example app, with ports and a mark in the environment of its own."""

    def __init__(self, root: Path, base_port: int) -> None:
        self.root = root
        self.base_port = base_port
        self._mark = f"EXAMPLE_TEST_MARK={uuid.uuid4()}"
        name, _, value = self._mark.partition("=")
        self._env = {**os.environ, name: value}
        # Nothing of the developer's shell or of another test's settings may reach the app.
        for inherited in [each for each in self._env if each.startswith("PROCMAN_") or each in ("PORT", "PS")]:
            del self._env[inherited]
        # `python3` of the Procfile is the interpreter that runs these tests.
        self._env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{self._env.get('PATH', os.defpath)}"
        self._env["PYTHONPATH"] = str(EXAMPLES.parent)
        self._runs: list[subprocess.Popen[str]] = []

    def procman(self, *arguments: str) -> Run:
        popen = subprocess.Popen(
            [sys.executable, "-m", "procman", *arguments],
            cwd=self.root,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._runs.append(popen)
        return Run(popen)

    def one_off(self, *arguments: str) -> tuple[int, str]:
        """Run a command to its end; return exit code and output."""
        run = self.procman("run", *arguments)
        return run.wait(), "\n".join(run.seen)

    def configure(self, **settings: object) -> None:
        with (self.root / ".env").open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in settings.items())

    def get(self, path: str, *, port: int) -> str:
        with HTTP.open(f"http://127.0.0.1:{port}{path}", timeout=CEILING_S) as answer:
            return answer.read().decode()

    def enqueue(self, *, port: int, **job: object) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/jobs", data=json.dumps(job).encode())
        with HTTP.open(request, timeout=CEILING_S) as answer:
            assert answer.status == 201
            return json.load(answer)["id"]

    def job_states(self) -> dict[int, tuple[str, int]]:
        """Return (state, attempts) of each job, read past the app from its database."""
        with closing(sqlite3.connect(self.root / "app.sqlite3")) as db:
            rows = db.execute("SELECT id, state, attempts FROM jobs").fetchall()
        return {job_id: (state, attempts) for job_id, state, attempts in rows}

    def survivors(self) -> dict[int, bytes]:
        """Return the command line of every process that has our mark in its environment, seen from outside."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                    found[int(process.name)] = (process / "cmdline").read_bytes()
            except OSError:
                continue  # ended meanwhile, or somebody else's
        return found

    def close(self) -> dict[int, bytes]:
        """Kill all that is left and return it: nothing, unless the test failed or procman forgot somebody."""
        left = self.survivors()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for popen in self._runs:
            popen.wait()
        return left


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    root = tmp_path / "app"
    shutil.copytree(EXAMPLES, root, ignore=shutil.ignore_patterns("*.sqlite3*", "__pycache__", ".procman"))
    with port_block() as base_port:
        app = App(root, base_port)
        try:
            yield app
        finally:
            left = app.close()
        assert left == {}


@pytest.fixture
def migrated(app: App) -> App:
    code, output = app.one_off("manage", "migrate")
    assert (code, output) == (0, "migrated, 2 step(s) applied")
    return app


def test_two_web_and_four_worker(migrated: App) -> None:
    app, base = migrated, migrated.base_port
    run = app.procman("run", "-p", str(base), "web=2", "worker=4")
    run.until(
        rf"web\.1 .*listening on http://127\.0\.0\.1:{base}$",
        rf"web\.2 .*listening on http://127\.0\.0\.1:{base + 1}$",
        *(rf"worker\.{n} .*waiting for jobs" for n in (1, 2, 3, 4)),
    )
    assert app.get("/", port=base) == f"web.1 on port {base}\n"
    assert app.get("/", port=base + 1) == f"web.2 on port {base + 1}\n"
    assert app.get("/healthz", port=base) == "ok\n"

    # Jobs that no worker ends keep three of the four busy: the fourth must do what comes after, and all take part.
    held = [app.enqueue(port=base, text="held", seconds=600) for _ in range(3)]
    holders = {match[1] for match in run.until(*(rf"worker\.(\d) .*job {job} started" for job in held))}
    assert len(holders) == 3
    quick = [app.enqueue(port=base, text="to be or not to be") for _ in range(10)]
    doers = {match[1] for match in run.until(*(rf"worker\.(\d) .*job {job} done: 6 words" for job in quick))}
    assert holders | doers == {"1", "2", "3", "4"}
    # What came in through one web instance, the other one knows: the state is in the backing service.
    expected = {"id": quick[0], "state": "done", "attempts": 1, "words": 6}
    assert json.loads(app.get(f"/jobs/{quick[0]}", port=base + 1)) == expected
    assert app.one_off("manage", "stats") == (0, "0 queued, 3 running, 10 done")

    assert run.stop() == 0
    run.until(*(rf"worker\.\d .*job {job} given back" for job in held))
    # A worker that was not asked to stop yet may have taken such a job once more, so the attempts are not exact.
    states = {job: state for job, (state, _attempts) in app.job_states().items()}
    assert states == dict.fromkeys(held, "queued") | dict.fromkeys(quick, "done")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stop_gives_the_unfinished_job_back_and_the_next_run_takes_it(migrated: App, signum: int) -> None:
    app = migrated
    assert app.one_off("manage", "enqueue", "1", "--seconds", "600") == (0, "1 job(s) queued")
    for attempt in (1, 2):
        run = app.procman("run", "worker=1")
        run.until(f"job 1 started, attempt {attempt}")
        assert run.stop(signum) == 0
        run.until(r"worker\.1 .*job 1 given back")
        assert app.survivors() == {}
        assert app.job_states() == {1: ("queued", attempt)}


def test_start_runs_every_type_but_release(migrated: App) -> None:
    base = migrated.base_port
    run = migrated.procman("start", "-p", str(base))
    run.until(
        rf"web\.1 .*listening on http://127\.0\.0\.1:{base}$",
        r"worker\.1 .*waiting for jobs",
        r"manage\.1 .*giving back lost jobs every 30 s",
    )
    assert run.stop() == 0
    assert not any("release.1" in line for line in run.seen)


def test_release_can_be_run(app: App) -> None:
    assert app.one_off("release") == (0, "migrated, 2 step(s) applied")
    assert app.one_off("release") == (0, "migrated, 0 step(s) applied")


def test_job_of_a_killed_worker_returns(migrated: App) -> None:
    app = migrated
    app.configure(LEASE_S=0.5)
    app.one_off("manage", "enqueue", "1", "--seconds", "600")
    first = app.procman("run", "worker=1")
    [started] = first.until(r"worker\.1 .*started with pid (\d+)")
    first.until("job 1 started, attempt 1")
    os.kill(int(started[1]), signal.SIGKILL)
    assert first.wait() == 128 + signal.SIGKILL
    assert app.job_states() == {1: ("running", 1)}

    second = app.procman("run", "worker=1", "manage=1")
    second.until(r"manage\.1 .*job 1 given back, its worker is lost", r"worker\.1 .*job 1 started, attempt 2")
    assert second.stop() == 0
    assert app.job_states()[1][0] == "queued"


def test_stop_lets_a_running_request_finish(migrated: App) -> None:
    app, base = migrated, migrated.base_port
    run = app.procman("run", "-p", str(base), "web=1")
    run.until("listening on")
    body = b'{"text": "slow"}'
    with socket.create_connection(("127.0.0.1", base), timeout=CEILING_S) as slow:
        slow.sendall(b"POST /jobs HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:5])
        # Connections are accepted in order: once a later one is answered, the slow one is being served.
        app.get("/", port=base)
        run.send(signal.SIGTERM)
        run.until(r"web\.1 .*stopping: no new requests")
        slow.sendall(body[5:])
        answer = slow.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.0 201 ")
    assert run.wait() == 0
    assert app.job_states() == {1: ("queued", 0)}


@pytest.mark.parametrize("process_type", ["web", "worker", "manage"])
def test_missing_schema_is_one_clear_line(app: App, process_type: str) -> None:
    advice = "the database has no up-to-date schema; run: procman run manage migrate"
    assert app.one_off(process_type) == (1, advice)

    run = app.procman("start", "-p", str(app.base_port), process_type)
    assert run.wait() == 1
    run.until(rf"{process_type}\.1 .*{re.escape(advice)}$")
    assert not any("Traceback" in line for line in run.seen)
