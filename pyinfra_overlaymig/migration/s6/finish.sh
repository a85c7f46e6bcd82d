#!/bin/sh
#if stay-down
# A pre-start that failed will fail again: it stays down, and `status` says why.
[ ! -f reason ] || exit 125
#fi stay-down
#if check
# A check that hangs would hold the log, and meet the next start.
grep -lz '^SYSTEM_MIGRATE_CHECK=@NAME@[.]' /proc/[0-9]*/environ 2>/dev/null | while read -r one; do
    one=${one#/proc/}
    kill -s KILL "${one%/*}" 2>/dev/null || :
done
#fi check
#if sweep
# What the shell that was the service left running ends before the service counts as down.
# shellcheck disable=SC2094 # the file has the name of what is in it
read -r group _ <group
kill -s @SIGNAL@ -- "-$group" 2>/dev/null || :
tries=@TRIES@
while kill -0 -- "-$group" 2>/dev/null && [ "$tries" -gt 0 ]; do
    tries=$((tries - 1))
    sleep 0.1
done
kill -s KILL -- "-$group" 2>/dev/null || :
#fi sweep
