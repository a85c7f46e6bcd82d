"""Builds the machines' shared read-only root once; it must never change one that exists.

CACHE/base-<key>/     a finished root; key is a digest of all that it is made from
CACHE/vm-<key>/       what virtual machines start from, made of it by vm_image.py
CACHE/building-*/     a build under way, or what is left of one that was killed
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from pyinfra_overlaymig.lab.locking import Report, locked
from pyinfra_overlaymig.lab.removal import remove_tree
from pyinfra_overlaymig.lab.run import run
from pyinfra_overlaymig.lab.sources import Sources, host_sources

PACKAGES = ("openssh-server", "python3", "s6", "execline", "attr", "auditd", "procps", "iproute2", "ca-certificates")

_SSHD_CONFIG = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
UseDNS no
PrintMotd no
MaxStartups 100:30:400
MaxSessions 100
"""
_SSHD_RUN = """\
#!/bin/sh
exec 2>&1
mkdir -p /run/sshd
exec /usr/sbin/sshd -D -e
"""
_FILES = {
    "etc/ssh/sshd_config.d/overlaymig.conf": (_SSHD_CONFIG, 0o644),
    "etc/s6/services/sshd/run": (_SSHD_RUN, 0o755),
    "etc/machine-id": ("", 0o444),
    "etc/hostname": ("lab\n", 0o644),
}
_APT = ('Acquire::Languages "none";',)


def base_root(cache: Path, report: Report) -> Path:
    """The root directory for this host's release and sources, built now if ``cache`` lacks it."""
    sources = host_sources()
    saying = f"building the base root of {sources.distribution} {sources.suite} (once, under a minute)"

    def build(scratch: Path, lock: int) -> None:
        _build(scratch, sources, lock)

    return built_once(cache / f"base-{_key(sources)}", report, saying, build)


def built_once(target: Path, report: Report, saying: str, build: Callable[[Path, int], None]) -> Path:
    """``target``, a directory of the cache; when it is missing, what ``build`` makes as `made` in a scratch directory.

    ``build`` gets that directory and the descriptor of the cache's lock.
    """
    if target.is_dir():
        return target
    cache = target.parent
    with locked(cache, report=report, busy="waiting for another lab that builds here") as lock:
        if not target.is_dir():
            for dead in cache.glob("building-*"):
                remove_tree(dead)
            report(saying)
            scratch = Path(tempfile.mkdtemp(prefix="building-", dir=cache))
            build(scratch, lock)
            os.sync()
            (scratch / "made").rename(target)
            remove_tree(scratch)
    return target


def _key(sources: Sources) -> str:
    made_from = repr((PACKAGES, sources, sorted(_FILES.items()), _APT))
    return hashlib.sha256(made_from.encode(errors="surrogateescape")).hexdigest()[:16]


def _build(scratch: Path, sources: Sources, lock: int) -> None:
    root = scratch / "made"
    run(
        [*_bootstrap(sources), sources.suite, root, *_mirrors(scratch, sources)],
        hint="check that `apt-get update` works on this host: the lab takes its sources",
        # Held by the build as well: whoever waits for it goes on only when no process writes here.
        keep_open=[lock],
    )
    for name, (text, mode) in _FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(mode)
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    (root / "data").mkdir(exist_ok=True)


def _bootstrap(sources: Sources) -> list[str]:
    """Run mmdebstrap in namespaces that end with this process, however it is killed."""
    settings = [f"--aptopt={line}" for line in (*sources.settings, *_APT)]
    contained = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork"]
    program = shutil.which("mmdebstrap") or "mmdebstrap"
    return [
        *contained,
        *("--kill-child", "--mount-proc", program, "--mode=root", "--variant=minbase", "--quiet"),
        *("--format=directory", f"--include={','.join(PACKAGES)}", *settings),
    ]


def _mirrors(scratch: Path, sources: Sources) -> list[Path]:
    files = []
    for name, text in (("list", "\n".join(sources.lines)), ("sources", "\n".join(sources.stanzas))):
        if text:
            files.append(scratch / f"lab.{name}")
            files[-1].write_text(text + "\n", errors="surrogateescape")
    return files
