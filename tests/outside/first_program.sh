#!/usr/bin/env bash
# Follows the first page of the guide from its own text, as a new user would: in a folder of its own, outside
# any workspace, first with `capnp`, then from a stored request. Needs cargo and Debian's `capnproto`.
#
# The crates are not those of the registry but those of this checkout. Nothing else is added to what the page
# says. In the end it looks that this user's build has none of the hooks of the crate's own tests.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
page=$root/guide/first_program.md
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}

fail() {
  printf 'first_program.sh: %s\n' "$@" >&2
  exit 1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/greeting/src" "$work/greeting/schema"
cd "$work/greeting"

# block NAME N: the N-th block of the page that stands under a line that is just NAME in backticks and a colon.
block() {
  awk -v name="\`$1\`:" -v wanted="$2" '
    $0 == name { named = 1; next }
    /^```/ && inside { inside = 0; next }
    /^```/ && named { named = 0; if (++seen == wanted) inside = 1; next }
    inside { print }
  ' "$page" | grep . -A100000 || fail "the page has no block $2 for $1"
}

# run TEXT: the program prints what the page says.
run() {
  local said
  said=$(cargo run --quiet --config "patch.crates-io.capnp-threads.path='$root'" \
    --config "patch.crates-io.capnpc-threads.path='$root/codegen'")
  [ "$said" = "$1" ] || fail "it printed: $said"
}

for file in Cargo.toml schema/greeting.capnp build.rs src/main.rs; do
  block "$file" 1 >"$file"
done
# The same versions as those of the checkout, so that nothing else has to be fetched.
cp "$root/Cargo.lock" .
expected=$(awk '/^```text/ { inside = 1; next } /^```/ { inside = 0 } inside' "$page")
run "$expected"

# Without `capnp`: the commands of the page, and its second build script.
cargo build --quiet --manifest-path "$root/codegen/Cargo.toml"
store=$(sed -n 's/^capnpc-rust-threads //p' "$page")
PATH=$CARGO_TARGET_DIR/debug:$PATH
# shellcheck disable=SC2086
capnpc-rust-threads $store
# shellcheck disable=SC2086
capnpc-rust-threads ${store/store/store --check}
block build.rs 2 >build.rs
mkdir -p "$work/bin"
printf '#!/bin/sh\nexit 1\n' >"$work/bin/capnp"
chmod +x "$work/bin/capnp"
PATH=$work/bin:$PATH run "$expected"

# refused CODE ERROR: this user's build does not compile CODE, for that reason.
refused() {
  local said
  echo "fn main() { $1; }" >src/main.rs
  said=$(cargo check --quiet --message-format short --config "patch.crates-io.capnp-threads.path='$root'" \
    --config "patch.crates-io.capnpc-threads.path='$root/codegen'" 2>&1) && fail "a user's build has \`$1\`"
  grep -qF "$2" <<<"$said" || fail "\`$1\` does not fail with \"$2\" but:" "$said"
}

# What is for tests of the crate alone is not in the build of a user, who does not name the feature `test-util`.
refused 'use capnp_threads::testing as _' 'no `testing` in the root'
refused 'use capnp_threads::generated as _' 'module `generated` is private'
refused 'capnp_threads::Pool::manual()' 'no function or associated item named `manual`'
echo 'first_program.sh: passed'
