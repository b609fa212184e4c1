"""Bring the tools here: procman itself as a user would install it, the peers from their registries.

All under build/benchmarks but what comes as a Debian package. What cannot be installed is missing, with a reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers import PEERS, VERSIONS, Peer

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "benchmarks"
PROCMAN = BUILD / "procman"
PYTHON_PEERS = BUILD / "python"
NODE_PEERS = BUILD / "node"
NOT_FOUND = "not on PATH"

FOLDERS_OF_PEERS = (PYTHON_PEERS / "bin", NODE_PEERS / "node_modules" / ".bin")


class Tools(NamedTuple):
    present: list[Peer]
    missing: dict[str, str]  # name: reason
    versions: dict[str, str]


def environment(peer: Peer) -> dict[str, str]:
    """Return the environment a tool runs in: nearly none, so that all have the same on each machine."""
    folders = [PROCMAN / "bin"] if peer.program in ("procman", "python") else FOLDERS_OF_PEERS
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", os.defpath)])
    return {"PATH": path, "HOME": str(BUILD / "home"), "LANG": "C.UTF-8", "TERM": "xterm", "USER": "bench"}


def program(peer: Peer) -> str | None:
    return shutil.which(peer.program, path=environment(peer)["PATH"])


def run(*argv: str | Path) -> str:
    """Run a command; return "" or what is wrong."""
    try:
        done = subprocess.run(
            [str(argument) for argument in argv],
            cwd=BUILD,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=600,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{Path(argv[0]).name}: {type(error).__name__}"
    if done.returncode == 0:
        return ""
    sys.stderr.write(done.stdout.decode(errors="replace"))
    return f"{' '.join(str(argument) for argument in argv[1:3])} failed with {done.returncode}"


def prepare() -> None:
    (BUILD / "home").mkdir(parents=True, exist_ok=True)
    install_procman()


def install_procman() -> None:
    """Make a wheel and install it: an editable install costs 15 ms more at each start."""
    mark = PROCMAN / "installed"
    sources = [ROOT / "pyproject.toml", *(ROOT / "procman").rglob("*.py")]
    if mark.exists() and all(source.stat().st_mtime < mark.stat().st_mtime for source in sources):
        return
    print("installing procman", file=sys.stderr)
    shutil.rmtree(PROCMAN, ignore_errors=True)
    steps = (
        (sys.executable, "-m", "venv", PROCMAN),
        (PROCMAN / "bin/python", "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", PROCMAN / "wheel", ROOT),
    )
    for step in steps:
        if failure := run(*step):
            raise SystemExit(failure)
    wheel = next((PROCMAN / "wheel").glob("*.whl"))
    if failure := run(PROCMAN / "bin/python", "-m", "pip", "install", "-q", wheel):
        raise SystemExit(failure)
    mark.touch()


def install_python_peers() -> str:
    if not (PYTHON_PEERS / "bin/python").exists() and (failure := run(sys.executable, "-m", "venv", PYTHON_PEERS)):
        return failure
    return run(PYTHON_PEERS / "bin/python", "-m", "pip", "install", "-q", "honcho", "supervisor", "circus")


def install_debian(*packages: str) -> str:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return f"install {' '.join(packages)} first (apt-get, as root)"
    return run("apt-get", "update") or run("apt-get", "install", "-y", "--no-install-recommends", *packages)


def install_node_peers() -> str:
    if not shutil.which("npm") and (failure := install_debian("nodejs", "npm")):
        return failure
    NODE_PEERS.mkdir(parents=True, exist_ok=True)
    return run("npm", "install", "--prefix", NODE_PEERS, "--no-audit", "--no-fund", "foreman", "concurrently")


INSTALLERS = {
    "honcho": install_python_peers,
    "supervisor": install_python_peers,
    "circus": install_python_peers,
    "foreman": lambda: install_debian("ruby-foreman"),
    "nf": install_node_peers,
    "concurrently": install_node_peers,
}


def find(wanted: list[str] | None, may_install: bool) -> Tools:
    """Return the tools that can be measured, of those that are wanted, after installing what is not there."""
    prepare()
    present: list[Peer] = []
    missing: dict[str, str] = {}
    failures: dict[object, str] = {}  # by installer
    for peer in PEERS:
        if not (wanted is None or peer.name in wanted or peer.program == "procman" or peer.is_floor):
            continue
        install = INSTALLERS.get(peer.name)
        if not program(peer) and install and may_install and install not in failures:
            print(f"installing {peer.name}", file=sys.stderr)
            failures[install] = install()
        if program(peer):
            present.append(peer)
        else:
            missing[peer.name] = failures.get(install) or NOT_FOUND
    return Tools(present, missing, {peer.name: version(peer) for peer in present if peer.name in VERSIONS})


def version(peer: Peer) -> str:
    argv = [str(program(peer)), *VERSIONS[peer.name][1:]]
    try:
        told = subprocess.run(argv, env=environment(peer), capture_output=True, timeout=20, cwd=BUILD).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "unknown version"
    lines = told.decode(errors="replace").split("\n")
    return lines[0].split(" ")[-1].removeprefix("v") or "unknown version"
