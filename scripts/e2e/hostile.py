"""The cases of tests/http/requests.txt, sent to HAProxy and to Weir before origins that write down
every byte: what HAProxy refuses, Weir must not pass on, unless docs/HTTP.md says why."""

import contextlib
import os
import re
import socket
import threading

from e2e.servers import Weir, tool
from e2e.world import expect, until

TABLE = os.path.join(os.path.dirname(__file__), "..", "..", "tests", "http", "requests.txt")
DOCUMENT = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "HTTP.md")

REFUSALS = (400, 403, 405, 408, 411, 413, 414, 417, 422, 431, 500, 501, 505)

HAPROXY = """
global
    maxconn 256
defaults
    mode http
    timeout connect 2s
    timeout client 2s
    timeout server 2s
    timeout http-request 2s
frontend f
    bind {address}
    default_backend b
backend b
    server one {origin}
"""


def unescape(text):
    """The bytes that a text of the table stands for."""
    text = re.sub(r"\{([^}]*)\*(\d+)\}", lambda found: found[1] * int(found[2]), text)
    out = bytearray()
    at = 0
    while at < len(text):
        if text[at] == "¶":
            out += b"\r\n"
        elif text[at] == "\\":
            at += 1
            if text[at] == "x":
                out.append(int(text[at + 1 : at + 3], 16))
                at += 2
            else:
                out += {"r": b"\r", "n": b"\n", "t": b"\t", "0": b"\0", "\\": b"\\"}[text[at]]
        else:
            out += text[at].encode()
        at += 1
    return bytes(out)


def cases():
    """(section, what comes in, bytes) of each case."""
    section = ""
    with open(TABLE, encoding="utf-8") as table:
        for line in table.read().split("\n"):
            if line.startswith("## "):
                section = line[3:]
            elif line and line[0] not in "#>":
                _, _, what, text = line.split(" | ", 3)
                yield section, what, unescape(text)


class Recorder:
    """An origin that writes down what reaches it, and answers each whole head with 200."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.address = address
        self._listener = socket.create_server((host, int(port)))
        self._lock = threading.Lock()
        self._bytes = b""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, contextlib.suppress(OSError):
            unread = b""
            while more := connection.recv(65536):
                with self._lock:
                    self._bytes += more
                unread += more
                # Bodies are not read as such: of the cases, none has an empty line in its body
                # but to look like a second request, and then the second answer shows it.
                while b"\r\n\r\n" in unread:
                    head, _, unread = unread.partition(b"\r\n\r\n")
                    length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
                    if length:
                        unread = unread[int(length[1]) :]
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def take(self):
        """What came since the last time."""
        with self._lock:
            taken, self._bytes = self._bytes, b""
        return taken

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def statuses(address, request, patience=0.3):
    """The statuses that come back, until the other side closes or has nothing more to say."""
    host, _, port = address.rpartition(":")
    said = b""
    with socket.create_connection((host, int(port)), timeout=patience) as client:
        with contextlib.suppress(OSError):
            client.sendall(request)
        with contextlib.suppress(OSError):
            while more := client.recv(65536):
                said += more
                if len(re.findall(rb"HTTP/1\.[01] (?!1)\d{3}", said)) >= 3:
                    break
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", said) if status[:1] != b"1"]


def what_haproxy_refuses_weir_does_not_pass_on(env):
    world = env.world
    before_weir = Recorder(f"{world.address()}:3000")
    before_haproxy = Recorder(f"{world.address()}:3000")
    address = f"{world.address()}:8080"
    config = world.write("haproxy.cfg", HAPROXY.format(address=address, origin=before_haproxy.address))
    haproxy = world.run("haproxy", [tool("haproxy"), "-f", config, "-db"])
    weir = Weir(
        world,
        env.binary,
        f"pools: [{{name: web, health_check: off, backends: [http://{before_weir.address}]}}]\n"
        "limits: {body: 1000000, header_timeout: 2s}\naccess_log: {format: off}\n",
    )
    good = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
    try:
        until("haproxy serves", 10, lambda: statuses(address, good) == [200])
        before_haproxy.take()
        laxer, stricter, count = [], 0, 0
        for section, what, request in cases():
            count += 1
            by_haproxy = statuses(address, request)
            refused = any(status in REFUSALS for status in by_haproxy)
            by_weir = statuses(weir.address, request, 2 if refused else 0.3)
            to_haproxy, to_weir = before_haproxy.take(), before_weir.take()
            if refused and not to_haproxy and to_weir:
                laxer.append(f"{section}: {what}: HAProxy {by_haproxy}, Weir {by_weir}")
            stricter += bool(to_haproxy) and not to_weir
    finally:
        weir.end()
        world.end(haproxy)
        before_weir.close()
        before_haproxy.close()
    print(f"    {count} cases: HAProxy passes on {stricter} that Weir refuses")
    with open(DOCUMENT, encoding="utf-8") as document:
        explained = document.read().split("## Beside HAProxy")[-1]
    unexplained = [case for case in laxer if case.split(": ")[1] not in explained]
    for case in laxer:
        print(f"    {'explained' if case not in unexplained else 'NOT EXPLAINED'}: {case}")
    expect(not unexplained, f"{len(unexplained)} are refused by HAProxy and passed on by Weir")
    expect(count >= 150 and stricter > 10, "hardly anything was compared")


CHECKS = [what_haproxy_refuses_weir_does_not_pass_on]
