"""A throwaway copy of this machine's root, for tests that run the real thing as root."""

from __future__ import annotations

import subprocess
from pathlib import Path

_ENTER = r"""
set -eu
top=$1
mount -t tmpfs tmpfs "$top"
mkdir "$top/upper" "$top/work" "$top/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" "$top/root"
mount --rbind /dev "$top/root/dev"
mount -t proc proc "$top/root/proc"
mount -t tmpfs tmpfs "$top/root/run"
mkdir -p "$top/root/data"
mount -t tmpfs tmpfs "$top/root/data"
mount -t tmpfs tmpfs "$top/root/tmp"
mkdir "$top/root/sandbox"
mount --bind "$2" "$top/root/sandbox"
exec chroot "$top/root" /bin/sh -eu -c "$3"
"""


def run_in_sandbox(script: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Runs sh as root in a root whose changes go nowhere; ``tmp_path`` is its /sandbox.

    /data and /run are empty. Nothing that the script started outlives it.
    """
    top, shared = tmp_path / "root", tmp_path / "shared"
    top.mkdir()
    shared.mkdir(exist_ok=True)
    return subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts",
         "sh", "-c", _ENTER, "sh", str(top), str(shared), script],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
