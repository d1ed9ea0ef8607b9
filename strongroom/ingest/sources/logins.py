"""What messages of Linux programs say of logins: who, from where, and whether it worked. Pure.

sshd, sudo, su, PAM and systemd-logind write sentences; these are the ones that matter, as OpenSSH, Linux-PAM, sudo and
systemd have them in their sources. A message is believed only of a program that lets people in, because any program
may write any sentence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_ADDRESS = r"(?P<address>[0-9A-Fa-f.:]{2,45}(?<!\d:)(?<!\.))(?:%\w+)?"
_PORT = r" port (?P<port>\d{1,5})"
# What a message says of a login: pattern → result. The first that matches counts. A user name is whatever somebody
# typed, ` from 192.0.2.1 port 22` included: it is matched greedily, so that the address is the one sshd wrote last.
_LOGINS: tuple[tuple[re.Pattern[str], str | None], ...] = tuple(
    (re.compile(pattern, re.ASCII | re.DOTALL), result)
    for pattern, result in (
        (rf"Accepted \S+ for (?P<user>.*) from {_ADDRESS}{_PORT}", "success"),
        (rf"Failed \S+ for (?:invalid user )?(?P<user>.*) from {_ADDRESS}{_PORT}", "denied"),
        (rf"(?:Invalid|Illegal) user (?P<user>.*) from {_ADDRESS}(?:{_PORT})?", "denied"),
        (rf"Disconnected from (?:(?:authenticating |invalid )?user (?P<user>.*) )?{_ADDRESS}{_PORT}", None),
        (
            rf"Connection (?:closed|reset) by (?:(?:authenticating |invalid )?user (?P<user>.*) )?{_ADDRESS}{_PORT}",
            None,
        ),
        (rf"Received disconnect from {_ADDRESS}(?:{_PORT})?", None),
        (rf"(?:Connection|Child connection) from {_ADDRESS}(?:{_PORT}|:(?P<childport>\d{{1,5}}))", None),
        (rf"pam_\w+\(\S+\): authentication failure;.* rhost={_ADDRESS}(?:\s+user=(?P<user>\S+))?", "denied"),
        (r"pam_\w+\(\S+\): authentication failure;.* user=(?P<user>\S+)", "denied"),
        (r"(?:pam_\w+\(\S+\): )?session opened for user (?P<user>[^\s(]+)", "success"),
        (r"(?:pam_\w+\(\S+\): )?session closed for user (?P<user>[^\s(]+)", None),
        (r"New session \S+ of user (?P<user>\S+)\.", "success"),
        (r"\s*(?P<user>\S+) : (?:\d+ incorrect password attempts?|user NOT in sudoers|command not allowed)", "denied"),
        (r"\s*(?P<user>\S+) : TTY=\S+ ; PWD=", "success"),
    )
)
_PROGRAMS = frozenset({"sshd", "sshd-session", "sudo", "su", "login", "systemd", "systemd-logind", "dropbear"})


def told(program: str, message: str) -> Mapping[str, str | int | None]:
    """`user_name`, `source_address`, `source_port`, `result` (success, denied or None), where a message tells them."""
    if program.rpartition("/")[2] not in _PROGRAMS:
        return {}
    for pattern, result in _LOGINS:
        if match := pattern.match(message):
            groups = match.groupdict()
            return {
                "user_name": groups.get("user") or None,
                "source_address": groups.get("address"),
                "source_port": small(groups.get("port") or groups.get("childport")),
                "result": result,
            }
    return {}


def small(digits: str | None) -> int | None:
    """A number that fits 31 bits."""
    return int(digits) if digits and digits.isdigit() and int(digits) < 2**31 else None
