#!/bin/sh
# Compares paths of a running root's upper with the generation it runs over; the paths are in LISTS/paths.
# usage: drift.sh RUNNER-DIRECTORY UPPER-DIRECTORY GENERATION LISTS      (in the base view, in a mount namespace of its own)
set -eu

HERE=$1
for part in "$HERE"/lib/*.sh; do
    # shellcheck source=/dev/null
    . "$part"
done
mkdir -p "$4/below"
TMPDIR=$4
stack_mount_lower "$4/links" "$4/below" "$3"
compare "$2" "$4/below" "$4"
