# init: lays out /data/system and installs this runner there, in place of any other version.
# shellcheck shell=dash

verb_init() {
    local digest name home previous
    need_root
    [ -d "$DATA" ] || die 111 "there is no $DATA" "mount the machine's persistent volume at $DATA"
    layout
    lock_take init
    digest=$(cat "$HERE/digest")
    case $digest in *[!0-9a-f]* | '') die 4 'this runner has no digest' 'install it with machine_prepared' ;; esac
    name=$(printf '%s' "$digest" | cut -c1-12)
    home=$SYS/runner
    if [ ! -d "$home/$name" ]; then
        rm -rf -- "$home/$name.new"
        mkdir -p "$home/$name.new"
        cp -R -- "$HERE/." "$home/$name.new/"
        chmod 755 "$home/$name.new/system-migrate"
        sync -f "$home"
        mv -T -- "$home/$name.new" "$home/$name"
    fi
    previous=$(readlink -- "$home/system-migrate" 2>/dev/null || :)
    ln -sfn "$name/system-migrate" "$home/system-migrate.new"
    mv -fT -- "$home/system-migrate.new" "$home/system-migrate"
    sync "$home"
    # A verb that runs at this moment may still read from the version before: the ones before that go.
    find "$home" -mindepth 1 -maxdepth 1 -type d ! -name "$name" ! -name "${previous%%/*}" -exec rm -rf -- {} +
    # In a root that is an overlay of ours this would be drift: there the image has to have the link.
    if ! mountpoint -q "$BASE" && [ ! -e /usr/local/sbin/system-migrate ]; then
        ln -s "$home/system-migrate" /usr/local/sbin/system-migrate
    fi
    say "runner $VERSION ($name) is installed in $home"
}
