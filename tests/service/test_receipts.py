"""Receipts later, at real services: sealed where, late, contradicted, lost, or never given."""

from __future__ import annotations

import json
import re
import shutil
import signal
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from strongroom.archive import details as details_format
from strongroom.archive import entry as entries
from strongroom.archive import keys, note
from strongroom.archive.merkle import leaf_hash, verify_inclusion
from strongroom.ingest import receipts
from tests.service.conftest import Service, make_tokens, start_service, strongroom
from tests.service.test_ingest import push, trail


def check(service: Service, receipt: str, *, role: str = "forwarder") -> dict[str, Any]:
    answer = service.call("POST", "/v1/receipts/check", role=role, content=receipt)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_receipt_leads_to_the_archive_and_back(service: Service) -> None:
    lines = [b'{"n": 0}', b"{broken", b'{"n": 2}']
    accepted = push(service, "json", b"\n".join(lines), params={"wait": "sealed"})
    options = {"records": "10", "details": "true"}
    shown = service.call("GET", f"/v1/receipts/{accepted['batch']}", role="auditor", params=options).json()
    assert (shown["verdict"], shown["receipt"], shown["overdue"]) == ("sealed", accepted["receipt"], False)
    sealed = shown["sealed"]
    assert (sealed["entry"], sealed["records"], sealed["quarantined"]) == (accepted["entry"], 3, 1)

    # The entry is in the log, the details are the entry's, and they name the batch with the receipt's content.
    proof, data = sealed["proof"], b64decode(sealed["proof"]["entry"])
    head = note.parse_checkpoint(note.parse(proof["checkpoint"].encode()).text)
    path = [bytes.fromhex(node) for node in proof["path"]]
    verify_inclusion(sealed["entry"], head.size, leaf_hash(data), path, head.root)
    content = b64decode(sealed["details"]["raw"])
    stated = entries.decode(data).details
    assert stated is not None
    assert sha256(content).hexdigest() == stated.sha256 == sealed["details"]["sha256"]
    facts = next(facts for facts in details_format.decode(content).batches if facts.id == accepted["batch"])
    receipt = receipts.parse(accepted["receipt"])
    assert (facts.sha256, facts.bytes, facts.sequence) == (receipt.sha256, receipt.bytes, receipt.sequence)

    # Every record of the batch, the broken one included, has an address that proves it.
    assert [address["record"] for address in sealed["record_addresses"]] == [0, 1, 2]
    for address, line in zip(sealed["record_addresses"], lines, strict=True):
        where = {"segment": address["segment"], "row": address["row"]}
        record = service.call("GET", "/v1/proof", role="auditor", params=where).json()["record"]
        assert b64decode(record["raw"]) == line
    assert sum(part["records"] for part in sealed["segments"]) == 3
    later = service.call("GET", f"/v1/receipts/{accepted['batch']}", params={"records": "5", "after": "0"}).json()
    assert later["sealed"]["record_addresses"] == sealed["record_addresses"][1:]
    assert check(service, accepted["receipt"])["verdict"] == "sealed"


def test_a_forwarder_learns_nothing_of_others(service: Service) -> None:
    accepted = push(service, "text", b"a line\n", role="quarantiner", params={"wait": "sealed"})
    path = f"/v1/receipts/{accepted['batch']}"
    assert service.call("GET", path, role="forwarder").status_code == 404
    assert service.call("POST", "/v1/receipts/check", role="forwarder", content=accepted["receipt"]).status_code == 404
    assert service.call("GET", path, role="quarantiner").json()["verdict"] == "sealed"
    assert service.call("GET", path, role="quarantiner", params={"details": "true"}).status_code == 403
    assert service.call("GET", f"/v1/receipts/{'0' * 64}", role="auditor").status_code == 404


def test_what_was_never_promised(service: Service) -> None:
    receipt = push(service, "json", b'{"a": 1}', params={"wait": "sealed"})["receipt"]
    assert check(service, re.sub(r"bytes \d+", "bytes 7", receipt))["verdict"] == "foreign"
    stranger = keys.generate("elsewhere/receipts")[0]
    assert check(service, receipts.sign(receipts.parse(receipt), stranger))["verdict"] == "foreign"
    for nonsense in (b"", b"hello", b"\xff\xfe", receipt.split("\n\n")[0].encode()):
        answer = service.call("POST", "/v1/receipts/check", content=nonsense)
        assert (answer.status_code, answer.json()["code"]) == (400, "receipt-invalid")


@pytest.mark.adversarial
def test_an_archive_that_was_made_to_say_something_else(service: Service) -> None:
    """Seen from the receipt: it is truly ours, and states other content than the archive holds."""
    accepted = push(service, "json", b'{"a": 1}', params={"wait": "sealed"})
    origin = service.call("GET", "/v1/status").json()["origin"]
    (signer,) = keys.load(service.folder / "state" / "keys" / "receipts.pem", f"{origin}/receipts")
    other = replace(receipts.parse(accepted["receipt"]), sha256="ab" * 32)
    found = check(service, receipts.sign(other, signer), role="auditor")
    assert found["verdict"] == "contradicted"
    assert "ab" * 32 in found["meaning"]
    assert found["sealed"]["entry"] == accepted["entry"]


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Service]:
    """A service that promises more than it keeps."""
    running = start_slow(tmp_path)
    yield running
    running.process.kill()


def start_slow(folder: Path, **settings: str) -> Service:
    tokens = make_tokens(folder)
    running = start_service(
        folder, STRONGROOM_SEAL_AGE_SECONDS="3600", STRONGROOM_PROMISE_SECONDS="0.2", STRONGROOM_VERIFY_QUICK="",
        STRONGROOM_VERIFY_COMPLETE="", STRONGROOM_VERIFY_SAMPLED="", **settings,
    )  # fmt: skip
    running.tokens = tokens
    return running


def test_a_promise_that_is_overdue_is_a_finding(slow: Service) -> None:
    accepted = push(slow, "cloudtrail", trail(1))
    shown = check(slow, accepted["receipt"])
    assert (shown["verdict"], shown["sealed"], shown["promise_seconds"]) == ("spooled", None, 0.2)
    late = slow.call("GET", f"/v1/receipts/{accepted['batch']}").json()
    assert late["age_seconds"] >= 0
    report = slow.call("POST", "/v1/verify", role="auditor", params={"level": "quick"}).json()
    (finding,) = (finding for finding in report["findings"] if finding["code"] == "RECEIPT_OVERDUE")
    assert (report["verdict"], finding["where"]["oldest"]) == ("warning", accepted["batch"])
    assert slow.call("GET", f"/v1/receipts/{accepted['batch']}").json()["overdue"] is True
    assert overdue_metric(slow) >= 1
    places = [*slow.places, "--promise-seconds", "0.2", "--level", "quick", "--live", "--json"]
    by_hand = strongroom("verify", *places)
    assert (by_hand.returncode, "RECEIPT_OVERDUE" in by_hand.stdout) == (1, True)
    patient = strongroom("verify", *slow.places, "--level", "quick", "--live", "--json")
    assert patient.returncode == 0, patient.stdout
    slow.call("POST", "/v1/seal")
    assert check(slow, accepted["receipt"])["verdict"] == "sealed"
    assert overdue_metric(slow) == 0


def overdue_metric(service: Service) -> float:
    return float(re.findall(r"^strongroom_receipts_overdue (\S+)", service.call("GET", "/metrics").text, re.M)[0])


@pytest.mark.adversarial
@pytest.mark.parametrize("lost", ["spool", "everything"])
def test_an_old_receipt_proves_what_was_lost(slow: Service, lost: str) -> None:
    """A disk that lied about its fsync, or a state folder from an old backup: the sender still has our word."""
    kept = push(slow, "cloudtrail", trail(1))
    slow.call("POST", "/v1/seal")
    gone = push(slow, "cloudtrail", trail(1))
    slow.stop(signal.SIGKILL)
    (writer,) = (slow.folder / "state" / "writers").iterdir()
    shutil.rmtree(writer / "spool" if lost == "spool" else writer)
    again = start_slow(slow.folder)
    try:
        shown = check(again, gone["receipt"])
        assert (shown["verdict"], shown["batch"]) == ("lost", gone["batch"])
        assert "evidence of loss" in shown["meaning"]
        if lost == "spool":
            admission = again.call("GET", f"/v1/entries/{shown['admitted']}").json()
            assert gone["batch"] in admission["data"]["batches"]
        else:
            assert (shown["admitted"], shown["claimed"]) == (None, None)
        assert check(again, kept["receipt"])["verdict"] == "sealed"
        assert json.loads(strongroom("verify", *again.places, "--live", "--json").stdout)["verdict"] == "sound"
    finally:
        again.process.kill()
