"""Who is left of ours, who belongs to a group, who holds a port: questions to /proc, asked only when needed."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator

from procman.kernel import FAULT_SWITCH
from procman.records import NamedTuple

_SHELLS = frozenset({"sh", "dash", "bash", "ash", "busybox", "ksh", "mksh", "zsh"})


class Stat(NamedTuple):
    """The fields of proc_pid_stat(5) used here, numbered as our own pid namespace numbers them."""

    pid: int
    command: str
    state: str
    parent: int
    group: int


def children() -> list[int] | None:
    """Return the pids of this process's children; None when /proc cannot tell."""
    try:
        pids = [
            int(pid)
            for task in os.listdir("/proc/self/task")
            for pid in _read(f"/proc/self/task/{task}/children").split()
        ]
    except OSError:
        pids = None
    if pids is None:
        return [stat.pid for stat in _all() if stat.parent == os.getpid()] if _is_ours() else None
    return pids if _is_ours() else _translated(pids)


def marked(run_id: str) -> list[int]:
    """Return the pids of all processes that carry the mark of run `run_id`."""
    if _is_portable():
        import psutil

        return [pid for pid in psutil.pids() if mark_of(pid)[0] == run_id]
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if mark_of(pid)[0] == run_id and _is_alive(pid)]


def _is_portable() -> bool:
    """Tell whether to ask psutil: elsewhere than on Linux, and where a test wants it so."""
    return sys.platform != "linux" or os.environ.get(FAULT_SWITCH) == "no-subreaper"


def _portable_environ(pid: int) -> dict[str, str]:
    """Return the environment of a process that is no zombie and not somebody else's; else {}."""
    import psutil

    try:
        process = psutil.Process(pid)
        return {} if process.status() == psutil.STATUS_ZOMBIE else process.environ()
    except (psutil.Error, OSError):
        return {}


def _is_portable_zombie(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except (psutil.Error, OSError):
        return True


def is_group_alive(pgid: int) -> bool:
    """Tell whether a process group has a member that is no zombie."""
    if _is_portable():
        import psutil

        return any(group_of(pid) == pgid and not _is_portable_zombie(pid) for pid in psutil.pids())
    return any(stat.group == pgid and stat.state not in "ZX" for stat in _all()) if _is_ours() else True


def _is_alive(pid: int) -> bool:
    stat = _stat(pid)
    return stat is not None and stat.state not in "ZX"


def _is_ours() -> bool:
    """Tell whether /proc numbers processes as we do: a pid namespace may still show its parent's."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def _translated(pids: Iterable[int]) -> list[int]:
    """Turn pids of /proc's namespace into our own by the line NSpid of proc_pid_status(5)."""
    depth = len(_ns_pids("self")) - 1
    return [numbers[depth] for numbers in map(_ns_pids, map(str, pids)) if len(numbers) > depth]


def _ns_pids(pid: str) -> list[int]:
    try:
        found = re.search(rb"^NSpid:(.*)$", _read(f"/proc/{pid}/status"), re.MULTILINE)
    except OSError:
        return []
    return [int(number) for number in found[1].split()] if found else []


def programs_by_group() -> dict[int, list[int]]:
    """Return, for each process group, the pids that a user's signal is meant for.

    These are all members, except a leading shell that has children: dash and bash die of SIGUSR1 while they wait for
    their child, which would end the whole process.
    """
    groups: dict[int, list[Stat]] = {}
    for stat in _all():
        groups.setdefault(stat.group, []).append(stat)
    return {
        pgid: [stat.pid for stat in members if len(members) == 1 or stat.pid != pgid or not _is_shell(pgid)]
        for pgid, members in groups.items()
    }


def _is_shell(pid: int) -> bool:
    # The program and not its name: that of a script is the script's.
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")) in _SHELLS
    except OSError:
        return False


def mark_of(pid: int) -> tuple[str, str]:
    """Return the run and the instance a process belongs to, by its environment; ("", "") if it does not say."""
    if _is_portable():
        portable = _portable_environ(pid)
        return portable.get("PROCMAN_RUN", ""), portable.get("PROCMAN_PROCESS", "")
    try:
        env = _read(f"/proc/{pid}/environ") if _is_ours() else b""
    except OSError:
        return "", ""
    values = dict(item.partition(b"=")[::2] for item in env.split(b"\0"))
    run, name = values.get(b"PROCMAN_RUN", b""), values.get(b"PROCMAN_PROCESS", b"")
    return run.decode("utf-8", "replace"), name.decode("utf-8", "replace")


def group_of(pid: int) -> int:
    """Return the process group of `pid`, 0 if it is gone."""
    try:
        return os.getpgid(pid)
    except (ProcessLookupError, PermissionError):  # the latter elsewhere than on Linux: another session's
        return 0


def signal_pid(pid: int, signum: int) -> None:
    """Send `signum`; one that is gone or not ours to signal is left alone."""
    try:
        os.kill(pid, signum)
    except (ProcessLookupError, PermissionError):
        pass


def stop_pid(pid: int) -> None:
    """Ask one process to end; a stopped one must be continued to obey."""
    signal_pid(pid, signal.SIGTERM)
    signal_pid(pid, signal.SIGCONT)


def describe(pid: int) -> str:
    """Return `pid (command line)`, for people. A zombie or a stranger has at least a name."""
    text = _portable_words(pid) if _is_portable() else _words(pid) if _is_ours() else ""
    # One line, and nothing that could speak to the terminal.
    text = "".join(char if char.isprintable() else " " for char in text).strip()
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"{pid} ({text})" if text else str(pid)


def _words(pid: int) -> str:
    try:
        words = _read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""
    stat = _stat(pid)
    return words or (stat.command if stat else "")


def _portable_words(pid: int) -> str:
    import psutil

    try:
        process = psutil.Process(pid)
        return " ".join(process.cmdline()) or process.name()
    except (psutil.Error, OSError):
        return ""


def _all() -> Iterator[Stat]:
    if not _is_ours():
        return
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = _stat(int(name))
            if stat is not None:
                yield stat


def _stat(pid: int) -> Stat | None:
    try:
        text = _read(f"/proc/{pid}/stat")
    except OSError:
        return None
    # The name stands in parentheses and may hold any byte, parentheses too: the last one closes it.
    end = text.rfind(b")")
    fields = text[end + 2 :].split()
    name = text[text.find(b"(") + 1 : end].decode("utf-8", "replace")
    return Stat(pid, name, fields[0].decode(), int(fields[1]), int(fields[2]))


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


# --- ports -----------------------------------------------------------------------------------------------------------

def is_taken(port: int) -> bool:
    """Tell whether something on this host listens on TCP `port`, whatever the address."""
    if _can_bind(port):
        return False
    return port in listening_ports() if os.path.exists("/proc/net/tcp") else True


def _can_bind(port: int) -> bool:
    # _socket is the part of socket that needs no other module, and this is on the way to the first child.
    import _socket

    for family, address in ((_socket.AF_INET6, "::"), (_socket.AF_INET, "0.0.0.0")):
        try:
            probe = _socket.socket(family, _socket.SOCK_STREAM)
        except OSError:
            continue  # no IPv6 here
        try:
            if family == _socket.AF_INET6:
                # One bind asks for both families at once (ipv6(7)).
                probe.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0)
            # Without it a connection in TIME_WAIT would count; a listener always does (socket(7)).
            probe.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
        except OSError:
            return False
        finally:
            probe.close()
        return True
    return True


def listening_ports() -> set[int]:
    """Return all TCP ports listened on. The kernel walks its whole table for this (7 ms): only after a failed bind."""
    ports: set[int] = set()
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            # proc_net(5): local address:port, remote address:port, state; 0A is TCP_LISTEN and its remote port is 0.
            found = re.findall(rb":([0-9A-F]{4}) 0+:0000 0A ", _read(path))
        except OSError:
            continue
        ports.update(int(port, 16) for port in found)
    return ports


def holder_of_port(port: int) -> str:
    """Return `nginx, pid 812`, or `pid unknown` without the rights to see it."""
    import psutil  # 18 ms: only on the way to a message

    try:
        for connection in psutil.net_connections(kind="tcp"):
            address = connection.laddr
            is_it = connection.status == psutil.CONN_LISTEN and address and address.port == port
            if is_it and connection.pid:
                return f"{psutil.Process(connection.pid).name()}, pid {connection.pid}"
    except (psutil.Error, OSError):
        pass
    return "pid unknown"


# --- what a run has in the temporary directory -----------------------------------------------------------------------

MAX_SOCKET_PATH = 60  # of the directory: an address has 108 bytes, 104 elsewhere than on Linux (unix(7))


def socket_directory(run_id: str) -> str:
    """Return the directory for the sockets of a run; whoever needs one makes it."""
    directory = os.path.join(os.environ.get("TMPDIR") or "/tmp", f"procman-{run_id}")
    return directory if len(directory) <= MAX_SOCKET_PATH else f"/tmp/procman-{run_id}"


def remove_socket_directory(run_id: str) -> None:
    """Remove what a run that was killed has left there."""
    directory = socket_directory(run_id)
    try:
        if os.lstat(directory).st_uid != os.getuid():
            return
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return  # most runs have none
    try:
        for name in os.listdir(fd):
            os.unlink(name, dir_fd=fd)
        os.rmdir(directory)
    except OSError:
        pass
    finally:
        os.close(fd)
