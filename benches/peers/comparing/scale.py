"""What many connections, questions and exports cost. Ours alone: nothing of it is compared with others."""

import math
import statistics

from .programs import Idle, Server, allow_open_files, client

# The busy work: so many calls of 16 bytes, 64 at a time.
CALLS, WINDOW, BYTES = 200000, 64, 16
# Calls for one figure of how cost grows.
GROWTH_CALLS = 20000
CONNECTIONS = 1000
HELD = [10, 1000, 100000]


def run(programs, options):
    """Gives the figures, and whether all bounds hold (with --quick, where figures mean nothing, that all ran)."""
    subject = programs["subject"]
    many = CONNECTIONS // 10 if options.quick else CONNECTIONS
    allow_open_files(4 * many + 1000)
    findings = {"memory": memory(subject, many), "idle": beside_idle(subject, many, options)}
    for mode in ["outstanding", "exports"]:
        findings[mode] = growth(subject, mode, options)
    return findings, options.quick or all(found["held"] for found in findings.values())


def memory(subject, connections):
    """What an idle connection adds to the resident memory of a server that has been called already."""
    with Server(subject) as server, Idle(subject, server, 1):
        before = server.resident_kib()
        with Idle(subject, server, connections):
            each = (server.resident_kib() - before) / connections
    held = verdict(each <= 100)
    print(f"an idle connection costs the server {each:.1f} KiB resident ({connections} open): at most 100, {held[0]}")
    return {"kib": each, "held": held[1]}


def beside_idle(subject, many, options):
    """How many calls one connection makes while 1, or many, others are idle."""
    figures = {1: [], many: []}
    calls = CALLS // 100 if options.quick else CALLS
    for turn in range(options.rounds):
        for idle in sorted(figures, reverse=turn % 2 == 1):
            with Server(subject) as server, Idle(subject, server, idle):
                report, _ = client(subject, server, "throughput", calls, WINDOW, BYTES)
                figures[idle].append(report["per_second"])
    few, more = (statistics.median(each) for each in figures.values())
    held = verdict(more > 0.9 * few)
    print(f"calls per second beside 1 idle connection {few:.0f}, beside {many} {more:.0f}, "
          f"x{more / few:.2f}: falls by less than a tenth, {held[0]}")
    return {"per_second": [few, more], "held": held[1]}


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
