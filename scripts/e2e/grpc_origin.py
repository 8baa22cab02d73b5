"""A gRPC origin: a call of each kind, bytes in and out.  grpc_origin.py HOST PORT"""

import sys
import time
from concurrent import futures

import grpc

MESSAGE_MAX = 8 << 20
OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_MAX),
    ("grpc.max_send_message_length", MESSAGE_MAX),
]


def unary(request, context):
    for name, value in context.invocation_metadata():
        if name == "x-ask":
            context.send_initial_metadata([("x-said", value)])
    context.set_trailing_metadata([("x-trailer", "behind"), ("x-bytes", str(len(request)))])
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked: äöü")
    if request == b"sleep":
        # As long as somebody waits for it.
        while context.is_active():
            time.sleep(0.05)
    return request


def server_stream(request, context):
    count, pause = request.split(b" ")
    for number in range(int(count)):
        yield str(number).encode()
        time.sleep(float(pause))


def client_stream(requests, context):
    sizes = [len(request) for request in requests]
    return f"{len(sizes)} {sum(sizes)}".encode()


def both(requests, context):
    for request in requests:
        yield request


def expand(requests, context):
    for request in requests:
        yield request * 256


def main(host, port):
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Expand": grpc.stream_stream_rpc_method_handler(expand),
        "Both": grpc.stream_stream_rpc_method_handler(both),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=64), options=OPTIONS)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("e2e.Echo", handlers)])
    if server.add_insecure_port(f"{host}:{port}") == 0:
        sys.exit("no port")
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


main(sys.argv[1], int(sys.argv[2]))
