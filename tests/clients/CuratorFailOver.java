// Curator's recipes at work while servers are killed and stopped under them: `CuratorFailOver host:port,...`.
//
// Commands come on standard input, and each is answered when it has been done: `join N` (one more writer, whose first
// server is the Nth of the list), `step` (everybody has got on since, there is one leader, and every cache has what was
// there), `end` (all stop; what was acknowledged is told, a line each), `close`. What must not be ends the program with
// exit code 1.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.cache.CuratorCache;
import org.apache.curator.framework.recipes.leader.LeaderLatch;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.RetryNTimes;
import org.apache.curator.utils.ZookeeperFactory;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException.Code;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.Stat;

public class CuratorFailOver extends FailOver {
    static final AtomicInteger lost = new AtomicInteger();
    static final List<CuratorFramework> clients = Collections.synchronizedList(new ArrayList<>());
    static final List<Long> sessions = Collections.synchronizedList(new ArrayList<>());
    static final List<Worker> workers = new ArrayList<>();
    static final List<String> acked = Collections.synchronizedList(new ArrayList<>());
    static final List<String[]> ephemerals = Collections.synchronizedList(new ArrayList<>());

    static CuratorFramework client(ZookeeperFactory factory) throws Exception {
        CuratorFrameworkFactory.Builder builder = CuratorFrameworkFactory.builder().connectString(servers)
            .sessionTimeoutMs(30000).connectionTimeoutMs(15000).retryPolicy(new RetryNTimes(600, 50));
        if (factory != null) {
            builder.zookeeperFactory(factory);
        }
        CuratorFramework client = builder.build();
        client.getConnectionStateListenable().addListener((one, state) -> {
            if (state == ConnectionState.LOST) {
                lost.incrementAndGet();
            }
        });
        client.start();
        check(client.blockUntilConnected(LIMIT, TimeUnit.SECONDS), "no connection");
        clients.add(client);
        sessions.add(client.getZookeeperClient().getZooKeeper().getSessionId());
        return client;
    }

    // Does the same again and again, on a thread of its own, and counts.
    abstract static class Worker extends Thread {
        final AtomicInteger done = new AtomicInteger();

        Worker(String name) {
            super(name);
            setDaemon(true);
            workers.add(this);
        }

        abstract void begin() throws Exception;

        abstract void once() throws Exception;

        public void run() {
            try {
                begin();
                while (!stop) {
                    once();
                    done.incrementAndGet();
                    // Other programs want to get on too.
                    Thread.sleep(10);
                }
            } catch (Throwable failure) {
                failed(failure);
            }
        }
    }

    // Counts in a znode, under a lock: whoever isn't alone with it overwrites what another has counted. A candidate for
    // the lead too, and its ephemeral is made again and again if need be.
    static class Locker extends Worker {
        static final AtomicInteger inside = new AtomicInteger();
        static int total;
        CuratorFramework client;
        InterProcessMutex mutex;
        LeaderLatch latch;
        PersistentNode node;

        Locker(String name) {
            super(name);
        }

        void begin() throws Exception {
            client = client(null);
            mutex = new InterProcessMutex(client, "/jobs/lock");
            latch = new LeaderLatch(client, "/jobs/latch", getName());
            latch.start();
            node = new PersistentNode(client, CreateMode.EPHEMERAL, false, "/jobs/ephemerals/" + getName(), new byte[0]);
            node.start();
            check(node.waitForInitialCreate(LIMIT, TimeUnit.SECONDS), "no ephemeral");
            long session = client.getZookeeperClient().getZooKeeper().getSessionId();
            ephemerals.add(new String[] {"/jobs/ephemerals/" + getName(), String.valueOf(session)});
        }

        void once() throws Exception {
            check(mutex.acquire(LIMIT, TimeUnit.SECONDS), "no lock");
            check(inside.incrementAndGet() == 1, "two hold the lock");
            int value = Integer.parseInt(new String(client.getData().forPath("/jobs/counter")));
            // Curator does it again if the outcome is unknown, which does no harm: nobody else may write it now.
            client.setData().forPath("/jobs/counter", String.valueOf(value + 1).getBytes());
            total++;
            check(total == value + 1, "counted " + total + ", the znode had " + value);
            inside.decrementAndGet();
            mutex.release();
        }
    }

    // Writes many at once and one by one. Curator goes on until each is done, and finds by a mark in its name what it
    // has done already: each is there exactly once.
    static class Writer extends Worker {
        static final AtomicInteger protectedOnes = new AtomicInteger();
        final int first;
        volatile int port;
        int number = -1;
        CuratorFramework client;

        Writer(String name, int first) {
            super(name);
            this.first = first;
        }

        void begin() throws Exception {
            client = client((address, timeout, watcher, readOnly) ->
                new ZooKeeper(servers, timeout, watcher, false, inOrder(first)));
            port = port(client.getZookeeperClient().getZooKeeper());
            client.create().forPath("/jobs/async/" + getName(), new byte[0]);
        }

        void once() throws Exception {
            String base = "/jobs/async/" + getName() + "/" + done.get() + "-";
            CountDownLatch answers = new CountDownLatch(10);
            for (int n = 0; n < 10; n++) {
                String data = String.valueOf(n);
                client.create().inBackground((one, event) -> {
                    int code = event.getResultCode();
                    // A try of which nothing was heard may have been done.
                    if (code != 0 && code != Code.NODEEXISTS.intValue()) {
                        failed(new AssertionError(event.toString()));
                    }
                    acked.add(event.getPath() + " " + data);
                    answers.countDown();
                }).forPath(base + n, data.getBytes());
            }
            check(answers.await(LIMIT, TimeUnit.SECONDS), "no answers");
            String path = client.create().withProtection().withMode(CreateMode.PERSISTENT_SEQUENTIAL)
                .forPath("/jobs/sequence/n-", getName().getBytes());
            int next = Integer.parseInt(path.substring(path.length() - 10));
            check(next > number, next + " after " + number);
            number = next;
            protectedOnes.incrementAndGet();
            acked.add(path + " " + getName());
        }
    }

    static CuratorFramework oneOfAll;
    static CuratorCache cache;

    // What is there, by asking.
    static TreeMap<String, String> sequence() throws Exception {
        TreeMap<String, String> found = new TreeMap<>();
        for (String name : oneOfAll.getChildren().forPath("/jobs/sequence")) {
            String path = "/jobs/sequence/" + name;
            found.put(path, new String(oneOfAll.getData().forPath(path)));
        }
        return found;
    }

    static boolean cacheHas(TreeMap<String, String> expected) {
        return expected.entrySet().stream().allMatch(one ->
            cache.get(one.getKey()).map(node -> new String(node.getData()).equals(one.getValue())).orElse(false));
    }

    static void sync() throws Exception {
        CountDownLatch done = new CountDownLatch(1);
        oneOfAll.sync().inBackground((one, event) -> done.countDown()).forPath("/jobs");
        check(done.await(LIMIT, TimeUnit.SECONDS), "a sync is not answered");
    }

    static List<Locker> lockers() {
        List<Locker> all = new ArrayList<>();
        for (Worker worker : workers) {
            if (worker instanceof Locker) {
                all.add((Locker) worker);
            }
        }
        return all;
    }

    // One leads, and all agree who.
    static boolean oneLeads() throws Exception {
        Set<String> named = new TreeSet<>();
        int leading = 0;
        for (Locker one : lockers()) {
            named.add(one.latch.getLeader().getId());
            if (one.latch.hasLeadership()) {
                leading++;
                named.add(one.latch.getId());
            }
        }
        return leading == 1 && named.size() == 1;
    }

    static void held() throws Exception {
        for (String[] one : ephemerals) {
            Stat stat = oneOfAll.checkExists().forPath(one[0]);
            check(stat != null && String.valueOf(stat.getEphemeralOwner()).equals(one[1]), one[0] + ": " + stat);
        }
    }

    static String step() throws Exception {
        List<Integer> before = new ArrayList<>();
        for (Worker worker : workers) {
            before.add(worker.done.get());
        }
        for (int n = 0; n < before.size(); n++) {
            Worker worker = workers.get(n);
            int done = before.get(n);
            until(worker.getName() + " to get on", () -> worker.done.get() >= done + 3);
        }
        sync();
        TreeMap<String, String> expected = sequence();
        until("the cache to have it", () -> cacheHas(expected));
        until("a leader", CuratorFailOver::oneLeads);
        held();
        return "step: " + Locker.total + " counted, " + expected.size() + " in a sequence, " + acked.size() + " acknowledged";
    }

    static String end() throws Exception {
        stop = true;
        for (Worker worker : workers) {
            worker.join(TimeUnit.SECONDS.toMillis(LIMIT));
            check(!worker.isAlive(), worker.getName());
        }
        held();
        sync();
        TreeMap<String, String> expected = sequence();
        check(expected.size() == Writer.protectedOnes.get(), expected.size() + " for " + Writer.protectedOnes);
        expected.put("/jobs/counter", String.valueOf(Locker.total));
        until("the cache to have it", () -> cacheHas(expected));
        check(cache.stream().filter(node -> node.getPath().startsWith("/jobs/sequence/")).count() == expected.size() - 1,
            "the cache has what is not there");
        for (int n = 0; n < clients.size(); n++) {
            clients.get(n).checkExists().forPath("/jobs");
            long session = clients.get(n).getZookeeperClient().getZooKeeper().getSessionId();
            check(session == sessions.get(n), "a session has been replaced");
        }
        check(lost.get() == 0, lost + " sessions are lost");
        acked.add("/jobs/counter " + Locker.total);
        for (String one : acked) {
            System.out.println("acked " + one);
        }
        for (String[] one : ephemerals) {
            System.out.println("ephemeral " + one[0] + " " + one[1]);
        }
        return "ended: " + clients.size() + " sessions";
    }

    static void close() throws Exception {
        for (Locker one : lockers()) {
            one.latch.close();
            one.node.close();
        }
        cache.close();
        for (CuratorFramework one : clients) {
            one.close();
        }
    }

    public static void main(String[] arguments) {
        servers = arguments[0];
        try {
            oneOfAll = client(null);
            for (String path : List.of("/jobs/sequence", "/jobs/async", "/jobs/ephemerals")) {
                oneOfAll.create().creatingParentsIfNeeded().forPath(path, new byte[0]);
            }
            oneOfAll.create().forPath("/jobs/counter", "0".getBytes());
            cache = CuratorCache.build(client(null), "/jobs");
            cache.start();
            for (int n = 0; n < 3; n++) {
                new Locker("locker-" + n).start();
            }
            BufferedReader commands = new BufferedReader(new InputStreamReader(System.in));
            for (String line = commands.readLine(); line != null; line = commands.readLine()) {
                String[] words = line.split(" ");
                String said;
                if (words[0].equals("join")) {
                    Writer writer = new Writer("writer-" + workers.size(), Integer.parseInt(words[1]));
                    writer.start();
                    until("it to write", () -> writer.done.get() > 0);
                    said = "joined " + writer.port;
                } else if (words[0].equals("step")) {
                    said = step();
                } else if (words[0].equals("end")) {
                    said = end();
                } else {
                    close();
                    said = "closed";
                }
                System.out.println(said);
            }
        } catch (Throwable failure) {
            failed(failure);
        }
        System.exit(0);
    }
}
