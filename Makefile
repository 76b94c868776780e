# make demo   the embedded model mends a small repository: no key, no network
# make test   everything a change must pass: ruff, mypy, pytest
# make train      make the embedded model anew on a CPU (a day; training/README.md)
# make train-gpu  the same on one H100 or H200 (half an hour, once the data is packed)
# Each makes .venv and installs what it needs by itself; a second call finds it done.

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -q
INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt
# PyTorch's own builds without CUDA; used only where there is no NVIDIA GPU and they can be reached.
TORCH_CPU := https://download.pytorch.org/whl/cpu
REACH := import sys, urllib.request as u; u.urlopen(sys.argv[1] + "/torch/", timeout=5)

CORPUS ?= build/corpus
DATA ?= training/data

.PHONY: demo test train train-gpu format clean

demo: $(VENV)/.demo
	@$(BIN)/python examples/demo.py

# One worker more than there are processors, since some tests wait for others. What fails beside
# others is run once more alone, as CPython's runner does: a fault fails twice, and a test that
# only minds its neighbours stands in the first report, to be mended.
test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) -n "$$($(BIN)/python -c 'import os; print((os.cpu_count() or 1) + 1)')" || \
		{ test $$? = 1 && echo "once more, alone:" && $(PYTEST) --lf --lfnf=none; }

train: $(VENV)/.dev $(DATA)
	$(BIN)/python -m training.pack tokens --data $(DATA) --out build/train/data
	$(BIN)/python -m training.tasks --out build/train/data/tasks --seconds 3600 --data $(DATA)
	$(BIN)/python -m training.tasks --out build/train/data/tasks-held --seconds 120 --held-out \
		--data $(DATA)
	$(BIN)/python -m training.train --plan training/configs/cpu.toml --data build/train/data \
		--run build/train/run --seconds 9000 --export build/train/out

train-gpu: $(DATA)
	bash training/gpu.sh sit 0 0.5 590
	bash training/gpu.sh sit 0.5 1 590 --resume

$(DATA): | $(VENV)/.dev
	$(BIN)/python -m training.corpus fetch --cache $(CORPUS)
	$(BIN)/python -m training.corpus build --cache $(CORPUS)
	$(BIN)/python -m training.pack pack --cache $(CORPUS) --data $(DATA)
	$(BIN)/python -m training.functions --corpus $(CORPUS)/train.jsonl --out $(DATA)/functions.xz

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "agentcli needs Python 3.11 or newer; none was found" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# PyTorch first: a resolver that is free to choose takes builds with CUDA.
$(VENV)/.torch: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing PyTorch, once: some minutes, and 0.2 to 5 GB to load" >&2
	@if command -v nvidia-smi >/dev/null 2>&1 || \
		! $(BIN)/python -c '$(REACH)' $(TORCH_CPU) >/dev/null 2>&1; \
	then $(INSTALL) torch; else $(INSTALL) torch --extra-index-url $(TORCH_CPU); fi
	@touch $@

# The repository of the demo is tested with pytest.
$(VENV)/.demo: $(VENV)/.torch
	$(INSTALL) -e '.[local]' pytest
	@touch $@

$(VENV)/.dev: $(VENV)/.torch
	$(INSTALL) -e '.[dev,local]'
	@touch $(VENV)/.demo $@
