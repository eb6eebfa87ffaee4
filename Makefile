# Every target builds what it needs from `python3` alone.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# A deep run explores more and longer; the fast profile is what `make test` can afford.
PYTEST := $(BIN)/python -m pytest

.PHONY: run test test-deep check lint bench lock dashboards clean

run: $(VENV)/ready  ## Run servmon with the example configuration on its embedded Postgres
	$(BIN)/servmon run --config config.example.toml

# Four at a time: most of a test's time is waiting for a daemon, a timer or a socket.
test: $(VENV)/ready  ## The tests everybody runs (about 8 minutes on two cores)
	$(PYTEST) -n 4 --dist worksteal -m "not deep and not alone"
	$(PYTEST) -m "alone and not deep"

test-deep: $(VENV)/ready  ## Matrices, soaks, long simulations
	HYPOTHESIS_PROFILE=deep $(PYTEST) --timeout 1800 -m "deep or deepable"
	for programs in /usr/lib/postgresql/*/bin; do test ! -x $$programs/initdb || \
		$(PYTEST) -m "not deep" --postgres $$programs tests/store tests/api tests/services || exit 1; done

lint: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test  ## What CI runs

bench: $(VENV)/ready  ## What one check costs, against its own floor
	$(BIN)/python -m bench

.venv: $(VENV)/ready

$(VENV)/ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else f"servmon needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. Run: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

lock:  ## Write requirements.lock anew: versions and hashes for every platform (needs uv)
	printf "hatchling\neditables\n" | uv pip compile --universal --generate-hashes --no-annotate --no-header --no-emit-index-url \
		--python-version 3.11 --extra aioping --group dev pyproject.toml - -o requirements.lock

dashboards: $(VENV)/ready  ## Write the file for Kibana anew from its source
	$(BIN)/python -m servmon.elastic.kibana

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
