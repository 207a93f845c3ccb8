# Sourced by run: which Docker engine the test talks to, and the end of one that it started.
#
# An engine that answers is used as it is. Otherwise root starts one of its own, in namespaces of
# its own: its bridges, firewall rules and mounts are never the machine's, nothing in it reaches
# another network, and all of it ends with its first process.
#
# shellcheck shell=bash

engine=none   # found | own | none
engine_pid=   # of unshare, which waits for the engine
engine_dir=   # everything the engine writes

engine_find_or_start() {
    if docker_answers; then
        engine=found
        return
    fi
    if [ "$(id -u)" != 0 ]; then
        fail "no Docker engine answers: start one, or set DOCKER_HOST, or run this as root," \
            "which starts an engine of its own"
    fi
    engine_install
    engine_start
}

docker_answers() {
    command -v docker >/dev/null && timeout 10 docker version --format '{{.Server.Version}}' \
        >/dev/null 2>&1
}

engine_install() {
    local missing=()
    command -v dockerd >/dev/null || missing+=(docker.io)
    command -v debootstrap >/dev/null || missing+=(debootstrap)
    docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null ||
        missing+=(docker-compose)
    command -v ip >/dev/null || missing+=(iproute2)
    [ ${#missing[@]} = 0 ] && return
    command -v apt-get >/dev/null ||
        fail "not installed, and no apt-get to install it: ${missing[*]}"
    say "installing ${missing[*]} (they stay)"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -qq --yes \
        --no-install-recommends "${missing[@]}" >"$work/apt.log" 2>&1 ||
        fail_with_file "apt-get could not install ${missing[*]}" "$work/apt.log"
}

engine_start() {
    engine_dir=$work/engine
    mkdir -p "$engine_dir"
    engine=own
    export DOCKER_HOST=unix://$engine_dir/docker.sock
    unset DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH
    # If this script is killed, the engine and with it every container is too.
    setpriv --pdeathsig KILL -- \
        unshare --net --mount --pid --fork --mount-proc --kill-child=KILL -- \
        sh -c 'ip link set lo up && exec dockerd "$@"' engine \
        --data-root "$engine_dir/data" --exec-root "$engine_dir/exec" \
        --pidfile "$engine_dir/pid" --host "$DOCKER_HOST" --cgroup-parent "/$project" \
        >"$engine_dir/log" 2>&1 &
    engine_pid=$!
    await "the engine's answer" 60 engine_is_up ||
        fail_with_file "dockerd did not start" "$engine_dir/log"
}

engine_is_up() {
    kill -0 "$engine_pid" 2>/dev/null || return 2
    docker_answers
}

engine_stop() {
    [ "$engine" = own ] || return 0
    local dockerd
    # unshare passes no signal on; its only child is dockerd.
    dockerd=$(ps --ppid "$engine_pid" -o pid= | tr -d ' ')
    [ -n "$dockerd" ] && kill -TERM "$dockerd" 2>/dev/null
    await "the engine's end" 30 engine_is_down || kill -KILL "$engine_pid" 2>/dev/null
    wait "$engine_pid" 2>/dev/null
    engine=none
    unset DOCKER_HOST
    # The control groups of the containers are the one thing that outlives the namespaces.
    find /sys/fs/cgroup -depth -type d -path "*/$project*" -exec rmdir {} + 2>/dev/null
    rm -rf --one-file-system "$engine_dir"
}

engine_is_down() {
    ! kill -0 "$engine_pid" 2>/dev/null
}

# What a stopped engine must not have left.
engine_leftovers() {
    ps -eo pid=,args= | grep -F -- "$work/engine" | grep -vF grep
    grep -F -- "$work/engine" /proc/self/mounts
    ls -d "$work/engine" 2>/dev/null
    find /sys/fs/cgroup -type d -name "$project" 2>/dev/null
    return 0
}
