"""``embedding-pipeline metrics``: all figures for Prometheus, as text or at an endpoint.

Belongs here: printing, and answering on this machine alone. Does not belong here: the
figures (``assembly.metrics``).
"""

import asyncio
import logging
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

import click

from embedding_pipeline.errors import ConfigurationError, EmbeddingPipelineError

if TYPE_CHECKING:
    from embedding_pipeline.settings.tree import Settings

log = logging.getLogger(__name__)

LOOPBACK: Final = "127.0.0.1"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@click.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Answer at http://127.0.0.1:PORT/metrics until interrupted; 0 takes a free port.",
)
def metrics(port: int | None) -> None:
    """Requests, tokens, costs, cache, budgets, limits and what waits, for Prometheus.

    The figures are of the whole deployment: one process that answers is enough, wherever
    it runs. It listens on this machine only.
    """
    from embedding_pipeline.settings.loading import load_settings

    settings = load_settings()
    if port is None:
        click.echo(_text(settings), nl=False)
        return
    with _server(settings, port) as server:
        click.echo(f"http://{LOOPBACK}:{server.server_port}/metrics", err=True)
        server.serve_forever()


def _text(settings: "Settings") -> str:
    from embedding_pipeline.assembly.metrics import metrics_now
    from embedding_pipeline.exposition import render

    return render(asyncio.run(metrics_now(settings)))


def _server(settings: "Settings", port: int) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name upstream
            log.debug(format, *args)

        def __getattr__(self, name: str) -> Any:
            if name == "do_GET":
                return self._answer
            raise AttributeError(name)

        def _answer(self) -> None:
            if self.path != "/metrics":
                self._send(404, "see /metrics\n")
                return
            try:
                text = _text(settings)
            except EmbeddingPipelineError as error:
                log.warning("metrics cannot be read: %s", error)
                self._send(503, f"{error}\n")
            else:
                self._send(200, text)

        def _send(self, status: int, text: str) -> None:
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    try:
        return ThreadingHTTPServer((LOOPBACK, port), Handler)
    except OSError as exc:
        raise ConfigurationError(f"port {port} cannot be used: {exc.strerror}") from exc
