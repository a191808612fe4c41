#!/usr/bin/env bash
# Every calculator client against every calculator server: ours, the C++ library's and pycapnp's.
#   tests/interop/calculator.sh [PROGRAM]
# PROGRAM is our example, built before. Needs g++, capnproto, libcapnp-dev, and pycapnp for python3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
ours=${1:-target/release/examples/calculator}
here=tests/interop
build=target/interop
export PYTHONDONTWRITEBYTECODE=1

# What every client prints.
expected='literal 123
nested 101
pipelined 27 29
defined 28
direct 0.25
callback 1024
refused'

mkdir -p "$build"
capnp compile --src-prefix=schema "-oc++:$build" schema/calculator.capnp
for side in client server; do
  g++ -O1 -std=c++20 "-I$build" "$here/calculator-$side.c++" "$build/calculator.capnp.c++" \
    -o "$build/calculator-$side" -lcapnp-rpc -lcapnp -lkj-async -lkj -lpthread
done

implementations='ours c++ pycapnp'

# The command of an implementation ($1) in a role ($2), one word to a line.
command_of() {
  case $1 in
    ours) printf '%s\n' "$ours" ;;
    c++) printf '%s\n' "$build/calculator-$2" ;;
    pycapnp) printf '%s\n' python3 "$here/calculator_$2.py" ;;
  esac
}

pid=
stop_server() {
  if [ -n "$pid" ]; then
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    pid=
  fi
}
trap stop_server EXIT

passed=0 failed=0
for server in $implementations; do
  mapfile -t command < <(command_of "$server" server)
  exec {lines}< <(exec "${command[@]}" server 127.0.0.1:0)
  pid=$!
  word='' port=''
  read -r -t 60 -u "$lines" word port || true
  if [ "$word" != listening ] || ! [[ $port =~ ^[0-9]+$ ]]; then
    echo "$server server: expected \`listening PORT\`, got \`$word $port\`"
    exit 1
  fi
  for client in $implementations; do
    mapfile -t command < <(command_of "$client" client)
    status=0
    got=$(timeout 60 "${command[@]}" client "127.0.0.1:$port") || status=$?
    if [ "$status" = 0 ] && [ "$got" = "$expected" ]; then
      passed=$((passed + 1))
      echo "$client client -> $server server: ok"
    else
      failed=$((failed + 1))
      echo "$client client -> $server server: FAILED, exit status $status; expected (<) and got (>):"
      diff <(echo "$expected") <(echo "$got") || true
    fi
  done
  stop_server
  exec {lines}<&-
done
echo "calculator: $passed passed, $failed failed"
[ "$failed" = 0 ]
