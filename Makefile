# The commands of the project. Each sets up what it needs (scripts/bootstrap) and says plainly what it cannot.
.DEFAULT_GOAL := help
.PHONY: help demo test conformance check bench shim lock clean
PY := .venv/bin/python

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: ## Show the main job: a StatefulSet that keeps its addresses, for real, on this machine
	@scripts/bootstrap run
	@.venv/bin/homeport lab demo

test: ## Run every suite, the kernel with ipvlan under qemu included
	@scripts/bootstrap test
	@$(PY) -m pytest $(PYTEST_ARGS)

conformance: ## Run the conformance matrix in the lab and on a real API server, and print it as a table
	@scripts/bootstrap test
	@$(PY) scripts/conformance.py $(CONFORMANCE_ARGS)

check: ## Lint, types, imports, docs: what a merge needs
	@scripts/bootstrap dev
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@$(PY) scripts/check_docs.py

bench: ## Measure against the Go plugins, as ratios in one run
	@scripts/bootstrap test
	@$(PY) -m benchmarks

shim: ## Build the native shim, which `homeport install --shim` places
	@$(MAKE) --no-print-directory -s -C shim

lock: ## Renew the lock files from pyproject.toml
	@scripts/bootstrap dev
	@$(PY) -m pip install --quiet uv
	@.venv/bin/uv pip compile pyproject.toml --generate-hashes --python-version 3.11 --universal --no-header --quiet \
		--upgrade --output-file requirements/run.lock
	@.venv/bin/uv pip compile pyproject.toml --group dev --generate-hashes --python-version 3.11 --universal --no-header \
		--quiet --upgrade --output-file requirements/dev.lock

clean: ## Remove what the other targets made here
	@rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	@$(MAKE) --no-print-directory -s -C shim clean
