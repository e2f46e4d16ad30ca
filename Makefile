.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: quick
quick: ## what must be green before each commit, two minutes
	.ci/run quick

.PHONY: ci
ci: ## everything, fifteen minutes
	.ci/run

.PHONY: test
test: ## the tests
	go test ./...

.PHONY: race
race: ## the tests under the race detector, in random order
	go test -race -shuffle=on ./...

.PHONY: crash
crash: ## kills, power cuts and crash states, the long form (root for the power cuts)
	go test ./fuzz -run 'Kill|PowerCut' -count=1 -v -crash.rounds=300
	go test ./fuzz/pattern -count=1 -v -pattern.kills=300
	go test ./fuzz/crash -count=1 -v -timeout 2h -crash.states=200000 -crash.recoveries=2000

.PHONY: bench
bench: ## the benchmarks, about ten minutes
	go test ./bench -run '^$$' -bench 'Commit|Lone' -benchtime 20x
	go test ./bench -run '^$$' -bench Lookup -large

.PHONY: fuzz
fuzz: ## look for bytes that a decoder takes wrongly, one minute each
	go test ./record -run '^$$' -fuzz FuzzParse -fuzztime 1m

.PHONY: demo
demo: ## dedup on the sample
	go run ./cmd/oncelog dedup --dir $$(mktemp -d)/keys --field id < cmd/oncelog/testdata/orders.jsonl
