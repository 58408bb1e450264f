#!/usr/bin/env bash
# Installs and starts what ostler is compared with, each on its own port and folder, and stops it again.
#
#   tools/compare.sh start NAME...      install if need be, start on empty folders, wait until they answer
#   tools/compare.sh targets NAME...    the --compare words for `ostler bench`, with process ids
#   tools/compare.sh restart NAME...    kill -9, then start on the folder as it is; does not wait
#   tools/compare.sh kill NAME...       kill -9 alone
#   tools/compare.sh stop [NAME...]     stop, and remove the folders
#
# NAMEs: ostler, ostler3 and zookeeper3 (ensembles of three), zookeeper, redis, redis-always (appendfsync always), etcd, keeper
# (ClickHouse Keeper, if a program clickhouse-keeper or clickhouse is there: no package registry has it), echo (the floor),
# echo-sync (the floor of writes: appends them and calls fdatasync once a turn).
#
# For example: everyone's reads, in turn
#   tools/compare.sh start ostler zookeeper redis echo
#   target/release/ostler bench get --rounds 3 $(tools/compare.sh targets ostler zookeeper redis echo) --html get.html
#   tools/compare.sh stop
#
# ZooKeeper is tuned as its manual says: a heap of fixed size that fits into memory (OSTLER_COMPARE_HEAP, 2g), the log in a
# folder beside the snapshots (give it a disk of its own with OSTLER_COMPARE_LOGS if there is one), logging at WARN, no limit
# of connections, a listen backlog of 4096, as ostler gets it too. Durability is every server's default but Redis' and etcd's:
# redis forgets at a crash, redis-always does not; etcd always syncs. etcd speaks another protocol: `etcdctl check perf`.
#
# Two people on one machine: each sets OSTLER_COMPARE and OSTLER_COMPARE_PORT (the first of 70 ports; 21810).
#
# OSTLER_COMPARE_SETTINGS: more lines of zoo.cfg for ostler and ZooKeeper alike, such as snapCount=20000.
#
# Folders: ${OSTLER_COMPARE:-/var/tmp/ostler-compare}/NAME, which must not be a tmpfs, or no sync costs anything. ostler
# itself: ${OSTLER_BIN:-target/release/ostler}; the echo stands beside it in examples/.
set -u
here=$(cd "$(dirname "$0")/.." && pwd)
state=${OSTLER_COMPARE:-/var/tmp/ostler-compare}
peers=${OSTLER_PEERS:-${HOME:-/root}/.cache/ostler-peers}
ostler=${OSTLER_BIN:-$here/target/release/ostler}
base=${OSTLER_COMPARE_PORT:-21810}
heap=${OSTLER_COMPARE_HEAP:-2g}
say() { printf 'compare: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

port_of() {
    local place
    case $1 in
        ostler) place=0 ;; ostler3) place=1 ;; zookeeper) place=10 ;; zookeeper3) place=21 ;; redis) place=30 ;;
        redis-always) place=31 ;; etcd) place=40 ;; keeper) place=50 ;; echo) place=60 ;; echo-sync) place=61 ;;
        *) die "$1: no such server; see the head of $0" ;;
    esac
    echo $((base + place))
}

debian() { # debian PROGRAM PACKAGE
    command -v "$1" >/dev/null 2>&1 && return 0
    say "installing $2"
    apt-get update -qq >/dev/null 2>&1
    # Not started by the package: the script starts its own.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null 2>&1
    command -v "$1" >/dev/null 2>&1 || die "$1 can't be had: apt-get could not install $2"
}

settings='tickTime=2000
maxClientCnxns=0
clientPortListenBacklog=4096
admin.enableServer=false
4lw.commands.whitelist=srvr,ruok,mntr
'${OSTLER_COMPARE_SETTINGS:-}

java_words() { # java_words CLASS FILE
    local jars=$peers/java
    [ -e "$jars/zookeeper-3.9.5.jar" ] || bash "$here/tools/peers.sh" || true
    [ -e "$jars/zookeeper-3.9.5.jar" ] || die "ZooKeeper can't be had: see tools/peers.sh"
    echo "java -Xms$heap -Xmx$heap -XX:+UseG1GC -Dlog4j2.disableJmx=true \
-Dlog4j2.configurationFile=$jars/log4j2.properties -cp '$jars/*' $1 $2"
}

# Writes the folder's files: run (or run1, run2, run3), a script that becomes the server.
prepare() { # prepare NAME
    local name=$1 port dir=$state/$1 words
    port=$(port_of "$name") || exit 1
    local logs=${OSTLER_COMPARE_LOGS:-$state}/$name/log
    case $name in
        ostler)
            [ -x "$ostler" ] || die "$ostler is not there: cargo build --release --bins --examples"
            printf '%s\nclientPort=%s\ndataDir=%s/data\ndataLogDir=%s\n' "$settings" "$port" "$dir" "$logs" >"$dir/zoo.cfg"
            words="$ostler server $dir/zoo.cfg"
            ;;
        zookeeper)
            printf '%s\nclientPort=%s\ndataDir=%s/data\ndataLogDir=%s\n' "$settings" "$port" "$dir" "$logs" >"$dir/zoo.cfg"
            words=$(java_words org.apache.zookeeper.server.ZooKeeperServerMain "$dir/zoo.cfg") || exit 1
            ;;
        ostler3 | zookeeper3)
            local id
            for id in 1 2 3; do
                mkdir -p "$dir/data$id"
                echo $id >"$dir/data$id/myid"
                printf '%s\ninitLimit=10\nsyncLimit=5\nclientPort=%s\ndataDir=%s/data%s\ndataLogDir=%s%s\n' "$settings" \
                    $((port + id - 1)) "$dir" $id "$logs" $id >"$dir/zoo$id.cfg"
                printf 'server.%s=127.0.0.1:%s:%s\n' 1 $((port + 3)) $((port + 6)) 2 $((port + 4)) $((port + 7)) \
                    3 $((port + 5)) $((port + 8)) >>"$dir/zoo$id.cfg"
                if [ "$name" = ostler3 ]; then
                    [ -x "$ostler" ] || die "$ostler is not there: cargo build --release --bins --examples"
                    words="$ostler server $dir/zoo$id.cfg"
                else
                    words=$(java_words org.apache.zookeeper.server.quorum.QuorumPeerMain "$dir/zoo$id.cfg") || exit 1
                fi
                printf '#!/bin/sh\nexec %s\n' "$words" >"$dir/run$id"
            done
            chmod +x "$dir"/run[123]
            return
            ;;
        redis | redis-always)
            debian redis-server redis-server
            words="redis-server --port $port --bind 127.0.0.1 --dir $dir --save '' --appendonly"
            if [ "$name" = redis ]; then words="$words no"; else words="$words yes --appendfsync always"; fi
            ;;
        etcd)
            debian etcd etcd-server
            debian etcdctl etcd-client
            words="etcd --data-dir $dir/data --listen-client-urls http://127.0.0.1:$port \
--advertise-client-urls http://127.0.0.1:$port --listen-peer-urls http://127.0.0.1:$((port + 1)) --logger zap"
            ;;
        keeper)
            local program
            program=$(command -v clickhouse-keeper || true)
            [ -n "$program" ] || { program=$(command -v clickhouse || true) && program="$program keeper"; }
            [ "$program" != " keeper" ] || die "no ClickHouse Keeper here: put clickhouse-keeper or clickhouse on the PATH"
            cat >"$dir/keeper.xml" <<XML
<clickhouse><logger><level>warning</level><console>1</console></logger><listen_host>127.0.0.1</listen_host>
<keeper_server><tcp_port>$port</tcp_port><server_id>1</server_id>
<log_storage_path>$logs</log_storage_path><snapshot_storage_path>$dir/snapshots</snapshot_storage_path>
<coordination_settings><force_sync>true</force_sync></coordination_settings>
<raft_configuration><server><id>1</id><hostname>127.0.0.1</hostname><port>$((port + 1))</port></server></raft_configuration>
</keeper_server></clickhouse>
XML
            words="$program --config-file $dir/keeper.xml"
            ;;
        echo | echo-sync)
            local echo_program
            echo_program=$(dirname "$ostler")/examples/echo
            [ -x "$echo_program" ] || die "$echo_program is not there: cargo build --release --examples"
            words="$echo_program 127.0.0.1:$port 100"
            [ "$name" = echo ] || words="$words $dir/written"
            ;;
    esac
    printf '#!/bin/sh\nexec %s\n' "$words" >"$dir/run"
    chmod +x "$dir/run"
}

launch() { # launch NAME: starts what prepare has written; the ids are in the file pids
    local dir=$state/$1 run
    : >"$dir/pids"
    for run in "$dir"/run "$dir"/run[123]; do
        [ -x "$run" ] || continue
        # In a session of its own: it outlives the terminal, and a Ctrl-C meant for the load.
        (cd "$dir" && exec setsid "$run" >>"$dir/output" 2>&1 </dev/null) &
        echo $! >>"$dir/pids"
    done
}

ask() { # ask PORT TEXT PATTERN: ZooKeeper leaves a word unanswered that comes while it starts
    timeout 1 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0" && printf "$1" >&3 && grep -q -m 1 "$2" <&3' "$@" 2>/dev/null
}

answers() { # answers NAME
    local port member
    port=$(port_of "$1")
    case $1 in
        redis*) ask "$port" 'PING\r\n' PONG ;;
        etcd) ETCDCTL_API=3 timeout 5 etcdctl --endpoints "127.0.0.1:$port" endpoint health >/dev/null 2>&1 ;;
        echo*) (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null ;;
        ostler3 | zookeeper3) for member in 0 1 2; do ask $((port + member)) srvr Mode || return 1; done ;;
        *) ask "$port" srvr Mode ;;
    esac
}

lives() { # lives ID: a zombie whose threads are gone too does not; while they end, its port and locks are still held
    [ -e "/proc/$1/status" ] || return 1
    grep -q '^State:[[:space:]]*[ZX]' "/proc/$1/status" 2>/dev/null || return 0
    [ "$(ls "/proc/$1/task" 2>/dev/null | wc -l)" -gt 1 ]
}

running() { # running NAME: whether one of its processes lives
    local id
    for id in $(cat "$state/$1/pids" 2>/dev/null); do lives "$id" && return 0; done
    return 1
}

end() { # end NAME SIGNAL: and waits until it has ended
    local id waited=0
    for id in $(cat "$state/$1/pids" 2>/dev/null); do kill "-$2" "$id" 2>/dev/null; done
    while running "$1"; do
        waited=$((waited + 1))
        if [ $waited = 1000 ]; then for id in $(cat "$state/$1/pids"); do kill -KILL "$id" 2>/dev/null; done; fi
        [ $waited -lt 6000 ] || die "$1 does not end"
        sleep 0.01
    done
}

start() {
    local name=$1 waited=0
    port_of "$name" >/dev/null || exit 1
    running "$name" && die "$name runs already: $0 stop $name"
    rm -rf "${state:?}/$name"
    mkdir -p "$state/$name"
    prepare "$name"
    launch "$name"
    while ! answers "$name"; do
        waited=$((waited + 1))
        running "$name" && [ $waited -lt 300 ] || { tail -n 5 "$state/$name/output" >&2; die "$name did not start"; }
        sleep 0.1
    done
    say "$name answers on port $(port_of "$name")"
}

target() {
    local port ids address
    port=$(port_of "$1") || exit 1
    running "$1" || die "$1 does not run"
    ids=$(paste -sd+ "$state/$1/pids")
    case $1 in
        redis*) address=redis://127.0.0.1:$port ;;
        echo*) address=echo://127.0.0.1:$port ;;
        ostler3 | zookeeper3) address=127.0.0.1:$port,127.0.0.1:$((port + 1)),127.0.0.1:$((port + 2)) ;;
        etcd) die "etcd speaks another protocol: etcdctl --endpoints 127.0.0.1:$port check perf" ;;
        *) address=127.0.0.1:$port ;;
    esac
    echo "--compare $address=$1=$ids"
}

[ $# -gt 0 ] || { sed -n '2,/^set -u/p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 2; }
command=$1
shift
case $command in
    start) for name in "$@"; do start "$name"; done ;;
    targets) for name in "$@"; do target "$name" || exit 1; done ;;
    kill) for name in "$@"; do end "$name" KILL; done ;;
    restart) for name in "$@"; do end "$name" KILL; launch "$name"; done ;;
    stop)
        [ $# -gt 0 ] || set -- $(ls "$state" 2>/dev/null)
        for name in "$@"; do
            end "$name" TERM
            rm -rf "${state:?}/$name"
        done
        ;;
    *) die "$command: no such command; see the head of $0" ;;
esac
