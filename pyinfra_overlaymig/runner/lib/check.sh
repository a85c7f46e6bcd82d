# What the runner needs of a machine. A tool that is there but lacks what we use of it counts as missing.
# shellcheck shell=dash

# capabilities_missing: the names of what this machine lacks, on one line, empty when it lacks nothing.
capabilities_missing() {
    local lacks tool package
    lacks=
    while read -r tool package; do
        command -v "$tool" >/dev/null 2>&1 || lacks="$lacks$tool (package $package), "
    done <<'END'
mount mount
umount mount
mountpoint util-linux
unshare util-linux
nsenter util-linux
pivot_root util-linux
setpriv util-linux
setsid util-linux
flock util-linux
cp coreutils
sha256sum coreutils
timeout coreutils
paste coreutils
find findutils
xargs findutils
comm coreutils
tar tar
gzip gzip
awk mawk
sed sed
grep grep
diff diffutils
getfattr attr
setfattr attr
base64 coreutils
s6-svscan s6
s6-svstat s6
s6-svlink s6
s6-notifyoncheck s6
s6-log s6
END
    # busybox's tools answer to these names, and drop overlay's extended attributes or NUL-separated names.
    for tool in cp find sed tar; do
        [ ! "$(command -v "$tool")" -ef "$(command -v busybox)" ] || lacks="${lacks}GNU $tool (busybox's is not enough), "
    done
    grep -q '	overlay$' /proc/filesystems || modprobe overlay 2>/dev/null || lacks="${lacks}overlayfs in the kernel, "
    printf '%s' "${lacks%, }"
}
