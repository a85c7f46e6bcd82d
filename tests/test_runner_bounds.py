"""What a script says and makes has bounds; before the commit, whoever ends a migration has it ended soon."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from pyinfra_overlaymig.runner import follow
from pyinfra_overlaymig.runner.output import Output
from tests.rig import RUNNER, Rig
from tests.runner_process import pattern

ID = "20250201-001_loud"
APPLY = pattern("apply")
LOG = f"/data/system/staging/{ID}/log"


def said(tmp_path: Path, data: bytes, head: int, tail: int) -> bytes:
    """What gets into the log of a program that says ``data``."""
    log = tmp_path / "log"
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        output = Output(head, tail)
        writer = os.fork()
        if writer == 0:
            with os.fdopen(output.tells, "wb") as file:
                file.write(data)
            os._exit(0)
        output.begun()
        while output.take():
            pass
        output.end()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    return log.read_bytes()


def test_log_keeps_beginning_and_end(tmp_path: Path) -> None:
    """All of what is not much; else both ends, and how much was between them."""
    assert said(tmp_path, b"", 10, 10) == b""
    assert said(tmp_path, b"short\n", 10, 10) == b"short\n"
    assert said(tmp_path, b"no end", 10, 10) == b"no end\n"
    text = said(tmp_path, b"head" + b"x" * 5_000_000 + b"tail", 4, 4)
    mark = b"\n[more than 0 KB of output: from here on its end alone is kept]\n"
    assert text == b"head" + mark + b"[5000000 bytes are left out here]\ntail\n"
    assert said(tmp_path, b"headtail\n", 4, 10) == b"head" + mark + b"tail\n"


def test_little_of_much_is_sent(capfd: pytest.CaptureFixture[str]) -> None:
    """After the limit, what the runner says itself, and what was said last before that."""
    shown = follow.Shown(20)
    assert shown.write(b"==> begins\n1\n2\n")
    assert shown.write(b"".join(b"line %d\n" % number for number in range(1000)) + b"no end")
    assert shown.write(b"==> goes on\nlast\n")
    assert shown.end()
    out = capfd.readouterr().out.splitlines()
    assert out[:3] == ["==> begins", "1", "2"]
    assert "in part" in out[4]
    assert out[5:8] == ["[...]", "line 981", "line 982"]
    assert out[-4:] == ["line 999", "no end", "==> goes on", "last"]


def test_lines_that_are_drawn_over() -> None:
    """The last form of them, and that without going over a line again and again."""
    assert follow.readable(b"10%\r20%\r30%\n") == "30%\n"
    assert follow.readable(b"10%\r\n") == "10%\r\n"
    assert follow.readable(b"a\x1b[2Jb\0\xff\n") == "a?[2Jb?\ufffd\n"
    begun = time.monotonic()
    follow.readable(b"\r" * 100_000 + b"\n")
    assert time.monotonic() - begun < 1


LOUD = {
    "lines": "yes 0123456789 | head -c 30M; echo the reason; exit 3",
    "no line ever": "exec tr '\\0' x </dev/zero",
    "noise": "exec cat /dev/urandom",
}


@pytest.mark.parametrize("what", LOUD)
def test_output_has_bounds(rig: Rig, what: str) -> None:
    """Hundreds of megabytes, or for ever: log and what is sent are small, say so, and have the end."""
    begun = time.monotonic()
    done = rig.apply(ID, LOUD[what], timeout=60 if what == "lines" else 2)
    assert done.code == 9, done.text[-1000:]
    assert time.monotonic() - begun < 60
    sent, kept = len(done.out), int(rig.sh(f"stat -c %s {LOG}"))
    assert sent < 3 << 20
    assert kept < 5 << 20
    assert "in part" in done.text
    assert rig.sh(f"grep -ac 'are left out here' {LOG}") == "1\n"
    if what == "lines":
        assert "the reason\nsystem-migrate: the install script failed with status 3\n" in done.text


@pytest.mark.parametrize("word", ["running the install", "capturing", "sealing"])
def test_ctrl_c_ends_each_phase(rig: Rig, word: str) -> None:
    """In the script, the comparison, the split of state and the seal, told twice: soon, and all is as before."""
    before = rig.tree()
    script = "i=0; while [ $((i += 1)) -le 4000 ]; do echo $i >/srv/app/$i; echo $i >/opt/$i; done"
    bundle = rig.migration(ID, script, state=["/srv/app"])
    argv = rig.machine.enter(RUNNER, "apply", "-")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as apply:
        assert apply.stdin
        assert apply.stdout
        apply.stdin.write(bundle)
        apply.stdin.close()
        assert any(word.encode() in line for line in apply.stdout)
        rig.run("pkill", "-INT", "-f", APPLY)
        rig.run("pkill", "-TERM", "-f", APPLY)
        begun = time.monotonic()
        text = apply.stdout.read().decode()
        code = apply.wait(60)
    assert time.monotonic() - begun < 15
    # The commit may have been sooner.
    assert code == 9 or (code == 0 and word == "sealing"), text
    if code == 0:
        assert rig.run(RUNNER, "rollback", "0").code == 0
        rig.reset()
    else:
        assert rig.tree() ^ before == frozenset()
        assert rig.status().lock is None
