#!/usr/bin/env python3
"""Stand-alone verifier of Strongroom evidence: one file, Python 3.8 or newer, its standard library and nothing else.

    python3 verify.py EVIDENCE --policy POLICY.txt [--extract FOLDER] [--json]

EVIDENCE is an evidence bundle (.zip) or the proof of one record (.json). POLICY.txt is *your* file in C2SP tlog-policy
form: the keys of the log as its operator published them, and the witnesses whose cosignatures you ask for:

    log <vkey>                              one line for each key of the log; all of them must have signed
    witness <name> <vkey>                   an independent party that cosigns
    group <name> <any|all|k> <member> ...   true when that many of its members cosigned
    quorum <name|none>                      what has to be true

    exit code 0   proven                     the records were in this log, byte for byte, at the checkpoint's size
              1   failed                     something does not hold; the output says what
              2   could not run              no such file, no usable policy
              3   identity not established   everything fits together, but no policy says whose log it is

What is followed, from the record up (docs/format.md of Strongroom is the normative text):

    record   leaf = SHA-256(00 | nonce | record), with sibling hashes up to the segment's records root      RFC 6962
    entry    states that root; leaf = SHA-256(00 | entry), with sibling hashes up to the log's root          RFC 6962
    head     origin, size, root, signed by the log and cosigned by witnesses   C2SP signed-note, tlog-cosignature

Signatures are checked in plain Python: Ed25519, ECDSA over P-256 and P-384, ML-DSA-44. That is slow (milliseconds) and
not constant-time, which is fine: there is no secret here. Records are streamed: the largest bundle needs little memory.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import IO, Any, Optional, Tuple, TypeVar

PROVEN, FAILED, COULD_NOT_RUN, NO_IDENTITY = 0, 1, 2, 3
WORDS = {PROVEN: "proven", FAILED: "failed", NO_IDENTITY: "identity not established"}

Line = Tuple[str, Optional[bool], str]  # subject, whether it holds (None: not established here), text for a person
Result = TypeVar("Result")


class Failure(Exception):
    """Something does not hold. The text says what, for a person."""


class Unusable(Exception):
    """The check can't be made: exit code 2."""


# ------------------------------------------------------------------------------------------------------------- Ed25519
#
# RFC 8032 §5.1.7 with the strictest choice wherever implementations differ (that of ed25519-dalek's verify_strict):
# S below the group order, R and A canonically encoded, neither of them of small order, and the equation [S]B = R + [k]A
# without cofactor. Honest signers never come near any of these cases.

Point = Tuple[int, int, int, int]

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
IDENTITY: Point = (0, 1, 1, 0)


def ed25519_verify(public: bytes, message: bytes, signature: bytes) -> bool:
    if len(public) != 32 or len(signature) != 64:
        return False
    point = ed25519_decode(public)
    s = int.from_bytes(signature[32:], "little")
    if point is None or s >= ORDER or ed25519_small(point):
        return False
    digest = hashlib.sha512(signature[:32] + public + message).digest()
    k = int.from_bytes(digest, "little") % ORDER
    x, y, z, t = point
    minus: Point = (P - x, y, z, P - t)
    # R' = [S]B + [k](-A), both products in one pass over the bits
    table = (IDENTITY, ED25519_BASE, minus, ed25519_add(ED25519_BASE, minus))
    result = IDENTITY
    for bit in range(252, -1, -1):
        result = ed25519_add(result, result)
        choice = (s >> bit & 1) | (k >> bit & 1) << 1
        if choice:
            result = ed25519_add(result, table[choice])
    # Equal encodings: R is then canonical because R' is encoded here.
    return ed25519_encode(result) == signature[:32] and not ed25519_small(result)


def ed25519_add(a: Point, b: Point) -> Point:
    """Sum of two points (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z; complete, so it doubles too (RFC 8032 §5.1.4)."""
    x1, y1, z1, t1 = a
    x2, y2, z2, t2 = b
    p, q = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    c, d = 2 * t1 * t2 * D % P, 2 * z1 * z2 % P
    e, f, g, h = q - p, d - c, d + c, q + p
    return e * f % P, g * h % P, f * g % P, e * h % P


def ed25519_decode(data: bytes) -> Point | None:
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def ed25519_encode(point: Point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, -1, P)
    return (y * inverse % P | (x * inverse % P & 1) << 255).to_bytes(32, "little")


def ed25519_small(point: Point) -> bool:
    """Whether eight times the point is the identity."""
    for _ in range(3):
        point = ed25519_add(point, point)
    return point[0] % P == 0 and (point[1] - point[2]) % P == 0


ED25519_BASE: Point = ed25519_decode((4 * pow(5, -1, P) % P).to_bytes(32, "little")) or IDENTITY

# --------------------------------------------------------------------------------------------------------------- ECDSA
#
# FIPS 186-5 §6.4.2. The signature must be strict DER (no padding, no trailing byte), r and s in 1 … n-1, the point on
# the curve and uncompressed. P-256 goes with SHA-256, P-384 with SHA-384.


JacobianPoint = Tuple[int, int, int]


class Curve:
    """y² = x³ - 3x + b modulo p, with a base point of prime order n. Points are (x, y, z) for x/z² and y/z³."""

    def __init__(self, name: str, spki: str, hash_name: str, p: int, b: int, n: int, x: int, y: int) -> None:
        self.name, self.spki, self.hash_name = name, bytes.fromhex(spki), hash_name
        self.p, self.b, self.n, self.base = p, b, n, (x, y, 1)
        self.bytes = (p.bit_length() + 7) // 8

    def point(self, data: bytes) -> JacobianPoint | None:
        """The uncompressed point, None when it is not on the curve."""
        if len(data) != 1 + 2 * self.bytes or data[0] != 4:
            return None
        x, y = int.from_bytes(data[1 : 1 + self.bytes], "big"), int.from_bytes(data[1 + self.bytes :], "big")
        on_curve = x < self.p and y < self.p and (y * y - x * x * x + 3 * x - self.b) % self.p == 0
        return (x, y, 1) if on_curve else None

    def double(self, a: JacobianPoint) -> JacobianPoint:
        x, y, z = a
        if not y or not z:
            return 0, 1, 0
        p, yy, zz = self.p, y * y, z * z
        s = 4 * x * yy % p
        m = 3 * (x - zz) * (x + zz) % p
        x3 = (m * m - 2 * s) % p
        return x3, (m * (s - x3) - 8 * yy * yy) % p, 2 * y * z % p

    def add(self, a: JacobianPoint, b: JacobianPoint) -> JacobianPoint:
        if not a[2]:
            return b
        if not b[2]:
            return a
        p = self.p
        (x1, y1, z1), (x2, y2, z2) = a, b
        zz1, zz2 = z1 * z1 % p, z2 * z2 % p
        u1, u2, s1, s2 = x1 * zz2 % p, x2 * zz1 % p, y1 * zz2 * z2 % p, y2 * zz1 * z1 % p
        if u1 == u2:
            return self.double(a) if s1 == s2 else (0, 1, 0)
        h, r = (u2 - u1) % p, (s2 - s1) % p
        hh = h * h % p
        hhh, v = h * hh % p, u1 * hh % p
        x3 = (r * r - hhh - 2 * v) % p
        return x3, (r * (v - x3) - s1 * hhh) % p, z1 * z2 * h % p


P256 = Curve(
    "P-256",
    "3059301306072a8648ce3d020106082a8648ce3d030107034200",
    "sha256",
    2**256 - 2**224 + 2**192 + 2**96 - 1,
    0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B,
    0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
P384 = Curve(
    "P-384",
    "3076301006072a8648ce3d020106052b81040022036200",
    "sha384",
    2**384 - 2**128 - 2**96 + 2**32 - 1,
    0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF,
    0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7,
    0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F,
)


def ecdsa_key(spki: bytes) -> tuple[Curve, JacobianPoint] | None:
    """(curve, point) of a DER SubjectPublicKeyInfo, None when it is not an uncompressed P-256 or P-384 point."""
    for curve in (P256, P384):
        if spki.startswith(curve.spki):
            point = curve.point(spki[len(curve.spki) :])
            return None if point is None else (curve, point)
    return None


def ecdsa_verify(spki: bytes, message: bytes, signature: bytes) -> bool:
    key, pair = ecdsa_key(spki), ecdsa_pair(signature)
    if key is None or pair is None:
        return False
    curve, point = key
    r, s = pair
    if not (0 < r < curve.n and 0 < s < curve.n):
        return False
    digest = int.from_bytes(hashlib.new(curve.hash_name, message).digest(), "big")
    inverse = pow(s, -1, curve.n)
    u, v = digest * inverse % curve.n, r * inverse % curve.n
    table = ((0, 1, 0), curve.base, point, curve.add(curve.base, point))
    total: JacobianPoint = (0, 1, 0)
    for bit in range(curve.n.bit_length() - 1, -1, -1):
        total = curve.double(total)
        total = curve.add(total, table[(u >> bit & 1) | (v >> bit & 1) << 1])
    x, _, z = total
    return bool(z) and x * pow(z * z, -1, curve.p) % curve.p % curve.n == r


def ecdsa_pair(signature: bytes) -> tuple[int, int] | None:
    """(r, s) of a strict DER signature, None otherwise."""
    try:
        (body,) = der_all(signature)
        if body[0] != 0x30:
            return None
        (r_tag, r), (s_tag, s) = der_all(body[1])
        if r_tag != 2 or s_tag != 2:
            return None
        for number in (r, s):  # positive and shortest
            if not number or number[0] & 0x80 or (len(number) > 1 and number[0] == 0 and not number[1] & 0x80):
                return None
        return int.from_bytes(r, "big"), int.from_bytes(s, "big")
    except ValueError:
        return None


def der_all(data: bytes) -> list[tuple[int, bytes]]:
    """[(tag, content), …] of DER elements that fill `data` exactly. Raises ValueError."""
    found = []
    while data:
        if len(data) < 2:
            raise ValueError("cut off")
        tag, length, start = data[0], data[1], 2
        if length >= 0x80:
            width = length & 0x7F
            start += width
            length = int.from_bytes(data[2:start], "big")
            if not 1 <= width <= 4 or length < 0x80 or length >> 8 * (width - 1) == 0:
                raise ValueError("not the shortest length")
        if start + length > len(data):
            raise ValueError("cut off")
        found.append((tag, data[start : start + length]))
        data = data[start + length :]
    return found


# ----------------------------------------------------------------------------------------------------------- ML-DSA-44
#
# FIPS 204 algorithms 3 and 8, pure (not pre-hashed), parameters of table 1.

Q = 8380417
MLDSA_ROWS = MLDSA_COLUMNS = 4
MLDSA_TAU, MLDSA_OMEGA, MLDSA_BETA = 39, 80, 78
MLDSA_GAMMA1, MLDSA_GAMMA2 = 1 << 17, (Q - 1) // 88
MLDSA_PUBLIC_BYTES, MLDSA_SIGNATURE_BYTES = 1312, 2420
ZETAS = [pow(1753, int(format(i, "08b")[::-1], 2), Q) for i in range(256)]


def mldsa44_verify(public: bytes, message: bytes, signature: bytes, context: bytes = b"") -> bool:
    if len(public) != MLDSA_PUBLIC_BYTES or len(signature) != MLDSA_SIGNATURE_BYTES or len(context) > 255:
        return False
    challenge = signature[:32]
    z = [
        [MLDSA_GAMMA1 - value for value in unpack_bits(signature[start : start + 576], 18)]
        for start in range(32, 32 + 576 * MLDSA_COLUMNS, 576)
    ]
    hints = mldsa_hints(signature[32 + 576 * MLDSA_COLUMNS :])
    if hints is None or any(abs(value) >= MLDSA_GAMMA1 - MLDSA_BETA for row in z for value in row):
        return False
    reference = hashlib.shake_256(public).digest(64)
    mu = hashlib.shake_256(reference + bytes([0, len(context)]) + context + message).digest(64)
    z_ntt = [ntt(row) for row in z]
    c_ntt = ntt(mldsa_ball(challenge))
    packed = b""
    for row in range(MLDSA_ROWS):
        total = [0] * 256
        for column in range(MLDSA_COLUMNS):
            factors = mldsa_matrix(public[:32], row, column)
            total = [(t + a * b) % Q for t, a, b in zip(total, factors, z_ntt[column])]
        t1 = ntt([value << 13 for value in unpack_bits(public[32 + 320 * row : 352 + 320 * row], 10)])
        w = inverse_ntt([(t - a * b) % Q for t, a, b in zip(total, c_ntt, t1)])
        packed += pack_bits([mldsa_use_hint(place in hints[row], value) for place, value in enumerate(w)], 6)
    return hashlib.shake_256(mu + packed).digest(32) == challenge


def mldsa_hints(data: bytes) -> list[frozenset[int]] | None:
    """The places of ones in each row, None unless they are encoded in the only way there is (algorithm 21)."""
    rows: list[frozenset[int]] = []
    start = 0
    for end in data[MLDSA_OMEGA:]:
        places = data[start:end]
        if not start <= end <= MLDSA_OMEGA or any(a >= b for a, b in zip(places, places[1:])):
            return None
        rows.append(frozenset(places))
        start = end
    return None if any(data[start:MLDSA_OMEGA]) else rows


def mldsa_ball(seed: bytes) -> list[int]:
    """The challenge polynomial: τ coefficients ±1 (algorithm 29)."""
    stream = hashlib.shake_256(seed).digest(8 + 1024)
    signs, place = int.from_bytes(stream[:8], "little"), 8
    result = [0] * 256
    for i in range(256 - MLDSA_TAU, 256):
        while stream[place] > i:
            place += 1
        j = stream[place]
        place += 1
        result[i] = result[j]
        result[j] = 1 - 2 * (signs & 1)
        signs >>= 1
    return result


def mldsa_matrix(seed: bytes, row: int, column: int) -> list[int]:
    """One polynomial of the matrix Â, by rejection (algorithm 30)."""
    length = 1024
    while True:
        stream = hashlib.shake_128(seed + bytes([column, row])).digest(length * 3)
        found = [int.from_bytes(stream[i : i + 3], "little") & 0x7FFFFF for i in range(0, len(stream), 3)]
        found = [value for value in found if value < Q][:256]
        if len(found) == 256:
            return found
        length *= 2


def mldsa_use_hint(hint: bool, value: int) -> int:
    """The high bits of a coefficient, corrected by its hint (algorithms 36 and 40)."""
    low = value % (2 * MLDSA_GAMMA2)
    if low > MLDSA_GAMMA2:
        low -= 2 * MLDSA_GAMMA2
    if value - low == Q - 1:
        high, low = 0, low - 1
    else:
        high = (value - low) // (2 * MLDSA_GAMMA2)
    return (high + (1 if low > 0 else -1)) % 44 if hint else high


def ntt(values: Sequence[int]) -> list[int]:
    """Number-theoretic transform modulo q (algorithm 41)."""
    w, m, length = list(values), 0, 128
    while length:
        for start in range(0, 256, 2 * length):
            m += 1
            zeta = ZETAS[m]
            for j in range(start, start + length):
                t = zeta * w[j + length] % Q
                w[j], w[j + length] = (w[j] + t) % Q, (w[j] - t) % Q
        length //= 2
    return w


def inverse_ntt(values: Sequence[int]) -> list[int]:
    """Its inverse (algorithm 42)."""
    w, m, length = list(values), 256, 1
    while length < 256:
        for start in range(0, 256, 2 * length):
            m -= 1
            zeta = Q - ZETAS[m]
            for j in range(start, start + length):
                t = w[j]
                w[j], w[j + length] = (t + w[j + length]) % Q, zeta * (t - w[j + length]) % Q
        length *= 2
    return [value * 8347681 % Q for value in w]  # 256^-1


def unpack_bits(data: bytes, width: int) -> list[int]:
    """256 little-endian numbers of `width` bits."""
    whole, mask = int.from_bytes(data, "little"), (1 << width) - 1
    return [whole >> shift & mask for shift in range(0, 256 * width, width)]


def pack_bits(values: Sequence[int], width: int) -> bytes:
    whole = 0
    for value in reversed(values):
        whole = whole << width | value
    return whole.to_bytes(len(values) * width // 8, "little")


# ------------------------------------------------------------------------------------------------------- notes and keys

ED25519, ECDSA, COSIGNATURE, ML_DSA_44 = 1, 2, 4, 6
ALGORITHMS = {ED25519: "Ed25519", ECDSA: "ECDSA", COSIGNATURE: "Ed25519 cosignature", ML_DSA_44: "ML-DSA-44"}


class Key:
    """A verification key in C2SP form: <name>+<key id>+<base64 of type and key>."""

    def __init__(self, text: str) -> None:
        parts = text.split("+", 2)
        blob = unbase64(parts[2]) if len(parts) == 3 else b""
        self.name, self.type, self.public = parts[0], blob[0] if blob else 0, blob[1:]
        if not good_name(self.name) or self.type not in ALGORITHMS:
            raise Failure(f"{text[:60]!r} is not a verification key that this program knows")
        preimage = self.name.encode() + b"\n" + blob
        self.id = hashlib.sha256(self.public if self.type == ECDSA else preimage).digest()[:4]
        if parts[1] != self.id.hex():
            raise Failure(f"the key id of {self.name!r} does not belong to its key")
        if self.type == ECDSA:
            usable = ecdsa_key(self.public) is not None
        else:
            usable = len(self.public) == (MLDSA_PUBLIC_BYTES if self.type == ML_DSA_44 else 32)
        if not usable:
            raise Failure(f"the key {self.name!r} is malformed")

    def __str__(self) -> str:
        return f"{ALGORITHMS[self.type]} {self.id.hex()}"

    def signed(self, head: Head, value: bytes) -> bool:
        """Whether `value`, what stands in a signature line after the key id, is this key's signature of `head`."""
        if self.type == ED25519:
            return ed25519_verify(self.public, head.text, value)
        if self.type == ECDSA:
            return ecdsa_verify(self.public, head.text, value)
        if len(value) <= 8:
            return False
        if self.type == COSIGNATURE:
            time = int.from_bytes(value[:8], "big")
            return ed25519_verify(self.public, b"cosignature/v1\ntime %d\n" % time + head.text, value[8:])
        name, origin = self.name.encode(), head.origin.encode()
        if len(name) > 255 or len(origin) > 255:
            return False
        statement = b"subtree/v1\n\0" + bytes([len(name)]) + name + value[:8] + bytes([len(origin)]) + origin
        statement += bytes(8) + head.size.to_bytes(8, "big") + head.root
        return mldsa44_verify(self.public, statement, value[8:])


class Head:
    """A checkpoint: a signed note whose text is three lines, origin, size and root."""

    MOST_BYTES = 1000000

    def __init__(self, data: bytes) -> None:
        self.data = data
        try:
            note = data.decode("utf-8")
        except UnicodeDecodeError:
            raise Failure("checkpoint: not UTF-8") from None
        if len(data) > self.MOST_BYTES or any(char < " " and char != "\n" for char in note):
            raise Failure("checkpoint: too long, or with control characters")
        cut = note.rfind("\n\n")
        lines = note[: cut + 1].split("\n")
        if cut < 0 or not note.endswith("\n") or len(lines) != 4 or not lines[0]:
            raise Failure("checkpoint: not three lines, an empty line and signature lines")
        self.text, self.origin = note[: cut + 1].encode(), lines[0]
        if not re.fullmatch("0|[1-9][0-9]{0,18}", lines[1]):
            raise Failure("checkpoint: the second line is not a size")
        self.size, self.root = int(lines[1]), unbase64(lines[2])
        if len(self.root) != 32:
            raise Failure("checkpoint: the root is not 32 bytes long")
        self._signatures = [self._signature(line) for line in note[cut + 2 : -1].split("\n")]

    @staticmethod
    def _signature(line: str) -> tuple[str, bytes, bytes]:
        parts = line.split(" ")
        blob = unbase64(parts[2]) if len(parts) == 3 else b""
        if len(parts) != 3 or parts[0] != "\u2014" or not good_name(parts[1]) or len(blob) < 5:
            raise Failure("checkpoint: a malformed signature line")
        return parts[1], blob[:4], blob[4:]

    def signature_by(self, key: Key) -> bytes:
        """What the key's signature line holds, empty when there is none. Only its first line counts.

        Raises Failure when the line is there and not valid: a note with a forged line is not to be believed at all.
        """
        for name, key_id, value in self._signatures:
            if (name, key_id) == (key.name, key.id):
                if not key.signed(self, value):
                    raise Failure(f"checkpoint: the signature by {key.name} ({key}) is not valid")
                return value
        return b""


def good_name(name: str) -> bool:
    return bool(name) and not any(char.isspace() or char < " " or char in "+\x7f" for char in name)


def unbase64(text: str) -> bytes:
    try:
        value = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        raise Failure(f"{text[:40]!r} is not base64") from None
    if base64.b64encode(value).decode() != text:
        raise Failure(f"{text[:40]!r} is not the usual base64 of its bytes")
    return value


class Policy:
    """Whose signatures count."""

    def __init__(self, text: str) -> None:
        self.log_keys: list[Key] = []
        self.witnesses: dict[str, Key] = {}
        self.groups: dict[str, tuple[int, list[str]]] = {}
        self.quorum = ""
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split("#")[0].split()
            try:
                if words:
                    self._statement(words[0], words[1:])
            except Failure as error:
                raise Failure(f"policy line {number}: {error}") from None
        if not self.log_keys or not self.quorum or len({key.name for key in self.log_keys}) != 1:
            raise Failure("policy: it needs the keys of exactly one log, and a line `quorum none` or `quorum NAME`")
        self.origin = self.log_keys[0].name

    def _statement(self, what: str, words: list[str]) -> None:
        if what == "log" and len(words) in (1, 2):
            key = Key(words[0])
            if key.type == COSIGNATURE or key.public in [known.public for known in self.log_keys]:
                raise Failure("a log key is given twice, or is a cosigner's")
            self.log_keys.append(key)
        elif what == "witness" and len(words) in (2, 3):
            key = Key(words[1])
            if key.type not in (COSIGNATURE, ML_DSA_44):
                raise Failure("a key of this type does not cosign")
            self._define(words[0])
            self.witnesses[words[0]] = key
        elif what == "group" and len(words) >= 3 and len(set(words[2:])) == len(words[2:]):
            name, members = words[0], words[2:]
            for member in members:
                self._must_know(member)
            self._define(name)
            least = {"any": "1", "all": str(len(members))}.get(words[1], words[1])
            if not re.fullmatch("[0-9]{1,9}", least) or not 1 <= int(least) <= len(members):
                raise Failure(f"threshold {words[1]!r} of {len(members)} members")
            self.groups[name] = (int(least), members)
        elif what == "quorum" and len(words) == 1 and not self.quorum:
            if words[0] != "none":
                self._must_know(words[0])
            self.quorum = words[0]
        else:
            raise Failure(f"{what!r} is not understood here")

    def _define(self, name: str) -> None:
        if name == "none" or name in self.witnesses or name in self.groups:
            raise Failure(f"{name!r} has a meaning already")

    def _must_know(self, name: str) -> None:
        if name not in self.witnesses and name not in self.groups:
            raise Failure(f"{name!r} is not defined before")

    def holds(self, name: str, cosigned: dict[str, bytes]) -> bool:
        """Whether the witnesses that cosigned make the name true."""
        if name == "none" or name in self.witnesses:
            return name not in self.witnesses or name in cosigned
        least, members = self.groups[name]
        return sum(self.holds(member, cosigned) for member in members) >= least

    def judge(self, head: Head) -> list[tuple[str, str]]:
        """(subject, text) of what holds for the checkpoint. Raises Failure for what does not."""
        if head.origin != self.origin:
            raise Failure(f"checkpoint: of the log {head.origin!r}; the policy is about {self.origin!r}")
        for key in self.log_keys:
            if not head.signature_by(key):
                raise Failure(f"checkpoint: not signed by {key} of the log")
        names = ", ".join(str(key) for key in self.log_keys)
        signed = f"{head.origin} at size {head.size}, by {names}"
        cosigned = {name: head.signature_by(key) for name, key in self.witnesses.items()}
        cosigned = {name: value for name, value in cosigned.items() if value}
        if not self.witnesses:
            return [("log signature", signed), ("witnesses", "the policy asks for none")]
        if not self.holds(self.quorum, cosigned):
            got = ", ".join(sorted(cosigned)) or "none"
            raise Failure(f"checkpoint: the quorum {self.quorum!r} is not met; witnesses that cosigned: {got}")
        times = [time for time in (int.from_bytes(value[:8], "big") for value in cosigned.values()) if time]
        earliest = f", earliest at {utc(min(times))}" if times else ""
        asked = "none is asked for" if self.quorum == "none" else f"the quorum {self.quorum!r} is met"
        witnessed = f"{len(cosigned)} of {len(self.witnesses)} cosigned{earliest}; {asked}"
        return [("log signature", signed), ("witnesses", witnessed)]


def utc(seconds: int) -> str:
    try:
        return (datetime(1970, 1, 1) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError:
        return str(seconds)


def judge(head: Head, policy: Policy | None, brought: bytes, lines: list[Line], problems: list[str]) -> None:
    """How the checkpoint stands under the reader's own policy or, without one, whether it agrees with itself."""
    if policy is not None:
        try:
            lines += [(subject, True, text) for subject, text in policy.judge(head)]
        except Failure as error:
            problems.append(str(error))
        return
    try:
        theirs = Policy(brought.decode("utf-8"))
    except (Failure, UnicodeDecodeError):
        lines.append(("log signature", None, "not checked: no policy was given"))
        return
    try:
        note = " (by keys it brings itself, which says nothing about who made it)"
        lines += [(subject, None, text + note) for subject, text in theirs.judge(head)]
    except Failure as error:
        problems.append(str(error))
    for key in theirs.log_keys:
        digest = hashlib.sha256(key.public).hexdigest()
        lines.append(("key it brings", None, f"{key} of {key.name}; SHA-256 of the raw key {digest}"))


# --------------------------------------------------------------------------------------------------------------- trees


def leaf_of(*parts: bytes) -> bytes:
    return hashlib.sha256(b"\0" + b"".join(parts)).digest()


def check_path(leaf: bytes, index: int, size: int, path: list[bytes], root: bytes, what: str) -> None:
    """That `leaf` is at `index` of a tree of `size` with `root`. Raises Failure.

    The tree is walked from the top: at each level the remaining size splits as RFC 6962 says, which tells how many
    hashes there must be and on which side each one stands.
    """
    if not 0 <= index < size:
        raise Failure(f"{what}: place {index} can't be in a tree of {size}")
    sides = []
    while size > 1:
        left = 1 << (size - 1).bit_length() - 1
        sides.append(index >= left)
        index, size = (index - left, size - left) if index >= left else (index, left)
    if len(path) != len(sides) or any(len(node) != 32 for node in path):
        raise Failure(f"{what}: the path has {len(path)} hashes where {len(sides)} are due")
    for node, on_right in zip(path, reversed(sides)):
        leaf = hashlib.sha256(b"\1" + (node + leaf if on_right else leaf + node)).digest()
    if leaf != root:
        raise Failure(f"{what}: the path leads to another root")


def root_from(frames: Frames, nodes: Member, of: int) -> bytes:
    """The root of a tree of `of` leaves, from its disclosed leaves and the hashes that complete it. Raises Failure.

    One walk from left to right. Where no record is disclosed, the next hash of `nodes` stands for the largest subtree
    that begins here and holds none. What has been passed is kept as the roots of its complete subtrees, one for each
    one-bit of their total width; equal neighbours join.
    """
    peaks: list[tuple[int, bytes]] = []
    place = 0
    while place < of:
        if frames.row == place:
            width, value = 1, frames.leaf()
        else:
            width, value = subtree_at(place, of if frames.row is None else frames.row, of), nodes.take(32)
        place += width
        while peaks and peaks[-1][0] == width and place % (2 * width) == 0:
            value = hashlib.sha256(b"\1" + peaks.pop()[1] + value).digest()
            width *= 2
        peaks.append((width, value))
    if frames.row is not None:
        raise Failure(f"row {frames.row} is not one of {of} rows")
    root = peaks.pop()[1]
    while peaks:
        root = hashlib.sha256(b"\1" + peaks.pop()[1] + root).digest()
    return root


def subtree_at(start: int, end: int, of: int) -> int:
    """Width of the largest subtree of a tree of `of` leaves that begins at `start` and reaches `end` at most."""
    spine, rest = 0, of  # the right edge of the tree: the subtrees that reach its end
    while spine < start:
        left = 1 << (rest - 1).bit_length() - 1
        spine, rest = spine + left, rest - left
    if spine == start and end >= of:
        return of - start
    width = start & -start if start else 1 << of.bit_length()
    while start + width > min(end, of):
        width //= 2
    return width


# ----------------------------------------------------------------------------------------------------------- documents


def parse_json(data: bytes, what: str) -> Any:
    """A document in the one encoding that the format allows. Raises Failure for any other."""

    def no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a name occurs twice")
        return dict(pairs)

    def refuse(text: str) -> Any:
        raise ValueError(f"{text} is not an integer")

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=no_twins, parse_float=refuse, parse_constant=refuse)
        check_values(value)
        again = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Failure(f"{what}: malformed: {error}") from None
    if again != data:
        raise Failure(f"{what}: not in canonical form")
    return value


def check_values(value: Any) -> None:
    if isinstance(value, dict):
        for name, content in value.items():
            if not name.isascii():
                raise ValueError("a name is not ASCII")
            check_values(content)
    elif isinstance(value, list):
        for content in value:
            check_values(content)
    elif value is None or (isinstance(value, int) and abs(value) >= 2**53):
        raise ValueError("null, or a number of 2^53 or more")


def is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


KIND_OF_MEMBER: dict[str, Callable[[Any], bool]] = {
    "count": lambda value: type(value) is int and value >= 0,
    "text": lambda value: isinstance(value, str),
    "hash": is_hash,
    "list": lambda value: isinstance(value, list),
    "hashes": lambda value: isinstance(value, list) and all(map(is_hash, value)),
    "object": lambda value: isinstance(value, dict),
}


def shaped(value: Any, what: str, **shape: str) -> Any:
    """`value` when it is an object with exactly the members of `shape`, each of its kind. Raises Failure."""
    if not isinstance(value, dict) or set(value) != set(shape):
        raise Failure(f"{what}: its members must be {', '.join(sorted(shape))}")
    for name, kind in shape.items():
        if not KIND_OF_MEMBER[kind](value[name]):
            raise Failure(f"{what}: {name} is not a {kind}")
    return value


def check_time(text: str, what: str) -> None:
    try:
        datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ")
    except ValueError:
        raise Failure(f"{what}: {text!r} is not a timestamp") from None


ENTRY_KIND = re.compile(
    "genesis|segment|heartbeat|source-digest|timestamp|key|policy|hold|prune|incident|report|successor"
)


def parse_entry(data: bytes, index: int, head: Head) -> list[dict[str, Any]]:
    """The segments an entry names. Raises Failure unless it is an entry of this log that says it stands at `index`."""
    what = f"entry {index}"
    entry = parse_json(data, what)
    optional = {"writer": "object", "retain_until": "text", "details": "object"}
    if isinstance(entry, dict):
        optional = {name: kind for name, kind in optional.items() if name in entry}
    shaped(
        entry,
        what,
        format="text",
        index="count",
        kind="text",
        prev="hash",
        origin="text",
        written_at="text",
        segments="list",
        data="object",
        **optional,
    )
    if entry["format"] != "strongroom/entry/1" or not ENTRY_KIND.fullmatch(entry["kind"]):
        raise Failure(f"{what}: of an unknown format or kind")
    if (entry["index"], entry["origin"]) != (index, head.origin):
        raise Failure(f"{what}: says it is entry {entry['index']} of {entry['origin']!r}")
    for name in {"written_at", "retain_until"} & set(entry):
        check_time(entry[name], what)
    reference = {"key": "text", "version": "text", "bytes": "count", "sha256": "hash"}
    if "details" in entry:
        shaped(entry["details"], what, **reference)
    if "writer" in entry:
        check_writer(entry["writer"], what)
    return [shaped(one, what, records="count", root="hash", groups="hashes", **reference) for one in entry["segments"]]


def check_writer(writer: dict[str, Any], what: str) -> None:
    """`part` and `parts` may be left out; `last` may be one less than `first`, also -1: nothing was sealed."""
    whole = dict({"part": 1, "parts": 1}, **writer)
    last = whole.pop("last", None)
    shaped(whole, what, id="text", epoch="count", first="count", part="count", parts="count")
    if type(last) is not int or last < whole["first"] - 1 or not 1 <= whole["part"] <= whole["parts"]:
        raise Failure(f"{what}: an impossible writer range")


HASHES = {
    bytes.fromhex("608648016503040201"): "sha256",
    bytes.fromhex("608648016503040202"): "sha384",
    bytes.fromhex("608648016503040203"): "sha512",
}
TOKEN_CONTENT = bytes.fromhex("2a864886f70d0109100104")


def parse_timestamp(data: bytes, what: str) -> tuple[str, bytes, str]:
    """(hash name, imprint, time) of an RFC 3161 response. Its signature is not looked at. Raises Failure."""
    try:
        ((_, response),) = der_all(data)
        (_, status), (_, token) = der_all(response)
        if int.from_bytes(der_all(status)[0][1], "big") > 1:
            raise Failure(f"{what}: the authority did not grant it")
        signed_data = der_all(der_all(token)[1][1])[0][1]
        kind, content = der_all(der_all(signed_data)[2][1])[:2]
        if kind[1] != TOKEN_CONTENT:
            raise Failure(f"{what}: not a time-stamp token")
        info = der_all(der_all(der_all(content[1])[0][1])[0][1])
        algorithm, imprint = der_all(info[2][1])
        digits = re.fullmatch(r"([0-9]{14})(\.[0-9]+)?Z", info[4][1].decode("ascii"))
        if digits is None:
            raise Failure(f"{what}: malformed time")
        time = datetime.strptime(digits.group(1), "%Y%m%d%H%M%S").strftime("%Y-%m-%dT%H:%M:%SZ")
        return HASHES[der_all(algorithm[1])[0][1]], imprint[1], time
    except (ValueError, IndexError, KeyError) as error:
        raise Failure(f"{what}: malformed: {error!r}") from None


# -------------------------------------------------------------------------------------------------------------- bundle

PIECE = 1 << 18  # how much is read at once
SMALL = 1 << 20  # members that are held in memory are at most this long, but for tables and notes
TABLE = 1 << 26
EXTRAS = re.compile(
    r"README\.txt|cover\.html|verify\.py|custody\.json|keys/policy\.txt"
    r"|keys/[0-9a-f]{8}-[a-z0-9-]{1,32}\.pem|timestamps/[0-9]{6}\.tsr"
)
ZIP_TROUBLE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, KeyError, OverflowError, OSError)


class Member:
    """A member of the ZIP file as a stream, hashed as it goes by. Raises Failure for any damage."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self.name = name
        self._hasher = hashlib.sha256()
        self._held, self._used = b"", 0
        try:
            self._file = archive.open(name)
        except ZIP_TROUBLE as error:
            raise Failure(f"{name}: missing or damaged: {error}") from None

    def peek(self, count: int) -> int:
        """How many of the next `count` bytes there are. Nothing is consumed."""
        pieces = [self._held[self._used :]] if len(self._held) - self._used < count else []
        have = len(pieces[0]) if pieces else count
        while have < count:
            try:
                piece = self._file.read(PIECE)
            except ZIP_TROUBLE as error:
                raise Failure(f"{self.name}: damaged: {error}") from None
            if not piece:
                break
            self._hasher.update(piece)
            pieces.append(piece)
            have += len(piece)
        if pieces:
            self._held, self._used = b"".join(pieces), 0
        return min(have, count)

    def take(self, count: int) -> bytes:
        if self.peek(count) < count:
            raise Failure(f"{self.name}: ends in the middle")
        start, self._used = self._used, self._used + count
        return self._held[start : self._used]

    def digest(self) -> str:
        """SHA-256 of the whole member; reads what is left."""
        while self.peek(1):
            self._held, self._used = b"", 0
        return self._hasher.hexdigest()


class Frames:
    """The frames of a `records/<n>` member: row (8 bytes), nonce (16), length (4), record."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self.count = 0
        self.row: int | None = None
        self._step(-1)

    def _step(self, before: int) -> None:
        if not self._member.peek(1):
            self.row = None
            return
        header = self._member.take(28)
        self.row, self._nonce = int.from_bytes(header[:8], "big"), header[8:24]
        self._left = int.from_bytes(header[24:], "big")
        if self.row <= before:
            raise Failure(f"{self._member.name}: row {self.row} after row {before}")

    def pieces(self) -> Iterator[bytes]:
        """The record's bytes, in pieces; afterwards the next frame is current."""
        before = self.row or 0
        while self._left:
            size = min(self._left, PIECE)
            self._left -= size
            yield self._member.take(size)
        self.count += 1
        self._step(before)

    def leaf(self) -> bytes:
        hasher = hashlib.sha256(b"\0" + self._nonce)
        for piece in self.pieces():
            hasher.update(piece)
        return hasher.digest()


class Bundle:
    """An evidence bundle. `check` fills `lines` and `problems`."""

    def __init__(self, file: IO[bytes], lines: list[Line], problems: list[str]) -> None:
        self.lines, self.problems = lines, problems
        self._digests: dict[str, str | None] = {}
        try:
            file.seek(-22, os.SEEK_END)
            end = file.read()
            self.archive = zipfile.ZipFile(file)
        except ZIP_TROUBLE as error:
            raise Failure(f"not a ZIP file, or cut off: {error}") from None
        infos = self.archive.infolist()
        self.names = {info.filename for info in infos}
        if len(self.names) != len(infos):
            raise Failure("two members of one name")
        starts = min((info.header_offset for info in infos), default=None)
        if starts != 0 or not end.startswith(b"PK\5\6") or not end.endswith(b"\0\0"):
            raise Failure("not only members in the file")
        for info in infos:
            if info.flag_bits & 0x2061 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Failure(f"member {info.filename!r} is neither stored nor deflated")

    def check(self, policy: Policy | None) -> None:
        contents = self.contents()
        head = Head(self._whole("checkpoint", Head.MOST_BYTES))
        stated = contents["checkpoint"]
        if (head.origin, head.size, head.root.hex()) != (contents["origin"], stated["size"], stated["root"]):
            raise Failure("checkpoint: not the one that bundle.json states")
        self._check_names(contents)
        self._check_segments(contents, self._check_entries(contents, head))
        brought = b""
        if "keys/policy.txt" in self.names:
            brought = self._noting(self._whole, "keys/policy.txt") or b""
        judge(head, policy, brought, self.lines, self.problems)
        for name in sorted(name for name in self.names if name.startswith("timestamps/")):
            self._noting(self._check_timestamp, name, head)
        self._check_sums()

    def contents(self) -> Any:
        what = "bundle.json"
        contents = parse_json(self._whole(what, TABLE), what)
        shaped(
            contents,
            what,
            format="text",
            origin="text",
            created="text",
            checkpoint="object",
            records="count",
            segments="list",
        )
        if contents["format"] != "strongroom/evidence/1":
            raise Failure(f"{what}: unknown format {contents['format']!r}")
        check_time(contents["created"], what)
        shaped(contents["checkpoint"], what, size="count", root="hash")
        places = []
        for segment in contents["segments"]:
            shaped(segment, what, entry="count", segment="count", key="text", records="count", of="count", root="hash")
            if not 1 <= segment["records"] <= segment["of"]:
                raise Failure(f"{what}: a segment can't disclose that many records")
            places.append((segment["entry"], segment["segment"]))
        if not places or any(a >= b for a, b in zip(places, places[1:])):
            raise Failure(f"{what}: segments are not in ascending order, each once, at least one")
        if contents["records"] != sum(segment["records"] for segment in contents["segments"]):
            raise Failure(f"{what}: the number of records is not the sum over its segments")
        return contents

    def extract(self, folder: str) -> int:
        """Write every record to FOLDER/<n>/<row>; names come from numbers alone. Returns how many there are."""
        total = 0
        for number in range(1, len(self.contents()["segments"]) + 1):
            target = os.path.join(folder, f"{number:06d}")
            os.makedirs(target)
            frames = Frames(Member(self.archive, f"records/{number:06d}"))
            while frames.row is not None:
                with open(os.path.join(target, f"{frames.row:012d}"), "xb") as file:
                    for piece in frames.pieces():
                        file.write(piece)
                total += 1
        return total

    def _whole(self, name: str, most: int = SMALL) -> bytes:
        member = Member(self.archive, name)
        size = member.peek(most + 1)
        if size > most:
            raise Failure(f"{name}: longer than the {most} bytes it may have")
        data = member.take(size)
        self._digests[name] = member.digest()
        return data

    def _check_names(self, contents: Any) -> None:
        needed = {"bundle.json", "checkpoint", "SHA256SUMS"}
        for number, segment in enumerate(contents["segments"], 1):
            needed |= {f"records/{number:06d}", f"nodes/{number:06d}"}
            needed |= {f"entries/{segment['entry']:020d}", f"proofs/{segment['entry']:020d}"}
        self.problems += [f"{name}: missing" for name in sorted(needed - self.names)]
        strange = sorted(name for name in self.names - needed if not EXTRAS.fullmatch(name))
        self.problems += [f"{name!r}: does not belong in a bundle" for name in strange]

    def _check_entries(self, contents: Any, head: Head) -> dict[int, list[dict[str, Any]] | None]:
        indices = sorted({segment["entry"] for segment in contents["segments"]})
        entries = {index: self._noting(self._check_entry, index, head) for index in indices}
        if None not in entries.values():
            text = f"{len(indices)} in the tree of {head.size} entries with root {head.root.hex()}"
            self.lines.append(("entries", True, text))
        return entries

    def _check_entry(self, index: int, head: Head) -> list[dict[str, Any]]:
        data = self._whole(f"entries/{index:020d}", 65535)
        name = f"proofs/{index:020d}"
        proof = self._whole(name, 2 * Head.MOST_BYTES)
        start = b"c2sp.org/tlog-proof@v1\nindex %d\n" % index
        end = b"\n" + head.data
        middle = proof[len(start) : len(proof) - len(end)].decode("ascii", "replace")
        if start + middle.encode() + end != proof or not (middle.endswith("\n") or not middle):
            raise Failure(f"{name}: not a proof of entry {index} under this checkpoint")
        path = [unbase64(line) for line in middle.split("\n")[:-1]]
        check_path(leaf_of(data), index, head.size, path, head.root, name)
        return parse_entry(data, index, head)

    def _check_segments(self, contents: Any, entries: dict[int, list[dict[str, Any]] | None]) -> None:
        good = 0
        for number, claim in enumerate(contents["segments"], 1):
            named = entries[claim["entry"]]
            if named is not None:
                good += self._noting(self._check_segment, number, claim, named) or 0
        if good == len(contents["segments"]):
            text = f"{contents['records']} from {good} segments give the roots that the entries state"
            self.lines.append(("records", True, text))

    def _check_segment(self, number: int, claim: dict[str, Any], named: list[dict[str, Any]]) -> int:
        stated = named[claim["segment"]] if claim["segment"] < len(named) else {}
        if [stated.get(name) for name in ("key", "records", "root")] != [claim["key"], claim["of"], claim["root"]]:
            raise Failure(f"bundle.json: segment {number} is not what entry {claim['entry']} states")
        records = Member(self.archive, f"records/{number:06d}")
        nodes = Member(self.archive, f"nodes/{number:06d}")
        frames = Frames(records)
        if root_from(frames, nodes, claim["of"]).hex() != claim["root"]:
            raise Failure(f"{records.name}: the records do not give the root that entry {claim['entry']} states")
        if frames.count != claim["records"]:
            raise Failure(f"{records.name}: {frames.count} records where {claim['records']} are stated")
        if nodes.peek(1):
            raise Failure(f"{nodes.name}: has hashes that no record needs")
        for member in (records, nodes):
            self._digests[member.name] = member.digest()
        return 1

    def _check_timestamp(self, name: str, head: Head) -> None:
        algorithm, imprint, time = parse_timestamp(self._whole(name), name)
        lines = head.data.split(b"\n")
        for count in range(5, len(lines)):
            # Cosignatures are added to a checkpoint after it was stored: a shorter note may have been stamped.
            if hashlib.new(algorithm, b"\n".join(lines[:count]) + b"\n").digest() == imprint:
                text = f"{name} says {time} over the first {count} lines"
                text += "; its signature is not checked here (openssl ts -verify)"
                self.lines.append(("timestamp", None, text))
                return
        raise Failure(f"{name}: a token over something else than this checkpoint")

    def _check_sums(self) -> None:
        """SHA256SUMS must have exactly one line for each other member, with its digest."""
        data = self._noting(self._whole, "SHA256SUMS", TABLE)
        if data is None:
            return
        stated: dict[str, str] = {}
        for line in data.split(b"\n")[:-1]:
            digest, _, name = line.decode("ascii", "replace").partition("  ")
            stated[name] = digest
        rebuilt = "".join(f"{digest}  {name}\n" for name, digest in stated.items())
        others = self.names - {"SHA256SUMS"}
        if rebuilt.encode() != data or set(stated) != others:
            self.problems.append("SHA256SUMS: not one line for each member")
        for name in sorted(others):
            if name not in self._digests:
                self._digests[name] = self._noting(self._digest_of, name)
            if self._digests[name] is not None and stated.get(name) != self._digests[name]:
                self.problems.append(f"{name}: its SHA-256 is not the one SHA256SUMS states")

    def _digest_of(self, name: str) -> str:
        return Member(self.archive, name).digest()

    def _noting(self, step: Callable[..., Result], *arguments: Any) -> Result | None:
        """The step's result; when it fails, None and one more problem."""
        try:
            return step(*arguments)
        except Failure as error:
            if str(error) not in self.problems:
                self.problems.append(str(error))
            return None


# -------------------------------------------------------------------------------------------------- proof of one record


def check_record_proof(data: bytes, policy: Policy | None, lines: list[Line], problems: list[str]) -> None:
    what = "proof"
    proof = parse_json(data, what)
    shaped(proof, what, format="text", record="object", segment="object", entry="object", checkpoint="text")
    record = shaped(proof["record"], what, raw="text", nonce="text", row="count", path="hashes")
    segment = shaped(proof["segment"], what, position="count", key="text", records="count", root="hash")
    entry = shaped(proof["entry"], what, index="count", raw="text", path="hashes")
    if proof["format"] != "strongroom/proof/1" or not re.fullmatch("[0-9a-f]{32}", record["nonce"]):
        raise Failure(f"{what}: of an unknown format, or with a malformed nonce")
    head = Head(proof["checkpoint"].encode())
    entry_bytes, path = unbase64(entry["raw"]), [bytes.fromhex(node) for node in entry["path"]]
    check_path(leaf_of(entry_bytes), entry["index"], head.size, path, head.root, "entry")
    named = parse_entry(entry_bytes, entry["index"], head)
    lines.append(("entry", True, f"{entry['index']} is in the tree of {head.size} with root {head.root.hex()}"))
    stated = named[segment["position"]] if segment["position"] < len(named) else {}
    if any(stated.get(name) != segment[name] for name in ("key", "records", "root")):
        raise Failure(f"{what}: its segment is not what entry {entry['index']} states")
    leaf = leaf_of(bytes.fromhex(record["nonce"]), unbase64(record["raw"]))
    path = [bytes.fromhex(node) for node in record["path"]]
    check_path(leaf, record["row"], segment["records"], path, bytes.fromhex(segment["root"]), "record")
    lines.append(("record", True, f"row {record['row']} of the {segment['records']} in {segment['key']}"))
    judge(head, policy, b"", lines, problems)


# ------------------------------------------------------------------------------------------------------------- program


def verify(path: str, policy_text: str | None = None, extract: str | None = None) -> tuple[int, list[Line], list[str]]:
    """(exit code, lines, problems) for the evidence at `path`. Raises Unusable when the check can't be made."""
    try:
        policy = None if policy_text is None else Policy(policy_text)
        file = open(path, "rb")
    except Failure as error:
        raise Unusable(str(error)) from None
    except OSError as error:
        raise Unusable(f"can't read {path}: {error.strerror}") from None
    lines: list[Line] = []
    problems: list[str] = []
    with file:
        bundle = None
        try:
            if file.read(1) == b"{":
                file.seek(0)
                check_record_proof(file.read(), policy, lines, problems)
            else:
                bundle = Bundle(file, lines, problems)
                bundle.check(policy)
        except Failure as error:
            problems.append(str(error))
        code = FAILED if problems else NO_IDENTITY if policy is None else PROVEN
        if extract is not None and bundle is not None and code != FAILED:
            try:
                lines.append(("extracted", True, f"{bundle.extract(extract)} records to {extract}"))
            except OSError as error:
                raise Unusable(f"can't write to {extract}: {error}") from None
    return code, lines, problems


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Check Strongroom evidence offline.", epilog="More at the head of this file."
    )
    parser.add_argument("evidence", help="an evidence bundle (.zip) or the proof of one record (.json)")
    parser.add_argument("--policy", metavar="FILE", help="your own policy: the log's keys and your witnesses")
    parser.add_argument("--extract", metavar="FOLDER", help="also write each record to a file there")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    options = parser.parse_args(arguments)
    try:
        policy = None
        if options.policy is not None:
            with open(options.policy, "rb") as file:
                policy = file.read(SMALL).decode("utf-8")
        code, lines, problems = verify(options.evidence, policy, options.extract)
    except (Unusable, OSError, UnicodeDecodeError) as error:
        print(f"could not run: {printable(str(error))}", file=sys.stderr)
        return COULD_NOT_RUN
    if options.json:
        found = [{"subject": subject, "held": held, "text": text} for subject, held, text in lines]
        print(json.dumps({"status": WORDS[code], "lines": found, "problems": problems}, indent=1))
        return code
    for subject, held, text in lines:
        print(f"{'ok' if held else '--'} {subject:14} {printable(text)}")
    for problem in problems:
        print(f"NO {printable(problem)}")
    print(WORDS[code].upper())
    return code


def printable(text: str) -> str:
    """Names in the evidence are a stranger's: nothing of them may move a terminal's cursor or fail to print."""
    return "".join(char if " " <= char <= "~" else f"\\u{ord(char):04x}" for char in text)


if __name__ == "__main__":
    sys.exit(main())
