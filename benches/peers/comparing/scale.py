"""What many connections, questions and exports cost. Only the processor time of idle-like connections is compared with
another implementation's."""

import math
import statistics
import time

from .programs import Idle, Server, allow_open_files, client

# The busy work: so many calls of 16 bytes, 64 at a time.
CALLS, WINDOW, BYTES = 200000, 64, 16
# Calls for one figure of how cost grows.
GROWTH_CALLS = 20000
# Idle connections of one server, and what they may cost it.
IDLE, IDLE_KIB, IDLE_THREADS = 10000, 16, 100
# Connections that make a call a second each, and for how many seconds.
PACED, PACED_SECONDS = 1000, 10
# Within this time a server has given back what connections had that are gone.
GIVEN_BACK_SECONDS, GIVEN_BACK_KIB = 10, 1
HELD = [10, 1000, 100000]


def run(programs, options):
    """Gives the figures, and whether all bounds hold (with --quick, where figures mean nothing, that all ran)."""
    subject = programs["subject"]
    many = IDLE // 10 if options.quick else IDLE
    allow_open_files(4 * many + 1000)
    findings = {"idle": idle(subject, many), "beside": beside_idle(subject, many, options)}
    if "capnp-rpc" in programs:
        findings["paced"] = paced(subject, programs["capnp-rpc"], options)
    for mode in ["outstanding", "exports"]:
        findings[mode] = growth(subject, mode, options)
    return findings, options.quick or all(found["held"] for found in findings.values())


def idle(subject, connections):
    """What idle connections add to the resident memory and the threads of a server that has been called already, and what
    of it is left when their client was killed."""
    with Server(subject) as server, Idle(subject, server, 1):
        before = server.resident_kib()
        with Idle(subject, server, connections) as clients:
            each = (server.resident_kib() - before) / connections
            threads = server.settled_threads(IDLE_THREADS)
            clients.kill()
        until = time.monotonic() + GIVEN_BACK_SECONDS
        left = math.inf
        while left > GIVEN_BACK_KIB and time.monotonic() < until:
            time.sleep(0.1)
            left = (server.resident_kib() - before) / connections
        threads_left = server.threads()
    fits = verdict(each <= IDLE_KIB and threads < IDLE_THREADS)
    print(f"{connections} idle connections cost the server {each:.1f} KiB resident each, and it has {threads} threads: "
          f"at most {IDLE_KIB} KiB and fewer than {IDLE_THREADS} threads, {fits[0]}")
    back = verdict(left <= GIVEN_BACK_KIB and threads_left <= threads)
    print(f"{GIVEN_BACK_SECONDS} s after their client was killed {left:.2f} KiB of each and {threads_left} threads are left: "
          f"at most {GIVEN_BACK_KIB} KiB, {back[0]}")
    return {"kib": each, "threads": threads, "left_kib": left, "held": fits[1] and back[1]}


def beside_idle(subject, many, options):
    """How many calls one connection makes while 1, or many, others are idle."""
    figures = {1: [], many: []}
    calls = CALLS // 100 if options.quick else CALLS
    for turn in range(options.rounds):
        for others in sorted(figures, reverse=turn % 2 == 1):
            with Server(subject) as server, Idle(subject, server, others):
                report, _ = client(subject, server, "throughput", calls, WINDOW, BYTES)
                figures[others].append(report["per_second"])
    few, more = (statistics.median(each) for each in figures.values())
    held = verdict(more >= 0.95 * few)
    print(f"calls per second beside 1 idle connection {few:.0f}, beside {many} {more:.0f}, "
          f"x{more / few:.2f}: at least 0.95, {held[0]}")
    return {"per_second": [few, more], "held": held[1]}


def paced(subject, other, options):
    """The processor time of a server with many connections that make a call a second each. Our client makes them."""
    count, seconds = (PACED // 10, 2) if options.quick else (PACED, PACED_SECONDS)
    figures = {"subject": [], "capnp-rpc": []}
    for turn in range(options.rounds):
        for name, command in [("subject", subject), ("capnp-rpc", other)][:: 1 if turn % 2 == 0 else -1]:
            with Server(command) as server:
                with Idle(subject, server, count, "paced", seconds) as clients:
                    before = server.processor_seconds()
                    clients.wait_line()
                    figures[name].append((server.processor_seconds() - before) / (count * seconds) * 1e6)
    ours, theirs = statistics.median(figures["subject"]), statistics.median(figures["capnp-rpc"])
    held = verdict(ours <= theirs)
    print(f"{count} connections with a call a second each: {ours:.1f} us of the server's processor time for a call, "
          f"capnp-rpc {theirs:.1f}, x{ours / theirs:.2f}: at most 1, {held[0]}")
    return {"us": [ours, theirs], "held": held[1]}


def growth(subject, mode, options):
    """How long a call takes beside ever more questions or exports. Logarithms bound how it grows."""
    figures = {held: [] for held in HELD}
    calls = GROWTH_CALLS // 100 if options.quick else GROWTH_CALLS
    for turn in range(options.rounds):
        for held in sorted(figures, reverse=turn % 2 == 1):
            with Server(subject) as server:
                report, _ = client(subject, server, mode, calls, WINDOW, BYTES, held)
                figures[held].append(1e6 / report["per_second"])
    micros = {held: statistics.median(each) for held, each in figures.items()}
    first = HELD[0]
    within = all(took / micros[first] <= math.log(held) / math.log(first) for held, took in micros.items())
    held = verdict(within)
    words = ", ".join(f"{count} {took:.2f} us (x{took / micros[first]:.2f})" for count, took in micros.items())
    print(f"{mode}: time for a call beside {words}: no more than the logarithm, {held[0]}")
    return {"us": micros, "held": held[1]}


def verdict(held):
    return ("held" if held else "MISSED"), held
