#!/bin/sh
# A job that is put into Redis is found in PostgreSQL.
set -eu
cd /
job=verify-$$
redis-cli rpush jobs "$job" >/dev/null
tries=0
until s6-setuidgid worker psql -qAt -c "select 1 from done where job = '$job'" worker | grep -q 1; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || { echo 'the worker did not do its job'; exit 1; }
    sleep 0.1
done
