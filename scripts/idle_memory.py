#!/usr/bin/env python3
"""What an idle client connection costs: KiB of resident memory in the worker.

Opens connections that make one request each and then stay, clear, over TLS and as HTTP/2, and divides
what the worker has grown by. Usage: scripts/idle_memory.py target/release/weir [COUNT]
"""

import http.server
import os
import re
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import time

ADDRESS = "127.63.0.1"
if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
    sys.exit(__doc__)
COUNT = int(sys.argv[2]) if len(sys.argv) > 2 else 2000


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one piece, or every answer waits 40 ms for an acknowledgement

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


class Threaded(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


def configuration(directory):
    return f"""
listeners:
  - {{address: "{ADDRESS}:8080"}}
  - {{address: "{ADDRESS}:8081", http2: true}}
  - {{address: "{ADDRESS}:8443", tls: {{certificates: [{{cert: site.crt, key: site.key}}]}}}}
admin: {{address: "{ADDRESS}:9090"}}
threads: 1
limits: {{keepalive: 10m}}
access_log: {{format: off}}
pools: [{{name: web, health_check: off, backends: ["http://{ADDRESS}:3000"]}}]
"""


def read_answer(connection):
    data = b""
    while not data.endswith(b"ok"):
        piece = connection.recv(4096)
        assert piece, data
        data += piece


def http1(connection):
    connection.sendall(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
    read_answer(connection)
    return connection


def http2(connection):
    frame = lambda kind, flags, stream, payload: (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload)
    head = bytes([0x82, 0x86, 0x84, 0x41, 0x01]) + b"a"  # GET http://a/
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 5, 1, head))
    data = b""
    while b"ok" not in data:
        piece = connection.recv(4096)
        assert piece, data
        data += piece
    connection.sendall(frame(4, 1, 0, b""))
    return connection


def clear(port, say):
    return say(socket.create_connection((ADDRESS, port)))


def tls(alpn, say):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    return lambda: say(context.wrap_socket(socket.create_connection((ADDRESS, 8443)), server_hostname="a.test"))


def resident(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+) kB", status.read()).group(1))


def main():
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-keyout", "site.key", "-out", "site.crt", "-days", "30", "-subj", "/CN=a.test"],
            cwd=directory, check=True, capture_output=True)
        path = os.path.join(directory, "weir.yaml")
        with open(path, "w") as file:
            file.write(configuration(directory))
        origin = Threaded((ADDRESS, 3000), Origin)
        threading.Thread(target=origin.serve_forever, daemon=True).start()
        weir = subprocess.Popen(
            [sys.argv[1], "run", "-c", path, "--control", os.path.join(directory, "control")],
            stderr=subprocess.DEVNULL)
        try:
            measure(weir)
        finally:
            weir.terminate()
            weir.wait(10)


def measure(weir):
    for _ in range(200):
        try:
            http1(socket.create_connection((ADDRESS, 8080))).close()
            break
        except OSError:
            time.sleep(0.05)
    with open(f"/proc/{weir.pid}/task/{weir.pid}/children") as children:
        worker = int(children.read().split()[0])
    silent = lambda: socket.create_connection((ADDRESS, 8080))
    kinds = {
        "clear, silent": silent,
        "clear, after a request": lambda: clear(8080, http1),
        "TLS, after a request": tls("http/1.1", http1),
        "HTTP/2 clear, after a request": lambda: clear(8081, http2),
        "HTTP/2 over TLS, after a request": tls("h2", http2),
    }
    for name, connect in kinds.items():
        warm = [connect() for _ in range(200)]
        before = resident(worker)
        held = [connect() for _ in range(COUNT)]
        time.sleep(0.5)
        print(f"{name}: {(resident(worker) - before) / COUNT:.1f} KiB", flush=True)
        for connection in held + warm:
            connection.close()
        time.sleep(1)


if __name__ == "__main__":
    main()
