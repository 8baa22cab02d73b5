#!/usr/bin/env python3
"""What a client or a backend that reads nothing costs: KiB of resident memory in the worker.

Each case opens COUNT exchanges whose one side never reads, waits until the worker grows no more and divides
the growth by COUNT; beside it, what the kernel holds in the worker's sockets. `limits.response_buffers` is off. The last case is six HTTP/2 connections of 100
streams each with the default limits: the peak, and what is left when the excess has ended.

Usage: scripts/stalled_memory.py target/release/weir [COUNT] [words of the cases to run]
"""

import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

ADDRESS = "127.63.0.2"
if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
    sys.exit(__doc__)
COUNT = int(sys.argv[2]) if len(sys.argv) > 2 else 100
WORDS = sys.argv[3:]
PIECE = b"x" * 65536
MOST = 1 << 28  # bytes that a backend sends on one connection, at most
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 4, 6, 8


def configuration(limits):
    return f"""
listeners:
  - {{address: "{ADDRESS}:8080", http2: true}}
  - {{address: "{ADDRESS}:8443", http2: true, tls: {{certificates: [{{cert: site.crt, key: site.key}}]}}}}
admin: {{address: "{ADDRESS}:9090"}}
threads: 1
limits: {limits}
access_log: {{format: off}}
routes:
  - {{path: /h2c, pool: h2c}}
  - {{path: /, pool: web}}
pools:
  - {{name: web, health_check: off, backends: ["http://{ADDRESS}:3000"]}}
  - {{name: h2c, health_check: off, protocol: h2c, backends: ["http://{ADDRESS}:3001"]}}
"""


def serve(port, handle):
    listener = socket.create_server((ADDRESS, port), backlog=1024)

    def quietly(connection):
        try:
            handle(connection)
        except OSError:
            pass
        connection.close()

    def accept():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=quietly, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def http1_backend(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536) or b"\r\n\r\n"
    if data.startswith(b"GET /small"):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    elif data.startswith(b"GET /medium"):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 30000\r\nConnection: close\r\n\r\n" + PIECE[:30000])
    elif data.startswith(b"GET /big"):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        flood(connection)
    elif data.startswith(b"GET /tunnel"):
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        if data.startswith(b"GET /tunnel/talks"):
            flood(connection)
        time.sleep(3600)  # reads nothing
    elif data.startswith(b"POST"):
        time.sleep(3600)


def flood(connection):
    for _ in range(MOST // len(PIECE)):
        connection.sendall(PIECE)


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def h2c_backend(connection):
    """Sends on every stream as much as the windows allow."""
    reader = connection.makefile("rb")
    reader.read(len(PREFACE))
    connection.sendall(frame(SETTINGS, 0, 0, b"\x00\x03" + (1000).to_bytes(4, "big")))
    initial, window, windows = 65535, 65535, {}
    while len(head := reader.read(9)) == 9:
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        stream, payload = int.from_bytes(head[5:], "big"), reader.read(length)
        if kind == SETTINGS and not flags & 1:
            for at in range(0, length, 6):
                if payload[at:at + 2] == b"\x00\x04":
                    initial = int.from_bytes(payload[at + 2:at + 6], "big")
            connection.sendall(frame(SETTINGS, 1, 0))
        elif kind == PING and not flags & 1:
            connection.sendall(frame(PING, 1, 0, payload))
        elif kind == HEADERS:
            windows[stream] = initial
            connection.sendall(frame(HEADERS, 4, stream, b"\x88"))  # :status 200
        elif kind == WINDOW_UPDATE and stream == 0:
            window += int.from_bytes(payload, "big")
        elif kind == WINDOW_UPDATE and stream in windows:
            windows[stream] += int.from_bytes(payload, "big")
        for stream in windows:
            while (size := min(16384, window, windows[stream])) > 0:
                window -= size
                windows[stream] -= size
                connection.sendall(frame(DATA, 0, stream, PIECE[:size]))


def connect(tls=None):
    connection = socket.create_connection((ADDRESS, 8443 if tls else 8080))
    if tls is None:
        return connection
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([tls])
    return context.wrap_socket(connection, server_hostname="a.test")


def get(path, headers="", tls=None):
    connection = connect(tls)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a.test\r\n{headers}\r\n".encode())
    return connection


def http1(path, tls=None):
    return lambda count: [get(path, tls=tls) for _ in range(count)]


def http2(path, tls=None):
    """All streams on one connection, with the largest windows."""

    def ask(count):
        connection = connect(tls)
        target = path.encode()
        head = bytes([0x82, 0x86, 0x04, len(target)]) + target + bytes([0x41, 6]) + b"a.test"
        connection.sendall(
            PREFACE + frame(SETTINGS, 0, 0, b"\x00\x04\x7f\xff\xff\xff")
            + frame(WINDOW_UPDATE, 0, 0, (0x7FFFFFFF - 65535).to_bytes(4, "big"))
            + b"".join(frame(HEADERS, 5, 2 * number + 1, head) for number in range(count)))
        return [connection]

    return ask


UPGRADE = ("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")


def unread_by_client(count):
    return [get("/tunnel/talks", UPGRADE) for _ in range(count)]


def unread_by_backend(count):
    return [flooding(get("/tunnel/silent", UPGRADE), b"101 Switching") for _ in range(count)]


def upload(count):
    head = b"POST /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000000\r\n\r\n"
    connections = [connect() for _ in range(count)]
    for connection in connections:
        connection.sendall(head)
        flooding(connection, None)
    return connections


def flooding(connection, answer):
    if answer:
        data = connection.recv(4096)
        assert answer in data, data

    def send():
        try:
            flood(connection)
        except OSError:
            pass

    threading.Thread(target=send, daemon=True).start()
    return connection


CASES = {
    "HTTP/1, unread by the client": http1("/big"),
    "HTTP/1 over TLS, unread by the client": http1("/big", tls="http/1.1"),
    "HTTP/1, h2c backend, unread by the client": http1("/h2c"),
    "HTTP/2 stream, unread by the client": http2("/big"),
    "HTTP/2 stream, 30 KB, unread by the client": http2("/medium"),
    "HTTP/2 stream over TLS, unread by the client": http2("/big", tls="h2"),
    "HTTP/2 stream, h2c backend, unread by the client": http2("/h2c"),
    "tunnel, unread by the client": unread_by_client,
    "tunnel, unread by the backend": unread_by_backend,
    "upload, unread by the backend": upload,
}


def resident(pid, field="VmRSS"):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(field + r":\s+(\d+) kB", status.read()).group(1))


def settled(pid):
    """KiB, once they grow no more for a second."""
    before, since, end = 0, time.monotonic(), time.monotonic() + 60
    while time.monotonic() - since < 1 and time.monotonic() < end:
        now = resident(pid)
        if abs(now - before) > 256:
            before, since = now, time.monotonic()
        time.sleep(0.02)
    return before


def kernel(pid):
    """KiB that the kernel holds in the sockets of a process: received and not read, written and not acknowledged."""
    listed = subprocess.run(["ss", "-tnmpO"], capture_output=True, text=True, check=True).stdout
    held = [re.search(r"skmem:\(r(\d+),.*?,w(\d+),", line) for line in listed.splitlines() if f"pid={pid}," in line]
    return sum(int(it[1]) + int(it[2]) for it in held if it) // 1024


class Weir:
    def __init__(self, directory, limits):
        path = os.path.join(directory, "weir.yaml")
        with open(path, "w") as file:
            file.write(configuration(limits))
        self.process = subprocess.Popen(
            [sys.argv[1], "run", "-c", path, "--control", os.path.join(directory, "control")],
            stderr=subprocess.DEVNULL)

    def __enter__(self):
        for _ in range(400):
            try:
                connection = get("/small")
                assert b"200 OK" in connection.recv(4096)
                break
            except OSError:
                time.sleep(0.05)
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as children:
            return int(children.read().split()[0])

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(10)
        time.sleep(0.5)  # the worker notices


def metric(name):
    connection = socket.create_connection((ADDRESS, 9090))
    connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    page = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    return re.search(rf"^{name} (\S+)", page, re.MULTILINE).group(1)


def selected(name):
    return not WORDS or all(word in name for word in WORDS)


def main():
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-keyout", "site.key", "-out", "site.crt", "-days", "30", "-subj", "/CN=a.test"],
            cwd=directory, check=True, capture_output=True)
        serve(3000, http1_backend)
        serve(3001, h2c_backend)
        for name, open_all in CASES.items():
            if not selected(name):
                continue
            with Weir(directory, "{response_buffers: off}") as worker:
                before = resident(worker)
                held = open_all(COUNT)
                grown = settled(worker) - before
                counted = metric("lb_stalled_responses")
                print(f"{name}: {grown / COUNT:.0f} KiB, and {kernel(worker) / COUNT:.0f} KiB in sockets, {counted} of {COUNT} counted as stalled", flush=True)
                for connection in held:
                    connection.close()
        if selected("six connections"):
            six(directory)


def six(directory):
    with Weir(directory, "{}") as worker:
        before, held = resident(worker), [http2("/big")(100) for _ in range(6)]
        peak = end = settled(worker)
        for _ in range(200):
            time.sleep(0.1)
            end, peak = resident(worker), resident(worker, "VmHWM")
        print(f"six connections of 100 streams: {before} KiB before, {peak} KiB peak, {end} KiB after 20 s, "
              f"{kernel(worker)} KiB in sockets then, "
              f"{metric('lb_stalled_responses')} wait, {metric('lb_stalled_responses_ended_total')} ended", flush=True)
        for connections in held:
            for connection in connections:
                connection.close()


if __name__ == "__main__":
    main()
