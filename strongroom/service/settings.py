"""All settings in one typed object; docs/settings.md is its reference page (a test compares the two).

A value comes from, strongest first: a command-line option, the environment (`STRONGROOM_<NAME>`), the TOML file named
by `--config` or `STRONGROOM_CONFIG`, the default here. What does not validate is refused before anything is opened,
with the setting's name and where its value came from. An unknown name in the file is an error; an unknown name in the
environment is only reported, because container platforms inject `<SERVICE>_…` variables of their own.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from strongroom.archive.errors import FormatError
from strongroom.archive.layout import WRITER_ID
from strongroom.archive.retention.rules import parse as parse_retention
from strongroom.archive.stores import location
from strongroom.archive.stores.s3client import S3Options
from strongroom.ingest.fetch.objects import Perimeter
from strongroom.service.checking.cron import Cron
from strongroom.service.errors import SettingsInvalid

PREFIX = "STRONGROOM_"
MIB = 1 << 20
GIB = 1 << 30

# Read by the command line and by tests, not settings of a node.
NOT_SETTINGS = frozenset({"CONFIG", "SHARED"})

ADDRESS = re.compile(r"\S+:[0-9]{1,5}")

Bytes = Annotated[int, Field(ge=1)]
Location = Annotated[str, BeforeValidator(str)]
Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseSettings):
    """One node's settings. Sizes are bytes, times are seconds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    archive: Location = Field(
        "var/archive", description="Where the archive is: a folder, or `s3://bucket/prefix`; see [s3.md](s3.md)."
    )
    state: Path = Field(
        Path("var/state"),
        description="Folder of everything that must not lie in the archive: keys, tokens, spool, the signer's memory, "
        "the verifier's trust file, caches.",
    )
    origin: str = Field(
        "",
        description="Name of the log, written into every entry and checkpoint; only used when the archive is created. "
        "Empty: `strongroom/<random>`.",
    )
    writer: str = Field(
        "",
        description="Name of this writer, unique among the writers of one archive; only used on the first start with "
        "this state folder. Empty: random.",
    )

    s3_region: str = Field(
        "", description="Region of the archive's bucket; the bucket must be there. Empty: as AWS tools are set up."
    )
    s3_allowed_regions: str = Field(
        "", description="Regions, separated by commas, that the bucket may be in. Empty: `s3_region`, if that is set."
    )
    s3_endpoint_url: str = Field("", description="Address of an S3-compatible store, or of a VPC endpoint.")
    s3_path_style: bool = Field(False, description="Name the bucket in the path of URLs, not in the host name.")
    s3_fips_endpoints: bool = Field(False, description="Use the Region's FIPS endpoints of S3.")
    s3_lock_mode: Literal["", "GOVERNANCE", "COMPLIANCE"] = Field(
        "", description="Object Lock mode of everything written, at least. Empty: the bucket's default retention."
    )
    s3_retain_days: int = Field(
        0,
        ge=0,
        le=36_500,
        description="Days that everything written is locked, at least; the bucket's rule counts too.",
    )
    s3_kms_key: str = Field("", description="KMS key (ARN) for SSE-KMS. Empty: the bucket's default encryption.")
    s3_multipart_bytes: int = Field(
        64 * MIB, ge=5 * MIB, le=5 * GIB, description="Larger objects are put and fetched in parts of this size."
    )

    retention: dict[str, str] = Field(
        {},
        description="How long segments are kept and in which lock mode, by source, and by `default` for the others: a "
        'table such as `{default = "400 days", vpcflow = "GOVERNANCE 90 days"}`, in the environment the same as '
        "JSON. Never less than the bucket's own rule: [operators/retention.md](operators/retention.md).",
    )
    hold_seconds: Seconds = Field(
        60.0, description="How often what was sealed since is held against the questions of open cases."
    )
    canary_seconds: Seconds = Field(
        86_400.0, description="How often the bucket's locks are tried, beside every start, with an object made for it."
    )
    production: bool = Field(
        False,
        description="Refuse to start with what production must not lack: a bucket whose locks were seen to hold, "
        "COMPLIANCE retention, and TLS on anything but loopback.",
    )

    encryption_key: str = Field(
        "",
        description="What encrypts everything the archive's entries name before it leaves this machine: "
        "`kms:<ARN of a key>` (AWS KMS, or an external key store behind it) or `local:<file>` (32 bytes, mode 0600). "
        "Empty: nothing; refused for an archive that is encrypted. See "
        "[operators/encryption.md](operators/encryption.md).",
    )
    encryption_keys_old: str = Field(
        "",
        description="Keys that encrypted before, in the same form, separated by commas: still needed to read what they "
        "sealed.",
    )

    signing_keys: str = Field(
        "",
        description="What signs the log, when it is created and at `strongroom keys rotate`: a list of `ed25519`, "
        "`ml-dsa-44`, `ecdsa-p256`, `ecdsa-p384` (in the state folder) and `kms:<id or ARN>` (AWS KMS). Empty: "
        "`ed25519,ml-dsa-44`, or `ecdsa-p384` with `fips`.",
    )
    key_passphrase_file: Path | None = Field(
        None, description="File (mode 0600) with the passphrase that encrypts the key files made from now on."
    )
    key_passphrase: SecretStr | None = Field(
        None, description="The same passphrase itself; meant for `STRONGROOM_KEY_PASSPHRASE`. Never logged."
    )
    fips: bool = Field(
        False,
        description="Strict profile: ECDSA P-256 or P-384 signs the log and receipts, other keys are refused.",
    )

    listen: str = Field(
        "127.0.0.1:8420",
        description="Address and port to serve on. Anything but loopback should have TLS here or in front.",
    )
    tls_certificate: FilePath | None = Field(None, description="PEM file with the certificate chain; serves HTTPS.")
    tls_key: FilePath | None = Field(None, description="PEM file with the certificate's private key.")
    api_page: bool = Field(True, description="Serve the interactive API page at `/docs` (no token needed to read it).")
    log_format: Literal["text", "json"] = Field("text", description="The service's own log on stderr.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level to log.")
    shutdown_seconds: Seconds = Field(
        20.0, description="How long a stopping service waits for requests in flight before it seals."
    )

    max_body_bytes: Bytes = Field(64 * MIB, description="Largest request body taken, as sent.")
    max_expanded_bytes: Bytes = Field(160 * MIB, description="Largest content a compressed body may expand to.")
    max_inflight_bytes: Bytes = Field(256 * MIB, description="Bodies held at once by all requests; beyond it, 503.")
    spool_bytes: Bytes = Field(4 * GIB, description="Most the spool may hold unsealed; beyond it, 503.")
    spool: Literal["disk", "bucket"] = Field(
        "disk",
        description="Where a batch is durable when it is acknowledged: on this machine's disk, or in the archive's own "
        "store, for machines whose disk goes with them.",
    )
    spool_linger_seconds: float = Field(
        0.02, ge=0, le=5, description="`spool = bucket`: how long a put waits for more batches to share it."
    )
    spool_retain_days: float = Field(
        14.0,
        ge=1,
        description="`spool = bucket`: how long spool objects are locked. A lifecycle rule removes them later.",
    )
    abandoned_seconds: float = Field(
        1800.0,
        ge=0,
        description="`spool = bucket`: a writer without an entry for so long is taken for gone, and what it left "
        "unsealed in the bucket is taken over. At least three times `heartbeat_seconds`; 0: never.",
    )
    token_requests_per_second: float = Field(
        2000.0, gt=0, description="Deliveries a second that one token may send; beyond it, 503."
    )
    token_bytes_per_second: float = Field(
        512.0 * MIB, gt=0, description="Bytes a second, as sent, that one token may send; beyond it, 503."
    )
    token_uploads: int = Field(64, ge=1, description="Deliveries of one token under way at once; beyond it, 503.")
    token_share: float = Field(
        0.5, gt=0, le=1, description="Part of `max_inflight_bytes` and of `spool_bytes` that one token may take."
    )
    head_seconds: Seconds = Field(10.0, description="A connection whose request's head takes longer is closed.")
    body_seconds: Seconds = Field(
        60.0, description="A delivery's body may take so long, and a second more for each 64 KiB; beyond it, 503."
    )
    sns_topics: str = Field(
        "", description="ARNs of the Amazon SNS topics whose messages are taken, separated by commas. Empty: none."
    )
    pull_queue: str = Field(
        "", description="Amazon SQS queue (URL, name or ARN) whose S3 notifications are pulled. Empty: none."
    )
    pull_buckets: str = Field(
        "",
        description="Buckets that may be read, separated by commas: `name`, or `name=account` when that account must "
        "own it; `*` in a name stands for anything.",
    )
    pull_dead_letter: str = Field(
        "", description="Queue for messages that can't be taken. Empty: the one in the queue's redrive policy."
    )
    pull_tries: int = Field(5, ge=1, le=1000, description="Receives after which such a message is given up.")
    pull_concurrency: int = Field(8, ge=1, le=64, description="Objects fetched at once.")
    pull_region: str = Field("", description="Region of queue and buckets. Empty: AWS's usual settings.")
    pull_endpoint_url: str = Field(
        "", description="Address of an S3 and SQS that is not AWS's, such as a VPC endpoint. Empty: AWS's own."
    )
    seal_bytes: Bytes = Field(64 * MIB, description="Seal when this much is spooled.")
    seal_age_seconds: Seconds = Field(30.0, description="Seal when the oldest spooled batch is this old.")
    heartbeat_seconds: Seconds = Field(300.0, description="Write a heartbeat entry after this much silence.")
    ingest_workers: int = Field(1, ge=1, le=64, description="Processes that parse and write segments.")
    sources_file: FilePath | None = Field(
        None, description="TOML file that declares sources of your own: see [sources/custom.md](sources/custom.md)."
    )

    query_concurrency: int = Field(4, ge=1, le=64, description="Queries that run at once, of all users together.")
    query_per_user: int = Field(2, ge=1, le=64, description="Queries of one token that run at once.")
    query_queued: int = Field(64, ge=0, description="Queries that may wait for a place, of all users; beyond it, 503.")
    query_queued_per_user: int = Field(8, ge=0, description="Queries of one token that may wait for a place.")
    query_queue_seconds: Seconds = Field(30.0, description="A query that got no place in this time is answered 503.")
    query_seconds: Seconds = Field(30.0, description="A query that runs longer is killed.")
    query_memory_bytes: int = Field(GIB, ge=256 * MIB, description="Memory cap of one query's process.")
    query_spill_bytes: int = Field(
        2 * GIB, ge=0, description="Temporary files of one query that needs more memory than it may have; 0 for none."
    )
    query_threads: int = Field(2, ge=1, le=64, description="Threads of one query.")
    query_rows: int = Field(1_000_000, ge=1, description="Most rows one answer carries.")
    query_answer_bytes: Bytes = Field(256 * MIB, description="Most bytes one answer carries.")
    job_seconds: Seconds = Field(600.0, description="A job's query that runs longer is killed.")
    jobs_per_user: int = Field(10, ge=1, le=1000, description="Jobs of one person that may wait or run.")
    job_keep_seconds: Seconds = Field(86_400.0, description="A job's result is kept for so many seconds after its end.")
    job_bytes: Bytes = Field(4 * GIB, description="All kept results of jobs together; the oldest are dropped first.")
    query_read_bytes: int = Field(0, ge=0, description="Most bytes of segments one query may read; 0 for any number.")
    query_unsealed_bytes: Bytes = Field(
        64 * MIB,
        description="Most content of unsealed batches that one query reads on request; the newest are left out.",
    )
    cache_bytes: Bytes = Field(10 * GIB, description="Verified local copies of segments kept from a remote store.")
    cache_threads: int = Field(8, ge=1, le=64, description="Segments fetched from a remote store at once.")
    cache_check: Literal["hash", "stat"] = Field(
        "hash",
        description="How copies of segments that an earlier process left are checked before use: by their hash, or by "
        "length and times alone, which trusts whoever can write to the state folder.",
    )
    fold_bytes: int = Field(
        4 * GIB,
        ge=0,
        description="Local files that hold many small segments each, for questions over many; 0 for none.",
    )
    cosign_seconds: Seconds = Field(
        10.0, description="How often new checkpoints are sent to the policy's witnesses that have an address."
    )
    tsa_url: str = Field(
        "", description="RFC 3161 time-stamping authority that checkpoints are sent to. Empty: no timestamps."
    )
    tsa_roots: Path | None = Field(
        None,
        description="PEM file with the authority's root certificates; keep old ones in it. "
        "Empty: `<trust file>.tsa.pem`, if there is one, for verification.",
    )
    timestamp_seconds: Seconds = Field(3600.0, description="At most one timestamp in so many seconds.")
    evidence_bytes: Bytes = Field(GIB, description="Largest evidence bundle made over HTTP.")
    promise_seconds: Seconds = Field(
        300.0, description="A receipt whose batch is not sealed after so many seconds is a finding."
    )
    verify_seconds: Seconds = Field(
        7200.0, description="A verification of this node stops after so many seconds; the next of its level goes on."
    )
    verify_workers: int = Field(2, ge=1, le=64, description="Threads, or processes for parsing, of a verification.")
    verify_fraction: float = Field(0.05, gt=0, le=1, description="Part of the objects that level `sampled` draws.")
    verify_schedule: Literal["service", "outside"] = Field(
        "service", description="Who starts what is due: the service, or `strongroom verify --scheduled`."
    )
    verify_quick: str = Field("*/5 * * * *", description="Cron expression (UTC) of level `quick`. Empty: never.")
    verify_inventory: str = Field("", description="Cron expression (UTC) of level `inventory`. Empty: never.")
    verify_complete: str = Field("17 2 * * *", description="Cron expression (UTC) of level `complete`. Empty: never.")
    verify_sampled: str = Field("47 4 * * sun", description="Cron expression (UTC) of level `sampled`. Empty: never.")
    verify_deep: str = Field("", description="Cron expression (UTC) of level `deep`. Empty: never.")
    verify_cloudtrail: str = Field(
        "17 3 * * *",
        description="Cron expression (UTC) of `verify --source cloudtrail --attest`, if `cloudtrail_digests` is set.",
    )
    cloudtrail_digests: str = Field(
        "", description="Where CloudTrail's digests lie: `s3://bucket/prefix`, or a folder of copies. Empty: nowhere."
    )
    verify_jitter_seconds: float = Field(20.0, ge=0, description="Most a scheduled verification is delayed, at random.")
    alert_repeat_seconds: Seconds = Field(
        86_400.0, description="The same trouble, found again, is told again after so many seconds."
    )
    alert_webhook: str = Field("", description="URL that alerts are sent to by POST.")
    alert_webhook_secret: Path | None = Field(
        None, description="File with the secret the webhook is signed with: `whsec_` and base64 of 24 bytes or more."
    )
    alert_sns_topic: str = Field("", description="ARN of the Amazon SNS topic that alerts are published to.")
    alert_security_hub: bool = Field(False, description="Import findings into AWS Security Hub.")

    @field_validator("archive")
    @classmethod
    def _archive_is_a_location(cls, value: str) -> str:
        try:
            location.parse(value)
        except FormatError as error:
            raise ValueError(error.message) from None
        return value

    @field_validator("retention")
    @classmethod
    def _retention_is_rules(cls, value: dict[str, str]) -> dict[str, str]:
        try:
            parse_retention(value)
        except FormatError as error:
            raise ValueError(error.message.removeprefix("retention of ")) from None
        return value

    @field_validator("encryption_key", "encryption_keys_old")
    @classmethod
    def _names_wrapping_keys(cls, value: str, info: ValidationInfo) -> str:
        names = [name.strip() for name in value.split(",") if name.strip()]
        if any(not name.startswith(("local:", "kms:")) for name in names):
            raise ValueError("must be local:<file> or kms:<ARN of a key>")
        if info.field_name == "encryption_key" and len(names) > 1:
            raise ValueError("must be one key; those that encrypted before go to encryption_keys_old")
        return value

    @field_validator("origin")
    @classmethod
    def _origin_is_a_key_name(cls, value: str) -> str:
        # It stands on the first line of checkpoints and in key names, where "+", white space and control bytes end it.
        if value and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._~/:-]{0,199}", value):
            raise ValueError("must be 1-200 of A-Z a-z 0-9 . _ ~ / : - and start with a letter or digit")
        return value

    @field_validator("writer")
    @classmethod
    def _writer_is_a_name(cls, value: str) -> str:
        if value and not WRITER_ID.fullmatch(value):
            raise ValueError(f"must match {WRITER_ID.pattern}")
        return value

    @field_validator("listen")
    @classmethod
    def _listen_is_an_address(cls, value: str) -> str:
        port = value.rpartition(":")[2]
        if not ADDRESS.fullmatch(value) or int(port) > 65_535:
            raise ValueError("must be <host>:<port>, such as 127.0.0.1:8420 or [::1]:8420")
        return value

    @field_validator("pull_buckets")
    @classmethod
    def _are_buckets(cls, value: str) -> str:
        Perimeter.parse(value)
        return value

    @field_validator(
        *("verify_quick", "verify_inventory", "verify_complete", "verify_sampled", "verify_deep", "verify_cloudtrail")
    )
    @classmethod
    def _is_a_cron_expression(cls, value: str) -> str:
        if value:
            Cron(value)
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> Settings:
        if self.tsa_url and self.tsa_roots is None:
            # An answer that can't be verified is not kept.
            raise ValueError("tsa_url needs tsa_roots, the authority's root certificates")
        if bool(self.alert_webhook) != (self.alert_webhook_secret is not None):
            raise ValueError("alert_webhook and alert_webhook_secret must be given together")
        if self.key_passphrase is not None and self.key_passphrase_file is not None:
            raise ValueError("give key_passphrase or key_passphrase_file, not both")
        if self.pull_queue and not self.pull_buckets:
            # Whoever may write to the queue could otherwise have any bucket read that this process may read.
            raise ValueError("pull_queue needs pull_buckets, the buckets that may be read")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key must be given together")
        archive, state = self.archive_folder, self.state.absolute()
        if archive is not None and (state == archive or archive in state.parents):
            # Whoever can change the archive must not thereby reach the memory that would give him away.
            raise ValueError("state must not lie inside archive")
        if self.s3_lock_mode and not self.s3_retain_days:
            raise ValueError("s3_lock_mode needs s3_retain_days: how long everything is locked at least")
        if self.spool == "bucket" and 0 < self.abandoned_seconds < 3 * self.heartbeat_seconds:
            raise ValueError("abandoned_seconds must be at least three times heartbeat_seconds, or 0")
        if self.max_inflight_bytes < self.max_body_bytes:
            raise ValueError("max_inflight_bytes must be at least max_body_bytes")
        return self

    @property
    def archive_folder(self) -> Path | None:
        """The archive's folder, None when it is in a bucket."""
        place = location.parse(self.archive)
        return place.absolute() if isinstance(place, Path) else None

    @property
    def s3_options(self) -> S3Options:
        """How the archive's bucket is reached and what each object put there gets."""
        return S3Options(
            region=self.s3_region,
            endpoint_url=self.s3_endpoint_url,
            path_style=self.s3_path_style,
            fips=self.s3_fips_endpoints,
            lock_mode=self.s3_lock_mode,
            retain_days=self.s3_retain_days,
            retention=parse_retention(self.retention),
            kms_key=self.s3_kms_key,
            allowed_regions=tuple(part.strip() for part in self.s3_allowed_regions.split(",") if part.strip()),
            multipart_bytes=self.s3_multipart_bytes,
        )

    @property
    def way_to_archive(self) -> dict[str, str]:
        """Environment that lets a child process open the same archive the same way."""
        names = ("archive", *(name for name in type(self).model_fields if name.startswith(("s3_", "encryption_"))))
        return {PREFIX + name.upper(): str(getattr(self, name)) for name in names}

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def load(config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings from options (`overrides`, None left out), environment and file. Raises SettingsInvalid."""
    file = _read(config) if config else {}
    options = {name: value for name, value in (overrides or {}).items() if value is not None}

    class Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (
                InitSettingsSource(settings_cls, init_kwargs=options),
                env_settings,
                InitSettingsSource(settings_cls, init_kwargs=file),
            )

    try:
        return Layered()
    except ValidationError as error:
        problems = [_explain(item["loc"], item["msg"], options, file, config) for item in error.errors()]
        raise SettingsInvalid("; ".join(problems), hint="docs/settings.md lists every setting") from None


def unknown_variables(environment: Mapping[str, str] | None = None) -> list[str]:
    """Environment variables that look like settings but are none: probably misspelt."""
    known = {name.upper() for name in Settings.model_fields} | NOT_SETTINGS
    names = os.environ if environment is None else environment
    return sorted(name for name in names if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in known)


def _read(config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(config.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsInvalid(f"settings file {config}: {error}", hint="name a readable TOML file") from None


def _explain(
    location: tuple[int | str, ...],
    reason: str,
    options: Mapping[str, Any],
    file: Mapping[str, Any],
    config: Path | None,
) -> str:
    """`setting seal_bytes (STRONGROOM_SEAL_BYTES): input should be …`"""
    reason = reason.removeprefix("Value error, ")
    if not location:
        return f"settings: {reason}"
    name = str(location[0])
    variable = PREFIX + name.upper()
    if name in options:
        origin = f"option --{name.replace('_', '-')}"
    elif any(key.upper() == variable for key in os.environ):
        origin = variable
    elif name in file:
        origin = str(config)
    else:
        origin = "default"
    return f"setting {name} ({origin}): {reason[:1].lower()}{reason[1:]}"
