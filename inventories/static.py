"""Machines that do not come and go: an example to copy. `pyinfra inventories/static.py …` uses it.

Each group is a list; a host may have data of its own. Host keys are checked against your
~/.ssh/known_hosts, so log in to a new machine once by hand.
"""

databases = [
    ("db-1.example.net", {"ssh_user": "root"}),
    ("db-2.example.net", {"ssh_user": "root"}),
]

staging = [
    # 203.0.113.0/24 is for documentation; a user other than root needs sudo for everything here.
    ("203.0.113.7", {"ssh_user": "admin", "ssh_port": 2222, "_sudo": True}),
]
