.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
INSTALLED := .venv/.installed
IMG2DATASET := .venv-img2dataset/.installed

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

install: $(INSTALLED) $(IMG2DATASET) ## make .venv with every version pinned, and img2dataset's own

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(IMG2DATASET): pipeline/download/img2dataset.txt
	$(PYTHON) -m venv --clear .venv-img2dataset
	.venv-img2dataset/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

browser: ## install the browser that tests open reports in (Debian, as root)
	command -v chromium chromedriver >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium chromium-driver; }

java: ## install what METEOR and the PTB tokenizer run on (Debian, as root)
	command -v java >/dev/null || { apt-get update -qq && apt-get install -y -qq default-jre-headless; }

check: $(INSTALLED) ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/draw_architecture.py --check

format: $(INSTALLED) ## rewrite the code in the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(INSTALLED) $(IMG2DATASET) ## the tests that take seconds each, two files at a time
	$(PYTEST)

test-slow: $(INSTALLED) $(IMG2DATASET) ## those that take ten seconds and more each
	$(PYTEST) -m 'slow and not nightly and not gpu'

test-nightly: $(INSTALLED) $(IMG2DATASET) ## those that take minutes each
	$(BIN)/pytest -m 'nightly and not gpu'

test-gpu: $(INSTALLED) ## the tests that need a GPU
	$(BIN)/pytest -m gpu

chaos: $(INSTALLED) ## strike cleanings with SIGKILLs for a minute, and compare what they make (docs/reliability.md)
	$(BIN)/python scripts/chaos.py --minutes 1 --kinds driver,commit,s3,actor,raylet

test-core: ## install the core alone, from a wheel, into an environment of its own, and clean with it
	rm -rf build   # files that are gone from the tree would stay in the wheel
	$(PYTHON) -m venv --clear .venv-core
	.venv-core/bin/pip install --quiet --disable-pip-version-check -c constraints.txt .
	.venv-core/bin/python scripts/demo.py demo-core

picture: $(INSTALLED) ## draw docs/architecture.svg anew, from the imports
	$(BIN)/python scripts/draw_architecture.py

demo: $(INSTALLED) ## clean a small made-up world, from nothing, in demo/
	$(BIN)/python scripts/demo.py demo

tiny-checkpoint: $(INSTALLED) ## train the demo's models again, into models/tiny
	OMP_NUM_THREADS=2 $(BIN)/python scripts/make_tiny_checkpoint.py

table1: $(INSTALLED) ## the paper's Table 1 on the toy world, three seeds (an hour or more)
	$(BIN)/python scripts/reproduce_table1.py

toy-tasks: $(INSTALLED) ## every task in miniature: train, evaluate, compare with chance (half an hour)
	$(BIN)/python scripts/reproduce_toy_tasks.py

bench: $(INSTALLED) ## cleaning beside its peers: rates and costs in one table (an hour on two cores)
	$(BIN)/python -m scripts.bench

.PHONY: help install browser java check format test test-slow test-nightly test-gpu chaos test-core picture demo tiny-checkpoint table1 toy-tasks bench
