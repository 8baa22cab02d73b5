#!/usr/bin/env python3
"""Runs the image as an engine would, and looks at what it does.

scripts/image.sh calls it inside new mount and network namespaces, with the root of a container and
what `buildah inspect` says of the image. Weir becomes process 1 of a PID namespace, with the user,
environment and command of the image and a read-only root; what an operator
mounts (a directory with weir.yaml, a tmpfs for the control socket) is mounted. Nothing outside of the
namespaces is touched. A line per check; exit 1 if one failed.
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

CONFIG = """\
admin: {{address: 0.0.0.0:9090}}
pools:
  - name: web
    backends: [{backends}]
    health_check: {{path: /health, interval: 1s, timeout: 500ms}}
access_log: {{format: off}}
"""
DEADLINE_S = 30
failures = 0


def check(name, passed, seen=""):
    """One claim; `seen` is what contradicts it."""
    global failures
    failures += not passed
    print(f"{'ok  ' if passed else 'FAIL'} {name}" + ("" if passed or not seen else f": {seen}"))


def eventually(what):
    """Waits until `what` returns something true, and returns that; at last, whatever it returns."""
    until = time.monotonic() + DEADLINE_S
    while True:
        result = what()
        if result or time.monotonic() > until:
            return result
        time.sleep(0.05)


def run(*command, **more):
    return subprocess.run(command, check=True, **more)


def get(url):
    """Status and body; 0 if nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def names_server():
    """A DNS server that knows one name: `origin.test` is 127.0.0.3."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.53", 53))

    def serve():
        while True:
            query, client = server.recvfrom(512)
            end = query.index(b"\0", 12) + 5
            question, kind = query[12:end], struct.unpack("!H", query[end - 4 : end - 2])[0]
            known = question.lower().startswith(b"\x06origin\x04test\0")
            answers = known and kind == 1
            flags = 0x8180 if known else 0x8183
            head = query[:2] + struct.pack("!HHHHH", flags, 1, int(answers), 0, 0)
            record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes([127, 0, 0, 3])
            server.sendto(head + question + (record if answers else b""), client)

    threading.Thread(target=serve, daemon=True).start()


class Container:
    """The image, run."""

    def __init__(self, root, image, mounted):
        self.root, self.image = root, image["Docker"]["config"]
        self.mounted = mounted
        self.environment = dict(line.split("=", 1) for line in self.image["Env"])
        self.user = self.image["User"]
        self.main = None

    def mount(self):
        """Read-only, but for what an engine and an operator mount."""
        uid = self.user.split(":")[0]
        for directory in ("proc", "dev", "etc/weir", "run/weir"):
            (self.root / directory).mkdir(parents=True, exist_ok=True)
        for file in ("etc/hosts", "etc/resolv.conf"):
            (self.root / file).touch()
        run("mount", "--bind", self.root, self.root)
        run("mount", "-o", "remount,bind,ro", self.root)
        run("mount", "--bind", "-o", "ro", self.mounted, self.root / "etc/weir")
        control = f"uid={uid},gid={uid},mode=0700,size=64k"
        run("mount", "-t", "tmpfs", "-o", control, "control", self.root / "run/weir")
        for name, text in (("hosts", "127.0.0.1 localhost\n127.0.0.2 listed.test\n"),
                           ("resolv.conf", "nameserver 127.0.0.53\n")):
            file = self.mounted.parent / name
            file.write_text(text)
            run("mount", "--bind", file, self.root / "etc" / name)

    def enter(self, command):
        """A command line that runs `command` in the image, as its user."""
        return [shutil.which("chroot"), f"--userspec={self.user}", str(self.root), *command]

    def start(self):
        """As `docker run` does: what the image says becomes process 1."""
        proc = f'mount -t proc proc {self.root}/proc && exec "$@"'
        self.main = subprocess.Popen(
            [shutil.which("unshare"), "--mount", "--pid", "--fork", "--kill-child",
             "/bin/sh", "-c", proc, "sh", *self.enter([*self.image["Entrypoint"], *self.image["Cmd"]])],
            env=self.environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.log = []
        threading.Thread(target=lambda: self.log.extend(self.main.stderr), daemon=True).start()
        self.first = eventually(self.first_process)

    def first_process(self):
        """Process 1 of the container, by its number out here."""
        try:
            children = pathlib.Path(f"/proc/{self.main.pid}/task/{self.main.pid}/children").read_text()
            return int(children.split()[0])
        except (OSError, IndexError):
            return None

    def processes(self):
        """Everybody in the container: (number inside, user ids)."""
        space = os.readlink(f"/proc/{self.first}/ns/pid")
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.readlink(entry / "ns/pid") == space:
                    status = dict(line.split(":\t", 1) for line in (entry / "status").open())
                    found.append((int(status["NSpid"].split()[-1]), status["Uid"].split(),
                                  status["State"].split()[0], int(status["CapEff"], 16)))
            except OSError:
                pass
        return sorted(found)

    def execute(self, command):
        """As `docker exec` and the health check do."""
        return subprocess.run(
            [shutil.which("nsenter"), f"--target={self.first}", "--pid", "--mount", "--",
             *self.enter(command)],
            env=self.environment, capture_output=True, text=True, check=False)

    def signal(self, number):
        os.kill(self.first, number)

    def ended(self):
        """Its exit code."""
        try:
            return self.main.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            return "still there"


def size(root):
    """Bytes of the files, each once."""
    files = {}
    for directory, _, names in os.walk(root):
        for name in names:
            status = os.lstat(os.path.join(directory, name))
            files[status.st_ino] = status.st_size
    return sum(files.values())


def serves(container):
    health = container.image["Healthcheck"]["Test"]
    assert health[0] == "CMD", health
    healthy = eventually(lambda: container.execute(health[1:]).returncode == 0)
    check("the health check passes once it serves", healthy, "".join(container.log))
    status, body = get("http://127.0.0.1:8080/hello")
    check("it serves", status == 200, f"{status} {body}")
    names = {json.loads(get("http://127.0.0.1:8080/")[1]).get("server") for _ in range(10)}
    check("a backend by a name of /etc/hosts and one by DNS both answer",
          names == {"listed", "resolved"}, names)
    status, _ = get("http://127.0.0.1:9090/readyz")
    check("it is ready", status == 200, status)


def has_no_root(container):
    processes = container.processes()
    check("it is process 1, with one worker", len(processes) == 2 and processes[0][0] == 1, processes)
    check("no process is root", all("0" not in users for _, users, _, _ in processes), processes)
    check("no process has a capability", all(not able for *_, able in processes), processes)


def reloads(container, file):
    file.write_text(CONFIG.format(backends="http://listed.test:3000"))
    container.signal(signal.SIGHUP)
    alone = eventually(lambda: '"reloads_done": 1' in get("http://127.0.0.1:9090/status")[1])
    check("SIGHUP reloads", alone, "".join(container.log))
    names = {json.loads(get("http://127.0.0.1:8080/")[1]).get("server") for _ in range(10)}
    check("the new file is served", names == {"listed"}, names)
    file.write_text("pools: 1\n")
    refused = container.execute(["/usr/bin/weir", "reload"])
    check("a bad file is refused and the caller told where it is bad",
          refused.returncode == 1 and "weir.yaml:1:" in refused.stderr, refused)
    status, _ = get("http://127.0.0.1:8080/")
    check("the old file is served on", status == 200, status)
    eventually(lambda: len(container.processes()) == 2)
    processes = container.processes()
    check("no former worker and no zombie is left",
          len(processes) == 2 and all(state != "Z" for _, _, state, _ in processes), processes)


def stops(container):
    container.signal(signal.SIGTERM)
    code = container.ended()
    check("SIGTERM stops it with exit code 0", code == 0, f"{code} {''.join(container.log)}")


def runs_without_a_mount(container):
    run("umount", container.root / "etc/weir")
    container.environment["WEIR_BACKENDS"] = "http://127.0.0.2:3000"
    container.start()
    status = eventually(lambda: get("http://127.0.0.1:8080/")[0])
    check("it serves by the environment alone", status == 200, "".join(container.log))
    status, _ = get("http://127.0.0.1:9090/healthz")
    check("the admin port can be reached from outside", status == 200, status)
    # The command itself dies with process 1, perhaps before it can say so.
    container.execute(["/usr/bin/weir", "stop"])
    code = container.ended()
    check("`weir stop` stops it with exit code 0", code == 0, f"{code} {''.join(container.log)}")


def main():
    root, image = pathlib.Path(sys.argv[1]), json.loads(pathlib.Path(sys.argv[2]).read_text())
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        sys.exit("needs namespaces of its own: scripts/image.sh check")
    print(f"size of the files in the image: {size(root) / 1e6:.1f} MB")
    check("there is no shell in it", not (root / "bin/sh").exists() and not (root / "usr/bin/sh").exists())
    run("ip", "link", "set", "lo", "up")
    names_server()
    with tempfile.TemporaryDirectory() as scratch:
        mounted = pathlib.Path(scratch) / "mounted"
        mounted.mkdir()
        mounted.chmod(0o755)
        file = mounted / "weir.yaml"
        both = "http://listed.test:3000, http://origin.test:3000"
        file.write_text(CONFIG.format(backends=both))
        container = Container(root, image, mounted)
        container.mount()
        origins = [
            subprocess.Popen(container.enter(
                ["/usr/bin/weir", "origin", "--address", address, "--port", "3000", "--name", name]))
            for address, name in (("127.0.0.2", "listed"), ("127.0.0.3", "resolved"))]
        try:
            container.start()
            serves(container)
            has_no_root(container)
            reloads(container, file)
            stops(container)
            runs_without_a_mount(container)
        finally:
            for process in [*origins, container.main]:
                process.kill()
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
