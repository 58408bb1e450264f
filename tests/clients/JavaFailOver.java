// The Java client at work while servers are killed and stopped under it: `JavaFailOver host:port,...`.
//
// Commands come on standard input, and each is answered when it has been done: `join N` (one more writer, whose first
// server is the Nth of the list), `step` (everybody has got on since, and every watch has seen what was there), `end`
// (all stop; what was acknowledged is told, a line each), `close`. What must not be ends the program with exit code 1.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.KeeperException.Code;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.Stat;

public class JavaFailOver extends FailOver {
    static final AtomicInteger lost = new AtomicInteger();
    static final List<Client> clients = Collections.synchronizedList(new ArrayList<>());
    static final List<Worker> workers = new ArrayList<>();
    static final List<String> acked = Collections.synchronizedList(new ArrayList<>());
    static final List<String[]> ephemerals = Collections.synchronizedList(new ArrayList<>());

    static class Connected implements Watcher {
        final CountDownLatch latch = new CountDownLatch(1);

        public void process(WatchedEvent event) {
            if (event.getState() == KeeperState.SyncConnected) {
                latch.countDown();
            } else if (event.getState() == KeeperState.Expired) {
                lost.incrementAndGet();
            }
        }
    }

    static class Client {
        final ZooKeeper zk;
        final long session;

        // By the list in an order of chance, or from one server on.
        Client(int... first) throws Exception {
            Connected connected = new Connected();
            zk = first.length == 0 ? new ZooKeeper(servers, 30000, connected)
                : new ZooKeeper(servers, 30000, connected, false, inOrder(first[0]));
            check(connected.latch.await(LIMIT, TimeUnit.SECONDS), "no connection");
            session = zk.getSessionId();
            clients.add(this);
        }

        String made(String path, String data, CreateMode mode) throws Exception {
            return zk.create(path, data.getBytes(), Ids.OPEN_ACL_UNSAFE, mode);
        }

        // Until the connection lasts long enough; only for what may be done twice.
        <T> T patiently(Callable<T> call) throws Exception {
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(LIMIT);
            while (true) {
                try {
                    return call.call();
                } catch (KeeperException.ConnectionLossException failure) {
                    check(System.nanoTime() < end, "no connection");
                    Thread.sleep(5);
                }
            }
        }

        String read(String path) throws Exception {
            return patiently(() -> new String(zk.getData(path, false, null)));
        }

        void synced() throws Exception {
            patiently(() -> {
                CountDownLatch done = new CountDownLatch(1);
                int[] code = new int[1];
                zk.sync("/jobs", (result, path, context) -> {
                    code[0] = result;
                    done.countDown();
                }, null);
                check(done.await(LIMIT, TimeUnit.SECONDS), "a sync is not answered");
                if (code[0] != 0) {
                    throw KeeperException.create(Code.get(code[0]));
                }
                return null;
            });
        }
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

    // Counts in a znode, under a lock of ephemerals in a sequence: whoever isn't alone with it overwrites what another
    // has counted, or is seen by it.
    static class Locker extends Worker {
        static final AtomicInteger inside = new AtomicInteger();
        static int total;
        Client client;

        Locker(String name) {
            super(name);
        }

        void begin() throws Exception {
            client = new Client();
        }

        // Its own znode, if there is one, by a name that nobody else has.
        String own(String mark) throws Exception {
            for (String name : client.zk.getChildren("/jobs/lock", false)) {
                if (name.startsWith(mark)) {
                    return name;
                }
            }
            return null;
        }

        String acquire(String mark) throws Exception {
            String node = client.patiently(() -> {
                String mine = own(mark);
                return mine != null ? mine : client.made("/jobs/lock/" + mark, "", CreateMode.EPHEMERAL_SEQUENTIAL).substring(11);
            });
            String number = node.substring(node.length() - 10);
            while (true) {
                String[] before = {null};
                for (String name : client.patiently(() -> client.zk.getChildren("/jobs/lock", false))) {
                    String other = name.substring(name.length() - 10);
                    if (other.compareTo(number) < 0
                            && (before[0] == null || other.compareTo(before[0].substring(before[0].length() - 10)) > 0)) {
                        before[0] = name;
                    }
                }
                if (before[0] == null) {
                    return node;
                }
                // It fires through reconnects, or this hangs: nothing else is asked meanwhile.
                CountDownLatch gone = new CountDownLatch(1);
                Watcher watcher = event -> {
                    if (event.getType() != EventType.None) {
                        gone.countDown();
                    }
                };
                if (client.patiently(() -> client.zk.exists("/jobs/lock/" + before[0], watcher)) != null) {
                    check(gone.await(LIMIT, TimeUnit.SECONDS), "nothing was heard of " + before[0]);
                }
            }
        }

        void once() throws Exception {
            String node = acquire(getName() + "-" + done.get() + "-");
            check(inside.incrementAndGet() == 1, "two hold the lock");
            int value = Integer.parseInt(client.read("/jobs/counter"));
            // If the outcome is unknown, the same once more does no harm: nobody else may write it now.
            client.patiently(() -> client.zk.setData("/jobs/counter", String.valueOf(value + 1).getBytes(), -1));
            total++;
            check(total == value + 1, "counted " + total + ", the znode had " + value);
            inside.decrementAndGet();
            client.patiently(() -> {
                try {
                    client.zk.delete("/jobs/lock/" + node, -1);
                } catch (KeeperException.NoNodeException failure) {
                    // The try before was done.
                }
                return null;
            });
        }
    }

    // Writes many at once and one by one; holds an ephemeral.
    static class Writer extends Worker {
        final int first;
        volatile int port;
        int number = -1;
        Client client;

        Writer(String name, int first) {
            super(name);
            this.first = first;
        }

        void begin() throws Exception {
            client = new Client(first);
            port = port(client.zk);
            String path = client.made("/jobs/ephemerals/" + getName(), "", CreateMode.EPHEMERAL);
            ephemerals.add(new String[] {path, String.valueOf(client.session)});
            client.made("/jobs/async/" + getName(), "", CreateMode.PERSISTENT);
        }

        void once() throws Exception {
            String base = "/jobs/async/" + getName() + "/" + done.get() + "-";
            List<Integer> codes = Collections.synchronizedList(new ArrayList<>());
            CountDownLatch answers = new CountDownLatch(10);
            for (int n = 0; n < 10; n++) {
                client.zk.create(base + n, String.valueOf(n).getBytes(), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT,
                    (code, path, context, name) -> {
                        // In the order in which they were sent.
                        if (code == 0 && !path.equals(base + codes.size())) {
                            code = Code.SYSTEMERROR.intValue();
                        }
                        codes.add(code);
                        answers.countDown();
                    }, null);
            }
            check(answers.await(LIMIT, TimeUnit.SECONDS), "no answers, and no connection loss");
            for (int n = 0; n < 10; n++) {
                int code = codes.get(n);
                check(code == 0 || code == Code.CONNECTIONLOSS.intValue(), "answers: " + codes);
                if (code == 0) {
                    acked.add(base + n + " " + n);
                }
            }
            try {
                String path = client.made("/jobs/sequence/n-", getName(), CreateMode.PERSISTENT_SEQUENTIAL);
                int next = Integer.parseInt(path.substring(path.length() - 10));
                check(next > number, next + " after " + number);
                number = next;
                acked.add(path + " " + getName());
                // Both or neither.
                String one = base + "one", other = base + "other";
                client.zk.multi(List.of(
                    Op.create(one, "1".getBytes(), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
                    Op.create(other, "2".getBytes(), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT)));
                acked.add(one + " 1");
                acked.add(other + " 2");
            } catch (KeeperException.ConnectionLossException failure) {
                // Whether it was done is unknown.
            }
        }
    }

    // Never sees a counter go back, and in the end sees all that there is. Its watches are set again by themselves when
    // the client comes to another server; what has changed meanwhile must be told then.
    static class Eye implements Watcher {
        final Client client;
        int counter = -1;
        Set<String> names = new HashSet<>();

        Eye() throws Exception {
            client = new Client();
            look("/jobs/counter");
            look("/jobs/sequence");
        }

        public void process(WatchedEvent event) {
            if (event.getType() == EventType.None) {
                return;
            }
            try {
                look(event.getPath());
            } catch (Throwable failure) {
                failed(failure);
            }
        }

        void look(String path) {
            if (path.equals("/jobs/counter")) {
                client.zk.getData(path, this, this::counted, null);
            } else {
                client.zk.getChildren(path, this, this::listed, null);
            }
        }

        synchronized void counted(int code, String path, Object context, byte[] data, Stat stat) {
            if (code != 0) {
                look(path);
                return;
            }
            int value = Integer.parseInt(new String(data));
            if (value < counter) {
                failed(new AssertionError("the counter was " + counter + " and is " + value));
            }
            counter = value;
        }

        synchronized void listed(int code, String path, Object context, List<String> children) {
            if (code != 0) {
                look(path);
                return;
            }
            names = new HashSet<>(children);
        }

        synchronized boolean hasSeen(int value, Collection<String> children) {
            return counter >= value && names.containsAll(children);
        }
    }

    static Client oneOfAll;
    static Eye eye;

    static void held() throws Exception {
        for (String[] one : ephemerals) {
            Stat stat = oneOfAll.patiently(() -> oneOfAll.zk.exists(one[0], false));
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
        oneOfAll.synced();
        int counter = Integer.parseInt(oneOfAll.read("/jobs/counter"));
        List<String> names = oneOfAll.patiently(() -> oneOfAll.zk.getChildren("/jobs/sequence", false));
        until("the watches to see it", () -> eye.hasSeen(counter, names));
        held();
        return "step: " + counter + " counted, " + names.size() + " in a sequence, " + acked.size() + " acknowledged";
    }

    static String end() throws Exception {
        stop = true;
        for (Worker worker : workers) {
            worker.join(TimeUnit.SECONDS.toMillis(LIMIT));
            check(!worker.isAlive(), worker.getName());
        }
        held();
        for (Client one : clients) {
            one.synced();
            check(one.zk.getSessionId() == one.session, "a session has been replaced");
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

    public static void main(String[] arguments) {
        servers = arguments[0];
        try {
            oneOfAll = new Client();
            for (String path : List.of("", "/lock", "/async", "/sequence", "/ephemerals")) {
                oneOfAll.made("/jobs" + path, "", CreateMode.PERSISTENT);
            }
            oneOfAll.made("/jobs/counter", "0", CreateMode.PERSISTENT);
            eye = new Eye();
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
                    for (Client one : clients) {
                        one.zk.close();
                    }
                    said = "closed";
                }
                System.out.println(said);
            }
        } catch (Throwable failure) {
            failed(failure);
        }
    }
}
