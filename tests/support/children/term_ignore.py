"""Ignore all that asks to end; only SIGKILL helps: TOKEN."""

import os
import signal

for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(signum, signal.SIG_IGN)
os.write(1, b"ignoring\n")
while True:
    signal.pause()
