"""What a script did to its stage, and only that, is in the layer and in changes.list."""

from __future__ import annotations

import json

import pytest

from tests.rig import RUNNER, Rig

ID = "20250101-001_every_kind_of_change"

SCRIPT = r"""
rm -rf /usr/share/doc/tar                                  # a directory of the base
rm /usr/share/common-licenses/GPL                          # a link of the base
rm /etc/issue; mkdir /etc/issue; echo in >/etc/issue/in    # a file becomes a directory
mv /etc/default /etc/default-moved                         # a directory of the base is renamed
rm -rf /usr/share/pixmaps; mkdir /usr/share/pixmaps; echo 1 >/usr/share/pixmaps/one   # replaced: opaque
cp /bin/true /usr/local/bin/capped
setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 /usr/local/bin/capped
echo x >"$(printf '/opt/new\nline')"
echo x >/opt/-dash
echo x >"$(printf '/opt/by\377te')"
echo x >'/opt/back\slash'
mkdir '/opt/a b'; echo x >"$(printf '/opt/a b/c\td')"
ln /opt/-dash /opt/hard
ln -s nowhere /opt/link
mkfifo /opt/fifo
chmod 600 /etc/host.conf                                   # metadata alone
setfattr -n user.tool -v migrated /etc/debian_version
cat /etc/passwd >/etc/passwd.copy; cat /etc/passwd.copy >/etc/passwd; rm /etc/passwd.copy
touch -r /usr/share/common-licenses/BSD /etc/passwd        # content and all but the time as before
exec 3<>/etc/group; exec 3>&-                              # opened for writing: copied up, unchanged
chmod 755 /usr/bin                                         # as it was
echo junk >/tmp/junk; echo junk >/var/tmp/junk; echo junk >/run/junk
: >/opt/gone; rm /opt/gone
"""


@pytest.fixture(scope="module")
def applied(rig: Rig) -> Rig:
    result = rig.apply(ID, SCRIPT)
    assert result.code == 0, result.text
    return rig


@pytest.fixture(scope="module")
def changes(applied: Rig) -> dict[str, list[str]]:
    lines = applied.sh(f"cat /data/system/migrations/{ID}/changes.list").splitlines()
    return {line.split(" ")[8]: line.split(" ") for line in lines}


@pytest.mark.parametrize(
    ("path", "op", "kind"),
    [
        ("usr/share/doc/tar", "D", "-"),
        ("usr/share/common-licenses/GPL", "D", "-"),
        ("etc/issue", "C", "d"),
        ("etc/issue/in", "A", "f"),
        ("etc/default", "D", "-"),
        ("etc/default-moved/useradd", "A", "f"),
        ("usr/share/pixmaps", "C", "d"),
        ("usr/share/pixmaps/one", "A", "f"),
        ("usr/local/bin/capped", "A", "f"),
        ("opt/new\\012line", "A", "f"),
        ("opt/-dash", "A", "f"),
        ("opt/back\\134slash", "A", "f"),
        ("opt/a\\040b/c\\011d", "A", "f"),
        ("opt/link", "A", "l"),
        ("opt/fifo", "A", "p"),
        ("etc/host.conf", "M", "f"),
        ("etc/debian_version", "M", "f"),
        ("etc/passwd", "M", "f"),
    ],
)
def test_change_is_recorded(changes: dict[str, list[str]], path: str, op: str, kind: str) -> None:
    """Every kind of change is told as what it was, by its own path."""
    assert changes[path][:2] == [op, kind]


@pytest.mark.parametrize(
    "path", ["etc/group", "usr/bin", "usr", "opt/gone", "tmp/junk", "var/tmp/junk", "run/junk", "tmp", "etc"]
)
def test_no_change_is_no_line(changes: dict[str, list[str]], path: str) -> None:
    """A file that was only copied up, a directory that only holds changes and what is temporary are no changes."""
    assert path not in changes


def test_hard_link_and_target_are_told(changes: dict[str, list[str]]) -> None:
    """A second name of a file names the first, a link its target, an attribute its value."""
    assert changes["opt/hard"][9:] == ["==", "opt/-dash"]
    assert changes["opt/link"][9:] == ["->", "nowhere"]
    assert changes["etc/debian_version"][7] == "user.tool=0x6d69677261746564"


def test_running_root_is_what_the_script_made(applied: Rig) -> None:
    """After the switch the running root shows exactly what the script left in its stage."""
    applied.sh(
        r"""
        test ! -e /usr/share/doc/tar; test ! -e /usr/share/common-licenses/GPL; test ! -e /etc/default
        test -d /etc/issue; test -f /etc/default-moved/useradd
        test "$(ls /usr/share/pixmaps)" = one
        test "$(cat "$(printf '/opt/new\nline')")" = x; test "$(cat "$(printf '/opt/by\377te')")" = x
        test "$(stat -c %a /etc/host.conf)" = 600
        test /opt/-dash -ef /opt/hard; test -p /opt/fifo
        getfattr -n security.capability /usr/local/bin/capped >/dev/null
        test ! -e /tmp/junk; test ! -e /run/junk
        """
    )


def test_layer_holds_no_unchanged_file(applied: Rig) -> None:
    """What was copied up and left as it was takes no room in the layer."""
    applied.sh(f"test ! -e /data/system/layers/{ID}/etc/group && test ! -e /data/system/layers/{ID}/usr/bin")


def test_same_script_gives_the_same_layer(fresh: Rig, applied: Rig) -> None:
    """Two machines that run one script agree on the layer, by its digest."""
    assert fresh.apply(ID, SCRIPT).code == 0
    digests = {one.sh(f"grep ^layer /data/system/migrations/{ID}/record") for one in (fresh, applied)}
    assert len(digests) == 1


def test_later_migration_builds_on_earlier_ones(applied: Rig) -> None:
    """A script sees what earlier migrations made, and may change and delete it."""
    result = applied.apply(
        "20250102-001_on_top",
        "test -d /etc/issue; rm -r /etc/issue; echo back >/etc/issue; rm /opt/link; "
        "test ! -e /etc/default; mkdir /etc/default",
    )
    assert result.code == 0, result.text
    applied.sh('test "$(cat /etc/issue)" = back; test ! -L /opt/link; test -z "$(ls -A /etc/default)"')


def test_file_of_300_mb(applied: Rig) -> None:
    """A layer of 300 MB is sealed and shows, byte for byte."""
    result = applied.apply(
        "20250103-001_large", "head -c 300000000 /dev/urandom >/opt/large; sha256sum /opt/large >/opt/sum"
    )
    assert result.code == 0, result.text
    applied.sh("sha256sum -c --quiet /opt/sum")


def test_status_lists_them_in_order(applied: Rig) -> None:
    """Status names the applied migrations, lowest layer first, and what they weigh."""
    status = applied.status()
    assert status.stack == (ID, "20250102-001_on_top", "20250103-001_large")
    assert status.generation == status.running == 3
    assert [one.status for one in status.migrations] == ["applied"] * 3
    assert status.migrations[2].size > 300_000_000


def test_metadata_index_agrees_with_the_folders(applied: Rig) -> None:
    """metadata.json holds what status tells of the migrations."""
    index = json.loads(applied.sh("cat /data/system/migrations/metadata.json"))
    status = json.loads(applied.sh(f"{RUNNER} status"))
    assert index["migrations"] == status["migrations"]
