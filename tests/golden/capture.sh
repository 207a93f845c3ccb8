#!/bin/sh
# Makes tests/golden/pg<version>.<text|binary>.frames again, from workload.sql on real servers.
#
# Servers: each directory in PG_BIN_DIRS (colon separated), by default all that
# scripts/fetch-postgres has. The client is any psql (PSQL). Run as root, the server is started as
# nobody. Protocol versions 1 and 2 differ only in what they allow: that they give the same frames
# as long as streaming is off is checked here, and one of them is kept.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
psql=${PSQL:-psql}
as=
[ "$(id -u)" -ne 0 ] || as="setpriv --reuid=nobody --regid=nogroup --clear-groups"

frames() { # protocol version, binary
    "$psql" -qXAt -F ' ' -v ON_ERROR_STOP=1 -c "SELECT lsn, shown(data)
        FROM pg_logical_slot_peek_binary_changes('golden', NULL, NULL, 'proto_version', '$1',
        'publication_names', 'p', 'messages', 'true', 'binary', '$2')"
}

capture() {
    bin=$1
    dir=$(mktemp -d)
    [ -z "$as" ] || chown nobody:nogroup "$dir"
    cd "$dir"
    $as "$bin/initdb" -D "$dir/data" -U postgres --no-sync -E UTF8 --locale=C >/dev/null
    $as "$bin/pg_ctl" -D "$dir/data" -w -l "$dir/log" -o "-k $dir -c listen_addresses='' \
        -c wal_level=logical -c fsync=off -c max_prepared_transactions=1" start >/dev/null
    trap '$as "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null; rm -rf "$dir"' EXIT
    export PGHOST="$dir" PGUSER=postgres PGDATABASE=postgres PGCLIENTENCODING=UTF8
    export PGOPTIONS="-c timezone=UTC -c intervalstyle=iso_8601 -c datestyle=ISO -c extra_float_digits=3"
    "$psql" -qXAt -v ON_ERROR_STOP=1 -f "$here/workload.sql" >/dev/null
    version=$("$psql" -qXAt -c "SHOW server_version_num" | sed 's/....$//')
    for format in text binary; do
        file=$here/pg$version.$format.frames
        case $format in text) binary=false ;; binary) binary=true ;; esac
        frames 1 $binary >"$file"
        frames 2 $binary >"$dir/version2"
        cmp "$file" "$dir/version2"
        wc -l "$file"
    done
}

bins=${PG_BIN_DIRS:-$("$here/../../scripts/fetch-postgres" --all | tr '\n' ':')}
IFS=:
for bin in $bins; do
    unset IFS
    (capture "$bin")
done
