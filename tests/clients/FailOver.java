// What the programs have in common that work while servers are killed and stopped under them.

import java.lang.reflect.Proxy;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.client.ConnectStringParser;
import org.apache.zookeeper.client.HostProvider;

class FailOver {
    static final int LIMIT = 60;
    static String servers;
    static volatile boolean stop;

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static void until(String what, Callable<Boolean> ask) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(LIMIT);
        while (!ask.call()) {
            check(System.nanoTime() < end, what);
            Thread.sleep(5);
        }
    }

    static void failed(Throwable failure) {
        failure.printStackTrace();
        Runtime.getRuntime().halt(1);
    }

    // From one server on, in the order of the list.
    static HostProvider inOrder(int first) {
        List<InetSocketAddress> all = new ArrayList<>();
        for (InetSocketAddress one : new ConnectStringParser(servers).getServerAddresses()) {
            all.add(new InetSocketAddress(one.getHostString(), one.getPort()));
        }
        AtomicInteger next = new AtomicInteger(first);
        Class<?>[] as = {HostProvider.class};
        return (HostProvider) Proxy.newProxyInstance(FailOver.class.getClassLoader(), as, (self, method, values) -> {
            switch (method.getName()) {
                case "size":
                    return all.size();
                case "next":
                    return all.get(next.getAndIncrement() % all.size());
                case "updateServerList":
                    return false;
                default:
                    return null;
            }
        });
    }

    // Of the server that it is connected to.
    static int port(ZooKeeper zk) {
        Matcher matcher = Pattern.compile("remoteserver:\\S*:(\\d+)").matcher(zk.toString());
        check(matcher.find(), zk.toString());
        return Integer.parseInt(matcher.group(1));
    }
}
