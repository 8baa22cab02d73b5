"""Checks of what goes through: methods, bodies, framing, streams, and the memory they take.

Each takes an `env` with `address(path)`, which is Weir's, or with --direct the origin's own.
"""

import contextlib
import hashlib
import http.client
import os
import time

from e2e.servers import GIB
from e2e.world import ask, children, expect, get, memory_kib, reset_peak

GROWTH_KIB_MAX = 20 * 1024
BLOCK = b"x" * (256 * 1024)


def get_from_nginx(env):
    answer = get(env.address("/nginx/"), "/nginx/small.txt")
    expect((answer.status, answer.text) == (200, "from nginx\n"), f"{answer.status} {answer.text!r}")


def get_from_python(env):
    answer = get(env.address("/python/"), "/python/small.txt")
    expect((answer.status, answer.text) == (200, "from python\n"), f"{answer.status} {answer.text!r}")


def get_from_node(env):
    answer = get(env.address("/node/"), "/node/", headers={"X-E2e": "yes"})
    expect(answer.status == 200, f"status {answer.status}")
    expect(answer.json["headers"].get("x-e2e") == "yes", "the request's field did not arrive")


def head_has_a_length_and_no_body(env):
    answer = ask(env.address("/nginx/"), "HEAD", "/nginx/small.txt")
    expect(answer.status == 200, f"status {answer.status}")
    expect(answer.headers["Content-Length"] == "11", f"length {answer.headers['Content-Length']}")
    expect(answer.body == b"", f"a body of {len(answer.body)} bytes")


def connection_survives_head_204_and_304(env):
    connection = http.client.HTTPConnection(env.address("/node/"), timeout=30)
    with contextlib.closing(connection):
        for method, path, status in [
            ("HEAD", "/node/", 200),
            ("GET", "/node/204", 204),
            ("GET", "/node/304", 304),
            ("GET", "/node/", 200),
        ]:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
            expect(response.status == status, f"{method} {path}: {response.status}")
        expect(body.startswith(b'{"server":"node"'), f"out of step: {body[:40]!r}")


def post_comes_back_whole(env):
    body = os.urandom(200_000)
    answer = ask(env.address("/node/"), "POST", "/node/echo", body=body)
    expect(answer.status == 200, f"status {answer.status}")
    expect(answer.body == body, f"{len(answer.body)} bytes, not the {len(body)} that were sent")


def status_204_has_no_body(env):
    for path in ("/nginx/204", "/node/204"):
        answer = get(env.address(path), path)
        expect((answer.status, answer.body) == (204, b""), f"{path}: {answer.status} {answer.body!r}")
        expect("Transfer-Encoding" not in answer.headers, f"{path}: a 204 with a framing")


def status_304_on_a_matching_etag(env):
    address = env.address("/nginx/")
    etag = get(address, "/nginx/small.txt").headers["ETag"]
    answer = get(address, "/nginx/small.txt", headers={"If-None-Match": etag})
    expect((answer.status, answer.body) == (304, b""), f"{answer.status} {answer.body!r}")
    expect(answer.headers["ETag"] == etag, f"ETag {answer.headers['ETag']}")


def chunked_answer_arrives_whole(env):
    answer = get(env.address("/node/"), "/node/chunked")
    wanted = "".join(f"piece {number}\n" for number in range(20))
    expect(answer.headers["Transfer-Encoding"] == "chunked", "not chunked")
    expect(answer.text == wanted, f"{answer.text!r}")


def chunked_request_arrives_whole(env):
    pieces = [os.urandom(size) for size in (1, 10, 1000, 70_000, 5)]
    answer = ask(
        env.address("/node/"), "POST", "/node/count", body=iter(pieces), encode_chunked=True,
        headers={"Transfer-Encoding": "chunked"},
    )
    seen, sent = answer.json, b"".join(pieces)
    expect(seen["bytes"] == len(sent), f"{seen['bytes']} of {len(sent)} bytes")
    expect(seen["sha256"] == hashlib.sha256(sent).hexdigest(), "other bytes than were sent")


def events_arrive_one_by_one(env):
    connection = http.client.HTTPConnection(env.address("/node/"), timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/node/events", headers={"Accept": "text/event-stream"})
        response = connection.getresponse()
        expect(response.status == 200, f"status {response.status}")
        arrived, sent = [], []
        while line := response.readline():
            if line.startswith(b"data: "):
                arrived.append(time.time())
                sent.append(int(line[6:]) / 1000)
    expect(len(arrived) == 10, f"{len(arrived)} events")
    expect(arrived[0] < sent[-1], "the first event came when the last had been sent")
    late = max(came - went for came, went in zip(arrived, sent))
    expect(late < 0.08, f"an event was held back for {late * 1000:.0f} ms")


def gib_down_in_bounded_memory(env):
    for path in ("/nginx/big", f"/node/source?bytes={GIB}"):
        with bounded_memory(env, path):
            count = download(env.address(path), path)
        expect(count == GIB, f"{path}: {count} bytes")


def gib_up_in_bounded_memory(env):
    with bounded_memory(env, "/node/sink"):
        answer = upload(env.address("/node/"), GIB)
    expect(answer.text == str(GIB), f"{answer.status}: {answer.text!r} bytes arrived")


def download(address, path):
    connection = http.client.HTTPConnection(address, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        expect(response.status == 200, f"{path}: status {response.status}")
        count, buffer = 0, bytearray(len(BLOCK))
        while size := response.readinto(buffer):
            count += size
    return count


def upload(address, size):
    blocks = (BLOCK for _ in range(size // len(BLOCK)))
    headers = {"Content-Length": str(size)}
    return ask(address, "POST", "/node/sink", body=blocks, headers=headers, timeout=60)


@contextlib.contextmanager
def bounded_memory(env, what):
    """Fails if what Weir keeps resident grows by more than the bound meanwhile."""
    if env.weir is None:
        yield
        return
    # Allocators and buffers take their share with the first transfers; that is not growth.
    for _ in range(3):
        download(env.address("/nginx/"), "/nginx/small.txt")
        download(env.address("/node/"), f"/node/source?bytes={32 << 20}")
        upload(env.address("/node/"), 32 << 20)
    pids = children(env.weir.process.pid)
    before = memory_kib(pids, "VmRSS")
    reset_peak(pids)
    yield
    growth = memory_kib(pids, "VmHWM") - before
    print(f"    {what}: {before} KiB resident before, at most {growth:+} KiB meanwhile")
    expect(growth < GROWTH_KIB_MAX, f"{what}: {growth} KiB more than the {before} KiB before")


CHECKS = [
    get_from_nginx,
    get_from_python,
    get_from_node,
    head_has_a_length_and_no_body,
    connection_survives_head_204_and_304,
    post_comes_back_whole,
    status_204_has_no_body,
    status_304_on_a_matching_etag,
    chunked_answer_arrives_whole,
    chunked_request_arrives_whole,
    events_arrive_one_by_one,
    gib_down_in_bounded_memory,
    gib_up_in_bounded_memory,
]
