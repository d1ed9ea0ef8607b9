"""The OCSF views against AWS's own mapping of the same records, and over everything else we have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from strongroom.ingest.ocsf import CLASSES
from strongroom.ingest.sources import SOURCES, recognise
from strongroom.query import normalised
from strongroom.service.answers.views import ocsf_views
from tests.ingest.samples import SAMPLES, body, files
from tests.service.conftest import Service
from tests.service.test_ingest import push

PAIRS = sorted((SAMPLES / "ocsf").glob("*.parquet"))

# Renamed between the release candidate that the pairs are in and OCSF 1.1.
RENAMED = {
    "actor.user.uuid": "actor.user.uid_alt",
    "user.uuid": "user.uid_alt",
    "actor.user.account_uid": "actor.user.account.uid",
    "cloud.account_uid": "cloud.account.uid",
    "actor.session.mfa": "actor.session.is_mfa",
    "mfa": "is_mfa",
    "finding.remediation.desc": "remediation.desc",
}
# What AWS's mapping says and ours does not, on purpose: path → why.
OTHERWISE = {
    "class_uid": "API Activity and Security Finding have other numbers now",
    "class_name": "Security Finding is two classes now",
    "category_uid": "as class_uid",
    "category_name": "categories were renamed",
    "type_uid": "as class_uid",
    "type_name": "as class_name",
    "metadata.version": "1.1 here",
    "metadata.product.vendor_name": "said only of AWS",
    "metadata.product.name": "of services, not of their features",
    "metadata.uid": "a finding's identity stands in finding_info",
    "api.request.uid": "two quotation marks where there is none",
    "status": "Other for a role that was assumed",
    "status_id": "as status",
    "activity_id": "an archived finding is closed",
    "activity_name": "as activity_id",
    "compliance.status": "PASSED in ASFF's words",
    "answers": "with their DNS class",
    "resources": "with their details",
}


def flat(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """(path with dots, value) of everything that is said."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from flat(inner, f"{path}.{name}" if path else name)
    elif value not in (None, "", "-", []):
        yield path, value


@pytest.fixture(scope="module")
def asked() -> Iterator[duckdb.DuckDBPyConnection]:
    """All samples in tables like the sources' views, and the OCSF views over them."""
    contents: dict[str, list[bytes]] = {name: [] for name in SOURCES}
    for path in files(SAMPLES):
        content = body(path)
        source = recognise(content[:65_536])
        contents[source.name].append(content)
    with duckdb.connect() as connection:
        for name, bodies in contents.items():
            connection.register(name, pa.concat_tables([_rows(name, content) for content in bodies or [b""]]))
        for view in ocsf_views():
            connection.execute(normalised.normalised_view(view, SOURCES.keys()))
        yield connection


def _rows(name: str, content: bytes) -> pa.Table:
    found = SOURCES[name].split(content)
    table = SOURCES[name].derive(found.raw, found.context)
    table = table.append_column("raw", pa.array([r.decode("utf-8", "replace") for r in found.raw], pa.string()))
    table = table.append_column("_segment", pa.nulls(len(table), pa.string()))
    return table.append_column("_row", pa.array(range(len(table)), pa.int64()))


@pytest.mark.parametrize("path", PAIRS, ids=lambda p: p.stem)
def test_the_same_facts_as_security_lake(asked: duckdb.DuckDBPyConnection, path: Path) -> None:
    if ".input" in path.name:
        return
    content = body(next(p for p in path.parent.iterdir() if p.name.startswith(path.stem + ".") and p != path))
    source = recognise(content)
    raw = source.split(content).raw[0].decode()
    view = f"ocsf_{path.stem.split('-')[0]}"
    rows = asked.sql(f"SELECT * FROM {view} WHERE raw = ?", params=[raw]).to_arrow_table().to_pylist()
    assert rows
    ours = dict(flat(rows[0]))
    theirs = {
        RENAMED.get(name, name.replace("finding.", "finding_info.")): value
        for name, value in flat(pq.read_table(path).to_pylist()[0])
    }
    columns = next(item.columns for item in CLASSES if item.name == view)
    different = {
        name: (value, ours.get(name))
        for name, value in theirs.items()
        if name in columns and name not in OTHERWISE and ours.get(name) != value
    }
    assert not different
    assert len([name for name in theirs if ours.get(name) == theirs[name]]) >= 17


@pytest.mark.parametrize("path", [path for path in PAIRS if ".input" not in path.name], ids=lambda p: p.stem)
def test_what_security_lake_mapped_is_in_the_views_as_it_stands(asked: duckdb.DuckDBPyConnection, path: Path) -> None:
    content = path.read_bytes()
    view = f"ocsf_{path.stem.split('-')[0]}"
    raw = SOURCES["ocsf"].split(content).raw[0].decode()
    (row,) = asked.sql(f"SELECT * FROM {view} WHERE raw = ?", params=[raw]).to_arrow_table().to_pylist()
    assert row["source"] == "ocsf"
    ours = dict(flat(row))
    columns = next(item.columns for item in CLASSES if item.name == view)
    numbered = {"class_uid", "class_name", "category_uid", "category_name", "type_uid", "type_name", "metadata.version"}
    theirs = {
        RENAMED.get(name, name.replace("finding.", "finding_info.")): value
        for name, value in flat(pq.read_table(path).to_pylist()[0])
    }
    known = {name: value for name, value in theirs.items() if name in columns and name not in numbered}
    told = {"resources", "answers"}  # with more of each than the views show
    assert {name: ours.get(name) for name in known if name not in told} == {
        name: value for name, value in known.items() if name not in told
    }
    assert all(ours[name] for name in told & known.keys()) and len(known) >= 12


def test_every_view_runs_over_everything_and_says_what_it_is(asked: duckdb.DuckDBPyConnection) -> None:
    counts: dict[str, dict[str, int]] = {}
    for item in CLASSES:
        rows: list[dict[str, Any]] = asked.sql(f"SELECT * FROM {item.name}").to_arrow_table().to_pylist()
        counts[item.class_name] = {}
        for row in rows:
            counts[item.class_name][row["source"]] = counts[item.class_name].get(row["source"], 0) + 1
            assert row["class_uid"] == item.class_uid and row["metadata"]["version"] == "1.1.0"
            assert row["activity_id"] in item.activities and row["activity_name"] == item.activities[row["activity_id"]]
            assert row["type_uid"] == 100 * item.class_uid + row["activity_id"]
            assert (row["time"] is None) == (row["time_dt"] is None)
            assert row["severity"] in ("Informational", "Low", "Medium", "High", "Critical")
        assert set(counts[item.class_name]) == {part.source.name for part in item.parts} - {
            *({"config"} if item.class_uid == 2003 else ()),
            *({"ocsf"} if item.class_uid in (2004, 4002) else ()),
        }, "every part has rows among the samples"
    trails = sum(counts[name]["cloudtrail"] for name in ("Authentication", "Account Change", "API Activity"))
    assert trails == asked.execute("SELECT count(*) FROM cloudtrail").fetchall()[0][0], "each in exactly one class"


def test_compliance_of_config_and_answers_of_dns(asked: duckdb.DuckDBPyConnection) -> None:
    answers = asked.sql("SELECT DISTINCT answers[1].rdata, query.hostname FROM ocsf_dns_activity").fetchall()
    assert ("127.0.0.62", "ip-127-0-0-62.alert.firewall.canary.") in answers
    change = (
        b'{"configRuleName":"r","resourceType":"t","resourceId":"i","awsAccountId":"1","awsRegion":"eu","messageType":'
        b'"ComplianceChangeNotification","newEvaluationResult":{"complianceType":"NON_COMPLIANT"}}'
    )
    view = next(v for v in ocsf_views() if v.name == "ocsf_compliance_finding")
    with duckdb.connect() as connection:
        connection.register("config", _rows("config", change))
        connection.execute(normalised.normalised_view(view, {"config"}))
        (row,) = connection.sql("SELECT compliance, finding_info.uid, status FROM ocsf_compliance_finding").fetchall()
    assert row == ({"control": "r", "status": "Fail", "status_id": 3, "standards": None}, "1/eu/r/t/i", "Failure")


def test_records_that_are_no_json_do_not_fail_a_question(service: Service) -> None:
    push(service, "cloudtrail", b'{"eventName":"CreateUser","eventSource":"iam.amazonaws.com","eventID":"\xff"}')
    accepted = push(service, "cloudtrail", body(SAMPLES / "ocsf" / "api_activity-UpdateTrail.json.gz"))
    columns = "class_uid, api.operation"
    sql = f"SELECT {columns} FROM ocsf_account_change UNION SELECT {columns} FROM ocsf_api_activity"
    rows = service.rows(sql, at_least=accepted["batch"])
    assert [3001, "CreateUser"] in rows and [6003, "UpdateTrail"] in rows
    tables = {table["name"]: table for table in service.call("GET", "/v1/catalog").json()["tables"]}
    shown = {column["name"]: column["type"] for column in tables["ocsf_api_activity"]["columns"]}
    assert shown["time_dt"] == "TIMESTAMPTZ" and shown["api"].startswith('STRUCT("operation" VARCHAR')
    described = dict(row[:2] for row in service.rows("DESCRIBE ocsf_api_activity"))
    assert set(described) == set(shown)
