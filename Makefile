# Every target installs what it needs: Debian packages when root, the Python packages into .venv. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help check fix check-netns check-xen test test-full demo bundle bench clean

BIN := .venv/bin
SHARD ?= 1/1
SCRIPTS := scripts/bench scripts/bootstrap scripts/check-xen scripts/demo scripts/install-dom0 scripts/make-bundle .ci/run ci/nested-xen/lab \
	ci/nested-xen/image/customize

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-12s %s\n", $$1, $$2 }'

check: ## format, lint, types and pure tests; two minutes on two cores
	@scripts/bootstrap check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	shellcheck $(SCRIPTS)
	$(BIN)/mypy
	$(BIN)/pytest -n logical tests/pure

fix: ## format, and mend what the linter can
	@scripts/bootstrap check
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check-netns: ## tests against the kernel in a network namespace
	@scripts/bootstrap lab
	$(BIN)/pytest tests/netns

check-xen: ## tests on real Xen hosts in the lab, both Debian releases
	@scripts/bootstrap lab
	scripts/check-xen

test: check check-netns check-xen ## all of these; about 40 minutes under emulation on two cores

# prerequisites, not a make of its own: `make -n` would run that
test-full: $(if $(filter 1/%,$(SHARD)),check check-netns) ## all of these and the long matrices; SHARD=i/n runs the i-th of n parts on Xen hosts, 1/n the rest too
	@scripts/bootstrap lab
	scripts/check-xen --full --shard '$(SHARD)'

demo: ## boot a Xen host, install hostagent, start it, show what it did; KEEP=1 leaves the host up
	@scripts/demo

bundle: ## dist/hostagent-bundle-VERSION.tar, for a dom0 without a network
	@scripts/make-bundle

bench: ## measurements on a Xen host of the lab
	@scripts/bench

clean: ## what was built; the lab's images stay cached
	rm -rf build dist .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis hostagent.egg-info
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
