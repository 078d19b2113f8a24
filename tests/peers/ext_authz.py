"""Asks by envoy.service.auth.v3.Authorization/Check. Each line of its input is a question as JSON; so is each line that it prints."""

import json
import os
import sys

import grpc

# Before the package of the same name that brings the binary.
sys.path.insert(0, os.environ["XDS"])
from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc

channel = grpc.insecure_channel(sys.argv[1])
checks = external_auth_pb2_grpc.AuthorizationStub(channel)


def ask(question):
    request = external_auth_pb2.CheckRequest()
    attributes = request.attributes
    if "client" in question:
        attributes.source.address.socket_address.address = question["client"]
    http = attributes.request.http
    for name in ("method", "path", "host", "scheme"):
        setattr(http, name, question.get(name, ""))
    for name, value in question.get("headers", {}).items():
        http.headers[name] = value
    for name, value in question.get("raw", []):
        http.header_map.headers.add(key=name, raw_value=value.encode())
    return checks.Check(request, timeout=10)


def pairs(headers):
    return {option.header.key: option.header.value for option in headers}


for line in sys.stdin:
    try:
        answer = ask(json.loads(line))
    except grpc.RpcError as error:
        print(json.dumps({"error": error.code().name}), flush=True)
        continue
    told = {"code": answer.status.code}
    if answer.HasField("ok_response"):
        told["set"] = pairs(answer.ok_response.headers)
        told["removed"] = sorted(answer.ok_response.headers_to_remove)
        told["response"] = pairs(answer.ok_response.response_headers_to_add)
    if answer.HasField("denied_response"):
        told["status"] = answer.denied_response.status.code
        told["headers"] = pairs(answer.denied_response.headers)
        told["body"] = answer.denied_response.body
    print(json.dumps(told), flush=True)
