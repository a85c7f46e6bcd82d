"""Labs live side by side: everything they put on the host carries their own name."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyinfra_overlaymig.errors import OverlaymigError
from pyinfra_overlaymig.lab import process
from pyinfra_overlaymig.lab.layout import MAX_MACHINES, Lab, Place, place
from pyinfra_overlaymig.lab.run import detach

names = st.text("abcXYZ019_-.", min_size=1, max_size=40).filter(lambda name: name.strip("."))


@given(name=names, index=st.integers(1, MAX_MACHINES))
def test_interface_names_fit_the_kernel(name: str, index: int) -> None:
    """Promise: whatever a lab's directory is called, its interfaces have names the kernel takes."""
    lab = Lab.at(Path("/var/tmp") / name)
    for interface in (lab.bridge, Place(lab, index).interface):
        assert len(interface) <= 15


@given(one=names, other=names)
def test_two_labs_share_no_name(one: str, other: str) -> None:
    """Promise: labs in different directories have different bridges, tables and addresses."""
    labs = [Lab.at(Path("/srv") / name) for name in (one, other)]
    same = labs[0].directory == labs[1].directory
    assert (labs[0].bridge == labs[1].bridge) is same
    assert (labs[0].nft_table == labs[1].nft_table) is same
    assert (Place(labs[0], 1).mac == Place(labs[1], 1).mac) is same


@pytest.mark.parametrize("directory", ["/srv/a:b", "/srv/a,b", "/srv/a b", "/srv/a\\b", "/srv/a\nb"])
def test_a_directory_that_overlayfs_cannot_name_is_refused(directory: str) -> None:
    """Promise: a directory that would end up as another mount option is refused before anything."""
    with pytest.raises(OverlaymigError, match="overlayfs options"):
        Lab.at(Path(directory))


@pytest.mark.parametrize("name", ["", "lab", "lab-0", "lab-01", "lab-201", "../lab-1", "lab-1/"])
def test_a_name_that_is_no_machine_is_refused(name: str) -> None:
    """Promise: a name from the command line never becomes a path outside the lab."""
    with pytest.raises(OverlaymigError, match="no machine of a lab"):
        place(Lab.at(Path("/srv/lab")), name)


def test_an_empty_name_is_not_the_current_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: OVERLAYMIG_LAB_DIR set to nothing is as unset; `down` would remove the current directory."""
    monkeypatch.setenv("OVERLAYMIG_LAB_DIR", "")
    assert Lab.default().directory == Path("/var/lib/overlaymig/lab")


def test_a_directory_with_anything_else_in_it_is_no_lab(tmp_path: Path) -> None:
    """Promise: what `down` removes is a lab's alone; a home or a checkout is refused by `up` and `down`."""
    Lab.at(tmp_path).check_own()
    Lab.at(tmp_path / "none").check_own()
    for name in ("subnet", "known_hosts", ".known_hosts.new", ".id_ed25519.new.pub", "id_ed25519", "id_ed25519.pub"):
        (tmp_path / name).write_text("")
    (tmp_path / "machines").mkdir()
    Lab.at(tmp_path).check_own()
    (tmp_path / ".git").mkdir()
    with pytest.raises(OverlaymigError, match=r"is no lab: it holds \.git"):
        Lab.at(tmp_path).check_own()


def test_a_recycled_pid_is_not_ours(tmp_path: Path) -> None:
    """Promise: a process that only has the pid of a machine's is neither shown nor killed."""
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        stat = Path(f"/proc/{sleeper.pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        (tmp_path / "init").write_text(f"{sleeper.pid} {stat[19]} {boot}\n")
        assert process.recorded(tmp_path / "init") == sleeper.pid
        (tmp_path / "init").write_text(f"{sleeper.pid} {int(stat[19]) - 1} {boot}\n")
        assert process.recorded(tmp_path / "init") is None
        process.end(tmp_path)
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.communicate()


def test_what_is_started_under_nohup_hears_signals(tmp_path: Path) -> None:
    """A machine's services trap SIGHUP, which a shell that began with it ignored cannot."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        alive = detach(["/bin/grep", "SigIgn", "/proc/self/status"], console=tmp_path / "console")
    finally:
        signal.signal(signal.SIGHUP, before)
    while alive():
        time.sleep(0.01)
    ignored = int((tmp_path / "console").read_text().split()[1], 16)
    assert not ignored & sum(1 << one - 1 for one in (signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM))
