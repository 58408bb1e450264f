#!/usr/bin/env python3
"""How long a server takes from its start to the first correct answer.

tools/compare.sh has started and filled it; this kills it (or stops it, with --stop), starts it again on its folder, and
tries every millisecond to make a session and to read /zookeeper/quota, which every ZooKeeper has and which holds no data.
Printed is the time from the start of the process to that answer, for each of the rounds, and the median. Before each start
all servers are left alone for a while: one that has just started still compiles, collects and writes.

    tools/start_time.py ostler zookeeper --rounds 5
"""

import argparse
import os
import pathlib
import signal
import socket
import statistics
import struct
import subprocess
import time

BASE = int(os.environ.get("OSTLER_COMPARE_PORT", "21810"))
PORTS = {"ostler": BASE, "zookeeper": BASE + 10}
STATE = pathlib.Path(os.environ.get("OSTLER_COMPARE", "/var/tmp/ostler-compare"))


def receive(sock):
    head = b""
    while len(head) < 4:
        more = sock.recv(4 - len(head))
        if not more:
            raise ConnectionError("closed")
        head += more
    (length,) = struct.unpack(">i", head)
    frame = b""
    while len(frame) < length:
        more = sock.recv(length - len(frame))
        if not more:
            raise ConnectionError("closed")
        frame += more
    return frame


def answers(port):
    """One attempt: a session, and a getData that has to be answered with OK and no data."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        hello = struct.pack(">iqiqi16s?", 0, 0, 30000, 0, 16, bytes(16), False)
        sock.sendall(struct.pack(">i", len(hello)) + hello)
        (timeout,) = struct.unpack(">i", receive(sock)[4:8])
        path = b"/zookeeper/quota"
        ask = struct.pack(">iii", 1, 4, len(path)) + path + b"\0"
        close = struct.pack(">ii", 2, -11)
        sock.sendall(struct.pack(">i", len(ask)) + ask)
        xid, _, err, length = struct.unpack(">iqii", receive(sock)[:20])
        right = timeout > 0 and (xid, err) == (1, 0) and length <= 0
        sock.sendall(struct.pack(">i", len(close)) + close)
        return right


def end(pid, how):
    os.kill(pid, how)
    while True:
        # A zombie has ended, but not before its other threads have: until then its port and locks are held.
        try:
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
            threads = len(os.listdir(f"/proc/{pid}/task"))
        except FileNotFoundError:
            return
        if state in "ZX" and threads <= 1:
            return
        time.sleep(0.01)


def once(name, how):
    folder = STATE / name
    end(int((folder / "pids").read_text().split()[0]), how)
    with open(folder / "output", "ab") as output:
        begin = time.monotonic()
        child = subprocess.Popen([folder / "run"], cwd=folder, stdout=output, stderr=output, start_new_session=True)
    (folder / "pids").write_text(f"{child.pid}\n")
    while time.monotonic() - begin < 600 and child.poll() is None:
        try:
            if answers(PORTS[name]):
                return (time.monotonic() - begin) * 1e3
            raise SystemExit(f"{name}: a wrong answer")
        except (ConnectionError, socket.timeout, struct.error):
            time.sleep(0.001)
    raise SystemExit(f"{name}: no answer; {folder / 'output'} may say why")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=PORTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stop", action="store_true", help="SIGTERM in the place of SIGKILL")
    rest = "seconds before each start, in which ostler takes the snapshot that the last one has left to do (default: 10)"
    parser.add_argument("--rest", type=float, default=10, help=rest)
    args = parser.parse_args()
    times = {name: [] for name in args.names}
    for _ in range(args.rounds):
        for name in args.names:
            time.sleep(args.rest)
            times[name].append(once(name, signal.SIGTERM if args.stop else signal.SIGKILL))
    for name, found in times.items():
        rounds = ", ".join(f"{ms:.1f}" for ms in found)
        print(f"{name}: {rounds} ms; median {statistics.median(found):.1f} ms")


main()
