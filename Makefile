# One runner for people and CI. `make dev` makes .venv; every other target uses it.
VENV ?= .venv
PY := $(VENV)/bin/python

.PHONY: dev check test test-slow bench clean

dev: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	python3 -m venv $(VENV)
	$(PY) -m pip install -q --upgrade "pip>=25.1"
	$(PY) -m pip install -q torch==2.13.0
	$(PY) -m pip install -q -e ".[parquet,plot,motion,train]" --group dev
	touch $@

check: dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: dev
	$(PY) -m pytest -m "not slow"

test-slow: dev
	$(PY) -m pytest -m slow

bench: dev
	$(PY) benchmarks/extract.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
