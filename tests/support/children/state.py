"""Write as JSON what this process was given to a file (`$PS.json` works), and wait for a signal: TOKEN FILE [exit]."""

import json
import os
import signal
import sys

fds = {}
for fd in os.listdir("/proc/self/fd"):
    try:
        fds[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        continue  # the directory we just listed
state = {
    "env": dict(os.environ),
    "cwd": os.getcwd(),
    "argv": sys.argv,
    "fds": fds,
    "pid": os.getpid(),
    "pgid": os.getpgrp(),
    "sid": os.getsid(0),
    "umask": os.umask(0),
}
path = os.path.expandvars(sys.argv[2])
with open(path + ".new", "w") as file:
    json.dump(state, file)
os.rename(path + ".new", path)
os.write(1, b"written\n")
while sys.argv[3:] != ["exit"]:
    signal.pause()
