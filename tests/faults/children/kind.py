"""Be one of the kinds of children that are hard to end: TOKEN KIND FIFO. Whoever stays writes a line to FIFO first.

plain: one process. ignore: it ignores SIGTERM, SIGINT and SIGHUP. setsid: with a grandchild in a session of its own.
daemon: with a grandchild that was forked twice, without our environment, whose own parent is gone. gone: such a daemon,
and this process ends, too. stubborn: a daemon that ignores the signals. heir: a daemon that keeps the environment.
"""

import os
import signal
import sys

token, kind, fifo = sys.argv[1:4]
IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def become(kind, env):
    os.execve(sys.executable, [sys.executable, "-S", "-E", os.path.abspath(__file__), token, kind, fifo], env)


def daemonize(kind, env):
    changed, change = os.pipe()  # closed by execve: then our environment is gone from it
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        become(kind, env)
    os.close(change)
    os.waitpid(child, 0)
    os.read(changed, 1)


if kind == "setsid":
    if os.fork() == 0:
        os.setsid()
        become("plain", dict(os.environ))
elif kind in ("daemon", "gone"):
    daemonize("plain", {})
elif kind == "heir":
    daemonize("plain", dict(os.environ))
elif kind == "stubborn":
    daemonize("ignore", {})
if kind == "ignore":
    for signum in IGNORED:
        signal.signal(signum, signal.SIG_IGN)
if kind == "gone":
    os._exit(0)
with open(fifo, "w") as ready:
    ready.write(f"{kind}\n")
while True:
    signal.pause()
