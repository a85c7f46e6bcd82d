from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyinfra_overlaymig.runner import owners
from tests import tree_model
from tests.volume import volume

number = itertools.count()
PATH = "/srv/app"


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    with volume() as directory:
        yield directory


@pytest.fixture
def live(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state path."""
    top = disk / str(next(number))
    monkeypatch.setattr(owners, "STATE", str(top / "state"))
    monkeypatch.setattr(owners, "ACCOUNTS", str(top / "accounts"))
    made = Path(f"{top}/state{PATH}")
    made.mkdir(parents=True)
    return made


def accounts(**numbers: int) -> owners.Accounts:
    return {(kind, name): one for name, one in numbers.items() for kind in "ug"}


def made_by(live: Path, name: str, owner: int) -> Path:
    file = live / name
    file.write_text(name)
    os.chown(file, owner, owner)
    return file


def test_two_accounts_that_swap_numbers_keep_their_files(live: Path) -> None:
    owners.follow(PATH, accounts(alpha=811, beta=812))
    alpha, beta = made_by(live, "alpha", 811), made_by(live, "beta", 812)
    owners.follow(PATH, accounts(alpha=812, beta=811))
    assert (alpha.stat().st_uid, alpha.stat().st_gid) == (812, 812)
    assert (beta.stat().st_uid, beta.stat().st_gid) == (811, 811)


def test_nobody_gets_the_files_of_an_account_that_is_gone(live: Path) -> None:
    """Another one has its number after a rollback; and it comes back with one of its own."""
    owners.follow(PATH, accounts(alpha=811))
    key = made_by(live, "key", 811)
    owners.follow(PATH, {})
    assert key.stat().st_uid == 811
    owners.follow(PATH, accounts(beta=811))
    assert key.stat().st_uid == owners.WAITING
    beta = made_by(live, "beta", 811)
    owners.follow(PATH, accounts(beta=811))
    owners.follow(PATH, accounts(beta=811, alpha=812))
    assert (key.stat().st_uid, beta.stat().st_uid) == (812, 811)


@pytest.mark.parametrize("steps", [*range(0, 24, 2), 1000])
@pytest.mark.parametrize("inner_first", [True, False])
def test_state_in_state_is_followed_once(live: Path, inner_first: bool, steps: int) -> None:
    """Whichever was declared first, and whether its record is older: numbers that are swapped twice are as before."""
    was, now = accounts(alpha=811, beta=812), accounts(alpha=812, beta=811)
    (live / "in").mkdir()
    files = [made_by(live, "alpha", 811), made_by(live / "in", "alpha", 811), made_by(live / "in", "beta", 812)]
    for path in (f"{PATH}/in", PATH) if inner_first else (PATH, f"{PATH}/in"):
        owners.follow(path, was)
    with tree_model.killed(steps):
        owners.follow(PATH, now)
    owners.follow(PATH, now)
    assert [one.stat().st_uid for one in files] == [812, 812, 811]
    # A rollback that leaves the inner one alone: it knows what has moved.
    owners.follow(f"{PATH}/in", was)
    assert [one.stat().st_uid for one in files] == [812, 811, 812]
    owners.follow(PATH, was)
    assert [one.stat().st_uid for one in files] == [811, 811, 812]


@pytest.mark.parametrize("steps", range(12))
def test_an_interruption_mixes_nothing(live: Path, steps: int) -> None:
    owners.follow(PATH, accounts(alpha=811, beta=812))
    alpha, beta = made_by(live, "alpha", 811), made_by(live, "beta", 812)
    with tree_model.killed(steps):
        owners.follow(PATH, accounts(alpha=812, beta=811))
    owners.follow(PATH, accounts(alpha=812, beta=811))
    assert (alpha.stat().st_uid, beta.stat().st_uid) == (812, 811)
    owners.follow(PATH, accounts(alpha=812, beta=811))
    assert (alpha.stat().st_uid, beta.stat().st_uid) == (812, 811)


def test_setuid_bits_capabilities_and_acls_stay(live: Path) -> None:
    """And entries of named users follow too."""
    owners.follow(PATH, accounts(alpha=811, beta=812))
    setuid, capable, shared = (made_by(live, name, 811) for name in ("setuid", "capable", "shared"))
    setuid.chmod(0o6755)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(capable, "security.capability", capability)
    subprocess.run(["setfacl", "-m", "u:812:rw,g:811:r", shared], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:812:rwx", live], check=True)
    (live / "link").symlink_to("/etc/passwd")
    os.chown(live / "link", 811, 811, follow_symlinks=False)
    owners.follow(PATH, accounts(alpha=900, beta=901))
    assert setuid.stat().st_mode & 0o7777 == 0o6755
    assert setuid.stat().st_uid == 900
    assert os.getxattr(capable, "security.capability") == capability
    said = subprocess.run(["getfacl", "-cn", shared, live], capture_output=True, text=True, check=True).stdout
    assert "user:901:rw-" in said
    assert "group:900:r--" in said
    assert "default:user:901:rwx" in said
    assert os.lstat(live / "link").st_uid == 900
    assert Path("/etc/passwd").stat().st_uid == 0


def test_what_refuses_to_change_is_named_and_in_nobodys_way(live: Path, capfd: pytest.CaptureFixture[str]) -> None:
    owners.follow(PATH, accounts(alpha=811))
    held, free = made_by(live, "held", 811), made_by(live, "free", 811)
    subprocess.run(["chattr", "+i", held], check=True)
    try:
        owners.follow(PATH, accounts(alpha=812))
        assert (held.stat().st_uid, free.stat().st_uid) == (811, 812)
        assert "held: Operation not permitted" in capfd.readouterr().err
    finally:
        subprocess.run(["chattr", "-i", held], check=True)


def test_the_record_of_a_pre_start_script_is_read(live: Path) -> None:
    """It has only those that owned something, and what it was moving goes on."""
    file = Path(owners.record(PATH))
    file.parent.mkdir()
    file.write_text("g alpha 811\nu alpha 811\n")
    Path(f"{file}.moving").write_text("u 811 820\n")
    key = made_by(live, "key", 811 + owners.APART)
    os.chown(key, -1, 811)
    owners.follow(PATH, accounts(alpha=820))
    owners.follow(PATH, accounts(alpha=820))
    assert key.stat().st_uid == 820
    assert file.read_text() == "g alpha 820\nu alpha 820\n"
    assert sorted(os.listdir(file.parent)) == [file.name, f"{file.name}.all"]
    assert file.name == "%2fsrv%2fapp"


@pytest.mark.usefixtures("live")
def test_nothing_is_written_where_nothing_moves() -> None:
    """Nor is a state path walked: it may be large."""
    owners.follow(PATH, accounts(alpha=811))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fwalk", None)
        with tree_model.killed(0) as done:
            owners.follow(PATH, accounts(alpha=811))
    assert done == [0]


def test_accounts_are_read_in_the_root_they_are_of(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nalpha:x:811:812::/:\n+nis\nbad:x\n")
    (tmp_path / "etc/group.real").write_text("alpha:x:812:\n")
    (tmp_path / "etc/group").symlink_to("/etc/group.real")
    found = owners.of(str(tmp_path))
    assert found == {("u", "root"): 0, ("u", "alpha"): 811, ("g", "alpha"): 812}


tables = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 5), max_size=4).filter(
    lambda table: len(set(table.values())) == len(table)
)


@given(history=st.lists(tables, min_size=2, max_size=6))
def test_files_belong_to_whom_they_belonged(history: list[dict[str, int]]) -> None:
    """Whatever accounts come, go and change numbers: no file is ever another name's."""
    known: owners.Accounts = {}
    held: dict[str, int] = {}
    for table in history:
        now = {("u", name): one for name, one in table.items()}
        moves, known = owners.plan(known, now)
        held = {name: moves.get(("u", one), one) for name, one in held.items()}
        for name, one in table.items():
            assert held.setdefault(name, one) == one
        for name, one in held.items():
            assert name in table or one not in table.values()
        assert len(set(held.values())) == len(held)
