"""Packages that were installed, upgraded or removed by hand, and migrations that install others."""

from __future__ import annotations

import pytest

from tests.rig import RUNNER, Rig

# Packages with what a package has: files where links lead, its own directories, configuration, an alternative.
BUILD = """
cd /run; umask 022
for name in one two old; do for version in 1 2; do
    d=/run/build; rm -rf $d; mkdir -p $d/DEBIAN $d/usr/share/$name/deep $d/etc/$name $d/lib/$name
    printf 'Package: %s\\nVersion: %s\\nArchitecture: all\\nMaintainer: x <x@x>\\nDescription: x\\n' \
        $name $version >$d/DEBIAN/control
    echo /etc/$name/conf >$d/DEBIAN/conffiles
    printf '#!/bin/sh\\nupdate-alternatives --install /usr/bin/%s %s /lib/%s/program 1\\n' $name $name $name \
        >$d/DEBIAN/postinst
    chmod 755 $d/DEBIAN/postinst
    echo $name $version >$d/usr/share/$name/deep/file; echo $name >$d/etc/$name/conf; echo $name >$d/lib/$name/program
    [ $version = 1 ] && echo old >$d/usr/share/$name/only-1
    dpkg-deb --root-owner-group --build $d $name-$version.deb >/dev/null
done; done
"""


def installs(rig: Rig, *packages: str) -> str:
    """A script that installs these, which the machine has."""
    deb = [f"echo {rig.sh(f'base64 -w0 /run/{one}.deb')} | base64 -d >/run/{one}.deb" for one in packages]
    return "\n".join([*deb, f"dpkg -i {' '.join(f'/run/{one}.deb' for one in packages)}"])


@pytest.fixture
def debian(fresh: Rig) -> Rig:
    """A machine that has the package `old`, by migration."""
    fresh.sh(BUILD)
    result = fresh.apply("20250101-001_old", installs(fresh, "old-1"))
    assert result.code == 0, result.text
    return fresh


def test_what_changed_nothing_blocks_nothing(debian: Rig) -> None:
    """Installing what is there, installing and removing again: locks, copies of the database and times are no drift."""
    debian.sh(
        "apt-get install -y bash; dpkg -i /run/one-1.deb; dpkg -P one; dpkg -i /run/old-1.deb; dpkg --configure -a"
    )
    debian.sh(
        "apt-mark manual bash; apt-mark auto bash; apt-mark manual bash; dpkg-reconfigure -f noninteractive debconf"
    )
    result = debian.apply("20250102-001_two", installs(debian, "two-1"))
    assert result.code == 0, result.text
    assert (
        debian.sh("two || cat /usr/bin/two; dpkg-query -W -f '${Status} ' one old two || :").count("ok installed") == 2
    )


def test_packages_are_kept_or_given_up_as_a_whole(debian: Rig) -> None:
    """A part of them is refused, and so is a migration that meets them, with how to have all of it."""
    debian.sh("cp -p /var/lib/dpkg/status /run/status; chmod 751 /etc; dpkg -i /run/one-1.deb /run/old-2.deb")
    debian.sh("echo mine >/etc/one/mine; echo mine >>/etc/one/conf; echo other >/etc/other")
    script = installs(debian, "two-1")
    result = debian.apply("20250102-001_two", script)
    assert result.code == 3, result.text
    assert "packages were installed or removed by hand: old one" in result.text
    assert "drift discard --packages" in result.text
    for path in (
        "/etc/one/conf",
        "/usr/share/one",
        "/var/lib/dpkg/status",
        "/usr/share/old/only-1",
        "/usr/bin/one",
        "/etc/one",
    ):
        for verb in ("adopt", "discard"):
            refusal = debian.run(RUNNER, "drift", verb, path)
            assert (refusal.code, f"drift {verb} --packages" in refusal.text) == (3, True), (path, refusal.text)
    assert "drift adopt|discard --packages" in debian.run(RUNNER, "drift").err
    before = debian.sh(LOOK)
    result = debian.run(RUNNER, "drift", "adopt", "--packages")
    assert result.code == 0, result.text
    assert debian.sh(LOOK) == before
    told = {line.split(" ")[8] for line in debian.sh(f"{RUNNER} drift --raw").splitlines()}
    assert {one for one in told if not one.startswith(("var/log", "var/cache", "var/lib/dpkg/"))} == {
        "etc",
        "etc/one/mine",
        "etc/other",
    }
    assert debian.apply("20250102-001_two", script).code == 0
    assert debian.sh("dpkg-query -W -f '${Package} ${Version} ' old one two") == "old 2 one 1 two 1 "
    # A rollback takes all of it, and leaves what is nobody's.
    assert debian.run(RUNNER, "rollback", "1").code == 0
    debian.sh(
        "cmp /var/lib/dpkg/status /run/status; cat /usr/share/old/only-1 /etc/one/mine; ! ls /lib/one; ! dpkg -s one"
    )
    assert debian.sh("stat -c %a /etc").strip() == "751"


LOOK = (
    "dpkg -l; cat /usr/share/*/deep/file /etc/one/*; readlink -f /usr/bin/one; dpkg -V old one || :; ls /usr/share/old"
)


def test_packages_are_given_up(debian: Rig) -> None:
    """One was installed, one was removed: dpkg and the files say the same as before, and what is nobody's stays."""
    debian.sh("cp -p /var/lib/dpkg/status /run/status; dpkg -P old; dpkg -i /run/one-1.deb; echo mine >/etc/one/mine")
    result = debian.run(RUNNER, "drift", "discard", "--packages")
    assert result.code == 0, result.text
    debian.sh("cmp /var/lib/dpkg/status /run/status; dpkg -V old; cat /usr/share/old/only-1 /etc/old/conf /usr/bin/old")
    debian.sh(
        "! dpkg -s one; test ! -e /usr/share/one; test ! -L /usr/bin/one; test ! -e /lib/one; ls /etc/one | grep mine"
    )
    assert debian.run(RUNNER, "drift", "discard", "--packages").code == 4
    # What a migration says about drift is of all of them, too.
    debian.sh("rm -r /etc/one; dpkg -i /run/one-1.deb")
    for how, version in (("discard", ""), ("adopt", "1")):
        debian.sh("dpkg -s one >/dev/null 2>&1 || dpkg -i /run/one-1.deb")
        result = debian.apply(f"20250102-001_{how}", installs(debian, "two-1"), drift=how)
        assert result.code == 0, result.text
        assert "installed or removed by hand: one" in result.text
        have = debian.run("dpkg-query", "-W", "-f", "${Version}", "one").out
        assert (have, debian.run("test", "-e", "/usr/share/one/deep/file").code) == (version, 0 if version else 1)
        assert debian.run(RUNNER, "rollback", "1").code == 0


def test_database_that_a_rollback_leaves_changed_is_told(debian: Rig) -> None:
    """A package was put on hold by hand, or one was installed: what dpkg says of `old` is of another stack."""
    for deed, remedy in (("apt-mark hold bash", "/var/lib/dpkg/status"), ("dpkg -i /run/one-1.deb", "--packages")):
        debian.sh(deed)
        result = debian.run(RUNNER, "rollback", "0")
        assert result.code == 0, result.text
        assert "of the packages of 20250101-001_old it says what was before" in result.text
        assert f"drift discard {remedy} " in result.text
        assert debian.run(RUNNER, "drift", "discard", remedy).code == 0
        debian.sh("! dpkg -s old >/dev/null 2>&1; ! dpkg -s one >/dev/null 2>&1")
        result = debian.run(RUNNER, "rollback", "1")
        assert (result.code, "dpkg" in result.text) == (0, False), result.text
