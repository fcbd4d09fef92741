# Everything a user or CI does. `make` alone lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export DVC_NO_ANALYTICS := 1
export NO_ALBUMENTATIONS_UPDATE := 1

.DEFAULT_GOAL := help
.PHONY: help setup repro lecture check heal test lock-check faults machines chaos bench gpu-check lint type docs picture ui lock clean clean-state

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 13

setup: $(VENV)/.ready  ## make .venv: the locked requirements, and the command `sightline`

$(VENV)/.ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
	@touch $@

repro: setup  ## run the whole pipeline: data, shards, training, evaluation, registration
	$(BIN)/sightline repro

lecture: setup  ## run the second project, lecture/: its systems, its claims and their page, lecture/page.html (JOBS=... at once, else 2)
	cd lecture && PATH="$(CURDIR)/$(BIN):$$PATH" sightline repro --jobs $(or $(JOBS),2)

check: setup  ## check params.yaml, every section, without running anything
	$(BIN)/sightline check

heal: setup  ## find damaged data that DVC takes for whole (YES=1 removes it; then `dvc pull` or `make repro`)
	$(BIN)/sightline heal $(if $(YES),--yes)

test: setup  ## run the tests
	OMP_NUM_THREADS=1 $(call beside,3,tests/integration tests/browser tests/contract tests/field tests/unit)

lock-check: setup  ## fail where dvc.lock and metrics/ are not of this code and these settings (then: make repro)
	$(BIN)/python -m pytest tests/reference

faults: setup  ## kill, cut, forge and starve it: every fault is survived or refused clearly (tests/faults/README.md)
	$(call beside,2,--timeout 1800 $(LONG_FAULTS) $(filter-out $(LONG_FAULTS),$(wildcard tests/faults/test_*.py)))

LONG_FAULTS := $(wildcard tests/faults/test_cluster_kills.py tests/faults/test_lost_nodes.py tests/faults/test_cluster_deaths.py tests/faults/test_cluster_work.py tests/faults/test_jobs.py tests/faults/test_sweeps.py tests/faults/test_process*.py tests/faults/test_shards.py)

machines: setup  ## five runs on machines made of namespaces, some of which go away: root, a quarter of an hour
	$(BIN)/python -m pytest --timeout 1800 tests/machines

# Files spread over some processes, in the order given: many tests mostly wait. Tiny models gain nothing from more
# threads, which take a third more of the processors, and more where processes share them; faults run with as many as
# there are.
beside = $(BIN)/python -m pytest --numprocesses $(1) --dist loadfile --no-loadscope-reorder $(2)

chaos: setup  ## random faults on a small training for ten minutes (MINUTES=..., SEED=... for others)
	$(BIN)/python -m tests.chaos $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

bench: setup  ## how fast it is, beside other libraries (NAME=... for one benchmark)
	$(BIN)/python -m benchmarks $(NAME)

gpu-check: setup  ## on a machine with a GPU: step and memory beside torchvision's plain loop, the loader beside the step
	$(BIN)/python -m benchmarks gpu

lint: setup  ## style and unused code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: setup  ## static types
	$(BIN)/mypy

docs: setup  ## build the pages of docs/, with the reference of settings, commands and parts: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "site/index.html"

picture: setup  ## draw README's picture anew from what `make repro` made
	$(BIN)/python -m docs.hooks.sheet

ui: setup  ## open the MLflow UI on what was trained (http://127.0.0.1:5000, PORT=... for another)
	$(BIN)/sightline ui --port $(or $(PORT),5000)

lock: setup  ## write requirements.txt anew from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade --quiet \
	  --no-emit-index-url --no-header --no-annotate --strip-extras --output-file requirements.txt

clean:  ## remove everything that was generated, but not .venv nor the DVC cache
	rm -rf data/checked.json data/settings data/code data/raw data/shards data/vocab data/quarantine artifacts predictions evaluations
	rm -rf plots curves registry report.html state mlflow.db mlartifacts dvc_plots site
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

clean-state: setup  ## remove training states that no run goes on from, and extracted downloads (DRY=1 only lists them)
	$(BIN)/sightline clean-state $(if $(DRY),--dry-run)
