VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint conformance fuzz zoo bench clean

$(INSTALLED): constraints.txt pyproject.toml
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: $(INSTALLED)  ## train in PyTorch, open as Keras and ONNX without PyTorch, fine-tune, come home; writes demo.png
	$(PYTHON) examples/digits/demo.py demo.png

test: $(INSTALLED) lint  ## everything that must hold
	$(PYTHON) -m pytest -n 2 --dist loadgroup -q -m "not zoo"

lint: $(INSTALLED)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

conformance: $(INSTALLED)  ## the ONNX backend test data on every backend, with the table
	$(PYTHON) -m pytest tests/conformance -n 2 --dist loadgroup -q

fuzz: $(INSTALLED)  ## random graphs on every backend; FUZZ="--backend keras --examples 2000 --seed 7" chooses
	$(PYTHON) -m tests.properties.fuzz $(FUZZ)

zoo: $(INSTALLED)  ## every architecture there and back; what `test` leaves out because it takes long
	$(PYTHON) -m pytest tests/zoo -n 2 --dist loadgroup -q

bench: $(INSTALLED)  ## ratios of pairs in one run; see benchmarks/RESULTS.md
	$(PYTHON) benchmarks/import_time.py
	$(PYTHON) benchmarks/convert.py
	PYTHONPATH=. $(PYTHON) benchmarks/compress.py
	PYTHONPATH=. $(PYTHON) benchmarks/recipes.py
	PYTHONPATH=. $(PYTHON) benchmarks/distill.py
	PYTHONPATH=. $(PYTHON) benchmarks/prune.py
	PYTHONPATH=. $(PYTHON) benchmarks/compress_weights.py

clean:
	rm -rf $(VENV) build dist demo.png
