# make demo    the dairy farm on this machine, now (Ctrl-C drains and stops it)
# make demo-ledger   a table in PostgreSQL changes under load, and nothing is lost
# make test    all tests that this machine can run; it names what it leaves out
# make check   lint, types, and the walls between the rooms
# make soak    the long form of the proofs
# make bench   the figures in docs/figures.md
# make setup   .venv with milkrun and all that the tests need
# make lock    the locked versions anew
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo demo-ledger test check soak bench setup lock clean

demo: setup
	@test -d dairy-farm || $(BIN)/milkrun init dairy-farm --template dairy
	@$(BIN)/milkrun up dairy-farm

demo-ledger: setup
	@$(BIN)/python examples/dairy-ledger/demo/run.py

test: setup
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

soak: setup
	MILKRUN_SOAK=1 $(BIN)/python -m pytest -q tests/chaos tests/linearizability tests/durability tests/faults \
		tests/bad_input tests/integration/rollout tests/integration/migrations tests/integration/envoy/test_in_trouble.py \
		tests/unit/rollout tests/unit/registry/access tests/unit/router/haproxy

bench: setup
	$(BIN)/python benchmarks/change_to_traffic.py
	$(BIN)/python benchmarks/registry.py
	$(BIN)/python benchmarks/router.py
	$(BIN)/python benchmarks/followers.py
	benchmarks/parts.sh
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/counting.py
	$(BIN)/python benchmarks/choice.py
	$(BIN)/python benchmarks/rollout.py
	$(BIN)/python benchmarks/backfill.py

clean:
	rm -rf $(VENV) .parts .pytest_cache .mypy_cache .ruff_cache .hypothesis dist

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml requirements.lock requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "milkrun needs Python 3.11 or newer; set PYTHON=python3.12, for example" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

# The locks name no index: they hold wherever the packages come from, because every file has its hash.
lock:
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url \
		--python-version 3.11 pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url \
		--python-version 3.11 --group dev pyproject.toml -c requirements.lock -o requirements-dev.lock
