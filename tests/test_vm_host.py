"""What a virtual machine needs of the host, and that it stays one."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from pyinfra_overlaymig import lab
from pyinfra_overlaymig.errors import OverlaymigError
from pyinfra_overlaymig.lab import vm
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
