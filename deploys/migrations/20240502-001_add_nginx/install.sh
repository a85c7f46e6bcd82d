#!/bin/sh
set -eu
apt-get update -qq
apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 nginx-light
rm /etc/nginx/sites-enabled/default
cat >/etc/nginx/sites-enabled/www <<'END'
server {
    listen 80 default_server;
    root /srv/www;
    access_log /dev/stdout;
    location = /health { return 200 "ok\n"; }
}
END
install -d /srv/www
echo 'It works.' >/srv/www/index.html
nginx -t -q
