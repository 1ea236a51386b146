# The front door. `make help` lists the targets; each one makes first what it needs, and only that.
#
# There is one environment, .venv, with the package installed in editable mode. Its compiled core is built
# either for speed (release) or with every check on (debug); build/profile says which one is there now, and
# a target that needs the other one rebuilds it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILD := debug
CLANG ?= clang-14
SECONDS ?= 30
CORE := $(wildcard src/mooring/_core/*.pyx src/mooring/_core/*.pxd src/mooring/_core/*.pxi src/mooring/_core/*.h)
STUBBED := $(patsubst src/mooring/_core/%.pyi,mooring._core.%,$(wildcard src/mooring/_core/*.pyi))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo test lint types bench chaos flatness conformance fuzz mutants docs clean
.DEFAULT_GOAL := help

demo bench chaos flatness: BUILD := release

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: build/built-release  ## serve the chat on http://127.0.0.1:9502; edit examples/chat.py meanwhile
	$(BIN)/mooring run examples.chat:server --watch examples

test: build/built-debug $(VENV)/group-test  ## run every test; ARGS="-k chat" chooses
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/group-lint  ## style and likely mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: build/built-debug $(VENV)/group-types  ## mypy --strict, and the stubs of the compiled modules
	$(BIN)/mypy
	$(BIN)/stubtest --concise --allowlist tools/stubtest-allowlist.txt --ignore-unused-allowlist $(STUBBED)

bench: build/built-release $(VENV)/group-bench build/wsload  ## compare with other servers; ARGS="--rounds 3"
	@mkdir -p bench/results
	$(BIN)/python bench/compare.py --peers bench/peers.json --baseline picows --wsload build/wsload \
	    --json bench/results/latest.json $(ARGS)
	$(BIN)/python bench/edge.py --json bench/results/edge.json
	$(BIN)/python bench/successor.py --json bench/results/successor.json
	$(BIN)/python bench/files.py --json bench/results/files.json

chaos: build/built-release  ## look whether anything is lost under kills, reloads, stops; ARGS="--seed 7"
	@for nemesis in kill reload stop gateway descriptors bytes misdeeds "mixed --messages 3100000 --duration 600"; do \
	    $(BIN)/python tools/nothing_lost.py --nemesis $$nemesis --json build/chaos.jsonl $(ARGS) || failed=1; \
	done; exit $${failed:-0}

flatness: build/built-release  ## look whether anything grows over 200 reloads and 100,000 connections
	$(BIN)/python tools/flatness.py --json build/flatness.jsonl $(ARGS)

conformance: build/built-debug  ## Autobahn on both modes; QUICK=1 leaves out the long group 9
	conformance/run.sh

fuzz: build/fuzz/built $(VENV)/group-fuzz  ## search for inputs that do harm, 30 s per target; SECONDS=300 ARGS="ws_frames"
	$(BIN)/python tests/fuzz/run.py --seconds $(SECONDS) $(ARGS)

mutants: build/built-debug $(VENV)/group-test  ## look whether each test fails when what it tests is gone; ARGS="F31"
	$(BIN)/python tools/mutants.py $(ARGS)

docs: build/built-debug $(VENV)/group-docs  ## write the generated pages and build the manual into build/site
	$(BIN)/mooring settings > docs/settings.md
	$(BIN)/python -m mooring.cli > docs/cli.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # with --quiet it would overlook warnings

clean:  ## remove everything that was made
	rm -rf $(VENV) build src/*.egg-info src/mooring/_core/*.so tests/node/node_modules
	find src tests -name __pycache__ -prune -exec rm -rf {} +

# ---------------------------------------------------------------------------------------------------------

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "mooring needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip  # --group needs 25.1
	@touch $@

$(VENV)/installed: pyproject.toml setup.py | $(VENV)/made
	$(PIP) 'setuptools>=77' 'Cython>=3.2,<4'
	MOORING_BUILD=$(BUILD) $(PIP) --no-build-isolation --editable '.[watch]'
	@mkdir -p build && echo $(BUILD) > build/profile
	@touch $@

# setup.py compiles what is older than its sources; after a change of profile that is everything.
build/built-%: $(VENV)/installed $(CORE)
	@mkdir -p build
	@[ "$$(cat build/profile 2>/dev/null)" = $* ] || rm -f src/mooring/_core/*.so
	MOORING_BUILD=$* $(BIN)/python setup.py --quiet build_ext --inplace
	@rm -f build/built-* && echo $* > build/profile
	@touch $@

# Beside the other builds, with copies of the Python sources: their branches are counted too.
build/fuzz/built: $(VENV)/installed setup.py $(CORE) $(wildcard src/mooring/*.py src/mooring/*/*.py)
	@command -v $(CLANG) >/dev/null || { echo "make fuzz needs clang: apt-get install clang-14 libclang-rt-14-dev" \
	    "llvm-14; or name yours: make fuzz CLANG=clang"; exit 1; }
	@[ $@ -nt setup.py ] || rm -rf build/fuzz/lib build/fuzz/temp
	CC=$(CLANG) LDSHARED="$(CLANG) -shared" MOORING_BUILD=fuzz $(BIN)/python setup.py --quiet build \
	    --build-lib build/fuzz/lib --build-temp build/fuzz/temp
	@touch $@

$(VENV)/group-%: pyproject.toml | $(VENV)/made
	$(PIP) --group $*
	@touch $@

build/wsload: bench/wsload.c bench/test_wsload.py
	@mkdir -p build
	$(CC) -O3 -march=native -o $@.new bench/wsload.c
	WSLOAD=$@.new $(PYTHON) bench/test_wsload.py --failfast
	@mv $@.new $@
