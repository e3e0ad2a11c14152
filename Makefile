# Every target sets up what it needs. PYTHON chooses the interpreter that makes .venv.
PYTHON ?= python3
RUN := .venv/bin/python
export JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION := 20
export JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION := 1
# Written once, read by every process that follows.
unexport PYTHONDONTWRITEBYTECODE
# The CDK app runs in our environment, whatever `python3` is on PATH.
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/node_modules/.bin:$(PATH)

.PHONY: setup drill test synth bench mutants pr format lint types wheel clean
setup:
	@$(PYTHON) tools/bootstrap.py
drill: setup
	@$(RUN) -m drill
test: setup
	@$(RUN) -m pytest --numprocesses 3 --dist loadgroup --no-loadscope-reorder
synth: setup
	@cdk synth --quiet --output cdk.out
bench: setup
	@$(RUN) -m benchmarks
mutants: setup
	@$(RUN) -m tools.mutants
pr: lint types test
format: setup
	@ruff format . && ruff check --fix .
lint: setup
	@ruff format --check . && ruff check .
types: setup
	@mypy
wheel: setup
	@$(RUN) -m hatchling build -t wheel
clean:
	rm -rf build cdk.out dist
