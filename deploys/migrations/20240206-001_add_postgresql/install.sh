#!/bin/sh
set -eu
apt-get update -qq
# The package's own script creates the cluster `main`, in /var/lib/postgresql and /etc/postgresql.
apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 postgresql
