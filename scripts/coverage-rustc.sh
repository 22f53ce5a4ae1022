#!/bin/sh
# What cargo calls in the place of rustc for the crates of this workspace alone, so that they count what of them runs. Branches are
# counted by an option that rustc calls unstable; counters have to be where a file can be put under them (see scripts/coverage.sh).
RUSTC_BOOTSTRAP=1 exec "$@" -Cinstrument-coverage -Zcoverage-options=branch -Cllvm-args=-runtime-counter-relocation
