"""A private Sigstore for tests, on loopback over real HTTP: an OIDC issuer, a certificate authority shaped like Fulcio
(with the SCT of a CT log), and a transparency log shaped like Rekor v1, whose tree is the project's own.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from adapters.ledger import tree

Json = dict[str, Any]
IDENTITY = "https://git.example.test/platform/.deploy/main"
CLIENT = "sigstore"
ISSUED = "1.3.6.1.4.1.57264.1.1"
ISSUED_V2 = "1.3.6.1.4.1.57264.1.8"
SCT_LIST = "1.3.6.1.4.1.11129.2.4.2"
SIGNS = ec.ECDSA(hashes.SHA256())


def text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_id(key: ec.EllipticCurvePrivateKey) -> bytes:
    return hashlib.sha256(spki(key)).digest()


def usage(**said: bool) -> x509.KeyUsage:
    names = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    rest = dict.fromkeys((*names, "decipher_only", "digital_signature", "key_cert_sign", "crl_sign"), False)
    return x509.KeyUsage(**{**rest, **said})


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


class Instance:
    """`url` is set while it serves. `refuse` and `twist` are switches for faults: an answer of Fulcio's instead of a
    certificate, and what is done to a log entry before it is given out.
    """

    def __init__(self) -> None:
        self.ca, self.ct, self.log, self.oidc = (ec.generate_private_key(ec.SECP256R1()) for _ in range(4))
        self.root = self._authority()
        self.bodies: list[bytes] = []
        self.url = ""
        self.minutes = 10
        self.refuse: Json | None = None
        self.twist: Callable[[Json], Json] = lambda entry: entry
        self.asked: list[str] = []
        self._lock = threading.Lock()

    # OIDC

    def token(self, identity: str = IDENTITY, *, seconds: int = 600, audience: str = CLIENT) -> str:
        moment = int(now().timestamp())
        claims = {"iss": self.url, "sub": identity, "aud": audience, "iat": moment - 700, "exp": moment + seconds}
        return jwt.encode(claims, self.oidc, algorithm="ES256", headers={"kid": "1"})

    def keys(self) -> Json:
        numbers = self.oidc.public_key().public_numbers()
        x, y = (
            base64.urlsafe_b64encode(one.to_bytes(32, "big")).rstrip(b"=").decode() for one in (numbers.x, numbers.y)
        )
        return {"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "alg": "ES256", "use": "sig", "x": x, "y": y}]}

    def _claims(self, authorization: str) -> Json:
        """As Fulcio: the issuer's own document leads to its keys."""
        import httpx

        raw = authorization.removeprefix("Bearer ")
        issuer = jwt.decode(raw, options={"verify_signature": False})["iss"]
        found = httpx.get(f"{issuer}/.well-known/openid-configuration", trust_env=False).json()
        key = jwt.PyJWK(httpx.get(found["jwks_uri"], trust_env=False).json()["keys"][0])
        claims: Json = jwt.decode(raw, key, algorithms=["ES256"], audience=CLIENT)
        return claims

    # Fulcio

    def _authority(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the tests")])
        made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self.ca.public_key())
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now() - dt.timedelta(hours=1))
        made = made.not_valid_after(now() + dt.timedelta(days=365))
        made = made.add_extension(x509.BasicConstraints(True, 1), True)
        made = made.add_extension(usage(key_cert_sign=True, crl_sign=True), True)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(self.ca.public_key()), False)
        return made.sign(self.ca, hashes.SHA256())

    def certify(self, public: Any, identity: str, issuer: str) -> x509.Certificate:
        made = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(self.root.subject).public_key(public)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now() - dt.timedelta(seconds=1))
        made = made.not_valid_after(now() + dt.timedelta(minutes=self.minutes))
        made = made.add_extension(usage(digital_signature=True), True)
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca.public_key())
        made = made.add_extension(authority, False)
        made = made.add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)]), True)
        said = issuer.encode()
        for name, value in ((ISSUED, said), (ISSUED_V2, b"\x0c" + bytes([len(said)]) + said)):
            made = made.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(name), value), False)
        sct = self._promised(made.sign(self.ca, hashes.SHA256()).tbs_certificate_bytes)
        listed = x509.UnrecognizedExtension(x509.ObjectIdentifier(SCT_LIST), sct)
        return made.add_extension(listed, False).sign(self.ca, hashes.SHA256())

    def _promised(self, certificate: bytes) -> bytes:
        """An SCT list (RFC 6962, section 3.3) in a DER octet string."""
        at = int(now().timestamp() * 1000)
        signed = struct.pack("!BBQH", 0, 0, at, 1) + hashlib.sha256(_public(self.ca)).digest()
        signed += len(certificate).to_bytes(3, "big") + certificate + b"\0\0"
        signature = self.ct.sign(signed, SIGNS)
        sct = b"\0" + key_id(self.ct) + struct.pack("!QH", at, 0) + b"\x04\x03"
        sct += struct.pack("!H", len(signature)) + signature
        inner = struct.pack("!H", len(sct)) + sct
        whole = struct.pack("!H", len(inner)) + inner
        length = bytes([len(whole)]) if len(whole) < 128 else b"\x81" + bytes([len(whole)])
        return b"\x04" + length + whole

    def signing_cert(self, authorization: str, body: Json) -> Json:
        claims = self._claims(authorization)
        request = x509.load_pem_x509_csr(base64.b64decode(body["certificateSigningRequest"]))
        assert request.is_signature_valid
        leaf = self.certify(request.public_key(), claims["sub"], claims["iss"])
        chain = [one.public_bytes(Encoding.PEM).decode() for one in (leaf, self.root)]
        return {"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}}

    # Rekor

    def enter(self, given: Json) -> Json:
        proposed = given["spec"]["proposedContent"]
        envelope = proposed["envelope"]
        payload = base64.b64decode(json.loads(envelope)["payload"])
        signatures = [
            {"signature": one["sig"], "verifier": proposed["verifiers"][0]}
            for one in json.loads(envelope)["signatures"]
        ]
        spec = {
            "envelopeHash": {"algorithm": "sha256", "value": hashlib.sha256(envelope.encode()).hexdigest()},
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(payload).hexdigest()},
            "signatures": signatures,
        }
        body = rfc8785.dumps({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec})
        with self._lock:
            self.bodies.append(body)
            entry = self._entry(len(self.bodies) - 1)
        return {hashlib.sha256(body).hexdigest(): self.twist(entry)}

    def _entry(self, index: int) -> Json:
        grown = tree.grow(0, (), [tree.leaf_hash(one) for one in self.bodies])
        size, root = grown.size, grown.root
        proof = tree.inclusion_proof(lambda wanted: {one: grown.nodes[one] for one in wanted}, index, size)
        note = f"log.example.test - 1\n{size}\n{text(root)}\n"
        signed = text(key_id(self.log)[:4] + self.log.sign(note.encode(), SIGNS))
        promised = {"body": text(self.bodies[index]), "integratedTime": int(now().timestamp())}
        promised |= {"logID": key_id(self.log).hex(), "logIndex": index}
        return {
            **promised,
            "verification": {
                "signedEntryTimestamp": text(self.log.sign(rfc8785.dumps(promised), SIGNS)),
                "inclusionProof": {
                    "logIndex": index,
                    "treeSize": size,
                    "rootHash": root.hex(),
                    "hashes": [one.hex() for one in proof],
                    "checkpoint": f"{note}\n\u2014 log.example.test {signed}\n",
                },
            },
        }

    # what clients are given

    def trust_config(self) -> Json:
        valid = {"start": (now() - dt.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")}

        def logs(key: ec.EllipticCurvePrivateKey, host: str) -> Json:
            public = {"rawBytes": text(spki(key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": valid}
            identity = {"keyId": text(key_id(key))}
            return {"baseUrl": host, "hashAlgorithm": "SHA2_256", "publicKey": public, "logId": identity}

        def service(version: int) -> Json:
            return {"url": self.url, "majorApiVersion": version, "validFor": valid, "operator": "example.test"}

        authority = {
            "subject": {"organization": "example.test", "commonName": "authority of the tests"},
            "uri": self.url,
            "certChain": {"certificates": [{"rawBytes": text(self.root.public_bytes(Encoding.DER))}]},
            "validFor": valid,
        }
        root = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [logs(self.log, "https://log.example.test")],
            "certificateAuthorities": [authority],
            "ctlogs": [logs(self.ct, "https://ct.example.test")],
            "timestampAuthorities": [],
        }
        signing = {
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": [service(1)],
            "oidcUrls": [service(1)],
            "rekorTlogUrls": [service(1)],
            "rekorTlogConfig": {"selector": "ANY"},
            "tsaUrls": [],
            "tsaConfig": {"selector": "ANY"},
        }
        kind = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
        return {"mediaType": kind, "trustedRoot": root, "signingConfig": signing}


def _public(key: ec.EllipticCurvePrivateKey) -> bytes:
    return spki(key)


@contextmanager
def running_instance() -> Iterator[Instance]:
    made = Instance()

    class Answers(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_GET(self) -> None:
            if self.path == "/.well-known/openid-configuration":
                self._send(200, {"issuer": made.url, "jwks_uri": f"{made.url}/keys"})
            else:
                self._send(200, made.keys())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            made.asked.append(self.path)
            try:
                if self.path.startswith("/api/v2/signingCert"):
                    if made.refuse is not None:
                        return self._send(403, made.refuse)
                    answer = made.signing_cert(self.headers["authorization"], body)
                else:
                    answer = made.enter(body)
            except Exception as error:
                return self._send(400, {"message": f"{type(error).__name__}: {error}"})
            return self._send(201, answer)

        def _send(self, status: int, document: Json) -> None:
            raw = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
