"""The servers of the run: real origins, and Weir in front of them."""

import json
import os
import shutil
import subprocess
import sys

from e2e.world import Failed, free_port, get, until

HERE = os.path.dirname(os.path.abspath(__file__))
GIB = 1 << 30

NGINX = """
daemon off;
pid {dir}/{name}.pid;
error_log {dir}/{name}.log;
worker_processes 1;
{user}
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {dir}/{name}-body;
    proxy_temp_path {dir}/{name}-proxy;
    fastcgi_temp_path {dir}/{name}-fastcgi;
    uwsgi_temp_path {dir}/{name}-uwsgi;
    scgi_temp_path {dir}/{name}-scgi;
    {http}
}}
"""

FILES = """
    sendfile on;
    server {{
        listen {address};
        root {dir}/www;
        location = /health {{ return 200 "ok"; }}
        location = /nginx/204 {{ return 204; }}
    }}
"""


def tool(name):
    """The path of a program that the run needs."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")
    if not found:
        raise Failed(f"{name} is not installed (scripts/setup.sh e2e installs it)")
    return found


def nginx(world, name, http):
    """Starts an nginx with this inside of `http`; its files begin with its name."""
    # Started by root, its workers would change to a user who may not read our directory.
    user = "user root;" if os.geteuid() == 0 else ""
    config = NGINX.format(dir=world.directory, name=name, user=user, http=http)
    command = [tool("nginx"), "-p", world.directory, "-c", world.write(f"{name}.conf", config)]
    # Without -e it complains about a log directory that it may not write, before it has read where
    # its log is.
    return world.run(name, command + ["-e", world.path(f"{name}.log")])


CLIENTS = os.path.join(os.path.dirname(os.path.dirname(HERE)), "target", "e2e-clients")


def clients():
    """Where the clients are that no Debian package has; their Python runs this."""
    if os.path.realpath(sys.prefix) != os.path.realpath(CLIENTS):
        raise Failed("the clients are not installed (scripts/setup.sh e2e installs them)")
    return CLIENTS


class Origins:
    """nginx, Python's http.server and Node, each with paths that start with its own name."""

    def __init__(self, world):
        self.world = world
        self.addresses = {}
        self._nginx()
        self._python()
        self._node()

    def address(self, path):
        """Where a path is served."""
        return self.addresses[path.split("/")[1]]

    def _nginx(self):
        world = self.world
        address = f"{world.address()}:3000"
        os.makedirs(world.path("www/nginx"), exist_ok=True)
        world.write("www/nginx/small.txt", "from nginx\n")
        with open(world.path("www/nginx/big"), "wb") as big:
            big.truncate(GIB)
        process = nginx(world, "nginx", FILES.format(dir=world.directory, address=address))
        world.until_serving(process, address, "/health")
        self.addresses["nginx"] = address

    def _python(self):
        world = self.world
        host = world.address()
        os.makedirs(world.path("files/python"), exist_ok=True)
        world.write("files/health", "ok")
        world.write("files/python/small.txt", "from python\n")
        command = [sys.executable, "-m", "http.server", "--bind", host]
        process = world.run("python", command + ["--directory", world.path("files"), "3000"])
        world.until_serving(process, f"{host}:3000", "/health")
        self.addresses["python"] = f"{host}:3000"

    def _node(self):
        host = self.world.address()
        command = [tool("node"), os.path.join(HERE, "origin.mjs"), host, "3000"]
        process = self.world.run("node", command)
        self.world.until_serving(process, f"{host}:3000", "/health")
        self.addresses["node"] = f"{host}:3000"


class Weir:
    """One `weir run` with a configuration of its own; `listeners` are more of them, as in a file."""

    def __init__(self, world, binary, config, ready="/readyz", listeners=()):
        self.world, self.binary = world, binary
        self.host = host = world.address()
        self.address, self.admin = f"{host}:8080", f"{host}:9090"
        name = f"weir-{host}"
        all_of_them = ", ".join([f'"{self.address}"', *listeners])
        text = f'listeners: [{all_of_them}]\nadmin: {{address: "{self.admin}"}}\n{config}'
        # What finds this one finds it by these.
        self.environment = os.environ | {
            "TMPDIR": world.directory,
            "WEIR_CONTROL": world.path(f"{name}.sock"),
        }
        self.process = world.run(
            name,
            [binary, "run", "-c", world.write(f"{name}.yaml", text)],
            env=self.environment,
        )
        world.until_serving(self.process, self.admin, ready)

    def command(self, *arguments):
        """Another command of the binary, for this one: it must succeed."""
        done = subprocess.run(
            [self.binary, *arguments], env=self.environment, capture_output=True, text=True,
            timeout=60, check=False,
        )
        if done.returncode:
            raise Failed(f"weir {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def access_log(self):
        """Every whole line of its log that is JSON."""
        with open(self.world.path(f"{self.process.name}.out"), encoding="utf-8") as log:
            whole = log.read().rpartition("\n")[0].splitlines()
        return [json.loads(line) for line in whole if line.startswith("{")]

    def status(self):
        return get(self.admin, "/status").json

    def backends(self):
        """What /status says of each backend, by its address without the scheme."""
        found = {}
        entries = [self.status()]
        while entries:
            entry = entries.pop()
            if isinstance(entry, dict) and "url" in entry and "state" in entry:
                found[entry["url"].removeprefix("http://").rstrip("/")] = entry
            elif isinstance(entry, (dict, list)):
                entries.extend(entry.values() if isinstance(entry, dict) else entry)
        return found

    def until_state(self, address, state, seconds=15):
        until(
            f"{address} is {state}",
            seconds,
            lambda: self.backends()[address]["state"].lower() == state,
        )

    def end(self):
        self.world.end(self.process)


class NamedOrigin:
    """An origin that says its name, and can be killed and started again where it was."""

    def __init__(self, world, name):
        self.world, self.name = world, name
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.start()

    def start(self):
        command = [tool("node"), os.path.join(HERE, "one.mjs"), str(self.port), self.name]
        self.process = self.world.run(f"origin-{self.name}", command)
        self.world.until_serving(self.process, self.address, "/health")

    def kill(self):
        """`kill -9`."""
        self.process.kill()
        self.process.wait(10)

    def end(self):
        self.world.end(self.process)
