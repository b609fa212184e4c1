"""Send each MESSAGE (escapes as in Python) to $NOTIFY_SOCKET; exit with the errno: TOKEN [user:UID] [MESSAGE]..."""

import os
import socket
import sys

words = sys.argv[2:]
user = words.pop(0).removeprefix("user:") if words[0].startswith("user:") else ""
# Before it is another user, who may not read what Python still has to import.
messages = [word.encode("latin-1").decode("unicode_escape").encode("latin-1") for word in words]
if user:
    os.setuid(int(user))
address = os.environ["NOTIFY_SOCKET"]
try:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect("\0" + address[1:] if address.startswith("@") else address)
        for message in messages:
            sender.send(message)
except OSError as error:
    sys.exit(error.errno)
