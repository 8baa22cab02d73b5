"""TLS with real clients: openssl, curl, Python's ssl, a browser; certificates that change."""

import collections
import contextlib
import re
import socket
import ssl
import subprocess
import threading
import time

from e2e.certs import Authority
from e2e.servers import NamedOrigin, Weir, nginx, tool
from e2e.world import Failed, expect, get, until


class Site:
    """An origin, and a Weir that serves it in the clear and by TLS."""

    def __init__(self, env, tls="", more="", names=("site.test",)):
        self.world = env.world
        self.ca = Authority(env.world, "authority")
        self.origin = NamedOrigin(env.world, "site")
        self.host = env.world.address()
        self.ca.issue("site", [*names, self.host])
        self.tls = f"{self.host}:8443"
        files = "{cert: site.crt, key: site.key}"
        listener = f'{{address: "{self.tls}", tls: {{certificates: [{files}], {tls}}}}}'
        config = f"pools: [{{name: web, backends: [http://{self.origin.address}]}}]\n{more}"
        self.weir = Weir(env.world, env.binary, config, listeners=[listener])

    def end(self):
        self.weir.end()
        self.origin.end()


def s_client(site, *arguments, send="GET / HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n"):
    """What `openssl s_client` says of a connection, and whether it got as far as an answer."""
    done = subprocess.run(
        [tool("openssl"), "s_client", "-connect", site.tls, "-CAfile", site.ca.path, *arguments],
        input=send, capture_output=True, text=True, timeout=20, check=False, errors="replace",
    )
    return done.stdout + done.stderr, "HTTP/1.1 200" in done.stdout


def openssl_gets_the_certificate_of_the_name_it_asks_for(env):
    ca = Authority(env.world, "other")
    ca.issue("named", ["named.test", "*.wild.test"])
    tls = "min_version: '1.2'"
    with contextlib.closing(Named(env, tls)) as site:
        for asked, subject in (
            ("named.test", "named.test"),
            ("a.wild.test", "named.test"),
            ("site.test", "site.test"),
            ("unknown.test", "site.test"),
        ):
            said, answered = s_client(site, "-servername", asked, "-ign_eof")
            found = re.search(r"subject=.*?CN ?= ?(\S+)", said)
            expect(found and found[1] == subject, f"{asked}: {said[-600:]}")
            expect(answered, f"{asked} is not answered")


class Named(Site):
    """With a second certificate."""

    def __init__(self, env, tls):
        super().__init__(env, tls)
        config = self.world.path(f"weir-{self.weir.host}.yaml")
        with open(config, encoding="utf-8") as file:
            text = file.read().replace(
                "{cert: site.crt, key: site.key}",
                "{cert: site.crt, key: site.key}, {cert: named.crt, key: named.key}",
            )
        self.world.write(f"weir-{self.weir.host}.yaml", text)
        self.weir.command("reload")

    def close(self):
        self.end()


@contextlib.contextmanager
def site_of(env, *arguments, **options):
    site = Site(env, *arguments, **options)
    try:
        yield site
    finally:
        site.end()


def openssl_speaks_the_versions_that_are_allowed(env):
    with site_of(env) as site:
        for flag, works in (("-tls1_2", True), ("-tls1_3", True), ("-tls1_1", False)):
            said, answered = s_client(site, flag, "-ign_eof", "-cipher", "DEFAULT:@SECLEVEL=0")
            expect(answered == works, f"{flag}: {said[-600:]}")
            if works:
                version = flag[4:].replace("_", ".")
                expect(f"TLSv{version}" in said, f"{flag}: {said[-600:]}")
        expect("Verify return code: 0 (ok)" in s_client(site, "-ign_eof")[0], "it is not verified")
    with site_of(env, "min_version: '1.3'") as site:
        expect(s_client(site, "-tls1_3", "-ign_eof")[1], "1.3 is not spoken")
        expect(not s_client(site, "-tls1_2", "-ign_eof")[1], "1.2 is spoken")


def openssl_resumes_its_session_also_after_a_reload(env):
    with site_of(env) as site:
        for version in ("-tls1_2", "-tls1_3"):
            session = site.world.path("session.pem")
            said, answered = s_client(site, version, "-ign_eof", "-sess_out", session)
            expect(answered and "New, TLSv1" in said, f"{version}: {said[-600:]}")
            said, answered = s_client(site, version, "-ign_eof", "-sess_in", session)
            expect(answered and "Reused, TLSv1" in said, f"{version} is not resumed: {said[-900:]}")
            # Tickets are sealed for the service, not for one worker.
            said, answered = s_client(site, version, "-ign_eof", "-sess_out", session)
            site.weir.command("reload")
            said, answered = s_client(site, version, "-ign_eof", "-sess_in", session)
            resumed = "Reused, TLSv1" in said
            print(f"    {version} after a reload: {'resumed' if resumed else 'a new session'}")
            expect(answered, f"{version} after a reload: {said[-600:]}")


def openssl_shows_a_client_certificate(env):
    clients, strangers = Authority(env.world, "clients"), Authority(env.world, "strangers")
    good, bad = clients.issue("good", ["good.test"]), strangers.issue("bad", ["bad.test"])
    with site_of(env, "client_ca: clients.crt") as site:
        said, answered = s_client(site, "-ign_eof", "-cert", good[0], "-key", good[1])
        expect(answered, f"a good certificate: {said[-600:]}")
        said, answered = s_client(site, "-ign_eof", "-cert", bad[0], "-key", bad[1])
        expect(not answered and "alert" in said, f"a stranger's certificate: {said[-600:]}")
        said, answered = s_client(site, "-ign_eof")
        expect(not answered and "alert" in said, f"no certificate: {said[-600:]}")


def curl(*arguments):
    done = subprocess.run(
        [tool("curl"), "-sS", "--max-time", "20", *arguments],
        capture_output=True, text=True, timeout=30, check=False,
    )
    return done.returncode, done.stdout, done.stderr


def curl_speaks_each_version_of_http(env):
    wanted = [("--http1.0", "1.0"), ("--http1.1", "1.1")]
    with site_of(env) as site:
        resolve = ("--resolve", f"site.test:8443:{site.host}", "--cacert", site.ca.path)
        for flag, version in wanted:
            for url, more in ((f"http://{site.weir.address}/", ()), ("https://site.test:8443/", resolve)):
                code, out, err = curl(flag, *more, "-w", "\n%{http_code} %{http_version}", url)
                last = out.rsplit("\n", 1)[-1]
                # Weir answers 1.0 with its own version, as it has to (RFC 9112).
                expect(code == 0 and last.startswith("200 1"), f"{flag} {url} ({version}): {last!r} {err}")


class Handshakes:
    """Clients that connect by TLS, ask once, and account for it."""

    def __init__(self, site, threads=4):
        self.site = site
        self.context = ssl.create_default_context(cafile=site.ca.path)
        self.answers = 0
        self.errors = collections.Counter()
        self.serials = set()
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def start(self):
        for thread in self._threads:
            thread.start()
        return self

    def stop(self):
        self._end.set()
        for thread in self._threads:
            thread.join(30)

    def once(self):
        host, _, port = self.site.tls.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as plain:
            with self.context.wrap_socket(plain, server_hostname="site.test") as secure:
                serial = int(secure.getpeercert()["serialNumber"], 16)
                secure.sendall(b"GET / HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n")
                answer = b""
                while piece := secure.recv(65536):
                    answer += piece
        if not answer.startswith(b"HTTP/1.1 200"):
            raise ValueError(answer[:60])
        return serial

    def _run(self):
        while not self._end.is_set():
            try:
                serial = self.once()
            except (OSError, ValueError) as error:
                with self._lock:
                    self.errors[repr(error)] += 1
                time.sleep(0.01)
            else:
                with self._lock:
                    self.answers += 1
                    self.serials.add(serial)


SWAPS = 100


def certificates_swapped_100_times_fail_no_handshake(env):
    with site_of(env) as site:
        load = Handshakes(site).start()
        try:
            for swap in range(SWAPS):
                site.ca.issue("site", ["site.test", site.host], serial=1000 + swap)
                if swap % 5 == 4:
                    site.weir.command("reload")
                time.sleep(0.05)
            last = 1000 + SWAPS - 1
            until("the last certificate is used", 20, lambda: last in load.serials)
        finally:
            load.stop()
        print(f"    {load.answers} handshakes, {len(load.serials)} certificates seen")
        expect(not load.errors, f"failed: {dict(load.errors)}")
        expect(load.answers > 200, f"hardly a load: {load.answers}")
        expect(len(load.serials) >= 10, f"only {len(load.serials)} certificates were seen")


def a_browser_loads_a_page_by_tls(env):
    with site_of(env, more="access_log: {format: json, target: stdout}\n") as site:
        directory = site.world.path("chromium")
        pin = fingerprint(site.world.path("site.crt"))
        done = subprocess.run(
            [
                tool("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
                "--disable-dev-shm-usage", f"--user-data-dir={directory}",
                f"--ignore-certificate-errors-spki-list={pin}",
                f"--host-resolver-rules=MAP site.test {site.host}", "https://site.test:8443/page",
            ],
            capture_output=True, text=True, timeout=60, check=False,
        )
        expect("site" in done.stdout, f"{done.stdout[-500:]} {done.stderr[-500:]}")
        lines = site.weir.access_log()
        mine = [line for line in lines if line.get("path") == "/page"]
        expect(mine and mine[0]["status"] == 200, f"not in the log: {lines[-3:]}")
        print(f"    by {mine[0]['protocol']}, {mine[0].get('scheme')}")


def fingerprint(cert):
    """The hash of a public key, as Chromium pins it."""
    script = (
        f"openssl x509 -in '{cert}' -pubkey -noout | openssl pkey -pubin -outform der"
        " | openssl dgst -sha256 -binary | openssl enc -base64"
    )
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=20, check=True)
    if not done.stdout.strip():
        raise Failed(f"no fingerprint: {done.stderr}")
    return done.stdout.strip()


NGINX = """
    server {{
        listen {address} ssl http2;
        ssl_certificate {dir}/origin.crt;
        ssl_certificate_key {dir}/origin.key;
        location / {{ return 200 "$server_protocol $ssl_server_name"; }}
    }}
"""


def nginx_is_reached_by_tls_and_must_show_who_it_is(env):
    world = env.world
    good, other = Authority(world, "origins"), Authority(world, "others")
    good.issue("origin", ["origin.test"])
    address = f"{world.address()}:3443"
    origin = nginx(world, "nginx-tls", NGINX.format(dir=world.directory, address=address))
    pool = "backends: [https://{}], health_check: off, tls: {{ca: {}, server_name: {}}}"
    cases = [
        ("http1", "origins.crt", "origin.test", 200, "HTTP/1.1 origin.test"),
        ("auto", "origins.crt", "origin.test", 200, "HTTP/2.0 origin.test"),
        ("h2", "origins.crt", "origin.test", 200, "HTTP/2.0 origin.test"),
        ("auto", "others.crt", "origin.test", 502, None),
        ("auto", "origins.crt", "another.test", 502, None),
    ]
    expect(other.path.endswith("others.crt"), other.path)
    pools = "".join(
        f"  - {{name: p{n}, protocol: {protocol}, {pool.format(address, ca, name)}}}\n"
        for n, (protocol, ca, name, _, _) in enumerate(cases)
    )
    routes = "".join(f"  - {{path: /{n}, pool: p{n}}}\n" for n in range(len(cases)))
    weir = Weir(world, env.binary, f"routes:\n{routes}pools:\n{pools}")
    try:
        for n, (protocol, ca, name, status, body) in enumerate(cases):
            for _ in range(3):
                answer = get(weir.address, f"/{n}")
                case = f"{protocol} {ca} {name}: {answer.status} {answer.text!r}"
                expect(answer.status == status and body in (None, answer.text), case)
    finally:
        weir.end()
        world.end(origin)


CHECKS = [
    nginx_is_reached_by_tls_and_must_show_who_it_is,
    openssl_gets_the_certificate_of_the_name_it_asks_for,
    openssl_speaks_the_versions_that_are_allowed,
    openssl_resumes_its_session_also_after_a_reload,
    openssl_shows_a_client_certificate,
    curl_speaks_each_version_of_http,
    certificates_swapped_100_times_fail_no_handshake,
    a_browser_loads_a_page_by_tls,
]
