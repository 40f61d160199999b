"""The page's files over HTTP: from memory, with types, hashes and a strict policy, and nothing else from the disk."""

import asyncio
import gzip
import re
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from gateway.static import CONTENT_TYPES, WEB_DIR, StaticFiles
from tests.gateway.test_server import serving

FILES = sorted(path for path in WEB_DIR.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def page() -> StaticFiles:
    return StaticFiles()


def ask(page: StaticFiles, path: str, method: str = "GET", **headers: str) -> Response:
    sent = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return page.respond(Request(path, sent, method))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(WEB_DIR)))
def test_every_file_is_served_as_it_is(page: StaticFiles, path: Path) -> None:
    assert path.suffix in CONTENT_TYPES
    response = ask(page, f"/{path.relative_to(WEB_DIR).as_posix()}")
    assert (response.status_code, response.body) == (200, path.read_bytes())
    assert response.headers["Content-Type"] == CONTENT_TYPES[path.suffix]
    assert response.headers["Content-Length"] == str(path.stat().st_size)
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Security-Policy"].startswith("default-src 'self'; connect-src 'self' ws: wss:;")


def test_the_front_page_is_the_index(page: StaticFiles) -> None:
    assert ask(page, "/").body == ask(page, "/?from=mail").body == (WEB_DIR / "index.html").read_bytes()


def test_what_the_browser_has_is_not_sent_again(page: StaticFiles) -> None:
    etag = ask(page, "/style.css").headers["ETag"]
    again = ask(page, "/style.css", If_None_Match=f"{etag}")
    assert (again.status_code, again.body, again.headers["ETag"]) == (304, b"", etag)
    assert ask(page, "/style.css", If_None_Match='"another"').status_code == 200
    assert ask(page, "/app.js").headers["ETag"] != etag


def test_packed_for_who_can_unpack(page: StaticFiles) -> None:
    response = ask(page, "/style.css", Accept_Encoding="br, gzip")
    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(response.body) == (WEB_DIR / "style.css").read_bytes()
    assert "Content-Encoding" not in ask(page, "/style.css").headers


def test_head_and_other_methods(page: StaticFiles) -> None:
    head = ask(page, "/style.css", "HEAD")
    assert (head.status_code, head.body) == (200, b"")
    assert int(head.headers["Content-Length"]) > 0
    refused = ask(page, "/", "POST")
    assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")


PATHS_OUT = [
    "/../config.py",
    "/../../pyproject.toml",
    "/..%2fconfig.py",
    "/%2e%2e/config.py",
    "/vendor/../../static.py",
    "//etc/passwd",
    "/etc/passwd",
    "/..\\config.py",
    "/vendor",
    "/vendor/",
    "/index.html/",
    "",
    "/nothing.js",
]


@pytest.mark.parametrize("path", PATHS_OUT)
def test_no_path_leads_out_of_the_directory(page: StaticFiles, path: str) -> None:
    response = ask(page, path)
    assert (response.status_code, response.body) == (404, b"not found\n")


def test_a_file_that_came_later_or_of_another_type_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("1")
    (tmp_path / "key.pem").write_text("secret")
    files = StaticFiles(tmp_path)
    (tmp_path / "b.js").write_text("2")
    assert [ask(files, path).status_code for path in ("/a.js", "/key.pem", "/b.js", "/")] == [200, 404, 404, 404]


def test_the_page_refers_to_nothing_elsewhere_and_to_nothing_missing() -> None:
    """No CDN: every source, link and import is a file of the package."""
    known = {"/" + path.relative_to(WEB_DIR).as_posix() for path in FILES} | {"/"}
    for path in FILES:
        if "vendor" in path.parts or path.suffix not in (".html", ".js", ".css"):
            continue
        text = path.read_text(encoding="utf-8")
        found = re.findall(r"""(?:(?:src=|href=|url\()["'(]?|(?:from |import )["'])([^"')\s>]+)""", text)
        for name in found if path.suffix != ".js" else [name for name in found if name.startswith((".", "/", "http"))]:
            if name.startswith(("#", "data:")):
                continue
            target = "/" + (path.parent / name).resolve().relative_to(WEB_DIR).as_posix() if name[0] == "." else name
            assert target in known, (path.name, name)
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), path.name


async def test_page_health_and_websocket_share_the_port(tmp_path: Path) -> None:
    def get(port: int, path: str, **headers: str) -> HTTPResponse:
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        connection.putrequest("GET", path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        response.body = response.read()  # type: ignore[attr-defined]
        connection.close()
        return response

    async with serving(tmp_path) as (_, server):
        assert server.page_url == server.url.replace("ws://", "http://") + "/"
        front = await asyncio.to_thread(get, server.port, "/")
        assert front.status == 200
        assert front.body == (WEB_DIR / "index.html").read_bytes()  # type: ignore[attr-defined]
        outside = await asyncio.to_thread(get, server.port, "/../server.py")
        assert outside.status == 404
        health = await asyncio.to_thread(get, server.port, "/health")
        assert health.getheader("Content-Type") == "application/json"
