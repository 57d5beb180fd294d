# `make` alone lists the targets. PYTHON chooses the interpreter that makes the environments, PORT where `make serve` listens.
PYTHON ?= python3
PORT ?= 8000
VENV := .venv
LATEST := .venv-latest
.DEFAULT_GOAL := help
.PHONY: help install serve test test-latest test-slow sweep bench format clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## Make .venv with modelport, its plugins and CPU torch (again only when requirements change)
	@$(PYTHON) tools/environment.py --group convert

serve: install ## Fetch the demo models and serve them on 127.0.0.1:8000 (PORT=8123 for another port)
	@$(VENV)/bin/modelport serve --demo --port $(PORT)

test: ## Run everything that continuous integration runs: lint, format, types, layers, tests
	@$(PYTHON) tools/environment.py --group convert --group test --group lint
	@$(VENV)/bin/modelport demo --all
	@$(VENV)/bin/python tools/check.py

test-slow: ## Run the tests marked slow
	@$(PYTHON) tools/environment.py --group convert --group test --group lint
	@$(VENV)/bin/modelport demo --all
	@$(VENV)/bin/python tools/check.py pytest -- -m slow

test-latest: ## Test core, skills and torch backends with the newest transformers, in .venv-latest
	@$(PYTHON) tools/environment.py --venv $(LATEST) --constraints constraints-latest.txt --group compress --group test
	@$(LATEST)/bin/modelport demo --all
	@$(LATEST)/bin/python tools/check.py pytest

sweep: ## Serve a tiny model of every family and compare it with transformers; goes on where it was (ARGS="bert --backend openvino")
	@$(PYTHON) tools/environment.py --group convert --group test
	@$(VENV)/bin/python tests/sweep/run.py --http $(ARGS)

bench: install ## Measure the server against the same models called in a loop
	@$(VENV)/bin/python benchmarks/run.py

format: ## Format the tree
	@$(PYTHON) tools/environment.py --group convert --group test --group lint
	@$(VENV)/bin/python -m ruff check --fix-only --quiet .
	@$(VENV)/bin/python -m ruff format .

clean: ## Remove the environments and what tools left behind
	@rm -rf $(VENV) $(LATEST) dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
