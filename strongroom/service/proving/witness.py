"""A witness as a process of its own: its key, its memory, and no access to any log's content.

Three ways to run one, all over archive/witness.py's rules:

* **serve**: a C2SP tlog-witness over HTTP (`POST /add-checkpoint`), for logs that send their checkpoints;
* **watch**: fetches checkpoints from logs by itself, and leaves its cosignatures with them;
* **once**: reads one request from a file and prints the cosignature, for a machine that is never on a network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import httpx
import structlog
import uvicorn
from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from strongroom.archive import keys, note
from strongroom.archive.note import KeyType, VerifierKey
from strongroom.archive.witness import WitnessRefusal, WitnessServer
from strongroom.service.serving import bind

log = structlog.get_logger(__name__)

MAX_REQUEST_BYTES = 64 << 10
_TIMEOUT_SECONDS = 10.0


def open_witness(state: Path, name: str, logs: Sequence[Sequence[VerifierKey]]) -> WitnessServer:
    """The witness in `state`, its key made on the first start. Raises KeyUnusable, FormatError."""
    loaded = keys.load_or_create(state / "witness.pem", name, (KeyType.ED25519,))
    return WitnessServer(keys.as_cosigners(loaded)[0], logs, state / "memory")


def create_app(witness: WitnessServer) -> FastAPI:
    """C2SP tlog-witness over HTTP. `GET /` says who this witness is."""
    app = FastAPI(title="Strongroom witness", openapi_url=None)

    @app.get("/")
    async def identity() -> PlainTextResponse:
        return PlainTextResponse(witness.key.vkey() + "\n")

    @app.post("/add-checkpoint")
    async def add_checkpoint(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_REQUEST_BYTES:
                return PlainTextResponse("the request is too long\n", 413)
        try:
            return PlainTextResponse(await run_in_threadpool(witness.add_checkpoint, body, datetime.now(UTC)))
        except WitnessRefusal as refusal:
            log.warning("refused", status=refusal.status, detail=refusal.message)
            if refusal.size is not None:
                return Response(f"{refusal.size}\n", refusal.status, media_type="text/x.tlog.size")
            return PlainTextResponse(refusal.message + "\n", refusal.status)

    return app


def serve(witness: WitnessServer, listen: str) -> None:
    """Serve over HTTP on `<host>:<port>` until told to stop. Raises OSError when the address can't be bound."""
    listener = bind(listen)
    config = uvicorn.Config(create_app(witness), log_config=None, access_log=False, server_header=False)
    log.info("serving", url="http://{}:{}".format(*listener.getsockname()[:2]), key=witness.key.vkey())
    uvicorn.Server(config).run(sockets=[listener])


async def watch_once(client: httpx.AsyncClient, witness: WitnessServer, origin: str, url: str) -> int:
    """Fetch the log's newest checkpoint and a proof from this witness's memory, cosign, leave the lines with the log.

    Returns the size cosigned, also when it was before. Raises WitnessRefusal when the log is not an extension of what
    was seen, httpx.HTTPError when it can't be reached or does not answer as it should.
    """
    seen = await asyncio.to_thread(witness.last, origin)
    old = seen.size if seen is not None else 0
    fetched = await client.get(f"{url.rstrip('/')}/tlog/submission", params={"old": old})
    if fetched.status_code == 409:
        # It says it is shorter than what we saw. Its own signed word for that is the report.
        raise WitnessRefusal(409, f"{origin}: the log shows less than the {old} entries cosigned before", size=old)
    fetched.raise_for_status()
    lines = await asyncio.to_thread(witness.add_checkpoint, fetched.content, datetime.now(UTC))
    size = note.parse_checkpoint(note.parse(fetched.content.partition(b"\n\n")[2]).text).size
    if size > old or old == 0:
        left = await client.post(f"{url.rstrip('/')}/tlog/cosignatures", params={"size": size}, content=lines)
        left.raise_for_status()
    return size


async def watch(witness: WitnessServer, logs: Sequence[tuple[str, str]], seconds: float) -> None:
    """Watch logs (origin, URL) until cancelled. What goes wrong is logged; a refusal loudly."""
    async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, follow_redirects=False) as client:
        while True:
            for origin, url in logs:
                try:
                    size = await watch_once(client, witness, origin, url)
                    log.info("cosigned", origin=origin, size=size)
                except WitnessRefusal as refusal:
                    log.error("REFUSED: the log is not what it was", origin=origin, detail=refusal.message)
                except httpx.HTTPError as error:
                    log.warning("can't reach the log", origin=origin, detail=str(error) or type(error).__name__)
            await asyncio.sleep(seconds)
