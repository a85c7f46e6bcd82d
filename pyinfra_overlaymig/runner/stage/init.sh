#!/bin/sh
# Process 1 of a stage: mounts the stage's root, runs the install script in it, and takes everything down by ending.
# usage: init.sh RUNNER-DIRECTORY ID SECONDS [watched]       (in the base view, in mount and pid namespaces of its own)
set -eu

# It ends every process it can see: never outside a pid namespace of its own.
[ "$$" -eq 1 ] || exit 100
HERE=$1 id=$2 limit=$3
for part in "$HERE"/lib/*.sh; do
    # shellcheck source=/dev/null
    . "$part"
done
stage=$SYS/staging/$id
root=$stage/root
# Process 1 of the machine, not of this namespace: /proc is still the machine's.
live=$LIVE

# mount_essentials: what a root needs to run programs. /run is the stage's own: sockets of the live services are not
# a migration's to talk to. /data stays out: a migration must not reach its own layers.
mount_essentials() {
    mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/tmp"
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    if [ -d "$root/dev/shm" ]; then mount -t tmpfs tmpfs "$root/dev/shm"; fi
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    mkdir -p "$root/run/lock" "$root/run/migration"
    chmod 1777 "$root/run/lock"
    # The live root's: a platform may have mounted them over the image's.
    for name in resolv.conf hosts; do
        if cat "$live/etc/$name" >"$root/run/migration/$name" 2>/dev/null && [ -f "$root/etc/$name" ]; then
            mount --bind "$root/run/migration/$name" "$root/etc/$name"
        fi
    done
}

# go_on_watched: from here on the session is watched. The runner sees to it, as the kernel obeys no inner pid namespace;
# what it is to leave out is known only here. Begins anew, as what audit sees of a process begins with its program.
go_on_watched() {
    audit_quiet "$stage/audit" "$root"
    tries=0
    until [ -e "$stage/audit/watched" ]; do
        tries=$((tries + 1))
        # Nobody is there any more, where the runner was killed before this could be told.
        [ "$tries" -lt 6000 ] || exit 100
        sleep 0.01
    done
    exec /bin/sh "$HERE/stage/init.sh" "$HERE" "$id" "$limit" watched
}

# lay_files: the bundle's files/ over the stage, directories that exist keep their owner, mode and being links;
# the services' directories beside them.
lay_files() {
    if [ -d "$stage/files" ]; then
        tar -C "$stage/files" -cf - . |
            tar -C "$root" -xpf - --no-overwrite-dir --keep-directory-symlink
    fi
    for service in "$stage/services"/*/; do
        [ -d "$service" ] || continue
        service=${service%/}
        mkdir -p "$root/$SERVICES"
        rm -rf -- "${root:?}/$SERVICES/${service##*/}"
        cp -a -- "$service" "$root/$SERVICES/"
    done
}

# stage_state: every state path becomes an overlay of its own over what /data/state holds now, so that the script sees
# state, may change it, and none of it is real until the commit. One seen for the first time starts from the stack's.
stage_state() {
    number=0
    while read -r path; do
        number=$((number + 1))
        unescape "$path"
        dir=$stage/state/$number
        state_place "$root" "$unescaped"
        mkdir -p "$dir/upper" "$dir/work" "$contents"
        if [ -d "$STATE$unescaped" ]; then
            ln -s "$STATE$unescaped" "$dir/lower"
        else
            cp -a -- "$contents" "$dir/lower"
        fi
        chmod --reference="$dir/lower/." "$dir/upper"
        chown --reference="$dir/lower/." "$dir/upper"
        (cd "$dir" && mount -t overlay overlay -o "$PLAIN,lowerdir=lower,upperdir=upper,workdir=work,volatile" "$contents")
    done <"$stage/state/paths"
}

# no_daemons: a policy-rc.d that lets no maintainer script start a service. Bound in, not written into the layer:
# its mount point is made for the run and taken away after it.
no_daemons() {
    printf '#!/bin/sh\nexit 101\n' >"$root/run/migration/policy-rc.d"
    chmod 755 "$root/run/migration/policy-rc.d"
    policy=$root/usr/sbin/policy-rc.d
    policy_made=
    [ -e "$policy" ] || { : >"$policy" && policy_made=yes; }
    mount --bind "$root/run/migration/policy-rc.d" "$policy"
}

# services_may_start: undoes no_daemons.
services_may_start() {
    umount "$policy"
    [ -z "$policy_made" ] || rm -f -- "$policy"
}

# run_script: the install script, in a session of its own, with nothing of the operator's environment. dpkg need not sync
# each file: a crash throws the stage away, and all of it is synced at once before the commit.
run_script() {
    cp -- "$stage/install.sh" "$root/run/migration/install.sh"
    chmod 755 "$root/run/migration/install.sh"
    setsid -w timeout --kill-after=10 "$limit" \
        chroot "$root" /usr/bin/env -i --default-signal=HUP,PIPE,INT,TERM,QUIT \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb \
        DEBIAN_FRONTEND=noninteractive DPKG_FORCE=security-mac,downgrade,unsafe-io \
        MIGRATION_ID="$id" /run/migration/install.sh 9>&-
}

# unwatched: what follows is the runner's own work: it goes on in an audit session that no rule names.
unwatched() {
    [ -f "$stage/audit/session" ] || return 0
    read -r owner </proc/self/loginuid || :
    printf '%s' "$owner" 2>/dev/null >/proc/self/loginuid || :
}

# state_trees: a state path that is new to this machine leaves its whole contents in state/<k>/tree.
state_trees() {
    number=0
    while read -r path; do
        number=$((number + 1))
        unescape "$path"
        [ ! -L "$stage/state/$number/lower" ] || continue
        if [ -z "$(find "$stage/state/$number/lower" -mindepth 1 -print -quit)" ]; then
            cp -al -- "$stage/state/$number/upper" "$stage/state/$number/tree"
        else
            state_place "$root" "$unescaped"
            cp -a -- "$contents" "$stage/state/$number/tree"
        fi
    done <"$stage/state/paths"
}

# link_state: a state path that the manifest wants as a link is one in the layer, and no mount.
link_state() {
    plan_values state-link "$stage/plan" | while read -r path; do
        unescape "$path"
        [ ! -L "$root$unescaped" ] || continue
        umount "$root$unescaped"
        rm -rf -- "$root$unescaped"
        ln -s -- "$STATE$unescaped" "$root$unescaped"
    done
}

# stage_inodes: what audit's inode numbers are called, as long as the mounts that have them are there.
stage_inodes() {
    [ -f "$stage/audit/session" ] || return 0
    audit_inodes "$stage/audit" "$stage/upper" "$root" ''
    number=0
    while read -r path; do
        number=$((number + 1))
        unescape "$path"
        state_place "$root" "$unescaped"
        audit_inodes "$stage/audit" "$stage/state/$number/upper" "$contents" "${path#/}"
    done <"$stage/state/paths"
}

if [ "${4-}" != watched ]; then
    stack_mount "$RUN/stack" "$root" "$stage/upper" "$stage/work" volatile
    mount_essentials
    go_on_watched
fi
lay_files
stage_state
no_daemons
audit_places "$stage/audit" "$root" "$stage/state/paths"
started=$(date +%s)
status=0
run_script || status=$?
case $status in
124 | 137) [ $(($(date +%s) - started)) -lt "$limit" ] || printf 'timeout\n' >"$stage/timeout" ;;
esac
# What the script left running ends before anything is read from the stage.
kill -KILL -- -1 2>/dev/null || :
unwatched
services_may_start
if [ "$status" -eq 0 ]; then
    stage_inodes &
    state_trees
    wait "$!"
    link_state
fi
exit "$status"
