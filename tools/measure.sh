#!/usr/bin/env bash
# Measures one row of docs/performance.md again: starts the servers that it needs, runs its load on them in turn, stops them.
#
#   tools/measure.sh ROW...      such as: tools/measure.sh 1 2 2-lone 5
#   tools/measure.sh --list      the rows, with what each does
#
# Nothing else should run meanwhile; docs/performance.md says what disturbs. The environment of tools/compare.sh holds here too
# (OSTLER_COMPARE, OSTLER_COMPARE_PORT, OSTLER_BIN, OSTLER_COMPARE_HEAP). OSTLER_MEASURE: more words for `ostler bench`, such as
# "--html row.html" or "--rounds 1 --seconds 1" for a short try.
#
# Wants: cargo build --release --bins --examples
set -u
here=$(cd "$(dirname "$0")/.." && pwd)
export OSTLER_BIN=${OSTLER_BIN:-$here/target/release/ostler}
read -ra more <<<"${OSTLER_MEASURE:-}"

usage() { sed -n '2,/^set -u/{/^#/s/^# \{0,1\}//p}' "$0"; }
# A row's line below is its own description.
list() { sed -n 's/^ \{8\}\([a-z0-9-]*\)) \(.*\) # \(.*\)$/\1\t\3/p' "$0"; }
started=()
# One by one, so that what is stopped is what was started here, and no server of anybody else's.
start() {
    local server
    for server in "$@"; do
        "$here/tools/compare.sh" start "$server" || exit 1
        started+=("$server")
    done
}
stop() {
    [ ${#started[@]} = 0 ] || "$here/tools/compare.sh" stop "${started[@]}" >/dev/null 2>&1
    started=()
}
targets() { "$here/tools/compare.sh" targets "$@"; }
# load SERVERS WORDS...: the load on these servers in turn.
load() {
    local servers=$1
    shift
    # shellcheck disable=SC2046,SC2086 # names and words, which are to be split
    "$OSTLER_BIN" bench "$@" "${more[@]}" $(targets $servers) || exit 1
}
# alone SERVER ROUNDS WORDS...: the load on one server, so many times.
alone() {
    local server=$1 rounds=$2 address name pids
    shift 2
    for ((; rounds > 0; rounds--)); do
        # Anew: a load may restart the server.
        IFS='= ' read -r _ address name pids <<<"$(targets "$server")"
        echo "$name:"
        "$OSTLER_BIN" bench "$@" "${more[@]}" --server "$address" --pid "$pids" || exit 1
    done
}
# loaded SERVERS WORDS...: the same, on servers started for it.
loaded() {
    # shellcheck disable=SC2086
    start $1
    load "$@"
}
# each SERVERS WORDS...: the load on one server at a time, the others not running.
each() {
    local servers=$1 server
    shift
    for server in $servers; do
        start "$server"
        alone "$server" 1 "$@"
        stop
    done
}
# starts KEYS ROUNDS: from kill -9 to the first answer, with so many znodes.
starts() {
    start ostler zookeeper
    [ "$1" = 0 ] || load "ostler zookeeper" fill --keys "$1" --keep --rounds 1
    "$here/tools/start_time.py" ostler zookeeper --rounds "$2"
}
# filled SETTINGS: the mix on a million znodes.
filled() {
    export OSTLER_COMPARE_SETTINGS=$1
    start ostler
    alone ostler 1 fill --keys 1000000 --keep --root /filled
    # What has been written is not to be written meanwhile.
    sync
    alone ostler 4 mixed --rate 20000 --seconds 12 --warmup 2
    unset OSTLER_COMPARE_SETTINGS
}
storm() {
    local server
    start ostler zookeeper
    for server in ostler zookeeper; do
        alone "$server" 3 storm --connections 10000 --watches 100 --keys 10000 \
            --during "$here/tools/compare.sh restart $server"
    done
}
at_equal_load() { # at_equal_load WORKLOAD OTHERS BURST RATE...
    local workload=$1 others=$2 burst=$3 rate
    shift 3
    start ostler zookeeper $others
    for rate in "$@"; do
        load "ostler zookeeper $others" "$workload" --rate "$rate" --burst "$burst" --rounds 3 --seconds 3
    done
}

row() {
    case $1 in
        1) loaded "ostler zookeeper redis echo" get --rounds 5 --seconds 2 ;; # getData, 50 connections, 16 in flight each
        2) loaded "ostler zookeeper redis echo" get --connections 50 --depth 1 --rounds 5 --seconds 2 ;; # getData, 50 connections, 1 in flight each
        2-lone) loaded "ostler zookeeper redis echo" get --connections 1 --depth 1 --rounds 7 --seconds 2 ;; # getData, 1 connection, 1 in flight
        3) loaded "ostler zookeeper redis-always" set --rounds 5 --seconds 2 ;; # setData, 50 connections, 16 in flight each
        3-create) loaded "ostler zookeeper" create --rounds 5 --seconds 2 ;; # create, 50 connections, 16 in flight each
        4) loaded "ostler zookeeper redis-always echo-sync" set --connections 1 --depth 1 --rounds 5 --seconds 2 ;; # setData, one client, one at a time
        5) loaded "ostler zookeeper redis-always" mixed --depth 8 --rounds 7 --seconds 2 ;; # 10 getData : 1 setData, 50 connections, 8 in flight each
        6) loaded "ostler zookeeper" mixed --rate 39000 --seconds 600 --warmup 5 --rounds 4 ;; # the mix at half of ZooKeeper's peak (80 minutes)
        6-echo) loaded "ostler echo-sync" mixed --rate 39000 --seconds 600 --warmup 5 --rounds 4 ;; # the same beside the echo with a sync (80 minutes)
        7) filled snapCount=10000 ;; # the mix while a million znodes are written as snapshots, all the time
        7-without) filled "" ;; # the same without snapshots
        8) each "ostler zookeeper" fill --keys 1000000 --churn 1000000 --keep ;; # memory of a million znodes, after a fill and a million changes
        9) each "ostler zookeeper" idle --connections 1000 --watches 1000 --keys 1000000 --seconds 5 ;; # memory of a million watches
        9-sessions) each "ostler zookeeper" idle --connections 19000 --seconds 5 ;; # memory of idle sessions
        10) starts 0 5 ;; # start to the first answer, empty
        10-million) starts 1000000 6 ;; # the same with a million znodes
        10-ten-million) OSTLER_COMPARE_HEAP=12g starts 10000000 6 ;; # the same with ten million znodes, which want 16 GB of memory
        11) loaded "ostler zookeeper" watch-one --connections 10000 --requests 10 --rounds 5 ;; # one write seen by 10,000 watchers
        12) loaded "ostler zookeeper" children-change --keys 100000 --connections 4 --depth 1 --seconds 5 --rounds 3 ;; # getChildren of 100,000, one child changing
        13) storm ;; # 10,000 sessions with 100 watches each come back after a restart
        14) each "ostler zookeeper" idle --connections 0 --seconds 20 ;; # an idle server
        load-get) at_equal_load get "redis echo" 16 45000 5000 ;; # getData at equal load, 16 at a time
        load-get-single) at_equal_load get "redis echo" 1 45000 5000 ;; # the same, one at a time
        load-set) at_equal_load set redis-always 16 40000 20000 ;; # setData at equal load, 16 at a time
        load-set-single) at_equal_load set redis-always 1 40000 20000 ;; # the same, one at a time
        load-create) at_equal_load create "" 16 30000 15000 ;; # create at equal load, 16 at a time
        load-create-single) at_equal_load create "" 1 30000 ;; # the same, one at a time
        load-mix) at_equal_load mixed redis-always 8 39000 20000 ;; # the mix at equal load, 8 at a time
        load-mix-single) at_equal_load mixed redis-always 1 39000 20000 ;; # the same, one at a time
        three-set) loaded "ostler3 zookeeper3" set --rounds 3 --seconds 3 ;; # ensembles of three: setData, 50 connections, 16 in flight each
        three-lone) loaded "ostler3 zookeeper3" set --connections 1 --depth 1 --rounds 7 --seconds 3 ;; # setData, one client, one at a time
        three-mix) loaded "ostler3 zookeeper3" mixed --depth 8 --rounds 3 --seconds 3 ;; # the mix, 50 connections, 8 in flight each
        three-get) loaded "ostler3 zookeeper3" get --rounds 3 --seconds 3 ;; # getData, 50 connections, 16 in flight each
        three-fail-over) (cd "$here" && OSTLER_FAIL_OVER_ROUNDS=20 cargo test --release --test fail_over -- --ignored --nocapture) ;; # the gap in writes when the leader goes
    esac
}

case ${1:-} in
    "" | -h | --help) usage; exit ;;
    --list) list; exit ;;
esac
for name in "$@"; do
    list | cut -f 1 | grep -qxF -- "$name" && continue
    echo "measure: $name: no such row; tools/measure.sh --list has them" >&2
    exit 2
done
trap 'stop; exit 130' INT TERM
trap stop EXIT
for name in "$@"; do
    echo "== $name: $(list | sed -n "s/^$name	//p")"
    row "$name"
    stop
done
