# Thin names over the real commands. The environment lives in .venv; nothing outside this folder is touched.
#   make reproduce            every table and figure at the mini scale, with a summary and a page to open
#   make smoke                the same workflow on a handful of samples, in minutes
#   make site                 the pages again, with the verdicts and the leaderboard where they have been made
#   make test                 the tests, the whole workflow at smoke scale among them
#   make test-cluster         the tests of several processes, of a real SLURM that they start, and three rounds of chaos
#   make published            tables, figures and pages of the published runs (SCALE=mini): nothing is trained
#   make restore              bring stored results back into a fresh clone (REMOTE=DIR: where they are)
#   make verify               every claim of both papers: PASS, FAIL or NOT RUN, with the numbers (SCALE=mini)
#   make chaos ROUNDS=100     kill, fill, cut and flip the smallest run a hundred times; goes on where it was stopped
#   make bench                time and memory of every method beside transformers' LLaVA (7B geometry on a GPU)
#   make plan SCALE=paper     what it would cost: jobs, GPU-hours, disk, downloads with licences; offline
#   make reproduce CORES=8 SCALE=mini-full

PY ?= python3
CORES ?= 2
SCALE ?= mini
REMOTE ?=
ARGS ?=
ROUNDS ?= 100
# uv does not read pip's variable for folders with wheels.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export PATH := $(CURDIR)/.venv/bin:$(PATH)

SNAKEMAKE = snakemake --cores $(CORES) $(ARGS)

.PHONY: help env plan reproduce published verify smoke site test test-cluster chaos bench lint restore store backbones lock clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -12

env: .venv/.ok

.venv/.ok: requirements.lock pyproject.toml
	$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PY=python3.11 ...")'
	$(PY) -m venv .venv
	.venv/bin/python -m pip install -q --disable-pip-version-check uv==0.13.8
	.venv/bin/uv pip install -q -p .venv/bin/python -r requirements.lock
	.venv/bin/uv pip install -q -p .venv/bin/python --no-deps -e .
	touch $@

reproduce: .venv/.ok
	$(SNAKEMAKE) --configfile config/scales/$(SCALE).yaml
	@echo "Tables and figures: open results/$(SCALE)/site/index.html"

# Of a scale that is published in part, the rows with all their seeds.
published: .venv/.ok
	visiontokens published unpack --config config/config.yaml config/scales/$(SCALE).yaml
	rows=$$(visiontokens published list --config config/config.yaml config/scales/$(SCALE).yaml) && \
	  $(SNAKEMAKE) --configfile config/scales/$(SCALE).yaml --config "experiments={only: [$$rows]}"
	@echo "Tables and figures: open results/$(SCALE)/site/index.html"

verify: .venv/.ok
	$(SNAKEMAKE) --configfile config/scales/$(SCALE).yaml -- verify
	@cat results/$(SCALE)/verify/ledger.txt
	@echo "With every number, interval and arithmetic: open results/$(SCALE)/verify/ledger.html"

plan: .venv/.ok
	visiontokens plan --config config/config.yaml config/scales/$(SCALE).yaml

smoke: .venv/.ok
	$(SNAKEMAKE) --configfile config/scales/smoke.yaml
	@echo "Tables and figures (of a smoke run: the numbers mean nothing): open results/smoke/site/index.html"

site: .venv/.ok
	$(SNAKEMAKE) --configfile config/scales/$(SCALE).yaml -- site
	@echo "Open results/$(SCALE)/site/index.html"

test: .venv/.ok
	OMP_NUM_THREADS=1 pytest -q -n $(CORES) --dist loadfile tests/unit tests/conformance tests/workflow tests/artifact

test-cluster: .venv/.ok
	OMP_NUM_THREADS=1 pytest -q tests/distributed tests/slurm tests/chaos

chaos: .venv/.ok
	python tests/chaos/driver.py --rounds $(ROUNDS) --folder .chaos

bench: .venv/.ok
	visiontokens bench --out results/bench --threads $(CORES)

lint: .venv/.ok
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow
	for scale in smoke mini mini-full mini-video; do snakemake --lint --configfile config/scales/$$scale.yaml || exit 1; done
	pytest -q tests/workflow -m "not slow" -k "drift or imports"

restore: .venv/.ok
	$(if $(REMOTE),dvc remote modify --local store url "$(abspath $(REMOTE))")
	dvc pull
	visiontokens provenance restore results/$(SCALE)/records.json
	snakemake -n --configfile config/scales/$(SCALE).yaml
	@echo "Restored: open results/$(SCALE)/site/index.html"
	@echo "Before changing anything, 'snakemake -- data' brings the tower's features back; then only what you change runs."

store: .venv/.ok
	$(if $(REMOTE),dvc remote modify --local store url "$(abspath $(REMOTE))")
	dvc commit -f
	dvc push

backbones: .venv/.ok
	$(SNAKEMAKE) backbones

lock: .venv/.ok
	uv lock
	(echo "torch==2.13.0"; uv export --frozen --extra dev --extra slurm --prune torch --no-emit-project --no-header -q) > requirements.lock
	(echo "torch==2.13.0"; uv export --frozen --extra dev --extra slurm --prune torch --no-emit-project --no-header --no-hashes -q) > requirements-pip.lock

clean:
	rm -rf .venv results/smoke data/world/smoke
