#!/usr/bin/env bash
# Brings what the ignored tests compare ostler with: Apache ZooKeeper (3.9.5, and Debian's 3.8.0) and Curator, Java, kazoo,
# the C client, strace, valgrind.
#
# Each comes out of a package of the registries that every build machine reaches (Debian's and Python's), through their
# ordinary clients. ZooKeeper's and Curator's jars travel inside the Python package pyspark, the only one of those
# registries' packages that carries this version. Everything but Debian's packages goes to a folder outside the
# checkout: ${OSTLER_PEERS:-$HOME/.cache/ostler-peers}
#
#   java/*.jar        ZooKeeper server and client, Curator, and what they load
#   java/log4j2.properties   warnings to standard error
#   venv/             Python with kazoo
#
# Running it again does nothing and says nothing. What can't be had is named, with exit code 1; the rest is still done.
set -u

ZOOKEEPER=3.9.5
CURATOR=5.9.0
PYSPARK=4.3.0
KAZOO=2.11.0

peers=${OSTLER_PEERS:-${HOME:-/root}/.cache/ostler-peers}
failed=0
say() { printf 'peers: %s\n' "$*" >&2; }
lack() { say "can't be had: $*"; failed=1; }

# --- Debian ---------------------------------------------------------------------------------------------------------
apt_updated=0
debian() { # debian COMMAND-OR-FILE PACKAGE: installs PACKAGE unless COMMAND is found
    command -v "$1" >/dev/null 2>&1 || [ -e "$1" ] && return 0
    if ! command -v apt-get >/dev/null 2>&1; then
        lack "$2 ($1): no apt-get here; install it by hand"
        return 1
    fi
    if [ $apt_updated = 0 ]; then
        apt-get update -qq >/dev/null 2>&1
        apt_updated=1
    fi
    say "installing $2"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >"$peers/apt.log" 2>&1 ||
        lack "$2 ($1): see $peers/apt.log"
}

mkdir -p "$peers" || { say "can't create $peers"; exit 1; }
# One at a time: two runs that unpack into one folder would leave half a jar.
exec 9>"$peers/lock"
command -v flock >/dev/null 2>&1 && flock 9

debian python3 python3
python3 -c 'import venv, ensurepip' 2>/dev/null || debian /nonexistent python3-venv
debian javac default-jdk-headless
debian java default-jre-headless
debian strace strace
debian valgrind valgrind
debian /usr/lib/zookeeper/bin/cli_mt zookeeper-bin
# Debian's own ZooKeeper, an older one: mixed ensembles are tried with it too.
debian /usr/share/java/zookeeper.jar libzookeeper-java
debian /usr/share/java/slf4j-simple.jar libslf4j-java
# ZooKeeper 3.8.0, and what it logs and compresses with.
debian /usr/share/java/zookeeper-3.8.0.jar libzookeeper-java
debian /usr/share/java/slf4j-simple.jar libslf4j-java
debian /usr/share/java/snappy-java.jar libsnappy-java
debian /usr/share/java/metrics-core.jar libdropwizard-metrics-java

# --- ZooKeeper and Curator ------------------------------------------------------------------------------------------
jars_wanted="
zookeeper-$ZOOKEEPER zookeeper-jute-$ZOOKEEPER
curator-client-$CURATOR curator-framework-$CURATOR curator-recipes-$CURATOR
guava failureaccess
slf4j-api log4j-api log4j-core log4j-slf4j2-impl
metrics-core snappy-java commons-io commons-cli jline jackson-core jackson-databind jackson-annotations
netty-buffer netty-codec netty-codec-base netty-common netty-handler netty-resolver netty-transport
netty-transport-classes-epoll netty-transport-native-unix-common
"
stamp="$peers/java/.complete-$ZOOKEEPER-$CURATOR-$PYSPARK"
if [ ! -e "$stamp" ]; then
    say "fetching ZooKeeper $ZOOKEEPER and Curator $CURATOR (a package of 450 MB)"
    work=$(mktemp -d "$peers/unpack.XXXXXX")
    sdist=${OSTLER_PYSPARK_SDIST:-}
    if [ -z "$sdist" ]; then
        python3 -m pip download --quiet --no-deps --no-build-isolation --no-binary :all: \
            --dest "$work" "pyspark==$PYSPARK" >"$peers/pip.log" 2>&1 ||
            python3 -m pip download --quiet --no-deps --no-binary :all: \
                --dest "$work" "pyspark==$PYSPARK" >>"$peers/pip.log" 2>&1
        sdist=$(ls "$work"/pyspark-*.tar.gz 2>/dev/null | head -n 1)
    fi
    if [ -n "$sdist" ] && [ -e "$sdist" ]; then
        rm -rf "$peers/java"
        mkdir -p "$work/all" "$peers/java"
        tar -xzf "$sdist" -C "$work/all" --strip-components=3 --wildcards '*/deps/jars/*.jar' 2>"$peers/tar.log"
        for jar in $jars_wanted; do
            # The name is followed by a version, or is complete.
            found=$(cd "$work/all" && ls "$jar.jar" "$jar"-[0-9]*.jar 2>/dev/null)
            if [ -n "$found" ]; then
                for one in $found; do mv "$work/all/$one" "$peers/java/"; done
            else
                lack "$jar.jar: not in pyspark $PYSPARK any more"
            fi
        done
        cat >"$peers/java/log4j2.properties" <<'LOG'
status = warn
appender.err.type = Console
appender.err.name = err
appender.err.target = SYSTEM_ERR
appender.err.layout.type = PatternLayout
appender.err.layout.pattern = %d{ABSOLUTE} %-5p %c{1} %m%n%ex{4}
rootLogger.level = warn
rootLogger.appenderRef.err.ref = err
LOG
        [ -e "$peers/java/zookeeper-$ZOOKEEPER.jar" ] && touch "$stamp"
    else
        lack "ZooKeeper's jars: pip could not download pyspark $PYSPARK, see $peers/pip.log"
    fi
    rm -rf "$work"
fi

# --- kazoo ----------------------------------------------------------------------------------------------------------
if ! "$peers/venv/bin/python" -c 'import kazoo.version as v, sys; sys.exit(v.__version__ != "'$KAZOO'")' 2>/dev/null; then
    say "installing kazoo $KAZOO"
    rm -rf "$peers/venv"
    python3 -m venv "$peers/venv" >"$peers/venv.log" 2>&1 &&
        "$peers/venv/bin/python" -m pip install --quiet "kazoo==$KAZOO" >>"$peers/venv.log" 2>&1 ||
        lack "kazoo: see $peers/venv.log"
fi

exit $failed
