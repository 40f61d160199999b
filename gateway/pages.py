"""Plain HTTP on the websocket's port: is it alive, is it ready, what does it count; and who may shake hands."""

import ipaddress
from http import HTTPStatus
from typing import Any

import msgspec
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from gateway.doors import Doors, origin_allowed
from gateway.gateway import Gateway
from gateway.metrics import CONTENT_TYPE, Metrics
from gateway.static import StaticFiles, is_handshake, text_response

PATHS = ("/", "/v1")


class Pages:
    """Answers a request, or lets it become a websocket."""

    def __init__(self, gateway: Gateway, doors: Doors) -> None:
        self.metrics = Metrics(gateway)
        self._gateway = gateway
        self._doors = doors
        self._files = StaticFiles()
        self._metrics_from = [ipaddress.ip_network(network) for network in gateway.config.metrics_from]

    def respond(self, request: Request, ip: str) -> Response | None:
        """The answer; None lets the websocket's handshake go on."""
        path = request.path.partition("?")[0]
        if path in ("/health", "/healthz"):
            return _json(HTTPStatus.OK, self._gateway.health())
        if path == "/readyz":
            page = self._gateway.readiness.page()
            return _json(HTTPStatus.OK if page["ready"] else HTTPStatus.SERVICE_UNAVAILABLE, page)
        if path == "/metrics":
            return self._show_metrics(ip)
        if not is_handshake(request):
            return self._files.respond(request)
        return self._refuse(request, path, ip)

    def _refuse(self, request: Request, path: str, ip: str) -> Response | None:
        config, origin = self._gateway.config, request.headers.get("Origin")
        if path not in PATHS:
            return text_response(HTTPStatus.NOT_FOUND, "not found\n")
        if not origin_allowed(origin, request.headers.get("Host"), config.origins):
            return text_response(HTTPStatus.FORBIDDEN, f"pages of {origin} may not connect\n")
        if self._doors.is_full(ip):
            return text_response(HTTPStatus.TOO_MANY_REQUESTS, "too many connections from your address\n")
        if len(self._gateway.sessions) >= config.max_sessions:
            return text_response(HTTPStatus.SERVICE_UNAVAILABLE, "too many sessions\n")
        return None

    def _show_metrics(self, ip: str) -> Response:
        try:
            address = ipaddress.ip_address(ip)
        except ValueError:
            address = None
        if address is None or not any(address in network for network in self._metrics_from):
            return text_response(HTTPStatus.NOT_FOUND, "not found\n")
        return _response(HTTPStatus.OK, CONTENT_TYPE, self.metrics.page())


def _json(status: HTTPStatus, value: Any) -> Response:
    return _response(status, "application/json", msgspec.json.encode(value) + b"\n")


def _response(status: HTTPStatus, content_type: str, body: bytes) -> Response:
    headers = {"Content-Type": content_type, "Content-Length": str(len(body)), "Cache-Control": "no-store"}
    return Response(status.value, status.phrase, Headers({**headers, "Connection": "close"}), body)
