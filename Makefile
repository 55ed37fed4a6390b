# maintd. On a bare Debian 12 with Python 3.11:   make demo     make test
# Everything is installed into .venv; nothing outside the checkout changes but what bindep.txt names (by apt, as root).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test lint mutate chaos acceptance acceptance-languages bench config clean

help:
	@echo 'make demo         install into $(VENV) and show the story: a host is drained, one migration stalls, the proof comes'
	@echo 'make test         install, bring RabbitMQ, run the tests (PYTEST_ARGS="-k name" to choose)'
	@echo 'make lint         ruff, mypy --strict, the import contract, systemd-analyze, promtool'
	@echo 'make mutate       take away each guard of the proof in turn, and see that a test notices (ONLY="words" to choose)'
	@echo 'make chaos        kill maintd KILLS=50 times in the story of two projects, and RabbitMQ and receivers with it (SEED=1 SEEDS=1)'
	@echo 'make acceptance   tokens of a real Keystone, and stories on a real Nova: CLOUD=NAME TRANSPORT_URL=rabbit://... [STORY="cold shelve"] [REPEAT=10]'
	@echo 'make acceptance-languages   part of it that needs no cloud: what maintd signs verifies in other languages'
	@echo 'make bench        what it costs, as ratios in one run (QUICK=1 to see that it works)'
	@echo 'make config       write etc/maintd/maintd.conf anew from the options in the code'
	@echo 'make clean        remove $(VENV) and what was built'

demo: $(STAMP)-run
	@$(BIN)/maintd demo

test: $(STAMP)-test $(STAMP)-rabbitmq
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(STAMP)-lint $(VENV)/promtool $(STAMP)-systemd
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg
	$(BIN)/python tools/check_unit.py systemd/maintd.service
	$(VENV)/promtool check rules etc/maintd/maintd.prometheus-rules.yaml
	$(VENV)/promtool test rules tests/rules/*.yaml

mutate: $(STAMP)-test
	@$(BIN)/python tools/mutate_guards.py $(if $(ONLY),--only '$(ONLY)') $(MUTATE_ARGS)

chaos: $(STAMP)-test $(STAMP)-rabbitmq
	@$(BIN)/python -m tests.chaos --kills $(or $(KILLS),50) $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) \
	    $(CHAOS_ARGS)

# The transport URL holds a password: it goes by the environment, and may come by it (MAINTD_TRANSPORT_URL).
# Everything else: make acceptance ACCEPTANCE_ARGS=--help
ifdef TRANSPORT_URL
acceptance: export MAINTD_TRANSPORT_URL = $(TRANSPORT_URL)
endif
acceptance: acceptance-languages $(STAMP)-test $(VENV)/keystone/.made
	@$(BIN)/python -m pytest -q tests/acceptance/test_judge.py tests/acceptance/test_keystone.py \
	    tests/acceptance/test_canary.py tests/acceptance/test_chaos.py
	@$(BIN)/python -m tests.acceptance $(if $(CLOUD),--cloud '$(CLOUD)') $(if $(STORY),--story $(STORY)) \
	    $(if $(REPEAT),--repeat $(REPEAT)) $(if $(HOST),--host '$(HOST)') $(if $(SERVERS),--servers $(SERVERS)) \
	    $(if $(IMAGE),--image '$(IMAGE)') $(if $(FLAVOR),--flavor '$(FLAVOR)') \
	    $(if $(NETWORK),--network '$(NETWORK)') $(if $(STOP_COMPUTE),--stop-compute '$(STOP_COMPUTE)') \
	    $(if $(START_COMPUTE),--start-compute '$(START_COMPUTE)') $(if $(SET_KNOB),--set-knob '$(SET_KNOB)') \
	    $(ACCEPTANCE_ARGS)

acceptance-languages: $(STAMP)-test $(STAMP)-languages
	@$(BIN)/python -m tests.acceptance.languages

bench: $(STAMP)-test $(STAMP)-rabbitmq
	@$(BIN)/python -m bench $(if $(QUICK),--quick)

config: $(STAMP)-run
	@$(BIN)/oslo-config-generator --config-file etc/maintd/maintd-config-generator.conf

clean:
	rm -rf $(VENV) tests/acceptance/languages/node_modules build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find maintd tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

# --- what stands behind; every step leaves a stamp, so that a second run is quick ------------------------------------

$(STAMP)-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo 'maintd: $(PYTHON) is older than Python 3.11; run: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(PYTHON) tools/bindep.py base python3-venv
	@echo 'maintd: making $(VENV)'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(STAMP)-run: $(STAMP)-venv setup.cfg pyproject.toml
	@echo 'maintd: installing maintd and its libraries into $(VENV) (a minute or two, once)'
	@$(PIP) install -q -e .
	@touch $@

$(STAMP)-test: $(STAMP)-venv setup.cfg pyproject.toml
	@echo 'maintd: installing maintd and what its tests need into $(VENV) (a minute or two, once)'
	@$(PIP) install -q -e '.[test,mysql,postgresql]'
	@touch $@ $(STAMP)-run

# A Keystone of its own, apart: what it needs is neither maintd's nor its tests'.
$(VENV)/keystone/.made: $(STAMP)-venv
	@echo 'maintd: installing Keystone into $(VENV)/keystone (a minute, once)'
	@$(PYTHON) -m venv $(VENV)/keystone
	@$(VENV)/keystone/bin/python -m pip --disable-pip-version-check --no-input install -q 'keystone>=27'
	@touch $@

$(STAMP)-lint: $(STAMP)-test
	@echo 'maintd: installing the linters into $(VENV)'
	@$(PIP) install -q -e '.[test,lint,docs]'
	@touch $@

$(STAMP)-rabbitmq: $(STAMP)-venv bindep.txt
	@$(PYTHON) tools/bindep.py test rabbitmq-server
	@touch $@

# Whoever has Node.js with npm, PHP or Ruby from elsewhere keeps it. npm takes exactly what package-lock.json names.
$(STAMP)-languages: $(STAMP)-venv bindep.txt tests/acceptance/languages/package-lock.json
	@{ command -v node && command -v npm; } >/dev/null || $(PYTHON) tools/bindep.py languages nodejs npm
	@command -v php >/dev/null || $(PYTHON) tools/bindep.py languages php-cli
	@command -v ruby >/dev/null || $(PYTHON) tools/bindep.py languages ruby
	@cd tests/acceptance/languages && npm ci --silent
	@touch $@

$(STAMP)-systemd: $(STAMP)-venv bindep.txt
	@$(PYTHON) tools/bindep.py lint systemd
	@touch $@

# promtool alone, out of Debian's package and without installing it: no service, no root.
$(VENV)/promtool: $(STAMP)-venv
	@tools/promtool.sh $@
