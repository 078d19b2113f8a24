"""A gRPC server with calls of every kind; messages are bytes. Prints its port, and what it was told."""

import sys
import time
from concurrent import futures

import grpc


def headers(context):
    return {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}


def unary(request, context):
    told = headers(context)
    print("unary", told.get("x-user-name"), told.get("x-own"), "authorization" in told, flush=True)
    context.send_initial_metadata((("x-first", "1"),))
    context.set_trailing_metadata((("x-last", "2"),))
    return request[::-1]


def fails(request, context):
    context.set_trailing_metadata((("x-last", "3"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now")


def sleeps(request, context):
    def ended():
        print("sleep ended", flush=True)

    context.add_callback(ended)
    while context.is_active():
        time.sleep(0.05)
    return b""


def counts(request, context):
    for number in range(int(request)):
        yield str(number).encode()
        time.sleep(0.01)


def sums(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def echoes(requests, context):
    for request in requests:
        yield request.upper()


server = grpc.server(futures.ThreadPoolExecutor(16))
server.add_generic_rpc_handlers([
    grpc.method_handlers_generic_handler("api.Calls", {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Fails": grpc.unary_unary_rpc_method_handler(fails),
        "Sleeps": grpc.unary_unary_rpc_method_handler(sleeps),
        "Counts": grpc.unary_stream_rpc_method_handler(counts),
        "Sums": grpc.stream_unary_rpc_method_handler(sums),
        "Echoes": grpc.stream_stream_rpc_method_handler(echoes),
    }),
])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print("port", port, flush=True)
sys.stdin.read()
