"""The clients: requests at fixed moments, whatever became of those before (an open loop).

The latency of a request counts from the moment at which it was to be sent. Connections are kept; a request
gets an idle one, or a new one.
"""

import asyncio
import collections
import gc
import time

POST_BODY = b"p" * 100

# One request: when it was to be sent, what became of it (a status or a word) and after how many seconds.
Result = collections.namedtuple("Result", "number at is_post outcome seconds aborts")
Planned = collections.namedtuple("Planned", "number at is_post aborts")


class Connection(asyncio.Protocol):
    """A connection of a client, with at most one request."""

    def __init__(self, load):
        self.load = load
        self.transport = None
        self.planned = None
        self.timer = None
        self.reset_buffer()

    def reset_buffer(self):
        self.buffer = b""
        self.head_end = -1
        self.status = 0
        self.length = None
        self.closes = False

    def connection_made(self, transport):
        self.transport = transport

    def send(self, planned):
        self.planned = planned
        self.reset_buffer()
        if planned.is_post:
            head = f"POST /r/{planned.number} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(POST_BODY)}\r\n\r\n"
            data = head.encode() + POST_BODY
        else:
            data = f"GET /r/{planned.number} HTTP/1.1\r\nHost: test\r\n\r\n".encode()
        self.transport.write(data)
        patience = planned.aborts or self.load.patience
        self.timer = self.load.loop.call_later(patience, self.give_up)

    def give_up(self):
        self.done("aborted" if self.planned.aborts else "timeout")
        self.transport.abort()

    def data_received(self, data):
        if self.planned is None:
            return
        self.buffer += data
        if self.head_end < 0:
            self.read_head()
        if self.head_end >= 0:
            body = len(self.buffer) - self.head_end
            if self.length is not None:
                if body >= self.length:
                    self.finish()
            elif self.buffer.endswith(b"0\r\n\r\n"):
                self.finish()

    def read_head(self):
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        self.head_end = end + 4
        self.status = int(head.split(b" ", 2)[1])
        at = head.find(b"\r\ncontent-length:")
        if at >= 0:
            self.length = int(head[at + 17 :].split(b"\r\n", 1)[0])
        elif b"\r\ntransfer-encoding:" not in head:
            # The body ends with the connection.
            self.length = 1 << 60
        self.closes = b"\r\nconnection: close" in head

    def finish(self):
        closes = self.closes
        self.done(self.status)
        if closes:
            self.transport.close()
        else:
            self.load.idle.append(self)

    def connection_lost(self, _):
        if self.planned is None:
            if self in self.load.idle:
                self.load.idle.remove(self)
        elif self.head_end < 0:
            self.done("closed")
        elif self.length == 1 << 60 and self.status != 200:
            self.done(self.status)
        else:
            self.done("cut")

    def done(self, outcome):
        planned, self.planned = self.planned, None
        self.timer.cancel()
        self.load.record(planned, outcome)


class Load:
    """One run of requests against one address."""

    def __init__(self, address, patience):
        self.host, port = address.split(":")
        self.port = int(port)
        self.patience = patience
        self.loop = asyncio.get_running_loop()
        self.idle = []
        self.results = []
        self.opening = set()
        self.start = 0.0
        # How late each request was sent: the measure of the clients themselves.
        self.lateness = []

    async def run(self, plan, start):
        """Sends each request at `start + at`; waits until something became of each of them."""
        self.start = start
        gc.collect()
        gc.disable()
        try:
            for planned in plan:
                while (delay := start + planned.at - time.monotonic()) > 0.0003:
                    await asyncio.sleep(delay)
                self.lateness.append(-delay)
                self.send(planned)
            for _ in range(int((self.patience + 5) / 0.02)):
                if len(self.results) == len(plan):
                    break
                await asyncio.sleep(0.02)
        finally:
            gc.enable()
            for connection in self.idle:
                connection.transport.abort()
        return self.results

    def send(self, planned):
        while self.idle:
            connection = self.idle.pop()
            if not connection.transport.is_closing():
                connection.send(planned)
                return
        task = self.loop.create_task(self.open(planned))
        # The loop itself keeps only a weak reference.
        self.opening.add(task)
        task.add_done_callback(self.opening.discard)

    async def open(self, planned):
        try:
            _, connection = await asyncio.wait_for(
                self.loop.create_connection(lambda: Connection(self), self.host, self.port), self.patience
            )
        except (OSError, asyncio.TimeoutError):
            self.record(planned, "refused")
            return
        if connection.transport.is_closing():
            self.record(planned, "closed")
            return
        connection.send(planned)

    def record(self, planned, outcome):
        seconds = time.monotonic() - self.start - planned.at
        self.results.append(
            Result(planned.number, planned.at, planned.is_post, outcome, seconds, bool(planned.aborts))
        )
