#!/bin/sh
set -eu
apt-get update -qq
apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 python3-venv
python3 -m venv /opt/worker
/opt/worker/bin/pip install --quiet --no-cache-dir --disable-pip-version-check 'psycopg[binary]==3.2.3' 'redis==5.2.1'
/opt/worker/bin/python -c 'import psycopg, redis'
