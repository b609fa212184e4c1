"""Make COUNT orphans that end at once, each with a session of its own, say "orphaned", and stay: TOKEN COUNT."""

import os
import signal
import sys

held, hold = os.pipe()
for _ in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            os.setsid()
            os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)
os.close(hold)
os.read(held, 1)  # end of file: the last of them has ended
os.write(1, b"orphaned\n")
while True:
    signal.pause()
