"""The lab: machines that come up, restart and go without a trace, however often they are interrupted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paramiko
import pytest

from pyinfra_overlaymig import lab
from pyinfra_overlaymig.lab.connection import connect, output
from pyinfra_overlaymig.lab.removal import remove_tree

TOP = Path(__file__).parent.parent

_CLI = "from pyinfra_overlaymig.cli.main import main; main()"


def _overlaymig(here: lab.Lab, *words: str, code: str = _CLI) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "OVERLAYMIG_LAB_DIR": str(here.directory)},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def _says(*program: str) -> str:
    return subprocess.run(program, capture_output=True, text=True, check=True).stdout


def _in_proc(name: str, needle: str) -> list[str]:
    found = []
    for path in Path("/proc").glob(f"[0-9]*/{name}"):
        try:
            if needle in path.read_text(errors="replace"):
                found.append(str(path))
        except OSError:  # it ended meanwhile
            continue
    return found


def _traces(here: lab.Lab) -> dict[str, bool]:
    """What the host has of a lab, by kind."""
    directory = f"{here.directory}/"
    return {
        "mounts": bool(_in_proc("mountinfo", directory)),
        "processes": bool(_in_proc("cmdline", directory)),
        "namespaces": here.bridge in _says("ip", "netns"),
        "interfaces": here.bridge in _says("ip", "-o", "link"),
        "rules": here.nft_table in _says("nft", "list", "tables"),
        "routes": here.bridge in _says("ip", "route"),
        "user": Path("/run/overlaymig/users", here.tag).exists(),
        "files": here.directory.exists(),
    }


def _answer(here: lab.Lab, name: str, command: str) -> str:
    with connect(here, lab.machine(here, name)) as client:
        code, out, complaint = output(client, command)
    assert code == 0, complaint
    return out.strip()


@pytest.fixture
def labs() -> Iterator[tuple[lab.Lab, lab.Lab]]:
    """Two labs that are not there yet; both are gone at the end."""
    # A real disk is wanted: /tmp may be a small tmpfs.
    directory = Path(tempfile.mkdtemp(prefix="overlaymig-test-", dir="/var/tmp"))
    made = lab.Lab.at(directory / "one"), lab.Lab.at(directory / "two")
    try:
        yield made
    finally:
        for here in made:
            lab.down(here)
        shutil.rmtree(directory)


def test_up_leaves_what_runs_alone(fleet: lab.Lab) -> None:
    before = lab.machines(fleet)
    assert [machine.name for machine in before] == ["lab-1", "lab-2", "lab-3"]
    assert lab.up(fleet, 3) == before
    assert lab.up(fleet, 1) == before[:1]
    assert lab.machines(fleet) == before


def test_a_machine_is_itself_and_reaches_the_others(fleet: lab.Lab) -> None:
    assert [_answer(fleet, name, "hostname") for name in ("lab-1", "lab-2")] == ["lab-1", "lab-2"]
    other = lab.machine(fleet, "lab-2").address
    assert _answer(fleet, "lab-1", f"ssh-keyscan -t ed25519 {other} 2>/dev/null").startswith(other)
    assert _answer(fleet, "lab-1", "cat /proc/1/comm") == "s6-svscan"
    # A machine of its own: it sees no process and no mount of the host.
    assert str(fleet.directory / "machines") not in _answer(fleet, "lab-1", "cat /proc/*/cmdline")


def test_a_restart_keeps_data_and_nothing_else(fleet: lab.Lab) -> None:
    before = lab.machine(fleet, "lab-3")
    # What was written outside migrations is itself kept under /data/system; without that, nothing brings it back.
    _answer(fleet, "lab-3", "echo kept >/data/kept; echo x >/root/gone; echo x >/run/gone; rm -rf /data/system")
    after = lab.restart(fleet, "lab-3")
    assert (after.address, after.running) == (before.address, True)
    assert after.pid != before.pid
    # Over ssh with the known_hosts of before: the host key is kept.
    assert _answer(fleet, "lab-3", "cat /data/kept; ls /root /run").splitlines()[0] == "kept"
    assert "gone" not in _answer(fleet, "lab-3", "ls /root /run")


def test_exec_and_ssh_pass_words_and_exit_code_on(fleet: lab.Lab) -> None:
    for verb in ("exec", "ssh"):
        done = _overlaymig(fleet, "lab", verb, "lab-1", "--", "sh", "-c", 'echo "$1"; exit 7', "sh", "a  b")
        assert (done.returncode, done.stdout) == (7, "a  b\n"), done.stderr
    done = _overlaymig(fleet, "lab", "ssh", "lab-9")
    assert done.returncode == 1
    assert "overlaymig lab up -n 9" in done.stderr


def test_ls_and_status_are_for_programs_too(fleet: lab.Lab) -> None:
    listed = json.loads(_overlaymig(fleet, "lab", "ls", "--json").stdout)
    assert [(row["name"], row["running"]) for row in listed] == [(f"lab-{n}", True) for n in (1, 2, 3)]
    asked = json.loads(_overlaymig(fleet, "lab", "status", "--json").stdout)
    assert [row["address"] for row in asked] == [row["address"] for row in listed]
    # All have answered; what other tests left there may be in no good state.
    assert {row["state"] for row in asked} <= {"ready", "degraded", "no runner yet"}


@pytest.mark.parametrize("verb", ["exec", "ssh"])
def test_what_runs_there_ends_quietly_into_head(fleet: lab.Lab, verb: str) -> None:
    """Python ignores SIGPIPE, and what it becomes would, too."""
    words = [sys.executable, "-c", _CLI, "lab", verb, "lab-1", "--", "seq", "100000"]
    done = subprocess.run(
        ["bash", "-c", '"$@" | head -n 1; echo "${PIPESTATUS[0]}"', "bash", *words],
        env={**os.environ, "OVERLAYMIG_LAB_DIR": str(fleet.directory)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (done.stdout.split()[0], done.stderr) == ("1", "")
    assert verb == "ssh" or done.stdout.split()[1] == "141"


def test_another_host_key_is_refused(fleet: lab.Lab) -> None:
    machine = lab.machine(fleet, "lab-1")
    before = fleet.known_hosts.read_text()
    kind, key = before.splitlines()[1].split()[1:]
    try:
        for text in ("", f"{machine.address} {kind} {key}\n"):
            fleet.known_hosts.write_text(text)
            ssh = [*lab.ssh_argv(fleet, machine), "true"]
            assert subprocess.run(ssh, check=False, capture_output=True).returncode == 255
            with pytest.raises(paramiko.SSHException):
                connect(fleet, machine)
    finally:
        fleet.known_hosts.write_text(before)
    assert all(data["ssh_strict_host_key_checking"] == "yes" for _, data in lab.inventory(fleet))


def test_two_labs_live_side_by_side_and_go_without_a_trace(labs: tuple[lab.Lab, lab.Lab]) -> None:
    forward = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    with ThreadPoolExecutor(2) as pool:
        counts = ("1", "2")
        done = list(pool.map(lambda here, count: _overlaymig(here, "lab", "up", "-n", count), labs, counts))
    assert [end.returncode for end in done] == [0, 0], [end.stderr for end in done]
    one, two = labs
    assert lab.machine(one, "lab-1").address != lab.machine(two, "lab-1").address
    assert set(_traces(one).values()) == {True}, _traces(one)

    ended = _overlaymig(one, "lab", "down")
    assert (ended.returncode, f"the lab in {one.directory} is gone" in ended.stdout) == (0, True), ended.stderr
    assert set(_traces(one).values()) == {False}, _traces(one)
    assert _answer(two, "lab-1", "hostname") == "lab-1"

    _one_goes(two)
    lab.down(two)
    assert set(_traces(two).values()) == {False}, _traces(two)
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == forward
    ended = _overlaymig(two, "lab", "down")
    assert (ended.returncode, f"there was no lab in {two.directory}" in ended.stdout) == (0, True), ended.stderr


def _one_goes(here: lab.Lab) -> None:
    """`down NAME`: the others run on, and `up` brings no other into its place unless it is asked for."""
    ended = _overlaymig(here, "lab", "down", "lab-1", "lab-7")
    assert (ended.returncode, "there is no lab-7" in ended.stderr) == (1, True), ended.stderr
    ended = _overlaymig(here, "lab", "down", "lab-1")
    assert (ended.returncode, ended.stdout) == (0, "lab-1 removed\nthe others stay: lab-2\n"), ended.stderr
    assert _answer(here, "lab-2", "hostname") == "lab-2"
    assert "lab-1" not in here.known_hosts.read_text()
    assert "1 machines run: lab-2\n" in _overlaymig(here, "lab", "up").stdout


def test_the_example_of_an_inventory_checks_host_keys(fleet: lab.Lab, tmp_path: Path) -> None:
    """One that is not known is refused, and so is another than the one that is; not only said to be."""
    machine = lab.machine(fleet, "lab-1")
    text = (TOP / "inventories/static.py").read_text()
    assert '"db-1.example.net", "db-2.example.net"' in text
    inventory = tmp_path / "static.py"
    inventory.write_text(text.replace('"db-1.example.net", "db-2.example.net"', f'"{machine.address}"'))
    known = tmp_path / ".ssh/known_hosts"
    known.parent.mkdir()
    right = fleet.known_hosts.read_text()
    kind, other = right.splitlines()[1].split()[1:]
    argv: list[str | Path] = [
        Path(sys.executable).with_name("pyinfra"),
        "-y",
        "--limit",
        "databases",
        "--key",
        fleet.key,
        inventory,
    ]
    for trusted, said, code in (("", "No host key", 1), (f"{machine.address} {kind} {other}\n", "", 1), (right, "", 0)):
        known.write_text(trusted)
        done = subprocess.run(
            [*argv, "exec", "--", "true"], env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, text=True,
            check=False, timeout=60,
        )  # fmt: skip
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert text.count("CHECKED") == 3, "each group has it"


def test_a_directory_that_is_no_lab_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "home" / "precious"
    precious.parent.mkdir()
    precious.write_text("mine")
    for words in (("down",), ("up", "-n", "1")):
        done = _overlaymig(lab.Lab.at(precious.parent), "lab", *words)
        assert done.returncode == 1
        assert "is no lab: it holds precious" in done.stderr
    assert [path.name for path in precious.parent.iterdir()] == ["precious"]
    assert precious.read_text() == "mine"


def test_a_lab_on_a_volume_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    """A volume has a lost+found, and is a mount point; a machine's /data has what is immovable and a mount."""
    image, other = tmp_path / "image", tmp_path / "other"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    other.mkdir()
    (other / "precious").write_text("mine")
    top = Path(tempfile.mkdtemp(prefix="overlaymig-test-", dir="/var/tmp"))
    subprocess.run(["mount", "-o", "loop", image, top], check=True)
    try:
        here = lab.Lab.at(top)
        lab.up(here, 1)
        data = lab.machine(here, "lab-1").data
        (data / "mounted").mkdir()
        (data / "held").write_text("x")
        subprocess.run(["mount", "--bind", other, data / "mounted"], check=True)
        subprocess.run(["chattr", "+i", data / "held", data], check=True)
        ended = _overlaymig(here, "lab", "down")
        assert ended.returncode == 0, ended.stderr
        assert [path.name for path in top.iterdir()] == ["lost+found"]
        assert (other / "precious").read_text() == "mine"
    finally:
        subprocess.run(["umount", top], check=True)
        top.rmdir()


def test_a_subvolume_goes_with_what_holds_it(tmp_path: Path) -> None:
    image, top = tmp_path / "image", tmp_path / "top"
    with image.open("wb") as file:
        file.truncate(256 << 20)
    top.mkdir()
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, top], check=True)
    try:
        (top / "lab/data").mkdir(parents=True)
        subprocess.run(["btrfs", "-q", "subvolume", "create", top / "lab/data/one"], check=True)
        (top / "lab/data/one/file").write_text("x")
        remove_tree(top / "lab")
        assert list(top.iterdir()) == []
        remove_tree(top / "lab")
    finally:
        subprocess.run(["umount", top], check=True)
