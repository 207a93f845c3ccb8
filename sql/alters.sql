-- Does the transaction $1 hold a lock on the table $2 under which it may have altered the table? It
-- holds the lock until other transactions see the change.
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_locks AS own
    JOIN pg_catalog.pg_locks AS held USING (virtualtransaction)
    WHERE own.locktype = 'transactionid' AND own.transactionid = $1::pg_catalog.text::pg_catalog.xid
      AND own.mode = 'ExclusiveLock' AND own.granted
      AND held.locktype = 'relation' AND held.relation = $2 AND held.granted
      AND held.database = (SELECT oid FROM pg_catalog.pg_database
                           WHERE datname = pg_catalog.current_database())
      AND held.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock'))
