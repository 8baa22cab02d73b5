"""HTTP/2 frame by frame: a library would not send what an attacker does, and Python's h2 takes a first
GOAWAY for the end."""

import contextlib
import functools
import os
import socket
import ssl
import struct

DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
REFUSED_STREAM = 7


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


@functools.cache
def trusting(ca, _made):
    """What a client needs that speaks HTTP/2 to whom `ca` vouches for; each check makes its own."""
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    return context


class Connection:
    """A client's end, over TLS if it knows whom to trust."""

    def __init__(self, address, ca=None):
        from hpack import Decoder, Encoder

        host, _, port = address.rpartition(":")
        self.authority = address
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if ca:
            self.socket = trusting(ca, os.stat(ca).st_mtime_ns).wrap_socket(self.socket, server_hostname="site.test")
        self._decoder, self._encoder = Decoder(), Encoder()
        self._read, self._next = b"", 1
        self._out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0)
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def head(self):
        """A head, as it is packed."""
        scheme = "https" if isinstance(self.socket, ssl.SSLSocket) else "http"
        return self._encoder.encode([
            (":method", "GET"), (":path", "/"), (":scheme", scheme), (":authority", self.authority)
        ])

    def ask(self):
        """Asks, at the next flush; the stream's number."""
        stream, self._next = self._next, self._next + 2
        self._out += frame(HEADERS, END_STREAM | END_HEADERS, stream, self.head())
        return stream

    def flush(self):
        out, self._out = self._out, b""
        self.socket.sendall(out)

    def receive(self, seconds):
        """What came, as (kind, stream, what): a status, a code, the last stream of a GOAWAY."""
        self.socket.settimeout(seconds)
        data = self.socket.recv(65536)
        if not data:
            raise ValueError("closed")
        self._read += data
        found = []
        while len(self._read) >= 9:
            length = int.from_bytes(self._read[:3], "big")
            if len(self._read) < 9 + length:
                break
            kind, flags = self._read[3], self._read[4]
            stream = int.from_bytes(self._read[5:9], "big") & 0x7FFF_FFFF
            body, self._read = self._read[9 : 9 + length], self._read[9 + length :]
            found += self._understand(kind, flags, stream, body)
        # The other side may have gone by now; what came before that counts.
        with contextlib.suppress(OSError):
            self.flush()
        return found

    def _understand(self, kind, flags, stream, body):
        if kind == HEADERS:
            if not flags & END_HEADERS or flags & 0x28:
                raise ValueError("a head in a form that is not expected")
            yield kind, stream, dict(self._decoder.decode(body)).get(":status")
        elif kind == DATA and body:
            more = struct.pack(">I", len(body))
            self._out += frame(WINDOW, 0, 0, more) + frame(WINDOW, 0, stream, more)
        elif kind == RESET:
            yield kind, stream, int.from_bytes(body, "big")
        elif kind == GOAWAY:
            yield kind, 0, int.from_bytes(body[:4], "big") & 0x7FFF_FFFF
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self._out += frame(kind, ACK, 0, body if kind == PING else b"")
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            yield "end", stream, None
