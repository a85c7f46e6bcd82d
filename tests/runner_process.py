"""What a test has to know of the language that the runner is written in: how its processes look from outside.

Nothing else in the tests may know it, so that they say the same about a runner in sh and about one in Python.
"""

from __future__ import annotations

import re

_PROGRAM = r"(/system-migrate|/pyinfra_overlaymig/runner(/__main__[.]py)?)"
_LINE = re.compile(rf"(^| )\S*{_PROGRAM}( |$)")


def is_runner_process(line: str) -> bool:
    """Whether a command line, with blanks between its words, is a process of the runner."""
    return bool(_LINE.search(line))


SETTLING = rf"{_PROGRAM}[ ](settle|boot)( |$)"
"""As `pattern`: what goes on in the background of a machine that has booted. It may be a child of what booted it."""


def pattern(verb: str) -> str:
    """For `pgrep -f` and `pkill -f` on a machine: the runner's processes of this verb.

    Not the shell whose command line has this pattern in it: there, a bracket follows the program and no blank.
    """
    return rf"{_PROGRAM}[ ]{verb}( |$)"
