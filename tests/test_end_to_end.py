"""The main job as an operator does it: the real pyinfra program, over real SSH. As the README types it: test_readme."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pyinfra_overlaymig import lab
from pyinfra_overlaymig.lab.connection import connect
from pyinfra_overlaymig.lab.layout import place
from tests.rig import Rig
from tests.stack import POSTGRES, STACK, seen_from_outside

TOP = Path(__file__).parent.parent
NAMES = ["lab-1", "lab-2"]
THESE = ["--limit", "lab-1", "--limit", "lab-2"]


def pyinfra(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pyinfra as installed beside this Python, from the top of the checkout."""
    program = Path(sys.executable).with_name("pyinfra")
    return subprocess.run(
        [program, "inventories/lab.py", *arguments],
        cwd=TOP, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def deploy_of(folder: Path, name: str, script: str, confirm: int = 60, **manifest: object) -> str:
    """A deploy file for one migration that is written on the spot."""
    migration = folder / "migrations" / name
    migration.mkdir(parents=True, exist_ok=True)
    (migration / "migration.yaml").write_text(yaml.safe_dump({"description": "for a test", **manifest}))
    (migration / "install.sh").write_text(f"#!/bin/sh\nset -eu\n{script}\n")
    deploy = folder / f"{name}.py"
    deploy.write_text(
        "from pyinfra_overlaymig.operations import machine_prepared, migration_applied\n"
        "machine_prepared()\n"
        f"migration_applied({str(migration)!r}, confirm={confirm})\n"
    )
    return str(deploy)


@pytest.fixture(scope="module")
def deployed(fleet: lab.Lab) -> lab.Lab:
    done = pyinfra("-y", *THESE, "deploys/postgres.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"[{name}] ==> confirmed: generation 1 is running" in done.stderr for name in NAMES), done.stderr
    return fleet


def test_second_run_changes_nothing_and_says_so(deployed: lab.Lab) -> None:
    """Running the same again reports no change anywhere, in words and as JSON, and does nothing."""
    before = {name: seen_from_outside(deployed, name).service("postgresql").pid for name in NAMES}
    words = pyinfra("-y", *THESE, "deploys/postgres.py")
    assert words.returncode == 0
    assert words.stderr.count("No changes") == 2 * len(NAMES)
    assert "Success" not in words.stderr.replace("Success   Error", "")
    plan = pyinfra("--json", *THESE, "deploys/postgres.py")
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


def ended(running_lab: lab.Lab, name: str) -> None:
    """Wait until nobody changes the machine, asked without its network."""
    Rig(running_lab, name, Path()).sh("flock -s -w 60 /data/system/lock/flock true")


@pytest.mark.parametrize("how", ["killed", "interrupted", "cut"])
def test_operator_who_vanishes(deployed: lab.Lab, tmp_path: Path, how: str) -> None:
    """Killed or interrupted, its end is seen: the machine finishes. With the network down it is not: taken back."""
    name = f"2024040{('killed', 'interrupted', 'cut').index(how) + 4}-001_{how}"
    deploy = deploy_of(tmp_path, name, f"echo begun\nsleep 3\necho yes >/etc/{name}", confirm=4)
    link = place(deployed, "lab-2").interface
    program = Path(sys.executable).with_name("pyinfra")
    with subprocess.Popen(
        # A test run in the background ignores SIGINT, and so would its children.
        ["env", "--default-signal=INT", program, "-y", "--limit", "lab-2", "inventories/lab.py", deploy],
        cwd=TOP, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as operator:  # fmt: skip
        assert operator.stderr
        assert any(line.endswith("] begun\n") for line in operator.stderr)
        if how == "cut":
            subprocess.run(["ip", "link", "set", link, "down"], check=True)
        try:
            operator.send_signal(signal.SIGINT if how == "interrupted" else signal.SIGKILL)
            said = operator.stderr.read()
            ended(deployed, "lab-2")
        finally:
            subprocess.run(["ip", "link", "set", link, "up"], check=True)
    assert ("lab-2: the machine goes on, and finishes or undoes it by itself" in said) is (how == "interrupted")
    machine = seen_from_outside(deployed, "lab-2")
    assert machine.host.file(f"/etc/{name}").exists is (how != "cut")
    again = pyinfra("-y", "--limit", "lab-2", deploy)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("No changes") == (1 if how == "cut" else 2)
    assert machine.host.file(f"/etc/{name}").content_string == "yes\n"


@pytest.mark.parametrize(
    "deed", ["rm /root/.ssh/authorized_keys", "echo PermitRootLogin no >/etc/ssh/sshd_config.d/00-x.conf"]
)
def test_migration_that_locks_the_operator_out_is_taken_back(deployed: lab.Lab, tmp_path: Path, deed: str) -> None:
    """The connection that was there goes on, a new one is refused: the machine goes back by itself, and lets us in."""
    name = "20240407-001_locks_out"
    script = f"{deed}; echo yes >/etc/locked"
    done = pyinfra("-y", "--limit", "lab-2", deploy_of(tmp_path, name, script, confirm=4))
    assert done.returncode != 0
    assert "no new connection after the switch: the machine takes it back by itself" in done.stderr, done.stderr
    ended(deployed, "lab-2")
    machine = seen_from_outside(deployed, "lab-2")
    assert not machine.host.file("/etc/locked").exists
    assert [one.id for one in machine.status.evidence][-1] == name
    assert name not in machine.status.stack


@pytest.mark.parametrize("reconnect", [False, True])
def test_postgresql_answers_every_query_across_switches(deployed: lab.Lab, tmp_path: Path, reconnect: bool) -> None:
    """A query every 5 ms, over one connection or each over its own, while migrations come and go: no error."""
    rig = Rig(deployed, "lab-1", tmp_path)
    script = "echo 'select 1' >/tmp/q; exec $(echo /usr/lib/postgresql/*/bin/pgbench) -n -T 8 -f /tmp/q postgres -R"
    rate = "100 -C" if reconnect else "200"
    with subprocess.Popen(
        rig.machine.enter("su", "postgres", "-c", f"{script} {rate} 2>&1"), stdout=subprocess.PIPE, text=True
    ) as client:
        time.sleep(1)
        generation = rig.status().generation
        name = f"20240408-00{1 + reconnect}_beside"
        assert rig.apply(name, "mkdir -p /opt/beside; echo x >/opt/beside/x").code == 0
        for target in (str(generation), name, str(generation), name):
            assert rig.run("system-migrate", "rollback", target).code == 0
        assert client.stdout
        said = client.stdout.read()
    assert "number of failed transactions: 0 (0.000%)" in said, said
    processed = next(line for line in said.splitlines() if "actually processed" in line)
    assert int(processed.split(": ")[1].split("/")[0]) > (100 if reconnect else 200)


def test_rollback_of_a_machine_and_forward_again(deployed: lab.Lab) -> None:
    """deploys/rollback.py takes PostgreSQL away and brings it back with its data, without installing anything."""
    machine = seen_from_outside(deployed, "lab-2")
    stack = machine.status.stack
    machine.host.check_output("su postgres -c \"psql -q -c 'create table survives as select 5 as n'\"")
    for target, up in (("0", False), (POSTGRES, True)):
        done = pyinfra("-y", "--limit", "lab-2", "--data", f"generation={target}", "deploys/rollback.py")
        assert done.returncode == 0, done.stderr
        assert "install script" not in done.stderr
        assert machine.service("postgresql").is_ready is up
    assert machine.status.stack == stack[:1]
    assert machine.host.check_output("su postgres -c \"psql -qAt -c 'select n from survives'\"") == "5"
    again = pyinfra("-y", "--limit", "lab-2", "--data", f"generation={POSTGRES}", "deploys/rollback.py")
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
    first = rig.migration("20240501-001_first", "echo begun; until [ -e /run/go ]; do sleep 0.2; done; echo over")
    deploy = deploy_of(tmp_path, "20240502-001_second", ":")
    Path(deploy).write_text(Path(deploy).read_text().replace("confirm=60", "wait=True"))
    with subprocess.Popen(
        rig.machine.enter("/data/system/runner/system-migrate", "apply", "-"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as busy:  # fmt: skip
        assert busy.stdin
        assert busy.stdout
        busy.stdin.write(first)
        busy.stdin.close()
        assert any(b"begun" in line for line in busy.stdout)
        with subprocess.Popen(
            [Path(sys.executable).with_name("pyinfra"), "-y", "--limit", "lab-1", "inventories/lab.py", deploy],
            cwd=TOP, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        ) as second:  # fmt: skip
            assert second.stderr
            assert any("waiting for root from" in line for line in second.stderr)
            # A stage has a /run of its own, which its processes lead to.
            rig.sh('for pid in $(pgrep -f "[m]igration/install.sh"); do : >"/proc/$pid/root/run/go"; done')
            said = second.stderr.read()
        assert busy.wait(60) == 0
    assert second.returncode == 0, said
    assert "] over" in said
    assert seen_from_outside(deployed, "lab-1").status.stack[-2:] == ("20240501-001_first", "20240502-001_second")


def test_each_deploy_brings_what_it_names(deployed: lab.Lab, tmp_path: Path) -> None:
    """On a machine without history: each one, with all that it depends on, in the order of their ids; and once. A
    machine that gets another role, whose migrations are older, has them on top.
    """
    rig = Rig(deployed, "lab-2", tmp_path)
    rig.sh("for i in 1 2 3; do ! rm -rf /data/system /data/state || exit 0; sleep 0.5; done; exit 1")
    lab.restart(deployed, "lab-2")
    for deploy in ("redis", "build_tools", "nginx", "worker", "postgres"):
        done = pyinfra("-y", "--limit", "lab-2", f"deploys/{deploy}.py")
        assert done.returncode == 0, done.stderr
        changes = deploy != "postgres"
        assert ("Success" in done.stderr.replace("Success   Error", "")) is changes, done.stderr
        assert "[lab-2] No changes" in pyinfra("-y", "--limit", "lab-2", f"deploys/{deploy}.py").stderr
    machine = seen_from_outside(deployed, "lab-2")
    assert {one.name for one in machine.status.services if one.ready} == {
        *("sshd", "postgresql", "redis", "nginx", "worker")
    }
    assert machine.status.troubles == ()
    assert machine.status.late == {STACK[1]: STACK[2], POSTGRES: STACK[3]}
