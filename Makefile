# The front door. `make help` lists the targets; each one makes first what it needs, and only that.
#
# There is one environment, .venv, and beside it the builds, build/NAME, made by tools/build.py: `release` for what is
# served and measured, `debug` for what is tested. Neither replaces the other. .venv/bin/python finds the debug
# build, build/release/bin/python the release build and the packages of .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RELEASE := build/release/bin
CLANG ?= clang-14
SECONDS ?= 30
CORE := $(wildcard src/mooring/_core/*.pyx src/mooring/_core/*.pxd src/mooring/_core/*.pxi src/mooring/_core/*.h src/mooring/_core/*.toml)
STUBBED := $(patsubst src/mooring/_core/%.pyi,mooring._core.%,$(wildcard src/mooring/_core/*.pyi))
BESIDE := --numprocesses auto --dist worksteal  # tests run side by side; -n0 in ARGS: one after the other
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test check lint types package bench instructions chaos flatness conformance fuzz mutants docs clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: build/release/built  ## serve the chat on http://127.0.0.1:9502; edit examples/chat.py meanwhile
	@echo "the chat: open http://127.0.0.1:9502 in two windows, and edit examples/chat.py meanwhile; Ctrl-C ends it"
	@$(RELEASE)/mooring run examples.chat:server --watch examples

test: build/debug/built $(VENV)/group-test  ## run every test; ARGS="-k chat" chooses
	$(BIN)/python -m pytest $(BESIDE) $(ARGS)

check: build/debug/built $(VENV)/group-test  ## run the half that takes a minute: what starts no server of its own
	$(BIN)/python -m pytest $(BESIDE) tests/unit tests/contract -m "not own_server and not long" $(ARGS)

lint: $(VENV)/group-lint  ## style and likely mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint src/mooring/_core  # it runs pycodestyle
	$(BIN)/python tools/layers.py src
	$(BIN)/python tools/shape.py

types: build/debug/built $(VENV)/group-types  ## mypy --strict, and the stubs of the compiled modules
	$(BIN)/mypy
	$(BIN)/stubtest --concise --allowlist tools/stubtest-allowlist.txt --ignore-unused-allowlist $(STUBBED)

bench: build/release/built $(VENV)/group-bench build/wsload  ## compare with other servers; ARGS="--rounds 3"
	@mkdir -p bench/results
	$(RELEASE)/python bench/compare.py --peers bench/peers.json --baseline picows --wsload build/wsload \
	    --json bench/results/latest.json $(ARGS)
	$(RELEASE)/python bench/edge.py --json bench/results/edge.json
	$(RELEASE)/python bench/successor.py --json bench/results/successor.json
	$(RELEASE)/python bench/files.py --json bench/results/files.json
	$(RELEASE)/python bench/topics.py --json bench/results/topics.json

instructions: build/release/built  ## count the instructions of a message or request (valgrind); ARGS="--mode base,process all"
	$(RELEASE)/python tools/instructions.py $(ARGS)

chaos: build/release/built  ## look whether anything is lost under kills, reloads, stops; ARGS="--seed 7"
	@for nemesis in kill reload stop gateway descriptors bytes misdeeds "mixed --messages 3100000 --duration 600"; do \
	    $(RELEASE)/python tools/nothing_lost.py --nemesis $$nemesis --json build/chaos.jsonl $(ARGS) || failed=1; \
	done; exit $${failed:-0}

flatness: build/release/built  ## look whether anything grows over 200 reloads and 100,000 connections
	$(RELEASE)/python tools/flatness.py --json build/flatness.jsonl $(ARGS)

conformance: build/debug/built  ## Autobahn on both modes; QUICK=1 leaves out the long group 9
	conformance/run.sh

fuzz: build/fuzz/built build/debug/built $(VENV)/group-fuzz  ## search for inputs that do harm, 30 s per target; SECONDS=300 ARGS="ws_frames"
	$(BIN)/python tests/fuzz/run.py --seconds $(SECONDS) $(ARGS)

mutants: build/debug/built $(VENV)/group-test  ## look whether each test fails when what it tests is gone; ARGS="F31"
	$(BIN)/python tools/mutants.py $(ARGS)

docs: build/debug/built $(VENV)/group-docs  ## write the generated pages and build the manual into build/site
	$(BIN)/mooring settings > docs/settings.md
	$(BIN)/python -m mooring.cli > docs/cli.md
	$(BIN)/python tools/counters.py
	$(BIN)/python tools/records.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # with --quiet it would overlook warnings

package: $(VENV)/installed $(VENV)/group-package  ## build what is published, install it where nothing is, run it there
	$(BIN)/python tools/packages.py --keep dist

clean:  ## remove everything that was made; what fuzzing has found stays
	rm -rf $(VENV) build dist src/*.egg-info src/mooring/_core/*.so tests/node/node_modules
	find src tests -name __pycache__ -prune -exec rm -rf {} +

# ---------------------------------------------------------------------------------------------------------

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "mooring needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 1; }
	@echo "making an environment for Python: $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# Not mooring itself: that would compile it once more.
$(VENV)/installed: pyproject.toml | $(VENV)/made
	@echo "installing what mooring needs"
	@$(BIN)/python -c 'import tomllib; told = tomllib.load(open("pyproject.toml", "rb")); \
	    print(*told["build-system"]["requires"], *told["project"]["dependencies"], \
	        *told["project"]["optional-dependencies"]["watch"], sep="\n")' > $(VENV)/requirements.txt
	@$(PIP) -r $(VENV)/requirements.txt
	@touch $@

# Also when a file has come or gone, which changes its folder: a build links what is not compiled. What is compiled
# again, setup.py decides.
build/%/built: $(VENV)/installed setup.py tools/build.py tools/counters.py tools/records.py src/mooring/counters.py $(CORE) src/mooring src/mooring/_core
	@$(BIN)/python tools/build.py $*

build/fuzz/built: export CC = $(CLANG)
build/fuzz/built: export LDSHARED = $(CLANG) -shared
build/fuzz/built: | clang

.PHONY: clang
clang:
	@command -v $(CLANG) >/dev/null || { echo "make fuzz needs clang: apt-get install clang-14 libclang-rt-14-dev" \
	    "llvm-14; or name yours: make fuzz CLANG=clang"; exit 1; }

$(VENV)/pip: | $(VENV)/made
	$(PIP) --upgrade 'pip>=25.1'  # which knows --group
	@touch $@

$(VENV)/group-%: pyproject.toml | $(VENV)/pip
	$(PIP) --group $*
	@touch $@

build/wsload: bench/wsload.c bench/test_wsload.py
	@mkdir -p build
	$(CC) -O3 -march=native -o $@.new bench/wsload.c
	WSLOAD=$@.new $(PYTHON) bench/test_wsload.py --failfast
	@mv $@.new $@
