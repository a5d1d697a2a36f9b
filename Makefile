# Everything is built in the tree: .venv has all tools, .venv-demo the run-time dependencies alone.
# A virtual environment is made anew when pyproject.toml, the interpreter or the tree's place changed,
# and its stamp is written last, so that an interrupted installation starts over.

PYTHON ?= python3
UV ?= uv

# The tests start some hundred programs: where nothing compiled is kept, each compiles all it imports.
export PYTHONDONTWRITEBYTECODE =

# The tests without a broker, a client or a subprocess of either: the fast half.
CORE_TESTS := $(wildcard $(addprefix tests/, \
	test_imports.py test_exports.py test_fd_guard.py \
	test_errors.py test_interrupt.py test_topic.py test_address.py test_fd.py test_payload.py test_message.py test_vectors.py \
	protocol routing transport client))
# As `files` in pyproject.toml, less what is not there: mypy refuses a missing directory.
TYPED := $(wildcard sockbus examples benchmarks)

.DEFAULT_GOAL := help
.SUFFIXES:
.PHONY: help check test demo lint clean FORCE

help: ## show this
	@echo 'usage: make TARGET [PYTHON=python3.12] [UV= for pip even where uv is installed]'
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1 \2/p' Makefile | \
		while read -r target purpose; do printf '  %-7s %s\n' "$$target" "$$purpose"; done

check: lint ## lint and the core tests: under a minute
	@.venv/bin/python -W error -m pytest -q $(CORE_TESTS)

test: lint ## lint and every test, warnings being errors
	@.venv/bin/python -W error -m pytest -q -n 3 --dist worksteal

demo: .venv-demo/stamp ## run the demonstration with the run-time dependencies alone
	@.venv-demo/bin/python -m examples.demo

lint: .venv/stamp ## ruff and mypy alone
	@.venv/bin/python -m ruff check --quiet
	@.venv/bin/python -m ruff format --check --quiet
	@.venv/bin/python -m mypy --no-error-summary $(TYPED)

clean: ## remove all that make and the tools made
	rm -rf .make .venv .venv-demo build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/stamp: pyproject.toml .make/python
	$(call install,.venv,.[dev])

.venv-demo/stamp: pyproject.toml .make/python
	$(call install,.venv-demo,.)

# $(call install,DIRECTORY,REQUIREMENT): a new virtual environment with this tree, editable, in it.
define install
@set -e; \
{ read -r version; read -r python; } <.make/python; \
rm -rf $(1); \
echo "installing $(2) into $(1)"; \
if [ -n "$(UV)" ] && "$(UV)" --version >/dev/null 2>&1; then \
	"$(UV)" venv --quiet --python "$$python" $(1); \
	"$(UV)" pip install --quiet --python $(1)/bin/python --editable '$(2)'; \
else \
	"$$python" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$$python cannot make virtual environments:" \
			"install the package python$${version%.*}-venv (Debian, Ubuntu), or uv." >&2; \
		exit 1; \
	}; \
	"$$python" -m venv $(1); \
	$(1)/bin/python -m pip install -qq --disable-pip-version-check --editable '$(2)'; \
fi; \
touch $@
endef

# The interpreter's version and path, and this tree's, which virtual environments have written into them.
# Asked every time; written, and so newer than the stamps, only when the answer changed.
.make/python: FORCE
	@mkdir -p $(@D); \
	found=$$("$(PYTHON)" -c '$(ask)' 2>/dev/null); \
	case $$? in \
	0) [ "$$found" = "$$(cat $@ 2>/dev/null)" ] || printf '%s\n' "$$found" >$@ ;; \
	3) echo "sockbus needs Python 3.11 or newer and $(PYTHON) is $$found:" \
		"name another with 'make PYTHON=...'." >&2; exit 1 ;; \
	*) echo "sockbus needs Python 3.11 or newer and $(PYTHON) does not run:" \
		"name another with 'make PYTHON=...'." >&2; exit 1 ;; \
	esac

# Any Python, however old, must understand this. The path is resolved so that an activated .venv, which is
# about to be removed, leads to what it was made from.
ask = import os, sys; \
	new = sys.version_info >= (3, 11); \
	version = ".".join(map(str, sys.version_info[:3])); \
	print("\n".join([version, os.path.realpath(sys.executable), os.getcwd()] if new else [version])); \
	sys.exit(0 if new else 3)
