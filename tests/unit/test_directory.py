"""Claims on process types: real files, real locks."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from procman.control.directory import Claim, inside, sockets
from procman.errors import ControlError


@contextmanager
def claimed(directory: Path, pid: int, *types: str) -> Iterator[Claim]:
    """A claim of a supervisor that lives as long as the block: its lock is another open file description's."""
    claim = Claim(str(directory), pid)
    claim.take(types)
    try:
        yield claim
    finally:
        os.close(claim.lock_fd)
        os.close(claim.directory_fd)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / ".procman"


def test_files(directory: Path) -> None:
    with claimed(directory, 10, "web", "worker") as claim:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == dict.fromkeys(
            (".gitignore", "lock", "10.lock"), 0o600
        )
        assert (directory / ".gitignore").read_text() == "*\n"
        assert json.loads((directory / "10.lock").read_text()) == {"pid": 10, "types": ["web", "worker"]}
        claim.take(["web", "clock"])
        assert json.loads((directory / "10.lock").read_text())["types"] == ["web", "worker", "clock"]
        claim.release()
    assert sorted(path.name for path in directory.iterdir()) == [".gitignore", "lock"]


def test_disjoint_types_share_the_directory(directory: Path) -> None:
    with claimed(directory, 10, "web"), claimed(directory, 11, "worker"):
        assert (directory / "10.lock").exists()
        assert (directory / "11.lock").exists()


def test_a_type_runs_once(directory: Path) -> None:
    with claimed(directory, 10, "web"), ExitStack() as stack:
        with pytest.raises(ControlError) as caught:
            stack.enter_context(claimed(directory, 11, "web", "worker"))
        text = str(caught.value)
        assert text.startswith("web already runs here, under procman with pid 10 — ")
        assert "`procman restart web`" in text
        assert "`procman start worker`" in text
        assert not (directory / "11.lock").exists()
        with claimed(directory, 11, "worker") as other, pytest.raises(ControlError):
            other.take(["web"])
    with claimed(directory, 11, "web"):
        pass


def test_check_takes_nothing(directory: Path) -> None:
    with claimed(directory, 10, "web") as claim:
        claim.check(["web", "clock"])
        assert json.loads((directory / "10.lock").read_text())["types"] == ["web"]
        with claimed(directory, 11, "clock"), pytest.raises(ControlError, match="clock already runs here"):
            claim.check(["web", "clock"])
        claim.take(["clock"])


def test_what_the_dead_left_goes(directory: Path) -> None:
    with claimed(directory, 10, "web"):
        (directory / "10.sock").touch()
    assert (directory / "10.lock").exists()
    with claimed(directory, 11, "web"):
        assert sorted(path.name for path in directory.iterdir()) == [".gitignore", "11.lock", "lock"]


def test_pid_that_comes_again(directory: Path) -> None:
    with claimed(directory, 10, "web"):
        (directory / "10.sock").touch()
    with claimed(directory, 10, "worker"):
        assert json.loads((directory / "10.lock").read_text())["types"] == ["worker"]
        assert not (directory / "10.sock").exists()


def test_damaged_lock_of_one_that_lives(directory: Path) -> None:
    with claimed(directory, 10, "web"):
        (directory / "10.lock").write_text("{")
        with claimed(directory, 11, "web"):  # nobody knows what it runs, and its ports will tell
            assert (directory / "10.lock").exists()


def test_open_to_others_becomes_private(directory: Path) -> None:
    directory.mkdir(mode=0o755)
    with claimed(directory, 10, "web"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_own_ignore_file_stays(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    (directory / ".gitignore").write_text("mine")
    with claimed(directory, 10, "web"):
        assert (directory / ".gitignore").read_text() == "mine"


@pytest.mark.parametrize("kind", ["link", "file", "loop"])
def test_no_directory_of_ours(directory: Path, kind: str) -> None:
    if kind == "file":
        directory.touch()
    else:
        directory.symlink_to(directory if kind == "loop" else directory.parent)
    with pytest.raises(OSError):
        Claim(str(directory), 10)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away; CI is root")
def test_directory_of_another_user(directory: Path) -> None:
    directory.mkdir()
    os.chown(directory, 1, 1)
    with pytest.raises(PermissionError):
        Claim(str(directory), 10)
    assert directory.stat().st_uid == 1


@pytest.mark.parametrize("name", ["10.lock", "lock", ".gitignore"])
def test_planted_links_are_not_followed(directory: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    directory.mkdir(mode=0o700)
    (directory / name).symlink_to(target)
    with ExitStack() as stack:
        if name != ".gitignore":
            with pytest.raises(OSError):
                stack.enter_context(claimed(directory, 10, "web"))
        else:
            stack.enter_context(claimed(directory, 10, "web"))
    assert target.read_text() == "precious"


def test_sockets(directory: Path) -> None:
    assert sockets(str(directory)) == []
    directory.mkdir()
    for age, name in enumerate(("2.sock", "1.sock", "3.sock.new", "lock")):
        (directory / name).touch()
        os.utime(directory / name, (age, age))
    assert sockets(str(directory)) == [str(directory / "2.sock"), str(directory / "1.sock")]


def test_inside_comes_back(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    fd = os.open(tmp_path / "below", os.O_RDONLY)
    before = os.getcwd()
    with inside(fd):
        assert os.getcwd() == str(tmp_path / "below")
    assert os.getcwd() == before
    os.close(fd)


@pytest.mark.skipif(sys.platform != "linux", reason="open descriptors are looked up in /proc")
def test_no_descriptor_is_left(directory: Path) -> None:
    with claimed(directory, 10, "web"):
        pass
    before = os.listdir("/proc/self/fd")
    with claimed(directory, 11, "web"), pytest.raises(ControlError), claimed(directory, 12, "web"):
        pass
    # The one that was refused keeps its directory open: procman ends then.
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 1


def test_two_others_run_what_is_asked_for(directory: Path) -> None:
    with claimed(directory, 10, "web"), claimed(directory, 11, "worker", "clock"), ExitStack() as stack:
        with pytest.raises(ControlError) as caught:
            stack.enter_context(claimed(directory, 12, "web", "worker", "clock", "mail"))
        told, _, hint = str(caught.value).partition(" — ")
        assert set(told.split("; ")) == {
            "web already runs here, under procman with pid 10",
            "worker and clock already run here, under procman with pid 11",
        }
        assert hint.endswith("`procman quit` ends both; `procman start mail` starts the rest")
