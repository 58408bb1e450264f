"""kazoo's recipes at work on one server: `recipes.py host:port`.

Each function does real work with several clients and checks what came of it. One line a recipe; the first failure
ends the program with a traceback and exit code 1.
"""

import sys
import threading
import time

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import (
    BadVersionError,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
)
from kazoo.protocol.states import EventType
from kazoo.recipe.barrier import Barrier, DoubleBarrier
from kazoo.recipe.counter import Counter
from kazoo.recipe.election import Election
from kazoo.recipe.lock import Lock, ReadLock, Semaphore, WriteLock
from kazoo.recipe.party import Party
from kazoo.recipe.queue import LockingQueue, Queue
from kazoo.recipe.watchers import ChildrenWatch, DataWatch
from kazoo.security import CREATOR_ALL_ACL, make_digest_acl

ADDRESS = sys.argv[1]
LIMIT = 20


def client(**options):
    one = KazooClient(hosts=ADDRESS, timeout=10, **options)
    one.start(timeout=LIMIT)
    return one


def until(what, ask):
    """Waits for something that another thread or the server does."""
    end = time.monotonic() + LIMIT
    while not ask():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def in_threads(count, work):
    """Runs work(index, its own client) in threads; the first failure is raised here."""
    failures = []

    def run(index):
        one = client()
        try:
            work(index, one)
        except BaseException as failure:  # handed to the main thread
            failures.append(failure)
        finally:
            one.stop()
            one.close()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT * 2)
        assert not thread.is_alive(), "a thread hangs"
    if failures:
        raise failures[0]


def basics(zk):
    assert zk.create("/basic", b"one") == "/basic"
    data, stat = zk.get("/basic")
    assert data == b"one" and stat.version == 0 and stat.dataLength == 3
    assert zk.set("/basic", b"two").version == 1
    try:
        zk.set("/basic", b"three", version=0)
        raise AssertionError("a wrong version was taken")
    except BadVersionError:
        pass
    path, stat = zk.create("/basic/child", b"", include_data=True)
    assert path == "/basic/child" and stat.czxid == stat.mzxid
    names = [zk.create("/basic/n-", sequence=True) for _ in range(3)]
    assert names == ["/basic/n-000000000%d" % n for n in (1, 2, 3)], names
    assert zk.exists("/none") is None
    for call, error in (
        (lambda: zk.create("/basic"), NodeExistsError),
        (lambda: zk.delete("/basic"), NotEmptyError),
        (lambda: zk.get("/none"), NoNodeError),
    ):
        try:
            call()
            raise AssertionError(error)
        except error:
            pass
    answers = [zk.create_async("/basic/async-%d" % n, b"%d" % n) for n in range(300)]
    assert [answer.get(LIMIT) for answer in answers] == ["/basic/async-%d" % n for n in range(300)]
    answers = [zk.get_async("/basic/async-%d" % n) for n in range(300)]
    assert [answer.get(LIMIT)[0] for answer in answers] == [b"%d" % n for n in range(300)]
    assert len(zk.get_children("/basic")) == 304
    zk.sync("/basic")
    zk.delete("/basic", recursive=True)
    assert zk.exists("/basic") is None
    assert zk.server_version()[:2] >= (3, 9)
    assert zk.command(b"ruok") == "imok"


def transactions(zk):
    zk.create("/tx")
    tx = zk.transaction()
    tx.create("/tx/a", b"1")
    tx.create("/tx/s-", b"", sequence=True)
    tx.set_data("/tx/a", b"2", version=0)
    tx.check("/tx/a", version=1)
    tx.delete("/tx/a")
    results = tx.commit()
    assert results[0] == "/tx/a" and results[1] == "/tx/s-0000000001", results
    assert results[2].version == 1 and results[3] is True and results[4] is True, results
    tx = zk.transaction()
    tx.create("/tx/b")
    tx.check("/tx", version=7)
    tx.create("/tx/c")
    results = tx.commit()
    assert isinstance(results[0], RolledBackError) and isinstance(results[1], BadVersionError), results
    assert zk.get_children("/tx") == ["s-0000000001"]


def locks(zk):
    state = {"inside": 0, "total": 0}

    def work(_, one):
        lock = one.Lock("/locks/one", "me")
        for _ in range(8):
            with lock:
                state["inside"] += 1
                assert state["inside"] == 1, "two hold the lock"
                value = state["total"]
                time.sleep(0.002)
                state["total"] = value + 1
                state["inside"] -= 1

    in_threads(4, work)
    assert state["total"] == 32
    holder, other = client(), client()
    lock, wanted = Lock(holder, "/locks/two", "holder"), Lock(other, "/locks/two", "other")
    assert lock.acquire(timeout=LIMIT)
    assert not wanted.acquire(blocking=False)
    assert wanted.contenders() == ["holder"]
    # The holder's session ends: its ephemeral goes, and the lock with it.
    waiting = threading.Thread(target=wanted.acquire, kwargs={"timeout": LIMIT})
    waiting.start()
    until("the other queues up", lambda: len(zk.get_children("/locks/two")) == 2)
    holder.stop()
    waiting.join(LIMIT)
    assert wanted.is_acquired
    wanted.release()
    other.stop()


def read_write_locks(zk):
    readers = [client(), client()]
    writer = client()
    first, second = ReadLock(readers[0], "/rw"), ReadLock(readers[1], "/rw")
    write = WriteLock(writer, "/rw")
    assert first.acquire(timeout=LIMIT) and second.acquire(timeout=LIMIT)
    assert not write.acquire(blocking=False)
    first.release()
    second.release()
    assert write.acquire(timeout=LIMIT)
    assert not first.acquire(blocking=False)
    write.release()
    assert first.acquire(timeout=LIMIT)
    first.release()
    for one in readers + [writer]:
        one.stop()


def semaphores(zk):
    state = {"inside": 0, "most": 0}
    guard = threading.Lock()

    def work(_, one):
        semaphore = Semaphore(one, "/semaphore", max_leases=2)
        for _ in range(3):
            with semaphore:
                with guard:
                    state["inside"] += 1
                    state["most"] = max(state["most"], state["inside"])
                time.sleep(0.01)
                with guard:
                    state["inside"] -= 1

    in_threads(5, work)
    assert state["most"] == 2, state


def elections(zk):
    leaders = []
    done = threading.Event()

    def work(index, one):
        election = Election(one, "/election", "candidate-%d" % index)

        def lead():
            leaders.append(index)
            assert "candidate-%d" % index == election.contenders()[0]

        election.run(lead)

    in_threads(4, work)
    done.set()
    assert sorted(leaders) == [0, 1, 2, 3], leaders


def queues(zk):
    queue = Queue(zk, "/queue")
    for n in range(20):
        queue.put(b"%d" % n, priority=50 if n % 2 else 100)
    assert len(queue) == 20
    first = [queue.get() for _ in range(20)]
    assert first == [b"%d" % n for n in list(range(1, 20, 2)) + list(range(0, 20, 2))], first
    assert queue.get() is None

    taken = []
    guard = threading.Lock()
    source = LockingQueue(zk, "/locking-queue")
    source.put_all([b"%d" % n for n in range(30)])

    def work(_, one):
        mine = LockingQueue(one, "/locking-queue")
        while True:
            entry = mine.get(timeout=1)
            if entry is None:
                return
            with guard:
                taken.append(int(entry))
            assert mine.consume()

    in_threads(3, work)
    assert sorted(taken) == list(range(30)), taken


def barriers(zk):
    barrier = Barrier(zk, "/barrier")
    barrier.create()
    other = client()
    passed = []
    waiting = threading.Thread(target=lambda: passed.append(Barrier(other, "/barrier").wait(LIMIT)))
    waiting.start()
    assert not passed
    barrier.remove()
    waiting.join(LIMIT)
    assert passed == [True]
    other.stop()

    entered, left = [], []

    def work(index, one):
        double = DoubleBarrier(one, "/double", 4)
        time.sleep(0.02 * index)
        entered.append(index)
        double.enter()
        assert len(entered) == 4, "entered before all were there"
        left.append(index)
        double.leave()
        assert len(left) == 4, "left before all had left"

    in_threads(4, work)


def parties(zk):
    members = [client() for _ in range(3)]
    parties = [Party(one, "/party", "member-%d" % n) for n, one in enumerate(members)]
    for party in parties:
        party.join()
    assert sorted(parties[0]) == ["member-0", "member-1", "member-2"]
    parties[1].leave()
    members[2].stop()
    until("two have left", lambda: list(Party(zk, "/party")) == ["member-0"])
    for one in members[:2]:
        one.stop()


def counters(zk):
    def work(_, one):
        counter = Counter(one, "/counter")
        for _ in range(20):
            counter += 1

    in_threads(4, work)
    assert Counter(zk, "/counter").value == 80


def watchers(zk):
    seen, children, gone = [], [], []
    zk.create("/watched", b"0")

    @zk.DataWatch("/watched")
    def _(data, stat, event):
        seen.append(data)
        if event is not None and event.type == EventType.DELETED:
            gone.append(event.path)

    @zk.ChildrenWatch("/watched")
    def _(names):
        children.append(sorted(names))

    other = client()
    for n in range(1, 11):
        other.set("/watched", b"%d" % n)
        until("the watch sees %d" % n, lambda: seen[-1] == b"%d" % n)
    assert seen == [b"%d" % n for n in range(11)], seen
    for name in "abc":
        other.create("/watched/" + name)
        until("the watch sees " + name, lambda: name in children[-1])
    assert children[-1] == ["a", "b", "c"]
    other.delete("/watched", recursive=True)
    until("the watch sees the end", lambda: gone == ["/watched"])
    assert isinstance(DataWatch, type) and isinstance(ChildrenWatch, type)
    other.stop()


def permissions(zk):
    owner = client(auth_data=[("digest", "owner:secret")])
    stranger = client()
    owner.create("/private", b"mine", acl=CREATOR_ALL_ACL)
    for call in (
        lambda: stranger.get("/private"),
        lambda: stranger.set("/private", b"x"),
        lambda: stranger.create("/private/x"),
        lambda: stranger.get_acls("/private"),
    ):
        try:
            call()
            raise AssertionError("a stranger was let in")
        except NoAuthError:
            pass
    assert owner.get("/private")[0] == b"mine"
    acls, _ = owner.get_acls("/private")
    assert acls[0].id.id.startswith("owner:") and acls[0].perms == 31
    owner.set_acls("/private", [make_digest_acl("guest", "pw", read=True), *CREATOR_ALL_ACL])
    stranger.add_auth("digest", "guest:pw")
    assert stranger.get("/private")[0] == b"mine"
    superuser = client(auth_data=[("digest", "super:secret")])
    superuser.delete("/private")
    for one in (owner, stranger, superuser):
        one.stop()


def reconnects(zk):
    one = client()
    states = []
    one.add_listener(lambda state: states.append(state) and None)
    one.create("/kept", b"", ephemeral=True)
    session = one.client_id
    # The socket dies under the client; it comes back with its session, and what it held is there.
    one._connection._socket.shutdown(2)
    until("it is back", lambda: KazooState.CONNECTED in states)
    assert one.client_id == session and states[0] == KazooState.SUSPENDED, states
    assert one.exists("/kept").owner_session_id == session[0]
    one.create("/kept-2", ephemeral=True)
    one.stop()
    until("its ephemerals go", lambda: not zk.exists("/kept") and not zk.exists("/kept-2"))


def main():
    zk = client()
    for recipe in (
        basics,
        transactions,
        locks,
        read_write_locks,
        semaphores,
        elections,
        queues,
        barriers,
        parties,
        counters,
        watchers,
        permissions,
        reconnects,
    ):
        start = time.monotonic()
        recipe(zk)
        print("%s: %.1f s" % (recipe.__name__, time.monotonic() - start), flush=True)
    zk.stop()
    print("all recipes work")


main()
