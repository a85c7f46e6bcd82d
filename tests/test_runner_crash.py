"""Crash proof: killed before any command that changes the machine, it is before or after, and says which.

The runner has no hook for this. Programs of these names are laid before the real ones in the base that the runner
works with; they count themselves, and the one whose turn it is kills the runner with SIGKILL instead of doing its work.
`make crash` kills before each of them, the tests that always run before every seventh.
"""

from __future__ import annotations

import os

import pytest

from tests.rig import RUNNER, Rig

COMMANDS = "mv rm mkdir cp ln mount umount sync rmdir chmod chown s6-svlink s6-svunlink s6-svc setpriv"
STEP = 1 if os.environ.get("OVERLAYMIG_CRASH") == "full" else 7

SHIM = r"""#!/bin/sh
real=/usr/bin/${0##*/}
read -r outside </data/crash/namespace
if [ "$(/usr/bin/readlink /proc/self/ns/pid)" = "$outside" ] && [ -f /data/crash/at ]; then
    read -r done </data/crash/count
    read -r at </data/crash/at
    echo $((done + 1)) >/data/crash/count
    if [ $((done + 1)) -eq "$at" ]; then
        echo "${0##*/} $*" >/data/crash/where
        /usr/bin/rm -f /data/crash/at
        /usr/bin/pkill -KILL -f '^/bin/sh [^ ]*/system-migrate (apply|recover|rollback)'
        kill -KILL $PPID
        exit 1
    fi
fi
exec "$real" "$@"
"""

SCRIPT = """
echo two >/etc/two; rm /etc/issue; echo changed >/etc/one; mkdir -p /opt/two; echo x >"/opt/two/a b"
cd /var/lib/app; echo new >new; echo changed >kept; rm gone; mkdir -p deep/er; echo d >deep/er/d
"""
MANIFEST = {"state": ["/var/lib/app", "/var/lib/two"], "services": {"two": {"run": "exec sleep 2222"}}}


def setup(rig: Rig) -> None:
    """A machine with a migration, a service, state and drift; the shims are in place and off."""
    rig.sh("/usr/bin/rm -rf /data/crash")
    rig.reset()
    made = rig.apply(
        "20250101-001_one",
        "echo one >/etc/one; mkdir -p /var/lib/app; cd /var/lib/app; echo kept >kept; echo gone >gone",
        state=["/var/lib/app"],
        services={"one": {"run": "exec sleep 1111"}},
    )
    assert made.code == 0, made.text
    rig.sh("echo drift >/etc/drift; rm /etc/issue.net")
    rig.sh(
        f"""
        mkdir -p /data/crash; readlink /proc/self/ns/pid >/data/crash/namespace
        cat >/data/crash/shim <<'END'
{SHIM}
END
        chmod 755 /data/crash/shim
        mount -o remount,bind,rw /run/system-migrate/base
        for name in {COMMANDS}; do
            [ -e /usr/bin/$name ] || continue
            cp /data/crash/shim /run/system-migrate/base/usr/sbin/$name
        done
        """
    )


def crash_at(rig: Rig, number: int) -> None:
    """Arm the shims: the ``number``-th command from now kills."""
    rig.sh(f"/usr/bin/rm -f /data/crash/where; echo 0 >/data/crash/count; echo {number} >/data/crash/at")


def crashed(rig: Rig) -> str:
    """The command that was not run, empty when none was reached. Disarms the shims."""
    return rig.sh("/usr/bin/rm -f /data/crash/at; cat /data/crash/where 2>/dev/null || :").strip()


def picture(rig: Rig) -> frozenset[str]:
    """The machine without times and numbers, which differ between two runs that are both right."""
    lines = set()
    for line in rig.tree():
        words = line.split(" ")
        if words[0] == "f" and len(words) > 6:
            del words[5]
        # The shims were laid into the base while it was mounted: what shows of them depends on the kernel's cache.
        if not line.isdigit() and "./usr/sbin" not in line:
            lines.add(" ".join(words))
    return frozenset(lines)


def apply(rig: Rig) -> int:
    return rig.apply("20250102-001_two", SCRIPT, verify="test -e /etc/two", **MANIFEST).code


@pytest.fixture
def pictures(fresh: Rig) -> tuple[Rig, frozenset[str], frozenset[str]]:
    """The machine before, and how it looks before and after an undisturbed run."""
    setup(fresh)
    before = picture(fresh)
    assert apply(fresh) == 0
    after = picture(fresh)
    setup(fresh)
    assert picture(fresh) ^ before == frozenset()
    return fresh, before, after


def test_killed_anywhere_it_is_before_or_after(pictures: tuple[Rig, frozenset[str], frozenset[str]]) -> None:
    """SIGKILL before any mutating command of apply, and of its recovery: before or after, nothing between."""
    rig, before, after = pictures
    number, outcomes = 1, {"before": 0, "after": 0}
    while True:
        crash_at(rig, number)
        code = apply(rig)
        where = crashed(rig)
        if not where:
            assert code == 0
            break
        # The recovery is killed as well, somewhere else each time; the one after it is not.
        crash_at(rig, 1 + number % 11)
        rig.run(RUNNER, "recover")
        crashed(rig)
        recovered = rig.run(RUNNER, "recover")
        assert recovered.code == 0, f"killed before `{where}` ({number}): {recovered.text}"
        now = picture(rig)
        said = f"killed before command {number}, `{where}`"
        assert now in (before, after), f"{said}: {sorted(now ^ before)[:20]} or {sorted(now ^ after)[:20]}"
        assert rig.status().lock is None, said
        assert rig.run(RUNNER, "recover").err == "", said
        outcomes["before" if now == before else "after"] += 1
        if now == after:
            setup(rig)
        number += STEP
    print(f"\nkilled {sum(outcomes.values())} times before one of {number} commands: {outcomes}")  # noqa: T201 - the count is the result
    assert min(outcomes.values()) > 0
