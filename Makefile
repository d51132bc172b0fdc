# reproduce, quick and test each set up what they need: .venv, or the environment that is already active.
PYTHON ?= python3
ENVIRONMENT := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX),$(CURDIR)/.venv)
BIN := $(ENVIRONMENT)/bin
# one blank; unescaped it would make two targets of STAMP
BLANK := $() $()
STAMP := $(subst $(BLANK),\ ,$(ENVIRONMENT))/.cliperase-installed
export PATH := $(BIN):$(PATH)
# icons need no network; for another profile, DATA is the folder with its data sets, else they come from the hub
PROFILE ?= icons
# stages beside notebooks and manifests that nothing else needs
MORE_icons := 'contact_sheet@*'
MORE_paper := shards
TUNE_icons := guidance
export DATA
ifeq ($(PROFILE),icons)
export HF_HUB_OFFLINE := 1
else
export HF_HUB_OFFLINE ?= $(if $(DATA),1,0)
endif
export DVC_NO_ANALYTICS := 1
# photographs take 1.5 times as long on an AVX-512 processor that is held to AVX2, and they start from a file of weights
ifeq ($(PROFILE),cifar)
export ONEDNN_MAX_CPU_ISA ?= DEFAULT
export MKL_ENABLE_INSTRUCTIONS ?= AVX512
endif
include paper/environment.mk
export ATEN_CPU_CAPABILITY ONEDNN_MAX_CPU_ISA MKL_ENABLE_INSTRUCTIONS
export MALLOC_TRIM_THRESHOLD_ MALLOC_TOP_PAD_ MALLOC_MMAP_THRESHOLD_
export PYTHONWARNINGS := ignore::SyntaxWarning

.PHONY: reproduce quick test soak tune power benchmark setup bench appendix rehearsal

# the ledger and the README are made of two profiles: `-s` makes them from what there is of both
reproduce: setup
	dvc repro --glob 'notebook*@$(PROFILE)-*' 'manifest@$(PROFILE)*' $(MORE_$(PROFILE))
	dvc repro -s ledger readme
	@echo; echo "Notebooks: notebooks/    Tables and figures: figures/    Every number: metrics/$(PROFILE)/results.csv"

quick: setup
	dvc repro pretrain@icons retrain@icons-apple
	python -m paper.quick
	@echo; echo "First notebook (one concept, one seed): artifacts/quick/main_results.ipynb"

# several at once: a file of tests or a notebook per process, of one thread that does not wait by spinning
TOGETHER := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
test: export OMP_NUM_THREADS := 1
test: export OMP_WAIT_POLICY := PASSIVE
test: setup
	ruff check .
	ruff format --check .
	lint-imports --no-cache
	pyrefly check --python-interpreter-path "$(BIN)/python"
	pytest $(TOGETHER)
	CLIPERASE_COMPARE=1 pytest $(TOGETHER) --nbval notebooks -p no:cacheprovider

# the same properties on twenty times as many cases, damaged files by the thousand, and each command of test_kills.py
# killed twenty times; `python -m tests.robustness` makes docs/robustness.md of the record
SOAK ?= 20
soak: export OMP_NUM_THREADS := 1
soak: export OMP_WAIT_POLICY := PASSIVE
soak: setup
	CLIPERASE_SOAK=$(SOAK) pytest $(TOGETHER) --junitxml=artifacts/soak.xml tests/test_fuzz.py tests/test_kills.py \
		tests/test_faults.py tests/test_growth.py tests/test_parallel.py tests/test_losses.py tests/test_evaluate.py \
		tests/test_stream.py

tune: setup
	dvc repro --glob 'search@$(PROFILE)-*' $(TUNE_$(PROFILE))
	python -m paper.choices --profile $(PROFILE) --adopt

# which probes of the audit can tell a model that saw a concept from one that never did; a killed run goes on
power: setup
	dvc repro power
	dvc repro -s --glob 'notebook_audit@*' audit_pages ledger readme

# enter NAME into the benchmark: METHOD, a Python file, with SETTINGS, or UNLEARNED, a folder of models
benchmark: setup
	dvc repro pretrain@icons $(if $(SMALL),,pretrain@icons-1 pretrain@icons-2)
	python -m paper benchmark "$(NAME)" --data data/icons --models artifacts/icons/models $(if $(SMALL),--small) \
		$(if $(METHOD),--method "$(METHOD)") $(if $(SETTINGS),--settings "$(SETTINGS)") \
		$(if $(UNLEARNED),--unlearned "$(UNLEARNED)") --output "metrics/icons/benchmark/$(NAME)"

# all that the profile `paper` runs, two steps each, with stand-ins of its models and data
rehearsal: export CLIPERASE_REHEARSAL := 1
rehearsal: setup
	pytest -s tests/test_rehearsal.py

# what a step costs beside the bare one and the paper's plain loop; wants two free cores for a few minutes
bench: setup
	python -m benchmarks.bench

# notebooks and docs as pages to read offline
appendix: setup
	"$(BIN)/python" -m pip install --quiet --no-deps --require-hashes -r docs/site/requirements.lock
	python -m sphinx -q -W --keep-going -c docs/site . artifacts/appendix
	@echo "Open artifacts/appendix/docs/site/index.html"

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@"$(PYTHON)" -c "import sys; assert sys.version_info >= (3, 11, 5), sys.version" \
		|| { echo "cliperase needs Python 3.11.5 or newer; run make PYTHON=/path/to/python"; exit 2; }
	test -x "$(BIN)/python" || "$(PYTHON)" -m venv "$(ENVIRONMENT)"
	"$(BIN)/python" -m pip install --quiet --require-hashes -r requirements.lock
	"$(BIN)/python" -m pip install --quiet --no-deps --no-build-isolation --config-settings editable_mode=compat -e .
	@touch "$@"
