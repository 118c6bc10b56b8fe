# The project's commands. `make` alone lists them. Everything runs in .venv, installed from constraints.txt.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
PIP     = PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip
ARGS   ?=
# nbs/index.ipynb as Markdown: its links are relative to nbs/, those of README.md to the root; GitHub chooses pictures by <picture>
README  = $(BIN)/jupyter nbconvert --log-level ERROR --to markdown --TagRemovePreprocessor.enabled=True \
	--TagRemovePreprocessor.remove_cell_tags=site --TagRemovePreprocessor.remove_input_tags=no-input --stdout nbs/index.ipynb | sed -E \
	-e 's,<img class="light-content" src="images/([a-z-]+)\.svg" alt="([^"]*)"><img class="dark-content"[^>]*>,<picture><source media="(prefers-color-scheme: dark)" srcset="nbs/images/\1-dark.svg"><img src="nbs/images/\1.svg" alt="\2"></picture>,' \
	-e '/^```$$/{N;s/^```\n(import|from) /```python\n\1 /}' -e '/^- image(-alt)?: /d' -e 's,\]\(changelog\.qmd,](CHANGELOG.md,g' -e 's,\]\(([a-z0-9_/-]+\.(ipynb|md|qmd|svg|png)),](nbs/\1,g' | cat -s

.DEFAULT_GOAL := help
.PHONY: help quickstart test faults fuzz mutants lab export readme drift docs docs-check audit lock clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11, 5) else f"Python 3.11.5 or newer is needed by constraints.txt, this is {sys.version.split()[0]}; try make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)

# what a user needs, and no more
$(VENV)/.run: $(VENV)/bin/python settings.ini setup.py pyproject.toml constraints.txt
	@echo "installing dacl-dr into $(VENV) (a few minutes the first time)"
	@$(PIP) install -e .
	@touch $@

# nbdev and pytest on top
$(VENV)/.dev: $(VENV)/.run
	@echo "installing what development needs into $(VENV)"
	@$(PIP) install -e '.[dev]'
	@touch $@

quickstart: $(VENV)/.run ## train A, B, C, D on the offline corpus and report what searching each costs (ARGS='--seeds 3')
	@$(BIN)/dacl quickstart $(ARGS)

drift: $(VENV)/.dev ## check that dacl_dr/ and README.md match the notebooks
	@rm -rf build/drift && mkdir -p build && cp -r dacl_dr build/drift && PATH="$(BIN):$$PATH" $(BIN)/nbdev_export
	@diff -r -x __pycache__ build/drift dacl_dr || { echo 'dacl_dr/ did not match nbs/; it does now: commit it'; exit 1; }
	@$(README) | diff README.md - || { echo 'README.md does not match nbs/index.ipynb: make readme'; exit 1; }
	@echo 'exports and README match the notebooks'

test: drift ## check exports, run every notebook, run pytest
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/nbdev_test --n_workers 2 --do_print --timing
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations=40 $(ARGS)

faults: $(VENV)/.dev ## kill, fill the disk, run twice, turn the clock back, and see what survives; writes nbs/experiments/results/faults.csv
	FAULTS_CSV=$(if $(ARGS),,nbs/experiments/results/faults.csv) $(BIN)/python -m pytest -m slow tests/faults $(ARGS)

fuzz: $(VENV)/.dev ## read thousands of damaged files; every reader gives the right result or one line that names the file (FUZZ_SEED=1 for others)
	$(BIN)/python -m pytest -m slow -s tests/fuzz

mutants: $(VENV)/.dev ## check that the tests notice wrong lines (about half an hour; ARGS='--only losses')
	$(BIN)/python tests/mutants.py $(ARGS)

lab: $(VENV)/.dev ## open JupyterLab in nbs/
	$(BIN)/jupyter lab --notebook-dir nbs

export: $(VENV)/.dev ## notebooks to dacl_dr/ and README.md, the pages of the commands, metadata cleaned
	PATH="$(BIN):$$PATH" $(BIN)/nbdev_export
	$(BIN)/python -c 'from dacl_dr.cli.reference import write_pages; write_pages()'
	PATH="$(BIN):$$PATH" $(BIN)/nbdev_clean
	@$(MAKE) --no-print-directory readme

readme: $(VENV)/.dev ## README.md from nbs/index.ipynb
	@$(README) > README.md.partial && mv README.md.partial README.md

# not nbdev_docs, which writes README.md anew with Quarto where the notebook's file is the newer one; nor does nbdev
# copy files whose names begin with _
docs: $(VENV)/.dev ## the documentation site into _docs/ (needs Quarto 1.7 or newer); a warning is a failure
	@command -v quarto >/dev/null || { echo 'Quarto is not installed: see https://quarto.org/docs/get-started, use environment.yml, or run make docs-check, which needs none'; exit 1; }
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tests/docs/process.py
	$(BIN)/python -c 'from pathlib import Path; from dacl_dr.report.page import chart_libraries; Path("_proc/vega.js").write_text(chart_libraries())'
	cp nbs/experiments/_metadata.yml _proc/experiments/
	@mkdir -p build
	@cd _proc && quarto render --no-cache > ../build/docs.log 2>&1 || { cat ../build/docs.log; exit 1; }
	@cat build/docs.log
	@if grep -q WARN build/docs.log; then grep -n WARN build/docs.log; echo 'Quarto warns; mend what it names'; exit 1; fi
	rm -rf _docs && mv _proc/_docs _docs
	$(BIN)/python tests/site_check.py _docs

audit: $(VENV)/bin/python ## known vulnerabilities of the pinned packages (needs the network)
	@test -x build/audit/bin/pip-audit || { $(VENV)/bin/python -m venv build/audit && build/audit/bin/python -m pip install -q pip-audit; }
	build/audit/bin/pip-audit --no-deps --disable-pip -r constraints.txt

docs-check: $(VENV)/.dev ## check the site's pages, links, references and commands, without Quarto
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tests/docs_check.py

# torch is part of the offline corpus and its newest builds need CUDA packages, so its version is chosen by hand
TORCH = torch==2.13.0
lock: ## constraints.txt from a fresh environment with the newest allowed versions
	rm -rf build/lock && $(PYTHON) -m venv build/lock && build/lock/bin/python -m pip install -q $(TORCH) && build/lock/bin/python -m pip install -q -e '.[dev]'
	{ echo '# Exact versions of everything that make installs, chosen by make lock'; build/lock/bin/python -m pip freeze --all --exclude-editable --exclude pip | sed 's/+[a-z0-9]*$$//' | grep -v -E '^(nvidia|cuda|triton)'; } > constraints.txt
	rm -rf build/lock

clean: ## remove the environment, runs and build products (keeps data_set/)
	rm -rf $(VENV) build dist *.egg-info _docs _proc runs .pytest_cache .hypothesis
