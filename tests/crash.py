"""A machine whose runner can be made to die, or to fail, at any of its commands; nothing of it is in the runner.

Programs of the names in `COMMANDS` stand before the real ones in the base that the machine boots from. While it is
armed they count the runner's commands, and the one whose turn it is stops or fails instead of doing its work.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from pyinfra_overlaymig.lab import layout, namespaces, process
from pyinfra_overlaymig.lab.fleet import quiet
from pyinfra_overlaymig.lab.machine import start
from tests import crash_picture
from tests.crash_picture import Picture
from tests.rig import RUNNER, Result, Rig

# All that changes something. pivot_root(8) is called through `chroot`.
COMMANDS = (
    *("mv", "rm", "mkdir", "cp", "ln", "mount", "umount", "sync", "rmdir", "chmod", "chown", "install", "tar"),
    *("chroot", "setpriv", "unshare", "s6-svlink", "s6-svunlink", "s6-svc"),
)

# The runner's commands have its mark in their environment, or, before it enters the base, it for a parent. Those of
# install scripts, health checks, services and tests have neither.
SHIM = r"""#!/bin/sh
name=${0##*/}
real=/usr/lib/crash/$name
[ -f /data/crash/armed ] || exec "$real" "$@"
# It only begins early, beside other commands, what is waited for later.
case "$name $*" in 'sync -f '*/staging/*) exec "$real" "$@" ;; esac
if [ -z "${SYSTEM_MIGRATE_INSIDE-}" ]; then
    read -r parent </proc/$PPID/cmdline
    case $parent in *system-migrate*) ;; *) exec "$real" "$@" ;; esac
fi
read -r count at mode </data/crash/armed
[ -n "$mode" ] || exec "$real" "$@"
count=$((count + 1))
echo "$count $at $mode" >/data/crash/armed
echo "$name $*" >>/data/crash/log
if [ "$at" -lt 0 ]; then
    # A command that is looked for by how it begins.
    IFS= read -r wanted </data/crash/command
    case "$name $*" in "$wanted"*) at=$count ;; esac
fi
[ "$count" -eq "$at" ] || exec "$real" "$@"
/usr/lib/crash/rm -f /data/crash/armed
echo "$count: $name $*" >/data/crash/where
if [ "$mode" = fail ]; then
    echo "$name: Input/output error" >&2
    exit 1
fi
: >/data/crash/reached
until [ -e /data/crash/go ]; do sleep 0.01; done
exec "$real" "$@"
"""

FULL = os.environ.get("OVERLAYMIG_CRASH") == "full"
"""Whether all is done that can be done, for an hour; otherwise as much as fits into the tests that always run."""

LIMIT = 120.0
"""Seconds that anything on a machine may take."""


class Mode(Enum):
    """What happens at the command whose turn it is."""

    KILL = "kill"
    """SIGKILL to the runner and all it started; `recover` follows."""
    POWER = "power"
    """The machine ends, as without power, and boots again."""
    FAIL = "fail"
    """The command does nothing and fails, once."""
    BLOCKS = "blocks"
    """The file system of /data is full from here on, until `Victim.free`."""
    INODES = "inodes"
    """It has no inode left."""


def make_shims(directory: Path, base: Path) -> None:
    """A lower layer to lay over ``base``: the shims, and the real programs aside."""
    real, shims = directory / "usr/lib/crash", directory / "usr/sbin"
    for folder in (real, shims):
        folder.mkdir(parents=True)
    for name in COMMANDS:
        program = next(path for where in ("bin", "sbin") if (path := base / "usr" / where / name).exists())
        subprocess.run(["cp", "-aL", program, real / name], check=True)
        (shims / name).write_text(SHIM)
        (shims / name).chmod(0o755)


@dataclass(frozen=True)
class Victim(Rig):
    """One machine that boots with the shims in ``shims``."""

    shims: Path = field(kw_only=True)
    supervisors: list[Callable[[], bool]] = field(kw_only=True, default_factory=list)

    @property
    def place(self) -> layout.Place:
        return layout.place(self.lab, self.name)

    @property
    def data(self) -> Path:
        return namespaces.data(self.place)

    @property
    def crash(self) -> Path:
        return self.data / "crash"

    @property
    def init(self) -> int:
        return self.machine.must_run()

    def power_on(self) -> None:
        """Boot, without waiting for it."""
        alive = start(self.place, Path(f"{self.shims}:{namespaces.ground(self.lab.cache, quiet)}"))
        self.supervisors.append(alive)

    def power_off(self) -> None:
        process.end(self.place.directory)
        # Who asks for its end takes its process away.
        while self.supervisors and not self.supervisors[0]():
            self.supervisors.pop(0)

    def is_up(self) -> bool:
        """Whether the boot is over, and what finishes a migration after it."""
        pid = self.machine.pid
        if pid is None:
            return False
        try:
            first = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]
        except FileNotFoundError:
            return False
        # Twice: a list of children that is read while one of them forks or ends can lack another one.
        return first == b"s6-svscan" and not any(
            "system-migrate" in line for _ in range(2) for _, line in crash_picture.processes(pid)
        )

    def start(self, picture: Picture) -> None:
        """Boot, and wait for the processes of ``picture``."""
        wanted = {line for line in picture if line.startswith("process ")}
        self.power_on()
        self.watch(lambda: self.is_up() and wanted <= set(self.processes()))

    def boot(self) -> None:
        self.power_off()
        self.power_on()
        self.watch(self.is_up)

    def blank(self) -> None:
        """A machine without history."""
        self.power_off()
        for path in self.data.iterdir():
            subprocess.run(["rm", "-rf", "--", path], check=True)
        self.crash.mkdir()
        self.boot()
        self.prepare()

    def save(self, folder: Path) -> None:
        """Copy /data of the machine, which does not run, to ``folder``."""
        subprocess.run(["cp", "-a", "--reflink=auto", self.data, folder], check=True)

    def load(self, folder: Path) -> None:
        """End the machine and give it the /data that was saved."""
        self.power_off()
        for path in self.data.iterdir():
            subprocess.run(["rm", "-rf", "--", path], check=True)
        subprocess.run(["cp", "-a", "--reflink=auto", f"{folder}/.", self.data], check=True)

    def arm(self, number: int, mode: Mode) -> None:
        """The ``number``-th command of the runner from now on is the one; 0: none, they are only counted."""
        self.disarm()
        (self.crash / "armed").write_text(f"0 {number} {mode.value}\n")

    def arm_for(self, command: str, mode: Mode) -> None:
        """The first command of the runner from now on that begins with ``command`` is the one."""
        self.arm(-1, mode)
        (self.crash / "command").write_text(command)

    def disarm(self) -> str:
        """The command whose turn it was, empty when none was reached."""
        self.crash.mkdir(exist_ok=True)
        where = self.crash / "where"
        found = where.read_text(errors="replace").strip() if where.exists() else ""
        for name in ("armed", "command", "where", "reached", "go", "go.new", "log"):
            (self.crash / name).unlink(missing_ok=True)
        return found

    def log(self) -> list[str]:
        """The commands since the machine was armed."""
        log = self.crash / "log"
        return log.read_text(errors="replace").splitlines() if log.exists() else []

    def watch(self, done: Callable[[], bool], reached: Callable[[], None] = lambda: None) -> None:
        """Wait until ``done``; once the armed command is reached, call ``reached``."""
        until = time.monotonic() + LIMIT
        while not done():
            if (self.crash / "reached").exists():
                (self.crash / "reached").unlink()
                reached()
            assert time.monotonic() < until, f"{self.name}: not over within {LIMIT} s"
            # Looking costs more than the machine's own work does where many machines are looked at.
            time.sleep(0.03)

    def fill(self, mode: Mode) -> None:
        """Leave no block, or no inode, of /data free."""
        ballast = self.data / "ballast"
        ballast.mkdir(exist_ok=True)
        with contextlib.suppress(OSError):
            if mode is Mode.INODES:
                for number in itertools.count():
                    (ballast / str(number)).touch()
            else:
                with (ballast / "blocks").open("ab", buffering=0) as file:
                    for size in (2**20, 2**12):
                        with contextlib.suppress(OSError):
                            while True:
                                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)

    def free(self) -> None:
        """Undo `fill`."""
        shutil.rmtree(self.data / "ballast", ignore_errors=True)

    def attempt(self, *argv: str, mode: Mode, stdin: bytes = b"") -> Result:
        """Run a verb of the runner to its end, which may be the one that the armed command brings about."""
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
            given.write(stdin)
            given.seek(0)
            with subprocess.Popen(
                self.machine.enter(RUNNER, *argv), stdin=given, stdout=said, stderr=subprocess.STDOUT
            ) as running:

                def strike() -> None:
                    if mode is Mode.POWER:
                        self.power_off()
                    elif mode in {Mode.BLOCKS, Mode.INODES}:
                        go = self.crash / "go.new"
                        go.touch()
                        self.fill(mode)
                        go.rename(self.crash / "go")
                    else:
                        kill_all(running.pid)

                self.watch(lambda: running.poll() is not None, strike)
            said.seek(0)
            return Result(running.returncode, said.read().decode(errors="replace"), "")

    def attempt_boot(self, mode: Mode) -> Result:
        """Boot; the armed command ends the machine (`POWER`), or what assembles its generation (`KILL`)."""
        ended = False

        def strike() -> None:
            nonlocal ended
            if mode is Mode.POWER:
                ended = True
                self.power_off()
            else:
                kill_runner(self.init)

        self.power_off()
        self.power_on()
        self.watch(lambda: ended or self.is_up(), strike)
        return Result(0, self.place.console.read_text(errors="replace"), "")

    def picture(self) -> Picture:
        """The whole machine: the running root, state, mounts, processes and services."""
        pid = self.init
        root = Path(f"/proc/{pid}/root")
        # Who the machine is differs from one to the next.
        seed = self.place.directory / "seed"
        identity = frozenset(str(path.relative_to(seed)) for path in (seed / "etc").rglob("*"))
        system = self.data / "system"
        over = None if FULL else [*(system / "layers").iterdir(), *(system / "upper").glob("[0-9]*/upper")]
        lines = set(crash_picture.tree(root, "root", identity, over))
        # What services had to say, and the logs that s6-log was killed over, are as the day went.
        logs = frozenset(str(path.relative_to(self.data / "state")) for path in self.data.glob("state/var/log/*/*"))
        state = crash_picture.tree(self.data / "state", "state", logs)
        lines |= {line for line in state if not re.match(r"state /'var/log/[a-z]+/(@|previous|state|current)", line)}
        lines |= set(crash_picture.counted(crash_picture.mounts(pid, self.place.directory)))
        return frozenset(lines | set(self.processes()))

    def processes(self) -> Iterator[str]:
        """Each command that runs, and how often; that of each service is among them."""
        return crash_picture.counted(f"process {line}" for _, line in crash_picture.processes(self.init))

    def picture_of(self, *expected: Picture) -> Picture:
        """The picture once it is one of ``expected``, or what it is after some seconds: services need their time."""
        until = time.monotonic() + 5
        while (now := self.picture()) not in expected and time.monotonic() < until:
            time.sleep(0.2)
        return now

    def pids(self, *commands: str) -> list[int]:
        """The processes that run these commands."""
        return sorted(pid for pid, line in crash_picture.processes(self.init) if line.startswith(commands))


def kill_all(pid: int) -> None:
    """SIGKILL to a process and all that it started. They are stopped first: none escapes by forking meanwhile."""
    stopped: set[int] = set()
    while new := {pid, *(one for one, _ in crash_picture.processes(pid))} - stopped:
        for one in new:
            signal_process(one, signal.SIGSTOP)
        stopped |= new
    for one in stopped:
        signal_process(one, signal.SIGKILL)
    # Gone altogether: one that nobody has asked for its status yet still counts as alive. `pid` is the caller's to ask.
    until = time.monotonic() + LIMIT
    while any(Path(f"/proc/{one}").exists() for one in stopped - {pid}) and time.monotonic() < until:
        time.sleep(0.01)


def kill_runner(init: int) -> None:
    """`kill_all` for the runner's processes that the boot of a machine started."""
    for pid, line in crash_picture.processes(init):
        if "system-migrate assemble" in line or "system-migrate settle" in line:
            kill_all(pid)


def signal_process(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """A signal to a process, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def differences(now: Picture, expected: dict[str, Picture]) -> Iterator[str]:
    """How ``now`` differs from each of ``expected``, for a person to read."""
    for name, picture in expected.items():
        yield f"\n  against {name}:"
        yield from (f"\n    is    {line}" for line in sorted(now - picture)[:15])
        yield from (f"\n    lacks {line}" for line in sorted(picture - now)[:15])
