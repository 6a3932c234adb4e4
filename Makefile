# Needs Python >= 3.10 and make. Everything is installed into .venv; remove that folder to start afresh.
PYTHON ?= python3
JOBS ?= 2
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# One thread each: the tests run side by side, and the figures of the demo are per core.
export OMP_NUM_THREADS = 1
export MKL_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint

help:
	@echo 'make demo       install, score the published algorithms and the shipped agents, print a leaderboard'
	@echo 'make test       ruff, mypy and the tests (under 15 minutes on 2 cores)'
	@echo 'make test-slow  the longer studies'
	@echo 'make lint       ruff and mypy only'
	@echo
	@echo 'PYTHON=python3.12  the interpreter that .venv is made from (now: $(PYTHON))'
	@echo 'JOBS=4             test processes (now: $(JOBS))'
	@echo 'TORCH_INDEX=URL    an extra package index to take torch from, such as that of its CPU builds'

demo: $(VENV)/.all
	$(BIN)/semcom-gym solve SemCom/CRRA-v0 --method crra -n 5 --trace runs/demo
	$(BIN)/semcom-gym benchmark -n 50 --out results/demo
	@echo 'How the published algorithm converges: $(BIN)/tensorboard --logdir runs'

test: lint
	$(BIN)/python -m pytest -n $(JOBS)

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS) -m slow

lint: $(VENV)/.test
	$(BIN)/ruff check
	@mkdir -p .typing && ln -sfn .. .typing/semcom_gym
	$(BIN)/mypy

$(VENV)/.python: constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 10) else \
	"semcom-gym needs Python >= 3.10, %s is %d.%d; try: make PYTHON=python3.12" % (sys.executable, v[0], v[1]))'
	@echo 'Installing into $(VENV); the first time takes minutes.'
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) torch $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	@touch $@

$(VENV)/.all: $(VENV)/.python setup.cfg pyproject.toml
	@$(INSTALL) -e '.[all]'
	@touch $@

$(VENV)/.test: $(VENV)/.python setup.cfg pyproject.toml
	@$(INSTALL) -e '.[all,test]'
	@touch $@ $(VENV)/.all
