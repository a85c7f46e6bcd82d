"""The auditd that a lab's keeper needs: the host's, or one of ours where none runs, which ends with the last keeper.

CACHE/audit/: its configuration and log; `auditd`, the process; `before`, the kernel's settings before it; `terse`.
"""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

from pyinfra_overlaymig.errors import OverlaymigError
from pyinfra_overlaymig.lab import process
from pyinfra_overlaymig.lab.locking import write_file
from pyinfra_overlaymig.lab.run import detach
from pyinfra_overlaymig.runner.audit import rules
from pyinfra_overlaymig.runner.audit.auditd import BACKLOG, configuration
from pyinfra_overlaymig.runner.audit.netlink import Audit, Status

_ROTATED = "max_log_file = 64\nnum_logs = 4\nmax_log_file_action = ROTATE"


def status() -> Status:
    """What the kernel says of its audit."""
    with Audit() as kernel:
        return kernel.status()


def log(shared: Path) -> Path:
    """The log of the auditd that runs, ours if there was none."""
    pid = daemon() or _start(shared)
    if Path(f"/proc/{pid}/comm").read_text().strip() != "auditd":
        raise OverlaymigError(f"process {pid} holds the kernel's audit, and is no auditd", hint="end it")
    for link in Path(f"/proc/{pid}/fd").iterdir():
        file = link.readlink()
        if link.is_file() and file.name.endswith(("log", ".log")):
            return file
    raise OverlaymigError("the auditd that runs here writes no log", hint="set `write_logs = yes` in auditd.conf")


def daemon() -> int:
    """The process that holds the kernel's audit, 0 if there is none: the kernel may still name one that is gone."""
    pid = status().pid
    return pid if process.lives(pid) else 0


def _start(shared: Path) -> int:
    found = status()
    write_file(shared / "before", f"{found.enabled} {found.backlog_limit}\n")
    (shared / "conf/plugins").mkdir(parents=True, exist_ok=True)
    text = configuration(f"{shared}/audit.log", f"{shared}/conf/plugins", _ROTATED)
    write_file(shared / "conf/auditd.conf", text, 0o600)
    program = shutil.which("auditd") or "auditd"
    alive = detach([program, "-n", "-c", shared / "conf"], console=shared / "console")
    while daemon() == 0:
        if not alive():
            said = (shared / "console").read_text(errors="replace").strip()[-300:]
            raise OverlaymigError(f"auditd does not start: {said}", hint=f"run it: auditd -n -c {shared}/conf")
        time.sleep(0.01)
    process.write(shared / "auditd", daemon())
    with Audit() as kernel:
        kernel.limit_backlog(BACKLOG)
        # It would hold for the rules of others as well.
        if not kernel.rules():
            (shared / "terse").touch()
            rules.terse(kernel)
    return daemon()


def stop(shared: Path) -> None:
    """End the auditd that a keeper started, and give the kernel its settings back."""
    # It says goodbye to the kernel, which would else take it for alive.
    if process.kill(shared / "auditd", signal.SIGTERM):
        while process.recorded(shared / "auditd"):
            time.sleep(0.02)
    with Audit() as kernel:
        if (shared / "terse").exists():
            rules.verbose(kernel)
        # One that others have started since has its own.
        if (shared / "before").exists() and daemon() == 0:
            enabled, backlog = (shared / "before").read_text().split()
            kernel.enable(int(enabled))
            kernel.limit_backlog(int(backlog))
    # The directory itself stays: machines that run have it mounted, and the next keeper uses it.
    for left in shared.iterdir():
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()
