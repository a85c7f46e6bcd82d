"""What the tests share: one lab for the whole run, in a directory of its own, taken down at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pyinfra_overlaymig import lab
from tests.rig import Rig
from tests.volume import volume

MACHINES = 3
LONGEST = [
    *("test_vm_power.py", "test_s6_service.py", "test_runner_crash.py", "test_end_to_end.py", "test_readme.py"),
    *(
        "test_audit_vm.py",
        "test_runner_rollback.py",
        "test_runner_services.py",
        "test_lab_interrupted.py",
        "test_runner_failure.py",
    ),
    *("test_lab_machines.py", "test_runner_broken.py", "test_runner_state.py", "test_runner_switch.py"),
    "test_audit_session.py",
]

# How long one example takes says what else runs on the host.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The modules that take longest come first: at the end they would keep one process busy while others have none."""
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONGEST)))


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
def fleet(running_lab: lab.Lab) -> lab.Lab:
    """Three machines without history, whose sshd answers: whatever was done to them by the modules before."""
    for name in ("lab-1", "lab-2", "lab-3"):
        Rig(running_lab, name, Path()).sh("/usr/bin/rm -rf /data/system /data/state")
        lab.restart(running_lab, name)
    return running_lab


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
