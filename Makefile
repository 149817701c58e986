# Every target sets up what it needs in .venv; nothing is installed manually.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
COUNT ?= 1000000
ROUNDS ?=
SEED ?= 1

.DELETE_ON_ERROR:
.PHONY: help demo serve test test-fast faults week hostile attack advisories bench bench-queries bundle lint lock clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 15

demo: .venv/ready ## The whole system on this machine: phantoms, reports in a PACS, a worklist (ARGS=--exit: then stop)
	$(BIN)/lumbar demo $(ARGS)

serve: .venv/ready ## The embedded system for real use; settings in lumbar.toml or LUMBAR_* variables
	$(BIN)/lumbar up

test: .venv/dev ## All tests, with the servers they need, and coverage (ARGS goes to pytest)
	scripts/install-test-servers
	$(BIN)/python scripts/run-tests $(ARGS)

test-fast: .venv/dev ## The quick tests only, on SQLite (ARGS goes to pytest)
	scripts/install-test-servers
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest \
		-m "not slow and not serial and not postgresql" -n auto --dist loadfile $(ARGS)

faults: .venv/dev ## Every fault injection in full, an hour or two (ROUNDS=n of each, SEED=s, ARGS="--only receiver-kill")
	scripts/install-test-servers
	$(BIN)/python -m tests.faults --seed $(SEED) $(if $(ROUNDS),--rounds $(ROUNDS)) $(ARGS)

week: .venv/dev ## A compressed week of faults, 300 studies counted in Orthanc, 10 minutes (SEED=s, ARGS="--studies 50")
	scripts/install-test-servers
	$(BIN)/python -m tests.week --seed $(SEED) $(ARGS)

hostile: .venv/dev ## Every hostile input, then COUNT damaged messages (SEED=s)
	scripts/install-test-servers
	$(BIN)/python -m pytest tests/hostile
	$(BIN)/python -m tests.hostile.fuzzer --seed $(SEED) --count $(COUNT)

attack: .venv/dev ## Floods of page and receiver while images arrive, 10 minutes (SEED=s, ARGS="--only guesses")
	scripts/install-test-servers
	$(BIN)/python -m tests.attack --seed $(SEED) $(ARGS)

advisories: .venv/dev ## Locked packages with known vulnerabilities, from osv.dev (ARGS goes to pip-audit)
	$(BIN)/pip-audit --vulnerability-service osv --strict --disable-pip --require-hashes \
		-r locks/cpu.txt -r locks/gpu.txt -r locks/dev.txt $(ARGS)

bench: .venv/dev ## Processing time of a study, classifiers, receiving beside Orthanc and storescp
	scripts/install-test-servers
	$(BIN)/python -m bench.command_line
	$(BIN)/python -m bench.locator
	$(BIN)/python -m bench.classifiers
	$(BIN)/python -m bench.receiving

bench-queries: .venv/dev ## Response times of the pages' queries over a million studies (half an hour, 15 GB)
	scripts/install-test-servers
	$(BIN)/python -m bench.queries --studies 1000000 --sqlite-studies 10000 --keep build/bench-queries

bundle: .venv/dev ## Retrain the shipped weights, from phantoms to figures (two hours on two cores)
	[ -f build/phantoms/phantoms.json ] || rm -rf build/phantoms
	[ -d build/phantoms ] || $(BIN)/lumbar phantom build/phantoms --studies 720 --seed 5
	[ -f build/held-out/phantoms.json ] || rm -rf build/held-out
	[ -d build/held-out ] || $(BIN)/lumbar phantom build/held-out --studies 80 --held-out --seed 6
	$(BIN)/lumbar train build/phantoms --out bundles/phantom --work build/bundle --recipe cores --name phantom --version 1
	$(BIN)/lumbar evaluate build/phantoms --bundle bundles/phantom --out build/report --record held_out_patients
	$(BIN)/lumbar evaluate build/held-out --bundle bundles/phantom --part all --out build/report-held-out \
		--record held_out_scanners

lint: .venv/dev ## Run ruff, codespell, mypy and import-linter, and check the compose file
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python scripts/check-comprehensions db scp worker web commands lumbar
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

lock: ## Write new lock files after a change of pyproject.toml
	scripts/lock

clean: ## Remove the virtual environment
	rm -rf .venv

# The demo and the service need no developer tools; the tests and the linters do.
.venv/ready: locks/cpu.txt pyproject.toml
	scripts/install $(PYTHON) locks/cpu.txt
	touch $@

.venv/dev: locks/dev.txt pyproject.toml
	scripts/install $(PYTHON) locks/dev.txt
	touch .venv/ready $@
