"""Takes jobs from the Redis list `jobs` and writes each down in the table `done` of PostgreSQL."""

import logging
import os
import signal
import sys

import psycopg
import redis

logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
LOG = logging.getLogger("worker")


def stop(*_: object) -> None:
    """Leave between two jobs."""
    sys.exit(0)


def main() -> None:
    jobs = redis.Redis(decode_responses=True)
    jobs.ping()
    with psycopg.connect("dbname=worker", autocommit=True) as database:
        database.execute("create table if not exists done (job text, at timestamptz default now())")
        os.write(3, b"\n")
        os.close(3)
        LOG.info("ready")
        while True:
            found = jobs.blpop(["jobs"], timeout=5)
            if found:
                database.execute("insert into done (job) values (%s)", (found[1],))
                LOG.info("done: %s", found[1])


signal.signal(signal.SIGTERM, stop)
main()
