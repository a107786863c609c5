# The front door: the same targets for people, hooks and CI. `make` lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
# more than two cores: tests wait for servers a third of their time
WORKERS ?= 3
CONTAINER ?= $(notdir $(shell command -v podman || command -v docker))
# podman's own format has no health check
IMAGE_FORMAT = $(if $(findstring podman,$(CONTAINER)),--format docker)
IMAGE_FLAGS ?=
IMAGES ?= churn-serve churn-train
EXTRAS ?= dev
PROFILE ?= local
# the addresses of the stores that `make production-up` started
ADDRESSES = $(if $(filter production,$(PROFILE)),set -a; . var/production/environment;)

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed  ## the environment, exactly as locked

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

run: install  ## the whole loop on real data: ingest, features, train, gates, package, serve, canary, report; PROFILE=production: on the stores below
	$(ADDRESSES) $(BIN)/churn run --profile $(PROFILE) $(ARGS)

production-up: install  ## PostgreSQL, Redis, S3, Kafka and MLflow as real servers on loopback; ARGS="redis kafka": only these
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[loopback]'
	$(BIN)/python -m deploy.loopback up $(ARGS)

production-down: install  ## stop exactly what production-up started; the data stay in var/production
	$(BIN)/python -m deploy.loopback down $(ARGS)

test: install  ## what must hold, in parallel: 12 to 15 minutes on two cores
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" $(ARGS)

test-fast: install  ## tests without servers and training, a minute and a half; tests/servers_and_training.txt lists the others
	$(BIN)/python -m pytest --fast -n $(WORKERS) -m "not slow" $(ARGS)

test-all: WORKERS = 2    # drills measure latencies
test-all: install  ## the slow proofs too
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

test-cluster: install  ## on the cluster that KUBECONFIG names, in namespaces of its own: docs/kubernetes.md
	$(BIN)/python -m pytest -m cluster -v -rs tests/cluster $(ARGS)

coverage: install  ## lines that `make test` runs, without those of programs that tests start: var/coverage/index.html; no goal
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow" --cov --cov-report=term:skip-covered --cov-report=html $(ARGS)

lint: install  ## style, types, and the order of the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python docs/rooms.py --check

bench: install  ## feature building at 0.07, 0.7 and 7 million transactions, beside pandas, outputs compared
	$(BIN)/python -m benchmarks.features $(ARGS)

bench-spark: install  ## feature building by DuckDB and by Spark at 7 and 70 million rows, outputs compared; ARGS="--rows 7000000"
	$(BIN)/python -m benchmarks.spark $(ARGS)

bench-ingest: install  ## ingest, an append of 1 % and features build: seconds and peak memory; ARGS=--rows 70000000
	$(BIN)/python -m benchmarks.ingest $(ARGS)

bench-table: install  ## a labelled table of 10,000 rows from the file to a promoted canary, in seconds
	$(BIN)/python -m benchmarks.table_run $(ARGS)

bench-fit: install  ## the fit beside a bare PyTorch loop; memory and time an epoch up to 2 million rows
	$(BIN)/python -m benchmarks.fit $(ARGS)

bench-quality: install  ## ours by config alone beside tuned rivals on logs and tables; ARGS=--quick, --data cdnow
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.quality $(ARGS)

bench-pod: install  ## what Envoy in a pod costs, on the workspace of `make run`; ARGS="--rounds 9"
	PYTHONPATH=.:tests $(BIN)/python -m benchmarks.pod $(ARGS)

bench-serving: install var/bench/serving-venv/.installed  ## our server and its rivals, in turns; ARGS="--only kserve", "--against COMMIT", --quick, --overload
	$(BIN)/python -m benchmarks.serving $(ARGS)

var/bench/serving-venv/.installed: benchmarks/servers/requirements.txt
	$(PYTHON) -m venv var/bench/serving-venv
	# a rival that does not install is named in the table, and the others are measured
	-var/bench/serving-venv/bin/python -m pip install --quiet --requirement $<
	touch $@

bench-online: install  ## the server's feature read beside Feast's own, on SQLite and Redis
	$(BIN)/python -m benchmarks.online_read $(ARGS)

bench-monitoring: install  ## false pages in 2,000 null histories, planted faults found, and 10 million predictions
	$(BIN)/python -m benchmarks.monitoring.nulls
	$(BIN)/python -m benchmarks.monitoring.faults
	$(BIN)/python -m benchmarks.monitoring.scale
	$(BIN)/python -m benchmarks.monitoring.outcomes

bench-score: install  ## batch scoring: customers a second on one core, memory at 1, 3 and 10 million rows
	$(BIN)/python -m benchmarks.score $(ARGS)

bench-rollout: install  ## 10,000 simulated rollouts beside thresholds, mSPRT, Kayenta; goes on where it stopped; ARGS="--only plan"
	$(BIN)/python -m benchmarks.rollout $(ARGS)

bench-stream: install  ## purchases through Kafka: equality with the batch build, lag at 1,000 a second, memory over 1 million
	PYTHONPATH=.:tests $(BIN)/python -m benchmarks.stream $(ARGS)

soak: install  ## an hour of load, retrainings, rollouts, crashes of stores and rotations together; ARGS="--minutes 240"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[loopback]'
	PYTHONPATH=.:tests $(BIN)/python -m benchmarks.soak $(ARGS)

images:  ## churn-serve and churn-train with podman or docker; IMAGES=churn-serve: one of them; IMAGE_FLAGS go to the build
	set -e; for image in $(IMAGES); do \
	  $(CONTAINER) build $(IMAGE_FORMAT) $(IMAGE_FLAGS) --tag $$image --file Dockerfile.$${image#churn-} .; done

bench-replay: install  ## policies of retraining side by side: made histories, CDNOW, the Complete Journey; ARGS="--only cdnow", --quick
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.replay $(ARGS)

bench-history: install  ## what else a log's recipe could read: BG/NBD features, the purchases themselves
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.history $(ARGS)

.PHONY: airflow-env kubeflow-env graph lock-orchestrators
airflow-env: var/orchestrators/airflow/.installed  ## an environment for Airflow, apart from ours: its packages exclude some of ours
kubeflow-env: var/orchestrators/kubeflow/.installed  ## the same for Kubeflow Pipelines

var/orchestrators/%/.installed: pipelines/%/requirements.txt pipelines/%/constraints.txt
	$(PYTHON) -m venv var/orchestrators/$*
	var/orchestrators/$*/bin/python -m pip install --quiet --constraint pipelines/$*/constraints.txt --requirement $<
	touch $@

graph: install kubeflow-env  ## pipelines/graph.json from the steps, and Kubeflow's YAML from it
	$(BIN)/churn steps list --json > pipelines/graph.json
	var/orchestrators/kubeflow/bin/python pipelines/kubeflow/churn_pipelines.py

lock-orchestrators:  ## write the constraints.txt of Airflow and Kubeflow anew
	set -e; for one in airflow kubeflow; do rm -rf var/lock; $(PYTHON) -m venv var/lock; \
	  var/lock/bin/python -m pip install --quiet --requirement pipelines/$$one/requirements.txt; \
	  { echo "# Every package of the environment for $$one, at the version that is tested. Made by \`make lock-orchestrators\`."; \
	    var/lock/bin/python -m pip freeze; } > pipelines/$$one/constraints.txt; rm -rf var/lock; done

docs: install  ## the site of the documents in var/site; a warning or a broken link fails
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	# Material for MkDocs is maintained until 2027-05-05; the variable silences its notice on each build
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

lock:  ## write constraints.txt anew from what pip resolves today
	rm -rf var/lock
	$(PYTHON) -m venv var/lock
	var/lock/bin/python -m pip install --quiet --editable '.[dev,docs,bench,postgres,loopback,excel,otel,dvc,spark]'
	{ echo '# Every package at the version that is tested. Made by `make lock`; do not edit.'; \
	  var/lock/bin/python -m pip freeze --exclude-editable | sed -E 's/\+cpu$$//; s/^torch @ .*/torch==2.13.0/'; } > constraints.txt
	rm -rf var/lock

clean:  ## remove what runs have made (var/); the environment stays
	rm -rf var build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

include deploy/deploy.mk

.PHONY: help install run test test-fast test-all test-cluster coverage lint bench bench-ingest bench-table bench-fit bench-quality bench-history bench-online bench-serving bench-pod bench-score bench-monitoring bench-replay bench-rollout images docs lock clean production-up production-down bench-stream soak bench-spark
.DEFAULT_GOAL := help
