"""gRPC with its own client: each kind of call, trailers, deadlines, large messages, reloads."""

import contextlib
import os
import sys
import threading
import time

from e2e.certs import Authority
from e2e.servers import HERE, Weir, clients
from e2e.world import Failed, expect, until

MESSAGE_MAX = 8 << 20


class Service:
    """A gRPC origin behind a Weir that speaks HTTP/2 on both sides, in the clear and by TLS."""

    def __init__(self, env, more=""):
        import grpc

        self.grpc, world = grpc, env.world
        self.world = world
        host = world.address()
        command = [sys.executable, os.path.join(HERE, "grpc_origin.py"), host, "3000"]
        self.origin = world.run(f"grpc-{host}", command)
        until("the origin is ready", 20, lambda: "ready" in world.said(self.origin))
        self.ca = Authority(world, "authority")
        clear, tls = world.address(), world.address()
        self.ca.issue("site", ["site.test", tls])
        listeners = [
            f'{{address: "{clear}:8081", http2: true}}',
            f'{{address: "{tls}:8443", tls: {{certificates: [{{cert: site.crt, key: site.key}}]}}}}',
        ]
        config = (
            f"pools: [{{name: rpc, protocol: h2c, backends: [http://{host}:3000]}}]\n"
            f"limits: {{body: off}}\n{more}"
        )
        self.weir = Weir(world, env.binary, config, listeners=listeners)
        self.targets = (f"{clear}:8081", f"{tls}:8443")

    def channel(self, secure):
        options = [
            ("grpc.max_receive_message_length", MESSAGE_MAX),
            ("grpc.max_send_message_length", MESSAGE_MAX),
            # Each channel has connections of its own.
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.ssl_target_name_override", "site.test"),
        ]
        clear, tls = self.targets
        if not secure:
            return self.grpc.insecure_channel(clear, options=options[:3])
        with open(self.ca.path, "rb") as ca:
            credentials = self.grpc.ssl_channel_credentials(ca.read())
        return self.grpc.secure_channel(tls, credentials, options=options)

    def end(self):
        self.weir.end()
        self.world.end(self.origin)


@contextlib.contextmanager
def service(env, more=""):
    clients()
    it = Service(env, more)
    try:
        yield it
    finally:
        it.end()


@contextlib.contextmanager
def channels(it):
    with it.channel(False) as clear, it.channel(True) as secure:
        yield (clear, secure)


def grpc_makes_a_call_of_each_kind(env):
    with service(env) as it, channels(it) as both:
        for channel in both:
            answer, call = channel.unary_unary("/e2e.Echo/Unary").with_call(
                b"hello", metadata=[("x-ask", "42")], timeout=20
            )
            expect(answer == b"hello", f"unary: {answer!r}")
            expect(("x-said", "42") in tuple(call.initial_metadata()), "the metadata")
            trailers = dict(call.trailing_metadata())
            expect(trailers.get("x-trailer") == "behind", f"the trailers: {trailers}")
            stream = channel.unary_stream("/e2e.Echo/ServerStream")
            numbers = [int(piece) for piece in stream(b"50 0.002", timeout=20)]
            expect(numbers == list(range(50)), f"server stream: {numbers}")
            answer = channel.stream_unary("/e2e.Echo/ClientStream")(
                (b"x" * 1000 for _ in range(50)), timeout=20
            )
            expect(answer == b"50 50000", f"client stream: {answer!r}")
            sent = [f"message {n}".encode() for n in range(50)]
            got = list(channel.stream_stream("/e2e.Echo/Both")(iter(sent), timeout=20))
            expect(got == sent, "bidirectional stream")


def grpc_is_told_why_a_call_failed(env):
    with service(env) as it, channels(it) as both:
        codes = it.grpc.StatusCode
        for channel in both:
            unary = channel.unary_unary("/e2e.Echo/Unary")
            for request, timeout, code in (
                (b"fail", 20, codes.FAILED_PRECONDITION),
                (b"sleep", 0.5, codes.DEADLINE_EXCEEDED),
            ):
                try:
                    unary(request, timeout=timeout)
                except it.grpc.RpcError as error:
                    expect(error.code() == code, f"{request}: {error}")
                    if request == b"fail":
                        expect(error.details() == "as asked: äöü", error.details())
                        trailers = dict(error.trailing_metadata())
                        expect(trailers.get("x-trailer") == "behind", f"{trailers}")
                else:
                    raise Failed(f"{request} did not fail")
            try:
                channel.unary_unary("/e2e.Echo/Nobody")(b"", timeout=20)
            except it.grpc.RpcError as error:
                expect(error.code() == codes.UNIMPLEMENTED, f"{error}")


def grpc_carries_messages_of_4_mib(env):
    with service(env) as it, channels(it) as both:
        large = os.urandom(4 << 20)
        for channel in both:
            answer = channel.unary_unary("/e2e.Echo/Unary")(large, timeout=60)
            expect(answer == large, "it came back changed")
            got = list(channel.stream_stream("/e2e.Echo/Both")(iter([large] * 3), timeout=60))
            expect(got == [large] * 3, "a stream came back changed")


def grpc_answers_larger_than_their_requests_do_not_stand_still(env):
    """The server reads the next request only when it could write the last answer."""
    with service(env) as it, channels(it) as both:
        sent = [bytes([n]) * 1024 for n in range(200)]
        for channel in both:
            answers = channel.stream_stream("/e2e.Echo/Expand")(iter(sent), timeout=60)
            got = [(answer[0], len(answer)) for answer in answers]
            expect(got == [(n, 256 * 1024) for n in range(200)], f"{len(got)} answers came")


def grpc_calls_go_on_over_reloads(env):
    with service(env, "shutdown: {drain: 30s}\n") as it, channels(it) as both:
        end, failed, done = threading.Event(), [], [0, 0]

        def ask(channel):
            unary = channel.unary_unary("/e2e.Echo/Unary")
            while not end.is_set():
                try:
                    expect(unary(b"x", timeout=20) == b"x", "another answer")
                    done[0] += 1
                except (it.grpc.RpcError, Failed) as error:
                    failed.append(str(error))

        def stream(channel):
            while not end.is_set():
                try:
                    pieces = channel.unary_stream("/e2e.Echo/ServerStream")(b"40 0.05", timeout=30)
                    expect(len(list(pieces)) == 40, "a stream is not whole")
                    done[1] += 1
                except (it.grpc.RpcError, Failed) as error:
                    failed.append(str(error))

        threads = [
            threading.Thread(target=work, args=(channel,), daemon=True)
            for channel in both
            for work in (ask, ask, stream, stream)
        ]
        for thread in threads:
            thread.start()
        for _ in range(5):
            time.sleep(2.5)  # so that few workers drain at once
            it.weir.command("reload")
        time.sleep(1)
        end.set()
        for thread in threads:
            thread.join(40)
        print(f"    {done[0]} calls, {done[1]} streams over five reloads")
        expect(not failed, f"{len(failed)} failed: {failed[0] if failed else ''}")
        expect(done[0] > 500 and done[1] > 10, f"hardly a load: {done}")


CHECKS = [
    grpc_makes_a_call_of_each_kind,
    grpc_is_told_why_a_call_failed,
    grpc_carries_messages_of_4_mib,
    grpc_answers_larger_than_their_requests_do_not_stand_still,
    grpc_calls_go_on_over_reloads,
]
