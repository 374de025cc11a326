"""Static files over HTTP: agnhost test-webserver, and the replacement for the nginx image.

`main` is started as `nginx -g "daemon off;"`. It serves /usr/share/nginx/html on port 80, with
nginx's status codes, headers and welcome page. It is not nginx, and does not read nginx's
configuration files. It reads no variable either: NGINX_PORT is the link to a Service named nginx.
"""

from __future__ import annotations

import email.utils
import mimetypes
import signal
import sys
import time
from functools import partial
from pathlib import Path

from .flags import Flag, parse
from .golang import fatal
from .http import REASONS, HttpServer, Request, Respond, Response, error, listen_tcp, redirect
from .loop import Loop

VERSION = "1.27.3"
ROOT = Path("/usr/share/nginx/html")
WELCOME = """<!DOCTYPE html>
<html>
<head>
<title>Welcome to nginx!</title>
</head>
<body>
<h1>Welcome to nginx!</h1>
<p>This is kubewire's stand-in for the nginx image. Mount files on /usr/share/nginx/html to serve them.</p>
</body>
</html>
"""


def test_webserver(argv: list[str]) -> int:
    """agnhost test-webserver: serves the whole file system, with directory listings."""
    values, _ = parse("test-webserver", (Flag("port", 80, "Port number."),), argv)
    return _serve(int(values["port"]), _files)


def kitten(argv: list[str]) -> int:
    """The image kitten of kubectl's update demo."""
    return _serve(80, partial(_picture, "kitten.jpg"))


def nautilus(argv: list[str]) -> int:
    """The image nautilus of kubectl's update demo."""
    return _serve(80, partial(_picture, "nautilus.jpg"))


def _picture(name: str, request: Request) -> Response:
    """/data.json names the picture. There is no picture, only its name."""
    if request.path == "/data.json":
        body = f'{{\n"image": "{name}"\n}}\n'.encode()
        return Response(200, body, {"Content-Type": "application/json"})
    if request.path == "/":
        return Response(200, f"<html><body>{name}</body></html>\n".encode())
    return error("404 page not found", 404)


def unprivileged(argv: list[str]) -> int:
    """The image nginx-unprivileged, which listens on port 8080."""
    return main(argv, 8080)


def main(argv: list[str], port: int = 80) -> int:
    """The nginx image. SIGTERM ends it at once, SIGQUIT (the image's stop signal) gracefully."""
    if "-v" in argv or "-V" in argv:
        print(f"nginx version: nginx/{VERSION}", file=sys.stderr)
        return 0
    if "-t" in argv:
        message = "nginx: configuration file /etc/nginx/nginx.conf test is successful"
        print(message, file=sys.stderr)
        return 0
    return _serve(port, partial(_nginx, ROOT))


def _serve(port: int, answer: object) -> int:
    assert callable(answer)
    loop = Loop()

    def handle(request: Request, respond: Respond) -> None:
        respond(answer(request))

    try:
        server = HttpServer(loop, listen_tcp(port), handle)
    except OSError as err:
        reason = (err.strerror or "").lower()
        raise fatal(f"listen tcp :{port}: bind: {reason}") from None

    def finish() -> None:
        if not server.connections:
            raise SystemExit(0)
        loop.later(0.05, finish)

    def quit_gracefully() -> None:
        server.stop_accepting()
        finish()

    loop.on_signal(signal.SIGTERM, _end)
    loop.on_signal(signal.SIGINT, _end)
    loop.on_signal(signal.SIGQUIT, quit_gracefully)
    loop.run()
    return 0


def _end() -> None:
    raise SystemExit(0)


def inside(root: Path, path: str) -> Path | None:
    """The file of a URL path below root; None if it lies outside, by ".." or a symbolic link."""
    try:
        file = (root / path.lstrip("/")).resolve()
    except (OSError, ValueError):
        return None
    return file if file == root.resolve() or root.resolve() in file.parents else None


def _files(request: Request) -> Response:
    path = inside(Path("/"), request.path)
    if path is None or not path.exists():
        return error("404 page not found", 404)
    if path.is_dir():
        if not request.path.endswith("/"):
            return redirect(request, f"{path.name}/", 301)
        if not (path / "index.html").is_file():
            entries = path.iterdir()
            names = sorted(f"{item.name}/" if item.is_dir() else item.name for item in entries)
            lines = "".join(f'<a href="{name}">{name}</a>\n' for name in names)
            headers = {"Content-Type": "text/html; charset=utf-8"}
            return Response(200, f"<pre>\n{lines}</pre>\n".encode(), headers)
        path /= "index.html"
    return _contents(request, path, {})


def _nginx(root: Path, request: Request) -> Response:
    response = _nginx_file(root, request)
    client = request.client.rpartition(":")[0].strip("[]")
    stamp = time.strftime("%d/%b/%Y:%H:%M:%S %z")
    agent = request.headers.get("user-agent", "-")
    referer = request.headers.get("referer", "-")
    asked = f'"{request.method} {request.target} HTTP/1.1"'
    line = f"{client} - - [{stamp}] {asked} {response.status} {len(response.body)}"
    print(f'{line} "{referer}" "{agent}" "-"', flush=True)
    return response


def _nginx_file(root: Path, request: Request) -> Response:
    if request.method not in ("GET", "HEAD"):
        return _nginx_error(405)
    path = inside(root, request.path)
    if path is not None and path.is_dir():
        if not request.path.endswith("/"):
            response = _nginx_error(301)
            where = f"http://{request.headers.get('host', 'localhost')}{request.path}/"
            return Response(301, response.body, {**response.headers, "Location": where})
        if not (path / "index.html").is_file():
            # The image has a welcome page here, unless something is mounted over it.
            if path == root.resolve() and not any(path.iterdir()):
                return _welcome()
            return _nginx_error(403)
        path /= "index.html"
    if path is None or not path.is_file():
        without_root = path == root.resolve() and not root.exists()
        if without_root or path == root.resolve() / "index.html":
            return _welcome()
        return _nginx_error(404)
    return _contents(request, path, {"Server": f"nginx/{VERSION}"})


def _welcome() -> Response:
    headers = {"Server": f"nginx/{VERSION}", "Content-Type": "text/html"}
    return Response(200, WELCOME.encode(), headers)


def _nginx_error(status: int) -> Response:
    title = f"{status} {'Not Allowed' if status == 405 else REASONS[status]}"
    body = (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n"
        f"<center><h1>{title}</h1></center>\r\n"
        f"<hr><center>nginx/{VERSION}</center>\r\n</body>\r\n</html>\r\n"
    )
    headers = {"Server": f"nginx/{VERSION}", "Content-Type": "text/html"}
    return Response(status, body.encode(), headers)


def _contents(request: Request, path: Path, headers: dict[str, str]) -> Response:
    try:
        status = path.stat()
        if not path.is_file():
            return error("403 Forbidden", 403)
        modified = email.utils.formatdate(status.st_mtime, usegmt=True)
        headers = {**headers, "Last-Modified": modified, "Accept-Ranges": "bytes"}
        if request.headers.get("if-modified-since") == modified:
            return Response(304, b"", headers)
        kind = mimetypes.guess_type(path.name)[0]
        body = path.read_bytes()
    except PermissionError:
        return error("403 Forbidden", 403)
    if kind is not None:
        headers["Content-Type"] = kind
    return Response(200, body, headers)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
