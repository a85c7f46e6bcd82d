"""The image of the Dockerfile, in containers: as typed, with nothing but memory at /data, and through pyinfra."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyinfra_overlaymig.lab.base import base_root
from pyinfra_overlaymig.lab.fleet import quiet
from pyinfra_overlaymig.lab.layout import Lab
from pyinfra_overlaymig.migration.bundle import pack
from pyinfra_overlaymig.migration.folder import load
from tests.volume import volume

TOP = Path(__file__).parent.parent
PROGRAM = "system-migrate"
# Of an image that nobody can pull here, the lab's own base is as good.
BASE_IMAGE = "docker.io/library/debian:bookworm-slim"
STORAGE = '[storage]\ndriver = "overlay"\ngraphroot = "{0}/graph"\nrunroot = "{0}/run"\n'
CONTAINERS = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
Podman = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    """Podman with storage of its own, and the image `migration-test` in it."""
    with volume() as disk, pytest.MonkeyPatch.context() as patch:
        for name, text in (("storage", STORAGE.format(disk)), ("containers", CONTAINERS)):
            (disk / f"{name}.conf").write_text(text)
        patch.setenv("CONTAINERS_STORAGE_CONF", str(disk / "storage.conf"))
        patch.setenv("CONTAINERS_CONF", str(disk / "containers.conf"))

        def run(*words: str, stdin: bytes = b"", code: int = 0) -> subprocess.CompletedProcess[str]:
            ended = subprocess.run(["podman", *words], input=stdin, capture_output=True, check=False, timeout=300)
            done = subprocess.CompletedProcess(
                words, ended.returncode, *map(bytes.decode, (ended.stdout, ended.stderr))
            )
            assert done.returncode == code, f"podman {' '.join(words)}: {done.stdout}{done.stderr}"
            return done

        packed = subprocess.run(
            ["tar", "-C", base_root(Lab.default().cache, quiet), "-c", "."], stdout=subprocess.PIPE, check=True
        )
        run("import", "-q", "-", BASE_IMAGE, stdin=packed.stdout)
        run("build", "--isolation=chroot", "-q", "-t", "migration-test", str(TOP))
        try:
            yield run
        finally:
            run("rm", "-af", "-t", "0")
            for left in ("graph/overlay", "graph"):
                subprocess.run(["umount", "-l", disk / left], check=False, capture_output=True)
            shutil.rmtree(disk / "graph")


def test_a_container_is_typed_and_has_what_was_installed(podman: Podman) -> None:
    """Without a volume, and without s6: it says what that means, and ends well."""
    script = f"{PROGRAM} install jq && jq --version && ls /data/system/migrations && {PROGRAM} check"
    done = podman("run", "--rm", "--privileged", "migration-test", "/bin/bash", "-c", script)
    assert "/data is no volume" in done.stderr
    assert "is applied, generation 1 is running" in done.stdout
    assert "_install_jq\n" in done.stdout
    # What follows a boot waits quietly.
    assert "waiting for" not in done.stdout


def test_services_are_laid_out_where_nothing_supervises_them(podman: Podman, tmp_path: Path) -> None:
    """They are told as not started, which is no failure, at a restart neither."""
    folder = tmp_path / "20250101-001_web"
    folder.mkdir()
    (folder / "migration.yaml").write_text("description: x\nservices: {web: {run: exec sleep 1111, check: 'true'}}\n")
    (folder / "install.sh").write_text("#!/bin/sh\nset -eu\necho x >/etc/web\n")
    (tmp_path / "data").mkdir()
    data = f"{tmp_path}/data:/data"
    podman("run", "-d", "--privileged", "--name", "bare", "-v", data, "migration-test", "sleep", "1000")
    done = podman("exec", "-i", "bare", PROGRAM, "apply", "-", stdin=pack(load(folder)))
    assert "nothing supervises services here: not started: web" in done.stdout
    podman("restart", "-t", "0", "bare")
    # Until it is clear that no s6-svscan comes, the boot may still turn out to be a bad one.
    over = f'until {PROGRAM} status | grep -q \'"running":1,"failed_boots":0,\'; do sleep 0.5; done'
    podman("exec", "bare", "timeout", "60", "sh", "-c", over)
    assert podman("exec", "bare", "cat", "/etc/web", "/run/service/web/layer").stdout == f"x\n{folder.name}\n"
    podman("rm", "-f", "-t", "0", "bare")


def test_pyinfra_brings_a_container_to_a_migration(podman: Podman) -> None:
    """Over podman's exec, with a new connection that confirms; its services run, as the image's entrypoint has s6."""
    podman("run", "-d", "--privileged", "--name", "c1", "migration-test")
    done = subprocess.run(
        [Path(sys.executable).with_name("pyinfra"), "-y", "@podman/c1", "deploys/nginx.py"],
        cwd=TOP, capture_output=True, text=True, check=False, timeout=300, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "confirmed: generation 1 is running" in done.stdout + done.stderr
    assert "nginx" in podman("exec", "c1", "ls", "/data/system/migrations/").stdout
    assert podman("exec", "c1", "s6-svstat", "-o", "ready", "/run/service/nginx").stdout == "true\n"
