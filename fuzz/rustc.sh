#!/bin/sh
# Compiles Podium's own crates so that libFuzzer sees their branches, and all others as ever: `RUSTC_WRAPPER` of the command in
# Cargo.toml. Any compiler will do, not only a nightly one.
rustc=$1
shift
case "$CARGO_PKG_NAME" in
podium-*)
    exec "$rustc" "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions=on --cfg fuzzing
    ;;
*) exec "$rustc" "$@" ;;
esac
