#!/bin/sh
# Holds every file that the audit log LOG becomes open, so that one which is rotated away can still be read: a busy
# session writes more than auditd keeps. Leaves DIRECTORY/gap if one came and went in between. Runs until it is killed
# or DIRECTORY is gone; those that hold end after it.
# usage: hold.sh DIRECTORY LOG
# shellcheck shell=dash
set -eu

# files: inode and name of the log's files, the oldest first, to standard output.
files() {
    stat -L -c '%i %n' -- "$log.9" "$log.8" "$log.7" "$log.6" "$log.5" "$log.4" "$log.3" "$log.2" "$log.1" "$log" 2>/dev/null || :
}

directory=$1 log=$2
last=$(stat -L -c %i -- "$log")
before=
while [ -d "$directory" ]; do
    now=$(files)
    if [ "$now" != "$before" ]; then
        # The one that was held last is still there under some name, or others may have been between.
        fresh=
        case "
$now" in
        *"
$last "*) ;;
        *) : >"$directory/gap" && fresh=yes ;;
        esac
        while read -r inode file; do
            if [ "$inode" = "$last" ]; then
                fresh=yes
                [ -z "$before" ] || continue
            fi
            [ -n "$fresh" ] || continue
            tail -f -s 1 --pid="$$" /dev/null <"$file" >/dev/null 2>&1 &
            echo "$!" >>"$directory/held"
            last=$inode
        done <<END
$now
END
        before=$now
    fi
    sleep 0.2
    # Nothing is started for these looks but the sleep.
    while [ -d "$directory" ] && [ "$log" -ef "/proc/$!/fd/0" ]; do sleep 0.2; done
done
