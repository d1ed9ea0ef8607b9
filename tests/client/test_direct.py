"""The transport: whole bodies are whole, broken ones are errors, and a connection is used again only when it can be."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import httpx
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.client import AnswerBroken, Client, Unreachable
from strongroom.client.direct import BODY, Direct

Serve = Callable[[socket.socket], None]
BASIS = b"strongroom-snapshot-size: 3\r\nstrongroom-snapshot-root: ab\r\nstrongroom-segments: 0\r\n"


@contextmanager
def serving(serve: Serve) -> Iterator[tuple[str, list[int]]]:
    """A service that does `serve` with each connection; its address, and how many connections it had."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[int] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(1)
            with connection:
                serve(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", connections
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def asked(connection: socket.socket) -> bytes:
    """One request's head; b"" when there is none."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and (more := connection.recv(1 << 16)):
        head += more
        if b"content-length" in head.lower():  # a body of JSON ends with a brace
            while not head.endswith(b"}") and (more := connection.recv(1 << 16)):
                head += more
            break
    return head


def chunked(content: bytes, cuts: list[int], head: bytes = b"") -> bytes:
    """An answer in chunks that end at `cuts`, without the last chunk."""
    places = sorted({0, len(content), *(cut % (len(content) + 1) for cut in cuts)})
    pieces = [content[start:end] for start, end in pairwise(places)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n" + head + b"\r\n" + body


@settings(max_examples=15, deadline=None)
@given(
    content=st.binary(max_size=200_000),
    cuts=st.lists(st.integers(0, 200_000), max_size=6),
    reads=st.lists(st.integers(0, 150_000), min_size=1, max_size=5),
)
def test_a_body_is_the_same_by_chunks_and_by_reads(content: bytes, cuts: list[int], reads: list[int]) -> None:
    def serve(connection: socket.socket) -> None:
        while asked(connection):
            connection.sendall(chunked(content, cuts) + b"0\r\n\r\n")

    with serving(serve) as (url, connections), httpx.Client(transport=Direct(httpx.create_ssl_context())) as client:
        assert client.get(url).content == content
        with client.stream("GET", url) as response:
            file, got = response.extensions[BODY], io.BytesIO()
            for size in reads:
                got.write(file.read(size))
            got.write(file.read(len(content) + 1))
            assert bytes(file.read(10)) == b""
        assert got.getvalue() == content
        assert len(connections) == 1, "the connection serves again"


TABLE = pa.table({"n": range(50_000)})


def arrow() -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)
    return sink.getvalue()


def with_length(content: bytes, said: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%b\r\n" % (said, BASIS) + content


@pytest.mark.parametrize(
    ("sent", "whole"),
    [
        (chunked(arrow(), [7, 9000], BASIS) + b"0\r\n\r\n", True),
        (chunked(arrow(), [7, 9000], BASIS), False),  # all of Arrow's bytes, but the answer did not end
        (chunked(arrow()[:-9000], [7], BASIS), False),
        (chunked(arrow()[:-9000], [7], BASIS) + b"0\r\n\r\n", False),
        (chunked(arrow(), [], BASIS)[:-100_000], False),
        (chunked(arrow(), [], BASIS) + b"nonsense\r\n", False),
        (with_length(arrow(), len(arrow())), True),
        (with_length(arrow(), len(arrow()) + 1), False),
        (with_length(arrow()[:-9000], len(arrow())), False),
    ],
)
def test_half_an_answer_is_an_error(sent: bytes, whole: bool) -> None:
    def serve(connection: socket.socket) -> None:
        asked(connection)
        connection.sendall(sent)

    with serving(serve) as (url, _), Client(url, "x", timeout_seconds=5) as client:
        if whole:
            assert client.query("SELECT 1").table == TABLE
        else:
            with pytest.raises(AnswerBroken):
                client.query("SELECT 1")


def test_a_service_that_falls_silent_is_told() -> None:
    def serve(connection: socket.socket) -> None:
        if b"/v1/catalog" not in asked(connection):
            connection.sendall(chunked(arrow(), [], BASIS)[:-100_000])
        connection.recv(1)

    with serving(serve) as (url, _), Client(url, "x", timeout_seconds=0.3) as client:
        with pytest.raises(Unreachable, match="ReadTimeout"):
            client.catalog()
        with pytest.raises(AnswerBroken, match="timed out"):
            client.query("SELECT 1")


def test_a_connection_that_the_service_closed_is_not_used_again() -> None:
    def serve(connection: socket.socket) -> None:
        asked(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    with serving(serve) as (url, connections), Client(url, "x", timeout_seconds=5) as client:
        for _ in range(3):
            assert client.catalog() == {}
        assert len(connections) == 3


def test_what_is_asked_beside_a_stream_has_a_connection_of_its_own() -> None:
    released = threading.Event()

    def one(connection: socket.socket) -> None:
        with connection:
            while head := asked(connection):
                if b"/v1/catalog" in head:
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                else:
                    connection.sendall(chunked(arrow(), [], BASIS))
                    released.wait(5)
                    connection.sendall(b"0\r\n\r\n")

    def serve(connection: socket.socket) -> None:
        threading.Thread(target=one, args=(connection.dup(),), daemon=True).start()

    with serving(serve) as (url, connections), Client(url, "x", timeout_seconds=5) as client:
        with client.stream("SELECT 1") as stream:
            next(iter(stream))
            assert client.catalog() == client.catalog() == {}
            released.set()
            stream.answer()
        assert client.catalog() == {} and len(connections) == 2


@pytest.mark.parametrize(("given_", "accepted"), [(None, b"identity"), (True, b"zstd"), (False, b"identity")])
def test_answers_come_compressed_when_that_pays(given_: bool | None, accepted: bytes) -> None:
    heads: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        heads.append(asked(connection))
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    with serving(serve) as (url, _), Client(url, "x", compression=given_) as client:
        client.catalog()
    coding = next(line for line in heads[0].lower().split(b"\r\n") if line.startswith(b"accept-encoding:"))
    assert accepted in coding


def test_proxies_are_asked_as_httpx_does(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        heads.append(asked(connection))
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    with serving(serve) as (url, _):
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.delenv("no_proxy", raising=False)
        with Client("http://archive.example", "x", timeout_seconds=5) as client:
            assert client.catalog() == {}
    assert heads[0].startswith(b"GET http://archive.example/v1/catalog")


@pytest.mark.parametrize("token", ["with\nbreak", "with\r\nmore: headers"])
def test_a_token_that_is_none_is_said(token: str) -> None:
    with serving(lambda connection: None) as (url, _), pytest.raises(Unreachable), Client(url, token) as client:
        client.catalog()
