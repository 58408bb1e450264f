// The Java client at work on one server: `JavaClient host:port`.
//
// Pipelined calls, watches of every kind, transactions, and a connection that breaks under them. Prints a line for each
// part; the first failure ends the program with exit code 1.

import java.io.InputStream;
import java.io.OutputStream;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.KeeperException.Code;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.OpResult;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.Stat;

public class JavaClient {
    static String address;

    interface Call {
        void run() throws Exception;
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static void fails(Code code, Call call) throws Exception {
        try {
            call.run();
        } catch (KeeperException failure) {
            check(failure.code() == code, "expected " + code + ", got " + failure.code());
            return;
        }
        throw new AssertionError("expected " + code);
    }

    static class Events implements Watcher {
        final BlockingQueue<WatchedEvent> queue = new LinkedBlockingQueue<>();

        public void process(WatchedEvent event) {
            if (event.getType() != EventType.None) {
                queue.add(event);
            }
        }

        void expect(EventType type, String path) throws Exception {
            WatchedEvent event = queue.poll(20, TimeUnit.SECONDS);
            check(event != null, "no event " + type + " " + path);
            check(event.getType() == type && event.getPath().equals(path), type + " " + path + " expected, got " + event);
        }

        void none() {
            check(queue.isEmpty(), "an event too many: " + queue);
        }
    }

    static ZooKeeper connect(String to, BlockingQueue<KeeperState> states) throws Exception {
        CountDownLatch connected = new CountDownLatch(1);
        ZooKeeper zk = new ZooKeeper(to, 10000, event -> {
            if (event.getType() == EventType.None) {
                states.add(event.getState());
                if (event.getState() == KeeperState.SyncConnected) {
                    connected.countDown();
                }
            }
        });
        check(connected.await(20, TimeUnit.SECONDS), "no connection");
        return zk;
    }

    static ZooKeeper connect() throws Exception {
        return connect(address, new LinkedBlockingQueue<>());
    }

    static void basics(ZooKeeper zk) throws Exception {
        Stat stat = new Stat();
        check(zk.create("/j", "one".getBytes(), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT, stat).equals("/j"), "path");
        check(stat.getVersion() == 0 && stat.getDataLength() == 3 && stat.getCzxid() == stat.getMzxid(), "stat");
        check(Arrays.equals(zk.getData("/j", false, stat), "one".getBytes()), "data");
        check(zk.setData("/j", "two".getBytes(), 0).getVersion() == 1, "version");
        fails(Code.BADVERSION, () -> zk.setData("/j", null, 0));
        fails(Code.NODEEXISTS, () -> zk.create("/j", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        fails(Code.NONODE, () -> zk.getData("/none", false, null));
        check(zk.create("/j/s-", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL).equals("/j/s-0000000000"), "suffix");
        check(zk.create("/j/c", null, Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER, stat).equals("/j/c"), "container");
        check(zk.create("/j/t", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, stat, 3600000).equals("/j/t"), "ttl");
        zk.create("/j/e", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL, stat);
        check(stat.getEphemeralOwner() == zk.getSessionId(), "owner");
        fails(Code.NOCHILDRENFOREPHEMERALS, () -> zk.create("/j/e/x", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        check(zk.getEphemerals().equals(List.of("/j/e")), "ephemerals");
        check(zk.getAllChildrenNumber("/j") == 4, "all children");
        List<String> children = zk.getChildren("/j", false, stat);
        Collections.sort(children);
        check(children.equals(List.of("c", "e", "s-0000000000", "t")) && stat.getNumChildren() == 4, "children");
        zk.addAuthInfo("digest", "me:secret".getBytes());
        zk.create("/j/mine", null, Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
        check(zk.getACL("/j/mine", stat).get(0).getId().getScheme().equals("digest"), "acl");
        check(zk.whoAmI().size() == 2, "whoAmI");
        ZooKeeper other = connect();
        fails(Code.NOAUTH, () -> other.getData("/j/mine", false, null));
        other.close();
    }

    // Hundreds in flight: each callback in order, each read sees the writes before it and none after it.
    static void pipelined(ZooKeeper zk) throws Exception {
        zk.create("/pipe", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        int count = 500;
        CountDownLatch done = new CountDownLatch(count * 3);
        List<String> order = Collections.synchronizedList(new ArrayList<>());
        List<String> wrong = Collections.synchronizedList(new ArrayList<>());
        for (int n = 0; n < count; n++) {
            int expected = n;
            byte[] data = Integer.toString(n).getBytes();
            zk.setData("/pipe", data, n, (rc, path, ctx, stat) -> {
                if (rc != 0 || stat.getVersion() != expected + 1) {
                    wrong.add("set " + expected + ": " + rc);
                }
                order.add("set " + expected);
                done.countDown();
            }, null);
            zk.getData("/pipe", false, (rc, path, ctx, found, stat) -> {
                if (rc != 0 || !Arrays.equals(found, data)) {
                    wrong.add("get " + expected + ": " + rc);
                }
                order.add("get " + expected);
                done.countDown();
            }, null);
            zk.create("/pipe/n-", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL, (rc, path, ctx, name) -> {
                if (rc != 0 || !name.equals(String.format("/pipe/n-%010d", expected))) {
                    wrong.add("create " + expected + ": " + rc + " " + name);
                }
                order.add("create " + expected);
                done.countDown();
            }, null);
        }
        check(done.await(60, TimeUnit.SECONDS), "answers are missing");
        check(wrong.isEmpty(), wrong.toString());
        for (int n = 0; n < count; n++) {
            check(order.get(3 * n).equals("set " + n) && order.get(3 * n + 2).equals("create " + n), "order");
        }
        check(zk.getChildren("/pipe", false).size() == count, "children");
    }

    static void transactions(ZooKeeper zk) throws Exception {
        List<OpResult> results = zk.multi(List.of(
            Op.create("/m", "1".getBytes(), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
            Op.create("/m/c", null, Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER),
            Op.setData("/m", "2".getBytes(), 0),
            Op.check("/m", 1),
            Op.create("/m/s-", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL),
            Op.delete("/m/c", -1)));
        check(results.size() == 6, "results");
        check(((OpResult.CreateResult) results.get(4)).getPath().equals("/m/s-0000000001"), "name");
        try {
            zk.multi(List.of(Op.setData("/m", null, -1), Op.check("/m", 7), Op.delete("/m", -1)));
            throw new AssertionError("a failing transaction went through");
        } catch (KeeperException failure) {
            check(failure.code() == Code.BADVERSION, "code " + failure.code());
            List<OpResult> failed = failure.getResults();
            check(((OpResult.ErrorResult) failed.get(0)).getErr() == 0, "before");
            check(((OpResult.ErrorResult) failed.get(2)).getErr() == Code.RUNTIMEINCONSISTENCY.intValue(), "after");
        }
        check(zk.exists("/m", false).getVersion() == 1, "nothing happened");
        List<OpResult> read = zk.multi(List.of(Op.getData("/m"), Op.getChildren("/m"), Op.getData("/none")));
        check(Arrays.equals(((OpResult.GetDataResult) read.get(0)).getData(), "2".getBytes()), "read");
        check(((OpResult.GetChildrenResult) read.get(1)).getChildren().equals(List.of("s-0000000001")), "read");
        check(((OpResult.ErrorResult) read.get(2)).getErr() == Code.NONODE.intValue(), "read");
    }

    static void watches(ZooKeeper zk) throws Exception {
        ZooKeeper other = connect();
        Events exists = new Events(), data = new Events(), children = new Events(), one = new Events(), deep = new Events();
        check(zk.exists("/w", exists) == null, "not yet");
        zk.addWatch("/w", one, AddWatchMode.PERSISTENT);
        zk.addWatch("/w", deep, AddWatchMode.PERSISTENT_RECURSIVE);
        other.create("/w", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        exists.expect(EventType.NodeCreated, "/w");
        one.expect(EventType.NodeCreated, "/w");
        deep.expect(EventType.NodeCreated, "/w");
        zk.getData("/w", data, null);
        zk.getChildren("/w", children);
        other.setData("/w", null, -1);
        other.create("/w/a", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        other.create("/w/a/b", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        other.setData("/w/a/b", null, -1);
        data.expect(EventType.NodeDataChanged, "/w");
        children.expect(EventType.NodeChildrenChanged, "/w");
        one.expect(EventType.NodeDataChanged, "/w");
        one.expect(EventType.NodeChildrenChanged, "/w");
        deep.expect(EventType.NodeDataChanged, "/w");
        deep.expect(EventType.NodeCreated, "/w/a");
        deep.expect(EventType.NodeCreated, "/w/a/b");
        deep.expect(EventType.NodeDataChanged, "/w/a/b");
        zk.removeWatches("/w", one, Watcher.WatcherType.Persistent, false);
        one.expect(EventType.PersistentWatchRemoved, "/w");
        other.delete("/w/a/b", -1);
        other.delete("/w/a", -1);
        other.delete("/w", -1);
        deep.expect(EventType.NodeDeleted, "/w/a/b");
        deep.expect(EventType.NodeDeleted, "/w/a");
        deep.expect(EventType.NodeDeleted, "/w");
        zk.sync("/", (rc, path, ctx) -> { }, null);
        zk.exists("/w", false);
        for (Events events : List.of(exists, data, children, one, deep)) {
            events.none();
        }
        fails(Code.NOWATCHER, () -> zk.removeWatches("/w", one, Watcher.WatcherType.Any, false));
        zk.removeWatches("/w", deep, Watcher.WatcherType.PersistentRecursive, false);
        other.close();
    }

    // Passes bytes on to the server until told to break.
    static class Proxy extends Thread {
        final ServerSocket listener = new ServerSocket(0, 10, java.net.InetAddress.getLoopbackAddress());
        final List<Socket> sockets = Collections.synchronizedList(new ArrayList<>());
        volatile CountDownLatch gate = new CountDownLatch(0);

        Proxy() throws Exception {
            setDaemon(true);
            start();
        }

        String address() {
            return "127.0.0.1:" + listener.getLocalPort();
        }

        public void run() {
            String[] parts = JavaClient.address.split(":");
            try {
                while (true) {
                    Socket client = listener.accept();
                    gate.await();
                    Socket server = new Socket(parts[0], Integer.parseInt(parts[1]));
                    sockets.add(client);
                    sockets.add(server);
                    pump(client, server);
                    pump(server, client);
                }
            } catch (Exception end) {
                // The program is ending.
            }
        }

        static void pump(Socket from, Socket to) {
            Thread thread = new Thread(() -> {
                try (InputStream in = from.getInputStream(); OutputStream out = to.getOutputStream()) {
                    in.transferTo(out);
                } catch (Exception broken) {
                    // Broken on purpose.
                }
            });
            thread.setDaemon(true);
            thread.start();
        }

        void cut() throws Exception {
            gate = new CountDownLatch(1);
            for (Socket socket : sockets) {
                socket.close();
            }
            sockets.clear();
        }

        void mend() {
            gate.countDown();
        }
    }

    // What changed while the connection was down is told afterwards; what is watched stays watched.
    static void reconnects(ZooKeeper other) throws Exception {
        Proxy proxy = new Proxy();
        BlockingQueue<KeeperState> states = new LinkedBlockingQueue<>();
        ZooKeeper zk = connect(proxy.address(), states);
        long session = zk.getSessionId();
        for (String path : List.of("/r", "/r/data", "/r/kids", "/r/gone", "/r/still")) {
            zk.create(path, null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        }
        zk.create("/r/mine", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL);
        Events data = new Events(), kids = new Events(), gone = new Events(), born = new Events(), still = new Events();
        Events one = new Events(), deep = new Events();
        zk.getData("/r/data", data, null);
        zk.getChildren("/r/kids", kids);
        zk.exists("/r/gone", gone);
        zk.exists("/r/born", born);
        zk.getData("/r/still", still, null);
        zk.addWatch("/r", one, AddWatchMode.PERSISTENT);
        zk.addWatch("/r/deep", deep, AddWatchMode.PERSISTENT_RECURSIVE);
        states.clear();
        proxy.cut();
        check(states.poll(20, TimeUnit.SECONDS) == KeeperState.Disconnected, "cut");
        other.setData("/r/data", null, -1);
        other.create("/r/kids/a", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        other.delete("/r/gone", -1);
        other.create("/r/born", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        proxy.mend();
        check(states.poll(20, TimeUnit.SECONDS) == KeeperState.SyncConnected, "mended");
        check(zk.getSessionId() == session, "the same session");
        data.expect(EventType.NodeDataChanged, "/r/data");
        kids.expect(EventType.NodeChildrenChanged, "/r/kids");
        gone.expect(EventType.NodeDeleted, "/r/gone");
        born.expect(EventType.NodeCreated, "/r/born");
        check(zk.exists("/r/mine", false).getEphemeralOwner() == session, "its ephemeral is there");
        still.none();
        one.none();
        deep.none();
        other.setData("/r/still", null, -1);
        still.expect(EventType.NodeDataChanged, "/r/still");
        other.create("/r/deep", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        other.create("/r/deep/x", null, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        one.expect(EventType.NodeChildrenChanged, "/r");
        deep.expect(EventType.NodeCreated, "/r/deep");
        deep.expect(EventType.NodeCreated, "/r/deep/x");
        zk.close();
        check(other.exists("/r/mine", false) == null, "its ephemeral went with it");
    }

    interface Part {
        void run(ZooKeeper zk) throws Exception;
    }

    static void part(String name, ZooKeeper zk, Part part) throws Exception {
        long start = System.nanoTime();
        part.run(zk);
        System.out.printf("%s: %d ms%n", name, (System.nanoTime() - start) / 1000000);
    }

    public static void main(String[] args) throws Exception {
        address = args[0];
        try {
            ZooKeeper zk = connect();
            part("basics", zk, JavaClient::basics);
            part("pipelined", zk, JavaClient::pipelined);
            part("transactions", zk, JavaClient::transactions);
            part("watches", zk, JavaClient::watches);
            part("reconnects", zk, JavaClient::reconnects);
            zk.close();
        } catch (Throwable failure) {
            failure.printStackTrace();
            System.exit(1);
        }
        System.out.println("all parts work");
        System.exit(0);
    }
}
