"""The routes of the studio, and who may use them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import InputError, UnlearnError, printable, quoted, reason
from .commands import Form, command_of, shell
from .home import Home
from .panel import panel
from .templates import PAGES, REPORTS, environment
from .views import TABS, VIEWS, request_of

__all__ = ["Studio"]

BODY = 100_000  # bytes of a form
FIELDS = 500
STATIC = {"page.css": REPORTS, "studio.css": PAGES, "studio.js": PAGES}
POLICY = (
    "default-src 'none'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
Answer = Callable[[Form], Response]


class Studio(Home):
    """One folder's studio. app: the ASGI application. token: the first part of every address that it answers.

    port: of the Host header that it accepts. models: further models, from the command line.
    """

    def __init__(self, folder: Path, *, token: str, port: int, models: Iterable[str] = ()) -> None:
        super().__init__(folder, models)
        self.token = token
        self.pages = environment(folder=folder.name or str(folder), tabs=TABS)
        routes = [self._route(f"/{token}/{tab}", self._view(tab)) for tab in TABS]
        routes += [
            Route(f"/{token}/", lambda request: RedirectResponse("erase")),
            self._route(f"/{token}/panel", self._panel),
            self._route(f"/{token}/picture", self._picture),
            self._route(f"/{token}/file", self._file),
            self._route(f"/{token}/command", self._command, post=True),
            self._route(f"/{token}/start", self._start, post=True),
            self._route(f"/{token}/stop", self._stop, post=True),
            *(self._route(f"/{token}/{name}", self._static(name)) for name in STATIC),
        ]
        self.app = guarded(Starlette(routes=routes), token, port)

    def page(self, template: str, *, status: int = 200, **context: Any) -> Response:
        """A page or a part of one."""
        html = self.pages.get_template(template).render(**context)
        return Response(html, status, media_type="text/html; charset=utf-8")

    def _route(self, path: str, answer: Answer, *, post: bool = False) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                return await run_in_threadpool(answer, await fields_of(request))
            except (UnlearnError, OSError) as error:
                return PlainTextResponse(_line(error), 400)

        return Route(path, endpoint, methods=["POST" if post else "GET"])

    def _view(self, tab: str) -> Answer:
        def view(form: Form) -> Response:
            context: dict[str, Any] = {"tab": tab, "form": form, "error": "", "panel": panel(self, tab)}
            try:
                return self.page(f"{tab}.html", **context, **VIEWS[tab](self, form))
            except (UnlearnError, OSError) as error:
                context |= {"error": _line(error)}
                return self.page("base.html", status=400, **context)

        return view

    def _panel(self, form: Form) -> Response:
        shown = panel(self, form.get("tab", ""))
        html = self.pages.get_template("panel.html").render(panel=shown)
        state = hashlib.sha256(html.encode()).hexdigest()[:16]
        if state == form.get("seen"):
            return Response(status_code=204)
        return Response(html, media_type="text/html; charset=utf-8", headers={"X-State": state})

    def _command(self, form: Form) -> Response:
        return PlainTextResponse(shell(command_of(form.get("what", ""), form, self.workspace())[1]))

    def _start(self, form: Form) -> Response:
        what = form.get("what", "")
        title, words = command_of(what, form, self.workspace())
        self.drawing.free()
        self.jobs.start(title, words, form.get("tab", ""))
        return Response(status_code=204)

    def _stop(self, form: Form) -> Response:
        number = form.get("job", "")
        self.jobs.get(int(number) if number.isascii() and number.isdecimal() else 0).stop()
        return Response(status_code=204)

    def _picture(self, form: Form) -> Response:
        png = self.drawing.picture(**request_of(form, self.workspace()))
        return Response(png, media_type="image/png")

    def _file(self, form: Form) -> Response:
        from .files import served

        return served(form, self.workspace())

    def _static(self, name: str) -> Answer:
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        text = (STATIC[name] / name).read_text("utf-8")
        return lambda form: Response(text, media_type=f"{kind}; charset=utf-8")


def _line(error: Exception) -> str:
    """What is wrong, in one line."""
    if isinstance(error, OSError):
        return printable(f"{quoted(error.filename or 'a file')} cannot be read: {reason(error)}")
    return printable(str(error))


async def fields_of(request: Request) -> Form:
    """The fields of the address or the form; of a field that comes several times, its values as lines.

    Raises InputError for a form that is too large.
    """
    pairs = request.query_params.multi_items()
    if request.method == "POST":
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > BODY:
                raise InputError(f"the form is too large: at most {BODY} bytes are read")
        try:
            pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=FIELDS)
        except ValueError:
            raise InputError(f"the form has too many fields: at most {FIELDS} are read") from None
    fields: dict[str, str] = {}
    for name, value in pairs:
        fields[name] = f"{fields[name]}\n{value}" if name in fields else value
    return fields


def guarded(app: ASGIApp, token: str, port: int) -> ASGIApp:
    """The application behind its token; other hosts, and pages of other origins, are refused."""
    hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get("host", ""), headers.get("origin")
        first = scope["path"].split("/")[1] if scope["path"].count("/") > 1 else ""

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower() for name, _ in message["headers"]}
                message["headers"] += [
                    (name.lower().encode(), value.encode())
                    for name, value in HEADERS.items()
                    if name.lower().encode() not in own
                ]
            await send(message)

        refused = ""
        if host not in hosts:
            refused = "the studio answers only on this machine: open the address that it printed"
        elif not hmac.compare_digest(first.encode(), token.encode()):
            refused = "this address has no valid token: open the one that unlearnkit studio printed"
        elif origin is not None and origin.removeprefix("http://") not in hosts:
            refused = "a page of another origin may not use the studio"
        answer = PlainTextResponse(refused, 403) if refused else app
        await answer(scope, receive, sent)

    return guard
