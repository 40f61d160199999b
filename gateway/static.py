"""The market page's files over plain HTTP, on the port of the websocket: read once, answered from memory.

What can be asked for is a table of the files there are when the server starts, so no path leads anywhere else. A file
is known by the hash of its bytes (ETag): a browser asks again each time and gets 304 while it has the right ones, so a
new version of the exchange shows at the next load.
"""

import gzip
from dataclasses import dataclass
from email.utils import formatdate
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

WEB_DIR = Path(__file__).parent / "web"
INDEX = "index.html"
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
    "": "text/plain; charset=utf-8",
}
POLICY = (
    "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data:; object-src 'none';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy: nothing comes from elsewhere, nothing inline runs; the page may only open websockets."""
SAFETY_HEADERS = (
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent."""

    content_type: str
    etag: str
    body: bytes
    packed: bytes  # the same in gzip


class StaticFiles:
    """The files of a directory, by their path in it. Files of a type that is not in CONTENT_TYPES are left out."""

    def __init__(self, directory: Path = WEB_DIR) -> None:
        """Read everything. Raises OSError."""
        self._assets = {
            "/" + path.relative_to(directory).as_posix(): _asset(path)
            for path in sorted(directory.rglob("*"))
            if path.is_file() and path.suffix in CONTENT_TYPES
        }
        if f"/{INDEX}" in self._assets:
            self._assets["/"] = self._assets[f"/{INDEX}"]

    def respond(self, request: Request) -> Response:
        """The answer to a request that is no websocket handshake."""
        if request.method not in ("GET", "HEAD"):
            return text_response(HTTPStatus.METHOD_NOT_ALLOWED, "only GET\n", ("Allow", "GET, HEAD"))
        asset = self._assets.get(request.path.partition("?")[0])
        if asset is None:
            return text_response(HTTPStatus.NOT_FOUND, "not found\n")
        headers = [*SAFETY_HEADERS, ("ETag", asset.etag), ("Cache-Control", "no-cache"), ("Vary", "Accept-Encoding")]
        if asset.etag in request.headers.get("If-None-Match", ""):
            return _response(HTTPStatus.NOT_MODIFIED, headers, b"")
        body = asset.body
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            body = asset.packed
            headers.append(("Content-Encoding", "gzip"))
        headers += [("Content-Type", asset.content_type), ("Content-Length", str(len(body)))]
        return _response(HTTPStatus.OK, headers, b"" if request.method == "HEAD" else body)


def is_handshake(request: Request) -> bool:
    """Whether a request wants a websocket, rather than a page."""
    return "websocket" in request.headers.get("Upgrade", "").lower()


def text_response(status: HTTPStatus, text: str, *headers: tuple[str, str]) -> Response:
    """A short plain text."""
    body = text.encode()
    return _response(
        status,
        [*SAFETY_HEADERS, *headers, ("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))],
        body,
    )


def _response(status: HTTPStatus, headers: list[tuple[str, str]], body: bytes) -> Response:
    always = [("Date", formatdate(usegmt=True)), ("Connection", "close")]
    return Response(status.value, status.phrase, Headers([*always, *headers]), body)


def _asset(path: Path) -> Asset:
    body = path.read_bytes()
    etag = f'"{sha256(body).hexdigest()[:32]}"'
    return Asset(CONTENT_TYPES[path.suffix], etag, body, gzip.compress(body, mtime=0))
