# Two commands do everything: `make book` and `make test`. Both set up what they need.

SHELL := bash
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.recseg-installed
PORT ?= 8000
# The first Python that is new enough; `make PYTHON=/path/to/python3.12 book` chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

START := $(shell date +%s)
say = @printf '[%4d s] %s\n' $$(( $$(date +%s) - $(START) ))

# Chapters run on the virtual environment's own kernel, wherever else Jupyter may be installed.
RUN := PATH="$(abspath $(BIN)):$$PATH" JUPYTER_PREFER_ENV_PATH=1 PYDEVD_DISABLE_FILE_VALIDATION=1
QUIET := 2>&1 | { grep --line-buffered -v 'Kernel is running over TCP' || true; }
# As many processes as cores (two in tests): one thread each, or they fight for the cores.
TEST := $(RUN) OMP_NUM_THREADS=1 RECSEG_SMALL=1

# Downloads are shown where someone watches.
INSTALL := $(BIN)/uv pip install $(if $(MAKE_TERMERR),,--quiet) --python $(BIN)/python -c constraints.txt -e '.[book,dev,onnx,test,video]'

.PHONY: help setup book serve check-book measure-book test test-slow reproducible check-colab coverage mutation audit licences lint \
	format constraints repository readme publish clean

help:
	@echo 'make book         set up, run every chapter, render the book to _build/html'
	@echo 'make serve        show the rendered book on http://127.0.0.1:$(PORT)'
	@echo 'make check-book   open every page of the built book in a browser: accessible, self-contained, working'
	@echo 'make measure-book measure how heavy and fast the pages are, into data/results/pages.json'
	@echo 'make test         set up, check style, types and layers, run all tests and all chapters'
	@echo 'make test-slow    set up, run the tests that take minutes each'
	@echo 'make reproducible run the chapters twice and compare all they show: make reproducible ONLY="02_convlstm 05_targets"'
	@echo 'make check-colab  run the chapters as Colab does, in a clean environment of its Python and packages'
	@echo 'make coverage     say which lines and branches of recseg no test runs'
	@echo 'make mutation     change targets, losses, fusion and metrics line by line: which change does no test notice?'
	@echo 'make audit        ask for known faults in the versions of constraints.txt (needs the network)'
	@echo 'make licences     write LICENSES.md'
	@echo 'make lint         style, types and layers only'
	@echo 'make format       format code and chapters, strip the outputs of chapters'
	@echo 'make setup        create $(VENV) and install the versions in constraints.txt'
	@echo 'make readme       write the measured results into README.md'
	@echo 'make publish      publish a training: make publish RUN=runs/x NAME=pictograms-recurrent DATA=pictograms'
	@echo 'make constraints  choose the versions in constraints.txt anew'
	@echo 'make repository URL=https://github.com/OWNER/NAME   set the repository address everywhere'
	@echo 'make clean        remove what was built'

setup: $(STAMP)

$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'recseg needs Python 3.11 or newer: install it, or name it with make PYTHON=/path/to/python' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'recseg needs Python 3.11 or newer; $(PYTHON) is older' >&2; exit 1; }
	$(say) 'Creating $(VENV) with $(PYTHON)'
	@'$(PYTHON)' -m venv $(VENV) || { echo 'no virtual environment could be made; on Debian and Ubuntu: apt install python3-venv' >&2; rm -rf $(VENV); exit 1; }

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(say) 'Installing the versions in constraints.txt (PyTorch is large: minutes on a first run)'
	@$(BIN)/python -m pip install --quiet --progress-bar off --disable-pip-version-check -c constraints.txt uv
	@$(INSTALL)
	@touch $@
	$(say) 'Environment ready'

# An incremental build would miss changes in recseg and hide failures on unchanged pages: always start afresh.
book: setup
	@rm -rf _build
	$(say) 'Running the chapters at small scale, side by side; beside them, exporting the networks of the live page'
	@set -o pipefail; { $(RUN) $(BIN)/python book/live.py && $(RUN) $(BIN)/python book/front.py; } & \
		$(TEST) $(BIN)/python book/run_chapters.py $(QUIET); chapters=$$?; wait $$! && exit $$chapters
	$(say) 'Running those that measure time, one after the other, and rendering all'
	@set -o pipefail; $(RUN) RECSEG_SMALL=1 $(BIN)/jupyter-book build book --path-output . --config _config.yml \
		-W -n --keep-going $(QUIET)
	@$(BIN)/python book/check_pages.py
	$(say) 'The book is ready: open _build/html/index.html, or type make serve'

serve:
	@test -f _build/html/index.html || { echo 'no book yet: type make book first' >&2; exit 1; }
	@echo 'The book is at http://127.0.0.1:$(PORT) (Ctrl-C ends)'
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

check-book: setup
	$(say) 'Opening every page in a browser, in two themes and on a narrow screen'
	@$(BIN)/python tests/pages

measure-book: setup
	$(say) 'Measuring every page, opened afresh'
	@$(BIN)/python tests/pages --json data/results/pages.json

lint: setup
	$(say) 'ruff: style'
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	$(say) 'mypy: types'
	@$(BIN)/mypy
	$(say) 'import-linter: layers'
	@$(BIN)/lint-imports

test: lint
	$(say) 'pytest: the package'
	@$(TEST) MPLBACKEND=Agg $(BIN)/pytest -q -n 2 -m "not slow" tests
	$(say) 'pytest: every chapter'
	@$(TEST) $(BIN)/pytest -q --nbmake --nbmake-kernel=python3 --nbmake-timeout=300 -n 2 book/*.ipynb
	$(say) 'All tests passed'

test-slow: setup
	$(say) 'pytest: what takes minutes each'
	@$(TEST) MPLBACKEND=Agg $(BIN)/pytest -q -n 2 -m slow tests
	$(say) 'All slow tests passed'

reproducible: setup
	@$(RUN) $(BIN)/python tests/reproducible_book.py $(if $(ONLY),--only $(ONLY))

coverage: setup
	@$(TEST) MPLBACKEND=Agg $(BIN)/pytest -q -n 2 -m "not slow" --cov=recseg --cov-branch \
		--cov-report=term-missing:skip-covered --cov-fail-under=95 tests

check-colab: setup
	@$(BIN)/python tests/colab.py $(if $(ONLY),--only $(ONLY))

mutation: setup
	@OMP_NUM_THREADS=1 MPLBACKEND=Agg $(BIN)/python -m mutmut run --max-children 2
	@$(BIN)/python -m mutmut results

# A fault that is known and explained is let pass by its number in tests/audit.py; no network is a failure, never a pass.
audit: setup
	@$(BIN)/python tests/audit.py

licences: setup
	@$(BIN)/python book/licences.py

format: setup
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .
	@$(BIN)/nbstripout --keep-id book/*.ipynb

constraints: setup
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links pyproject.toml -o constraints.txt.new
	@{ sed -n '/^#/p' constraints.txt; cat constraints.txt.new; } > constraints.txt.all
	@mv constraints.txt.all constraints.txt && rm constraints.txt.new
	@touch $(STAMP) && echo 'constraints.txt written: type make setup, make licences, then make test' && touch constraints.txt

repository: setup
	@$(BIN)/python book/set_repository.py '$(URL)'

readme: setup
	@$(BIN)/python book/fill_readme.py

publish: setup
	@$(BIN)/python book/publish.py '$(RUN)' '$(NAME)' --data '$(DATA)'
	@$(BIN)/python book/fill_readme.py

clean:
	@rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
