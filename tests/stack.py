"""What deploys/ bring, checked from outside: test_readme.py does so on its way through the tour."""

from __future__ import annotations

import shlex
import time

import testinfra

from pyinfra_overlaymig import lab
from pyinfra_overlaymig.testing import Machine
from tests.rig import Rig

POSTGRES = "20240206-001_add_postgresql"
STACK = (
    POSTGRES,
    "20240301-001_add_build_tools",
    "20240501-001_add_redis",
    "20240502-001_add_nginx",
    "20240503-001_add_worker_python",
    "20240504-001_add_worker",
)


DONE = "select 1 from done where job = :'job'"


def seen_from_outside(running_lab: lab.Lab, name: str) -> Machine:
    """A machine through testinfra and the system's own ssh."""
    found = lab.machine(running_lab, name)
    options = f"-F none -o UserKnownHostsFile={running_lab.known_hosts} -o StrictHostKeyChecking=yes"
    return Machine(
        testinfra.get_host(
            f"ssh://root@{found.address}", ssh_identity_file=str(running_lab.key), ssh_extra_args=options
        )
    )


def postgresql_answers(machine: Machine) -> None:
    """Sealed as a layer, state split off, supervised, ready and answering SQL."""
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


def done_by_worker(machine: Machine, job: str) -> bool:
    """Give the worker a job, through Redis; whether it is found in PostgreSQL."""
    machine.host.check_output(f"redis-cli rpush jobs {job}")
    ask = f"cd /; echo {shlex.quote(DONE)} | s6-setuidgid postgres psql -qAt worker -v job={job}"
    for _ in range(50):
        if machine.host.run(ask).stdout:
            return True
        time.sleep(0.2)
    return False


def all_of_it_works(stacked: Machine) -> None:
    """A stack of services that need each other, a library, and a Python environment."""
    assert stacked.status.stack == STACK
    assert stacked.host.run("echo '{\"a\": 1}' | jq .a").stdout == "1\n"
    assert stacked.host.run("/opt/worker/bin/python -c 'import psycopg, redis'").rc == 0
    for name in ("postgresql", "redis", "nginx", "worker"):
        assert stacked.service(name).is_ready, name
    for path in ("/var/lib/postgresql", "/var/lib/redis", "/srv/www"):
        assert stacked.state(path).is_mounted, path
    get = r"exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET / HTTP/1.0\r\n\r\n' >&3; cat <&3"
    page = stacked.host.run(f"bash -c {shlex.quote(get)}")
    assert "It works." in page.stdout
    assert "GET / " in stacked.host.file("/data/state/var/log/nginx/current").content_string
    assert done_by_worker(stacked, "first")


def came_up_in_the_order_of_needs(stacked: Machine) -> None:
    """After a restart the worker gets ready after PostgreSQL and Redis, and works."""
    for _ in range(100):
        if all(stacked.service(name).is_ready for name in ("postgresql", "redis", "worker")):
            break
        time.sleep(0.3)
    since = {
        name: stacked.host.check_output(f"s6-svstat -o readysince /run/service/{name}")
        for name in ("postgresql", "redis", "worker")
    }
    # TAI64N labels sort as the times do.
    assert since["worker"] > max(since["postgresql"], since["redis"])
    # Had it run before they were ready, it would have died of that.
    assert stacked.host.check_output("s6-svdt /run/service/worker") == ""
    assert done_by_worker(stacked, "second")


def what_needs_a_stopped_service_stops(stacked: Machine, rig: Rig) -> None:
    """A migration that stops Redis meanwhile: the worker stops before it, and both are up again; others go on."""
    before = {name: stacked.service(name).pid for name in ("postgresql", "nginx", "redis", "worker")}
    result = rig.apply("20240601-001_pause", "echo x >/etc/pause", stop=["redis"])
    assert result.code == 0, result.text
    said = result.text.splitlines()
    order = ["stopping service worker", "stopping service redis", "starting service redis again"]
    places = [said.index(f"==> {line}") for line in [*order, "starting service worker again"]]
    assert places == sorted(places)
    assert "left running: nginx postgresql sshd" in result.text.replace("postgresql nginx", "nginx postgresql")
    after = {name: stacked.service(name).pid for name in before}
    assert {name for name in before if before[name] != after[name]} == {"redis", "worker"}
    assert rig.run("system-migrate", "rollback", STACK[-1]).code == 0
