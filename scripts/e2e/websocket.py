"""WebSockets with real clients: Python's and Node's, long ones, large ones, and over reloads."""

import asyncio
import contextlib
import json
import os
import ssl
import subprocess
import sys
import time

from e2e.certs import Authority
from e2e.servers import HERE, Weir, clients, tool
from e2e.world import expect, metrics, total, until

# Far below what a tunnel is open for here: none of them may end one.
SHORT = "timeouts: {response: 1s, request: 2s, idle: 2s}"


class Echo:
    """An origin that echoes, and a Weir before it in the clear and by TLS."""

    def __init__(self, env, more=""):
        world = self.world = env.world
        host = world.address()
        command = [sys.executable, os.path.join(HERE, "ws_origin.py"), host, "3000"]
        self.origin = world.run(f"ws-{host}", command)
        world.until_serving(self.origin, f"{host}:3000", "/health")
        self.ca = Authority(world, "authority")
        tls = world.address()
        self.ca.issue("site", ["site.test", tls])
        listener = (
            f'{{address: "{tls}:8443", tls: {{certificates: [{{cert: site.crt, key: site.key}}]}}}}'
        )
        config = f"pools: [{{name: ws, backends: [http://{host}:3000], {SHORT}}}]\n{more}"
        self.weir = Weir(world, env.binary, config, listeners=[listener])
        self.clear, self.secure = f"ws://{self.weir.address}/chat", f"wss://{tls}:8443/chat"

    def connect(self, secure=False):
        from websockets.asyncio.client import connect

        context = ssl.create_default_context(cafile=self.ca.path) if secure else None
        url = self.secure if secure else self.clear
        return connect(url, ssl=context, max_size=None, ping_interval=None, open_timeout=20)

    def end(self):
        self.weir.end()
        self.world.end(self.origin)


@contextlib.contextmanager
def echo(env, more=""):
    clients()
    it = Echo(env, more)
    try:
        yield it
    finally:
        it.end()


def python_exchanges_small_and_large_frames(env):
    async def talk(it, secure):
        async with it.connect(secure) as socket:
            for message in ("hello", b"\0" * 125, b"x" * 70_000, os.urandom(16 << 20)):
                await socket.send(message)
                expect(await asyncio.wait_for(socket.recv(), 60) == message, "another message came")
            await asyncio.wait_for(await socket.ping(), 10)
        expect(socket.close_code == 1000, f"closed with {socket.close_code}")

    with echo(env) as it:
        for secure in (False, True):
            asyncio.run(talk(it, secure))


def node_exchanges_frames_and_closes(env):
    with echo(env) as it:
        for url, ca in ((it.clear, ""), (it.secure, it.ca.path)):
            done = subprocess.run(
                [tool("node"), os.path.join(HERE, "ws_client.mjs"), clients(), url, ca],
                capture_output=True, text=True, timeout=40, check=False,
            )
            said = done.stdout.strip()
            expect(done.returncode == 0 and said, f"{url}: {said} {done.stderr[-500:]}")
            seen = json.loads(said)
            whole = {"texts": 1, "bytes": 1 << 20, "pongs": 1, "code": 1000}
            expect(whole.items() <= seen.items(), f"{url}: {seen}")


def an_idle_websocket_outlives_every_deadline_of_a_request(env):
    seconds = 120 if env.slow else 8

    async def rest(it):
        async with it.connect() as clear, it.connect(True) as secure:
            await asyncio.sleep(seconds)
            for socket in (clear, secure):
                await socket.send("still there?")
                expect(await asyncio.wait_for(socket.recv(), 10) == "still there?", "no echo")

    with echo(env) as it:
        asyncio.run(rest(it))


def websockets_go_on_over_reloads(env):
    async def talk(it, secure, end, counts):
        async with it.connect(secure) as socket:
            while not end.is_set():
                counts[0] += 1
                await socket.send(f"message {counts[0]}")
                await asyncio.wait_for(socket.recv(), 20)
                counts[1] += 1
                await asyncio.sleep(0.01)

    async def reload(it):
        counts, end = [0, 0], asyncio.Event()
        talks = [asyncio.create_task(talk(it, n % 2 == 1, end, counts)) for n in range(20)]
        await asyncio.sleep(0.5)
        # Three workers may drain at once; the oldest of four is ended.
        for _ in range(3):
            await asyncio.to_thread(it.weir.command, "reload")
            await asyncio.sleep(0.5)
        end.set()
        await asyncio.gather(*talks)
        return counts

    with echo(env, "shutdown: {drain: 30s, tunnels: 60s}\n") as it:
        sent, echoed = asyncio.run(reload(it))
        print(f"    {echoed} echoes over three reloads")
        expect(sent == echoed and echoed > 500, f"{sent} sent, {echoed} echoed")


def a_websocket_has_its_own_limit_while_draining(env):
    async def wait(it):
        async with it.connect() as socket:
            await socket.send("x")
            await socket.recv()
            await asyncio.to_thread(it.weir.command, "reload")
            start = time.monotonic()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(socket.recv(), 20)
            return time.monotonic() - start, socket.close_code

    with echo(env, "shutdown: {drain: 30s, tunnels: 2s}\n") as it:
        took, code = asyncio.run(wait(it))
        print(f"    ended after {took:.1f} s, close code {code}")
        expect(1 < took < 10, f"it took {took:.1f} s")
        gone = lambda: total(metrics(it.weir.admin), "lb_tunnels") == 0
        until("no tunnel is left", 10, gone)


CHECKS = [
    python_exchanges_small_and_large_frames,
    node_exchanges_frames_and_closes,
    an_idle_websocket_outlives_every_deadline_of_a_request,
    websockets_go_on_over_reloads,
    a_websocket_has_its_own_limit_while_draining,
]
