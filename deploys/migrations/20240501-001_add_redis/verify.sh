#!/bin/sh
# What is written is read again.
set -eu
redis-cli set overlaymig:verify 5050 >/dev/null
[ "$(redis-cli getdel overlaymig:verify)" = 5050 ] || { echo 'redis does not keep what it is given'; exit 1; }
