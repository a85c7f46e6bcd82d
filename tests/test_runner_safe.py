"""What comes from outside, and what a script does where it must not, leaves the machine as it is."""

from __future__ import annotations

import re
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.forged import Part, forge, parts
from tests.rig import RUNNER, Rig
from tests.runner_process import pattern

ID = "20250201-001_hostile"
APPLY = pattern("apply")


@pytest.fixture(scope="module")
def safe(rig: Rig) -> Rig:
    """One machine with a migration, for all that leaves it alone."""
    done = rig.apply("20250101-001_app", "echo x >/etc/app")
    assert done.code == 0, done.text
    return rig


def good(rig: Rig) -> list[Part]:
    """The parts of a bundle with a file, a link and a service."""
    folder = rig.folder / ID / "files/etc"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hostile").write_text("x\n")
    if not (folder / "link").is_symlink():
        (folder / "link").symlink_to("hostile")
    return parts(rig.migration(ID, "exit 7", services={"web": {"run": "exec sleep 1111"}}))


def text(found: list[Part], name: str) -> bytes:
    (one,) = (part.data for part in found if part.name == name)
    assert one is not None
    return one


@contextmanager
def applying(rig: Rig, bundle: bytes) -> Iterator[subprocess.Popen[bytes]]:
    """A migration that runs; it is ended where the test goes wrong meanwhile."""
    argv = rig.machine.enter(RUNNER, "apply", "-")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as apply:
        assert apply.stdin
        apply.stdin.write(bundle)
        apply.stdin.close()
        try:
            yield apply
        finally:
            if apply.poll() is None:
                rig.run("pkill", "-TERM", "-f", APPLY)


LAYERS = "/data/system/layers/20250101-001_app"
STRANGE = {
    "journal of drift": [Part("drift"), Part("drift/drop", b"A f 644 0 0 0 - - etc/app\n")],
    "journal of state": [Part("state"), Part("state/paths", b"/etc\n")],
    "log that leads away": [Part("log", link="/etc/passwd")],
    "file nobody knows": [Part("publishing", b"")],
    "way out": [Part("../evil", b"x")],
    "way out below": [Part("files/../../evil", b"x")],
    "absolute name": [Part("/etc/evil", b"x")],
    "directory as a link": [Part("files/out", link=LAYERS), Part("files/out/evil", b"x")],
    "directory below a link": [Part("files/out", link=LAYERS), Part("files/out/evil")],
    "link nobody planned": [Part("files/etc/other", link="/etc/passwd")],
    "hard link": [Part("files/etc/hard", link="/etc/shadow", kind=tarfile.LNKTYPE)],
    "hard link inside": [Part("files/etc/hard", link="install.sh", kind=tarfile.LNKTYPE)],
    "device": [Part("files/etc/device", link="-", kind=tarfile.CHRTYPE)],
    "FIFO": [Part("files/etc/fifo", link="-", kind=tarfile.FIFOTYPE)],
    "file nobody planned": [Part("files/etc/other", b"x")],
    "directory nobody planned": [Part("files/etc/other")],
    "service nobody planned": [Part("services/evil"), Part("services/evil/run", b"#!/bin/sh\n", mode=0o755)],
    "link as a service": [Part("services/evil", link="/etc/s6/services/sshd")],
    "file twice": [Part("install.sh", b"#!/bin/sh\necho evil >/etc/evil\n", mode=0o755)],
}


@pytest.mark.parametrize("what", STRANGE)
def test_bundle_with_what_does_not_belong_there(safe: Rig, what: str) -> None:
    """Exit 4, and nothing of it is anywhere."""
    refuse(safe, forge(good(safe), *STRANGE[what]))


@pytest.mark.parametrize("name", ["files", "services"])
def test_bundle_whose_folder_is_a_link(safe: Rig, name: str) -> None:
    """What would be laid over the stage would be somebody else's."""
    found = [one for one in good(safe) if one.name.partition("/")[0] != name]
    refuse(safe, forge(found, Part(name, link="/etc")))


PLAN_LINES = [
    "state /data/system", "state /etc", "state /srv/../etc", "state srv", "service ../../evil", "service a/b",
    "service-set web run", "service-set evil run true", "depends ../x", "conflicts x", "stop a/b", "format 9",
    "id 20250201-002_other", "nonsense x", "local maybe", "member 4755 " + "0" * 64 + " files/etc/suid",
    "member 0644 " + "0" * 64 + " ../evil", "link /etc/passwd ../evil", "link /etc/passwd log",
]  # fmt: skip


@pytest.mark.parametrize("line", PLAN_LINES)
def test_plan_that_cannot_be(safe: Rig, line: str) -> None:
    """Every field is looked at, by the code of the operator's side."""
    found = good(safe)
    refuse(safe, forge(found, changed={"plan": text(found, "plan") + f"{line}\n".encode()}))


@pytest.mark.parametrize(
    "line",
    [
        *("timeout 0", "timeout 86401", "timeout -1", "timeout 1e3", "timeout x", "timeout", "verify-retries 1001"),
        *("drift perhaps", "audit no", "snapshot maybe", "ready-timeout ../web 5", "ready-timeout web 0"),
        *("restart web sometimes", "nonsense 1", "timeout 5\ntimeout 6"),
    ],
)
def test_limits_that_cannot_be(safe: Rig, line: str) -> None:
    """A bad limit is no failure of the script."""
    found = good(safe)
    key = line.partition(" ")[0]
    kept = b"".join(one for one in text(found, "limits").splitlines(True) if one.split()[0] != key.encode())
    refuse(safe, forge(found, changed={"limits": kept + f"{line}\n".encode()}))


def test_bundle_that_is_not_what_its_digest_covers(safe: Rig) -> None:
    """Contents, modes and targets are the plan's, whatever the sums beside them say."""
    found = good(safe)
    refuse(safe, forge(found, changed={"install.sh": b"#!/bin/sh\necho evil >/etc/evil\n"}))
    refuse(safe, forge(found, changed={"files/etc/hostile": b"evil\n"}))
    refuse(safe, forge(found, drop="files/etc/hostile"))
    refuse(safe, forge(found, drop="files/etc/link"))
    refuse(safe, forge(found, Part("files/etc/link", link="/etc/passwd"), drop="files/etc/link"))
    refuse(safe, forge(found, Part("files/etc/hostile", b"x\n", mode=0o755), drop="files/etc/hostile"))
    refuse(safe, forge(found, Part("services/web/env/PATH", b"/evil"), drop="services/web/env"))
    # And the one that they are all made of is taken.
    done = safe.run(RUNNER, "apply", "-", stdin=forge(found))
    assert (done.code, "failed with status 7" in done.text) == (9, True), done.text
    done = safe.run(RUNNER, "apply", "-", stdin=forge(found)[:-40])
    assert done.code == 4, done.text
    assert safe.run(RUNNER, "apply", "-", stdin=b"").code == 4


def refuse(rig: Rig, bundle: bytes) -> None:
    look = "ls -A /data/system/staging /data/system/layers/* /tmp /etc; ls /data/system; stat -c %y /etc/passwd"
    before = rig.sh(look)
    done = rig.run(RUNNER, "apply", "-", stdin=bundle)
    assert (done.code, "install script" in done.text) == (4, False), done.text
    assert rig.sh(look) == before


ODD = {
    "TAR_OPTIONS": "--checkpoint=1 --checkpoint-action=exec=touch\\ /tmp/evil",
    "POSIXLY_CORRECT": "1",
    "SYSTEM_MIGRATE_INSIDE": "yes",
    "PYTHONPATH": "/tmp/evil",
    "PYTHONHOME": "/tmp/evil",
    "PYTHONINSPECT": "1",
    "PYTHONWARNINGS": "error",
    "TMPDIR": "/nowhere",
    "PATH": "/nowhere",
    "LC_ALL": "tr_TR.ISO-8859-9",
    "IFS": "/e",
    "ENV": "/tmp/evil/rc",
    "GZIP": "-1",
    "TZ": "Asia/Kathmandu",
    "OVERLAYMIG_WHO": "me\nverb evil \"'\\",
    "SUDO_USER": "x y\nz",
    "SSH_CONNECTION": '1.2.3.4"\n} 5',
}


def test_environment_of_the_caller_changes_nothing(fresh: Rig) -> None:
    """What it holds neither leads the runner elsewhere, nor gets into scripts, nor unescaped into records."""
    fresh.sh("mkdir /tmp/evil; echo 'touch /tmp/evil/read' | tee /tmp/evil/rc >/tmp/evil/os.py")
    bundle = fresh.migration("20250201-001_env", "env -u PWD -u _ -u SHLVL | sort >/etc/env; date >/dev/null")
    words = [f"{key}={value}" for key, value in ODD.items()]
    done = fresh.run("env", *words, "/bin/sh", RUNNER, "apply", "-", stdin=bundle)
    assert done.code == 0, done.text
    assert {line.partition("=")[0] for line in fresh.sh("cat /etc/env").splitlines()} == {
        *("DEBIAN_FRONTEND", "DPKG_FORCE", "HOME", "LANG", "MIGRATION_ID", "PATH", "TERM"),
    }
    assert fresh.sh("ls /tmp/evil").split() == ["os.py", "rc"]
    owner = fresh.sh("cat /data/system/lock/owner").splitlines()
    assert [line.partition(" ")[0] for line in owner] == ["who", "from", "pid", "boot_id", "since", "verb", "id"]
    assert owner[0].startswith("who me_verb_evil")


def test_limits_of_the_caller_are_not_the_migrations(fresh: Rig) -> None:
    """Size of files, time of the processor, memory, open files: as much as the hard ones allow, and those too where
    the runner may (a lab's machine may not).
    """
    script = 'for one in f t d v n; do ulimit "-$one"; done >/etc/limits'
    fresh.sh("cat >/tmp/bundle", stdin=fresh.migration("20250201-001_limits", script))
    done = fresh.run("/bin/bash", "-c", f"ulimit -S -f 0 -t 60 -d 300000 -v 300000 -n 20; {RUNNER} apply /tmp/bundle")
    assert done.code == 0, done.text
    assert fresh.sh("cat /etc/limits").split() == ["unlimited"] * 4 + ["1024"]


def test_arguments_are_no_paths(safe: Rig) -> None:
    """Names of generations, migrations and captures with anything odd in them."""
    before = safe.tree()
    for argument in ("../../x", "1\n2", "x'\"", "-1", " 1", "1 ", "20250101-001_app/../x", ""):
        assert safe.run(RUNNER, "rollback", argument).code in (4, 100), argument
        assert safe.run(RUNNER, "diff", argument).code in (4, 100), argument
        assert safe.run(RUNNER, "capture", argument, "true").code in (4, 100), argument
    # And what a terminal would obey is shown, not sent.
    for argument in ("\033[2J\u202e\udcff\udc9b", "9" * 5000, "\u0661"):
        for verb in (["rollback"], ["diff"], ["drift", "discard"], ["apply", "--confirm"], ["\033[2J"]):
            done = safe.run(RUNNER, *verb, argument)
            assert done.code in (4, 100), (verb, argument, done.text)
            assert not {"\033", "\u202e", "\ufffd", "Traceback"} & {*done.text, *done.text.split()}, (verb, argument)
    assert safe.tree() ^ before == frozenset()


def test_bundle_is_found_where_its_name_leads(safe: Rig) -> None:
    """From where the caller stands, and by links, in the running root: the base has other files."""
    safe.sh("mkdir -p /srv/d; cat >/srv/d/b; ln -s /srv/d /srv/dir; ln -s /srv/d/b /srv/link", stdin=forge(good(safe)))
    try:
        for name in ("b", "./b", "../link", "/srv/link", "/srv/dir/b", "/srv/dir/../d/b"):
            done = safe.run("/bin/sh", "-c", f"cd /srv/d; {RUNNER} apply {name}")
            assert (done.code, "failed with status 7" in done.text) == (9, True), (name, done.text)
        for name in ("/srv/d", "nothing", "/dev/null"):
            assert safe.run(RUNNER, "apply", name).code == 4, name
    finally:
        safe.sh("rm -r /srv/d /srv/dir /srv/link")


# Each line as nobody: it must fail.
ATTACKS = """\
ls /data/system
ls /data/system/layers
cat /data/system/migrations/20250101-001_app/manifest
cat /data/system/generations/1
cat /data/system/runner/system-migrate
exec 9</data/system/lock/flock
echo x >/data/system/staging/20250201-001_sleeps/upper/etc/evil
echo x >/data/system/staging/20250201-001_sleeps/root/tmp/evil
cat /data/system/staging/20250201-001_sleeps/log
cat /data/system/upper/live
/data/system/layers/20250101-001_app/usr/bin/mine
ls /run/system-migrate
ls /run/system-migrate/base
ls /run/system-migrate/base/root
cat /run/system-migrate/running
cat /data/state/root/private/secret
ls /data/state/root
cat /data/state/var/lib/closed/deep/secret
echo x >/data/state/evil
kill $(pgrep -f 'sleep 7777')
ls /proc/$(pgrep -f 'sleep 7777')/root/
cat /proc/$(pgrep -f 'sleep 7777')/environ
cat /proc/$(pgrep -f 'sleep 1111')/environ
cat /data/state/var/log/web/current
exec 9</data/state/var/log/web/lock
exec 9</run/overlaymig-state.lock
ls /run/overlaymig-audit
cat /run/services/web/env/PASSWORD
cat /etc/s6/services/web/env/PASSWORD
s6-svc -d /run/service/web
s6-svscanctl -t /run/service
echo x >/run/service/web/supervise/control
echo x >/run/service/.s6-svscan/control
ls /run/service/web/event /run/service/web/supervise
mkfifo /run/service/web/event/ftrig1:x
grep -rqsE 'hunter[2]' /data /run /proc/[0-9]*/cmdline /proc/[0-9]*/environ /etc /var /tmp
find /data/system /run/system-migrate -mindepth 1 | grep .
find / -xdev -writable ! -type l ! -path '/tmp*' ! -path '/var/tmp*' ! -path '/proc/*' | grep .
find /data /run -writable ! -type l | grep .
find /proc/[0-9]*/fd -lname '/data/system/*' | grep .
"""


def test_nobody_else_gets_in(fresh: Rig) -> None:
    """While a migration runs, another user neither reads nor writes what is the runner's, nor what layers had."""
    script = """
    cp /usr/bin/id /usr/bin/mine; chmod 4755 /usr/bin/mine
    mkdir -p -m 755 /root/private; echo s >/root/private/secret
    mkdir -p /var/lib/closed/deep; chmod 700 /var/lib/closed; echo s >/var/lib/closed/deep/secret
    """
    web = {"run": "echo said aloud; exec sleep 1111", "environment": {"PASSWORD": "hunter2"}}
    state = ["/root/private", "/var/lib/closed/deep"]
    done = fresh.apply("20250101-001_app", script, state=state, services={"web": web})
    assert done.code == 0, done.text
    fresh.sh("until grep -q 'said aloud' /data/state/var/log/web/current; do sleep 0.1; done")
    assert fresh.sh("stat -c '%a %G' /data/state/var/log/web/current") == "640 adm\n"
    before = fresh.tree()
    bundle = fresh.migration("20250201-001_sleeps", "umask 000; mkdir -p /srv/open; echo begun; sleep 7777")
    with applying(fresh, bundle) as apply:
        assert apply.stdout
        assert any(b"begun" in line for line in apply.stdout)
        for attack in ATTACKS.splitlines():
            done = fresh.run("s6-setuidgid", "nobody", "/bin/sh", "-c", f"cd /; {attack}")
            assert done.code != 0, f"{attack}: {done.text}"
        fresh.sh(f"pkill -TERM -f '{APPLY}'")
        assert apply.wait(60) == 9
    assert fresh.tree() ^ before == frozenset()
    # Without the lock in somebody's hand the next one begins.
    assert fresh.apply("20250202-001_next", ":").code == 0
    modes = fresh.sh("stat -c '%a %n' /data/system /run/system-migrate /data/state/root /data/state/var/lib/closed")
    assert [line.split()[0] for line in modes.splitlines()] == ["700"] * 4


HERE = """
hostname; uname -n; cat /proc/sys/kernel/domainname; ls -la --time-style=+ /dev /dev/shm | grep -v total
cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/sem; ipcs -a | grep -c 0x || :
"""


def test_script_that_fails_changes_nothing_live(safe: Rig) -> None:
    """Neither names, nor the kernel's settings, nor devices, nor shared memory of the machine."""
    here, before = safe.sh(HERE), safe.tree()
    # Only what is the machine's own: the kernel is the host's.
    deeds = [
        "hostname evil", "echo evil >/proc/sys/kernel/domainname", "sysctl -w net.ipv4.ip_forward=1",
        "echo 1 >/proc/sys/net/ipv4/ip_forward", "sysctl -w kernel.sem='1 2 3 4'", "rm -f /dev/full /dev/null /dev/fd",
        "mknod /dev/evil c 1 3", "chmod 600 /dev/zero", "echo x >/dev/shm/evil", "ipcmk -M 4096", "ipcmk -S 2",
        "mount --make-rshared /", "umount -l /data", "mount -t tmpfs evil /mnt", "touch /run/evil",
        "echo evil >/tmp/evil",
    ]  # fmt: skip
    script = "\n".join(f"({deed}) || :" for deed in deeds)
    done = safe.apply(ID, f"{script}\nexit 1")
    assert done.code == 9, done.text
    assert safe.sh(HERE) == here
    assert safe.tree() ^ before == frozenset()


def test_rollback_goes_on_where_the_current_generation_cannot_be_assembled(fresh: Rig) -> None:
    """Its top layer is gone: all else says so, and going to one that is whole works, live."""
    for number, name in enumerate(("one", "two"), start=1):
        assert fresh.apply(f"20250101-00{number}_{name}", f"echo {name} >/etc/{name}").code == 0
    fresh.sh("mv /data/system/layers/20250101-002_two /data/system/layers/.hidden")
    done = fresh.apply("20250102-001_three", ":")
    assert (done.code, "lacks its layer 20250101-002_two" in done.text) == (20, True), done.text
    assert fresh.run(RUNNER, "recover").code == 20
    done = fresh.run(RUNNER, "rollback", "1")
    assert done.code == 0, done.text
    fresh.sh("cat /etc/one; test ! -e /etc/two")
    found = fresh.status()
    assert (found.running, found.stack) == (found.generation, ("20250101-001_one",))
    assert fresh.apply("20250102-001_three", "echo three >/etc/three").code == 0
    fresh.sh("rm -r /data/system/layers/20250101-001_one")
    assert fresh.run(RUNNER, "rollback", "0").code == 0
    fresh.sh("test ! -e /etc/one; test ! -e /etc/three")


def test_write_to_data_explains_itself(safe: Rig) -> None:
    """A swap file at /data/swapfile: the script hears that it cannot be, instead of losing it later."""
    done = safe.apply(ID, "truncate -s 4096 /data/swapfile; echo '/data/swapfile none swap sw 0 0' >>/etc/fstab")
    assert done.code == 9, done.text
    assert "Read-only file system" in done.text
    assert safe.apply(ID, "mkdir /data/state/x", state=["/srv/here"]).code == 9


def test_edits_of_files_that_a_platform_brings_are_kept(fresh: Rig) -> None:
    """/etc/hosts, /etc/resolv.conf, policy-rc.d: what a script makes of them is a change; left alone they are none."""
    fresh.sh("echo 192.0.2.1 drifted >>/etc/hosts")
    assert "sealing 0 changes" in fresh.apply("20250101-001_none", "cat /etc/hosts /etc/resolv.conf").out
    fresh.sh("sed -i /drifted/d /etc/hosts; cp -p /etc/hosts /run/hosts")
    assert fresh.run(RUNNER, "drift", "discard", "/etc/hosts").code in (0, 4)
    script = """
    echo 192.0.2.7 mine >>/etc/hosts
    echo nameserver 192.0.2.53 >/etc/resolv.conf.new; mv /etc/resolv.conf.new /etc/resolv.conf
    printf '#!/bin/sh\\nexit 0\\n' >/usr/sbin/policy-rc.d
    """
    done = fresh.apply("20250101-002_edits", script)
    assert done.code == 0, done.text
    assert "192.0.2.7 mine" in fresh.sh("cat /etc/hosts")
    assert fresh.sh("cat /etc/resolv.conf") == "nameserver 192.0.2.53\n"
    assert fresh.sh("cat /usr/sbin/policy-rc.d") == "#!/bin/sh\nexit 0\n"
    changes = fresh.sh("cat /data/system/migrations/20250101-002_edits/changes.list").splitlines()
    assert [line.split(" ")[8] for line in changes] == ["etc/hosts", "etc/resolv.conf", "usr/sbin/policy-rc.d"]
    assert fresh.apply("20250101-003_removes", "rm /etc/resolv.conf /usr/sbin/policy-rc.d").code == 0
    fresh.sh("test ! -e /etc/resolv.conf; test ! -e /usr/sbin/policy-rc.d")


def test_files_have_the_time_of_the_apply(fresh: Rig) -> None:
    """One time for all that the bundle brings, and the modes that its manifest says; directories that exist keep their
    own, and links that lead to some stay.
    """
    folder = fresh.folder / "20250101-001_files/files"
    for path in ("opt/new/deep/code.py", "opt/new/other.py", "etc/default/mine", "lib/mine"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("x = 1\n")
    (folder / "opt/new/link").symlink_to("other.py")
    before = fresh.sh("stat -c '%Y %a %n' /opt /usr/lib /etc; readlink /lib").splitlines()
    begun = time.time()
    modes = {"/opt/new/deep/code.py": "0600", "/lib/mine": "0750"}
    done = fresh.apply("20250101-001_files", ":", services={"web": {"run": "exec sleep 1111"}}, modes=modes)
    assert done.code == 0, done.text
    found = fresh.sh("umask 0; stat -c '%a %U' /opt/new/deep/code.py /opt/new/other.py /usr/lib/mine").splitlines()
    assert found == ["600 root", "644 root", "750 root"]
    # New directories get theirs last, as what is laid into them changes it.
    look = """
    stat -c %.9Y /opt/new/deep/code.py /opt/new/other.py /opt/new/link /etc/default/mine /usr/lib/mine
    find /etc/s6/services/web -printf '%T@\\n' | cut -c1-20
    """
    times = {line.replace(".", "") for line in fresh.sh(look).split()}
    assert times == set(re.findall(r"^time (\d+)$", fresh.sh("cat /data/system/migrations/*/record"), re.MULTILINE))
    assert begun - 1 <= int(times.pop()) / 1e9 <= time.time() + 1
    assert min(float(line) for line in fresh.sh("stat -c %.Y /opt/new /opt/new/deep").split()) >= begun - 1
    assert fresh.sh("stat -c '%Y %a %n' /opt /usr/lib /etc; readlink /lib").splitlines()[2:] == before[2:]


@pytest.mark.parametrize("how", ["limit", "TERM"])
def test_capture_of_a_huge_file_can_be_ended(safe: Rig, how: str) -> None:
    """A sparse file of 120 GB takes long to digest: the limit and TERM hold there as well."""
    before = safe.tree()
    seconds = 4 if how == "limit" else 600
    bundle = safe.migration(ID, "truncate -s 120G /var/big", timeout=seconds)
    begun = time.monotonic()
    with applying(safe, bundle) as apply:
        assert apply.stdout
        assert any(b"capturing" in line for line in apply.stdout)
        if how == "TERM":
            time.sleep(0.5)
            safe.sh(f"pkill -TERM -f '{APPLY}'")
        said = apply.stdout.read().decode()
        assert apply.wait(60) == 9, said
    assert time.monotonic() - begun < 30
    assert how == "TERM" or "within its limit of 4 s" in said
    assert safe.tree() ^ before == frozenset()
