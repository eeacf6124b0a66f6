#!/usr/bin/env python3
"""Bulk flows over a path that loses packets, on real sockets: this crate beside kernel TCP.

    cargo build --release --features cli && sudo benches/lossy/run.py [--quick] [--only NAME,…]

README.md explains the columns. Requires root, `ip` and /dev/net/tun.
"""
import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
NEAR, FAR = "10.77.0.1", "10.77.0.2"
RECEPTOR = {"westwood": "westwood", "cubic": "cubic", "relay": "westwood"}
TCP = {"tcp-cubic": "cubic", "tcp-bbr": "bbr"}
# Flows start this long before measurements: longer than slow start and the first congestion.
WARM_UP = 3.0
LIMIT = 20.0


def numbers(text):
    return [float(number) for number in text.split(",")]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", type=numbers, help="Mbit/s [20,100]")
    parser.add_argument("--rtts", type=numbers, help="ms [10,40,150]")
    parser.add_argument("--losses", type=numbers, help="percent [0,0.1,1,3]")
    parser.add_argument("--queues", type=numbers, help="bandwidth-delay products [0.5,4]")
    parser.add_argument("--flows", type=numbers, help="[1,8]")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--only", default=",".join([*RECEPTOR, *TCP]), help="contenders")
    parser.add_argument("--share", action="store_true",
                        help="only single flows, each beside one of kernel TCP with CUBIC")
    parser.add_argument("--quick", action="store_true",
                        help="by default 20 Mbit/s, 40 ms, 100 kB, one flow; 0, 1 and 3 percent")
    parser.add_argument("--binary", default=str(HERE.parents[1] / "target/release/receptor"))
    args = parser.parse_args()
    for name, quick, full in [
        ("rates", [20], [20, 100]),
        ("rtts", [40], [10, 40, 150]),
        ("losses", [0, 1, 3], [0, 0.1, 1, 3]),
        ("queues", [1], [0.5, 4]),
        ("flows", [1], [1, 8]),
    ]:
        if getattr(args, name) is None:
            setattr(args, name, quick if args.quick else full)
    if args.share:
        args.flows = [1]
    args.only = args.only.split(",")
    unknown = set(args.only) - {*RECEPTOR, *TCP}
    if unknown:
        parser.error(f"--only: unknown {sorted(unknown)}; allowed: {[*RECEPTOR, *TCP]}")
    if os.geteuid() != 0:
        parser.error("requires root, for network namespaces")
    if set(args.only) & set(RECEPTOR) and not os.access(args.binary, os.X_OK):
        parser.error(f"no binary {args.binary}: cargo build --release --features cli")
    return args


class Lab:
    """The path, and the processes on it. All end with it."""

    def __init__(self, rate, rtt, loss, queue):
        self.prefix, self.loss, self.processes = f"rl{os.getpid() % 10_000}", loss / 100, []
        self.path = subprocess.Popen(
            [sys.executable, HERE / "emulate.py", self.prefix, "--rate", str(rate * 1e6),
             "--delay-ms", str(rtt / 2), "--loss", str(self.loss), "--queue", str(queue)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.path.stdout.readline() != "up\n":
            raise RuntimeError("the path did not come up")

    def start(self, end, *command):
        process = subprocess.Popen(
            ["ip", "netns", "exec", f"{self.prefix}-{end}", *map(str, command)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.processes.append(process)
        return process

    def reset(self):
        self.path.stdin.write(f"loss {self.loss}\n")
        self.path.stdin.flush()

    def stats(self):
        """Packets delivered and dropped at the queue, in the direction of the data."""
        self.path.stdin.write("stats\n")
        self.path.stdin.flush()
        delivered, _, dropped = json.loads(self.path.stdout.readline())[1]
        return delivered, dropped

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.kill()
        for process in self.processes:
            process.wait()
        self.path.stdin.close()
        self.path.wait()


class Flow:
    """Counts what a process writes."""

    def __init__(self, process):
        self.bytes = 0
        self.thread = threading.Thread(target=self.count, args=(process.stdout,), daemon=True)
        self.thread.start()

    def count(self, source):
        while data := source.read1(1 << 18):
            self.bytes += len(data)


def receptor(lab, name, flows, args, certs):
    """Starts a node for each flow beyond the path. Returns the sources, and a ping that is run."""
    controller, relayed = RECEPTOR[name], name == "relay"

    def node(end, own, *more):
        lab.start(end, args.binary, "node", "--id", own, "--certs", certs, "--no-direct",
                  "--congestion", controller, "--control", f"{certs}/{own}.sock", *more)

    def run(*command, **more):
        return subprocess.run([args.binary, *command, "--control", f"{certs}/near.sock"], **more)

    entry = "relay" if relayed else "near"
    node("a", entry, "--listen", f"{NEAR}:4433", *(["--transit"] if relayed else []))
    if relayed:
        node("a", "near", "--peer", f"relay@{NEAR}:4433")
    names = [f"far-{nth}" for nth in range(flows)]
    for far in names:
        node("b", far, "--peer", f"{entry}@{NEAR}:4433", "--command", "bench:zeros=cat /dev/zero")
    for far in names:
        end = time.monotonic() + LIMIT
        while run("ping", far, capture_output=True).returncode != 0:
            if time.monotonic() > end:
                raise RuntimeError(f"{name}: {far} is not reachable")
            time.sleep(0.1)  # The control socket may not exist yet.

    def ping(seconds):
        done = run("ping", names[0], "--count", str(max(1, int(seconds / 0.2))),
                   "--interval", "0.2", "--json", capture_output=True, text=True)
        replies = [json.loads(line) for line in done.stdout.splitlines()]
        return [reply["rtt_ms"] for reply in replies if "rtt_ms" in reply]

    sources = [[args.binary, "send", far, "bench:zeros", "--quiet", "--control",
                f"{certs}/near.sock"] for far in names]
    return sources, ping


def tcp(lab, controller, flows):
    serve_tcp(lab)
    script = [sys.executable, HERE / "tcp.py"]

    def ping(seconds):
        process = lab.start("a", *script, "ping", FAR, 4500, controller, seconds)
        return [float(line) for line in process.communicate()[0].split()]

    return [[*script, "fetch", FAR, 4500, controller]] * flows, ping


def serve_tcp(lab):
    server = lab.start("b", sys.executable, HERE / "tcp.py", "serve", FAR, 4500)
    if server.stdout.readline() != b"up\n":
        raise RuntimeError("kernel TCP did not come up")


def measure(name, cell, args, certs):
    rate, rtt, loss, factor, flows = cell
    queue = rate * 1e6 / 8 * rtt / 1_000 * factor
    with Lab(rate, rtt, loss, queue) as lab:
        if name in RECEPTOR:
            sources, ping = receptor(lab, name, int(flows), args, certs)
            if args.share:
                serve_tcp(lab)
        else:
            sources, ping = tcp(lab, TCP[name], int(flows))
        ping(1)  # Connects.
        running = [Flow(lab.start("a", *source)) for source in sources]
        if args.share:
            cubic = [sys.executable, HERE / "tcp.py", "fetch", FAR, 4500, "cubic"]
            running.append(Flow(lab.start("a", *cubic)))
        time.sleep(WARM_UP)
        lab.reset()
        began, before = time.monotonic(), [flow.bytes for flow in running]
        trips = ping(args.seconds)
        took = time.monotonic() - began
        rates = [(flow.bytes - was) * 8e-6 / took for flow, was in zip(running, before)]
        delivered, dropped = lab.stats()
    return row(rates, args.share, dropped / max(1, delivered), trips)


def row(rates, shared, dropped, trips):
    cubic = rates.pop() if shared else None
    total, squares = sum(rates), sum(rate * rate for rate in rates)
    jain = total * total / (len(rates) * squares) if squares else 0.0
    trips.sort()
    late = trips[len(trips) * 95 // 100] if trips else None
    call = f"{statistics.median(trips):.0f}, {late:.0f}" if trips else "none"
    share = f"{total / cubic:.2f}" if cubic else "-"
    return f"{total:.1f} | {jain:.2f} | {100 * dropped:.1f} % | {call} | {share}"


def main():
    args = arguments()
    certs = tempfile.mkdtemp(prefix="rl-")
    try:
        if set(args.only) & set(RECEPTOR):
            names = ["near", "relay", *(f"far-{nth}" for nth in range(int(max(args.flows))))]
            for what in [["init"], *(["issue", name] for name in names)]:
                subprocess.run([args.binary, "cert", *what, "--dir", certs], check=True,
                               stdout=subprocess.DEVNULL)
        print("| Mbit/s | ms | loss | queue | flows | contender | Mbit/s moved | Jain "
              "| dropped | call, ms: median, 95 % | of a CUBIC flow |")
        print("|---|---|---|---|---|---|---|---|---|---|---|")
        failed = False
        for cell in itertools.product(args.rates, args.rtts, args.losses, args.queues, args.flows):
            rate, rtt, loss, factor, flows = cell
            for name in args.only:
                try:
                    result = measure(name, cell, args, certs)
                except (RuntimeError, OSError, ValueError) as error:
                    result, failed = f"failed: {error} | | | |", True
                print(f"| {rate:g} | {rtt:g} | {loss:g} % | {factor:g} | {flows:g} | {name} "
                      f"| {result} |", flush=True)
        return int(failed)
    finally:
        shutil.rmtree(certs)


if __name__ == "__main__":
    sys.exit(main())
