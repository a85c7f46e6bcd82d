"""The table of verbs: fixes the environment, enters the base, runs one verb, and leaves with a code of DESIGN's
table.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from contextlib import suppress
from importlib import import_module
from typing import NamedTuple

from pyinfra_overlaymig.runner import base, spawn
from pyinfra_overlaymig.runner.say import Leave, answer, explain, unable, usage, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class _Verb(NamedTuple):
    """``reads``: it changes nothing, or nothing that a crash could leave between two generations."""

    module: str
    reads: bool = False
    in_base: bool = True


_VERBS = {
    "check": _Verb("check", reads=True, in_base=False),
    "init": _Verb("init", in_base=False),
    "boot": _Verb("boot", in_base=False),
    "apply": _Verb("apply"),
    "install": _Verb("install"),
    "drift": _Verb("drift"),
    "diff": _Verb("diff", reads=True),
    "capture": _Verb("capture", reads=True),
    "status": _Verb("status", reads=True, in_base=False),
    "rollback": _Verb("rollback"),
    "confirm": _Verb("confirm", reads=True, in_base=False),
    "recover": _Verb("recover"),
    "gc": _Verb("gc"),
    "settle": _Verb("settle"),
    "version": _Verb("version", reads=True, in_base=False),
}
_DESCRIPTORS = 1024
"""What a program may expect to have open."""
_BETWEEN = ("recover", "gc", "drift", "settle")
"""What may have changed something when it fails where nobody expected it."""

USAGE = """\
usage: system-migrate VERB [ARGUMENT…]

  check              name each capability that this machine lacks
  init               lay out /data/system and install this runner there
  boot [--] CMD      recover, assemble the current generation, switch to it, run CMD (s6-svscan)
  apply BUNDLE       run a migration as one transaction ('-': from standard input)
    --wait             wait for a busy machine, and show what it does
    --confirm SECONDS  go back unless a new connection says `confirm` within that time; returns as soon as it may
  install PACKAGE…   make a migration that installs these Debian packages, and apply it
  drift [--json]     what was changed outside of migrations; --raw: caches, logs and the like too
  drift discard PATH…    give such changes up: the machine shows the generation's own again
  drift adopt PATH…      keep them: they become a layer of their own. Both take --all
                         both take --packages: all of what was installed or removed by hand
  diff ID            what a migration changed and who did it, by package and directory
    --raw              its records, for programs
  capture NAME [--] CMD  run CMD in the running root and record what it changes, and who: diff NAME shows it
  status             all about this machine, as JSON
  rollback N|ID      go to the stack of generation N, or to the one with ID on top (0: the base alone)
    --restore-state    bring the snapshots of state back that the layers that go have
    --wait, --confirm SECONDS   as of apply
  confirm            the machine can be reached: keep what was done, and wait for its end
  recover            finish or undo what was interrupted
  gc                 give up what the last change replaced in state, and what is left of migrations that failed
  version            this runner's version

exit: 0 done, or already so   3 refused, untouched   4 invalid input, untouched
      9 failed and reverted   20 recover needed      100 usage   111 system call failed, untouched

examples:
  system-migrate status
  system-migrate install postgresql
  system-migrate apply /tmp/20240206-001_add_postgresql.tar.gz
"""


def main() -> NoReturn:
    """Runs the verb that the command line names, and ends this process."""
    _environment()
    given, *arguments = sys.argv[1:] or [""]
    try:
        code = _run(given, arguments)
    except Leave as leaving:
        leaving.tell()
        code = leaving.code
    except BrokenPipeError:
        # Whoever read a long answer has seen enough.
        code = 128 + signal.SIGPIPE
    except Exception as error:  # noqa: BLE001 - every exit has a code that operators know
        explain(error)
        code = _unexpected(given)
    # Nothing is left to be done at exit: what is written is written at once.
    os._exit(code)


def _environment() -> None:
    os.umask(0o022)
    os.environ["PATH"] = spawn.PATH
    # As a program of the machine would: Python's own way is a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open("/dev/null", os.O_RDWR)


def _run(given: str, arguments: list[str]) -> int:
    if given in ("help", "-h", "--help") or arguments[:1] in (["-h"], ["--help"]):
        answer(USAGE)
        return 0
    if not given:
        write(2, USAGE)
        return 100
    verb = _VERBS.get("version" if given == "--version" else given)
    if verb is None:
        raise usage(f"there is no verb '{given}'", "system-migrate --help lists the verbs")
    module = import_module(f"pyinfra_overlaymig.runner.verbs.{verb.module}")
    if verb.in_base:
        # What the caller names lies in the running root, which the base does not see: it is opened before.
        if hasattr(module, "open_arguments"):
            module.open_arguments(arguments)
        if not verb.reads:
            _lift_limits()
        base.enter()
    code: int = module.main(arguments)
    return code


def _lift_limits() -> None:
    """What the caller's shell allows itself (ulimit) is nothing to a migration; as far as it may be lifted."""
    for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_DATA):
        _lift(kind, resource.RLIM_INFINITY)
    _lift(resource.RLIMIT_NOFILE, _DESCRIPTORS)


def _lift(kind: int, wanted: int) -> None:
    soft, hard = resource.getrlimit(kind)
    if soft == resource.RLIM_INFINITY or 0 <= wanted <= soft:
        return
    enough = hard == resource.RLIM_INFINITY or 0 <= wanted <= hard
    for limits in ((wanted, hard if enough else wanted), (hard, hard)):
        # Without CAP_SYS_RESOURCE it goes as far as the hard one.
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, limits)
            return


def _unexpected(given: str) -> int:
    if given in _BETWEEN:
        leaving = Leave(20, f"{given} failed", "the reason is above; run: system-migrate recover")
    else:
        leaving = unable(f"{given} failed before it changed anything", "the reason is above")
    leaving.tell()
    return leaving.code
