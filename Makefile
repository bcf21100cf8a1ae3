# `make demo` and `make test` do their own set-up, once. Everything they write stays inside this folder.
PYTHON      ?= python3
ANNOTATIONS ?=
IMAGES      ?=
PAGES       ?= 10
SEED        ?= 0
OUT         ?= out/demo
PYTEST_ARGS ?= -n 2 --dist worksteal
BENCH_ARGS  ?= --stream 500000
OLD         ?=
AGAINST_ARGS ?=
PORT        ?=
NBS         ?=

BIN   := .venv/bin
READY := .venv/.ready

# Quiet, offline and inside the repo: ZenML, Jupyter, matplotlib and Hypothesis keep what they keep in .state
STATE := $(CURDIR)/.state
export ZENML_ANALYTICS_OPT_IN = false
export ZENML_LOGGING_VERBOSITY = ERROR
export ZENML_LOGGING_COLORS_DISABLED = true
export ZENML_ENABLE_RICH_TRACEBACK = false
export ZENML_AUTO_OPEN_DASHBOARD = false
export ZENML_CONFIG_PATH = $(STATE)/zenml
export MPLCONFIGDIR = $(STATE)/matplotlib
export IPYTHONDIR = $(STATE)/ipython
export JUPYTER_CONFIG_DIR = $(STATE)/jupyter
export JUPYTER_DATA_DIR = $(STATE)/jupyter-data
export JUPYTER_RUNTIME_DIR = $(STATE)/jupyter-runtime
export HYPOTHESIS_STORAGE_DIRECTORY = $(STATE)/hypothesis
export TORCHINDUCTOR_CACHE_DIR = $(STATE)/torchinductor
export NO_ALBUMENTATIONS_UPDATE = 1
export XDG_CONFIG_HOME = $(STATE)/config
export HF_HOME = $(STATE)/huggingface
OMP_NUM_THREADS ?= 1
export OMP_NUM_THREADS
# Hundreds of processes import this package while it is tested. Compiled once, it is kept in __pycache__, which git ignores.
export PYTHONDONTWRITEBYTECODE =

.PHONY: help demo test test-site test-all fuzz lowest lock bench against dashboard screenshot lab docs serve prepare proto readme clean distclean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /	/' | expand -t 12

demo: $(READY) ## documents, records, a ZenML artifact, another process, an exact comparison, a picture
	@$(BIN)/redaction-serde demo --out "$(OUT)" $(if $(ANNOTATIONS),--annotations "$(ANNOTATIONS)" --images "$(IMAGES)",--pages $(PAGES) --seed $(SEED))

test: $(READY) ## everything that the library and the notebooks promise
	@$(BIN)/python -m pytest $(PYTEST_ARGS) --ignore tests/test_site.py

test-site: $(READY) ## the site: built, and each page looked at in Chromium
	@$(BIN)/python -m pytest $(PYTEST_ARGS) tests/test_site.py

test-all: $(READY) ## both at once
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

fuzz: $(READY) ## the properties, both fuzzers and the faults of machines, for longer and with a new seed; FUZZ_DOCUMENTS=1000000 FUZZ_PROCESSES=2: only documents, very many, with a log
ifdef FUZZ_DOCUMENTS
	@$(BIN)/python tests/deep_fuzz.py --documents $(FUZZ_DOCUMENTS) --processes $(or $(FUZZ_PROCESSES),2) --log $(or $(FUZZ_LOG),fuzz.log)
else
	@HYPOTHESIS_PROFILE=deep FAULTS=25 FUZZ_SECONDS=300 FUZZ_SEED=$$(date +%s) $(BIN)/python -m pytest --timeout 7200 -n 2 -rP tests/test_round_trip.py tests/test_hostile.py tests/test_fuzz.py tests/test_faults.py
endif

lowest: $(READY) ## the product's tests with the oldest packages that settings.ini allows, in .venv-lowest
	@$(BIN)/python tools/lowest.py

lock: $(READY) ## requirements.lock, after a change of constraints.txt or settings.ini
	@$(BIN)/python tools/lock.py

bench: $(READY) ## times and sizes beside pickle and others, as ratios; then Parquet, then what opening costs (a quarter of an hour)
	@$(BIN)/python -W ignore bench/bench.py $(BENCH_ARGS)
	@$(BIN)/python -W ignore bench/parquet.py
	@$(BIN)/python -W ignore bench/opened.py

against: $(READY) ## is this version slower than the checkout in OLD=...?
	@$(BIN)/python -W ignore bench/against.py $(if $(OLD),"$(OLD)") $(AGAINST_ARGS)

dashboard: $(READY) ## ZenML's own dashboard on 127.0.0.1, over the store that `make demo` made
	@$(BIN)/python tools/dashboard.py --store "$(OUT)/zenml" $(if $(PORT),--port $(PORT))

screenshot: $(READY) ## the picture of the dashboard in the lesson on materialisation (needs Chromium)
	@$(BIN)/python tools/dashboard.py --picture

lab: $(READY) ## JupyterLab on copies of the notebooks, in lab/; on the sources with NBS=nbs
	@$(if $(NBS),,$(BIN)/python tools/copies.py)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/jupyter lab --config tools/jupyter_lab_config.py --ServerApp.root_dir="$(CURDIR)/$(or $(NBS),lab)"

docs: $(READY) ## the site, from notebooks executed afresh, into _site/
	@$(BIN)/python tools/build_docs.py

serve: $(READY) ## the site on 127.0.0.1, brought up to date first
	@$(BIN)/python tools/build_docs.py --serve $(if $(PORT),--port $(PORT))

prepare: $(READY) ## after editing notebooks: export, run and store outputs, clean, README
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/nbdev_export
	@$(BIN)/python tools/readme.py --picture
	@$(BIN)/python tools/run_notebooks.py --store
	@$(BIN)/python tools/howto.py
	@$(BIN)/python tools/readme.py

proto: $(READY) ## document_pb2.py from document.proto
	@$(BIN)/python -m grpc_tools.protoc -I. --python_out=. redaction_serde/document.proto

readme: $(READY) ## README.md from nbs/index.ipynb
	@$(BIN)/python tools/readme.py

clean: ## remove what was made, but not .venv
	@rm -rf out .state build dist *.egg-info .pytest_cache .hypothesis _proc _site

distclean: clean ## remove .venv, too
	@rm -rf .venv .venv-lowest

$(READY): constraints.txt requirements.lock settings.ini setup.py tools/set_up.py
	@$(PYTHON) tools/set_up.py
