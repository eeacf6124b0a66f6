#!/usr/bin/env python3
"""Kernel TCP on the emulated path.

`tcp.py serve ADDR PORT` sends zeros without end, or answers single bytes, with the congestion
control that each client names; `tcp.py fetch ADDR PORT NAME` writes the zeros to standard output;
`tcp.py ping ADDR PORT NAME SECONDS` prints round trips in ms."""
import socket
import sys
import threading
import time

TCP_CONGESTION = 13


def connect(kind, name):
    connection = socket.create_connection((sys.argv[2], int(sys.argv[3])), timeout=10)
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(f"{kind} {name}\n".encode().ljust(32))
    return connection


def answer(connection):
    try:
        head = b""
        while len(head) < 32:
            more = connection.recv(32 - len(head))
            if not more:
                return
            head += more
        kind, name = head.decode().split()
        connection.setsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, name.encode())
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        zeros = bytes(1 << 16)
        while kind == "fetch":
            connection.sendall(zeros)
        while data := connection.recv(1):
            connection.sendall(data)
    except OSError:
        pass  # The client has gone.
    finally:
        connection.close()


def serve():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((sys.argv[2], int(sys.argv[3])))
    listener.listen(64)
    print("up", flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


if sys.argv[1] == "serve":
    serve()
elif sys.argv[1] == "fetch":
    source = connect("fetch", sys.argv[4])
    while received := source.recv(1 << 16):
        sys.stdout.buffer.write(received)
else:
    source, end = connect("ping", sys.argv[4]), time.monotonic() + float(sys.argv[5])
    while time.monotonic() < end:
        began = time.monotonic()
        source.sendall(b".")
        source.recv(1)
        print((time.monotonic() - began) * 1_000, flush=True)
        time.sleep(0.2)
