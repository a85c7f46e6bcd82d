"""The main job as an operator does it: the real pyinfra program, over real SSH, on three machines."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import testinfra
import yaml

from pyinfra_overlaymig import lab
from pyinfra_overlaymig.lab.connection import connect
from pyinfra_overlaymig.lab.layout import place
from pyinfra_overlaymig.testing import Machine
from tests.conftest import MACHINES
from tests.rig import Rig

TOP = Path(__file__).parent.parent
NAMES = [f"lab-{number}" for number in range(1, MACHINES + 1)]
POSTGRES = "20240206-001_add_postgresql"


def pyinfra(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pyinfra as installed beside this Python, from the top of the checkout."""
    program = Path(sys.executable).with_name("pyinfra")
    return subprocess.run(
        [program, "inventories/lab.py", *arguments],
        cwd=TOP, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def seen_from_outside(running_lab: lab.Lab, name: str) -> Machine:
    """A machine through testinfra and the system's own ssh."""
    found = lab.machine(running_lab, name)
    options = f"-F none -o UserKnownHostsFile={running_lab.known_hosts} -o StrictHostKeyChecking=yes"
    return Machine(
        testinfra.get_host(
            f"ssh://root@{found.address}", ssh_identity_file=str(running_lab.key), ssh_extra_args=options
        )
    )


def deploy_of(folder: Path, name: str, script: str, **manifest: object) -> str:
    """A deploy file for one migration that is written on the spot."""
    migration = folder / "migrations" / name
    migration.mkdir(parents=True, exist_ok=True)
    (migration / "migration.yaml").write_text(yaml.safe_dump({"description": "for a test", **manifest}))
    (migration / "install.sh").write_text(f"#!/bin/sh\nset -eu\n{script}\n")
    deploy = folder / f"{name}.py"
    deploy.write_text(
        "from pyinfra_overlaymig.operations import machine_prepared, migration_applied\n"
        "machine_prepared()\n"
        f"migration_applied({str(migration)!r})\n"
    )
    return str(deploy)


@pytest.fixture(scope="module")
def fleet(running_lab: lab.Lab) -> lab.Lab:
    """The three machines, without history and without a runner on /data."""
    for name in NAMES:
        Rig(running_lab, name, Path()).sh("/usr/bin/rm -rf /data/system /data/state")
        lab.restart(running_lab, name)
    return running_lab


@pytest.fixture(scope="module")
def deployed(fleet: lab.Lab) -> lab.Lab:
    done = pyinfra("-y", "deploys/postgres.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"[{name}] ==> {POSTGRES} is applied" in done.stderr for name in NAMES), done.stderr
    return fleet


@pytest.mark.parametrize("name", NAMES)
def test_postgresql_answers_on_every_machine(deployed: lab.Lab, name: str) -> None:
    """Sealed as a layer, state split off, supervised, ready and answering SQL: seen by testinfra."""
    machine = seen_from_outside(deployed, name)
    assert machine.migration(POSTGRES).is_applied
    assert machine.service("postgresql").is_ready
    assert machine.state("/var/lib/postgresql").is_mounted
    assert machine.host.package("postgresql").is_installed
    assert machine.host.file("/data/state/services/postgresql/initialized").is_file
    layer = machine.host.file(f"/data/system/layers/{POSTGRES}/var/lib/postgresql")
    assert layer.listdir() == [], "no state may be left in the layer"
    answer = machine.host.run("su postgres -c \"psql -qAt -c 'select 6 * 7'\"")
    assert answer.stdout == "42\n"
    assert any(line.endswith(" usr/lib/postgresql") for line in machine.migration(POSTGRES).changes)


def test_second_run_changes_nothing_and_says_so(deployed: lab.Lab) -> None:
    """Running the same again reports no change anywhere, in words and as JSON, and does nothing."""
    before = {name: seen_from_outside(deployed, name).service("postgresql").pid for name in NAMES}
    words = pyinfra("-y", "deploys/postgres.py")
    assert words.returncode == 0
    assert words.stderr.count("No changes") == 2 * MACHINES
    assert "Success" not in words.stderr.replace("Success   Error", "")
    plan = pyinfra("--json", "deploys/postgres.py")
    assert plan.returncode == 0
    assert all(not op["hosts_with_change"] for op in json.loads(plan.stdout)["plan"])
    assert {name: seen_from_outside(deployed, name).service("postgresql").pid for name in NAMES} == before


def test_dry_run_says_what_would_change_and_touches_nothing(deployed: lab.Lab) -> None:
    """`--dry` names the migration and shows its script; the machine is not touched."""
    before = seen_from_outside(deployed, "lab-1").status
    done = pyinfra("--dry", "deploys/migrate.py")
    assert done.returncode == 0, done.stderr
    assert "20240301-001_add_build_tools" in done.stderr
    assert "make jq tree" in done.stderr
    after = seen_from_outside(deployed, "lab-1").status
    assert (after.generations, after.migrations) == (before.generations, before.migrations)


def test_all_pending_migrations_in_order(deployed: lab.Lab) -> None:
    """deploys/migrate.py brings what is missing, here a library without a service, and only that."""
    done = pyinfra("-y", "--limit", "lab-3", "deploys/migrate.py")
    assert done.returncode == 0, done.stderr
    machine = seen_from_outside(deployed, "lab-3")
    assert machine.host.run("echo '{\"a\": 1}' | jq .a").stdout == "1\n"
    assert machine.status.stack == (POSTGRES, "20240301-001_add_build_tools")


def test_restart_brings_everything_back_but_the_ephemeral_root(deployed: lab.Lab) -> None:
    """After a restart the root is new, the generation the same, and PostgreSQL has its data."""
    machine = seen_from_outside(deployed, "lab-1")
    table = "create table kept (n int); insert into kept values (7)"
    machine.host.check_output(f"su postgres -c \"psql -q -c '{table}'\"")
    lab.restart(deployed, "lab-1")
    for _ in range(100):
        if machine.service("postgresql").is_ready:
            break
        time.sleep(0.1)
    answer = machine.host.run("su postgres -c \"psql -qAt -c 'select n from kept'\"")
    assert answer.stdout == "7\n"
    assert machine.status.running == 1


def test_edited_migration_is_refused_with_the_diff(deployed: lab.Lab, tmp_path: Path) -> None:
    """An applied script that was edited since is refused, and the diff is shown before."""
    name = "20240401-001_note"
    assert pyinfra("-y", "--limit", "lab-2", deploy_of(tmp_path, name, "echo one >/etc/note")).returncode == 0
    done = pyinfra("-y", "--limit", "lab-2", deploy_of(tmp_path, name, "echo two >/etc/note"))
    assert done.returncode != 0
    assert "-echo one >/etc/note" in done.stderr
    assert "+echo two >/etc/note" in done.stderr
    assert "was edited after it was applied" in done.stderr
    assert seen_from_outside(deployed, "lab-2").host.file("/etc/note").content_string == "one\n"


@pytest.mark.usefixtures("deployed")
def test_invalid_folder_is_refused_before_any_machine_is_touched(tmp_path: Path) -> None:
    """A manifest that is wrong stops the run with file, line and remedy."""
    done = pyinfra("-y", deploy_of(tmp_path, "20240402-001_wrong", ":", tiemout=3))
    assert done.returncode != 0
    assert "migration.yaml:2" in done.stderr + done.stdout
    assert "did you mean `timeout`" in done.stderr + done.stdout


def test_shells_sshd_and_services_live_through_the_switch(deployed: lab.Lab, tmp_path: Path) -> None:
    """A shell that runs across a switch goes on and sees the new files; no process is restarted."""
    found = lab.machine(deployed, "lab-2")
    with connect(deployed, found) as client:
        stdin, stdout, _ = client.exec_command("/bin/sh")
        stdin.write("echo $$; test -e /etc/lived || echo absent\n")
        stdin.flush()
        shell, absent = stdout.readline().strip(), stdout.readline()
        machine = seen_from_outside(deployed, "lab-2")
        before = {service.name: service.pid for service in machine.status.services}
        deploy = deploy_of(tmp_path, "20240403-001_lived", "echo yes >/etc/lived")
        done = pyinfra("-y", "--limit", "lab-2", deploy)
        assert done.returncode == 0, done.stderr
        stdin.write("echo $$; cat /etc/lived\n")
        stdin.flush()
        assert (absent, stdout.readline().strip(), stdout.readline()) == ("absent\n", shell, "yes\n")
    assert {service.name: service.pid for service in machine.status.services} == before
    assert before.keys() == {"postgresql", "sshd"}


def test_connection_cut_in_the_middle(deployed: lab.Lab, tmp_path: Path) -> None:
    """The operator vanishes and the network with him: the machine finishes, the next run sees it applied."""
    deploy = deploy_of(tmp_path, "20240404-001_cut", "echo begun\nsleep 3\necho yes >/etc/cut")
    link = place(deployed, "lab-2").interface
    program = Path(sys.executable).with_name("pyinfra")
    with subprocess.Popen(
        [program, "-y", "--limit", "lab-2", "inventories/lab.py", deploy],
        cwd=TOP, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as operator:  # fmt: skip
        assert operator.stderr
        assert any(line.endswith("] begun\n") for line in operator.stderr)
        subprocess.run(["ip", "link", "set", link, "down"], check=True)
        try:
            operator.kill()
            operator.wait()
            rig = Rig(deployed, "lab-2", tmp_path)
            deadline = time.monotonic() + 30
            while rig.status().lock is not None and time.monotonic() < deadline:
                time.sleep(0.2)
        finally:
            subprocess.run(["ip", "link", "set", link, "up"], check=True)
    assert seen_from_outside(deployed, "lab-2").host.file("/etc/cut").content_string == "yes\n"
    again = pyinfra("-y", "--limit", "lab-2", deploy)
    assert again.returncode == 0
    assert again.stderr.count("No changes") == 2


def test_rollback_of_a_machine_and_forward_again(deployed: lab.Lab) -> None:
    """deploys/rollback.py takes PostgreSQL away and brings it back with its data, without installing anything."""
    machine = seen_from_outside(deployed, "lab-3")
    stack = machine.status.stack
    for target, up in (("0", False), (POSTGRES, True)):
        done = pyinfra("-y", "--limit", "lab-3", "--data", f"generation={target}", "deploys/rollback.py")
        assert done.returncode == 0, done.stderr
        assert "install script" not in done.stderr
        assert machine.service("postgresql").is_ready is up
    assert machine.status.stack == stack[:1]
    again = pyinfra("-y", "--limit", "lab-3", "--data", f"generation={POSTGRES}", "deploys/rollback.py")
    assert again.stderr.count("No changes") == 1


def test_drift_is_a_fact(deployed: lab.Lab) -> None:
    """The fact Drift tells, per path, what was changed by hand, and the machine is not changed by asking."""
    machine = seen_from_outside(deployed, "lab-1")
    machine.host.check_output("echo mine >/etc/motd; echo x >'/srv/a b'; rm /etc/issue.net")
    done = pyinfra("--json", "--limit", "lab-1", "fact", "pyinfra_overlaymig.facts.Drift")
    assert done.returncode == 0, done.stderr
    told = json.dumps(json.loads(done.stdout))
    for path, what in (("/etc/motd", "changed"), ("/srv/a\\\\040b", "added"), ("/etc/issue.net", "deleted")):
        assert f'"path": "{path}", "what": "{what}"' in told


def test_operation_waits_for_a_busy_machine_when_asked(deployed: lab.Lab, tmp_path: Path) -> None:
    """With `wait=True` a second operator sees what the first one does, and then gets through."""
    rig = Rig(deployed, "lab-1", tmp_path / "first")
    first = rig.migration("20240501-001_first", "echo begun; sleep 4; echo over")
    deploy = deploy_of(tmp_path, "20240502-001_second", ":")
    Path(deploy).write_text(Path(deploy).read_text().replace("_second')", "_second', wait=True)"))
    with subprocess.Popen(
        rig.machine.enter("/data/system/runner/system-migrate", "apply", "-"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as busy:  # fmt: skip
        assert busy.stdin
        assert busy.stdout
        busy.stdin.write(first)
        busy.stdin.close()
        assert any(b"begun" in line for line in busy.stdout)
        done = pyinfra("-y", "--limit", "lab-1", deploy)
        assert busy.wait(60) == 0
    assert done.returncode == 0, done.stderr
    assert "waiting for root from" in done.stderr
    assert "] over" in done.stderr
    assert seen_from_outside(deployed, "lab-1").status.stack[-2:] == ("20240501-001_first", "20240502-001_second")
