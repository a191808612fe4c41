"""Every client against every server, where one of the two is ours."""

from .programs import Failure, Server, client


def run(programs, options):
    """Gives the number of checks that passed for each pair, None where one failed; and whether none did."""
    passed = {}
    for serving, command in programs.items():
        with Server(command) as server:
            for calling in programs:
                if "subject" in (calling, serving):
                    outcome, passed[f"{calling} to {serving}"] = check(programs[calling], server)
                    print(f"{calling:>10} client -> {serving:<10} server: {outcome}", flush=True)
    failed = list(passed.values()).count(None)
    print(f"{failed} failed")
    return passed, failed == 0


def check(command, server):
    try:
        report, note = client(command, server, "check")
    except Failure as failure:
        return f"FAILED: {failure}", None
    note = f" ({note.splitlines()[0]})" if note else ""
    return f"{report['passed']} checks passed{note}", report["passed"]
