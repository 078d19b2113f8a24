"""A receiver of traces by OTLP over gRPC and HTTP. Prints its ports, and each export as a line of JSON.

A line on its input says how it behaves: `accept`, or `refuse` with a status that may pass.
"""

import json
import sys
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

behaviour = "accept"


def attributes(of):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in of}


def span(one):
    return {
        "trace": one.trace_id.hex(),
        "id": one.span_id.hex(),
        "parent": one.parent_span_id.hex(),
        "state": one.trace_state,
        "flags": one.flags,
        "name": one.name,
        "kind": trace_pb2.Span.SpanKind.Name(one.kind).removeprefix("SPAN_KIND_"),
        "begun": one.start_time_unix_nano,
        "ended": one.end_time_unix_nano,
        "status": trace_pb2.Status.StatusCode.Name(one.status.code).removeprefix("STATUS_CODE_"),
        "attributes": attributes(one.attributes),
    }


def tell(protocol, headers, request):
    for resource in request.resource_spans:
        spans = [span(one) for scope in resource.scope_spans for one in scope.spans]
        told = {"protocol": protocol, "headers": headers, "resource": attributes(resource.resource.attributes)}
        print("export", json.dumps(told | {"spans": spans}), flush=True)


class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        if behaviour == "refuse":
            print("refused", flush=True)
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        tell("grpc", headers, request)
        return trace_service_pb2.ExportTraceServiceResponse()


class Http(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if behaviour == "refuse":
            print("refused", flush=True)
            self.send_error(503)
            return
        if self.path != "/v1/traces" or self.headers["content-type"] != "application/x-protobuf":
            self.send_error(404)
            return
        headers = {key.lower(): value for key, value in self.headers.items()}
        tell("http", headers, trace_service_pb2.ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


http = ThreadingHTTPServer(("127.0.0.1", 0), Http)
threading.Thread(target=http.serve_forever, daemon=True).start()
server = grpc.server(futures.ThreadPoolExecutor(4))
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
print("grpc", server.add_insecure_port("127.0.0.1:0"), flush=True)
print("http", http.server_address[1], flush=True)
server.start()
for line in sys.stdin:
    behaviour = line.strip()
    print("now", behaviour, flush=True)
