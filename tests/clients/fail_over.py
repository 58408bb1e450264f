"""kazoo clients that go on working while servers are killed and stopped under them: `fail_over.py host:port,...`.

Commands come on standard input, and each is answered when it has been done: `join N` (one more writer, whose first
server is the Nth of the list), `step` (everybody has got on since, and every watch has seen what was there), `end`
(all stop; what was acknowledged is told, a line each), `close`. What must not be ends the program with exit code 1.
"""

import logging
import os
import sys
import threading
import time
import traceback

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import ConnectionLoss
from kazoo.recipe.lock import Lock
from kazoo.recipe.watchers import DataWatch

HOSTS = sys.argv[1].split(",")
LIMIT = 60
logging.basicConfig(level=logging.CRITICAL)

stop = threading.Event()
clients, workers, acked, ephemerals = [], [], [], []
lost = []


def client(first=None):
    """By the list in an order of chance, or from one server on."""
    hosts = HOSTS if first is None else HOSTS[first:] + HOSTS[:first]
    patient = {"max_tries": -1, "delay": 0.05, "max_delay": 0.5}
    one = KazooClient(
        hosts=",".join(hosts),
        timeout=30,
        randomize_hosts=first is None,
        connection_retry=patient,
        command_retry=patient,
    )
    one.add_listener(lambda state: lost.append(state) if state == KazooState.LOST and not stop.is_set() else None)
    one.start(timeout=LIMIT)
    clients.append((one, one.client_id))
    return one


def until(what, ask):
    end = time.monotonic() + LIMIT
    while not ask():
        if time.monotonic() > end:
            raise AssertionError(what)
        time.sleep(0.01)


class Worker:
    """Does the same again and again, on a thread of its own, and counts."""

    def __init__(self, name):
        self.name, self.done = name, 0
        self.thread = threading.Thread(target=self.run, daemon=True)
        workers.append(self)
        self.thread.start()

    def run(self):
        try:
            self.begin()
            while not stop.is_set():
                self.once()
                self.done += 1
                # Other programs want to get on too.
                time.sleep(0.01)
        except BaseException:
            traceback.print_exc()
            os._exit(1)


class Locker(Worker):
    """Counts in a znode, under a lock: whoever isn't alone with it overwrites what another has counted."""

    inside, total = [], 0

    def begin(self):
        self.zk = client()
        self.lock = Lock(self.zk, "/jobs/lock", self.name)

    def once(self):
        assert self.lock.acquire(timeout=LIMIT)
        Locker.inside.append(self.name)
        assert Locker.inside == [self.name], "two hold the lock: %s" % Locker.inside
        value = int(self.zk.retry(self.zk.get, "/jobs/counter")[0])
        # If the outcome is unknown, the same once more does no harm: nobody else may write it now.
        self.zk.retry(self.zk.set, "/jobs/counter", b"%d" % (value + 1))
        Locker.total += 1
        assert Locker.total == value + 1, "counted %d, the znode had %d" % (Locker.total, value)
        Locker.inside.remove(self.name)
        self.lock.release()


class Writer(Worker):
    """Writes many at once and one by one; holds an ephemeral."""

    def __init__(self, name, first):
        self.first, self.batch, self.number = first, 0, -1
        super().__init__(name)

    def begin(self):
        self.zk = client(self.first)
        self.port = self.zk._connection._socket.getpeername()[1]
        path = "/jobs/ephemerals/" + self.name
        self.zk.create(path, b"", ephemeral=True)
        ephemerals.append((path, self.zk.client_id[0]))
        self.zk.create("/jobs/async/" + self.name)

    def once(self):
        base = "/jobs/async/%s/%d-" % (self.name, self.batch)
        self.batch += 1
        sent = [(base + str(n), self.zk.create_async(base + str(n), b"%d" % n)) for n in range(10)]
        for n, (path, answer) in enumerate(sent):
            try:
                assert answer.get(LIMIT) == path
                acked.append((path, "%d" % n))
            except ConnectionLoss:
                pass  # Whether it was done is unknown.
        try:
            path = self.zk.create("/jobs/sequence/n-", self.name.encode(), sequence=True)
        except ConnectionLoss:
            return
        number = int(path[-10:])
        assert number > self.number, "%d after %d" % (number, self.number)
        self.number = number
        acked.append((path, self.name))


class Watcher:
    """Never sees a counter go back, and in the end sees all that there is."""

    def __init__(self):
        self.zk = client()
        self.counter = -1
        DataWatch(self.zk, "/jobs/counter", self.counted)
        self.list(None)

    def counted(self, data, stat):
        if int(data) < self.counter:
            print("the counter was %d and is %s" % (self.counter, data), file=sys.stderr, flush=True)
            os._exit(1)
        self.counter = int(data)

    def list(self, _):
        """Called for a change, and when the connection is lost: kazoo forgets its watches then. (Its ChildrenWatch may
        miss that, if an answer and the end of the connection come together.)"""
        self.names = set(self.zk.retry(self.zk.get_children, "/jobs/sequence", watch=self.list))

    def has_seen(self, counter, names):
        return self.counter >= counter and names <= self.names


def held():
    for path, session in ephemerals:
        stat = one_of_all.retry(one_of_all.exists, path)
        assert stat is not None and stat.ephemeralOwner == session, "%s: %s, not %x" % (path, stat, session)


def step():
    before = [(worker, worker.done) for worker in workers]
    for worker, done in before:
        until(worker.name + " to get on", lambda: worker.done >= done + 3)
    one_of_all.retry(one_of_all.sync, "/jobs")
    counter = int(one_of_all.retry(one_of_all.get, "/jobs/counter")[0])
    names = set(one_of_all.retry(one_of_all.get_children, "/jobs/sequence"))
    until("the watches to see it", lambda: watcher.has_seen(counter, names))
    held()
    return "step: %d counted, %d in a sequence, %d acknowledged" % (counter, len(names), len(acked))


def end():
    stop.set()
    for worker in workers:
        worker.thread.join(LIMIT)
        assert not worker.thread.is_alive(), worker.name
    held()
    for one, session in clients:
        one.retry(one.sync, "/jobs")
        assert one.client_id == session, "a session has been replaced"
    assert not lost, lost
    acked.append(("/jobs/counter", str(Locker.total)))
    for path, data in acked:
        print("acked %s %s" % (path, data))
    for path, session in ephemerals:
        print("ephemeral %s %d" % (path, session))
    return "ended: %d sessions" % len(clients)


one_of_all = client()
for path in ("/jobs/lock", "/jobs/async", "/jobs/sequence", "/jobs/ephemerals"):
    one_of_all.ensure_path(path)
one_of_all.create("/jobs/counter", b"0")
watcher = Watcher()
for n in range(3):
    Locker("locker-%d" % n)

for line in sys.stdin:
    words = line.split()
    if words[0] == "join":
        writer = Writer("writer-%d" % len(workers), int(words[1]))
        until("it to write", lambda: writer.done > 0)
        said = "joined %d" % writer.port
    elif words[0] == "step":
        said = step()
    elif words[0] == "end":
        said = end()
    else:
        for one, _ in clients:
            one.stop()
            one.close()
        said = "closed"
    print(said, flush=True)
