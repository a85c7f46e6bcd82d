"""Whatever way a script goes to change a file, the capture tells which process did, and nothing that others do."""

from __future__ import annotations

import threading

import pytest

from pyinfra_overlaymig.format.capture import Capture, parse
from tests.rig import RUNNER, Rig

ID = "20250601-001_all_ways"

SCRIPT = r"""
apt-get update -qq
apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 \
    busybox-static make nginx-light python3-pip python3-setuptools
echo plain >/etc/plain
setsid sh -c 'cp /etc/plain /etc/from-setsid'
sh -c '(sleep 0.3; exec cp /etc/plain /etc/from-daemon) &'; sleep 1          # its parent is gone
su nobody -s /bin/sh -c 'cp /etc/plain /var/tmp/theirs'; install -d -o nobody /opt/nobody
su nobody -s /bin/sh -c 'cp /etc/plain /opt/nobody/from-su'
/bin/busybox cp /etc/plain /etc/from-static
unshare --mount --pid --fork --mount-proc cp /etc/plain /etc/from-unshare
unshare --mount sh -c 'mount -t tmpfs tmpfs /mnt; echo x >/mnt/elsewhere; cp /etc/plain /etc/from-namespace'
mkdir -p /usr/src/tool
printf 'install:\n\tinstall -D -m 755 tool /usr/local/bin/tool\n' >/usr/src/tool/Makefile
echo '#!/bin/sh' >/usr/src/tool/tool
make -s -C /usr/src/tool install
mkdir -p /tmp/one
printf 'from setuptools import setup\nsetup(name="one", version="1", py_modules=["one"])\n' >/tmp/one/setup.py
echo 'x = 1' >/tmp/one/one.py
pip install --quiet --no-index --no-build-isolation --break-system-packages --root-user-action=ignore /tmp/one
mkdir /opt/moved; echo x >/opt/moved/in; mv /opt/moved /opt/in-place
cd /opt && tar -cf - in-place | tar -xf - -C /srv
python3 - <<'END'
import mmap, os
with open('/etc/mapped', 'wb') as file: file.write(b'x' * 4096)
with open('/etc/mapped', 'r+b') as file:
    with mmap.mmap(file.fileno(), 4096) as view: view[:5] = b'hello'
top = os.open('/opt', os.O_RDONLY)
os.close(os.open('by-handle', os.O_CREAT | os.O_WRONLY, dir_fd=top))
os.mkdir('dir-by-handle', dir_fd=top)
os.rename('by-handle', 'dir-by-handle/renamed', src_dir_fd=top, dst_dir_fd=top)
os.chmod('/etc/issue', 0o600)
END
ln /etc/plain /etc/hard; ln -s plain /etc/soft; rm /etc/issue.net
: >/opt/short; rm /opt/short
touch '/opt/a b'; touch "$(printf '/opt/new\nline')"; touch "$(printf '/opt/by\377te')"
install -d -o daemon /var/lib/thing; echo kept >/var/lib/thing/file; echo s >/var/lib/nginx/kept
"""


@pytest.fixture(scope="module")
def applied(rig: Rig) -> Rig:
    """While the migration runs, another process of the machine writes all the time."""
    done = threading.Event()

    def outside() -> None:
        while not done.is_set():
            rig.sh("mkdir -p /opt/outside; for i in 1 2 3 4 5; do echo x >/opt/outside/$i; sleep 0.1; done")

    writer = threading.Thread(target=outside)
    writer.start()
    try:
        result = rig.apply(ID, SCRIPT, state=["/var/lib/nginx"])
    finally:
        done.set()
        writer.join()
    assert result.code == 0, result.text
    return rig


@pytest.fixture(scope="module")
def capture(applied: Rig) -> Capture:
    return parse(applied.raw(RUNNER, "diff", "--raw", ID))


def programs(capture: Capture, path: str) -> list[str]:
    """What changed a path, and what started that, up to the install script; an interpreter's script for its name."""
    change = next(one for one in capture.changes if one.path == path)
    names = []
    for process in capture.chain(change.by):
        words = [word for word in process.arguments[1:] if not word.startswith("-")]
        script = words[0] if process.program.endswith(("sh", "perl", "python3.11")) and words else process.program
        names.append((script if script.startswith("/") else process.program).rpartition("/")[2])
        if names[-1] == "install.sh":
            break
    return names


def test_everything_is_explained(applied: Rig, capture: Capture) -> None:
    """Audit ran, lost nothing, and each path of the upper directory has its process, each write its path."""
    record = applied.status().migration(ID)
    assert record is not None
    assert (capture.audit, capture.lost, capture.unexplained) == ("on", 0, ())
    assert (record.audit, record.lost, record.unexplained) == ("on", 0, 0)
    assert len(capture.changes) == record.files > 1000
    assert [one.path for one in capture.changes if one.by is None] == []


@pytest.mark.parametrize(
    ("path", "first"),
    [
        ("/etc/plain", ["install.sh"]),
        ("/etc/from-setsid", ["cp", "dash", "setsid", "install.sh"]),
        ("/etc/from-daemon", ["cp"]),
        ("/opt/nobody", ["install", "install.sh"]),
        ("/opt/nobody/from-su", ["cp", "dash", "su", "install.sh"]),
        ("/etc/from-static", ["busybox", "install.sh"]),
        ("/etc/from-unshare", ["cp", "unshare", "install.sh"]),
        ("/etc/from-namespace", ["cp", "dash", "unshare", "install.sh"]),
        ("/usr/local/bin/tool", ["install", "make", "install.sh"]),
        ("/usr/local/lib/python3.11/dist-packages/one.py", ["pip", "install.sh"]),
        ("/opt/in-place", ["mv", "install.sh"]),
        ("/srv/in-place/in", ["tar", "install.sh"]),
        ("/etc/mapped", ["python3.11", "install.sh"]),
        ("/opt/dir-by-handle", ["python3.11", "install.sh"]),
        ("/opt/dir-by-handle/renamed", ["python3.11", "install.sh"]),
        ("/etc/hard", ["ln", "install.sh"]),
        ("/etc/soft", ["ln", "install.sh"]),
        ("/etc/issue", ["python3.11", "install.sh"]),
        ("/etc/issue.net", ["rm", "install.sh"]),
        ("/opt/a\\040b", ["touch", "install.sh"]),
        ("/opt/new\\012line", ["touch", "install.sh"]),
        ("/opt/by\udcffte", ["touch", "install.sh"]),
        ("/usr/sbin/nginx", ["dpkg", "apt-get", "install.sh"]),
        ("/usr/bin/make", ["dpkg", "apt-get", "install.sh"]),
    ],
)
def test_process_is_the_right_one(capture: Capture, path: str, first: list[str]) -> None:
    """The process that changed the path last, and the chain that leads from it to the script."""
    assert programs(capture, path)[: len(first)] == first


def test_parent_that_ended_does_not_hide_the_child(capture: Capture) -> None:
    """A daemon whose parent has ended is still the migration's: its chain leads to the stage's first process."""
    change = next(one for one in capture.changes if one.path == "/etc/from-daemon")
    assert any(one.arguments[:2] == ("system-migrate", "apply") for one in capture.chain(change.by))


def test_packages_are_told(capture: Capture) -> None:
    """What dpkg knows has its package, what a script made has none."""
    packages = {one.path: one.package for one in capture.changes}
    assert packages["/usr/sbin/nginx"] == "nginx"
    assert packages["/usr/bin/make"] == "make"
    assert packages["/etc/issue"] == "base-files"
    assert packages["/etc/plain"] is None


def test_files_made_and_deleted_again_are_told(capture: Capture) -> None:
    """What no layer can show: temporary files, state, and what belongs to no layer."""
    also = {one.path: one.what for one in capture.also}
    assert also["/opt/short"] == "transient"
    assert "/usr/sbin/nginx.dpkg-new" not in also, "the kernel leaves out what dpkg renames"
    assert also["/tmp/one/setup.py"] == "left-out"
    assert also["/var/lib/nginx/kept"] == "state"


def test_process_outside_never_appears(applied: Rig, capture: Capture) -> None:
    """Neither in what is told nor in the trace: the kernel records this session and no other."""
    applied.sh("test -e /opt/outside/1")
    seen = [one.path for one in capture.changes] + [one.path for one in capture.also]
    assert [path for path in seen if "outside" in path] == []
    assert applied.sh(f"zcat /data/system/migrations/{ID}/audit.gz | grep -c outside || :") == "0\n"


def test_state_is_proposed(capture: Capture) -> None:
    """What accounts or scripts keep under a default prefix is proposed; what packages bring or is declared is not."""
    assert capture.proposed_state() == ("/srv/in-place", "/var/lib/thing", "/var/log/nginx", "/var/www/html")


def test_diff_is_for_people(applied: Rig) -> None:
    """By package and directory, with sizes and who."""
    text = applied.sh(f"{RUNNER} diff {ID}")
    assert text.startswith(f"{ID}: ")
    assert "audit: on, " in text
    assert "\nnginx: " in text
    assert "/usr/local/bin  install < make < install.sh\n" in text
    assert "\n    transient " in text
