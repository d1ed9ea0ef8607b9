"""`strongroom serve`: one node behind uvicorn.

The socket is bound before the node is opened, so that a taken port is said at once, and port 0 works. On SIGTERM
uvicorn stops accepting and lets requests in flight end within `shutdown_seconds`; then the node seals what is spooled.
"""

from __future__ import annotations

import socket

import structlog
import uvicorn

from strongroom.service import logs
from strongroom.service.app import create_app
from strongroom.service.node import Node
from strongroom.service.receiving.connections import bounded
from strongroom.service.settings import Settings, unknown_variables

log = structlog.get_logger(__name__)


def serve(settings: Settings) -> None:
    """Serve until told to stop. Raises StrongroomError before serving, OSError when the address can't be bound."""
    logs.configure(settings.log_format, settings.log_level)
    for name in unknown_variables():
        log.warning("no such setting", variable=name)
    listener = bind(settings.listen)
    node = Node(settings)
    _introduce(node)
    config = uvicorn.Config(
        create_app(node),
        loop="uvloop",
        http=bounded(settings.head_seconds),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=round(settings.shutdown_seconds),
        timeout_keep_alive=75,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
    _Server(config, node).run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn around a node: started before the first connection is taken, stopped after the last was answered.

    Not a lifespan handler of the application, because a failure to start must reach the caller as the error it is.
    """

    def __init__(self, config: uvicorn.Config, node: Node) -> None:
        super().__init__(config)
        self._node = node

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self._node.start()
        await super().startup(sockets)
        settings = self._node.settings
        url = url_of(settings, sockets[0].getsockname()[1] if sockets else settings.port)
        log.info("serving", url=url, api=f"{url}/docs" if settings.api_page else "off")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log.info("stopping")
        await super().shutdown(sockets)
        await self._node.stop()
        log.info("stopped", entries=self._node.log.size)


def url_of(settings: Settings, port: int) -> str:
    """Where to reach a service that listens on `port`."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'https' if settings.tls_certificate else 'http'}://{host}:{port}"


def bind(listen: str) -> socket.socket:
    """A socket bound to `<host>:<port>`, not listening yet. Raises OSError naming the address."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
    except OSError as error:
        raise OSError(f"can't listen on {listen}: {error.strerror}") from None
    return listener


def _introduce(node: Node) -> None:
    """What an operator must know at every start."""
    settings = node.settings
    log.info("archive", origin=node.identity.origin, entries=node.log.size, store=node.store.description)
    if not settings.loopback and settings.tls_certificate is None:
        log.warning("tokens travel in the clear: set tls_certificate and tls_key, or put a TLS proxy in front")
    if not node.tokens.tokens():
        command = f"strongroom token create --role admin --name <you> --state {settings.state}"
        log.warning("no token exists, so nobody can push or ask", make_one=command)
