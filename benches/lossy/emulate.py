#!/usr/bin/env python3
"""Two network namespaces joined by an emulated path: rate, delay, loss, and a drop-tail queue,
the same in both directions.

    emulate.py PREFIX [--rate BITS/S] [--delay-ms ONE_WAY] [--loss FRACTION] [--queue BYTES]
               [--seed N]

Makes PREFIX-a (10.77.0.1) and PREFIX-b (10.77.0.2), prints "up", and runs until SIGTERM or the end
of its standard input; then removes them. A line `loss 0.03` (or rate, delay-ms, queue) on standard
input changes the path at once; `stats` prints, for each direction, packets delivered, lost at
random, and dropped at the queue since the last change. Requires root, `ip`, and /dev/net/tun. Good
for about 100 Mbit/s.
"""
import argparse
import fcntl
import heapq
import json
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("prefix")
parser.add_argument("--rate", type=float, default=20e6)
parser.add_argument("--delay-ms", type=float, default=20.0)
parser.add_argument("--loss", type=float, default=0.0)
parser.add_argument("--queue", type=float, default=100_000)
parser.add_argument("--seed", type=int, default=1)
args = parser.parse_args()
path = {"rate": args.rate, "delay-ms": args.delay_ms, "loss": args.loss, "queue": args.queue}
rng = random.Random(args.seed)


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def tun(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    # TUNSETIFF with IFF_TUN | IFF_NO_PI
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH14x", name.encode(), 0x0001 | 0x1000))
    return fd


class Pipe:
    """One direction: a serialising link with a queue in front of it, then the delay."""

    def __init__(self, out):
        self.out, self.free, self.heap, self.count = out, 0.0, [], 0
        self.reset()

    def reset(self):
        self.delivered = self.lost = self.dropped = 0

    def put(self, packet, now):
        if rng.random() < path["loss"]:
            self.lost += 1
            return
        queued = max(0.0, self.free - now) * path["rate"] / 8
        if queued + len(packet) > path["queue"]:
            self.dropped += 1
            return
        self.free = max(self.free, now) + len(packet) * 8 / path["rate"]
        self.count += 1
        heapq.heappush(self.heap, (self.free + path["delay-ms"] / 1000, self.count, packet))

    def flush(self, now):
        while self.heap and self.heap[0][0] <= now:
            try:
                os.write(self.out, heapq.heappop(self.heap)[2])
                self.delivered += 1
            except BlockingIOError:
                self.dropped += 1


names = [f"{args.prefix}-a", f"{args.prefix}-b"]
for name in names:
    subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)
    ip("netns", "add", name)
devices = [f"{args.prefix[:10]}t{end}" for end in "ab"]
fds = [tun(device) for device in devices]
for name, device, address in zip(names, devices, ("10.77.0.1/24", "10.77.0.2/24")):
    ip("link", "set", device, "netns", name)
    ip("-n", name, "addr", "add", address, "dev", device)
    ip("-n", name, "link", "set", "lo", "up")
    ip("-n", name, "link", "set", device, "mtu", "1500", "txqueuelen", "1000", "up")
pipes = {fds[0]: Pipe(fds[1]), fds[1]: Pipe(fds[0])}
running = True


def stop(*_):
    global running
    running = False


signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
print("up", flush=True)
poll = select.poll()
for fd in fds:
    poll.register(fd, select.POLLIN)
poll.register(sys.stdin, select.POLLIN)
while running:
    due = [pipe.heap[0][0] for pipe in pipes.values() if pipe.heap]
    wait = max(0.0, min(due) - time.monotonic()) if due else 0.2
    for fd, _ in poll.poll(min(wait, 0.2) * 1000):
        if fd == sys.stdin.fileno():
            words = sys.stdin.readline().split()
            if not words:
                running = False
            elif words == ["stats"]:
                counts = [[p.delivered, p.lost, p.dropped] for p in pipes.values()]
                print(json.dumps(counts), flush=True)
            else:
                path[words[0]] = float(words[1])
                for pipe in pipes.values():
                    pipe.reset()
            continue
        for _ in range(64):
            try:
                packet = os.read(fd, 2048)
            except BlockingIOError:
                break
            pipes[fd].put(packet, time.monotonic())
    now = time.monotonic()
    for pipe in pipes.values():
        pipe.flush(now)
for name in names:
    subprocess.run(["ip", "netns", "del", name])
