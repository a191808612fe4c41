#!/bin/sh
# Renews what is committed of the `capnp` tool's work on our schemas. Needs cargo and the `capnp` tool.
#
#   schema/generate.sh           writes *_capnp.rs into the folders below, and the stored requests
#   schema/generate.sh --check   changes nothing; fails if something of that is out of date
#
# Code is committed that the crate's users would need a generator to build (src), and that readers look at (examples,
# guide). The packages of the tests generate theirs in their build scripts, from `schema/stored.request`: what the
# `capnp` tool made of the schemas. A request is current if the same code comes of it as of the schemas.
set -eu

usage() {
    echo "usage: schema/generate.sh [--check]" >&2
    exit 2
}

folders="src/generated examples/generated guide/generated"

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
check=false
case $# in
    0) ;;
    1) [ "$1" = --check ] && check=true || usage ;;
    *) usage ;;
esac

command -v capnp >/dev/null || {
    echo "generate.sh: the capnp tool is not installed (Debian: apt install capnproto)" >&2
    exit 2
}

out=$root
if $check; then
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
fi

codegen() {
    cargo run --quiet --locked --manifest-path "$root/codegen/Cargo.toml" "$@"
}

# stored PACKAGE OPTION...: stores the request of the schemas of a package of the tests, or checks the stored one.
stored() (
    cd "$root/tests/$1"
    shift
    $check && set -- --check "$@"
    codegen --bin capnpc-rust-threads -- store "$@" --src-prefix=schema -o schema/stored.request schema/*.capnp
)

codegen --example generate -- "$root" "$out"
if ! $check; then
    stored imported
    stored typed --import-path=../imported/schema
    exit
fi

current=true
stored imported || current=false
stored typed --import-path=../imported/schema || current=false
for folder in $folders; do
    for name in $(cd "$root" && ls "$folder"/*_capnp.rs; cd "$out" && ls "$folder"/*_capnp.rs); do
        if ! cmp -s "$out/$name" "$root/$name"; then
            echo "$name"
        fi
    done
done | sort -u >"$out/stale"
if [ -s "$out/stale" ]; then
    current=false
    echo "generate.sh: these files do not match the schemas:" >&2
    sed 's/^/  /' "$out/stale" >&2
fi
if ! $current; then
    echo "generate.sh: run schema/generate.sh and commit the result" >&2
    exit 1
fi
echo "generate.sh: the committed code and the stored requests are up to date"
