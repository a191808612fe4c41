"""Runs servers and clients. All programs have one command line, which is described in `examples/peer/main.rs`."""

import json
import os
import resource
import subprocess
import time

ANY_PORT = "127.0.0.1:0"
# A client that has not ended by then never will.
PATIENCE = 300
# After so many seconds threads without work have ended.
SETTLING = 15


class Failure(Exception):
    """What a program did not do. Its text is for the user."""


class Server:
    """A server that runs as long as the block that it was made for."""

    def __init__(self, command):
        self.command = command

    def __enter__(self):
        self.process = start([*self.command, "server", ANY_PORT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        words = self.process.stdout.readline().split()
        if len(words) != 2 or words[0] != "listening":
            self.__exit__()
            raise Failure(f"{self.command[0]} server: expected `listening PORT`, got `{' '.join(words)}`")
        self.address = "127.0.0.1:" + words[1]
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def resident_kib(self):
        """How much memory of the server's is resident."""
        return self.status("VmRSS:")

    def threads(self):
        """How many threads the server has."""
        return self.status("Threads:")

    def settled_threads(self, fewer_than):
        """The same, once there are fewer than so many, or those without work have had the time to end."""
        until = time.monotonic() + SETTLING
        while self.threads() >= fewer_than and time.monotonic() < until:
            time.sleep(0.1)
        return self.threads()

    def processor_seconds(self):
        """How much processor time the server has used."""
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def status(self, name):
        """A number of the system's about the server."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(name))


class Idle:
    """A client that holds so many connections, each used once, for as long as the block that it was made for."""

    def __init__(self, command, server, count, mode="idle", *more):
        self.command = [*command, "client", server.address, mode, str(count), *map(str, more)]

    def __enter__(self):
        self.process = start(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.wait_line()
        return self

    def wait_line(self):
        """Waits until the client says something."""
        if not self.process.stdout.readline():
            self.__exit__()
            raise Failure(f"{' '.join(self.command)}: ended without a word")

    def kill(self):
        """Ends the client as a crash would."""
        self.process.kill()
        self.process.wait()

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Failure(f"{' '.join(self.command)}: did not end with its input") from None
        finally:
            self.process.stdout.close()


def client(command, server, mode, *numbers):
    """What a client reports, and what else it has to say."""
    whole = [*command, "client", server.address, mode, *map(str, numbers)]
    try:
        done = subprocess.run(whole, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise Failure(f"{mode}: no answer in {PATIENCE} s") from None
    except OSError as error:
        raise Failure(f"{command[0]}: {error}") from None
    said = done.stderr.strip()
    if done.returncode:
        raise Failure((said or f"exit status {done.returncode}").splitlines()[0])
    return json.loads(done.stdout.splitlines()[-1]), said


def start(command, **how):
    try:
        return subprocess.Popen(command, text=True, **how)
    except OSError as error:
        raise Failure(f"{command[0]}: {error}") from None


def allow_open_files(count):
    """Lets the programs started from now on have so many files open, as far as the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
