#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Exits per ring request of a VM in which the multiboot guest runs in mode `forever`.

usage: doorbell_exits.py QMP_SOCKET CONSOLE SECONDS

Twice the VM is stopped, the guest's counters read from its memory, and mmio_exits + io_exits of its vCPU
by query-stats; in between it runs for SECONDS/10. Prints VALUE lines: exits and doorbells per request.
"""
import json
import re
import socket
import sys
import time


class Qmp:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(path)
        self.lines = self.sock.makefile("rb")
        self.lines.readline()
        self.command("qmp_capabilities")

    def command(self, name, **arguments):
        self.sock.sendall(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = json.loads(self.lines.readline())
            if "error" in answer:
                sys.exit(f"QMP {name}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]


def look(qmp, address):
    """(requests, doorbells, exits) of the stopped VM."""
    qmp.command("stop")
    memory = qmp.command("human-monitor-command", **{"command-line": f"xp /2wx {address}"})
    requests, doorbells = (int(word, 16) for word in re.findall(r"0x([0-9a-f]{8})", memory))
    names = ["mmio_exits", "io_exits"]
    stats = qmp.command("query-stats", target="vcpu", providers=[{"provider": "kvm", "names": names}])
    values = {s["name"]: s["value"] for vcpu in stats for s in vcpu["stats"]}
    if set(values) != set(names):
        sys.exit(f"query-stats lacks some of {names}: {stats}")
    qmp.command("cont")
    return requests, doorbells, sum(values.values())


def main():
    qmp = Qmp(sys.argv[1])
    with open(sys.argv[2], encoding="ascii", errors="replace") as console:
        address = re.search(r"counters at (0x[0-9a-f]+)", console.read())[1]
    first = look(qmp, address)
    time.sleep(float(sys.argv[3]) / 10)
    last = look(qmp, address)
    requests, doorbells, exits = (b - a for a, b in zip(first, last))
    if requests == 0:
        sys.exit("the guest made no request meanwhile")
    print(f"VALUE exits {exits / requests:.6f}")
    print(f"VALUE doorbells {doorbells / requests:.6f}")
    print(f"VALUE requests {requests}")


if __name__ == "__main__":
    main()
