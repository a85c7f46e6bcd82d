# What can be done with this checkout. `make help` lists it.

PYTHON ?= python3
LAB_PACKAGES := auditd python3-venv mmdebstrap nftables iproute2 openssh-client util-linux mount procps
TEST_PACKAGES := s6 execline acl attr btrfs-progs shellcheck dash diffutils mawk e2fsprogs qemu-system-x86 graphviz podman runc
SH := pyinfra_overlaymig/runner/system-migrate $(wildcard pyinfra_overlaymig/lab/*.sh pyinfra_overlaymig/operations/*.sh pyinfra_overlaymig/facts/*.sh) \
	$(wildcard deploys/migrations/*/*.sh)
SH_SERVICES := $(wildcard pyinfra_overlaymig/migration/s6/*.sh)
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-down test lint unit crash kills vm bench bench-quick clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

setup: .venv/.setup ## .venv with overlaymig and pyinfra in it, and the system packages that a lab needs

.venv/.setup: pyproject.toml tests/constraints.txt
	@sh pyinfra_overlaymig/lab/host-packages.sh $(LAB_PACKAGES)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint tests/constraints.txt --editable .
	@touch $@

.venv/.test: .venv/.setup Makefile
	@sh pyinfra_overlaymig/lab/host-packages.sh $(TEST_PACKAGES)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint tests/constraints.txt --editable '.[test]'
	@touch $@

demo: .venv/.setup ## three throwaway machines, and PostgreSQL on them by migration
	$(BIN)/overlaymig lab up -n 3
	@printf '\n### what an operator types:\n\n'
	$(BIN)/pyinfra -y inventories/lab.py deploys/postgres.py
	@printf '\n### the same again: nothing is left to do\n\n'
	$(BIN)/pyinfra -y inventories/lab.py deploys/postgres.py
	@printf '\n### the machines now\n\n'
	@$(BIN)/overlaymig lab status
	@printf '\nLook further:\n'
	@printf '  %s\n' '$(BIN)/overlaymig lab ssh lab-1' \
		"$(BIN)/overlaymig lab exec lab-1 -- su - postgres -c 'psql -c \"select version()\"'" \
		'$(BIN)/overlaymig lab exec lab-1 -- head /data/system/migrations/20240206-001_add_postgresql/changes.list' \
		'$(BIN)/overlaymig lab restart lab-1      # the root is reset, PostgreSQL comes back' \
		'$(BIN)/pyinfra --dry inventories/lab.py deploys/migrate.py'
	@printf 'Take the machines down:\n  make demo-down\n'

demo-down: .venv/.setup ## take the machines of the demo down
	$(BIN)/overlaymig lab down

test: lint unit ## everything that CI runs

lint: .venv/.test ## ruff, mypy, shellcheck and dash
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@shellcheck -s sh $(SH)
	@shellcheck -s sh -x -P SCRIPTDIR $(SH_SERVICES)
	@for file in $(SH) $(SH_SERVICES); do dash -n "$$file" || exit; done

crash: .venv/.test ## strike before each system call of the runner: kill, power, EIO, ENOSPC (hours; CRASH_STEP=20 takes each 20th; needs root)
	OVERLAYMIG_CRASH=full timeout -s INT 21600 $(BIN)/python -m pytest -s tests/test_runner_crash.py tests/test_crash_space.py

KILLS ?= 1000
kills: .venv/.test ## kill the runner 1,000 times at random, over random migrations (about 15 minutes, needs root)
	OVERLAYMIG_KILLS=$(KILLS) timeout -s INT 7200 $(BIN)/python -m pytest -s tests/test_crash_random.py

vm: .venv/.test ## cut a virtual machine's power 24 times (about 20 minutes, needs root)
	OVERLAYMIG_VM=full $(BIN)/python -m pytest -s tests/test_vm_power.py

# Of BENCH: --only LINE (again for more), --rounds N, --output FOLDER, --list.
bench: .venv/.bench ## what things cost, side by side with the runner in sh: table, JSON and plots in bench-results/ (half an hour, idle machine, needs root; BENCH='--only rollback' or '--list')
	$(BIN)/python -m tests.bench $(BENCH)

bench-quick: .venv/.bench ## the same with few rounds, within 4 minutes: a first look
	$(BIN)/python -m tests.bench --quick $(BENCH)

.venv/.bench: .venv/.test
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint tests/constraints.txt --editable '.[test,bench]'
	@touch $@

unit: .venv/.test ## the tests, the lab's among them (needs root)
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

clean: ## remove what make made here (the lab is not touched: make demo-down)
	rm -rf .venv bench-results .mypy_cache .ruff_cache .pytest_cache .hypothesis
