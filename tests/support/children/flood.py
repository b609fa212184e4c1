"""Write COUNT numbered lines as fast as can be and exit at once: TOKEN COUNT [CODE]."""

import os
import sys

data = b"".join(b"line %d\n" % number for number in range(int(sys.argv[2])))
while data:
    data = data[os.write(1, data) :]
os._exit(int(sys.argv[3]) if len(sys.argv) > 3 else 0)
