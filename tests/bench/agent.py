"""Runs and times programs inside a machine, so that the way into it is in no figure. inside.py starts it there.

It knows nothing of the bench and imports nothing of ours: a machine has only Python's standard library.
A question is a line of JSON, {"argv", "stdin"}; so is the answer: {"seconds", "processes", "code", "size", "output"}.

Numbers of processes are given out in sequence in a machine's pid namespace: between one that ends at once before and
one after are just those that the program and all it started took. A thread takes one as well.
"""

import json
import os
import signal
import sys
import time

_TOLD = 4000
_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGQUIT, signal.SIGTERM, signal.SIGXFSZ)


def _number() -> int:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def _run(asked: dict[str, object], output: str) -> dict[str, object]:
    argv = [str(word) for word in asked["argv"]]  # type: ignore[attr-defined]
    actions = (
        (os.POSIX_SPAWN_OPEN, 0, str(asked.get("stdin") or "/dev/null"), os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    )
    before = _number()
    begun = time.monotonic()
    child = os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions, setsigdef=_SIGNALS)
    _, status = os.waitpid(child, 0)
    seconds = time.monotonic() - begun
    processes = _number() - before - 1
    with open(output, "rb") as file:  # noqa: PTH123 - what is imported takes memory of the machine
        said = file.read()
    return {
        "seconds": seconds,
        "processes": processes,
        "code": os.waitstatus_to_exitcode(status),
        "size": len(said),
        "output": said[-_TOLD:].decode(errors="replace"),
    }


def main() -> None:
    """Answers until nobody asks any more. /run is where a switch changes nothing."""
    for line in sys.stdin:
        answer = json.dumps(_run(json.loads(line), f"/run/bench-output.{os.getpid()}")) + "\n"
        try:
            os.write(1, answer.encode())
        except BrokenPipeError:
            return


if __name__ == "__main__":
    main()
