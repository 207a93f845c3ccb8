#!/bin/sh
# Makes tests/golden/pg<version>.hex again: one line a frame, its LSN and its bytes in hexadecimal.
# Servers: each directory in PG_BIN_DIRS (colon separated), by default Debian's PostgreSQL 15.
# The client is any psql (PSQL). Run as root, the server is started as nobody.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
psql=${PSQL:-/usr/lib/postgresql/15/bin/psql}
as=
[ "$(id -u)" -ne 0 ] || as="setpriv --reuid=nobody --regid=nogroup --clear-groups"

capture() {
    bin=$1
    dir=$(mktemp -d)
    [ -z "$as" ] || chown nobody:nogroup "$dir"
    cd "$dir"
    $as "$bin/initdb" -D "$dir/data" -U postgres --no-sync -E UTF8 --locale=C >/dev/null
    $as "$bin/pg_ctl" -D "$dir/data" -w -l "$dir/log" -o "-k $dir -c listen_addresses='' \
        -c wal_level=logical -c fsync=off" start >/dev/null
    trap '$as "$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null; rm -rf "$dir"' EXIT
    export PGHOST="$dir" PGUSER=postgres PGDATABASE=postgres
    export PGOPTIONS="-c timezone=UTC -c intervalstyle=iso_8601 -c datestyle=ISO -c extra_float_digits=3"
    "$psql" -qXAt -v ON_ERROR_STOP=1 -f "$here/workload.sql" >/dev/null
    version=$("$psql" -qXAt -c "SHOW server_version_num" | sed 's/....$//')
    "$psql" -qXAt -F ' ' -c "SELECT lsn, encode(data, 'hex')
        FROM pg_logical_slot_get_binary_changes('golden', NULL, NULL, 'proto_version', '1',
        'publication_names', 'p', 'messages', 'true')" >"$here/pg$version.hex"
    wc -l "$here/pg$version.hex"
}

IFS=:
for bin in ${PG_BIN_DIRS:-/usr/lib/postgresql/15/bin}; do
    unset IFS
    (capture "$bin")
done
