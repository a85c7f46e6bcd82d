"""What a lab needs of the host it asks for first, and what it changed there it puts back."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pyinfra_overlaymig.errors import OverlaymigError
from pyinfra_overlaymig.lab import prerequisites

MAIN = "from pyinfra_overlaymig.cli.main import main; main()"
ANSWER = """\
import socket
server = socket.create_server(("203.0.113.2", 7))
peer, address = server.accept()
peer.sendall(f"seen as {address[0]}".encode())
peer.close()
"""

# A host of its own as far as a lab can tell: fresh /run, interfaces, rules and forwarding.
# Its firewall drops what is forwarded, as Docker's does.
HOST = """\
set -eu
state=$1 beside=$2 scratch=$3 python=$4 main=$5 answer=$6
overlaymig() { "$python" -c "$main" lab "$@"; }
mount -t sysfs sysfs /sys
umount -l -R /run/netns 2>/dev/null || :
mount -t tmpfs tmpfs /run
ip link set lo up
echo 0 >/proc/sys/net/ipv4/ip_forward
nft add table ip filter
nft add chain ip filter FORWARD '{ type filter hook forward priority filter; policy drop; }'
if [ "$state" = used ]; then
    ip netns add outside
    ip link add out type veth peer name eth0 netns outside
    ip addr add 203.0.113.1/24 dev out
    ip link set out up
    ip -n outside addr add 203.0.113.2/24 dev eth0
    ip -n outside link set eth0 up
    ip netns exec outside "$python" -c "$answer" &
fi
host() {
    # Without the volumes of other tests, which come and go.
    cut -d ' ' -f 4- /proc/self/mountinfo | grep -v ' /var/tmp/overlaymig-test-'
    ip -br link; ip -br addr show scope global; ip route
    nft list ruleset
    cat /proc/sys/net/ipv4/ip_forward
    find /run ! -path '/run/netns' ! -path '/run/mount*'
    ls "$beside"
}
host >"$scratch/before"
overlaymig up -n 2
[ "$state" = fresh ] || overlaymig exec lab-1 -- bash -c 'cat </dev/tcp/203.0.113.2/7'
overlaymig down
host >"$scratch/after"
diff -u "$scratch/before" "$scratch/after"
"""


@pytest.mark.parametrize("state", ["fresh", "used"])
def test_the_last_lab_puts_the_host_back(state: str, tmp_path: Path) -> None:
    """Promise: after `down`, mounts, interfaces, rules and forwarding are as before `up`."""
    directory = Path(tempfile.mkdtemp(prefix="overlaymig-lab-", dir="/var/tmp"))
    words = [state, str(directory), str(tmp_path), sys.executable, MAIN, ANSWER]
    done = subprocess.run(
        ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", HOST, "sh", *words],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"OVERLAYMIG_LAB_DIR": str(directory / "lab")},
    )
    directory.rmdir()
    assert done.returncode == 0, done.stdout + done.stderr
    # Out of the lab, a machine has the host's own address.
    assert ("seen as 203.0.113.1" in done.stdout) is (state == "used")


def test_missing_programs_are_named_with_their_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: what a host lacks is named, with the command that installs it, before anything."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OverlaymigError, match=r"missing on this host: .*mmdebstrap") as raised:
        prerequisites.check(tmp_path / "lab")
    assert "apt-get install mmdebstrap" in raised.value.hint
    assert list(tmp_path.iterdir()) == []


def test_who_is_not_root_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: without root nothing is tried, and the error says that root is needed."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(OverlaymigError, match="not root") as raised:
        prerequisites.check(tmp_path / "lab")
    assert "sudo" in raised.value.hint


def test_a_file_system_that_takes_no_upper_directory_is_told(tmp_path: Path) -> None:
    """Promise: a lab directory on which overlayfs cannot write is refused with a remedy."""
    for name in ("lower", "upper", "work", "lab"):
        (tmp_path / name).mkdir()
    # An overlay cannot be the upper directory of another one.
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    script = 'mount -t overlay overlay -o "$1" "$2" && exec "$3" -c "$4" lab up -n 1'
    words = [options, str(tmp_path / "lab"), sys.executable, MAIN]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *words],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"OVERLAYMIG_LAB_DIR": str(tmp_path / "lab")},
    )
    assert done.returncode == 1
    assert "overlayfs does not mount" in done.stderr
    assert "hint:" in done.stderr


def test_a_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    """Promise: a lab directory that cannot be made is named, with what to set instead."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OverlaymigError, match=f"no lab can be in {tmp_path}/file/lab") as raised:
        prerequisites.check(tmp_path / "file/lab")
    assert "OVERLAYMIG_LAB_DIR" in raised.value.hint
