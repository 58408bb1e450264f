// Curator's recipes at work on one server: `CuratorRecipes host:port`.
//
// Each does real work with several clients and checks what came of it. Prints a line for each; the first failure ends
// the program with exit code 1.

import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentSkipListSet;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.api.transaction.CuratorTransactionResult;
import org.apache.curator.framework.recipes.atomic.AtomicValue;
import org.apache.curator.framework.recipes.atomic.DistributedAtomicLong;
import org.apache.curator.framework.recipes.barriers.DistributedBarrier;
import org.apache.curator.framework.recipes.barriers.DistributedDoubleBarrier;
import org.apache.curator.framework.recipes.cache.ChildData;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.CuratorCacheListener;
import org.apache.curator.framework.recipes.cache.PathChildrenCache;
import org.apache.curator.framework.recipes.cache.PathChildrenCacheEvent;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.leader.LeaderSelector;
import org.apache.curator.framework.recipes.leader.LeaderSelectorListenerAdapter;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.framework.recipes.nodes.GroupMember;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.recipes.queue.DistributedQueue;
import org.apache.curator.framework.recipes.queue.QueueBuilder;
import org.apache.curator.framework.recipes.queue.QueueConsumer;
import org.apache.curator.framework.recipes.queue.QueueSerializer;
import org.apache.curator.framework.recipes.shared.SharedCount;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.ExponentialBackoffRetry;
import org.apache.curator.retry.RetryNTimes;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;

public class CuratorRecipes {
    static String address;
    static final int LIMIT = 30;

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static CuratorFramework client() throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.newClient(address, 15000, 10000, new ExponentialBackoffRetry(50, 5));
        client.start();
        check(client.blockUntilConnected(LIMIT, TimeUnit.SECONDS), "no connection");
        return client;
    }

    static void until(String what, Callable<Boolean> ask) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(LIMIT);
        while (!ask.call()) {
            check(System.nanoTime() < end, what);
            Thread.sleep(5);
        }
    }

    interface Work {
        void run(int index, CuratorFramework client) throws Exception;
    }

    static void inThreads(int count, Work work) throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(count);
        List<Future<?>> all = new ArrayList<>();
        for (int n = 0; n < count; n++) {
            int index = n;
            all.add(pool.submit(() -> {
                try (CuratorFramework client = client()) {
                    work.run(index, client);
                }
                return null;
            }));
        }
        for (Future<?> one : all) {
            one.get(LIMIT * 2, TimeUnit.SECONDS);
        }
        pool.shutdown();
    }

    static void mutex(CuratorFramework client) throws Exception {
        int[] total = {0};
        AtomicInteger inside = new AtomicInteger();
        inThreads(4, (index, one) -> {
            InterProcessMutex mutex = new InterProcessMutex(one, "/curator/mutex");
            for (int n = 0; n < 10; n++) {
                check(mutex.acquire(LIMIT, TimeUnit.SECONDS), "no lock");
                check(inside.incrementAndGet() == 1, "two hold the lock");
                total[0]++;
                inside.decrementAndGet();
                mutex.release();
            }
        });
        check(total[0] == 40, "lost work: " + total[0]);
        // The holder's client goes away: the lock passes on.
        CuratorFramework holder = client();
        InterProcessMutex held = new InterProcessMutex(holder, "/curator/mutex");
        held.acquire();
        InterProcessMutex wanted = new InterProcessMutex(client, "/curator/mutex");
        check(!wanted.acquire(50, TimeUnit.MILLISECONDS), "it is taken");
        holder.close();
        check(wanted.acquire(LIMIT, TimeUnit.SECONDS), "the lock passes on");
        wanted.release();
    }

    static void readWriteLock(CuratorFramework client) throws Exception {
        try (CuratorFramework other = client()) {
            InterProcessReadWriteLock mine = new InterProcessReadWriteLock(client, "/curator/rw");
            InterProcessReadWriteLock theirs = new InterProcessReadWriteLock(other, "/curator/rw");
            mine.readLock().acquire();
            check(theirs.readLock().acquire(LIMIT, TimeUnit.SECONDS), "readers together");
            theirs.readLock().release();
            check(!theirs.writeLock().acquire(50, TimeUnit.MILLISECONDS), "a writer waits for readers");
            mine.readLock().release();
            check(theirs.writeLock().acquire(LIMIT, TimeUnit.SECONDS), "then it writes");
            check(!mine.readLock().acquire(50, TimeUnit.MILLISECONDS), "readers wait for the writer");
            theirs.writeLock().release();
        }
    }

    static void semaphore(CuratorFramework client) throws Exception {
        AtomicInteger inside = new AtomicInteger(), most = new AtomicInteger();
        inThreads(5, (index, one) -> {
            InterProcessSemaphoreV2 semaphore = new InterProcessSemaphoreV2(one, "/curator/semaphore", 2);
            for (int n = 0; n < 4; n++) {
                Lease lease = semaphore.acquire(LIMIT, TimeUnit.SECONDS);
                check(lease != null, "no lease");
                most.accumulateAndGet(inside.incrementAndGet(), Math::max);
                Thread.sleep(5);
                inside.decrementAndGet();
                semaphore.returnLease(lease);
            }
        });
        check(most.get() == 2, "at most two, and two: " + most);
    }

    static void leaderLatch(CuratorFramework client) throws Exception {
        List<CuratorFramework> clients = new ArrayList<>();
        List<LeaderLatch> latches = new ArrayList<>();
        for (int n = 0; n < 4; n++) {
            clients.add(client());
            LeaderLatch latch = new LeaderLatch(clients.get(n), "/curator/latch", "candidate-" + n);
            latch.start();
            latches.add(latch);
        }
        Set<Integer> led = new TreeSet<>();
        while (led.size() < 4) {
            int[] leader = {-1};
            until("a leader", () -> {
                for (int n = 0; n < 4; n++) {
                    if (!led.contains(n) && latches.get(n).hasLeadership()) {
                        leader[0] = n;
                    }
                }
                return leader[0] >= 0;
            });
            for (int n = 0; n < 4; n++) {
                check(n == leader[0] || led.contains(n) || !latches.get(n).hasLeadership(), "two leaders");
            }
            led.add(leader[0]);
            // By turns: it steps down, or its client goes away.
            if (led.size() % 2 == 0) {
                latches.get(leader[0]).close();
            }
            clients.get(leader[0]).close();
        }
    }

    static void leaderSelector(CuratorFramework client) throws Exception {
        AtomicInteger leading = new AtomicInteger();
        Set<Integer> led = new ConcurrentSkipListSet<>();
        inThreads(3, (index, one) -> {
            CountDownLatch done = new CountDownLatch(1);
            LeaderSelector selector = new LeaderSelector(one, "/curator/selector", new LeaderSelectorListenerAdapter() {
                public void takeLeadership(CuratorFramework framework) throws Exception {
                    check(leading.incrementAndGet() == 1, "two leaders");
                    led.add(index);
                    Thread.sleep(10);
                    leading.decrementAndGet();
                    done.countDown();
                }
            });
            selector.start();
            check(done.await(LIMIT, TimeUnit.SECONDS), "never led");
            selector.close();
        });
        check(led.size() == 3, "all led: " + led);
    }

    static void caches(CuratorFramework client) throws Exception {
        client.create().creatingParentsIfNeeded().forPath("/curator/cache/before", "0".getBytes());
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        CuratorCache cache = CuratorCache.build(client, "/curator/cache");
        CountDownLatch ready = new CountDownLatch(1);
        cache.listenable().addListener(CuratorCacheListener.builder()
            .forCreates(node -> events.add("created " + node.getPath()))
            .forChanges((old, node) -> events.add("changed " + node.getPath() + " " + new String(node.getData())))
            .forDeletes(node -> events.add("deleted " + node.getPath()))
            .forInitialized(ready::countDown).build());
        cache.start();
        check(ready.await(LIMIT, TimeUnit.SECONDS), "the cache fills");
        check(cache.get("/curator/cache/before").isPresent(), "what was there");
        events.clear();
        PathChildrenCache children = new PathChildrenCache(client, "/curator/cache", true);
        BlockingQueue<PathChildrenCacheEvent> changes = new LinkedBlockingQueue<>();
        children.getListenable().addListener((framework, event) -> changes.add(event));
        children.start(PathChildrenCache.StartMode.BUILD_INITIAL_CACHE);
        try (CuratorFramework other = client()) {
            other.create().forPath("/curator/cache/a", "1".getBytes());
            other.create().forPath("/curator/cache/a/deep", "1".getBytes());
            other.setData().forPath("/curator/cache/a/deep", "2".getBytes());
            other.delete().deletingChildrenIfNeeded().forPath("/curator/cache/a");
        }
        // Came before what was expected: it is what the next one has to be.
        String early = null;
        for (String expected : List.of("created /curator/cache/a", "created /curator/cache/a/deep",
                "changed /curator/cache/a/deep 2", "deleted /curator/cache/a/deep", "deleted /curator/cache/a")) {
            String event = early != null ? early : events.poll(LIMIT, TimeUnit.SECONDS);
            early = null;
            // Changes that follow each other closely may be seen as one: the cache reads again after each event.
            while (event != null && !event.equals(expected) && event.startsWith("changed")) {
                event = events.poll(LIMIT, TimeUnit.SECONDS);
            }
            if (expected.startsWith("changed") && event != null && event.startsWith("deleted")) {
                early = event;
                continue;
            }
            check(expected.equals(event), expected + " expected, got " + event);
        }
        PathChildrenCacheEvent event = changes.poll(LIMIT, TimeUnit.SECONDS);
        check(event != null && event.getType() == PathChildrenCacheEvent.Type.CHILD_ADDED, "child added: " + event);
        event = changes.poll(LIMIT, TimeUnit.SECONDS);
        check(event != null && event.getType() == PathChildrenCacheEvent.Type.CHILD_REMOVED, "child removed: " + event);
        List<ChildData> current = children.getCurrentData();
        check(current.size() == 1 && current.get(0).getPath().equals("/curator/cache/before"), "current data");
        children.close();
        cache.close();
    }

    static void counters(CuratorFramework client) throws Exception {
        inThreads(4, (index, one) -> {
            DistributedAtomicLong counter = new DistributedAtomicLong(one, "/curator/long", new RetryNTimes(200, 2));
            for (int n = 0; n < 15; n++) {
                AtomicValue<Long> value = counter.increment();
                check(value.succeeded(), "no increment");
            }
        });
        check(new DistributedAtomicLong(client, "/curator/long", new RetryNTimes(5, 5)).get().postValue() == 60, "60");
        SharedCount mine = new SharedCount(client, "/curator/shared", 7);
        mine.start();
        try (CuratorFramework other = client()) {
            SharedCount theirs = new SharedCount(other, "/curator/shared", 0);
            theirs.start();
            check(theirs.getCount() == 7, "7");
            theirs.setCount(8);
            until("the other sees it", () -> mine.getCount() == 8);
            theirs.close();
        }
        mine.close();
    }

    static void barriers(CuratorFramework client) throws Exception {
        DistributedBarrier barrier = new DistributedBarrier(client, "/curator/barrier");
        barrier.setBarrier();
        ExecutorService pool = Executors.newFixedThreadPool(1);
        try (CuratorFramework other = client()) {
            Future<Boolean> passed = pool.submit(() ->
                new DistributedBarrier(other, "/curator/barrier").waitOnBarrier(LIMIT, TimeUnit.SECONDS));
            check(!passed.isDone(), "it waits");
            barrier.removeBarrier();
            check(passed.get(LIMIT, TimeUnit.SECONDS), "it passes");
        }
        pool.shutdown();
        AtomicInteger entered = new AtomicInteger(), left = new AtomicInteger();
        inThreads(4, (index, one) -> {
            DistributedDoubleBarrier both = new DistributedDoubleBarrier(one, "/curator/double", 4);
            Thread.sleep(20L * index);
            entered.incrementAndGet();
            check(both.enter(LIMIT, TimeUnit.SECONDS), "enter");
            check(entered.get() == 4, "entered before all were there");
            left.incrementAndGet();
            check(both.leave(LIMIT, TimeUnit.SECONDS), "leave");
            check(left.get() == 4, "left before all had left");
        });
    }

    static void queue(CuratorFramework client) throws Exception {
        Set<Integer> taken = new ConcurrentSkipListSet<>();
        List<Integer> order = Collections.synchronizedList(new ArrayList<>());
        QueueSerializer<Integer> serializer = new QueueSerializer<>() {
            public byte[] serialize(Integer item) {
                return Integer.toString(item).getBytes();
            }

            public Integer deserialize(byte[] bytes) {
                return Integer.parseInt(new String(bytes));
            }
        };
        QueueConsumer<Integer> consumer = new QueueConsumer<>() {
            public void consumeMessage(Integer message) {
                taken.add(message);
                order.add(message);
            }

            public void stateChanged(CuratorFramework framework, ConnectionState state) {
            }
        };
        DistributedQueue<Integer> queue = QueueBuilder.builder(client, consumer, serializer, "/curator/queue").buildQueue();
        queue.start();
        for (int n = 0; n < 50; n++) {
            queue.put(n);
        }
        until("all are taken", () -> taken.size() == 50);
        check(order.size() == 50, "each once");
        queue.close();
    }

    static void members(CuratorFramework client) throws Exception {
        CuratorFramework first = client(), second = client();
        GroupMember one = new GroupMember(first, "/curator/group", "one", "1".getBytes());
        GroupMember two = new GroupMember(second, "/curator/group", "two", "2".getBytes());
        one.start();
        two.start();
        until("both see both", () -> one.getCurrentMembers().size() == 2 && two.getCurrentMembers().size() == 2);
        Map<String, byte[]> members = one.getCurrentMembers();
        check(new String(members.get("two")).equals("2"), "their data");
        second.close();
        until("one sees the other go", () -> one.getCurrentMembers().keySet().equals(Set.of("one")));
        one.close();
        first.close();
        // A node that comes back when it is deleted.
        PersistentNode node = new PersistentNode(client, CreateMode.EPHEMERAL, false, "/curator/persistent", "x".getBytes());
        node.start();
        check(node.waitForInitialCreate(LIMIT, TimeUnit.SECONDS), "created");
        client.delete().forPath("/curator/persistent");
        until("created again", () -> client.checkExists().forPath("/curator/persistent") != null);
        node.close();
    }

    static void transactions(CuratorFramework client) throws Exception {
        Collection<CuratorTransactionResult> results = client.transaction().forOperations(
            client.transactionOp().create().forPath("/curator/tx", "1".getBytes()),
            client.transactionOp().setData().withVersion(0).forPath("/curator/tx", "2".getBytes()),
            client.transactionOp().check().withVersion(1).forPath("/curator/tx"),
            client.transactionOp().create().withMode(CreateMode.PERSISTENT_SEQUENTIAL).forPath("/curator/tx/s-"));
        check(results.size() == 4, "results");
        CuratorTransactionResult last = new ArrayList<>(results).get(3);
        check(last.getResultPath().equals("/curator/tx/s-0000000000"), "path " + last.getResultPath());
        try {
            client.transaction().forOperations(
                client.transactionOp().delete().forPath("/curator/tx/s-0000000000"),
                client.transactionOp().check().withVersion(9).forPath("/curator/tx"));
            throw new AssertionError("a failing transaction went through");
        } catch (KeeperException.BadVersionException expected) {
            check(client.checkExists().forPath("/curator/tx/s-0000000000") != null, "nothing happened");
        }
        String name = client.create().withProtection().withMode(CreateMode.EPHEMERAL_SEQUENTIAL).forPath("/curator/tx/p-");
        check(name.contains("/_c_") && name.endsWith("p-0000000001"), name);
    }

    interface Recipe {
        void run(CuratorFramework client) throws Exception;
    }

    static void recipe(String name, CuratorFramework client, Recipe recipe) throws Exception {
        long start = System.nanoTime();
        recipe.run(client);
        System.out.printf("%s: %d ms%n", name, (System.nanoTime() - start) / 1000000);
    }

    public static void main(String[] args) {
        address = args[0];
        try {
            CuratorFramework client = client();
            recipe("mutex", client, CuratorRecipes::mutex);
            recipe("read-write lock", client, CuratorRecipes::readWriteLock);
            recipe("semaphore", client, CuratorRecipes::semaphore);
            recipe("leader latch", client, CuratorRecipes::leaderLatch);
            recipe("leader selector", client, CuratorRecipes::leaderSelector);
            recipe("caches", client, CuratorRecipes::caches);
            recipe("counters", client, CuratorRecipes::counters);
            recipe("barriers", client, CuratorRecipes::barriers);
            recipe("queue", client, CuratorRecipes::queue);
            recipe("members", client, CuratorRecipes::members);
            recipe("transactions", client, CuratorRecipes::transactions);
            client.close();
        } catch (Throwable failure) {
            failure.printStackTrace();
            System.exit(1);
        }
        System.out.println("all recipes work");
        System.exit(0);
    }
}
