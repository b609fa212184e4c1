"""Questions to /proc about real processes: who is ours, what is it, who holds a port."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from procman import sweep

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
REPOSITORY = Path(__file__).parents[2]


class Children:
    """Processes that live until their stdin ends, each ready when it has said so."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, argv: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
        self._running.append(child)
        return child

    def shell(self, script: str, **options: Any) -> subprocess.Popen[bytes]:
        """Run `script`, which says `ready` when it is."""
        return self.ready(["/bin/sh", "-c", script], **options)

    def ready(self, argv: Sequence[Any], **options: Any) -> subprocess.Popen[bytes]:
        """Start a program that says `ready`. Popen alone returns while execve is still at work on the words."""
        child = self.start(argv, **options)
        assert child.stdout is not None
        assert child.stdout.readline().split()[:1] == [b"ready"]
        return child

    def zombie(self, argv: Sequence[str | Path]) -> int:
        """Return the pid of one that has ended and waits for its parent."""
        child = self.start(argv)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        return child.pid

    def close(self) -> None:
        for child in self._running:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                child.kill()
            child.communicate()


@pytest.fixture
def run() -> Iterator[Children]:
    made = Children()
    yield made
    made.close()


WAIT = "echo ready; read x"


# --- children ---


def test_children(run: Children) -> None:
    before = set(sweep.children() or ())
    one, two = run.shell(WAIT), run.shell(WAIT)
    assert set(sweep.children() or ()) - before == {one.pid, two.pid}
    one.kill()
    one.wait()
    assert set(sweep.children() or ()) - before == {two.pid}


def test_zombies_are_children(run: Children) -> None:
    assert run.zombie(["/bin/true"]) in (sweep.children() or ())


def test_grandchildren_are_none(run: Children) -> None:
    child = run.shell("sleep 100 & echo ready $!; wait", start_new_session=True)
    assert child.pid in (sweep.children() or ())
    assert len(sweep.programs_by_group()[child.pid]) == 1
    assert sweep.programs_by_group()[child.pid][0] not in (sweep.children() or ())


def test_children_in_a_pid_namespace_whose_proc_is_the_hosts() -> None:
    """The numbers of /proc are the host's there, and killing by them would hit strangers."""
    unshare = shutil.which("unshare")
    script = """
import os, subprocess, sys
from procman import sweep
child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
found = sweep.children()
assert os.readlink("/proc/self") != str(os.getpid()), "proc is ours"
assert sweep.describe(child.pid) == str(child.pid), sweep.describe(child.pid)
assert sweep.mark_of(child.pid) == ("", "")
assert sweep.programs_by_group() == {}
child.communicate()
print(found == [child.pid], found, child.pid)
"""
    rights = [] if os.geteuid() == 0 else ["--map-root-user"]
    done = subprocess.run(
        [unshare or "unshare", *rights, "--pid", "--fork", sys.executable, "-c", script],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    ) if unshare else None  # fmt: skip
    if done is None or "unshare:" in done.stderr:
        pytest.skip("no pid namespaces here")
    assert done.stdout.startswith("True"), done.stdout + done.stderr


# --- groups ---


def test_all_members_but_a_shell_that_leads_them(run: Children) -> None:
    child = run.shell("sleep 100 & echo ready $!; wait", start_new_session=True)
    pids = sweep.programs_by_group()[child.pid]
    assert child.pid not in pids
    assert len(pids) == 1
    assert sweep.group_of(pids[0]) == child.pid


def test_a_shell_alone_gets_the_signal_itself(run: Children) -> None:
    child = run.shell(WAIT, start_new_session=True)
    assert sweep.programs_by_group()[child.pid] == [child.pid]


def test_a_shell_script_is_a_shell(run: Children, tmp_path: Path) -> None:
    script = tmp_path / "serve.sh"
    script.write_text("#!/bin/sh\nsleep 100 &\necho ready\nwait\n")
    script.chmod(0o755)
    child = run.start([script], start_new_session=True)
    assert child.stdout is not None
    child.stdout.readline()
    assert child.pid not in sweep.programs_by_group()[child.pid]


def test_another_program_that_leads_gets_it_too(run: Children) -> None:
    program = "import subprocess, sys; c = subprocess.Popen(['cat']); print('ready', c.pid, flush=True); c.wait()"
    child = run.start([sys.executable, "-S", "-E", "-c", program], start_new_session=True)
    assert child.stdout is not None
    other = int(child.stdout.readline().split()[1])
    assert sorted(sweep.programs_by_group()[child.pid]) == sorted([child.pid, other])


def test_a_shell_inside_the_group_gets_it(run: Children) -> None:
    """Only the leader is spared: what it runs is the program."""
    child = run.shell("sh -c 'echo ready $$; sleep 100; :' & wait", start_new_session=True)
    assert child.pid not in sweep.programs_by_group()[child.pid]
    assert sweep.programs_by_group()[child.pid]


def test_group_of_one_that_is_gone(run: Children) -> None:
    child = run.shell("echo ready")
    child.wait()
    assert sweep.group_of(child.pid) == 0


# --- marks ---


def test_mark_of(run: Children) -> None:
    env = {"PATH": os.environ["PATH"], "PROCMAN_RUN": "12-34", "PROCMAN_PROCESS": "web.1", "OTHER": "a=b"}
    assert sweep.mark_of(run.shell(WAIT, env=env).pid) == ("12-34", "web.1")


@pytest.mark.parametrize(
    ("env", "mark"),
    [
        ({}, ("", "")),
        ({"PROCMAN_RUN": "1"}, ("1", "")),
        ({"PROCMAN_PROCESS": "web.1"}, ("", "web.1")),
        ({"XPROCMAN_RUN": "1", "PROCMAN_RUNS": "2"}, ("", "")),
        ({b"PROCMAN_RUN": b"\xff", b"PROCMAN_PROCESS": b"a\xffb"}, ("\ufffd", "a\ufffdb")),
    ],
)
def test_mark_of_others(run: Children, env: dict[Any, Any], mark: tuple[str, str]) -> None:
    assert sweep.mark_of(run.shell(WAIT, env=env).pid) == mark


def test_mark_of_a_zombie_and_of_nobody(run: Children) -> None:
    assert sweep.mark_of(run.zombie(["/bin/true"])) == ("", "")
    child = run.shell("echo ready")
    child.wait()
    assert sweep.mark_of(child.pid) == ("", "")


def test_marked_finds_all_of_a_run_wherever_they_are(run: Children) -> None:
    mark = f"test-{os.getpid()}"
    env = {"PATH": os.environ["PATH"], "PROCMAN_RUN": mark}
    child = run.shell("sleep 100 & echo ready $!; wait", env=env, start_new_session=True)
    run.shell(WAIT, env={**env, "PROCMAN_RUN": "another"})
    assert sorted(sweep.marked(mark)) == sorted([child.pid, *sweep.programs_by_group()[child.pid]])
    os.killpg(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert child.pid not in sweep.marked(mark)


# --- signals ---


def test_signal_to_nobody_is_no_error(run: Children) -> None:
    child = run.shell("echo ready")
    child.wait()
    sweep.signal_pid(child.pid, signal.SIGTERM)
    sweep.stop_pid(child.pid)


def test_stop_reaches_one_that_is_stopped(run: Children) -> None:
    child = run.shell(WAIT)
    os.kill(child.pid, signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)
    sweep.stop_pid(child.pid)
    assert child.wait(10) == -signal.SIGTERM


# --- descriptions ---


def test_describe(run: Children) -> None:
    child = run.ready(["/bin/sh", "-c", WAIT, "-"])
    assert sweep.describe(child.pid) == f"{child.pid} (/bin/sh -c {WAIT} -)"


@pytest.mark.parametrize("word", ["a\nb", "\x1b[2Jb", "a\tb\r", "\x9b2J", "\u202e", b"\xff\xfe"])
def test_describe_is_one_line_that_speaks_to_no_terminal(run: Children, word: Any) -> None:
    child = run.ready([b"/bin/sh", b"-c", WAIT.encode(), word if isinstance(word, bytes) else word.encode()])
    text = sweep.describe(child.pid)
    assert text.startswith(f"{child.pid} (/bin/sh -c {WAIT}")
    assert text.isprintable()


def test_describe_cuts_what_is_long(run: Children) -> None:
    child = run.ready(["/bin/sh", "-c", WAIT, "x" * 1000])
    text = sweep.describe(child.pid)
    assert len(text) == len(f"{child.pid} ()") + 60
    assert text.endswith("xxx...)")


def test_describe_a_zombie_by_its_name(run: Children) -> None:
    pid = run.zombie(["/bin/true"])
    assert sweep.describe(pid) == f"{pid} (true)"


def test_describe_a_zombie_with_an_odd_name(run: Children, tmp_path: Path) -> None:
    """A name may hold any byte: parentheses as in /proc/PID/stat itself, and controls."""
    odd = tmp_path / "a) R (1\x1b[2J"
    shutil.copy("/bin/true", odd)
    pid = run.zombie([odd])
    text = sweep.describe(pid)
    assert text.startswith(f"{pid} (a) R (1")
    assert text.isprintable()


def test_odd_names_do_not_hide_a_group(run: Children, tmp_path: Path) -> None:
    odd = tmp_path / "x) S 1 (y"
    shutil.copy("/bin/cat", odd)
    child = run.start([odd], start_new_session=True)
    assert sweep.programs_by_group()[child.pid] == [child.pid]


def test_describe_nobody(run: Children) -> None:
    child = run.shell("echo ready")
    child.wait()
    assert sweep.describe(child.pid) == str(child.pid)


# --- ports ---


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_port_of_a_listener_is_taken(host: str) -> None:
    if ":" in host and not _has_ipv6():
        pytest.skip("no IPv6 here")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
        assert sweep.is_taken(port)
        assert port in sweep.listening_ports()
        assert re.fullmatch(rf".+, pid {os.getpid()}", sweep.holder_of_port(port))
    assert not sweep.is_taken(port)
    assert port not in sweep.listening_ports()
    assert sweep.holder_of_port(port) == "pid unknown"


def test_port_without_a_listener_is_free() -> None:
    """Neither one that is only bound nor one end of a connection keeps a server from starting."""
    assert not sweep.is_taken(_free_port())
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        local = client.getsockname()[1]
        assert local not in sweep.listening_ports()
        assert not sweep.is_taken(local)
        accepted.close()  # first, so that its side waits in TIME_WAIT
        client.close()
        port = server.getsockname()[1]
    assert not sweep.is_taken(port)


def test_asking_leaves_the_port_free() -> None:
    port = _free_port()
    assert not sweep.is_taken(port)
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_holder_in_another_process(run: Children) -> None:
    program = (
        "import socket; server = socket.create_server(('127.0.0.1', 0)); "
        "print(server.getsockname()[1], flush=True); input()"
    )
    child = run.start([sys.executable, "-c", program])
    assert child.stdout is not None
    port = int(child.stdout.readline())
    assert re.fullmatch(rf"python[0-9.]*, pid {child.pid}", sweep.holder_of_port(port))
