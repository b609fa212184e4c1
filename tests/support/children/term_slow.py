"""On SIGTERM say so, wait for a line of FIFO if it is named, say "finished", exit: TOKEN [CODE] [FIFO]."""

import os
import signal
import sys

code = int(sys.argv[2]) if len(sys.argv) > 2 else 0


def end(signum, frame):
    os.write(1, b"handling TERM\n")
    if len(sys.argv) > 3:
        with open(sys.argv[3], "rb", buffering=0) as fifo:
            fifo.readline()
    os.write(1, b"finished\n")
    os._exit(code)


signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"got USR1\n"))
os.write(1, b"up\n")
while True:
    signal.pause()
