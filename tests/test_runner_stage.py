"""What a script finds in its stage, what becomes of what it makes there, and state that would be the system."""

from __future__ import annotations

from pyinfra_overlaymig.runner import stage_root
from tests.rig import RUNNER, Rig

CHANGES = "cut -d ' ' -f 1,3,9 /data/system/migrations/{}/changes.list"


def test_files_that_a_platform_brings(fresh: Rig) -> None:
    """A link into /run leads to names as in the live root, a file that is missing is lent; a mode alone is a change."""
    fresh.sh("echo 192.0.2.1 platform >/run/hosts; mount --bind /run/hosts /etc/hosts; cp /etc/hosts /run/before")
    base = fresh.rescue("/usr/bin/cat", "/etc/hosts").out
    done = fresh.apply("20250101-001_mode", "grep platform /etc/hosts; chmod 640 /etc/hosts; chown :daemon /etc/hosts")
    assert done.code == 0, done.text
    assert fresh.sh(CHANGES.format("20250101-001_mode")) == "M 640 etc/hosts\n"
    assert fresh.sh("cat /data/system/layers/20250101-001_mode/etc/hosts") == base
    link = "rm /etc/resolv.conf; ln -s ../run/resolve/stub.conf /etc/resolv.conf"
    assert fresh.apply("20250101-002_link", link).code == 0
    fresh.sh("mkdir /run/resolve; echo nameserver 192.0.2.53 >/run/resolve/stub.conf")
    done = fresh.apply("20250101-003_reads", "grep 192.0.2.53 /etc/resolv.conf; readlink /etc/resolv.conf")
    assert (done.code, "sealing 0 changes" in done.text) == (0, True), done.text
    assert fresh.apply("20250101-004_gone", "rm /etc/resolv.conf").code == 0
    fresh.sh("echo nameserver 192.0.2.53 >/etc/resolv.conf")
    read = "test -r /etc/resolv.conf; su nobody -s /bin/sh -c 'grep 192.0.2.53 /etc/resolv.conf'"
    done = fresh.apply("20250101-005_lent", read)
    assert (done.code, "sealing 0 changes" in done.text) == (0, True), done.text
    # And what a script makes of them in other ways is kept.
    script = """
    rm /etc/hosts; ln -s hosts.mine /etc/hosts; echo 192.0.2.9 mine >/etc/hosts.mine
    rm -f /usr/sbin/policy-rc.d; ln -s /bin/true /usr/sbin/policy-rc.d
    """
    assert fresh.apply("20250101-006_links", script, drift="discard").code == 0
    made = fresh.sh(CHANGES.format("20250101-006_links")).splitlines()
    assert [line.split()[2] for line in made] == ["etc/hosts", "etc/hosts.mine", "usr/sbin/policy-rc.d"]
    # What is lent has the very words that most write there.
    script = "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d"
    assert fresh.run(RUNNER, "rollback", "20250101-005_lent").code == 0
    assert fresh.apply("20250101-007_policy", script).code == 0
    assert fresh.sh("cat /usr/sbin/policy-rc.d") == "#!/bin/sh\nexit 101\n"


def test_files_have_another_second_than_those_they_replace() -> None:
    """By second and length Python tells that what it compiled is old, and who has a file whether it changed."""
    second = 10**9
    now = 1_700_000_000 * second + 7
    for replaced, moment in {
        (): now,
        (now - second, now - 2 * second): now,
        (now, now - second): now - 7 + second,
        (now + 3 * second, now): now - 7 + 4 * second,
        (now + 10**9 * second,): now,
    }.items():
        assert stage_root.later(now, list(replaced)) == moment


def test_what_stays_nowhere_is_told(fresh: Rig) -> None:
    """/run, /tmp, /dev: more than empty files and directories; /data says what it is."""
    script = """
    mkdir -p /run/app /tmp/dir; : >/run/app/lock; echo 12 >/run/app.pid; mkfifo /run/app/fifo; echo x >'/tmp/dir/a b'
    echo x >/dev/plain; ln -s null /dev/link; echo x >/dev/shm/left
    echo x >/tmp/gone; rm /tmp/gone; echo kept >/etc/kept
    """
    done = fresh.apply("20250101-001_left", script)
    assert done.code == 0, done.text
    (line,) = (line for line in done.out.splitlines() if "in no layer" in line)
    assert line.endswith(": /run/app.pid /run/app/fifo /dev/plain /dev/shm/left /tmp/dir/a\\040b"), line
    fresh.sh("test ! -e /run/app.pid; test ! -e /tmp/dir; cat /etc/kept")
    done = fresh.apply("20250101-002_none", "mkdir /run/app; : >/tmp/empty; apt-get --version >/dev/null")
    assert (done.code, "in no layer" in done.text) == (0, False), done.text
    for deed in ("fallocate -l 4096 /data/swapfile", "mkdir /data/x", "echo 1 >/proc/sys/vm/swappiness"):
        done = fresh.apply("20250101-003_data", deed)
        assert done.code == 9, done.text
        assert "Read-only file system" in done.text
        assert "hint: /data, /sys and /proc/sys are not to be written" in done.text


def test_state_that_would_be_the_system(fresh: Rig) -> None:
    """Where packages share a directory, state is none of it; one that an older runner took does not shut the way."""
    assert fresh.apply("20250101-001_data", "mkdir -p /opt/data; echo x >/opt/data/x", state=["/opt/data"]).code == 0
    assert fresh.apply("20250101-002_tool", "mkdir -p /opt/tool; echo x >/opt/tool/run").code == 0
    done = fresh.apply("20250101-003_all", ":", state=["/opt"])
    assert (done.code, "like /opt/postgresql" in done.text) == (3, True), done.text
    assert "20250101-002_tool has files there" in done.text
    fresh.sh("cat /opt/tool/run /opt/data/x")
    fresh.sh("sed -i 's,^state /opt/data$,state /usr/share,' /data/system/migrations/20250101-001_data/manifest")
    assert fresh.apply("20250101-004_next", "echo x >/etc/next").code == 0
    assert fresh.status().known
    assert fresh.run(RUNNER, "rollback", "20250101-001_data").code == 0
    assert fresh.run(RUNNER, "rollback", "0").code == 0


def test_generations_only_grow(fresh: Rig) -> None:
    """Also when all that there was is taken back, and nothing but the base is left."""
    seen = []
    for number, verify in enumerate(("exit 1", None, "exit 1"), start=1):
        done = fresh.apply(f"20250101-00{number}_n", f"echo {number} >/etc/n", verify=verify)
        assert done.code == (9 if verify else 0), done.text
        if not verify:
            seen.append(fresh.status().generation)
            assert fresh.run(RUNNER, "rollback", "0").code == 0
            seen.append(fresh.status().generation)
    assert fresh.apply("20250101-004_n", "echo 4 >/etc/n").code == 0
    assert [*seen, fresh.status().generation] == [2, 3, 5]
