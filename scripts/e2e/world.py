"""What the checks stand on: addresses, processes that are ended, HTTP, load, numbers.

Every process that is started here is ended here, by its id and with all its children, however a
check ends. Addresses are loopback addresses of this run's own, so ports need no search.
"""

import asyncio
import collections
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time


class Failed(Exception):
    """A check did not hold."""


def expect(holds, what):
    if not holds:
        raise Failed(what)


def until(what, seconds, look):
    """Waits until `look` gives something true and gives it back. What it raises means: not yet."""
    end = time.monotonic() + seconds
    last = None
    while time.monotonic() < end:
        try:
            found = look()
            if found:
                return found
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            last = error
        time.sleep(0.02)
    raise Failed(f"not within {seconds} s: {what}" + (f" ({last!r})" if last else ""))


def children(of):
    """Ids of the processes whose ancestor is `of`, and `of`."""
    parent = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stat:
                    # The name is in parentheses and may have anything in it.
                    parent[int(entry)] = int(stat.read().rpartition(") ")[2].split()[1])
    tree = [of]
    for pid in tree:
        tree.extend(child for child, its in parent.items() if its == pid)
    return tree


def memory_kib(pids, field):
    """The sum of a field of /proc/PID/status, such as VmRSS, over processes."""
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            with open(f"/proc/{pid}/status", encoding="utf-8") as status:
                found = re.search(rf"^{field}:\s+(\d+) kB", status.read(), re.MULTILINE)
            total += int(found[1]) if found else 0
    return total


def reset_peak(pids):
    """Makes VmHWM start anew from what is resident now."""
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            with open(f"/proc/{pid}/clear_refs", "w", encoding="utf-8") as clear:
                clear.write("5")


class World:
    """One run: its directory, its addresses, its processes."""

    def __init__(self):
        # After SIGTERM, `finally` still ends the processes that were started.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self.directory = tempfile.mkdtemp(prefix="weir-e2e-")
        self.processes = []
        pid = os.getpid()
        self._network = f"127.{20 + pid % 40}.{pid // 40 % 250 + 1}"
        self._host = 0

    def address(self):
        """A loopback address that nothing else in this run has."""
        self._host += 1
        return f"{self._network}.{self._host}"

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def run(self, name, command, stdout=None, **options):
        """Starts a process whose output goes to NAME.out and NAME.err in the directory."""
        with open(self.path(f"{name}.out"), "ab") as out, open(self.path(f"{name}.err"), "ab") as err:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stdout or out, stderr=err, **options
            )
        process.name = name
        self.processes.append(process)
        return process

    def said(self, process):
        """The end of what it wrote, for a message."""
        text = ""
        for end in ("out", "err"):
            with open(self.path(f"{process.name}.{end}"), encoding="utf-8", errors="replace") as file:
                text += file.read()[-1500:]
        return text

    def until_serving(self, process, address, path="/", seconds=15):
        """Waits until `path` is answered with 200; a process that ends instead has failed."""

        def look():
            if process.poll() is not None:
                raise Failed(f"{process.name} ended ({process.returncode}): {self.said(process)}")
            return get(address, path).status == 200

        until(f"{process.name} serves {path} at {address}", seconds, look)

    def end(self, process):
        """Ends a process and its children: first asked, then killed."""
        if process.poll() is None:
            tree = children(process.pid)
            # A stopped process is not asked anything before it goes on.
            for pid in tree:
                send(pid, signal.SIGCONT)
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)
            for pid in tree:
                # The root is waited for by us, so its id cannot be another's; a child that has
                # gone was waited for by its parent, and its id is not given out again this soon.
                if pid != process.pid or process.poll() is None:
                    send(pid, signal.SIGKILL)
            process.wait(10)
        if process in self.processes:
            self.processes.remove(process)

    def close(self):
        for process in reversed(list(self.processes)):
            with contextlib.suppress(Exception):
                self.end(process)
        shutil.rmtree(self.directory, ignore_errors=True)


def send(pid, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


# --- HTTP ---


class Answer:
    """An answer read to its end."""

    def __init__(self, response, body):
        self.status = response.status
        self.headers = response.headers
        self.body = body

    @property
    def text(self):
        return self.body.decode("utf-8", "replace")

    @property
    def json(self):
        return json.loads(self.body)


def ask(address, method, path, body=None, headers=None, timeout=30, **options):
    """One request on a connection of its own. A body that ends early raises."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    with contextlib.closing(connection):
        connection.request(method, path, body=body, headers=headers or {}, **options)
        response = connection.getresponse()
        return Answer(response, response.read())


def get(address, path, headers=None, timeout=30):
    return ask(address, "GET", path, headers=headers, timeout=timeout)


def metrics(address):
    """The samples of /metrics: (name, labels as a frozen set of pairs) to value."""
    answer = get(address, "/metrics")
    expect(answer.status == 200, f"/metrics says {answer.status}")
    samples = {}
    for line in answer.text.splitlines():
        if line and not line.startswith("#"):
            found = re.fullmatch(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)", line)
            expect(found, f"no sample: {line!r}")
            labels = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[2] or "")
            samples[found[1], frozenset(labels)] = float(found[3])
    return samples


def total(samples, name, **labels):
    """The sum of the samples called `name` that have all the labels."""
    wanted = set(labels.items())
    return sum(value for (its, has), value in samples.items() if its == name and wanted <= has)


# --- load ---


class Background:
    """Something that goes on beside a check, by `_run`, until `_end` is set."""

    def __init__(self):
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self._thread.start()
        return self

    def stop(self):
        """Lets what is under way finish."""
        self._end.set()
        self._thread.join(60)
        expect(not self._thread.is_alive(), "what went on beside the check never ended")
        return self


class Load(Background):
    """Clients that ask over and over on kept connections, and account for every request."""

    def __init__(self, address, path="/", connections=64):
        super().__init__()
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self.request = f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()
        self.connections = connections
        self.statuses = collections.Counter()
        self.errors = collections.Counter()

    @property
    def done(self):
        return sum(self.statuses.values()) + sum(self.errors.values())

    @property
    def failed(self):
        """Requests without an answer of 2xx."""
        return self.done - sum(n for status, n in self.statuses.items() if 200 <= status < 300)

    def account(self):
        return f"{self.done} requests, {dict(self.statuses)}, errors {dict(self.errors)}"

    def _run(self):
        asyncio.run(self._all())

    async def _all(self):
        await asyncio.gather(*(self._client() for _ in range(self.connections)))

    async def _client(self):
        reader = writer = None
        while not self._end.is_set():
            try:
                if writer is None:
                    reader, writer = await asyncio.wait_for(
                        asyncio.open_connection(self.host, self.port), 10
                    )
                writer.write(self.request)
                status, is_last = await asyncio.wait_for(self._answer(reader), 40)
                self.statuses[status] += 1
            except (OSError, ValueError, asyncio.TimeoutError, asyncio.IncompleteReadError) as error:
                self.errors[repr(error)] += 1
                is_last = True
                await asyncio.sleep(0.01)
            if is_last and writer is not None:
                writer.close()
                reader = writer = None
        if writer is not None:
            writer.close()

    @staticmethod
    async def _answer(reader):
        """The status of one answer, read whole, and whether the server closes after it."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        version, status = head.split(None, 2)[:2]
        length = re.search(r"\r\ncontent-length: *(\d+)\r\n", head)
        if length:
            await reader.readexactly(int(length[1]))
        elif "\r\ntransfer-encoding: chunked\r\n" in head:
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                await reader.readexactly(size + 2)
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
        elif int(status) not in (204, 304):
            raise ValueError("an answer without framing")
        return int(status), version == "http/1.0" or "\r\nconnection: close\r\n" in head


def free_port():
    """A port of 127.0.0.1 below those that the kernel hands out to outgoing connections."""
    start = 20_000 + os.getpid() % 5_000
    for port in range(start, 30_000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise Failed("no free port")
