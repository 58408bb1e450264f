// Applications that run on while the servers under them are replaced: `CuratorApplications host:port,host:port,...`.
//
// Curator clients: two that share a mutex, one that writes a counter, one that watches it, one that only holds an
// ephemeral. Every line on standard input is answered with a line of what has been seen so far; its end ends the program.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.cache.CuratorCacheListener;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.RetryForever;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.data.Stat;

public class CuratorApplications {
    static String address;
    static final AtomicBoolean over = new AtomicBoolean();
    static final AtomicInteger lost = new AtomicInteger(), overlaps = new AtomicInteger(), backwards = new AtomicInteger();
    static final AtomicInteger locks = new AtomicInteger(), inside = new AtomicInteger();
    static final AtomicLong writes = new AtomicLong(), watched = new AtomicLong();
    static final AtomicLong lastWrite = new AtomicLong(), longestPause = new AtomicLong();
    static final List<String> failures = new CopyOnWriteArrayList<>();
    static final List<CuratorFramework> clients = new CopyOnWriteArrayList<>();
    static final List<Long> sessions = new CopyOnWriteArrayList<>();

    interface Work {
        void run(CuratorFramework client) throws Exception;
    }

    static CuratorFramework client() throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.newClient(address, 30000, 15000, new RetryForever(50));
        client.getConnectionStateListenable().addListener((framework, state) -> {
            if (state == ConnectionState.LOST && !over.get()) {
                lost.incrementAndGet();
            }
        });
        client.start();
        if (!client.blockUntilConnected(60, TimeUnit.SECONDS)) {
            throw new IllegalStateException("no connection");
        }
        sessions.add(client.getZookeeperClient().getZooKeeper().getSessionId());
        clients.add(client);
        return client;
    }

    static void guarded(Work work) throws Exception {
        CuratorFramework client = client();
        Thread thread = new Thread(() -> {
            try {
                work.run(client);
            } catch (Throwable failure) {
                failures.add(failure.toString());
            }
        });
        thread.setDaemon(true);
        thread.start();
    }

    // The counter goes up by one each time; what was acknowledged is what must be there.
    static void write(CuratorFramework client) throws Exception {
        long number = 0;
        while (!over.get()) {
            try {
                client.setData().forPath("/curator/counter", Long.toString(number + 1).getBytes());
            } catch (KeeperException.ConnectionLossException | KeeperException.OperationTimeoutException unknown) {
                // It may have been done: the same again does no harm.
                continue;
            }
            number++;
            writes.set(number);
            long now = System.nanoTime(), before = lastWrite.getAndSet(now);
            if (before != 0) {
                longestPause.accumulateAndGet((now - before) / 1000000, Math::max);
            }
            Thread.sleep(10);
        }
    }

    static void watch(CuratorFramework client) {
        CuratorCache cache = CuratorCache.build(client, "/curator/counter", CuratorCache.Options.SINGLE_NODE_CACHE);
        cache.listenable().addListener(CuratorCacheListener.builder().forCreatesAndChanges((old, node) -> {
            long number = Long.parseLong(new String(node.getData()));
            if (watched.getAndSet(number) > number) {
                backwards.incrementAndGet();
            }
        }).build());
        cache.start();
    }

    static void lock(CuratorFramework client) throws Exception {
        InterProcessMutex mutex = new InterProcessMutex(client, "/curator/mutex");
        while (!over.get()) {
            if (!mutex.acquire(60, TimeUnit.SECONDS)) {
                throw new IllegalStateException("no lock within a minute");
            }
            if (inside.incrementAndGet() != 1) {
                overlaps.incrementAndGet();
            }
            Thread.sleep(20);
            inside.decrementAndGet();
            mutex.release();
            locks.incrementAndGet();
            Thread.sleep(20);
        }
    }

    static String seen(CuratorFramework first, CuratorFramework holder, long owner) throws Exception {
        Stat stat = holder.checkExists().forPath("/curator/mine");
        boolean ephemeral = stat != null && stat.getEphemeralOwner() == owner;
        for (int n = 0; n < clients.size(); n++) {
            if (clients.get(n).getZookeeperClient().getZooKeeper().getSessionId() != sessions.get(n)) {
                failures.add("client " + n + " has another session");
            }
        }
        long written = writes.get(), pause = longestPause.getAndSet(0);
        // The server that answers may lag behind the one that has acknowledged. Curator's own sync would not wait.
        for (boolean synced = false; !synced;) {
            CompletableFuture<Integer> code = new CompletableFuture<>();
            first.getZookeeperClient().getZooKeeper().sync("/curator", (rc, path, context) -> code.complete(rc), null);
            synced = code.get(60, TimeUnit.SECONDS) == 0;
        }
        long counter = Long.parseLong(new String(first.getData().forPath("/curator/counter")));
        List<String> quoted = new ArrayList<>();
        failures.forEach(failure -> quoted.add('"' + failure.replace('"', '\'') + '"'));
        return String.format("{\"lost\": %d, \"writes\": %d, \"locks\": %d, \"overlaps\": %d, \"watched\": %d, "
            + "\"backwards\": %d, \"failures\": %s, \"longest_pause_ms\": %d, \"ephemeral\": %b, \"counter\": %d}",
            lost.get(), written, locks.get(), overlaps.get(), watched.get(), backwards.get(), quoted, pause, ephemeral,
            counter);
    }

    public static void main(String[] args) throws Exception {
        address = args[0];
        CuratorFramework first = client(), holder = client();
        first.create().creatingParentsIfNeeded().forPath("/curator/counter", "0".getBytes());
        holder.create().withMode(CreateMode.EPHEMERAL).forPath("/curator/mine", new byte[0]);
        long owner = holder.getZookeeperClient().getZooKeeper().getSessionId();
        guarded(CuratorApplications::write);
        guarded(CuratorApplications::watch);
        guarded(CuratorApplications::lock);
        guarded(CuratorApplications::lock);
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        while (input.readLine() != null) {
            System.out.println(seen(first, holder, owner));
            System.out.flush();
        }
        over.set(true);
        System.exit(0);
    }
}
