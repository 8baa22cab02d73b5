"""The cases of tests/http/requests.txt and http2.txt, sent to HAProxy and to Weir before origins that
write down every byte: what HAProxy refuses, Weir must not pass on, unless docs/HTTP.md says why."""

import contextlib
import os
import re
import socket
import threading
import time

from e2e.frames import frame
from e2e.servers import Weir, tool
from e2e.world import expect, until

TABLES = os.path.join(os.path.dirname(__file__), "..", "..", "tests", "http")
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
    bind {address} {more}
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


def cases(name):
    """(section, what comes of it, what comes in, text) of each case."""
    section = ""
    with open(os.path.join(TABLES, name), encoding="utf-8") as table:
        for line in table.read().split("\n"):
            if line.startswith("## "):
                section = line[3:]
            elif line and line[0] not in "#>":
                outcome, _, what, text = line.split(" | ", 3)
                yield section, outcome.split(), what, text


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


class Pair:
    """HAProxy and Weir, each before an origin that writes down what reaches it."""

    def __init__(self, env, http2=False):
        world = self.world = env.world
        self.before_weir = Recorder(f"{world.address()}:3000")
        self.before_haproxy = Recorder(f"{world.address()}:3000")
        self.address = f"{world.address()}:8080"
        origin = self.before_haproxy.address
        text = HAPROXY.format(address=self.address, origin=origin, more="proto h2" if http2 else "")
        config = world.write("haproxy.cfg", text)
        self.haproxy = world.run("haproxy", [tool("haproxy"), "-f", config, "-db"])
        listener = f"{world.address()}:8081"
        self.weir = Weir(
            world,
            env.binary,
            f"pools: [{{name: web, health_check: off, backends: [http://{self.before_weir.address}]}}]\n"
            "limits: {body: 1000000, header_timeout: 2s, http2: {streams: 4}}\n"
            "access_log: {format: off}\n",
            listeners=[f'{{address: "{listener}", http2: true}}'],
        )
        self.weir_address = listener if http2 else self.weir.address

    def take(self):
        """What has reached the two origins since the last time."""
        return self.before_haproxy.take(), self.before_weir.take()

    def end(self):
        self.weir.end()
        self.world.end(self.haproxy)
        self.before_weir.close()
        self.before_haproxy.close()


def expect_explained(laxer):
    """Fails for each case that docs/HTTP.md does not tell of. A case is its section, what comes in,
    and what came of it."""
    with open(DOCUMENT, encoding="utf-8") as document:
        explained = " ".join(document.read().split("## Compared with HAProxy")[-1].split())
    unexplained = [case for case in laxer if case[1] not in explained]
    for case in laxer:
        print(f"    {'NOT EXPLAINED' if case in unexplained else 'explained'}: {': '.join(case)}")
    expect(not unexplained, f"{len(unexplained)} are refused by HAProxy and passed on by Weir")


def what_haproxy_refuses_weir_does_not_pass_on(env):
    pair = Pair(env)
    good = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
    try:
        until("haproxy serves", 10, lambda: statuses(pair.address, good) == [200])
        pair.take()
        laxer, stricter, count = [], 0, 0
        for section, _, what, text in cases("requests.txt"):
            count += 1
            request = unescape(text)
            by_haproxy = statuses(pair.address, request)
            refused = any(status in REFUSALS for status in by_haproxy)
            by_weir = statuses(pair.weir_address, request, 2 if refused else 0.3)
            to_haproxy, to_weir = pair.take()
            if refused and not to_haproxy and to_weir:
                laxer.append((section, what, f"HAProxy {by_haproxy}, Weir {by_weir}"))
            stricter += bool(to_haproxy) and not to_weir
    finally:
        pair.end()
    print(f"    {count} cases: HAProxy passes on {stricter} that Weir refuses")
    expect_explained(laxer)
    expect(count >= 150 and stricter > 10, "hardly anything was compared")


KINDS = (
    "DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY",
    "WINDOW_UPDATE", "CONTINUATION",
)
FLAGS = {"s": 0x1, "h": 0x4, "p": 0x8, "w": 0x20, "-": 0}
PLAIN = ":method: {}¶:scheme: http¶:authority: a.test¶:path: /"
PLAIN_BLOCK = b"\x82\x86\x84\x01\x06a.test"


def block(fields):
    """Fields as literals that are never indexed, in plain letters."""
    out = bytearray()
    for field in filter(None, fields.split("¶")):
        out.append(0x10)
        for text in map(unescape, field.split(": ", 1)):
            length = len(text)
            out.append(min(length, 127))
            if length >= 127:
                length -= 127
                while length >= 128:
                    out.append(length % 128 | 0x80)
                    length //= 128
                out.append(length)
            out += text
    return bytes(out)


def frames_of(text):
    """What a line of http2.txt sends: bytes, and streams that are to be over before it goes on."""
    for part in text.split(" ⇒ ")[0].split(" ▸ "):
        kind, _, rest = part.partition(" ")
        if kind == "RAW":
            yield unescape(rest)
            continue
        if kind == "WAIT":
            yield int(rest)
            continue
        flags, stream, payload = (rest + " ").split(" ", 2)
        payload = payload[:-1]
        number = KINDS.index(kind) if kind in KINDS else 0xFA
        if number not in (0x1, 0x5, 0x9):
            payload = unescape(payload)
        elif payload.startswith("="):
            payload = PLAIN_BLOCK.join(map(unescape, payload[1:].split("…")))
        else:
            payload = block(payload.replace("…", PLAIN.format("GET")).replace("‥", PLAIN.format("POST")))
        yield frame(number, sum(FLAGS[flag] for flag in flags), int(stream), payload)


class Streams:
    """A client of HTTP/2 that takes whatever comes."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=2)
        self.over, self.goaway, self.greeted, self.ended = {}, None, False, False
        self._unread = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        with contextlib.suppress(OSError):
            self.socket.sendall(data)

    def read(self, seconds, enough=lambda: False):
        """Reads until it is enough, or the time is up."""
        end = time.monotonic() + seconds
        while not self.ended and not enough() and (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                return
            except OSError:
                data = b""
            self.ended = not data
            self._unread += data
            while len(self._unread) >= 9 and not self._unread.startswith(b"HTTP/1"):
                length = 9 + int.from_bytes(self._unread[:3], "big")
                if len(self._unread) < length:
                    break
                one, self._unread = self._unread[:length], self._unread[length:]
                self._take(one[3], one[4], int.from_bytes(one[5:9], "big"), one[9:])

    def _take(self, kind, flags, stream, payload):
        if kind == 0x4 and not flags & 0x1:
            self.greeted = True
            self.send(frame(0x4, 0x1, 0))
        elif kind == 0x3:
            self.over[stream] = f"reset {int.from_bytes(payload, 'big')}"
        elif kind == 0x7:
            self.goaway = int.from_bytes(payload[4:8], "big")
        elif kind in (0x0, 0x1) and flags & 0x1:
            self.over.setdefault(stream, "answered")


def said(address, text):
    """What comes of a case: of each stream, and of the connection."""
    with Streams(address) as client:
        if not text.startswith("RAW "):
            client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(0x4, 0, 0, b"\0\1\0\0\0\0"))
            client.read(2, lambda: client.greeted)
        for part in frames_of(text):
            if isinstance(part, int):
                client.read(2, lambda wanted=part: wanted in client.over)
            else:
                client.send(part)
        client.read(0.25)
        return dict(client.over), client.goaway, client.ended


def what_haproxy_refuses_of_http2_weir_does_not_pass_on(env):
    pair = Pair(env, http2=True)
    plain = f"HEADERS sh 1 {PLAIN.format('GET')}"
    try:
        until("haproxy serves", 10, lambda: said(pair.address, plain)[0] == {1: "answered"})
        pair.take()
        laxer, stricter, begun, count = [], [], [0, 0], 0
        for section, outcome, what, text in cases("http2.txt"):
            if "tls" in outcome:
                continue
            count += 1
            by_haproxy, by_weir = said(pair.address, text), said(pair.weir_address, text)
            to_haproxy, to_weir = pair.take()
            # Of what is broken behind its head a part may have been passed on, which was cut then.
            if "cut" in outcome:
                begun = [begun[0] + bool(to_haproxy), begun[1] + bool(to_weir)]
            elif to_weir and not to_haproxy:
                laxer.append((section, what, f"HAProxy {by_haproxy}, Weir {by_weir}"))
            if to_haproxy and not to_weir:
                stricter.append(what)
    finally:
        pair.end()
    print(f"    {count} cases: HAProxy passes on {len(stricter)} that Weir refuses")
    print(f"    broken behind the head: HAProxy has begun {begun[0]}, Weir {begun[1]}")
    for what in stricter:
        print(f"        {what}")
    expect_explained(laxer)
    expect(count >= 150 and len(stricter) > 3, "hardly anything was compared")


CHECKS = [
    what_haproxy_refuses_weir_does_not_pass_on,
    what_haproxy_refuses_of_http2_weir_does_not_pass_on,
]
