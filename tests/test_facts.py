from __future__ import annotations

import base64
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import Config, FactProcessError, Inventory, State
from pyinfra.api.connect import connect_all
from pyinfra.api.facts import get_fact

from pyinfra_overlaymig import facts
from pyinfra_overlaymig.facts import (
    MachineStatus,
    MigrationApplied,
    Migrations,
    MigrationTrace,
    OverlayLayers,
)
from pyinfra_overlaymig.facts.migration import Trace
from pyinfra_overlaymig.facts.status import read_status
from pyinfra_overlaymig.format.needs import NO_VOLUME, NOT_BOOTED
from pyinfra_overlaymig.format.status import UNKNOWN, Status
from pyinfra_overlaymig.format.status_reader import parse
from tests.sandbox import run_in_sandbox

TEXT = (Path(__file__).parent / "fixtures/status.json").read_text("utf-8")
STATUS = parse(TEXT)
ID = "20240206-001_add_postgresql"
BARE = '{"format": 1, "runner": null}'
FAILED = {"success": False, "stderr": "this needs root"}
VIEWS = (Migrations, OverlayLayers)


def ask(fact: Any, answer: Any, **arguments: Any) -> tuple[Any, bool, list[str]]:
    """What pyinfra gets from a machine that answers so, whether that failed the host, and what ran there."""
    data = {"fake_delay": 0, "fake_delay_jitter": 0, "fake_responses": {"/data/system": answer}}
    # pyinfra gives up where no host is left: two is not asked.
    hosts = [("@fake/one", data), ("@fake/two", data)]
    state: Any = State(Inventory((hosts, {})), Config(FAIL_PERCENT=100))
    connect_all(state)
    host = state.inventory.get_host("@fake/one")
    found = get_fact(state, host, fact, kwargs=arguments)
    return found, bool(state.failed_hosts), host.connector.executed_commands


def trace_command(id: str) -> str:
    return MigrationTrace().command(id=id).get_raw_value()


def test_the_status_of_a_machine_is_one_command() -> None:
    """All that is known comes in one round trip."""
    found, failed, commands = ask(MachineStatus, TEXT)
    assert found == STATUS
    assert not failed
    assert len(commands) == 1


def test_without_an_answer_a_machine_is_unknown() -> None:
    """A failed command is no empty machine: the host fails, and every view says None."""
    assert MachineStatus.default() == UNKNOWN
    assert ask(MachineStatus, FAILED)[:2] == (UNKNOWN, True)
    for view in VIEWS:
        assert ask(view, FAILED)[:2] == (None, True)
    assert ask(MigrationApplied, FAILED, id=ID)[:2] == (None, True)
    assert ask(MigrationTrace, FAILED, id=ID)[:2] == (None, True)


@pytest.mark.parametrize("answer", ["welcome to lab-1", "[]", '{"format": 2}', '{"format": 1, "runner": {}}'])
def test_an_answer_that_cannot_be_read_is_unknown(answer: str) -> None:
    """Noise, other formats and half a status fail the host, and are never taken for an empty machine."""
    assert ask(MachineStatus, answer)[:2] == (UNKNOWN, True)
    assert ask(Migrations, answer)[:2] == (None, True)
    assert ask(MigrationApplied, answer, id=ID)[:2] == (None, True)


def test_an_empty_answer_is_unknown() -> None:
    """A command that says nothing told nothing."""
    assert ask(MachineStatus, "")[0] == UNKNOWN


def test_what_is_wrong_is_said_with_its_remedy() -> None:
    """An unreadable status reaches the operator as pyinfra's error, its hint included."""
    with pytest.raises(FactProcessError, match=r"(?s)format 2.*\(hint: update overlaymig"):
        read_status(['{"format": 2,', '"runner": null}'])


def test_views_show_parts_of_the_status() -> None:
    """Each view is what its name says, of the same one answer."""
    assert ask(Migrations, TEXT)[0] == {one.id: one for one in STATUS.migrations}
    assert ask(OverlayLayers, TEXT)[0] == ("20240101-001_a", ID)


def test_the_layers_are_those_that_run() -> None:
    """Where another generation is current than runs, the running one is meant."""
    assert ask(OverlayLayers, TEXT.replace('"running": 2', '"running": 1'))[0] == ("20240101-001_a",)
    assert ask(OverlayLayers, TEXT.replace('"running": 2', '"running": 0'))[0] == ()


def test_without_a_runner_there_is_nothing_and_that_is_known() -> None:
    """A bare machine has no migrations, layers and services: empty, not None."""
    assert ask(MachineStatus, BARE)[:2] == (Status(known=True), False)
    assert ask(Migrations, BARE)[0] == {}
    assert ask(OverlayLayers, BARE)[0] == ()
    assert ask(MigrationApplied, BARE, id=ID)[:2] == (False, False)


@pytest.mark.parametrize(
    ("id", "text", "applied"),
    [
        (ID, TEXT, True),
        (ID, TEXT.replace('"bb"', '"edited"'), True),
        ("20240206-001", TEXT, False),
        ("20240301-001_c", TEXT, False),
        (ID, TEXT.replace('"applied"', '"committed"'), False),
    ],
)
def test_a_migration_is_applied_or_not(id: str, text: str, applied: bool) -> None:
    """In whatever edition; interrupted after its commit, or failed, it is not."""
    assert ask(MigrationApplied, text, id=id)[:2] == (applied, False)


def test_values_go_into_json() -> None:
    """What pyinfra prints of a fact with --json is the runner's own document."""
    found, *_ = ask(MachineStatus, TEXT)
    assert json.loads(json.dumps(found, default=lambda one: one.to_json())) == json.loads(TEXT) | {"known": True}
    trace = Trace("format 1\n", "#!/bin/sh\n")
    assert trace.to_json() == {"plan": "format 1\n", "install_script": "#!/bin/sh\n"}


def test_the_status_command_runs_on_real_machines(tmp_path: Path) -> None:
    """Bare, prepared, and asked by one who may not look: a status, the runner's answer, and a failure."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/status.json").write_text(TEXT)
    command = MachineStatus().command().get_raw_value()
    (tmp_path / "shared/command").write_text(command)
    result = run_in_sandbox(
        """
        sh /sandbox/command
        mkdir -p /run/system-migrate && touch /run/system-migrate/running && sh /sandbox/command
        unshare -m sh -c 'mkdir -p /tmp/low /tmp/up/up /tmp/up/work; mount -t tmpfs tmpfs /tmp/up
            cd /tmp/up; mkdir up work; mount -t overlay -o lowerdir=/tmp/low,upperdir=up,workdir=work overlay /data
            sh /sandbox/command'
        chmod 700 /data
        cp /sandbox/command /tmp/command
        chmod 644 /tmp/command
        s6-setuidgid nobody sh /tmp/command || echo "exit $?"
        mkdir -p /data/system/runner
        printf '#!/bin/sh\\n[ "$*" = status ] && cat /sandbox/status.json\\n' >/data/system/runner/system-migrate
        chmod 755 /data/system/runner/system-migrate
        sh /sandbox/command
        printf '#!/bin/sh\\nexit 111\\n' >/data/system/runner/system-migrate
        sh /sandbox/command || echo "exit $?"
        """,
        tmp_path,
    )
    assert result.returncode == 0, result.stderr
    bare, booted, over, refused, *document, failed = result.stdout.splitlines()
    assert MachineStatus().process([bare]) == Status(known=True, unfit=NOT_BOOTED)
    assert MachineStatus().process([booted]) == Status(known=True)
    assert MachineStatus().process([over]) == Status(known=True, unfit=NO_VOLUME)
    assert refused == failed == "exit 111"
    assert MachineStatus().process(document) == STATUS
    assert result.stderr == "this needs root: log in as root, or use --sudo\n"


def test_a_trace_is_read_from_real_files(tmp_path: Path) -> None:
    """Plan and script come byte for byte, without end of line too; without a trace nothing is said."""
    plan = b"format 1\nstate /srv/a\\040b\n"
    script = b"#!/bin/sh\necho 'it''s' \"\xc3\xbc\"\n" + b"# a long line " * 100
    kept = tmp_path / "shared/migrations"
    for id, first, second in ((ID, plan, script), ("20240207-001_empty", b"", b"")):
        (kept / id).mkdir(parents=True)
        (kept / id / "manifest").write_bytes(first)
        (kept / id / "install_script.sh").write_bytes(second)
    (kept / "20240208-001_partly").mkdir()
    asked = {id: shlex.quote(trace_command(id)) for id in (ID, "20240207-001_empty", "20240209-001_none")}
    asked["evil"] = shlex.quote(trace_command("x'; echo evil; $(echo evil)\n`echo evil`"))
    result = run_in_sandbox(
        f"""
        mkdir -p /data/system
        cp -a /sandbox/migrations /data/system/
        {"; echo --; ".join(f"sh -c {command}" for command in asked.values())}
        echo --
        sh -c {shlex.quote(trace_command("20240208-001_partly"))} 2>/dev/null || echo failed
        """,
        tmp_path,
    )
    assert result.returncode == 0, result.stderr
    found, empty, none, evil, partly = result.stdout.split("--\n")
    assert MigrationTrace().process(found.splitlines()) == Trace(plan.decode(), script.decode())
    assert MigrationTrace().process(empty.splitlines()) == Trace("", "")
    assert (none, evil, partly) == ("", "", "failed\n")


def test_a_trace_reaches_the_operator() -> None:
    """Through pyinfra the fact is the trace; None, without failing, where there is none."""
    lines = [base64.b64encode(text).decode() for text in (b"format 1\n", b"\xff\n")]
    found, failed, commands = ask(MigrationTrace, lines, id=ID)
    assert (found, failed) == (Trace("format 1\n", "\ufffd\n"), False)
    assert commands == [trace_command(ID)]
    assert ask(MigrationTrace, [], id=ID)[:2] == (None, False)


@pytest.mark.parametrize("lines", [["Zm9v"], ["Zm9v", "Zm9v", "Zm9v"], ["no base64!", "Zm9v"], ["Zm9", "Zm9v"]])
def test_anything_else_is_no_trace(lines: list[str]) -> None:
    """Output that is not two lines of base64 is refused, and not decoded as far as it goes."""
    with pytest.raises(FactProcessError, match="not two lines of base64"):
        MigrationTrace().process(lines)
    assert ask(MigrationTrace, lines, id=ID)[:2] == (None, True)


@pytest.mark.parametrize("name", facts.__all__)
def test_every_fact_is_documented(name: str) -> None:
    """A fact says what it returns and shows it."""
    text = getattr(facts, name).__doc__
    assert text.strip().startswith("Returns ")
    assert ".. code:: json" in text
