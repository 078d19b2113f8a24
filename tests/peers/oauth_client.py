"""An OAuth client by Authlib: a token by client credentials, a request with it, its introspection, its end, and its introspection again.

    oauth_client.py BASE client_secret_basic ID SECRET
    oauth_client.py BASE private_key_jwt ID KEYFILE
"""

import sys

from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from joserfc.jwk import ECKey

base, method, client_id, secret = sys.argv[1:]
metadata = OAuth2Session().get(f"{base}/.well-known/oauth-authorization-server", withhold_token=True).json()
# What the metadata names is the public address; the tests are at another one.
here = {name: base + "/auth/" + metadata[name].rsplit("/", 1)[1]
        for name in ("token_endpoint", "introspection_endpoint", "revocation_endpoint")}
if method == "private_key_jwt":
    with open(secret, encoding="utf-8") as file:
        secret = ECKey.import_key(file.read())
client = OAuth2Session(client_id, secret, token_endpoint_auth_method=method, revocation_endpoint_auth_method=method)
if method == "private_key_jwt":
    client.register_client_auth_method(PrivateKeyJWT(metadata["token_endpoint"], alg="ES256", headers={"kid": "a"}))
token = client.fetch_token(here["token_endpoint"], grant_type="client_credentials")
print(client.get(f"{base}/api/x").status_code)
print(client.introspect_token(here["introspection_endpoint"], token=token["access_token"]).json()["active"])
print(client.revoke_token(here["revocation_endpoint"], token=token["access_token"]).status_code)
print(client.introspect_token(here["introspection_endpoint"], token=token["access_token"]).json()["active"])
print(client.get(f"{base}/api/x").status_code)
