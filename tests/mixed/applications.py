"""Applications that run on while the servers under them are replaced: `applications.py host:port,host:port,...`.

kazoo clients: two that share a lock, one that writes a counter, one that watches it, one that only holds an ephemeral.
Every line on standard input is answered with a line of what has been seen so far; its end ends the program.
"""

import json
import logging
import sys
import threading
import time

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import KazooException, NodeExistsError
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.recipe.lock import Lock
from kazoo.recipe.watchers import DataWatch

HOSTS = sys.argv[1]
logging.basicConfig(level=logging.CRITICAL)

stop = threading.Event()
seen = {"lost": 0, "writes": 0, "locks": 0, "overlaps": 0, "watched": 0, "backwards": 0, "failures": []}
mutex = threading.Lock()
last_write = None
longest_pause = 0.0


def count(name, by=1):
    with mutex:
        seen[name] += by


def client():
    one = KazooClient(hosts=HOSTS, timeout=30, connection_retry={"max_tries": -1, "delay": 0.05, "max_delay": 0.5})
    one.add_listener(lambda state: count("lost") if state == KazooState.LOST and not stop.is_set() else None)
    one.start(timeout=60)
    return one


def guarded(work):
    def run():
        try:
            work()
        except Exception as failure:
            with mutex:
                seen["failures"].append(repr(failure))
    return threading.Thread(target=run, daemon=True)


def write():
    """The counter goes up by one each time; what was acknowledged is what must be there."""
    global last_write, longest_pause
    zk = client()
    number = int(zk.retry(zk.get, "/app/counter")[0])
    while not stop.is_set():
        try:
            zk.set("/app/counter", str(number + 1).encode())
            number += 1
        except (KazooException, KazooTimeoutError):
            # It may have been done: the same again does no harm.
            continue
        now = time.monotonic()
        with mutex:
            seen["writes"] = number
            if last_write is not None:
                longest_pause = max(longest_pause, now - last_write)
            last_write = now
        time.sleep(0.01)
    zk.stop()


def watch():
    zk = client()
    highest = [0]

    def changed(data, stat):
        if data is not None:
            number = int(data)
            if number < highest[0]:
                count("backwards")
            highest[0] = number
            with mutex:
                seen["watched"] = number

    DataWatch(zk, "/app/counter", changed)
    stop.wait()
    zk.stop()


holders = []


def locked(name):
    def work():
        zk = client()
        while not stop.is_set():
            lock = Lock(zk, "/app/lock", name)
            try:
                if not lock.acquire(timeout=60):
                    continue
                holders.append(name)
                if holders != [name]:
                    count("overlaps")
                time.sleep(0.02)
                holders.remove(name)
                count("locks")
                lock.release()
            except (KazooException, KazooTimeoutError):
                if name in holders:
                    holders.remove(name)
            time.sleep(0.02)
        zk.stop()
    return work


first = client()
first.ensure_path("/app")
for path in ["/app/counter"]:
    try:
        first.create(path, b"0")
    except NodeExistsError:
        pass
holder = client()
mine = holder.create("/app/mine", b"", ephemeral=True)
owner = holder.client_id[0]

threads = [guarded(work) for work in [write, watch, locked("one"), locked("two")]]
for thread in threads:
    thread.start()

for line in sys.stdin:
    with mutex:
        answer = dict(seen, longest_pause_ms=int(longest_pause * 1000))
        longest_pause = 0.0
    # With retries: a server may be away just now.
    stat = holder.retry(holder.exists, mine)
    answer["ephemeral"] = stat is not None and stat.ephemeralOwner == owner
    # The server that answers may lag behind the one that has acknowledged.
    first.retry(first.sync, "/app/counter")
    answer["counter"] = int(first.retry(first.get, "/app/counter")[0])
    print(json.dumps(answer), flush=True)

stop.set()
for thread in threads:
    thread.join(20)
