"""The same work by all programs, one after the other, several times over."""

import statistics
import sys
from collections import namedtuple

from .programs import Failure, Server, client

# What is asked of a client, which figure of its report counts, and whether a lower one is better. `beside` is the
# mode in which the others do it, if that is another one. `aim` is the ratio that this project wants to reach: to
# the peer of that name, or to the better of them.
Row = namedtuple("Row", "name mode count inflight bytes figure lower aim of beside", defaults=[None])

ROWS = [
    Row("latency-16B", "latency", 20000, 1, 16, "p50_us", True, 1.1, "better"),
    Row("throughput-16B", "throughput", 200000, 64, 16, "per_second", False, 4, "capnp-rpc"),
    Row("throughput-1KiB", "throughput", 200000, 64, 1024, "per_second", False, 4, "capnp-rpc"),
    Row("pipeline-9", "pipeline", 5000, 1, 16, "p50_us", True, 1.6, "capnp-rpc"),
    Row("callback", "callback", 10000, 1, 16, "p50_us", True, 1.1, "better"),
    Row("churn", "churn", 50000, 64, 16, "per_second", False, 7, "capnp-rpc"),
    Row("stream-64KiB", "stream", 20000, 1, 65536, "mb_per_second", False, 2, "capnp-rpc"),
    Row("echo-1MiB", "latency", 500, 1, 1 << 20, "p50_us", True, 1.2, "better"),
    Row("conns-100", "conns", 100000, 100, 16, "per_second", False, 1, "better"),
    Row("callers-64", "callers", 200000, 64, 16, "per_second", False, 1, "capnp-rpc", "throughput"),
]

# What is no implementation, but shows what the machine itself takes, knows these modes alone, and is no mark.
BARE = "bare"
BARE_MODES = {"latency", "throughput", "stream", "conns"}


def run(programs, options):
    """Gives the rows of each run, and the median of each row's ratios over the runs."""
    wanted = set(filter(None, options.modes.split(",")))
    rows = [row for row in ROWS if not wanted or row.name in wanted]
    if options.quick:
        rows = [row._replace(count=max(1, row.count // 100), aim=None) for row in rows]
    runs = []
    for number in range(options.runs):
        if options.runs > 1:
            print(f"run {number + 1} of {options.runs}")
        runs.append(one_run(rows, programs, options))
    findings = {"runs": runs}
    if options.runs > 1:
        findings["better_than"] = over_runs(rows, runs)
    complete = all(None not in found["medians"].values() for run in runs for found in run.values())
    return findings, complete


def one_run(rows, programs, options):
    found = {}
    for row in rows:
        able = {who: program for who, program in programs.items() if who != BARE or row.mode in BARE_MODES}
        values = measure(row, able, options)
        medians = {who: statistics.median(figures) if figures else None for who, figures in values.items()}
        ratios = better_than(row, medians)
        found[row.name] = {"figure": row.figure, "medians": medians, "better_than": ratios}
        figures = "  ".join(f"{who} {number(value, '.4g')}" for who, value in medians.items())
        print(f"{row.name:>16} {row.figure:>13}  {figures}   | {in_words(row, ratios)}", flush=True)
    return found


def measure(row, programs, options):
    """The row's figure for each program, once a round. Each round goes the other way round than the one before, so
    that none always comes after the same one."""
    values = {who: [] for who in programs}
    for turn in range(options.rounds):
        order = list(programs)
        for who in reversed(order) if turn % 2 else order:
            mode = row.beside if row.beside and who != "subject" else row.mode
            try:
                with Server(programs[who]) as server:
                    report, _ = client(programs[who], server, mode, row.count, row.inflight, row.bytes)
            except Failure as failure:
                print(f"{row.name}: {who}: {failure}", file=sys.stderr)
            else:
                values[who].append(report[row.figure])
    return values


def better_than(row, medians):
    """By how much ours is better than each of the others. Above 1 it is, whichever way the figure goes."""
    ours = medians["subject"]
    return {who: ratio(ours, theirs, row.lower) for who, theirs in medians.items() if who != "subject"}


def ratio(ours, theirs, lower):
    if not ours or not theirs:
        return None
    return theirs / ours if lower else ours / theirs


def over_runs(rows, runs):
    """The median of each row's ratios."""
    print(f"medians of {len(runs)} runs")
    medians = {}
    for row in rows:
        each = [run[row.name]["better_than"] for run in runs]
        medians[row.name] = {who: median([ratios[who] for ratios in each]) for who in each[0]}
        print(f"{row.name:>16}  {in_words(row, medians[row.name])}")
    return medians


def median(values):
    return None if None in values else statistics.median(values)


def in_words(row, ratios):
    words = "  ".join(f"{who} x{number(value, '.2f')}" for who, value in ratios.items())
    marks = [found or 0 for who, found in ratios.items() if who != BARE]
    aimed = min(marks, default=None) if row.of == "better" else ratios.get(row.of)
    if aimed is None or row.aim is None:
        return f"better than: {words}"
    verdict = "reached" if aimed >= row.aim else "missed"
    return f"better than: {words}   | aim: x{row.aim:g} of {row.of}, {verdict}"


def number(value, form):
    return "-" if value is None else format(value, form)
