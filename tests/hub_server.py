"""A hub on this machine: the few answers of the real one that fetching a model needs, over folders."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0" * 40


@contextlib.contextmanager
def serving(models: Path, asked: list[str]) -> Iterator[str]:
    """The address of a hub whose models are the folders OWNER/NAME in ``models``; ``asked`` gets every path."""

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            asked.append(self.path)
            words = self.path.split("?")[0].strip("/").split("/")
            if words[:2] == ["api", "models"]:
                folder = models.joinpath(*words[2:4])
                names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
                facts = {"sha": COMMIT, "id": "/".join(words[2:4])}
                data = json.dumps(
                    facts | {"siblings": [{"rfilename": name} for name in sorted(names)]}
                ).encode()
                found = folder.is_dir()
            else:  # OWNER/NAME/resolve/REVISION/FILE
                folder, file = models.joinpath(*words[:2]), models.joinpath(*words[:2], *words[4:])
                found = file.is_file()
                data = file.read_bytes() if found else b""
            self.send_response(200 if found else 404)
            if not found:
                self.send_header("X-Error-Code", "EntryNotFound" if folder.is_dir() else "RepoNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
