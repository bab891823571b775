#!/usr/bin/env bash
# Builds the binary that is shipped: stripped, and the same bytes wherever the source and the crates lie.
#
# usage: release.sh OUT            builds this tree into the file OUT
#        release.sh --twice OUT    builds what is committed in two directories of their own and compares; some minutes
#
# Same bytes are promised for the same source, compiler, C compiler, linker and cmake. WEIR_REVISION names the source where there is no
# git. What is left of the machine in a build are paths, in panics and in C's assertions; here they are given other names.
set -euo pipefail
cd "$(dirname "$0")/.."

# build SOURCE TARGET OUT
build() {
  local cargo_home=${CARGO_HOME:-$HOME/.cargo}
  local maps=("$1=/weir" "$2=/target" "$cargo_home=/cargo")
  (
    cd "$1"
    RUSTFLAGS="${maps[*]/#/--remap-path-prefix=}" CFLAGS="${maps[*]/#/-ffile-prefix-map=}" CARGO_TARGET_DIR=$2 CARGO_INCREMENTAL=0 \
      SOURCE_DATE_EPOCH=0 cargo build --release --locked --bin weir
  )
  mkdir -p "$(dirname "$3")"
  strip --strip-all -o "$3" "$2/release/weir"
}

if [ "${1:-}" != --twice ]; then
  build "$PWD" "$PWD/target/ship" "$(realpath -m "$1")"
  exit
fi

out=$(realpath -m "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export WEIR_REVISION=${WEIR_REVISION:-$(git rev-parse --short=12 HEAD)}
# Names of different lengths: what depends on a path would differ in size too.
for name in a another-directory; do
  mkdir -p "$work/$name/source"
  git archive HEAD | tar -x -C "$work/$name/source"
  build "$work/$name/source" "$work/$name/target" "$work/$name/weir"
  rm -rf "$work/$name/target"
  sha256sum "$work/$name/weir"
done
cmp "$work/a/weir" "$work/another-directory/weir" && echo "two builds, one hash"
mkdir -p "$(dirname "$out")"
mv "$work/a/weir" "$out"
