# People and CI run the same targets. `make dev` makes .venv, and every other target uses it.
.DEFAULT_GOAL := help
VENV ?= .venv
PY := $(VENV)/bin/python
VIDEO ?= build/demo.mp4
OUT ?= build

.PHONY: help run dev check test test-slow bench picture clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

# `make run` needs only the package, without extras. `make run VIDEO=clip.mp4` takes your own clip.
run: $(VENV)/.installed $(VIDEO)  ## extract saliency and a heat map of VIDEO=clip.mp4 (or of a demo clip)
	mkdir -p $(OUT)
	$(VENV)/bin/eyeline extract $(VIDEO) -o $(OUT)/saliency.json --overlay $(OUT)/heat.mp4

build/demo.mp4: $(VENV)/.installed
	mkdir -p build
	$(PY) benchmarks/demo_clip.py $@

$(VENV)/.installed: pyproject.toml
	python3 -m venv $(VENV)
	$(PY) -m pip install -q -e .
	touch $@

dev: $(VENV)/.ready  ## make .venv with all extras and the development tools

# torch is pinned and installed first, so that no extra installs a build with CUDA.
$(VENV)/.ready: pyproject.toml $(VENV)/.installed
	$(PY) -m pip install -q --upgrade "pip>=25.1"
	$(PY) -m pip install -q torch==2.13.0
	$(PY) -m pip install -q -e ".[parquet,batch,ray,plot,motion,eval,datasets,audit,sign,vmaf,roi,train]" --group dev
	touch $@

check: dev  ## ruff (lint and format) and mypy --strict
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: dev  ## the fast tests, on all cores
	$(PY) -m pytest -m "not slow" -n logical --dist loadfile

test-slow: dev  ## the tests that take minutes
	$(PY) -m pytest -m slow --hypothesis-profile=random

bench: dev  ## the speed ratios of extract and sw_vmaf
	$(PY) benchmarks/extract.py --long
	$(PY) benchmarks/sw_vmaf.py --long

picture: dev  ## remake the pictures of the README
	$(PY) benchmarks/demo_clip.py build/demo.mp4 --picture docs/images/overlay.jpg
	$(PY) benchmarks/sw_vmaf.py --plot docs/images/sw_vmaf.png

clean:  ## remove .venv and everything built
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
