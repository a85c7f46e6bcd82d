"""What the tests share: one lab for the whole run, in a directory of its own, taken down at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyinfra_overlaymig import lab
from tests.rig import Rig
from tests.volume import volume

MACHINES = 3
LONGEST = ("test_vm_power.py", "test_runner_crash.py", "test_audit_vm.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The modules that take longest come first: at the end they would keep one process busy while others have none."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def running_lab() -> Iterator[lab.Lab]:
    """Three machines. Where there is no root or no overlayfs this fails, and says what is missing."""
    with volume() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVERLAYMIG_LAB_DIR", str(directory / "lab"))
        made = lab.Lab.default()
        try:
            lab.up(made, MACHINES)
            yield made
        finally:
            lab.down(made)


@pytest.fixture(scope="module")
def rig(running_lab: lab.Lab, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """A machine without history, for one module of tests."""
    made = Rig(running_lab, "lab-1", tmp_path_factory.mktemp("migrations"))
    made.reset()
    return made


@pytest.fixture
def fresh(running_lab: lab.Lab, tmp_path: Path) -> Rig:
    """A machine without history, for one test."""
    made = Rig(running_lab, "lab-2", tmp_path)
    made.reset()
    return made


@pytest.fixture(scope="module")
def module_disk(running_lab: lab.Lab) -> Iterator[Path]:
    """A directory on the file system that the lab is on, for one module of tests: pytest's own may be on a tmpfs."""
    made = Path(tempfile.mkdtemp(prefix="module-", dir=running_lab.directory.parent))
    yield made
    shutil.rmtree(made)
