"""VPC flow log lines of the imaginary organisation: two files in three of version 2, the third of version 5.

A file is ten minutes of one account's interfaces. Most flows go to a few services on well-known ports; a few per mille
are NODATA or SKIPDATA; about one in twenty is rejected, most of them from outside. One scanner is rejected in every
file.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from bench.organisation import Organisation, pick

V2 = (
    "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status"
)
V5 = (
    V2 + " vpc-id subnet-id instance-id tcp-flags type pkt-srcaddr pkt-dstaddr region az-id sublocation-type "
    "sublocation-id pkt-src-aws-service pkt-dst-aws-service flow-direction traffic-path"
)
_PORTS = {443: 420, 80: 70, 5432: 70, 53: 100, 6379: 60, 3306: 40, 9092: 50, 8080: 50, 22: 20, 123: 40, 3389: 8, 445: 6}
_UDP = (53, 123)
_PROBED = (22, 23, 445, 3389, 5900, 8080)
_AGGREGATION_SECONDS = 59


@dataclass(frozen=True, slots=True)
class FlowFile:
    """A file's lines (header first) and the rejected flows by source address."""

    lines: list[str]
    rejected: Counter[str]


def file(organisation: Organisation, seed: int, index: int, count: int, start: float, seconds: float) -> FlowFile:
    """The lines of file `index`: `count` flows, spread over `seconds` from `start` (epoch)."""
    random = Random(f"flows/{seed}/{index}")
    chance, bits = random.random, random.getrandbits
    account = pick(random, organisation.accounts)
    long = index % 3 == 2
    region, zone = account.region, f"{account.region[:3].replace('-', '')}1-az{1 + index % 3}"
    version, header = (5, V5) if long else (2, V2)
    ports = random.choices(list(_PORTS), cum_weights=list(accumulate(_PORTS.values())), k=count)
    lines, rejected = [header], Counter[str]()
    step = seconds / count
    every = max(1, count // 40)
    for number, port in enumerate(ports):
        begin = int(start + step * number)
        interface = pick(random, account.interfaces)
        x = chance()
        if x < 0.003:
            status = "NODATA" if x < 0.0027 else "SKIPDATA"
            line = (
                f"{version} {account.id} {interface.id} - - - - - - - {begin} {begin + _AGGREGATION_SECONDS} - {status}"
            )
            if long:
                line += f" {account.vpc} {interface.subnet} {interface.instance} - - - - {region} {zone} - - - - - -"
            lines.append(line)
            continue
        high = 32768 + bits(14)
        packets = 1 + int(900 * chance() ** 7)
        octets = packets * (40 + bits(10))
        outgoing = x < 0.5
        if number % every == 1:
            outgoing, peer, action = False, organisation.scanner_address, "REJECT"
            port, packets, octets = _PROBED[bits(8) % len(_PROBED)], 1, 40
        elif chance() < 0.6:
            peer, action = pick(random, organisation.inside), "REJECT" if chance() < 0.005 else "ACCEPT"
        else:
            peer, action = pick(random, organisation.outside), "REJECT" if chance() < 0.1 else "ACCEPT"
        protocol = 17 if port in _UDP else 6
        source, target = (interface.address, peer) if outgoing else (peer, interface.address)
        line = (
            f"{version} {account.id} {interface.id} {source} {target} {high} {port} {protocol} {packets} {octets} "
            f"{begin} {begin + _AGGREGATION_SECONDS} {action} OK"
        )
        if long:
            flags = (2, 3, 18, 19)[bits(2)] if protocol == 6 else 0
            to_s3 = "S3" if outgoing and x > 0.46 else "-"
            way = "egress 8" if outgoing else "ingress -"
            line += (
                f" {account.vpc} {interface.subnet} {interface.instance} {flags} IPv4 {source} {target} {region} {zone}"
                f" - - - {to_s3} {way}"
            )
        if action == "REJECT":
            rejected[source] += 1
        lines.append(line)
    return FlowFile(lines, rejected)
