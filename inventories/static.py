"""Machines that do not come and go: an example to copy. `pyinfra inventories/static.py …` uses it.

Each group is a list of hosts, with data for all of them beside it; a host may have data of its own. Host keys are
checked against your ~/.ssh/known_hosts: a host that is not there, or has another key, is refused. So log in to a new
machine once by hand, and compare what it shows with what its console says.
"""

CHECKED = {"ssh_strict_host_key_checking": "yes"}

databases = (
    ["db-1.example.net", "db-2.example.net"],
    {"ssh_user": "root", **CHECKED},
)

staging = (
    [
        # 203.0.113.0/24 is for documentation; a user other than root needs sudo for everything here.
        ("203.0.113.7", {"ssh_user": "admin", "ssh_port": 2222, "_sudo": True}),
    ],
    CHECKED,
)
