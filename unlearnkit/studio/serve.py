"""Run the studio: one socket on loopback, one random address, until it is interrupted."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import InputError, quoted, reason
from .app import Studio

__all__ = ["serve"]

HOST = "127.0.0.1"


def serve(folder: Path, *, models: Iterable[str] = (), port: int = 0, say: Callable[[str], None]) -> None:
    """Serve the studio of ``folder`` until SIGINT or SIGTERM.

    models: further model names or paths. port: 0: any free one. say: called once, with the address.
    Raises InputError if the folder or the port cannot be used, or the extra ``studio`` is not installed.
    """
    try:
        import uvicorn
    except ImportError:
        raise InputError("the studio needs two more packages: pip install 'unlearnkit[studio]'") from None
    if not folder.is_dir():
        raise InputError(f"{quoted(folder)} is no folder: name the one with your runs, or make it")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
        except OSError as error:
            raise InputError(f"port {port} cannot be used ({reason(error)}): choose another --port") from None
        port = listening.getsockname()[1]
        studio = Studio(folder.resolve(), token=secrets.token_urlsafe(24), port=port, models=models)
        say(f"http://{HOST}:{port}/{studio.token}/")
        config = uvicorn.Config(
            studio.app, log_level="error", access_log=False, lifespan="off", server_header=False
        )
        try:
            uvicorn.Server(config).run(sockets=[listening])
        finally:
            studio.close()
