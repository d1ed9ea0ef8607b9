"""Real forwarders, configured as docs/forwarders/ says, against a service that is killed and restarted, whose spool is
small, and whose connections are cut: every record is sealed; once where the protocol has a key, else at least once.

`STRONGROOM_TEST_FORWARDED` records each (default 3,000). A forwarder that is not installed is skipped. The outcome of
each run is printed: client, sent, sealed, stored, lost.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.system.conftest import NewService
from tests.system.cutting import CuttingProxy
from tests.system.firehose import Firehose, log_events
from tests.system.process import Service

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

RECORDS = int(os.environ.get("STRONGROOM_TEST_FORWARDED", "3000"))
KILLS = int(os.environ.get("STRONGROOM_TEST_FORWARDED_KILLS", "2"))
PATIENCE_SECONDS = 120 + RECORDS / 100
# For those that send all they have at once.
ROOMY = pytest.mark.parametrize("house", [4_000_000 + RECORDS * 800], indirect=True, ids=["roomy"])
PAGES = Path(__file__).parents[2] / "docs" / "forwarders"
LINE = re.compile(r"line \d{7}")


@dataclass
class House:
    """A service behind a cutting proxy, killed KILLS times while something is sent."""

    service: Service
    proxy: CuttingProxy
    folder: Path
    killed: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.proxy.port}"

    def configuration(self, page: str, language: str, source: str, **replaced: str) -> str:
        """The first block of that language on a forwarder's page, made to fit this test."""
        found = re.search(rf"```{language}\n(.*?)```", (PAGES / f"{page}.md").read_text("utf-8"), re.DOTALL)
        assert found
        text = found[1].replace("TOKEN", self.service.token("forwarder", "--source", source))
        text = text.replace("https://strongroom.example:8420", self.url)
        for old, new in replaced.items():
            text = text.replace(old, new)
        return text

    def trouble(self, source: str, column: str) -> threading.Thread:
        """Begin to kill and restart the service, each time when some more has been stored."""

        def run() -> None:
            for number in range(KILLS):
                self.wait_stored(source, column, RECORDS * (number + 1) // (KILLS + 2), must=False)
                self.service.kill()
                time.sleep(0.5)
                self.service.start()
                self.killed += 1

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def stored(self, source: str, column: str) -> tuple[int, int]:
        """(different lines, all records) that a query finds, so that are sealed."""
        sql = f"SELECT count(DISTINCT regexp_extract({column}, 'line \\d{{7}}')), count(*) FROM {source}"
        answer = httpx.post(
            f"{self.service.url}/v1/query",
            json={"sql": sql},
            headers={"Authorization": f"Bearer {self.investigator}"},
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        different, everything = answer.json()["rows"][0]
        return int(different), int(everything)

    def wait_stored(self, source: str, column: str, wanted: int, *, must: bool = True) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        different = 0
        while time.monotonic() < deadline:
            try:
                different, _ = self.stored(source, column)
            except (httpx.HTTPError, AssertionError):
                different = 0
            if different >= wanted:
                return
            time.sleep(0.3)
        assert not must, f"{different} of {wanted} arrived\n{self.service.log[-3000:]}"

    @property
    def investigator(self) -> str:
        if not self._investigator:
            self._investigator = self.service.token("investigator")
        return self._investigator

    _investigator: str = ""

    def must_hold_all(self, client: str, source: str, column: str, trouble: threading.Thread, *, once: bool) -> None:
        trouble.join(PATIENCE_SECONDS)
        self.wait_stored(source, column, RECORDS)
        different, everything = self.stored(source, column)
        print(
            f"\n| {client} | {RECORDS} | {different} | {everything - different} again | {RECORDS - different} lost |"
            f" {self.killed} kills, {self.proxy.cuts} cuts |"
        )
        assert different == RECORDS
        if once:
            assert everything == RECORDS
        assert self.killed == KILLS


@pytest.fixture
def house(new_service: NewService, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[House]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service = new_service(
        listen=f"127.0.0.1:{port}",
        seal_age_seconds=0.5,
        seal_bytes=1_000_000,
        spool_bytes=getattr(request, "param", max(400_000, RECORDS * 40)),
        verify_schedule="outside",
        query_per_user=4,
        token_share=1,
    ).start()
    assert service.url, service.log
    proxy = CuttingProxy(port)
    yield House(service, proxy, tmp_path)
    proxy.close()


def lines(path: Path) -> None:
    """Numbered lines, as fast as a program writes its log."""
    with path.open("a") as file:
        for start in range(0, RECORDS, 500):
            file.write("".join(f"line {number:07d}\n" for number in range(start, min(start + 500, RECORDS))))
            file.flush()
            time.sleep(0.02)


@pytest.fixture
def background(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts programs that are stopped after the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start(*command: str | Path, **environment: str) -> subprocess.Popen[bytes]:
        log = (tmp_path / "forwarder.log").open("ab")
        running.append(subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | environment))
        return running[-1]

    yield start
    for process in running:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


Background = Callable[..., subprocess.Popen[bytes]]


def test_syslog_ng(house: House, background: Background) -> None:
    program = shutil.which("syslog-ng")
    if program is None:
        pytest.skip("syslog-ng is not installed")
    log = house.folder / "app.log"
    log.touch()
    text = house.configuration(
        "syslog-ng", "conf", "json", **{"/var/log/app.log": str(log), "time-reopen(5)": "time-reopen(1)"}
    )
    configuration = house.folder / "syslog-ng.conf"
    configuration.write_text(text)
    places = [house.folder / name for name in ("persist", "control", "pid")]
    trouble = house.trouble("json", "message")
    background(program, "-F", "-f", configuration, "-R", places[0], "-c", places[1], "-p", places[2])
    lines(log)
    house.must_hold_all("syslog-ng http()", "json", "message", trouble, once=False)


def test_rsyslog(house: House, background: Background) -> None:
    unpacked = Path(os.environ.get("STRONGROOM_TEST_RSYSLOG", "/opt/rsyslog"))
    program = shutil.which("rsyslogd") or str(unpacked / "usr/sbin/rsyslogd")
    modules = unpacked / "usr/lib/x86_64-linux-gnu/rsyslog"
    if not Path(program).exists():
        pytest.skip("rsyslog is not installed")
    log = house.folder / "app.log"
    log.touch()
    configuration = house.folder / "rsyslog.conf"
    text = house.configuration("rsyslog", "conf", "bulk", **{"/var/log/app.log": str(log)})
    configuration.write_text(f'global(workDirectory="{house.folder}")\n{text}')
    arguments = ["-M", str(modules)] if modules.is_dir() else []
    trouble = house.trouble("bulk", "message")
    background(program, "-n", "-f", configuration, "-i", house.folder / "rsyslog.pid", *arguments)
    lines(log)
    house.must_hold_all("rsyslog omelasticsearch", "bulk", "message", trouble, once=False)


def run_python(house: House, text: str, driver: str, background: Background) -> subprocess.Popen[bytes]:
    script = house.folder / "forwarder.py"
    script.write_text(f"{text}\nRECORDS = {RECORDS}\n{driver}")
    return background(sys.executable, script)


NODE_MODULES = os.environ.get("STRONGROOM_TEST_NODE_MODULES", "")
NODE = pytest.mark.skipif(
    shutil.which("node") is None or not Path(NODE_MODULES or "missing").is_dir(),
    reason="node or the clients' packages (STRONGROOM_TEST_NODE_MODULES) are not there",
)


def run_node(house: House, text: str, driver: str, background: Background) -> subprocess.Popen[bytes]:
    script = house.folder / "forwarder.cjs"
    script.write_text(f"{text}\nconst RECORDS = {RECORDS};\n(async () => {{ {driver} }})();")
    return background("node", script, NODE_PATH=NODE_MODULES)


@NODE
def test_opentelemetry_javascript(house: House, background: Background) -> None:
    text = house.configuration("opentelemetry", "js", "otlp")
    driver = """
// The SDK gives a batch up after ten seconds; this application keeps it for longer.
const once = (batch) => new Promise((done) => exporter.export(batch, (result) => done(result.code === 0)));
const patient = { batch: [], onEmit(record) { this.batch.push(record); }, async forceFlush() {}, async shutdown() {} };
const logger = new LoggerProvider({ processors: [patient] }).getLogger("test");
for (let number = 0; number < RECORDS; number++) {
  logger.emit({ body: "line " + String(number).padStart(7, "0"), severityNumber: 9 });
  if (patient.batch.length === 500 || number === RECORDS - 1) {
    while (!(await once(patient.batch))) await new Promise((later) => setTimeout(later, 200));
    patient.batch = [];
  }
}
"""
    trouble = house.trouble("otlp", "body")
    run_node(house, text, driver, background)
    house.must_hold_all("OpenTelemetry JavaScript (OTLP, JSON)", "otlp", "body", trouble, once=False)


@NODE
def test_elasticsearch_javascript(house: House, background: Background) -> None:
    text = house.configuration("elasticsearch", "js", "bulk")
    driver = """
for (let start = 0; start < RECORDS; start += 500) {
  const operations = [];
  for (let number = start; number < Math.min(start + 500, RECORDS); number++)
    operations.push({ create: { _index: "logs" } }, { message: "line " + String(number).padStart(7, "0") });
  for (;;) {
    try {
      if (!(await client.bulk({ operations })).errors) break;
    } catch (error) {
      await new Promise((later) => setTimeout(later, 300));
    }
  }
}
"""
    trouble = house.trouble("bulk", "message")
    run_node(house, text, driver, background)
    house.must_hold_all("@elastic/elasticsearch bulk", "bulk", "message", trouble, once=False)


def test_opentelemetry(house: House, background: Background) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    text = house.configuration("opentelemetry", "python", "otlp")
    driver = """
import time
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import LogRecordExportResult, SimpleLogRecordProcessor

class Patient:
    "The exporter keeps a batch for ten seconds; this application keeps it for longer."
    def __init__(self): self.batch = []
    def on_emit(self, record):
        self.batch.append(record)
        if len(self.batch) == 500: self.force_flush()
    def force_flush(self, timeout_millis=0):
        while self.batch and exporter.export(self.batch) != LogRecordExportResult.SUCCESS: time.sleep(0.2)
        self.batch = []
        return True
    def shutdown(self): self.force_flush()

patient = Patient()
provider = LoggerProvider(resource=Resource.create({"service.name": "shop", "host.name": "edge-7"}))
provider.add_log_record_processor(patient)
logger = provider.get_logger("test")
for number in range(RECORDS):
    logger.emit(LogRecord(timestamp=time.time_ns(), severity_number=SeverityNumber.INFO, body=f"line {number:07d}"))
patient.force_flush()
"""
    trouble = house.trouble("otlp", "body")
    run_python(house, text, driver, background)
    house.must_hold_all("OpenTelemetry Python (OTLP)", "otlp", "body", trouble, once=False)


@ROOMY
def test_splunk_handler(house: House, background: Background) -> None:
    pytest.importorskip("splunk_handler")
    text = house.configuration(
        "splunk",
        "python",
        "hec",
        **{'"strongroom.example"': '"127.0.0.1"', "8420": str(house.proxy.port), '"https"': '"http"'},
    )
    driver = """
import time
log = logging.getLogger("app")
log.setLevel("INFO"); log.propagate = False
log.addHandler(handler)
for number in range(RECORDS):
    log.info("line %07d", number)
    if number % 500 == 499: time.sleep(0.1)
handler.wait_until_empty() if hasattr(handler, "wait_until_empty") else None
time.sleep(600)
"""
    trouble = house.trouble("hec", "message")
    run_python(house, text, driver, background)
    house.must_hold_all("splunk-handler (HEC)", "hec", "message", trouble, once=False)


def test_elasticsearch_client(house: House, background: Background) -> None:
    pytest.importorskip("elasticsearch")
    text = house.configuration("elasticsearch", "python", "bulk")
    driver = """
import time
for start in range(0, RECORDS, 500):
    stop = min(start + 500, RECORDS)
    actions = [{"_op_type": "create", "_index": "logs", "message": f"line {n:07d}"} for n in range(start, stop)]
    while True:
        try:
            done, failed = helpers.bulk(client, actions, stats_only=True)
            assert (done, failed) == (len(actions), 0)
            break
        except AssertionError: raise
        except Exception: time.sleep(0.3)
"""
    trouble = house.trouble("bulk", "message")
    run_python(house, text, driver, background)
    house.must_hold_all("elasticsearch-py bulk", "bulk", "message", trouble, once=False)


@ROOMY
def test_journal_upload(house: House) -> None:
    program = shutil.which("systemd-journal-upload") or "/lib/systemd/systemd-journal-upload"
    maker = shutil.which("systemd-journal-remote") or "/lib/systemd/systemd-journal-remote"
    if not (Path(program).exists() and Path(maker).exists()):
        pytest.skip("systemd-journal-remote is not installed")
    journal, state = house.folder / "test.journal", house.folder / "state-of-upload"
    boot = "0123456789abcdef0123456789abcdef"
    export = "".join(
        f"__REALTIME_TIMESTAMP={1_795_000_000_000_000 + n}\n__MONOTONIC_TIMESTAMP={1000 + n}\n_BOOT_ID={boot}\n"
        f"PRIORITY=6\nSYSLOG_IDENTIFIER=app\nMESSAGE=line {n:07d}\n\n"
        for n in range(RECORDS)
    )
    subprocess.run([maker, "-o", journal, "-"], input=export.encode(), check=True, capture_output=True)
    place = {"https://strongroom:": "http://strongroom:", "strongroom.example:8420": f"127.0.0.1:{house.proxy.port}"}
    url = house.configuration("journal", "ini", "journal", **place).split("URL=")[1].strip()
    trouble = house.trouble("journal", "message")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:  # what the unit's Restart=on-failure does
        done = subprocess.run(
            [
                program,
                "-u",
                url,
                f"--file={journal}",
                f"--save-state={state}",
                "--follow=no",
            ],
            capture_output=True,
            timeout=300,
        )
        if done.returncode == 0 and house.killed == KILLS:
            break
        if done.returncode == 0:
            state.unlink(missing_ok=True)  # it was quicker than the kills: everything once more, from the beginning
        time.sleep(0.5)
    house.must_hold_all("systemd-journal-upload", "journal", "message", trouble, once=False)


def test_firehose(house: House) -> None:
    key = house.service.token("forwarder", "--source", "cwlogs")
    stream = Firehose(f"{house.url}/v1/firehose/cwlogs", key, pause=0.3, cap=3.0)
    trouble = house.trouble("cwlogs", "message")
    for start in range(0, RECORDS, 200):
        stream.deliver([log_events(n, min(20, RECORDS - n)) for n in range(start, min(start + 200, RECORDS), 20)])
    house.must_hold_all("Firehose simulator (CloudWatch Logs)", "cwlogs", "message", trouble, once=True)
