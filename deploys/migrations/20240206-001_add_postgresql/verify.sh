#!/bin/sh
# The server is up, and it can write: a table is made, filled, read and forgotten again.
set -eu
cd /
answer=$(s6-setuidgid postgres psql -qAt -v ON_ERROR_STOP=1 <<'SQL'
begin;
create temporary table overlaymig_verify (n integer) on commit drop;
insert into overlaymig_verify select generate_series(1, 100);
select sum(n) from overlaymig_verify;
commit;
SQL
)
[ "$answer" = 5050 ] || { echo "postgresql answered '$answer' instead of 5050"; exit 1; }
