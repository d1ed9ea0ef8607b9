"""A transport for httpx that reads long answers into place, by the HTTP client of Python's own library.

httpx's own transport parses every answer in Python, 64 kB at a time, and copies it several times: of many rows, that is
most of a client's work. Here the body is also a file, `response.extensions[BODY]`, whose bytes go from the socket
straight into the buffers that Arrow's columns are then made of. Headers, decoding, errors, timeouts and TLS stay as
httpx has them. What it does not know: proxies, HTTP/2.
"""

from __future__ import annotations

import http.client
import selectors
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import httpx
import pyarrow as pa

BODY = "strongroom.body"
IDLE_SECONDS = 5.0
"""A connection that rested longer is not used again: the service may be about to close it."""
_CHUNK_BYTES = 1 << 16


class Direct(httpx.BaseTransport):
    """One origin's connections, as many as answers are being read at once. Not for several threads at once."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._idle: list[tuple[float, http.client.HTTPConnection]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The head of the answer; its body is read by whoever wants it. Raises httpx.TransportError."""
        timeouts = request.extensions.get("timeout", {})
        connection = self._rested(request.url) or self._connected(request.url, timeouts.get("connect"))
        try:
            _send(connection, request, timeouts.get("write"))
            with _translated(httpx.ReadTimeout, httpx.ReadError):
                connection.sock.settimeout(timeouts.get("read"))
                answer = connection.getresponse()
        except BaseException:
            connection.close()
            raise
        body = Body(answer, lambda: self._over(answer, connection))
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.getheaders()]
        facts = {"http_version": b"HTTP/1.1", "reason_phrase": answer.reason.encode("latin-1"), BODY: body}
        return httpx.Response(answer.status, headers=headers, stream=_Chunks(body), extensions=facts)

    def close(self) -> None:
        """Close the connections that rest."""
        while self._idle:
            self._idle.pop()[1].close()

    def _connected(self, url: httpx.URL, timeout: float | None) -> http.client.HTTPConnection:
        host, port = _origin(url)
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
        if url.scheme == "https":
            connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=self._context)
        with _translated(httpx.ConnectTimeout, httpx.ConnectError):
            connection.connect()
        return connection

    def _rested(self, url: httpx.URL) -> http.client.HTTPConnection | None:
        """A connection that can serve again."""
        while self._idle:
            since, connection = self._idle.pop()
            if (connection.host, connection.port) == _origin(url) and time.monotonic() - since < IDLE_SECONDS:
                with selectors.DefaultSelector() as selector:
                    selector.register(connection.sock, selectors.EVENT_READ)
                    if not selector.select(0):  # else the service closed it
                        return connection
            connection.close()
        return None

    def _over(self, answer: http.client.HTTPResponse, connection: http.client.HTTPConnection) -> None:
        """Nobody reads this answer any more."""
        if answer.isclosed() and connection.sock is not None:  # read to its end, and the service stays
            self._idle.append((time.monotonic(), connection))
        else:
            answer.close()
            connection.close()


class Body:
    """The bytes of an answer as a file that can be read once. What it raises is an httpx.TransportError."""

    def __init__(self, answer: http.client.HTTPResponse, over: Callable[[], None]) -> None:
        self._answer, self._over = answer, over
        self.closed = False

    def read(self, size: int) -> pa.Buffer:
        """`size` bytes, fewer only at the end; a body that breaks off before its end raises."""
        # Arrow's allocator keeps the memory of batches that are gone for those that come.
        content = pa.allocate_buffer(size, resizable=True)
        with _translated(httpx.ReadTimeout, httpx.ReadError):
            filled = self._fill(memoryview(content))
        if filled < size:
            content.resize(filled)
        return content

    def some(self) -> bytes:
        """What has come, at most _CHUNK_BYTES; none at the end."""
        if not self._answer.chunked:
            return bytes(self.read(_CHUNK_BYTES))
        with _translated(httpx.ReadTimeout, httpx.ReadError):
            return self._answer.read1(_CHUNK_BYTES)

    def close(self) -> None:
        """Any number of times. Before the end of the body, the connection ends with it."""
        if not self.closed:
            self.closed = True
            self._over()

    def _fill(self, space: memoryview) -> int:
        filled = 0
        while filled < len(space):
            read = self._answer.readinto(space[filled:])
            if not read:
                if self._answer.length:  # `readinto` would leave it at that
                    raise http.client.IncompleteRead(b"", self._answer.length)
                break
            filled += read
        return filled

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


class _Chunks(httpx.SyncByteStream):
    """The same, for all that httpx does with it."""

    def __init__(self, body: Body) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._body.some():
            yield chunk

    def close(self) -> None:
        self._body.close()


def _send(connection: http.client.HTTPConnection, request: httpx.Request, timeout: float | None) -> None:
    method, target = request.method, request.url.raw_path.decode("ascii")
    assert isinstance(request.stream, httpx.SyncByteStream)
    with _translated(httpx.WriteTimeout, httpx.WriteError):
        connection.sock.settimeout(timeout)
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        try:
            for name, value in request.headers.raw:
                connection.putheader(name.decode("latin-1"), value)
        except ValueError as error:
            raise httpx.LocalProtocolError(str(error)) from error
        chunked = request.headers.get("Transfer-Encoding", "") == "chunked"
        with suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it had read everything
            connection.endheaders(request.stream, encode_chunked=chunked)


def _origin(url: httpx.URL) -> tuple[str, int]:
    return url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)


@contextmanager
def _translated(too_late: type[httpx.TransportError], broken: type[httpx.TransportError]) -> Iterator[None]:
    """The errors of http.client as those of httpx."""
    try:
        yield
    except TimeoutError as error:
        raise too_late(str(error) or "timed out") from error
    except http.client.HTTPException as error:
        raise httpx.RemoteProtocolError(str(error) or type(error).__name__) from error
    except OSError as error:
        raise broken(str(error) or type(error).__name__) from error
