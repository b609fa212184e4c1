"""Write what this process was given to a file, as JSON, and end: TOKEN FILE."""

import json
import os
import sys

status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
fds = {}
for fd in os.listdir("/proc/self/fd"):
    try:
        fds[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        continue  # the directory we just listed
mask = os.umask(0)
given = {
    "fds": fds,
    "ignored": int(status["SigIgn"], 16),
    "blocked": int(status["SigBlk"], 16),
    "cwd": os.getcwd(),
    "ids": [os.getpid(), os.getpgrp(), os.getsid(0)],
    "umask": mask,
}
with open(sys.argv[2], "w") as file:
    json.dump(given, file)
os._exit(0)
