#!/bin/sh
# It answers.
set -eu
# bash can open a connection, and comes with the base.
bash -c 'exec 3<>/dev/tcp/127.0.0.1/80; printf "GET /health HTTP/1.0\r\n\r\n" >&3; cat <&3' | grep -qx ok || {
    echo 'nginx does not answer /health'
    exit 1
}
