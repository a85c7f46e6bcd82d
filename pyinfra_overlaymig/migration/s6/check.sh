#!/bin/sh
# One at a time, and nothing of it is left: s6-notifyoncheck gives up a check that takes too long, ends nothing of it,
# and begins the next one beside it.
SYSTEM_MIGRATE_CHECK=@NAME@.$$
export SYSTEM_MIGRATE_CHECK
timeout -k 1 5 ./check &
group=$!
wait "$group"
code=$?
kill -s KILL -- "-$group" 2>/dev/null
unset SYSTEM_MIGRATE_CHECK
grep -lz "^SYSTEM_MIGRATE_CHECK=@NAME@[.]$$\$" /proc/[0-9]*/environ 2>/dev/null | while read -r one; do
    one=${one#/proc/}
    kill -s KILL "${one%/*}" 2>/dev/null
done
exit "$code"
