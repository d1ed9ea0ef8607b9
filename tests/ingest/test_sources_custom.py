"""Sources declared in TOML: recognised, split, derived, sealed and derived again like any other, or refused by key."""

from __future__ import annotations

import pickle
import re
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.archive import segment
from strongroom.ingest.sources import BUILT_IN, Registry
from strongroom.ingest.sources.custom import DeclarationError
from tests.ingest.conftest import House, run, send

GUIDE = Path(__file__).parents[2] / "docs" / "sources" / "custom.md"
(DECLARED,) = re.findall(r"```toml\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
PAYMENT = (
    b'{"txn":{"id":"t-1"},"when":"2024-05-06T07:08:09Z","user":{"login":"ann"},"merchant":"m",'
    b'"amount":{"value":12.5},"state":"refused"}'
)
DOORS = b"06.05.2024 07:08 b17 lab-2 opened\r\nno line\n07.05.2024 09:00 b18 lab-2 refused\n"


def test_the_guides_json_source() -> None:
    registry = Registry(DECLARED)
    source = registry.recognise(PAYMENT)
    assert source.name == "payments"
    found = source.split(PAYMENT + b'\n{"txn":7}')
    first, second = source.derive(found.raw, found.context).to_pylist()
    assert first == {
        "event_time": datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC),
        "txn": "t-1",
        "user": "ann",
        "merchant": "m",
        "amount": 12.5,
        "state": "refused",
    }
    assert set(second.values()) == {None}
    with duckdb.connect() as connection:
        connection.register("t", source.derive([PAYMENT], None))
        columns = ", ".join(f"({sql}) AS {name}" for name, sql in source.events.items())
        (event,) = connection.sql(f"SELECT {columns} FROM t").to_arrow_table().to_pylist()
    assert (event["source"], event["actor"], event["outcome"], event["event_id"]) == (
        "payments",
        "ann",
        "denied",
        "t-1",
    )


def test_the_guides_line_source() -> None:
    registry = Registry(DECLARED)
    source = registry.recognise(DOORS)
    assert source.name == "door"
    found = source.split(DOORS)
    assert found.positions == [0, 2] and [b.raw for b in found.broken] == [b"no line"]
    rows = source.derive(found.raw, found.context).to_pylist()
    assert rows[0] == {
        "event_time": datetime(2024, 5, 6, 7, 8, tzinfo=UTC),
        "badge": "b17",
        "door": "lab-2",
        "result": "opened",
    }


@given(st.lists(st.binary(max_size=40) | st.sampled_from([PAYMENT, *DOORS.splitlines()]), max_size=6))
def test_any_bytes_survive_or_are_quarantined(pieces: list[bytes]) -> None:
    registry = _REGISTRY
    content = b"\n".join(pieces)
    for name in ("payments", "door"):
        found = registry.sources[name].split(content)
        for record in [*found.raw, *(b.raw for b in found.broken)]:
            assert record in content
        assert registry.sources[name].derive(found.raw, found.context).num_rows == len(found.raw)


_REGISTRY = Registry(DECLARED)


def test_built_in_sources_are_as_before_and_workers_get_the_same() -> None:
    registry = Registry(DECLARED)
    assert set(registry.sources) == {*BUILT_IN.sources, "payments", "door"}
    assert registry.recognise(b'{"eventName":"A","eventSource":"B"}').name == "cloudtrail"
    again = pickle.loads(pickle.dumps(registry))
    assert set(again.sources) == set(registry.sources)
    assert again.fingerprint("door") == registry.fingerprint("door") != registry.fingerprint("payments")
    assert registry.fingerprint("cloudtrail") == "" and pickle.loads(pickle.dumps(BUILT_IN)) is BUILT_IN
    other = Registry(DECLARED.replace('"user.login"', '"user.id"').replace("Badge readers", "Badges"))
    assert other.fingerprint("payments") != registry.fingerprint("payments")
    assert other.fingerprint("door") == registry.fingerprint("door")


HEAD = '[[source]]\nname = "x"\ndescription = "d"\n'


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("name = 1", "the file"),
        ("[[source]", "not TOML"),
        ('[[source]]\nname = "x"', "source[0]: object missing required field `description`"),
        (HEAD + "colour = 1\ncolumns = {}", "source[0]: object contains unknown field `colour`"),
        (HEAD + "columns = {}", "source[0] (x).columns: declares none"),
        (HEAD + 'columns = { a = { path = "a", kind = "text" } }', "source[0].columns"),
        (HEAD.replace('"x"', '"X-1"') + 'columns = { a = "a" }', "source[0].name"),
        (HEAD.replace('"x"', '"cloudtrail"') + 'columns = { a = "a" }', "source[0].name: 'cloudtrail' is taken"),
        (HEAD.replace('"x"', '"ocsf_mine"') + 'columns = { a = "a" }', "source[0].name"),
        (2 * (HEAD + 'columns = { a = "a" }\n'), "source[1].name: 'x' is taken"),
        (HEAD + 'columns = { raw = "a" }', "source[0] (x).columns.raw"),
        (HEAD + 'columns = { "A b" = "a" }', "source[0] (x).columns.A b"),
        (HEAD + 'columns = { a = "b..c" }', "source[0] (x).columns.a.path"),
        (HEAD + 'columns = { a = { path = "a", type = "date" } }', "source[0] (x).columns.a.type"),
        (HEAD + 'columns = { a = { path = "a", format = "%Y" } }', "source[0] (x).columns.a.format"),
        (HEAD + 'time = { path = "a", format = "%H:%M" }\ncolumns = { a = "a" }', "source[0] (x).time.format"),
        (HEAD + 'natural_id = "b"\ncolumns = { a = "a" }', "source[0] (x).natural_id"),
        (HEAD + 'sort = ["b"]\ncolumns = { a = "a" }', "source[0] (x).sort"),
        (HEAD + 'pattern = "(?P<a>"\ncolumns = { a = "a" }', "source[0] (x).pattern"),
        (HEAD + 'pattern = "(?P<a>.)"\ncolumns = { a = "b" }', "source[0] (x).columns.a"),
        (HEAD + 'recognise = ["a.b.c"]\ncolumns = { a = "a" }', "source[0] (x).recognise"),
        (HEAD + 'events = { who = "a" }\ncolumns = { a = "a" }', "source[0] (x).events.who"),
        (HEAD + 'events = { actor = "b" }\ncolumns = { a = "a" }', "source[0] (x).events.actor"),
    ],
)
def test_what_is_wrong_is_named_by_its_key(text: str, key: str) -> None:
    with pytest.raises(DeclarationError) as raised:
        Registry(text)
    assert str(raised.value).startswith(key)


def test_sealed_in_worker_processes_and_verified(house: House) -> None:
    registry = Registry(DECLARED)

    async def scenario() -> None:
        intake = house.intake(workers=1, registry=registry)
        await intake.start()
        assert (await send(intake, PAYMENT, source="auto")).source == "payments"
        assert (await send(intake, DOORS, source="door")).source == "door"
        assert (await send(intake, PAYMENT, source="payments")).duplicate, "it carries its own identity"
        await intake.stop()

    run(scenario)
    rows = house.rows().to_pylist()
    assert sorted((row["source"], row["raw"]) for row in rows) == [
        ("door", b"06.05.2024 07:08 b17 lab-2 opened"),
        ("door", b"07.05.2024 09:00 b18 lab-2 refused"),
        ("payments", PAYMENT),
        ("quarantine", b"no line"),
    ]
    for entry in house.log().entries():
        for reference in entry.segments:
            source = reference.key.split("source=")[1].split("/")[0]
            (table,) = segment.tables(house.files / reference.key)
            said = (table.schema.metadata or {}).get(b"strongroom.declaration", b"").decode()
            assert said == registry.fingerprint(source)
            derived = registry.sources[source].derive(table["raw"].to_pylist(), table["context"].to_pylist())
            assert derived.equals(pa.table(table.select(derived.schema.names).columns, schema=derived.schema))


def test_a_source_that_is_declared_no_more_quarantines_what_was_spooled(house: House) -> None:
    async def accept() -> None:
        intake = house.intake(registry=Registry(DECLARED))
        await intake.start()
        await send(intake, PAYMENT, source="payments")
        await intake.abandon()

    async def seal() -> None:
        await (await house.open()).stop()

    run(accept)  # its end waits for the threads of the intake that was given up
    run(seal)
    (row,) = house.rows().to_pylist()
    assert (row["source"], row["raw"]) == ("quarantine", PAYMENT)
    house.must_be_sound()
