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

.PHONY: bench
bench: ## oncelog beside its peers, half an hour; results into bench/results
	GOWORK=off go -C bench/peers run . -out ../results

.PHONY: bench-own
bench-own: ## the benchmarks of our own packages, about ten minutes
	go test ./bench -run '^$$' -bench 'Commit|Lone' -benchtime 20x
	go test ./bench -run '^$$' -bench Lookup -large
	go test ./bench -run '^$$' -bench '^BenchmarkDo$$'
	go test ./bench -run '^$$' -bench 'Batch|Open|Snapshot|Compact|Steady|Beside|Collector' -benchtime 5x

.PHONY: fuzz
fuzz: ## look for bytes that a decoder takes wrongly, a minute each
	go test ./fuzz/decoders -run Each -count=1 -v -decoders.each=1m -timeout 2h
	go -C fuzz/httpsfv test -run '^$$' -fuzz FuzzKey -fuzztime 1m

.PHONY: crash
crash: ## kills, power cuts, crash states, lying disks and failing calls, an hour or two (root for the disks)
	go test ./fuzz -count=1 -v -timeout 2h -crash.rounds=300
	go test ./fuzz/pattern -count=1 -v -timeout 1h -pattern.kills=300
	go test ./fuzz/crash -count=1 -v -timeout 4h -artifacts -outputdir /tmp -crash.states=200000 -crash.recoveries=10000
	go test ./fuzz/owners -count=1 -v -timeout 1h -owners.rounds=300
	go test ./fuzz/calls -count=1 -v -timeout 3h -calls.all
	go -C fuzz/lying test -count=1 -v -timeout 3h . -lying.cuts=5000

.PHONY: soak
soak: ## the long form of every rung, a day or more (root)
	go test ./fuzz/decoders -run Each -count=1 -v -decoders.each=1h -timeout 48h
	go test ./fuzz -count=1 -v -timeout 48h -crash.rounds=10000
	go test ./fuzz/pattern -count=1 -v -timeout 12h -pattern.kills=10000
	go test ./fuzz/crash -count=1 -v -timeout 24h -artifacts -outputdir /tmp -crash.states=1000000 -crash.recoveries=50000
	go test ./fuzz/owners -count=1 -v -timeout 12h -owners.rounds=1000
	go test ./fuzz/memory -count=1 -v -timeout 2h -memory.large
	go test ./fuzz/calls -count=1 -v -timeout 3h -calls.all
	go test ./fuzz/rot -count=1 -v -timeout 12h -rot.all
	go test ./cmd/oncelog -count=1 -v -timeout 1h -run ProxyKilled -proxy.kills=500
	go test . -run 'TestModel$$' -timeout 0 -rapid.checks=100000
	go -C fuzz/lying test -count=1 -v -timeout 24h . -lying.cuts=50000
	go -C fuzz/linear test . -run 'Linearizable$$' -timeout 0 -artifacts -linear.histories=1000 -linear.operations=2000 -linear.lives=8

.PHONY: defences
defences: ## take out one defence at a time; each must turn a test red, ten minutes
	GOWORK=off go run ./fuzz/defences

.PHONY: coverage
coverage: ## branches of scanner, recovery, snapshots and compaction that no test reaches, a quarter of an hour
	GOWORK=off go run ./fuzz/coverage -measure $$(mktemp -d)

.PHONY: demo
demo: ## dedup on the sample
	go run ./cmd/oncelog dedup --dir $$(mktemp -d)/keys --field id < cmd/oncelog/testdata/orders.jsonl
