# Sourced by run: where the images come from.
#
# The public ones are pulled when that is possible. Otherwise stand-ins with the same contract are
# built from Debian's mirror, npm and Maven Central; what was fetched is kept in the cache folder,
# so that a second run fetches nothing.
#
# shellcheck shell=bash

images_made=()

images_provide() {
    # An engine of our own has no way out to a registry.
    if [ "$engine" = found ] && images_pull; then
        images=public
        return
    fi
    images=stand-in
    images_build_stand_ins
}

images_pull() {
    local variable image
    for variable in POSTGRES_IMAGE KAFKA_IMAGE BUILDER_IMAGE RUNTIME_IMAGE; do
        image=${!variable:-$(default_of "$variable")}
        docker image inspect "$image" >/dev/null 2>&1 && continue
        if ! timeout 600 docker pull --quiet "$image" >"$work/pull.log" 2>&1; then
            say "$image cannot be pulled: $(tail -n 1 "$work/pull.log")"
            return 1
        fi
    done
}

# The public name that docker-compose.yml gives a variable as its default.
default_of() {
    sed -n "s/.*\${$1:-\([^}]*\)}.*/\1/p" docker-compose.yml | head -n 1
}

images_build_stand_ins() {
    local binary jars server base
    command -v debootstrap >/dev/null ||
        fail "no image can be pulled, and debootstrap, which makes stand-ins, is not installed"

    binary=$(release_binary) || exit 1
    server=$(scripts/fetch-postgres 17 | tail -n 1) || fail "no PostgreSQL server to build from"
    jars=$(scripts/fetch-kafka | tail -n 1) || fail "no Kafka to build from"

    # Two bases: what the Dockerfile's runtime stage asks for and no more, so that a library it
    # forgot is missed here too; and one with what the two servers need.
    base_image slim ca-certificates,libssl3
    base_image servers ca-certificates,openjdk-17-jre-headless,postgresql-client-15

    export POSTGRES_IMAGE=$project/postgres KAFKA_IMAGE=$project/kafka
    export BUILDER_IMAGE=$project/rust RUNTIME_IMAGE=$project/slim
    build_stand_in postgres servers server="${server%/bin}"
    build_stand_in kafka servers libs="$jars"
    build_stand_in rust slim rowcast="$binary"
}

release_binary() {
    if [ -n "${ROWCAST_BIN:-}" ]; then
        [ -x "$ROWCAST_BIN" ] || fail "ROWCAST_BIN is no program: $ROWCAST_BIN"
        realpath "$ROWCAST_BIN"
        return
    fi
    say "building the release binary" >&2
    cargo build --release --locked --bin rowcast >&2 || fail "the release build failed"
    realpath "${CARGO_TARGET_DIR:-target}/release/rowcast"
}

base_image() { # name, packages
    local cached
    cached=$cache/compose/bookworm-$1-$(printf '%s' "$2" | cksum | cut -d ' ' -f 1).tar
    if [ ! -s "$cached" ]; then
        base_make "$2" "$cached"
    fi
    docker import - "$project/$1" <"$cached" >/dev/null || fail "could not import $cached"
    images_made+=("$project/$1")
}

base_make() { # packages, archive
    local root=$work/base mirror
    [ "$(id -u)" = 0 ] || fail "no image can be pulled, and debootstrap needs root"
    mirror=$(debian_mirror)
    say "making a base of Debian with ${1//,/, }"
    # In namespaces of its own, so that what it mounts and starts ends with it.
    unshare --mount --pid --fork --mount-proc --kill-child=KILL -- \
        debootstrap --variant=minbase --include="$1" bookworm "$root" "$mirror" \
        >"$work/debootstrap.log" 2>&1 ||
        fail_with_file "debootstrap failed" "$work/debootstrap.log"
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}/*
    mkdir -p "$(dirname "$2")"
    tar --create --directory="$root" --file="$2.$$" . && mv "$2.$$" "$2" ||
        { rm -f "$2.$$"; fail "could not write $2"; }
    rm -rf --one-file-system "$root"
}

# The machine's own mirror, so that a closed network's one is used.
debian_mirror() {
    local found
    found=$({
        sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/*.sources
        sed -n 's/^deb \(\[[^]]*\] \)\?\([^ ]*\) bookworm .*/\2/p' \
            /etc/apt/sources.list /etc/apt/sources.list.d/*.list
    } 2>/dev/null | grep -i debian | grep -v security | head -n 1)
    echo "${found:-http://deb.debian.org/debian}"
}

build_stand_in() { # name, base, what else goes into the context as name=path
    local context=$work/context-$1
    cp -r "tests/compose/$1" "$context"
    cp -r "${3#*=}" "$context/${3%%=*}"
    DOCKER_BUILDKIT=0 docker build --quiet --build-arg BASE="$project/$2" --tag "$project/$1" \
        "$context" >"$work/build.log" 2>&1 ||
        fail_with_file "could not build the stand-in for $1" "$work/build.log"
    images_made+=("$project/$1")
    rm -rf "$context"
}

images_remove() {
    [ ${#images_made[@]} = 0 ] || docker rmi --force "${images_made[@]}" >/dev/null 2>&1
    images_made=()
}
