"""The stage: a throwaway root over the current stack, in namespaces of its own, in which the install script runs.

Its mounts and its processes are of private namespaces: when the runner dies, by whatever signal, the kernel takes all
of them away, and only files under staging/<id> are left. `stage_root` makes what a script finds there.
"""

from __future__ import annotations

import os
import signal
from typing import NamedTuple

from pyinfra_overlaymig.format import octal
from pyinfra_overlaymig.format.paths import STAGING, STATE
from pyinfra_overlaymig.runner import (
    confinement,
    copies,
    files,
    linux,
    spawn,
    stage_left,
    stage_root,
    stage_state,
    state_places,
    store,
    why_failed,
)
from pyinfra_overlaymig.runner.audit import session as audit
from pyinfra_overlaymig.runner.clock import Deadline
from pyinfra_overlaymig.runner.output import Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyinfra_overlaymig.format.plan import Plan

_GRACE = 10.0
"""Seconds between TERM and KILL for a script that ran out of time."""
_REFUSED = 3
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "DEBIAN_FRONTEND": "noninteractive",
    # dpkg need not sync each file: a crash throws the stage away, and all is synced at once before the commit.
    "DPKG_FORCE": "security-mac,downgrade,unsafe-io",
}


class Stage(NamedTuple):
    """A stage's directory, and the plan that it carries out."""

    directory: str
    plan: Plan

    @property
    def id(self) -> str:
        return os.path.basename(self.directory)

    @property
    def upper(self) -> str:
        return f"{self.directory}/upper"

    @property
    def root(self) -> str:
        return f"{self.directory}/root"


def of(id: str, plan: Plan) -> Stage:
    return Stage(f"{STAGING}/{id}", plan)


def prepare(stage: Stage) -> None:
    """The directories for a stage of the bundle in its directory."""
    top = stage.directory
    files.make_dirs(f"{top}/work", f"{top}/root", f"{top}/state")
    os.mkdir(stage.upper)
    copies.take_metadata("/", stage.upper)
    fresh = [name for name in stage.plan.services if not files.there(f"{STATE}/services/{name}")]
    files.write_lines(f"{top}/services.new", fresh)
    before = store.state_paths()
    files.write_lines(f"{top}/state/paths.old", [octal.escape_text(path) for path in before])
    paths = map(octal.escape_text, state_places.outermost({*before, *stage.plan.state}))
    files.write_lines(f"{top}/state/paths", sorted(paths, key=os.fsencode))


def clear(stage: Stage) -> None:
    """Makes room for another run of the script, over a stack that has changed."""
    parts = (
        "upper",
        "work",
        "root",
        "lower",
        "lists",
        "state",
        "conflicts",
        "audit",
        "timeout",
        "services.new",
        "lent",
        "script",
    )
    files.drop(*(f"{stage.directory}/{part}" for part in parts))


def paths(stage: Stage) -> list[str]:
    """The state paths that the stage shows, in the order of their numbers."""
    return [octal.unescape_text(line) for line in files.lines(f"{stage.directory}/state/paths")]


def run(stage: Stage, seconds: int, session: audit.Session) -> int:
    """Runs the install script in the stage; its status, `spawn.LATE` with the file `timeout` where it took too long."""
    outside = spawn.fork(lambda: _outside(stage, seconds, session))
    session.watch()
    # Where it is killed the kernel ends with it all that is in its namespaces.
    code = spawn.finish(outside)
    stage_root.take_back_lent(stage)
    if code == 0:
        stage_state.take(stage, paths(stage))
    return code


def is_refused(stage: Stage, code: int) -> bool:
    """Whether a stage that ended with ``code`` was refused before its script ran."""
    return code == _REFUSED and not files.there(f"{stage.directory}/script")


def _outside(stage: Stage, seconds: int, session: audit.Session) -> int:
    """Enters the namespaces; process 1 of them is a child."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC)
    linux.mount(None, "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    return spawn.wait(spawn.fork(lambda: _process_1(stage, seconds, session))) or 0


def _process_1(stage: Stage, seconds: int, session: audit.Session) -> int:
    """Makes the root, runs the script, and reads from the mounts what goes with them."""
    kept = paths(stage)
    with why_failed.step("the stage's root cannot be mounted"):
        stage_root.mount(stage)
        stage_root.lend(stage)
    session.enter()
    session.quiet(stage.root)
    session.await_watched()
    with why_failed.step("the files of the migration cannot be laid into the stage"):
        stage_root.lay_files(stage)
    with why_failed.step("its state paths cannot be mounted in the stage"):
        mounted = stage_state.mount(stage, kept)
    session.places(stage.root, {path: one.place for path, one in mounted.items()})
    why_failed.check_interpreter(f"{stage.directory}/install.sh", stage.root, _ENVIRONMENT["PATH"])
    code = _script(stage, seconds)
    files.write_plain(f"{stage.directory}/script", f"{code}\n")
    with why_failed.step("what the script left in state paths cannot be read"):
        if code == 0:
            stage_left.tell(stage)
            stage_state.settle(stage, kept)
        session.unwatched()
        if code == 0:
            session.inodes(stage.upper, stage.root, "")
            stage_state.read(stage, kept, mounted, session)
            stage_state.link(stage, mounted)
    return code


def _script(stage: Stage, seconds: int) -> int:
    """The install script, in a session of its own, with nothing of the operator's environment."""

    def program() -> None:
        os.setsid()
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        said.connect()
        confinement.enter(stage.root)
        spawn.become(["/run/migration/install.sh"], {**_ENVIRONMENT, "MIGRATION_ID": stage.id})

    copies.copy_entry(f"{stage.directory}/install.sh", f"{stage.root}/run/migration/install.sh")
    os.chmod(f"{stage.root}/run/migration/install.sh", 0o755)
    # A wakeup for each child that ends: process 1 is the parent of all whose own is gone.
    told, tells = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
    said = Output()
    script = spawn.fork(program)
    said.begun()
    code = _reap(script.pid, told, said, Deadline(seconds))
    if code is None:
        files.mark(f"{stage.directory}/timeout")
        os.killpg(script.pid, signal.SIGTERM)
        code = _reap(script.pid, told, said, Deadline(_GRACE))
    signal.set_wakeup_fd(-1)
    # What the script left running ends before anything is read from the stage.
    _end_all()
    said.end()
    return spawn.LATE if code is None or files.there(f"{stage.directory}/timeout") else code


def _reap(wanted: int, told: int, said: Output, deadline: Deadline) -> int | None:
    """Takes every process away that ends, until the ``wanted`` one does: its status; None when that takes too long."""
    import select

    poll = select.poll()
    poll.register(told, select.POLLIN)
    poll.register(said.told, select.POLLIN)
    while True:
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] == wanted:
                return spawn.status(found[1])
        if deadline.over():
            return None
        ready = [descriptor for descriptor, _ in poll.poll(deadline.milliseconds())]
        linux.drain(told)
        if said.told in ready and not said.take():
            # It has closed its output, and goes on.
            poll.unregister(said.told)


def _end_all() -> None:
    """KILL to all processes of the namespace, and waits until they are gone."""
    try:
        os.kill(-1, signal.SIGKILL)
        while True:
            os.wait()
    except (ProcessLookupError, ChildProcessError):
        return
