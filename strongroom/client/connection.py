"""The client: one connection to one service, with one token.

Reading questions again changes nothing, so what the service can't do just now (503) is asked again for up to
`patience_seconds`. Values go as parameters, never into the text of a question.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote
from urllib.request import getproxies

import httpx

from strongroom.client.answers import Answer, Basis, Entity, Estimate, Hit, Stream, Timeline
from strongroom.client.direct import Direct
from strongroom.client.errors import AnswerBroken, Unavailable, Unreachable, problem_of
from strongroom.client.jobs import Job

_ARROW = {"Accept": "application/vnd.apache.arrow.stream"}
Parameters = Sequence[Any] | Mapping[str, Any] | None
Time = datetime | str | None


class Client:
    """A service's client. Close it, or use it in a `with`. Not for several threads at once.

    Raises, everywhere: Unreachable, AnswerBroken, and the Problem the service answers with (errors.py).
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout_seconds: float = 60.0,
        patience_seconds: float = 0.0,
        verify: Any = True,
        compression: bool | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`verify` as httpx takes it: False, or an SSL context, for a certificate authority of your own.

        `compression`: whether answers are to come compressed. They are a fifth as long then, and take the service
        longer to make than a gigabit network to carry; None: unless the service is on this machine.
        """
        self._patience = patience_seconds
        # Without TLS there is nothing to verify, and reading the authorities takes longer than many a question.
        context = httpx.create_ssl_context(verify=verify if httpx.URL(url).scheme != "http" else False)
        # Behind a proxy, and over a transport of somebody else's, the way is httpx's own.
        direct = transport is None and not {"http", "https", "all"} & getproxies().keys()
        self._http = httpx.Client(
            base_url=url.rstrip("/"),
            headers={"Authorization": f"Bearer {token}"},
            timeout=timeout_seconds,
            verify=context,
            transport=transport,
            mounts={"all://": Direct(context)} if direct else None,
        )
        if not (_distant(self._http.base_url.host) if compression is None else compression):
            self._http.headers["Accept-Encoding"] = "identity"

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- questions

    def query(
        self,
        sql: str,
        parameters: Parameters = None,
        *,
        limit: int | None = None,
        as_of: int | None = None,
        unsealed: bool = False,
    ) -> Answer:
        """One SELECT. `parameters`: a list for `?`, a dict for `$name`.

        `unsealed`: read what is acknowledged and not sealed yet, too; such rows have `_sealed` = false and no address.
        """
        return self.read("POST", "/v1/query", json=_question(sql, parameters, limit, as_of, unsealed))

    @contextmanager
    def stream(
        self,
        sql: str,
        parameters: Parameters = None,
        *,
        limit: int | None = None,
        as_of: int | None = None,
        unsealed: bool = False,
    ) -> Iterator[Stream]:
        """The same, batch by batch, for answers that need not be in memory whole."""
        question = _question(sql, parameters, limit, as_of, unsealed)
        with self._streamed("POST", "/v1/query", headers=_ARROW, json=question) as response:
            yield Stream(response)

    def estimate(self, sql: str, parameters: Parameters = None, *, as_of: int | None = None) -> Estimate:
        """What the same question would read, and whether it may; nothing is read for it."""
        return Estimate.of_body(self.json("POST", "/v1/query/estimate", json=_question(sql, parameters, None, as_of)))

    def catalog(self) -> dict[str, Any]:
        """What can be asked: views, columns, ranges, counts."""
        return self.json("GET", "/v1/catalog")

    def search(
        self,
        *texts: str,
        entities: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        since: Time = None,
        until: Time = None,
        sources: Sequence[str] = (),
        accounts: Sequence[str] = (),
        regions: Sequence[str] = (),
        outcomes: Sequence[str] = (),
        ignore_case: bool = False,
        raw: bool = False,
        as_of: int | None = None,
        unsealed: bool = False,
        limit: int | None = None,
    ) -> Iterator[Hit]:
        """Records that have all these texts and entities, newest first, on one snapshot, page by page as you go.

        `unsealed`: those that are acknowledged and not sealed yet, too (no address); of all the newest 1,000 at most.
        """
        wanted = _filters(texts, entities, since, until, sources, accounts, regions, outcomes, ignore_case)
        wanted += [("unsealed", "true")] if unsealed else []
        page_size = min(limit or 1000, 1000)
        wanted += [("raw", str(raw).lower()), ("limit", str(page_size))]
        left, cursor = limit, [("as_of", str(as_of))] if as_of else []
        while True:
            page = self.json("GET", "/v1/search", params=[*wanted, *cursor])
            for hit in page["hits"]:
                if left == 0:
                    return
                left = None if left is None else left - 1
                yield Hit(**hit)
            if not page["next"] or left == 0:
                return
            cursor = [("cursor", page["next"])]

    def timeline(
        self,
        *texts: str,
        bucket: str | None = None,
        by: str = "source",
        entities: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        since: Time = None,
        until: Time = None,
        sources: Sequence[str] = (),
        accounts: Sequence[str] = (),
        regions: Sequence[str] = (),
        outcomes: Sequence[str] = (),
        ignore_case: bool = False,
        as_of: int | None = None,
        unsealed: bool = False,
    ) -> Timeline:
        """How many records, minute by minute, hour by hour or day by day."""
        wanted = _filters(texts, entities, since, until, sources, accounts, regions, outcomes, ignore_case)
        wanted += [("by", by), *([("bucket", bucket)] if bucket else []), *([("as_of", str(as_of))] if as_of else [])]
        wanted += [("unsealed", "true")] if unsealed else []
        told = self.json("GET", "/v1/timeline", params=wanted)
        facts = {name: told[name] for name in ("bucket", "by", "counted", "buckets", "without_time")}
        return Timeline(**facts, basis=Basis.of_body(told))

    def entity(
        self,
        kind: str,
        value: str,
        *,
        since: Time = None,
        until: Time = None,
        top: int = 20,
        as_of: int | None = None,
        unsealed: bool = False,
    ) -> Entity:
        """Everything about one address, principal, access_key, resource, host, account, event_id or region."""
        wanted = _filters((), (), since, until, (), (), (), (), False)
        wanted += [("as_of", str(as_of))] if as_of else []
        wanted += [("unsealed", "true")] if unsealed else []
        path = f"/v1/entities/{quote(kind, safe='')}/{quote(value, safe='/')}"
        told = self.json("GET", path, params=[*wanted, ("top", str(top))])
        basis = Basis.of_body(told)
        facts = {k: v for k, v in told.items() if k not in ("snapshot", "segments", "unsealed")}
        return Entity(**facts, basis=basis)

    # -- ready and saved questions

    def investigations(self) -> list[dict[str, Any]]:
        """The library: name, title, question, what each shows, parameters, follow-ups."""
        found: list[dict[str, Any]] = self.json("GET", "/v1/investigations")["investigations"]
        return found

    def investigate(
        self,
        name: str,
        *,
        limit: int | None = None,
        as_of: int | None = None,
        unsealed: bool = False,
        **parameters: Any,
    ) -> Answer:
        """Ask a ready investigation."""
        body = _blanks(parameters, limit, as_of, unsealed)
        return self.read("POST", f"/v1/investigations/{quote(name, safe='')}", json=body)

    def save(
        self, name: str, sql: str, *, description: str = "", parameters: Sequence[Mapping[str, Any]] = ()
    ) -> dict[str, Any]:
        """Keep a question under a name, or its next version; each parameter has name, type, default, description."""
        draft = {"sql": sql, "description": description, "parameters": [dict(item) for item in parameters]}
        return self.json("PUT", f"/v1/saved/{quote(name, safe='')}", json=draft)

    def saved(self) -> list[dict[str, Any]]:
        """The saved questions."""
        found: list[dict[str, Any]] = self.json("GET", "/v1/saved")["saved"]
        return found

    def ask(
        self,
        name: str,
        *,
        version: int | None = None,
        limit: int | None = None,
        as_of: int | None = None,
        unsealed: bool = False,
        **parameters: Any,
    ) -> Answer:
        """Ask a saved question."""
        params = {} if version is None else {"version": str(version)}
        body = _blanks(parameters, limit, as_of, unsealed)
        return self.read("POST", f"/v1/saved/{quote(name, safe='')}", json=body, params=params)

    # -- jobs

    def submit(
        self, sql: str, parameters: Parameters = None, *, limit: int | None = None, as_of: int | None = None
    ) -> Job:
        """Ask now, fetch later."""
        return Job(self, self.json("POST", "/v1/queries", json=_question(sql, parameters, limit, as_of)))

    def jobs(self) -> list[Job]:
        """Your jobs, the newest first."""
        return [Job(self, facts) for facts in self.json("GET", "/v1/queries")["jobs"]]

    # -- proofs

    def proof(self, segment: str, row: int) -> bytes:
        """The proof of one record, exactly as `verify.py` takes it."""
        with self._streamed("GET", "/v1/proof", params={"segment": segment, "row": str(row)}) as response:
            return _whole(response)

    def export(
        self,
        path: Path | str,
        *,
        case: str,
        purpose: str,
        addresses: Sequence[tuple[str, int]] | None = None,
        sql: str | None = None,
        parameters: Parameters = None,
        as_of: int | None = None,
    ) -> dict[str, str]:
        """Write an evidence bundle of the records at `addresses`, or of those a question answers with, to `path`.

        Returns what was made: its SHA-256, records, checkpoint, the batch of its audit record.
        """
        wanted: dict[str, Any] = {"case": case, "purpose": purpose}
        if addresses is not None:
            wanted["rows"] = [{"segment": segment, "row": row} for segment, row in addresses]
        else:
            wanted |= _question(sql or "", parameters, None, as_of)
        with self._streamed("POST", "/v1/evidence", json=wanted) as response:
            with Path(path).open("wb") as file:
                try:
                    for chunk in response.iter_bytes():
                        file.write(chunk)
                except httpx.TransportError as error:
                    raise AnswerBroken(f"the bundle broke off: {error}") from error
            prefix = "strongroom-"
            return {k.removeprefix(prefix): v for k, v in response.headers.items() if k.startswith(prefix)}

    # -- underneath

    def json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """One request, its JSON answer."""
        with self._streamed(method, path, **options) as response:
            _whole(response)
            found: dict[str, Any] = response.json()
            return found

    def read(self, method: str, path: str, **options: Any) -> Answer:
        """One request, its rows."""
        with self._streamed(method, path, headers=_ARROW, **options) as response:
            return Stream(response).answer()

    @contextmanager
    def _streamed(self, method: str, path: str, **options: Any) -> Iterator[httpx.Response]:
        """A good response, its body not yet read."""
        started = time.monotonic()
        while True:
            try:
                response = self._http.send(self._http.build_request(method, path, **options), stream=True)
                if response.is_success:
                    break
                response.read()
            except httpx.TransportError as error:
                raise Unreachable(f"{self._http.base_url}: {type(error).__name__}: {error}") from error
            problem = problem_of(response)
            response.close()
            wait = problem.retry_after or 1.0
            if not isinstance(problem, Unavailable) or time.monotonic() - started + wait > self._patience:
                raise problem
            time.sleep(wait)
        try:
            yield response
        finally:
            response.close()


def _distant(host: str) -> bool:
    """Whether it is another machine, as far as its name tells."""
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def _whole(response: httpx.Response) -> bytes:
    try:
        return response.read()
    except httpx.TransportError as error:
        raise AnswerBroken(f"the answer broke off: {error}") from error


def _question(
    sql: str, parameters: Parameters, limit: int | None, as_of: int | None, unsealed: bool = False
) -> dict[str, Any]:
    given = dict(parameters) if isinstance(parameters, Mapping) else None if parameters is None else list(parameters)
    return _present(sql=sql, parameters=given, limit=limit, as_of=as_of, unsealed=unsealed or None)


def _blanks(
    parameters: Mapping[str, Any], limit: int | None, as_of: int | None, unsealed: bool = False
) -> dict[str, Any]:
    given = {k: v.isoformat() if isinstance(v, datetime) else v for k, v in parameters.items() if v is not None}
    return _present(parameters=given, limit=limit, as_of=as_of, unsealed=unsealed or None)


def _present(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _filters(
    texts: Sequence[str],
    entities: Mapping[str, str] | Sequence[tuple[str, str]],
    since: Time,
    until: Time,
    sources: Sequence[str],
    accounts: Sequence[str],
    regions: Sequence[str],
    outcomes: Sequence[str],
    ignore_case: bool,
) -> list[tuple[str, str]]:
    pairs = entities.items() if isinstance(entities, Mapping) else entities
    wanted = [("q", text) for text in texts]
    wanted += [("entity", f"{kind}:{value}") for kind, value in pairs]
    for name, moment in (("since", since), ("until", until)):
        if moment is not None:
            wanted.append((name, moment.isoformat() if isinstance(moment, datetime) else moment))
    for name, values in (("source", sources), ("account", accounts), ("region", regions), ("outcome", outcomes)):
        wanted += [(name, value) for value in values]
    return [*wanted, ("ignore_case", "true")] if ignore_case else wanted
