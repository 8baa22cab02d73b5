#!/usr/bin/env python3
"""A soak: does any request fail over many reloads and upgrades?

    scripts/soak.py --weir target/release/weir                    ten minutes, 60 reloads, 10 upgrades
    scripts/soak.py --weir target/debug/weir --minutes 1 --reloads 6 --upgrades 1 --requests 20000
    scripts/soak.py --weir target/release/weir --minutes 5 --reloads 40 --kills 5 --requests 500000

wrk brings most of the requests. Beside it run clients that keep their connections: a Prometheus-like
scraper and a health checker on the admin port, POSTs that are sent at once after a response (quick and
slow ones), downloads that last over reloads, WebSockets, and HTTP/2 streams. Each request of theirs has a path of its own.

A request has failed if its client got no whole response with status 200, unless the client may repeat
it: a GET on a kept connection that was closed before the first byte of a response (as Go and browsers
do), or a stream beyond the last one of a GOAWAY. A WebSocket may end after `shutdown.tunnels`, which is
documented; the access log has to give the reason. No page of the scraper may come from a worker before
the one that a finished reload has put in place, and no total may fall. At the end every request that wrk and the others
counted has to be in the access log and in `lb_requests_total`.

With `--kills`, the worker that serves is killed (SIGKILL) now and then. What it had in flight is lost: each
connection may lose what it waits for, once for each kill and until another worker serves. Log lines and counts
of its last moment are lost too, so they are not compared with the requests then.

It prints a table and what failed, and exits 1 if anything did. It needs wrk and nginx, and for HTTP/2 the
clients of `scripts/setup.sh e2e`. It ends by itself, and ends all that it has started.
"""

import argparse
import asyncio
import base64
import collections
import contextlib
import hashlib
import json
import os
import re
import signal
import sys
import time

sys.dont_write_bytecode = True
# h2 is not in every distribution: the Python that scripts/setup.sh has put below target/ has it.
CLIENTS = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", "target", "e2e-clients"))
PYTHON = os.path.join(CLIENTS, "bin", "python")
if os.access(PYTHON, os.X_OK) and os.path.realpath(sys.prefix) != CLIENTS:
    os.execv(PYTHON, [PYTHON, *sys.argv])
from e2e.servers import nginx, tool  # noqa: E402
from e2e.world import Failed, World, expect, get, metrics, total  # noqa: E402

try:
    import h2.config
    import h2.connection
    import h2.events
except ImportError:
    h2 = None

DOWNLOAD_BYTES = 2_000_000
WRK_CONNECTIONS = 64
# How long a client waits for anything.
PATIENCE = 45
TUNNELS = 20
SLOW_CLIENTS = 20

NGINX = """
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_max_body_size 10m;
    server {{
        {listen}
        default_type text/plain;
        location / {{ return 200 "{body}"; }}
        location /download {{ rewrite .* /file break; root {www}; limit_rate {rate}; }}
    }}
"""

WEIR = """
listeners: ["{host}:8080", {{address: "{host}:8081", http2: true}}]
admin: {{address: "{host}:9090"}}
routes:
  - {{path: /ws, pool: slow}}
  - {{path: /slow, pool: slow}}
  - {{pool: web}}
pools:
  - name: web
    backends: [{backends}]
    health_check: {{interval: 2s, timeout: 1s}}
    timeouts: {{request: 5m, idle: {idle}s}}
  - name: slow
    backends: ["http://{slow}"]
    timeouts: {{tunnel: 5m}}
access_log: {{format: json, target: stdout}}
shutdown: {{drain: 120s, tunnels: {tunnels}s}}
"""

# wrk has no rate of its own: each connection waits between two requests.
LUA = "function delay() return %d end\n"


class Closed(Exception):
    """The connection was closed before the first byte of a response."""


class Tally:
    """What became of one kind of client's requests."""

    def __init__(self):
        self.done = 0
        self.repeated = 0
        self.limits = []
        self.failures = []
        # By kills of the worker.
        self.lost = []

    def fail(self, what):
        kept = self.lost if Tally.is_killed else self.failures
        kept.append(f"{time.strftime('%H:%M:%S')} {what}")

    # A worker has been killed, and the next one does not serve yet.
    is_killed = False


class Http1:
    """A connection that is kept for as long as the server keeps it."""

    def __init__(self, host, port):
        self.host, self.port = host, port
        self.reader = self.writer = None

    async def send(self, method, path, body=b""):
        """Sends a request; whether it is the first one of its connection."""
        is_new = self.writer is None
        if is_new:
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        head = f"{method} {path} HTTP/1.1\r\nHost: soak.test\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        return is_new

    async def response(self):
        """Status, header fields and body of the next response."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.close()
            if getattr(error, "partial", b""):
                raise
            raise Closed(repr(error)) from error
        lines = head.decode("latin-1").split("\r\n")
        fields = {}
        for line in filter(None, lines[1:]):
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        body = await self.reader.readexactly(int(fields.get("content-length", 0)))
        if fields.get("connection", "").lower() == "close":
            self.close()
        return int(lines[0].split(" ")[1]), fields, body

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None

    async def ask(self, method, path, tally, body=b"", repeat=True):
        """One request, repeated once where a client may. Its body, or None if it failed."""
        for _ in range(2):
            try:
                is_new = await self.send(method, path, body)
                status, _, got = await asyncio.wait_for(self.response(), PATIENCE)
            except Closed as closed:
                if repeat and not is_new:
                    tally.repeated += 1
                    continue
                tally.fail(f"{method} {path}: closed without a response ({closed}), new={is_new}")
                return None
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
                self.close()
                tally.fail(f"{method} {path}: {error!r}")
                return None
            tally.done += 1
            if status != 200:
                tally.fail(f"{method} {path}: status {status}: {got[:100]!r}")
                return None
            return got
        tally.fail(f"{method} {path}: closed twice")
        return None


class Soak:
    """One run."""

    def __init__(self, world, options):
        self.world, self.options = world, options
        self.host = world.address()
        self.tallies = collections.defaultdict(Tally)
        self.numbers = 0
        self.over = asyncio.Event()
        self.tasks = []
        self.reloads = self.upgrades = self.kills = 0
        # Of the worker that served when the last reload was done.
        self.generation = 1

    def number(self):
        self.numbers += 1
        return self.numbers

    # --- servers ---

    async def start(self):
        world = self.world
        self.backends = [f"{world.address()}:3000" for _ in range(2)]
        os.mkdir(world.path("www"))
        with open(world.path("www/file"), "wb") as file:
            file.write(bytes(range(250)) * (DOWNLOAD_BYTES // 250))
        text = NGINX.format(
            listen=" ".join(f"listen {one};" for one in self.backends),
            body="x" * 64,
            www=world.path("www"),
            # A download lasts over one reload at least, and not over the drain.
            rate=int(DOWNLOAD_BYTES / min(30, max(5, 1.2 * self.seconds / self.options.reloads))),
        )
        process = nginx(world, "nginx", text)
        for one in self.backends:
            world.until_serving(process, one)
        slow = world.address()
        self.origin = await asyncio.start_server(origin, slow, 3000)
        self.slow_address = f"{slow}:3000"
        self.configure()
        self.environment = os.environ | {
            "TMPDIR": world.directory,
            "WEIR_CONTROL": world.path("weir.sock"),
        }
        command = [os.path.abspath(self.options.weir), "run", "-c", world.path("weir.yaml")]
        self.weir = world.run("weir", command, env=self.environment)
        world.until_serving(self.weir, f"{self.host}:9090", "/readyz", seconds=60)

    @property
    def seconds(self):
        return self.options.minutes * 60

    def configure(self):
        """Another configuration each time, or a reload would have nothing to do."""
        text = WEIR.format(
            host=self.host,
            backends=", ".join(f'"http://{one}"' for one in self.backends),
            slow=self.slow_address,
            idle=30 + self.reloads % 2,
            tunnels=TUNNELS,
        )
        self.world.write("weir.yaml", text)

    async def command(self, *arguments):
        process = await asyncio.create_subprocess_exec(
            os.path.abspath(self.options.weir), *arguments, env=self.environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), 120)
        expect(process.returncode == 0, f"weir {' '.join(arguments)}: {said.decode()}")
        return said.decode()

    # --- what happens meanwhile ---

    async def disturb(self):
        """Reloads and upgrades, spread over the run."""
        reloads, upgrades = self.options.reloads, self.options.upgrades
        events = [((at + 1) / (reloads + 1), self.reload) for at in range(reloads)]
        events += [((at + 0.5) / upgrades, self.upgrade) for at in range(upgrades)]
        events += [((at + 0.3) / self.options.kills, self.kill) for at in range(self.options.kills)]
        started = time.monotonic()
        for share, event in sorted(events, key=lambda one: one[0]):
            wait = started + share * self.seconds - time.monotonic()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.over.wait(), max(0, wait))
            await event()
        left = started + self.seconds - time.monotonic()
        await asyncio.sleep(max(0, left))

    async def reload(self):
        self.reloads += 1
        self.configure()
        await self.command("reload")
        found = re.search(r"^worker (\d+): serving", await self.command("status"), re.M)
        self.generation = int(found[1]) if found else self.generation

    async def upgrade(self):
        self.upgrades += 1
        said = ""
        self.weir.send_signal(signal.SIGUSR2)
        for _ in range(300):
            await asyncio.sleep(0.1)
            with contextlib.suppress(Failed):
                said = await self.command("status")
                if f"upgrades: done={self.upgrades} rejected=0" in said:
                    return
        raise Failed(f"upgrade {self.upgrades} was not done: {said}")

    async def kill(self):
        """Kills the worker that serves, and waits for the next one."""
        serving = r"^worker (\d+): serving.* pid=(\d+)"
        before = re.search(serving, await self.command("status"), re.M)
        expect(before, "no worker serves")
        Tally.is_killed = True
        self.kills += 1
        os.kill(int(before[2]), signal.SIGKILL)
        for _ in range(300):
            await asyncio.sleep(0.1)
            now = None
            # While no worker serves, the status is a failure.
            with contextlib.suppress(Failed):
                now = re.search(serving, await self.command("status"), re.M)
            if now and now[1] != before[1]:
                # Clients may learn of it a moment later.
                await asyncio.sleep(2)
                Tally.is_killed = False
                self.generation = int(now[1])
                return
        raise Failed(f"worker {before[1]} was killed, and none has taken its place")

    async def bulk(self):
        """wrk, as many requests as were asked for."""
        tally = self.tallies["wrk"]
        # A fifth less than the mean, for the responses take time, too.
        delay = round(800 * WRK_CONNECTIONS * self.seconds / self.options.requests)
        script = self.world.write("delay.lua", LUA % delay) if delay else None
        command = [tool("wrk"), "-t1", f"-c{WRK_CONNECTIONS}", f"-d{int(self.seconds)}s", "--timeout", "30s"]
        command += ["-s", script] if script else []
        process = await asyncio.create_subprocess_exec(
            *command, f"http://{self.host}:8080/bulk",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said = (await asyncio.wait_for(process.communicate(), self.seconds + 60))[0].decode()
        finally:
            if process.returncode is None:
                process.kill()
        found = re.search(r"(\d+) requests in ", said)
        expect(process.returncode == 0 and found, f"wrk: {said}")
        tally.done = int(found[1])
        for bad in re.findall(r"Socket errors:.*|Non-2xx.*", said):
            # Each kill ends all of its connections.
            numbers = list(map(int, re.findall(r"\d+", bad)))
            if bad.startswith("Socket") and 0 < sum(numbers) <= self.kills * WRK_CONNECTIONS:
                tally.lost += [bad] * sum(numbers)
            else:
                tally.fail(bad)

    async def scraper(self):
        """Scrapes over a kept connection: totals must not fall, the worker not be an older one."""
        tally, client = self.tallies["scraper"], Http1(self.host, 9090)
        before = {"lb_worker_generation": 0.0, "lb_requests_total": 0.0}
        while not self.over.is_set():
            current = self.generation
            page = await client.ask("GET", "/metrics", tally)
            for name, last in before.items() if page else ():
                values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", page.decode(), re.M)
                now = sum(map(float, values))
                if now < last:
                    tally.fail(f"{name} fell from {last} to {now}")
                before[name] = now
            if page and before["lb_worker_generation"] < current:
                tally.fail(f"a page of worker {before['lb_worker_generation']:.0f}, after worker {current} took over")
            await asyncio.sleep(0.5)

    async def checker(self):
        tally, client = self.tallies["health checker"], Http1(self.host, 9090)
        while not self.over.is_set():
            await client.ask("GET", "/readyz", tally)
            await asyncio.sleep(0.2)

    async def poster(self):
        """The next request goes out the moment a response is there; none may be repeated."""
        tally, client = self.tallies["POST"], Http1(self.host, 8080)
        body = b"y" * 2000
        while not self.over.is_set():
            path = f"/post/{self.number()}"
            await client.ask("POST", path, tally, body, repeat=False)
            # Python's loop would have no time for anything else.
            await asyncio.sleep(0.02 if self.number() % 4 else 0)

    async def slow_poster(self):
        """The same with responses that take two seconds, so that many are under way at each reload."""
        tally, client = self.tallies["slow POST"], Http1(self.host, 8080)
        while not self.over.is_set():
            await client.ask("POST", f"/slow/{self.number()}", tally, b"y", repeat=False)

    async def downloader(self):
        tally, client = self.tallies["download"], Http1(self.host, 8080)
        while not self.over.is_set():
            path = f"/download/{self.number()}"
            # It could be repeated, but there is no need to close right behind a response.
            body = await client.ask("GET", path, tally, repeat=False)
            if body is not None and len(body) != DOWNLOAD_BYTES:
                tally.fail(f"{path}: {len(body)} bytes")

    async def websocket(self):
        tally = self.tallies["WebSocket"]
        while not self.over.is_set():
            path = f"/ws/{self.number()}"
            try:
                await self.one_websocket(path, tally)
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
                tally.fail(f"{path}: {error!r}")

    async def one_websocket(self, path, tally):
        reader, writer = await asyncio.open_connection(self.host, 8080)
        try:
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: soak.test\r\nConnection: Upgrade\r\n"
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n\r\n".encode()
            )
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
            if b" 101 " not in head.split(b"\r\n")[0] + b" ":
                return tally.fail(f"{path}: {head[:60]!r}")
            tally.done += 1
            while not self.over.is_set():
                message = b"\x82\x88" + os.urandom(4) + os.urandom(8)
                writer.write(message)
                back = await asyncio.wait_for(reader.read(len(message)), PATIENCE)
                if not back:
                    return self.ended(path, tally)
                if len(back) < len(message):
                    back += await reader.readexactly(len(message) - len(back))
                if back != message:
                    return tally.fail(f"{path}: changed")
                await asyncio.sleep(0.3)
        except ConnectionError:
            self.ended(path, tally)
        finally:
            writer.close()

    @staticmethod
    def ended(path, tally):
        """A WebSocket was closed: the log has to say why, unless its worker was killed."""
        if Tally.is_killed:
            tally.fail(f"{path}: closed")
        else:
            tally.limits.append(path)

    async def streams(self):
        """Ten streams at a time on one HTTP/2 connection after the other."""
        tally = self.tallies["HTTP/2 stream"]
        while not self.over.is_set():
            try:
                await Http2(self, tally).run()
            except (OSError, asyncio.TimeoutError) as error:
                tally.fail(f"HTTP/2: {error!r}")

    # --- the whole ---

    async def run(self):
        await self.start()
        kinds = [self.scraper, self.checker, *[self.poster] * 4, *[self.downloader] * 3]
        kinds += [self.slow_poster] * SLOW_CLIENTS
        kinds += [self.websocket] * 3
        kinds += [self.streams] * 2 if h2 else []
        self.tasks = [asyncio.create_task(kind()) for kind in kinds]
        bulk = asyncio.create_task(self.bulk())
        disturbed = asyncio.create_task(self.disturb())
        for task in asyncio.as_completed([bulk, disturbed, watch(self.tasks, self.over)]):
            await task
            if bulk.done() and disturbed.done():
                break
        self.over.set()
        await asyncio.wait_for(asyncio.gather(*self.tasks), 120)
        await self.settle()
        self.check_log()

    async def settle(self):
        """Waits until nothing drains any more, so that all is counted."""
        for _ in range(1300):
            said = await self.command("status")
            if "draining" not in said:
                break
            await asyncio.sleep(0.1)
        self.samples = metrics(f"{self.host}:9090")
        expect(get(f"{self.host}:9090", "/readyz").status == 200, "not ready at the end")
        self.weir.terminate()
        code = await asyncio.to_thread(self.weir.wait, 60)
        expect(code == 0, f"weir ended with {code}: {self.world.said(self.weir)}")

    def check_log(self):
        """Every end by a limit has its reason in the log, and every request a line and a count."""
        limits = {path for tally in self.tallies.values() for path in tally.limits}
        lines, reasons, seen = 0, collections.Counter(), {}
        with open(self.world.path("weir.out"), encoding="utf-8") as log:
            for text in log:
                lines += 1
                if '"reason"' not in text:
                    continue
                line = json.loads(text)
                reasons[line["reason"]] += 1
                if line.get("path") in limits:
                    seen[line["path"]] = line["reason"]
        tally = self.tallies["access log"]
        tally.done = lines
        for path in sorted(limits - seen.keys()):
            tally.fail(f"{path} ended, and no line says why")
        for path, reason in seen.items():
            if reason != "tunnel_drained":
                tally.fail(f"{path} ended by {reason}")
        # wrk and the WebSockets leave in the middle at the end of the run.
        for reason in set(reasons) - {"tunnel_drained", "client_aborted"}:
            tally.fail(f"{reasons[reason]} lines with the reason {reason}")
        counted = total(self.samples, "lb_requests_total")
        dropped = total(self.samples, "lb_access_log_dropped_total")
        if self.kills:
            print(f"lb_requests_total is {counted:.0f}, and the log has {lines} lines, {dropped:.0f} dropped")
        elif counted != lines + dropped:
            tally.fail(f"lb_requests_total is {counted:.0f}, and the log has {lines} lines, {dropped:.0f} dropped")
        port = [name for name in self.tallies if name not in ("access log", "scraper", "health checker")]
        heard = sum(self.tallies[name].done for name in port)
        if heard > counted and not self.kills:
            tally.fail(f"the clients got {heard} responses, but {counted:.0f} were counted")
        self.reasons = reasons
        clients = {"wrk": WRK_CONNECTIONS, "POST": 4, "slow POST": SLOW_CLIENTS, "download": 3, "WebSocket": 3}
        clients |= {"HTTP/2 stream": 2 * Http2.STREAMS}
        # After a kill, a scrape or two may find the next worker starting (503), and then the totals of the
        # last checkpoint.
        clients |= {"scraper": 3}
        for name, tally in self.tallies.items():
            if len(tally.lost) > self.kills * clients.get(name, 1):
                tally.failures += tally.lost

    def report(self):
        done = f"{self.reloads} reloads, {self.upgrades} upgrades, {self.kills} kills"
        print(f"{done}, {self.options.minutes:g} minutes")
        print(f"{'':16} {'requests':>9} {'failed':>7} {'repeated':>9} {'ended by a limit':>17} {'lost by kills':>14}")
        for name, tally in self.tallies.items():
            row = (tally.done, len(tally.failures), tally.repeated, len(tally.limits), len(tally.lost))
            print(f"{name:16} {row[0]:9} {row[1]:7} {row[2]:9} {row[3]:17} {row[4]:14}")
        if not h2:
            print("HTTP/2 was left out: scripts/setup.sh e2e installs its client")
        for name, tally in self.tallies.items():
            for failure in tally.failures[:20]:
                print(f"failed: {name}: {failure}")
        return sum(len(tally.failures) for tally in self.tallies.values())


class Http2:
    """One connection with several streams at a time, until the server says GOAWAY."""

    STREAMS = 10

    def __init__(self, soak, tally):
        self.soak, self.tally = soak, tally
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        # h2 closes itself at a GOAWAY; RFC 9113 lets the open streams finish.
        machine = self.state.state_machine
        opened, goaway = h2.connection.ConnectionState.CLIENT_OPEN, h2.connection.ConnectionInputs.RECV_GOAWAY
        machine._transitions = machine._transitions | {(opened, goaway): (None, opened)}
        self.paths, self.got = {}, {}
        self.last = None

    def open_streams(self):
        while self.last is None and len(self.paths) < self.STREAMS and not self.soak.over.is_set():
            stream = self.state.get_next_available_stream_id()
            path = f"/stream/{self.soak.number()}"
            fields = {":method": "GET", ":scheme": "http", ":authority": "soak.test", ":path": path}
            self.state.send_headers(stream, list(fields.items()), end_stream=True)
            self.paths[stream] = path

    async def run(self):
        reader, writer = await asyncio.open_connection(self.soak.host, 8081)
        try:
            self.state.initiate_connection()
            self.open_streams()
            writer.write(self.state.data_to_send())
            while self.paths:
                data = await asyncio.wait_for(reader.read(65536), PATIENCE)
                if not data:
                    break
                for event in self.state.receive_data(data):
                    self.handle(event)
                await asyncio.sleep(0.05)
                self.open_streams()
                writer.write(self.state.data_to_send())
            for stream, path in self.paths.items():
                self.tally.fail(f"{path}: stream {stream} without a response, GOAWAY={self.last}")
        finally:
            writer.close()

    def handle(self, event):
        stream = getattr(event, "stream_id", None)
        if isinstance(event, h2.events.ResponseReceived):
            self.got[stream] = dict(event.headers).get(b":status", dict(event.headers).get(":status"))
        elif isinstance(event, h2.events.DataReceived):
            self.state.acknowledge_received_data(event.flow_controlled_length, stream)
        elif isinstance(event, h2.events.StreamEnded):
            self.tally.done += 1
            path, status = self.paths.pop(stream, "?"), self.got.pop(stream, None)
            if status not in (b"200", "200"):
                self.tally.fail(f"{path}: status {status}")
        elif isinstance(event, h2.events.StreamReset):
            self.tally.fail(f"{self.paths.pop(stream, '?')}: reset {event.error_code}")
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.last = event.last_stream_id
            if event.error_code:
                self.tally.fail(f"GOAWAY {event.error_code}")
            for beyond in [one for one in self.paths if one > self.last]:
                # Not processed: a client may send it again on another connection.
                del self.paths[beyond]
                self.tally.repeated += 1


async def watch(tasks, over):
    """A client that ends before the run does has met a bug of this script."""
    over_at = asyncio.create_task(over.wait())
    done, _ = await asyncio.wait([*tasks, over_at], return_when=asyncio.FIRST_COMPLETED)
    for task in done - {over_at}:
        task.result()


async def origin(reader, writer):
    """A WebSocket origin that sends back whatever comes, and for other requests a slow one."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            # A connection that has had slow requests may be asked for a WebSocket next.
            if key := re.search(r"\r\nsec-websocket-key: *(\S+)\r\n", head, re.I):
                break
            length = re.search(r"\r\ncontent-length: *(\d+)\r\n", head, re.I)
            await reader.readexactly(int(length[1]) if length else 0)
            # Header fields that were sent before a reload cannot say that the connection is closed.
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"s" * 4000)
            await asyncio.sleep(2)
            writer.write(b"s" * 1000)
        digest = hashlib.sha1(f"{key[1]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
        )
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weir", metavar="PATH", required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--reloads", type=int, default=60)
    parser.add_argument("--upgrades", type=int, default=10)
    parser.add_argument("--kills", type=int, default=0, help="how often the serving worker is killed")
    parser.add_argument("--requests", type=int, default=1_000_000, help="about as many by wrk")
    options = parser.parse_args()
    if options.minutes <= 0 or options.reloads < 1 or options.upgrades < 1 or options.requests < 1 or options.kills < 0:
        parser.error("each number has to be at least 1")
    world = World()
    soak = Soak(world, options)
    try:
        asyncio.run(asyncio.wait_for(soak.run(), options.minutes * 60 + 400))
    except (Failed, asyncio.TimeoutError) as failed:
        soak.report()
        print(f"failed: {failed!r}", file=sys.stderr)
        return 1
    finally:
        world.close()
    return 1 if soak.report() else 0


if __name__ == "__main__":
    sys.exit(main())
