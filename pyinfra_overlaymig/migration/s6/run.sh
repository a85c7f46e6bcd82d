#!/bin/sh
exec 2>&1
. ./one-instance.sh
#if needs
# What it needs is ready before it starts, whoever starts it, and after a restart of the machine too.
is_ready() {
    event=-U
    [ -e @SCANDIR@/"$1/notification-fd" ] || event=-u
    # No longer than a second at a time: what is stopped meanwhile must leave nobody waiting, and should say for what.
    s6-svwait -t 1000 "$event" @SCANDIR@/"$1" 2>/dev/null
}
while read -r need; do
    is_ready "$need" || {
        echo "@NAME@: waiting for $need"
        until is_ready "$need"; do sleep 0.2; done
    }
done <data/needs
#fi needs
#if pre-start
if ! ./pre-start >pre-start.said 2>&1; then
    cat pre-start.said
    echo "@NAME@: ./pre-start failed; it stays down until s6-svc -u"
    tail -n 1 pre-start.said >reason
    exit 111
fi
cat pre-start.said
rm -f reason
#fi pre-start
PATH="${PATH:-@PATH@}"
# By this its processes are known, also those that leave its session and close its output.
SYSTEM_MIGRATE_SERVICE=@NAME@
export PATH SYSTEM_MIGRATE_SERVICE
#if user
HOME=~@USER@ USER=@USER@ LOGNAME=@USER@
export HOME USER LOGNAME
#fi user
#if prepare
@ENVIRONMENT@./prepare || { echo "@NAME@: ./prepare failed with exit $?"; exit 111; }
#fi prepare
#if begins
echo >&3
exec 3>&-
#fi begins
exec @ENVIRONMENT@@NOTIFY@sh -c 'cd / && exec "$@"' sh @SETUID@"$(pwd -P)/main"
