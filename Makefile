# `make demo` and `make test` set everything up on a fresh machine with Python 3.11 or later, then do their job.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test ray reliability slurm gpu setup clean

demo: setup
	$(BIN)/ntire demo

test: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal --durations 10

# Hostile archives, ways out of the sandbox, kills: MINUTES in all, at most 15; SEED repeats a run.
MINUTES ?= 15
SEED ?=
reliability: setup
	$(BIN)/python tests/reliability.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# All scripts for Slurm on a real one of this machine (apt-get install slurm-wlm munge, as root); `make test` runs the job array.
slurm: setup
	NTIRE_TEST_SLURM=all $(BIN)/pytest tests/ntire/cluster/test_slurm.py

# Faults of Ray clusters of several nodes on this machine: nodes and workers killed, a full store, nodes that lack something.
ray: setup
	NTIRE_TEST_RAY=all OMP_NUM_THREADS=1 $(BIN)/pytest tests/ntire/runner/test_ray_cluster.py \
		tests/ntire/review/test_score_on_ray.py tests/ntire/review/test_verify_on_engine.py

# Everything that a GPU can say, most telling first, from a checkout whose Python has torch: the tests for GPUs, networks beside
# their roofline, pictures a second, the scorer. MINUTES in all; DATA is a folder of clean pictures to train on with the rest.
gpu: MINUTES = 10
gpu:
	$(shell [ -x $(BIN)/python ] && echo $(BIN)/python || echo $(PYTHON)) benchmarks/gpu.py --minutes $(MINUTES) $(if $(DATA),--train $(DATA))

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
