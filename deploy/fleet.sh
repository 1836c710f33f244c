#!/bin/sh
# Some workers and a gateway on this machine, until Ctrl-C or SIGTERM: then the gateway goes first, and the workers when they
# have finished what runs. A worker that dies is started again, and the gateway finds it by itself.
set -eu

usage() {
    cat >&2 <<END
usage: deploy/fleet.sh [-n WORKERS] [-p PORT] [-g smg|vllm-router] [-w grpc|http] [-l FOLDER] MODEL [FLAG OF vllm-mlx serve]...

  -n  workers                                          [default: 2]
  -p  the gateway's port; those above it are taken, too [default: 30000]
  -g  which gateway (pip install smg, or vllm-router)   [default: smg]
  -w  how it speaks with the workers; vllm-router wants a folder with tokenizer.json in VLLM_ROUTER_MODEL for grpc
      [default: grpc with smg, http with vllm-router]
  -l  folder for the logs                               [default: the terminal]

VLLM_MLX and GATEWAY may name the programs, GATEWAY_FLAGS adds flags to the gateway's.
END
    exit 2
}

workers=2 port=30000 gateway=smg wire= logs=
while getopts n:p:g:w:l: option; do
    case $option in
        n) workers=$OPTARG ;;
        p) port=$OPTARG ;;
        g) gateway=$OPTARG ;;
        w) wire=$OPTARG ;;
        l) logs=$OPTARG ;;
        *) usage ;;
    esac
done
shift $((OPTIND - 1))
[ $# -ge 1 ] || usage
case $workers$port in *[!0-9]*) usage ;; esac
case $gateway in
    smg) launch="${GATEWAY:-smg} launch" wire=${wire:-grpc} ;;
    vllm-router) launch=${GATEWAY:-vllm-router} wire=${wire:-http} ;;
    *) usage ;;
esac
case $wire in grpc | http) ;; *) usage ;; esac
[ -z "$logs" ] || mkdir -p "$logs"

# Runs a command with its output where it belongs: $1 is whose it is.
logged() {
    name=$1
    shift
    if [ -n "$logs" ]; then exec "$@" >>"$logs/$name.log" 2>&1; else exec "$@"; fi
}

# Worker $1, again and again until it ends by itself in order. $2 is its HTTP port, $3 its gRPC port.
work() {
    name=worker-$1 http=$2 grpc=$3 child='' stopping=''
    shift 3
    trap 'stopping=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || :' TERM
    trap '' INT
    while [ -z "$stopping" ]; do
        ports="--port $http"
        [ "$wire" = http ] || ports="$ports --grpc-port $grpc"
        # shellcheck disable=SC2086
        (trap - TERM; logged "$name" "${VLLM_MLX:-vllm-mlx}" serve "$@" --host 127.0.0.1 $ports) &
        child=$!
        code=0
        wait "$child" || code=$?
        # A trap ends `wait` before the worker has ended.
        while kill -0 "$child" 2>/dev/null; do
            code=0
            wait "$child" || code=$?
        done
        [ "$code" -ne 0 ] || break
        [ -n "$stopping" ] || { echo "fleet: $name ended with $code, starting it again" >&2; sleep 1; }
    done
}

ready() {
    curl --silent --fail --max-time 2 --output /dev/null "http://127.0.0.1:$1/ready"
}

pids='' gate='' stopping=''
stop() {
    stopping=1
    # What has no gateway before it gets nothing new.
    if [ -n "$gate" ]; then
        kill -TERM "$gate" 2>/dev/null || :
        while kill -0 "$gate" 2>/dev/null; do wait "$gate" || :; done
    fi
    # shellcheck disable=SC2086
    [ -z "$pids" ] || kill -TERM $pids 2>/dev/null || :
    for pid in $pids; do
        while kill -0 "$pid" 2>/dev/null; do wait "$pid" || :; done
    done
}
trap 'stop; exit 0' INT TERM
trap '[ -n "$stopping" ] || stop' EXIT

urls='' number=1
while [ "$number" -le "$workers" ]; do
    http=$((port + 2 * number)) grpc=$((port + 2 * number + 1))
    work "$number" "$http" "$grpc" "$@" &
    pids="$pids $!"
    if [ "$wire" = grpc ]; then urls="$urls grpc://127.0.0.1:$grpc"; else urls="$urls http://127.0.0.1:$http"; fi
    number=$((number + 1))
done
number=1
for pid in $pids; do
    until ready $((port + 2 * number)); do
        kill -0 "$pid" 2>/dev/null || { echo "fleet: worker-$number does not start" >&2; exit 1; }
        sleep 0.2
    done
    number=$((number + 1))
done
# shellcheck disable=SC2086
logged gateway $launch --host 127.0.0.1 --port "$port" --prometheus-host 127.0.0.1 --prometheus-port $((port + 1)) \
    --policy cache_aware --health-check-interval-secs 2 --worker-startup-check-interval 1 \
    --worker-urls $urls ${GATEWAY_FLAGS:-} &
gate=$!
until curl --silent --fail --max-time 2 --output /dev/null "http://127.0.0.1:$port/readiness"; do
    kill -0 "$gate" 2>/dev/null || { echo "fleet: $gateway does not start" >&2; exit 1; }
    sleep 0.2
done
echo "fleet: $workers workers behind $gateway at http://127.0.0.1:$port" >&2
code=0
wait "$gate" || code=$?
echo "fleet: $gateway ended with $code" >&2
exit 1
