#!/usr/bin/env bash
# The plugin, stored requests and build scripts with the real compiler. Needs cargo, Debian's
# `capnproto libcapnp-dev`, and `script` (Debian: bsdutils).
set -euo pipefail
codegen=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$codegen/../target}
mkdir -p "$CARGO_TARGET_DIR"
CARGO_TARGET_DIR=$(cd "$CARGO_TARGET_DIR" && pwd)
cargo build --quiet --locked --manifest-path "$codegen/Cargo.toml"
bin=$CARGO_TARGET_DIR/debug/capnpc-rust-threads
PATH=$CARGO_TARGET_DIR/debug:$PATH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
  printf 'plugin.sh: %s\n' "$@" >&2
  exit 1
}

# fails TEXT COMMAND…: the command must fail, and say TEXT. What it says is kept in $work/said.
fails() {
  local text=$1
  shift
  ! "$@" >"$work/said" 2>&1 </dev/null || fail "did not fail: $*"
  grep -qF -- "$text" "$work/said" || fail "does not say \`$text\`: $*" "$(cat "$work/said")"
}

same() {
  diff -r "$@" >"$work/said" || fail "$1 and $2 differ:" "$(head -20 "$work/said")"
}

cd "$codegen/tests/schema"
options=(--no-standard-import -Ivendor)
schemas=(zoo-keeper.capnp sub/animal.capnp)

# The plugin, started by the compiler. The schemas lie in a subdirectory, and have a dash in their names.
mkdir "$work"/{direct,stored}
capnp compile "${options[@]}" -orust-threads:"$work/direct" "${schemas[@]}"
(cd "$work/direct" && find . -type f | LC_ALL=C sort) >"$work/names"
[ "$(tr '\n' ' ' <"$work/names")" = './sub/animal_capnp.rs ./zoo_keeper_capnp.rs ' ] ||
  fail "the plugin wrote:" "$(cat "$work/names")"

# A stored request gives the same code. That of the same schemas is the same each time.
"$bin" store "${options[@]}" -o "$work/1.request" "${schemas[@]}"
"$bin" store "${options[@]}" -o "$work/2.request" "${schemas[@]}"
cmp "$work/1.request" "$work/2.request"
(cd "$work/stored" && "$bin" <"$work/1.request")
same "$work/direct" "$work/stored"

# Positions in the source text, which newer compilers add to a request, make no difference. (The text form of a
# message cannot have pointers of any type, so there must be no default that is a struct.)
schema=$(dirname "$(dirname "$(command -v capnp)")")/include/capnp/schema.capnp
cp "$schema" "$work/older.capnp"
cp "$schema" "$work/newer.capnp"
grep -q 'startByte @34' "$schema" ||
  sed -i 's/^  struct NestedNode {/  startByte @34 :UInt32;\n  endByte @35 :UInt32;\n\n&/' "$work/newer.capnp"
capnp compile -o- sub/animal.capnp | capnp decode "$schema" CodeGeneratorRequest >"$work/older"
perl -pe 's/^ *displayNamePrefixLength = /startByte = 1000, endByte = 2000, $&/; s/(minor|micro) = \d+/$1 = 77/g' \
  "$work/older" >"$work/newer"
for age in older newer; do
  mkdir "$work/from-$age"
  capnp encode "$work/$age.capnp" CodeGeneratorRequest <"$work/$age" >"$work/$age.request"
  (cd "$work/from-$age" && "$bin" <"$work/$age.request")
done
! cmp -s "$work/older.request" "$work/newer.request" || fail 'no positions were added to the request'
same "$work/from-older" "$work/from-newer"

# The requests that are committed here are current.
"$bin" store --check "${options[@]}" -o stored.request "${schemas[@]}"
"$bin" store --check --no-standard-import --src-prefix=chain -o chain.request chain/top.capnp
(cd ../project/names && "$bin" store --check --src-prefix=../../schema/vendor/names --no-standard-import \
  -o people.request ../../schema/vendor/names/people.capnp)

# A request is out of date when a schema changes, and current again after the command that `--check` says.
cp -r . "$work/a copy"
cd "$work/a copy"
sed -i 's/legs @1 :UInt8 = 4/legs @1 :UInt8 = 6/' sub/animal.capnp
fails 'sub/animal_capnp.rs: the code differs' "$bin" store --check "${options[@]}" -o stored.request "${schemas[@]}"
eval "$(tail -1 "$work/said")"
"$bin" store --check "${options[@]}" -o stored.request "${schemas[@]}"
fails "store ${options[*]} -o 'not there' ${schemas[*]}" \
  "$bin" store "${options[@]}" --check -o 'not there' "${schemas[@]}"

# A schema with a mistake, a missing import, no compiler, and no request.
fails 'broken.capnp:4:13-20: error: Not defined: Missing' "$bin" store -o x broken.capnp
fails 'Import failed: /names/people.capnp' "$bin" store -o x "${schemas[@]}"
fails 'apt install capnproto' env PATH="$work" "$bin" store -o x "${schemas[@]}"
[ ! -e x ] || fail 'a request was stored in spite of an error'
fails 'usage: capnp compile -orust-threads' script -qec "$bin" /dev/null

# Build scripts.
cd "$codegen/tests/project"
cp "$codegen/../Cargo.lock" .
cargo run --quiet -p zoo
echo 'plugin.sh: passed'
