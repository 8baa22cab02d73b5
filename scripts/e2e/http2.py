"""HTTP/2 with real clients: curl, h2load, a browser; and streams that go on over reloads."""

import contextlib
import re
import subprocess
import time

from e2e.certs import Authority
from e2e.frames import GOAWAY, HEADERS, REFUSED_STREAM, RESET, Connection
from e2e.servers import NamedOrigin, Weir, clients, tool
from e2e.tls import curl, fingerprint
from e2e.world import Background, expect


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


class Streams(Background):
    """A client that keeps ten streams busy on a connection, and accounts for each of them.

    What a GOAWAY says was not begun is asked again on another connection, as RFC 9113 (6.8) has it.
    Everything else that is not answered whole has failed."""

    def __init__(self, site, secure):
        super().__init__()
        self.site, self.secure = site, secure
        self.done, self.not_begun, self.connections, self.failed = 0, 0, 0, []

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


CHECKS = [
    curl_speaks_http2,
    a_browser_speaks_http2,
    h2load_has_no_failed_request,
    streams_go_on_over_reloads,
]
