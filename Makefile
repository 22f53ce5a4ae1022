# The two goals that a newcomer needs are `demo` and `test`; both install what is missing (on Debian 12, with sudo when not root).
.PHONY: demo demo-stop test agent packages reproducible deny coverage lint references pictures book bench bench-micro bench-growth scale soak fuzz chaos clean

# Two real containers, a virtual machine where QEMU is there, miharud, and u1's figures twice; Ctrl-C or `make demo-stop` cleans up.
demo:
	@scripts/demo.sh start

demo-stop:
	@scripts/demo.sh stop

# Everything: lints, unit tests, live tests against real runtimes. The last line counts passed, failed and skipped.
test:
	@scripts/test.sh

# What a scrape costs on 10 to 500 real containers, beside the floor and beside what others use; docs/explanation/performance.md gets the tables.
bench:
	@scripts/bench.sh

# The guest agent as it is installed in virtual machines: one static program, target/x86_64-unknown-linux-gnu/release/miharu-agent.
agent:
	@scripts/release.sh --agent $${CARGO_TARGET_DIR:-target}

# The Debian packages miharu and miharu-agent, in target/packages, from a release build of their own. The same tree gives the
# same bytes. Wants debhelper and jq.
packages:
	@scripts/packages.sh

# Whether the programs of the last commit are the same when they are built twice, elsewhere: two release builds, twenty minutes on
# two cores. `scripts/reproducible.sh --agent` builds only the agent.
reproducible:
	@scripts/reproducible.sh

# Licences, versions and sources of what is depended on, against deny.toml, and known defects where their database can be reached.
deny:
	@scripts/setup.sh deny
	@scripts/deny.sh

# Which lines and branches the tests run, by crate: target/coverage/report.md. Builds everything anew and runs nearly all that `test` runs.
coverage:
	@scripts/coverage.sh

# What `test` starts with, for the time between two edits.
lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

# How costs grow with containers, scrapers, foreign processes, nested cgroups and slow disks, and what many hosts cost a
# Prometheus: about ten minutes. `scripts/growth.sh SCENARIO… [--quick]` measures some of it.
bench-growth:
	@scripts/growth.sh

# A cluster of 200 members on one etcd and one Prometheus, all on this machine; docs/explanation/scale.md gets the table. Seven
# minutes and at most 7 GB of memory; `scripts/scale.sh --members 50 --instances 20` wants less, and `--quick` tries it in two minutes.
scale:
	@scripts/scale.sh

# Two hours of scrapes while containers come and go, machines pause, listeners move and certificates change: what miharud holds has
# to stay as it is. `scripts/soak.sh --minutes 30` is shorter; docs/explanation/reliability.md has a series.
soak:
	@scripts/soak.sh

# Every parser under libFuzzer, an hour each: `scripts/fuzz.sh mounts agent --seconds 600` is shorter. Wants a C++ compiler.
fuzz:
	@scripts/fuzz.sh

# The long forms of what `make test` does in seconds: SIGKILL at hundreds of random moments, thousands of instances at once, a
# daemon that stands still. `scripts/chaos.sh crowd` is one of them.
chaos:
	@scripts/chaos.sh

# Every parser and the encoder alone, in time and in instructions. Fails where one takes 5 % more instructions than
# docs/explanation/performance/instructions.json says; `cargo run --release -p miharu-bench -- --bless` writes that file. Wants valgrind.
bench-micro:
	cargo bench -q --locked -p miharu-bench --bench micro -- --quiet
	cargo run -q --release --locked -p miharu-bench

# What of docs/reference/ is made from the code's own lists; tests fail while a page says something else.
references:
	UPDATE_EXPECT=1 cargo test -q --locked -p miharu-metrics --test docs the_page
	UPDATE_EXPECT=1 cargo test -q --locked -p miharu-cli the_reference

# The pictures of the book, target/pictures, from a live run; none is kept in the repository.
pictures:
	@scripts/pictures.sh

# The documentation as a book, target/book/index.html; it can be read without a network.
book:
	@scripts/book.sh

clean: demo-stop
	cargo clean
