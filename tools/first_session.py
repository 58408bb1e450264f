#!/usr/bin/env python3
"""The README's first session with kazoo, against a server that may still be starting: `first_session.py host:port`."""

import sys
import threading

from kazoo.client import KazooClient

zk = KazooClient(hosts=sys.argv[1], timeout=10, connection_retry={"max_tries": -1, "max_delay": 0.2})
zk.start(timeout=60)
zk.ensure_path("/first")
seen = threading.Event()


@zk.DataWatch("/first/greeting")
def _(data, stat):
    if data == b"hello":
        seen.set()


zk.create("/first/greeting", b"hello", ephemeral=True)
assert seen.wait(20), "the watch was not told"
with zk.Lock("/first/lock", "me"):
    assert zk.get("/first/greeting")[0] == b"hello"
zk.delete("/first", recursive=True)
zk.stop()
print("created, watched, locked and deleted")
