#!/bin/sh
# Regenerates the Rust code that is committed for our schemas. Needs cargo and the `capnp` tool.
#
#   schema/generate.sh           writes *_capnp.rs into the folders below
#   schema/generate.sh --check   changes nothing; fails if the committed code is out of date
set -eu

usage() {
    echo "usage: schema/generate.sh [--check]" >&2
    exit 2
}

folders="src/generated examples/generated guide/generated tests/imported/src/generated tests/typed/generated"

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

cargo run --quiet --locked --manifest-path "$root/codegen/Cargo.toml" --example generate -- "$root" "$out"

if $check; then
    for folder in $folders; do
        for name in $(cd "$root" && ls "$folder"/*_capnp.rs; cd "$out" && ls "$folder"/*_capnp.rs); do
            if ! cmp -s "$out/$name" "$root/$name"; then
                echo "$name"
            fi
        done
    done | sort -u >"$out/stale"
    if [ -s "$out/stale" ]; then
        echo "generate.sh: these files do not match the schemas:" >&2
        sed 's/^/  /' "$out/stale" >&2
        echo "generate.sh: run schema/generate.sh and commit the result" >&2
        exit 1
    fi
    echo "generate.sh: the committed code is up to date"
fi
