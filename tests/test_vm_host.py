"""What a virtual machine needs of the host, and that it stays one."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from pyinfra_overlaymig import lab
from pyinfra_overlaymig.errors import OverlaymigError
from pyinfra_overlaymig.lab import vm
from pyinfra_overlaymig.lab.fleet import _wanted
from pyinfra_overlaymig.lab.layout import Place
from pyinfra_overlaymig.lab.machine import create, kind_of


def test_what_is_missing_is_named_with_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OverlaymigError, match="qemu-system-x86_64, mke2fs") as refusal:
        vm.check()
    assert "qemu-system-x86 e2fsprogs" in (refusal.value.hint or "")


def test_another_architecture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(OverlaymigError, match="this host is aarch64"):
        vm.check()


def test_a_machine_stays_of_the_kind_that_it_was_made(tmp_path: Path) -> None:
    """Promise: `up --vm` over a lab that is there turns no machine into another."""
    one, two = (Place(lab.Lab.at(tmp_path / "lab"), number) for number in (1, 2))
    create(one, "vm")
    create(two, "namespaces")
    for here in (one, two):
        create(here, "vm")
    assert [kind_of(here) for here in (one, two)] == ["vm", "namespaces"]
    assert vm.data(one).stat().st_size > vm.data(one).stat().st_blocks * 512, "sparse"


@pytest.mark.parametrize(
    ("there", "count", "kind", "wanted"),
    [
        ({}, None, "namespaces", [1, 2, 3]),
        ({}, None, "vm", [1, 2, 3]),
        ({}, 2, "vm", [1, 2]),
        ({1: "namespaces", 2: "namespaces"}, None, "vm", [1, 2, 3]),
        ({1: "namespaces", 4: "namespaces"}, None, "vm", [1, 4, 5]),
        ({1: "namespaces", 2: "vm"}, None, "vm", [1, 2]),
        ({1: "namespaces"}, 2, "vm", [1, 2]),
        ({1: "namespaces", 2: "vm"}, 2, "vm", [1, 2]),
        ({1: "namespaces", 2: "namespaces"}, 2, "vm", None),
        ({1: "namespaces", 2: "namespaces", 3: "vm"}, 1, "vm", None),
        ({2: "namespaces", 3: "vm"}, None, "namespaces", [2, 3]),
        ({1: "vm"}, 1, "namespaces", [1]),
        ({200: "namespaces"}, None, "vm", None),
    ],
)
def test_up_makes_what_was_asked_for_or_says_what_to_type(
    there: dict[int, str], count: int | None, kind: str, wanted: list[int] | None, tmp_path: Path
) -> None:
    """`up --vm` beside machines that are none adds one, and never ends as if it had; no hole is filled unasked."""
    made = lab.Lab.at(tmp_path / "lab")
    for index, its in there.items():
        Place(made, index).directory.mkdir(parents=True)
        Place(made, index).kind.write_text(f"{its}\n")
    if wanted is not None:
        assert [here.index for here in _wanted(made, count, kind)] == wanted
        return
    with pytest.raises(OverlaymigError, match="none of them is of the kind vm") as refusal:
        _wanted(made, count, kind)
    assert f"lab up --vm -n {min(max(there) + 1, 200)}" in refusal.value.hint or max(there) == 200
