# The doors. Each needs only git, a C compiler and rustup's cargo; what else the build needs is found or fetched here.
#
#   make demo    simulated engine + weir + load, in this terminal
#   make test    every test that needs no network, no GPU and no other service
#   make realtime  the tests that hold real time against bounds, one at a time: on a machine that does nothing else
#   make check   format, lints, docs, floors, licences, dependencies without a use
#   make chaos   cancels, drains, reloads, faults, slow clients and stamps at length, half an hour (CHAOS="reload stamps" chooses)
#   make bench   benches/
#   make rehearse  every scenario of tests/data/scenarios, in virtual time; REHEARSE=--page prints tables
#   make rivals  the overloads under every policy that control knows, as a table of goodputs
#   make e2e     against real parts: llama.cpp's server, client libraries, Prometheus, Chromium, and what deploy/ is written for; it fetches them itself
#   make e2e-clients  load clients (AIPerf, vLLM's bench, GuideLLM) through weir; fetches 8 GB
#   make ship    the stripped release binary into dist/, the same bytes wherever it is built; make reproduce builds it twice
#   make sbom    what is in it: an SBOM and the texts of the licences, into dist/
#   make fuzz    the fuzz targets, one minute each (FUZZ_SECONDS)

CARGO ?= cargo
FUZZ_SECONDS ?= 60
OVERLOADS = $(addprefix tests/data/scenarios/hold_,cold3x.toml step2x.toml flash10.toml sust12.toml diurnal.toml mixshift.toml \
  capdrop.toml burst13.toml)
CARGO_TARGET_DIR ?= target
FUZZ_HOST = $(shell rustc -vV | sed -n 's/^host: //p')
# What cargo-fuzz passes; so it need not be installed, nor a nightly compiler.
FUZZ_FLAGS = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table --cfg fuzzing -Ccodegen-units=1
# Programs that pip and rustup put into the home directory are found without a new login.
export PATH := $(shell python3 -m site --user-base 2>/dev/null || echo $(HOME)/.local)/bin:$(HOME)/.cargo/bin:$(PATH)

.PHONY: metric-table demo test realtime check chaos bench rehearse rivals e2e e2e-clients fuzz build ship reproduce sbom cmake

# A profile of its own: a release is optimised for minutes, and a demonstration does not need it.
demo: cmake
	$(CARGO) build --profile demo --locked
	$(CARGO_TARGET_DIR)/demo/weir demo $(DEMO_FLAGS)

build: cmake
	$(CARGO) build --release --locked

# cargo-nextest shows more when it is there; documentation examples run in either case.
test: cmake
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  set -x; $(CARGO) nextest run --locked --no-fail-fast && $(CARGO) test --locked --doc; \
	else \
	  set -x; $(CARGO) test --locked --no-fail-fast; \
	fi
	@command -v promtool >/dev/null 2>&1 || echo "make test: SKIPPED promtool_finds_nothing_to_say, promtool is not installed (apt-get install prometheus)"

realtime: cmake
	$(CARGO) test --locked --test realtime -- --test-threads=1

# --all-targets leaves out what has `test = false`.
check: cmake
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --test realtime --test chaos -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items
	$(CARGO) test --locked --test it layering
	python3 dashboards/make.py --check
	python3 deploy/make.py --check
	@if command -v promtool >/dev/null 2>&1; then promtool check rules dashboards/rules/weir-rules.yaml && promtool test rules dashboards/rules/weir-rules_test.yaml; \
	else echo "make check: SKIPPED the tests of the rules, promtool is not installed (apt-get install prometheus)"; fi
	deploy/third_party.py --check
	.ci/deny
	@PATH="$(abspath $(CARGO_TARGET_DIR))/tools/bin:$$PATH"; command -v cargo-machete >/dev/null 2>&1 \
	  || $(CARGO) install --locked --quiet --root $(CARGO_TARGET_DIR)/tools cargo-machete; \
	  cargo machete

chaos: cmake
	$(CARGO) test --locked --test chaos -- $(CHAOS)

bench: cmake
	$(CARGO) bench --locked

# docs/operate/metrics.md, from the registry.
metric-table: cmake
	WEIR_WRITE_METRIC_TABLE=1 $(CARGO) test --locked --test it the_page_is_what_the_registry_says

# E2E="sdks prometheus" runs these parts alone.
rehearse: build
	$(CARGO_TARGET_DIR)/release/weir rehearse $(REHEARSE) tests/data/scenarios

rivals: build
	$(CARGO_TARGET_DIR)/release/weir rehearse --rivals $(RIVALS) $(OVERLOADS)

e2e: build
	WEIR=$(CARGO_TARGET_DIR)/release/weir E2E_DIR=$(CARGO_TARGET_DIR)/e2e tests/real/e2e.sh $(E2E)

# CLIENTS="aiperf --direct" narrows it; see tests/real/clients.py.
e2e-clients: build
	WEIR=$(CARGO_TARGET_DIR)/release/weir E2E_DIR=$(CARGO_TARGET_DIR)/e2e tests/real/clients.sh $(CLIENTS)
	WEIR=$(CARGO_TARGET_DIR)/release/weir E2E_DIR=$(CARGO_TARGET_DIR)/e2e tests/real/clients.sh --cross vllm

fuzz: cmake
	@ls fuzz/fuzz_targets >/dev/null 2>&1 || { echo "make fuzz: there is no fuzz target"; exit 1; }
	@cd fuzz && RUSTC_BOOTSTRAP=1 RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --release --bins --target $(FUZZ_HOST) --target-dir target
	@for target in fuzz/fuzz_targets/*.rs; do \
	  name=$$(basename $$target .rs); mkdir -p fuzz/corpus/$$name fuzz/artifacts/$$name; \
	  fuzz/target/$(FUZZ_HOST)/release/$$name -max_total_time=$(FUZZ_SECONDS) \
	    -artifact_prefix=fuzz/artifacts/$$name/ fuzz/corpus/$$name || exit 1; \
	done

ship: cmake
	deploy/release.sh dist/weir

reproduce: cmake
	deploy/release.sh --twice dist/weir

sbom: cmake
	@mkdir -p dist
	@PATH="$(abspath $(CARGO_TARGET_DIR))/tools/bin:$$PATH"; cargo cyclonedx --version >/dev/null 2>&1 \
	  || $(CARGO) install --locked --quiet --root $(CARGO_TARGET_DIR)/tools cargo-cyclonedx; \
	  SOURCE_DATE_EPOCH=0 cargo cyclonedx --format json --spec-version 1.5 --no-build-deps --target x86_64-unknown-linux-gnu --override-filename weir.cdx
	mv weir.cdx.json dist/
	deploy/third_party.py --texts dist/licences.txt

# zlib-ng, below pingora, is built with cmake.
cmake:
	@command -v cmake >/dev/null 2>&1 && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends cmake; \
	elif command -v brew >/dev/null 2>&1; then \
	  HOMEBREW_NO_AUTO_UPDATE=1 brew install cmake; \
	elif command -v python3 >/dev/null 2>&1; then \
	  python3 -m pip install --user --quiet --break-system-packages cmake 2>/dev/null \
	    || python3 -m pip install --user --quiet cmake; \
	fi >&2; \
	command -v cmake >/dev/null 2>&1 \
	  || { echo "The build needs cmake, and it could not be installed here: run 'sudo apt-get install cmake' (Debian, Ubuntu) or 'brew install cmake' (macOS)." >&2; exit 1; }
