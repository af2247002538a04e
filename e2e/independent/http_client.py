"""Requests as bytes, so that wrong ones can be sent too, and tokens, right and wrong.

It judges nothing. One connection per address is kept and replaced when the server has closed it.
"""

import base64
import hashlib
import hmac
import http.client
import json
import time
import uuid
from dataclasses import dataclass
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

TIMEOUT_SECONDS = 40


@dataclass
class Request:
    method: str
    url: str
    headers: list[tuple[str, str]]
    body: bytes | None


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    raw: bytes

    @property
    def media_type(self) -> str:
        return (self.headers.get("Content-Type") or "").split(";")[0].strip().lower()

    @property
    def body(self):
        """The body as JSON, None when it is none."""
        try:
            return json.loads(self.raw)
        except ValueError:
            return None

    def __getitem__(self, name: str):
        body = self.body
        return body.get(name) if isinstance(body, dict) else None


class NoAnswer(Exception):
    """The server closed the connection or kept silent."""


class Http:
    """A client of any address."""

    def __init__(self):
        self.connections: dict[str, http.client.HTTPConnection] = {}

    def send(self, request: Request) -> Answer:
        """One request. A kept connection that turns out to be closed is not the server's mistake: once more, anew."""
        parts = urlsplit(request.url)
        kept = parts.netloc in self.connections
        try:
            return self.attempt(request, parts)
        except (OSError, http.client.HTTPException) as error:
            self.drop(parts.netloc)
            if not kept or isinstance(error, TimeoutError):
                raise NoAnswer(f"{type(error).__name__} {error}") from error
        try:
            return self.attempt(request, parts)
        except (OSError, http.client.HTTPException) as error:
            self.drop(parts.netloc)
            raise NoAnswer(f"{type(error).__name__} {error}") from error

    def attempt(self, request: Request, parts) -> Answer:
        connection = self.connections.get(parts.netloc)
        if connection is None:
            connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_SECONDS)
            self.connections[parts.netloc] = connection
        path = request.url[len(f"{parts.scheme}://{parts.netloc}") :]
        connection.putrequest(request.method, path, skip_accept_encoding=True)
        for name, value in request.headers:
            connection.putheader(name, value)
        names = {name.lower() for name, _ in request.headers}
        if request.body is not None and not names & {"content-length", "transfer-encoding"}:
            connection.putheader("Content-Length", str(len(request.body)))
        try:
            connection.endheaders(request.body)
        except (BrokenPipeError, ConnectionResetError):
            # The server has answered before it read everything, as it may.
            pass
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        if response.will_close or "transfer-encoding" in names or "content-length" in names:
            self.drop(parts.netloc)
        return answer

    def drop(self, address: str) -> None:
        if (connection := self.connections.pop(address, None)) is not None:
            connection.close()


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Tokens:
    """Signs bearer tokens: JWTs, EdDSA, `iss` and `aud` orderlog."""

    def __init__(self, pem: bytes):
        key = load_pem_private_key(pem, None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("the signing key is no Ed25519 key")
        self.key = key

    def token(self, sub: str, role: str, key=None, header=None, **claims) -> str:
        """A right token but for what is given; a claim of None is left out."""
        now = int(time.time())
        payload = {"iss": "orderlog", "aud": "orderlog", "sub": sub, "role": role, "iat": now, "nbf": now}
        payload |= {"exp": now + 3600, "jti": uuid.uuid4().hex} | claims
        payload = {name: value for name, value in payload.items() if value is not None}
        head = {"alg": "EdDSA", "typ": "at+jwt"} | (header or {})
        signed = f"{base64url(json.dumps(head).encode())}.{base64url(json.dumps(payload).encode())}"
        return f"{signed}.{base64url((key or self.key).sign(signed.encode()))}"

    def wrong(self) -> dict[str, str | None]:
        """Values of `Authorization` that must not let anybody in; None sends none."""
        now, sub, role = int(time.time()), "mallory", "operator"
        right = self.token(sub, role)
        head, payload, signature = right.split(".")
        other = base64url(json.dumps({"alg": "none", "typ": "at+jwt"}).encode())
        public = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        hs256 = f"{base64url(json.dumps({'alg': 'HS256', 'typ': 'at+jwt'}).encode())}.{payload}"
        mac = hmac.new(public, hs256.encode(), hashlib.sha256).digest()
        admin = base64url(base64.urlsafe_b64decode(payload + "==").replace(b"mallory", b"someone"))
        bearers = {
            "expired": self.token(sub, role, iat=now - 7200, nbf=now - 7200, exp=now - 60),
            "without expiry": self.token(sub, role, exp=None),
            "not valid yet": self.token(sub, role, nbf=now + 600),
            "issued in the future": self.token(sub, role, iat=now + 600),
            "valid for 25 hours": self.token(sub, role, exp=now + 25 * 3600),
            "of another issuer": self.token(sub, role, iss="elsewhere"),
            "without issuer": self.token(sub, role, iss=None),
            "for another audience": self.token(sub, role, aud="elsewhere"),
            "without audience": self.token(sub, role, aud=None),
            "without sub": self.token(None, role),
            "with an empty sub": self.token("", role),
            "with a long sub": self.token("x" * 65, role),
            "with a strange sub": self.token("ann/../bob", role),
            "with a sub that is a number": self.token(7, role),
            "without role": self.token(sub, None),
            "with an unknown role": self.token(sub, "admin"),
            "with a list of roles": self.token(sub, ["operator"]),
            "with times as text": self.token(sub, role, exp=str(now + 600)),
            "of a foreign key": self.token(sub, role, key=Ed25519PrivateKey.generate()),
            "without signature": f"{head}.{payload}.",
            "cut": f"{head}.{payload}.{signature[:-4]}",
            "with another's payload": f"{head}.{admin}.{signature}",
            "with alg none": f"{other}.{payload}.",
            "with alg none and a signature": f"{other}.{payload}.{signature}",
            "with the public key as secret": f"{hs256}.{base64url(mac)}",
            "with another typ": self.token(sub, role, header={"typ": "JWT"}),
            "with a critical extension": self.token(sub, role, header={"crit": ["b64"]}),
            "of two parts": f"{head}.{payload}",
            "of four parts": f"{right}.x",
            "that is no JWT": "x" * 40,
            "of 8 KiB": self.token(sub, role, filler="x" * 8192),
            "that is nothing": "",
        }
        wrong = {f"a token {label}": f"Bearer {token}" for label, token in bearers.items()}
        basic = base64.b64encode(b"ann:secret").decode()
        return wrong | {"no token": None, "Basic": f"Basic {basic}", "no scheme": right, "only a scheme": "Bearer"}


def gateway_signature(secret: str, body: bytes, at: int | None = None) -> str:
    """`t=<unix>,v1=<hex>`: HMAC-SHA-256 over `t.body`."""
    at = int(time.time()) if at is None else at
    tag = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={tag}"
