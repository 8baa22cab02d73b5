"""The scripted backends: a process of its own, in which each backend can be told to fail.

A backend has a number of places and a service time: this many requests are served at the same time,
each for the service time; the others wait in the backend, first come first served. As in most servers with a
pool of threads, a request that waits is served even if its client has left meanwhile.

The schedule of a run is sent beforehand, so that a fault starts when it should, and what each backend
received is read afterwards.
"""

import asyncio
import collections
import contextlib
import gc
import multiprocessing
import os
import random
import socket
import struct
import time

BODY = b"x" * 200
# What a backend does. `share`: of the requests, that get `status`. `slow`: how many seconds later a response is sent
# than it is ready, without a place being taken meanwhile.
HEALTHY = {
    "share": 0.0,
    "status": 500,
    "hang": False,
    "cut": False,
    "reset": False,
    "slow": 0.0,
}
# A response is cut in the middle of its body this long after its first half.
CUT_AFTER = 0.005


def response(status, body, is_last=False):
    close = "Connection: close\r\n" if is_last else ""
    head = f"HTTP/1.1 {status} Status\r\nContent-Type: text/plain\r\n{close}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


OK = response(200, BODY)
OK_LAST = response(200, BODY, is_last=True)
HALF = OK[: -len(BODY) // 2]


class Connection(asyncio.Protocol):
    """A connection from the proxy. One request at a time, as HTTP/1.1 without pipelining."""

    def __init__(self, backend):
        self.backend = backend
        self.buffer = b""
        self.is_busy = False
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        self.backend.connections.add(self)

    def connection_lost(self, _):
        self.backend.connections.discard(self)
        self.transport = None

    def data_received(self, data):
        self.buffer += data
        if self.is_busy:
            return
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end]
        length = 0
        at = head.lower().find(b"\r\ncontent-length:")
        if at >= 0:
            length = int(head[at + 17 :].split(b"\r\n", 1)[0])
        if len(self.buffer) < end + 4 + length:
            return
        self.buffer = self.buffer[end + 4 + length :]
        method, path = head.split(b" ", 2)[:2]
        self.is_busy = True
        self.backend.received(self, method == b"POST", path)

    def respond(self, data, is_last=False):
        self.is_busy = False
        if self.transport is None:
            return
        self.transport.write(data)
        if is_last or self.backend.is_stopping:
            self.transport.close()
        elif self.buffer:
            self.data_received(b"")

    def reset(self):
        if self.transport is None:
            return
        # Lingering for 0 seconds sends RST; the option belongs to the socket, not to the descriptor.
        with contextlib.suppress(OSError):
            twin = socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno()))
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            twin.close()
        self.transport.abort()


class Backend:
    """One backend: its places, its queue, how it fails, and what it received."""

    def __init__(self, index, address, places, service, seed):
        self.index = index
        self.host, port = address.split(":")
        self.port = int(port)
        self.places, self.service = places, service
        self.normal = (places, service)
        self.busy = 0
        self.waiting = collections.deque()
        self.connections = set()
        self.behaviour = dict(HEALTHY)
        self.dice = random.Random(seed)
        self.server = None
        self.is_stopping = False
        # Requests that are served now: a hard death loses them.
        self.serving = set()
        # (time, request, is it a POST)
        self.arrivals = []
        # When it lost how many POSTs by dying.
        self.doomed_posts = []
        self.health_checks = 0

    async def start(self):
        self.is_stopping = False
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(
            lambda: Connection(self), self.host, self.port, backlog=4096, reuse_address=True
        )

    def stop(self):
        """As in a rolling restart: no new connections, idle ones are closed, requests are finished."""
        self.is_stopping = True
        if self.server is not None:
            self.server.close()
            self.server = None
        for connection in list(self.connections):
            if not connection.is_busy and connection.transport is not None:
                connection.transport.close()

    def die(self):
        """As by kill -9: every connection is reset."""
        if self.server is not None:
            self.server.close()
            self.server = None
        for connection in list(self.connections):
            connection.reset()
        self.doomed_posts.append((time.monotonic(), sum(is_post for _, is_post in self.serving)))
        self.serving.clear()
        self.waiting.clear()

    def set(self, changes):
        for key, value in changes.items():
            if key in ("places", "service"):
                setattr(self, key, value)
            else:
                self.behaviour[key] = value

    def heal(self):
        self.behaviour = dict(HEALTHY)
        self.places, self.service = self.normal
        while self.waiting and self.busy < self.places:
            self.begin(self.waiting.popleft(), time.monotonic())

    def received(self, connection, is_post, path):
        behaviour = self.behaviour
        if behaviour["hang"]:
            if path != b"/health":
                self.arrivals.append((time.monotonic(), int(path.rpartition(b"/")[2]), is_post))
            return
        if path == b"/health":
            self.health_checks += 1
            connection.respond(response(200, b"ok"))
            return
        now = time.monotonic()
        request = (int(path.rpartition(b"/")[2]), is_post)
        self.arrivals.append((now, *request))
        if behaviour["reset"]:
            connection.reset()
        elif behaviour["cut"]:
            connection.transport.write(HALF)
            asyncio.get_running_loop().call_later(CUT_AFTER, connection.reset)
        elif behaviour["share"] and self.dice.random() < behaviour["share"]:
            connection.respond(response(behaviour["status"], b"failed"))
        elif self.busy < self.places:
            self.begin((connection, request), now)
        else:
            self.waiting.append((connection, request))

    def begin(self, job, start):
        """Serves a request from `start` on, which may have been a moment ago: capacity is exact."""
        self.busy += 1
        self.serving.add(job[1])
        end = start + self.service
        loop = asyncio.get_running_loop()
        loop.call_later(max(0.0, end - time.monotonic()), self.finish, job, end)

    def finish(self, job, end):
        connection, request = job
        self.busy -= 1
        self.serving.discard(request)
        if slow := self.behaviour["slow"]:
            asyncio.get_running_loop().call_later(slow, connection.respond, OK)
        else:
            connection.respond(OK_LAST if self.is_stopping else OK)
        while self.waiting and self.busy < self.places:
            self.begin(self.waiting.popleft(), end)


class Process:
    """What runs in the process of the backends."""

    def __init__(self, pipe):
        self.pipe = pipe
        self.backends = []
        self.timers = []
        self.over = asyncio.Event()

    async def run(self):
        loop = asyncio.get_running_loop()
        loop.add_reader(self.pipe.fileno(), self.command)
        gc.disable()
        await self.over.wait()

    def command(self):
        try:
            name, argument = self.pipe.recv()
        except (EOFError, OSError):
            self.over.set()
            return
        asyncio.get_running_loop().create_task(self.obey(name, argument))

    async def obey(self, name, argument):
        if name == "start":
            self.backends = [
                Backend(index, address, argument["places"], argument["service"], index)
                for index, address in enumerate(argument["addresses"])
            ]
            for backend in self.backends:
                await backend.start()
            self.pipe.send(None)
        elif name == "schedule":
            loop = asyncio.get_running_loop()
            for at, what, index, changes in argument:
                delay = max(0.0, at - time.monotonic())
                self.timers.append(loop.call_later(delay, self.act, what, index, changes))
            self.pipe.send(None)
        elif name == "report":
            for timer in self.timers:
                timer.cancel()
            self.timers = []
            for backend in self.backends:
                backend.die()
            self.pipe.send([
                {
                    "arrivals": backend.arrivals,
                    "doomed_posts": backend.doomed_posts,
                    "health_checks": backend.health_checks,
                }
                for backend in self.backends
            ])
            gc.collect()

    def act(self, what, index, changes):
        backend = self.backends[index]
        if what == "start":
            asyncio.get_running_loop().create_task(backend.start())
        elif what == "set":
            backend.set(changes)
        else:
            getattr(backend, what)()


def serve(pipe, parents_end):
    parents_end.close()
    with contextlib.suppress(KeyboardInterrupt):
        loop_policy()
        asyncio.run(_serve(pipe))


async def _serve(pipe):
    await Process(pipe).run()


def loop_policy():
    """uvloop where it is installed: half the CPU time of the plain loop."""
    with contextlib.suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


class Backends:
    """The process of the backends, as the script sees it."""

    def __init__(self):
        context = multiprocessing.get_context("spawn")
        self.pipe, childs_end = context.Pipe()
        self.process = context.Process(target=serve, args=(childs_end, self.pipe), daemon=True)
        self.process.start()
        childs_end.close()

    def ask(self, name, argument=None):
        self.pipe.send((name, argument))
        if not self.pipe.poll(20):
            raise TimeoutError(f"the backends did not do: {name}")
        return self.pipe.recv()

    def close(self):
        self.pipe.close()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
