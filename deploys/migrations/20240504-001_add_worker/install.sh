#!/bin/sh
set -eu
useradd --system --no-create-home --shell /usr/sbin/nologin worker
