"""Builds the programs. Nothing is written outside the folders that builds are for."""

import json
import os
import shlex
import shutil
import subprocess

from .programs import Failure

PEERS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(os.path.dirname(PEERS))
SCHEMA = os.path.join(ROOT, "schema", "bench.capnp")
LIBRARIES = ["-lcapnp-rpc", "-lcapnp", "-lkj-async", "-lkj", "-lpthread"]


def subject():
    """The command that runs our own program, `examples/peer`."""
    return cargo(ROOT, "--example", "peer")


def peer(name, folder):
    """The command that runs the peer of this name, built in a folder of its own."""
    builders = {"cpp": cpp, "capnp-rpc": capnp_rpc, "bare": bare}
    if name not in builders:
        raise Failure(f"there is no peer `{name}`: there are {', '.join(builders)}")
    folder = os.path.abspath(folder or os.path.join(target(), "peers"))
    return builders[name](os.path.join(folder, name))


def cpp(folder):
    compiler = os.environ.get("CXX", "g++")
    needs("the C++ peer", "capnp", compiler)
    program = os.path.join(folder, "peer")
    source = os.path.join(PEERS, "cpp", "peer.c++")
    generated = os.path.join(folder, "bench.capnp.c++")
    flags = shlex.split(os.environ.get("CXXFLAGS", ""))
    libraries = shlex.split(os.environ.get("LDFLAGS", "")) + LIBRARIES
    compile_it = [compiler, "-O2", "-std=c++20", "-I" + folder, *flags, source, generated, "-o", program, *libraries]
    if is_current(program, compile_it, [source, SCHEMA, os.path.realpath(shutil.which("capnp"))]):
        return [program]
    os.makedirs(folder, exist_ok=True)
    run(["capnp", "compile", "--src-prefix=" + os.path.dirname(SCHEMA), "-oc++:" + folder, SCHEMA])
    run(compile_it)
    with open(program + ".command", "w") as kept:
        kept.write(shlex.join(compile_it))
    return [program]


def is_current(program, command, sources):
    """Whether the program was built by this command, from sources as they are."""
    try:
        with open(program + ".command") as kept:
            built = os.path.getmtime(program)
            return kept.read() == shlex.join(command) and all(os.path.getmtime(s) < built for s in sources)
    except OSError:
        return False


def capnp_rpc(folder):
    needs("the capnp-rpc peer", "capnp")
    return cargo(os.path.join(PEERS, "capnp-rpc"), "--locked", "--target-dir", folder)


def bare(folder):
    return cargo(os.path.join(PEERS, "bare"), "--locked", "--target-dir", folder)


def cargo(package, *options):
    """Builds a package's program, and gives the command that runs it."""
    needs("building", "cargo")
    manifest = os.path.join(package, "Cargo.toml")
    command = ["cargo", "build", "--release", "--quiet", "--manifest-path", manifest, *options]
    messages = run([*command, "--message-format", "json-render-diagnostics"], stdout=subprocess.PIPE)
    programs = [json.loads(line).get("executable") for line in messages.splitlines()]
    return [next(program for program in reversed(programs) if program)]


def target():
    """Where cargo builds the project."""
    command = ["cargo", "metadata", "--no-deps", "--format-version=1"]
    needs("building", "cargo")
    said = run([*command, "--manifest-path", os.path.join(ROOT, "Cargo.toml")], stdout=subprocess.PIPE)
    return json.loads(said)["target_directory"]


def needs(what, *tools):
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        raise Failure(f"{what} needs {' and '.join(missing)} (Debian: capnproto libcapnp-dev g++; cargo: rustup.rs)")


def run(command, **how):
    """Runs a step of a build, and gives what it printed if that is asked for."""
    done = subprocess.run(command, text=True, **how)
    if done.returncode:
        raise Failure(f"this failed: {shlex.join(command)}")
    return done.stdout
