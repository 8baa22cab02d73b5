"""HTTP/2 with real clients: curl, h2load, a browser; and floods beside a good client."""

import contextlib
import re
import socket
import ssl
import statistics
import struct
import subprocess
import threading
import time

from e2e.certs import Authority
from e2e.servers import NamedOrigin, Weir, clients, tool
from e2e.tls import curl, fingerprint
from e2e.world import children, expect, memory_kib, reset_peak

ATTACK_SECONDS = 6


class Site:
    """An origin behind a Weir that speaks HTTP/2 in the clear and by TLS."""

    def __init__(self, env, more=""):
        world = self.world = env.world
        self.origin = NamedOrigin(world, "site")
        self.ca = Authority(world, "authority")
        self.host = world.address()
        self.ca.issue("site", ["site.test", self.host])
        self.clear, self.tls = f"{self.host}:8081", f"{self.host}:8443"
        listeners = [
            f'{{address: "{self.clear}", http2: true}}',
            f'{{address: "{self.tls}", tls: {{certificates: [{{cert: site.crt, key: site.key}}]}}}}',
        ]
        config = f"pools: [{{name: web, backends: [http://{self.origin.address}]}}]\n{more}"
        self.weir = Weir(world, env.binary, config, listeners=listeners)

    def place(self, secure):
        """Where a client connects, and whom it trusts there."""
        return (self.tls, self.ca.path) if secure else (self.clear, None)

    def end(self):
        self.weir.end()
        self.origin.end()


@contextlib.contextmanager
def site_of(env, more=""):
    site = Site(env, more)
    try:
        yield site
    finally:
        site.end()


def curl_speaks_http2(env):
    with site_of(env) as site:
        for url, more in (
            (f"http://{site.clear}/", ("--http2-prior-knowledge",)),
            (f"https://{site.tls}/", ("--http2", "--cacert", site.ca.path)),
        ):
            code, out, err = curl(*more, "-w", "\n%{http_code} %{http_version}", url)
            last = out.rsplit("\n", 1)[-1]
            expect(code == 0 and last == "200 2", f"{url}: {last!r} {err}")
            code, out, err = curl(*more, "-T", site.ca.path, "-w", "\n%{http_code}", url)
            expect(code == 0 and out.endswith("\n200"), f"an upload to {url}: {out[-200:]!r} {err}")


def a_browser_speaks_http2(env):
    with site_of(env, "access_log: {format: json, target: stdout}\n") as site:
        subprocess.run(
            [
                tool("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
                "--disable-dev-shm-usage", f"--user-data-dir={site.world.path('chromium-2')}",
                f"--ignore-certificate-errors-spki-list={fingerprint(site.world.path('site.crt'))}",
                f"--host-resolver-rules=MAP site.test {site.host}", "https://site.test:8443/page",
            ],
            capture_output=True, text=True, timeout=60, check=False,
        )
        mine = [line for line in site.weir.access_log() if line.get("path") == "/page"]
        expect(mine and mine[0]["status"] == 200, "the page is not in the log")
        expect(mine[0]["protocol"].startswith("HTTP/2"), f"by {mine[0]['protocol']}")


def h2load(*arguments):
    """How many requests succeeded and failed, and what it said."""
    done = subprocess.run(
        [tool("h2load"), *arguments], capture_output=True, text=True, timeout=90, check=False
    )
    found = re.search(r"(\d+) total, .*?(\d+) succeeded, (\d+) failed", done.stdout)
    expect(found, done.stdout[-500:] + done.stderr[-500:])
    return [int(number) for number in found.groups()], done.stdout


def h2load_has_no_failed_request(env):
    with site_of(env) as site:
        for url in (f"http://{site.clear}/", f"https://{site.tls}/"):
            counts, said = h2load("-n", "3000", "-c", "20", "-m", "10", url)
            rate = re.search(r"finished in .*?, ([\d.]+ req/s)", said)
            print(f"    {url}: {rate[1] if rate else said[-200:]}")
            expect(counts == [3000, 3000, 0], f"{url}: {counts}")


class Streams:
    """A client that keeps ten streams busy on a connection, and accounts for each of them.

    What a GOAWAY says was not begun is asked again on another connection, as RFC 9113 (6.8) has it.
    Everything else that is not answered whole has failed."""

    def __init__(self, site, secure):
        self.site, self.secure = site, secure
        self.done, self.not_begun, self.connections, self.failed = 0, 0, 0, []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()
        return self

    def stop(self):
        self._end.set()
        self._thread.join(40)
        expect(not self._thread.is_alive(), "a stream never ended")

    def _run(self):
        while not self._end.is_set():
            self.connections += 1
            try:
                with Connection(*self.site.place(self.secure)) as client:
                    self._use(client)
            except (OSError, ValueError) as error:
                self.failed.append(repr(error))

    def _use(self, client):
        open_streams, last = {}, None
        while True:
            while last is None and not self._end.is_set() and len(open_streams) < 10:
                open_streams[client.ask()] = None
            if not open_streams:
                return
            # The other side may have gone after its last answer; that is still to be read.
            with contextlib.suppress(OSError):
                client.flush()
            try:
                found = client.receive(20)
            except (OSError, ValueError) as error:
                self.failed.append(f"{len(open_streams)} streams cut ({error!r}), GOAWAY {last}")
                return
            for kind, stream, what in found:
                if kind == GOAWAY:
                    last = what
                    for late in [stream for stream in open_streams if stream > last]:
                        del open_streams[late]
                        self.not_begun += 1
                elif stream not in open_streams:
                    continue
                elif kind == HEADERS and what:
                    open_streams[stream] = what
                elif kind == "end":
                    if open_streams.pop(stream) != "200":
                        self.failed.append(f"stream {stream} is no 200")
                    self.done += 1
                elif kind == RESET:
                    del open_streams[stream]
                    if what == REFUSED_STREAM:
                        self.not_begun += 1
                    else:
                        self.failed.append(f"stream {stream} reset by {what}")


def streams_go_on_over_reloads(env):
    clients()
    with site_of(env, "shutdown: {drain: 30s}\n") as site:
        for secure in (False, True):
            load = [Streams(site, secure).start() for _ in range(6)]
            for _ in range(6):
                time.sleep(0.7)
                site.weir.command("reload")
            time.sleep(0.5)
            for one in load:
                one.stop()
            sums = [sum(counts) for counts in zip(*((one.done, one.not_begun, one.connections) for one in load))]
            failed = [failure for one in load for failure in one.failed]
            print(f"    {'TLS' if secure else 'clear'}: {sums[0]} streams on {sums[2]} connections,"
                  f" {sums[1]} asked again, {len(failed)} failed")
            expect(not failed, failed[:3])
            expect(sums[0] > 500 and sums[2] > 12, f"hardly a load, or no reload: {sums}")


class Good:
    """One client that asks over and over on a connection of HTTP/2, and takes the time."""

    def __init__(self, site):
        self.site = site
        self.times, self.errors = [], []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()
        return self

    def stop(self):
        self._end.set()
        self._thread.join(30)

    def _run(self):
        while not self._end.is_set():
            try:
                self._ask_on_one_connection()
            except (OSError, ValueError) as error:
                self.errors.append(repr(error))
                time.sleep(0.05)

    def _ask_on_one_connection(self):
        with Connection(self.site.clear) as client:
            while not self._end.is_set():
                start = time.monotonic()
                mine = client.ask()
                client.flush()
                over = False
                while not over:
                    for kind, stream, what in client.receive(10):
                        if kind == GOAWAY:
                            return  # told to go; the next connection
                        if stream == mine and kind == HEADERS and what != "200":
                            raise ValueError(f"status {what}")
                        if stream == mine and kind == RESET:
                            raise ValueError(f"reset {what}")
                        over |= stream == mine and kind == "end"
                self.times.append(time.monotonic() - start)
                time.sleep(0.005)


class Connection:
    """A client's end of HTTP/2, frame by frame: a library would not send what an attacker does, and
    Python's h2 takes a first GOAWAY for the end."""

    def __init__(self, address, ca=None):
        from hpack import Decoder, Encoder

        host, _, port = address.rpartition(":")
        self.authority = address
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if ca:
            context = ssl.create_default_context(cafile=ca)
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket, server_hostname="site.test")
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


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
REFUSED_STREAM = 7


def rapid_reset(attacker):
    stream, first, packed = 1, attacker.head(), attacker.head()
    while True:
        batch = b""
        for _ in range(100):
            head = first if stream == 1 else packed
            batch += frame(HEADERS, END_STREAM | END_HEADERS, stream, head)
            batch += frame(RESET, 0, stream, struct.pack(">I", 8))
            stream += 2
        yield batch


def endless_continuation(attacker):
    yield frame(HEADERS, END_STREAM, 1, attacker.head())
    while True:
        # A literal field, never indexed: name and value of one letter.
        yield frame(CONTINUATION, 0, 1, b"\x10\x01x\x01y" * 2000)


def settings(attacker):
    while True:
        yield frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 65535)) * 200


def pings(attacker):
    while True:
        yield frame(PING, 0, 0, b"12345678") * 200


def empty_data(attacker):
    packed = attacker.head().replace(b"\x82", b"\x83", 1)  # :method: POST
    yield frame(HEADERS, END_HEADERS, 1, packed)
    while True:
        yield frame(DATA, 0, 1) * 500


def priorities(attacker):
    while True:
        yield frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 16)) * 500


def windows(attacker):
    yield frame(HEADERS, END_HEADERS, 1, attacker.head().replace(b"\x82", b"\x83", 1))
    while True:
        yield frame(WINDOW, 0, 1, struct.pack(">I", 1)) * 500


FLOODS = [
    rapid_reset, endless_continuation, settings, pings, empty_data, priorities, windows
]


def attack(site, flood, end, tally):
    """Floods connection after connection, and counts how many were ended by the other side."""
    while not end.is_set():
        with contextlib.suppress(OSError):
            with Connection(site.clear) as attacker:
                for batch in flood(attacker):
                    if end.is_set():
                        return
                    attacker.socket.settimeout(1)
                    try:
                        attacker.socket.sendall(batch)
                    except OSError:
                        tally["ended"] += 1
                        break
                    tally["bytes"] += len(batch)
        time.sleep(0.01)


def floods_do_not_reach_a_good_client(env):
    clients()
    with site_of(env) as site:
        pids = children(site.weir.process.pid)
        calm = Good(site).start()
        time.sleep(3)
        calm.stop()
        expect(not calm.errors and len(calm.times) > 100, f"calm: {calm.errors[:3]}")
        base = statistics.median(calm.times) * 1000
        print(f"    calm: {len(calm.times)} requests, median {base:.1f} ms,"
              f" memory {memory_kib(pids, 'VmRSS') / 1024:.0f} MiB")
        for flood in FLOODS:
            reset_peak(pids)
            end, tally, good = threading.Event(), {"ended": 0, "bytes": 0}, Good(site).start()
            attackers = [
                threading.Thread(target=attack, args=(site, flood, end, tally), daemon=True)
                for _ in range(2)
            ]
            for thread in attackers:
                thread.start()
            time.sleep(ATTACK_SECONDS)
            end.set()
            for thread in attackers:
                thread.join(20)
            good.stop()
            median = statistics.median(good.times) * 1000 if good.times else float("inf")
            peak = memory_kib(pids, "VmHWM") / 1024
            print(f"    {flood.__name__}: good client {len(good.times)} requests,"
                  f" {len(good.errors)} errors, median {median:.1f} ms (calm {base:.1f});"
                  f" {tally['bytes'] >> 10} KiB sent, {tally['ended']} connections ended;"
                  f" peak {peak:.0f} MiB")
            expect(not good.errors, f"{flood.__name__}: {good.errors[:3]}")
            expect(len(good.times) > 50, f"{flood.__name__}: {len(good.times)} requests")
            expect(tally["ended"] > 0, f"{flood.__name__} was let go on")
            expect(peak < 400, f"{flood.__name__}: {peak:.0f} MiB")


CHECKS = [
    curl_speaks_http2,
    a_browser_speaks_http2,
    h2load_has_no_failed_request,
    streams_go_on_over_reloads,
    floods_do_not_reach_a_good_client,
]
