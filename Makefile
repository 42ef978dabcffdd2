# The project's commands. `make` alone lists them. Each sets up .venv when it must: when there is none, or when
# pyproject.toml or constraints.txt have changed since it was made.

PYTHON ?= python3# 3.11 or later
ARGS ?=# passed on to the command, as in: make test ARGS="-k pairs"
DATA ?=# another data set (a name, a file, a folder); "sample": the small one of its kind that comes with the package
MODEL ?=# of `make finetune` and `make weights`
METHOD ?=# of `make finetune`: full, head, last3 (or another number) or lora; empty: the recipe's own
JOBS ?= 2# test processes
BIN := .venv/bin

# Any other variable that is set on the command line is a change to the config: make finetune train.epochs=5 seed=2
OWN := PYTHON ARGS DATA MODEL METHOD JOBS BIN SHELL MAKEFLAGS
CHANGED = $(strip $(foreach _,$(filter-out $(OWN),$(.VARIABLES)),$(if $(filter command,$(origin $(_))),$(_))))
CHANGES = $(foreach _,$(sort $(CHANGED)),$(_)=$(call quoted,$(value $(_)))) $(ARGS)
quoted = '$(subst ','\'',$(1))'# for the shell

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help scratch finetune weights test distributed fuzz faults lint bench references docs clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

scratch: .venv/installed ## train a GPT-2 from scratch and report on it (DATA=polish-slang: on the study's data)
ifeq ($(DATA),polish-slang)
	$(BIN)/minilm train scratch $(CHANGES)
else
	$(BIN)/minilm train scratch_sample $(if $(filter-out sample,$(DATA)),data.source=$(call quoted,$(value DATA))) $(CHANGES)
	@echo
	@echo 'The study itself, on its own data (from the Hub; 90 minutes at most): make scratch DATA=polish-slang'
endif

finetune: .venv/installed ## fine-tune a checkpoint by its recipe (MODEL=bielik, DATA=reviews.csv, METHOD=lora)
	$(BIN)/minilm finetune $(or $(MODEL),minilm) $(if $(DATA),--data $(call quoted,$(value DATA))) $(if $(METHOD),--method $(call quoted,$(value METHOD))) $(CHANGES)

weights: .venv/installed ## download a checkpoint into weights/ (MODEL=bielik; without MODEL: list them)
	$(BIN)/minilm $(if $(MODEL),download $(MODEL),models) $(ARGS)

test: .venv/installed-dev ## run all tests, and measure how much of the code they cover
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --cov --cov-report=term $(ARGS)

distributed: .venv/installed-dev ## train in 2 and 4 processes, kill one: all must be as in one process
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m distributed $(ARGS)

fuzz: .venv/installed-dev ## read 2,000 broken files: each must give a result or one line (ARGS="--seed 2")
	$(BIN)/python -m tests.fuzzing $(ARGS)

faults: .venv/installed-dev ## kill runs, fill their disk, start them twice: all must end bit for bit the same
	$(BIN)/python -m tests.faults $(ARGS)

lint: .venv/installed-dev ## check style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed-dev ## measure speed beside the usual tools
	$(BIN)/python -m benchmarks $(ARGS)

references: .venv/installed-dev ## make the tests' reference checkpoints and outputs again (ARGS="gpt2*": these)
	$(BIN)/python tests/reference/make_references.py $(ARGS)

docs: .venv/installed-dev ## write docs/config.md, the keys of a config, and docs/checkpoints.md, what is opened
	$(BIN)/python docs/make_config.py
	$(BIN)/python -m docs.make_checkpoints

clean: ## remove .venv and caches; runs/ and weights/ stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* dist
	find minilm tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# A file whose age tells when .venv was last made right. One for users, one with the developers' tools.
.venv/installed: pyproject.toml constraints.txt
	$(call install,.)

.venv/installed-dev: pyproject.toml constraints.txt
	$(call install,.[dev])
	@touch .venv/installed

define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	{ echo 'minilm needs Python 3.11 or later; "$(PYTHON)" is none. Name one: make PYTHON=python3.12 ...' >&2; exit 1; }
@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '$(1)'
@touch $@
endef
