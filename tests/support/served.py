"""Run commands beside a server, with more addresses than loopback's: behind `loopback.py`.

    served.py '{"addresses": ["93.184.216.34"], "server": ["python", …]}' COMMAND… [--then COMMAND…]

Never without `unshare -n`: the addresses would be this machine's. The server says by its first line
that it listens; the exit code is the last command's, and the first that fails is the last.
"""

import fcntl
import json
import socket
import struct
import subprocess
import sys
from itertools import groupby

SIOCSIFADDR, SIOCSIFNETMASK = 0x8916, 0x891C


def add_address(number: int, address: str) -> None:
    """Give lo one more address, and none of its neighbours."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, value in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, "255.255.255.255")):
            packed = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(control, request, struct.pack("16s16s", b"lo:%d" % number, packed))


def run(commands: list[list[str]], server: list[str]) -> int:
    """Serve as long as the commands run."""
    code = 0
    with subprocess.Popen(server, stdout=subprocess.PIPE) as serving:
        assert serving.stdout is not None
        serving.stdout.readline()
        for command in commands:
            code = code or subprocess.run(command, check=False).returncode
        serving.kill()
    return code


if __name__ == "__main__":
    chosen = json.loads(sys.argv[1])
    for number, address in enumerate(chosen["addresses"], start=1):
        add_address(number, address)
    parts = groupby(sys.argv[2:], key=lambda word: word == "--then")
    sys.exit(run([list(words) for is_then, words in parts if not is_then], chosen["server"]))
