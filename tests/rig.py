"""A real lab machine for tests: applies migrations written on the spot, and looks at what they left."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml

from pyinfra_overlaymig import lab as labs
from pyinfra_overlaymig.format.status import Status
from pyinfra_overlaymig.format.status_reader import parse
from pyinfra_overlaymig.migration.bundle import pack
from pyinfra_overlaymig.migration.folder import load
from pyinfra_overlaymig.migration.runner import LAUNCHER, runner_archive

RUNNER = "/data/system/runner/system-migrate"
PATIENCE = 600.0
"""Seconds: a virtual machine beside other tests is slow, and one that hangs is to be seen all the same."""

# Names and contents of a whole root. Contents are read of files that may differ from the base, which nobody writes:
# those that the stack or an upper has. Of paths that the root does not show, sha256sum says that they are not there.
TREE = r"""
names() {
    cd "$1"
    set -- -xdev \( -path ./run -o -path ./proc -o -path ./sys -o -path ./dev -o -path ./data \) -prune
    find . "$@" -o -printf '%y %m %U %G ' \
        \( -type d -printf '%p\0' -o -type f -printf '@FILE@ %p\0' -o -printf '%p -> %l\0' \) | tr '\n\0' ' \n'
}
own() (
    cd /data/system
    stack=$(sed -n 's|^layer |layers/|p' generations/current 2>/dev/null) || :
    for dir in $stack upper/*/upper; do [ ! -d "$dir" ] || (cd "$dir" && find . -type f -print0); done
)
contents() { cd "$1"; sort -zu | xargs -0 sha256sum -z 2>/dev/null | tr '\n\0' ' \n'; }
"""

# What a migration may not change when it fails: every name, type, mode, owner, time, target and content in the running
# root and in state, the generation, the layers and the mounts.
_TREE = (
    TREE.replace("@FILE@", "%s %T@")
    + r"""
(names /); own | (contents /)
(names /data/state); (cd /data/state; find . -type f -print0) | (contents /data/state)
readlink /data/system/generations/current || echo none
ls /data/system/layers
awk '$5 !~ "^/run/system-migrate/" { print $5, $4 }' /proc/self/mountinfo | sort
"""
)


@dataclass(frozen=True)
class Result:
    """What a command on a machine answered."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


@dataclass(frozen=True)
class Rig:
    """One machine of the lab the tests run on, reached without its sshd."""

    lab: labs.Lab
    name: str
    folder: Path

    @property
    def machine(self) -> labs.Machine:
        return labs.machine(self.lab, self.name)

    def run(self, *argv: str, stdin: bytes = b"", timeout: float = PATIENCE) -> Result:
        """Run a command on the machine as root."""
        done = subprocess.run(self.machine.enter(*argv), input=stdin, capture_output=True, timeout=timeout, check=False)
        return Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def rescue(self, *argv: str, stdin: bytes = b"", timeout: float = PATIENCE) -> Result:
        """Run a command in the view of the base, as from a host: past whatever the running root has lost."""
        pid = self.machine.must_run()
        view = f"--root=/proc/{pid}/root/run/system-migrate/base"
        enter = ["nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p", view, *argv]
        done = subprocess.run(enter, input=stdin, capture_output=True, timeout=timeout, check=False)
        return Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def raw(self, *argv: str) -> str:
        """The output of a command, with bytes outside UTF-8 as surrogate escapes."""
        done = subprocess.run(self.machine.enter(*argv), capture_output=True, timeout=PATIENCE, check=True)
        return done.stdout.decode("utf-8", "surrogateescape")

    def sh(self, script: str, timeout: float = PATIENCE, stdin: bytes = b"") -> str:
        """Run sh on the machine; its output, once it succeeded."""
        done = self.run("/bin/sh", "-euc", script, stdin=stdin, timeout=timeout)
        assert done.code == 0, f"{script}: exit {done.code}\n{done.text}"
        return done.out

    def prepare(self) -> None:
        """Install this checkout's runner."""
        script = f'd=$(mktemp -d) && tar -xz -C "$d" && sh "$d/{LAUNCHER}" init; rc=$?; rm -rf "$d"; exit $rc'
        done = self.run("/bin/sh", "-c", script, stdin=runner_archive())
        assert done.code == 0, done.text

    def reset(self) -> None:
        """A machine without history: an empty /data, and a restart."""
        # The machine runs, and may be writing there.
        self.sh("for i in 1 2 3; do ! rm -rf /data/system /data/state || exit 0; sleep 0.5; done; exit 1")
        labs.restart(self.lab, self.name)
        self.prepare()

    def migration(self, name: str, script: str, *, verify: str | None = None, **manifest: object) -> bytes:
        """The bundle of a migration with this install script."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "migration.yaml").write_text(yaml.safe_dump({"description": "for a test", **manifest}))
        (folder / "install.sh").write_text(f"#!/bin/sh\nset -eu\n{script}\n")
        (folder / "verify.sh").unlink(missing_ok=True)
        if verify is not None:
            (folder / "verify.sh").write_text(f"#!/bin/sh\nset -eu\n{verify}\n")
        return pack(load(folder))

    def apply(self, name: str, script: str, *, verify: str | None = None, **manifest: object) -> Result:
        """Apply such a migration."""
        return self.run(RUNNER, "apply", "-", stdin=self.migration(name, script, verify=verify, **manifest))

    def status(self) -> Status:
        return parse(self.sh(f"{RUNNER} status"))

    def tree(self) -> frozenset[str]:
        """A description of the whole running root and of state, equal only for equal machines."""
        return frozenset(self.sh(_TREE).splitlines())
