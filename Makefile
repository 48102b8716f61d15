# Midwatch. `make run` shows it at work; `make check test` before every commit.

BIN    := .venv/bin
PYTEST := $(BIN)/python -m pytest
JOBS   ?= 3
CODE   := $(wildcard src tests bench examples scripts)

.PHONY: help setup run test test-local-model check format bench size lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 20

setup: ## make .venv ready (nothing to do when it is)
	@./scripts/setup.sh

run: setup ## run the example fleet on this machine
	@code=0; $(BIN)/midwatch run examples/nightwatch || code=$$?; \
	printf '\n%s\n' 'every step is on record: `$(BIN)/midwatch runs ls`, then `$(BIN)/midwatch trace RUN`' >&2; \
	exit $$code

test: setup ## run every test, several side by side (JOBS=0: one after the other)
	@$(PYTEST) tests --numprocesses $(JOBS) --dist loadscope

test-local-model: setup ## run the example on a real small model: `make test-local-model MODEL=file.gguf`
	@$(BIN)/python scripts/local_model.py watch "$(MODEL)"

check: setup ## format, lint, types, import contracts, docs, sizes, unit tests
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/mypy $(CODE)
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python scripts/check_docs.py
	@$(BIN)/python scripts/check_sizes.py
	@$(PYTEST) tests/unit --quiet

format: setup ## format the code and apply the safe fixes
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/ruff check --fix $(CODE)

bench: setup ## measure against the bars, beside bare LangGraph
	@$(BIN)/python -m bench

size: setup ## measure the base install; over 200 MB fails
	@./scripts/size.sh

lock: setup ## resolve the newest allowed versions into requirements.lock
	@./scripts/lock.sh

clean: ## remove .venv and every cache
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests bench examples scripts -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
