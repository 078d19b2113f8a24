"""An issuer of tokens that is not the gateway: a key of RSA, its set of keys in a file, and tokens by RS256. Needs openssl."""

import base64
import json
import pathlib
import re
import subprocess
import time

ISSUER, KEY_ID = "https://corp.example.com", "bench"


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    def __init__(self, folder):
        self.key, self.keys = pathlib.Path(folder) / "issuer.pem", pathlib.Path(folder) / "issuer.json"
        self.openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", self.key)
        told = self.openssl("rsa", "-in", self.key, "-noout", "-modulus").decode()
        modulus = bytes.fromhex(re.search(r"Modulus=([0-9A-F]+)", told)[1])
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": KEY_ID, "n": encoded(modulus), "e": "AQAB"}
        self.keys.write_text(json.dumps({"keys": [key]}))

    @staticmethod
    def openssl(*arguments, data=None):
        return subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=True).stdout

    def config(self, audience):
        """The lines of a config that takes its tokens."""
        return f"issuers: [{{name: corp, issuer: {ISSUER}, jwks_file: {self.keys}, audiences: [{audience}]}}]"

    def token(self, subject, audience):
        now = int(time.time())
        head = {"alg": "RS256", "typ": "JWT", "kid": KEY_ID}
        # As long-lived as a gateway takes unless it is told otherwise.
        claims = {"iss": ISSUER, "aud": audience, "sub": subject, "iat": now, "exp": now + 3_600}
        text = ".".join(encoded(json.dumps(part).encode()) for part in (head, claims))
        return f"{text}.{encoded(self.openssl('dgst', '-sha256', '-sign', self.key, data=text.encode()))}"
