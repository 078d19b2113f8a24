"""A mail server for the tests: `smtp.py FOLDER PORT plain|starttls|tls`.

Writes its certificate to FOLDER/ca.pem, prints `port N`, then a line of JSON for each mail. A line on
standard input sets how it behaves: `accept`, `refuse` or `stall`.
"""

import asyncio
import datetime
import email
import email.policy
import ipaddress
import json
import logging
import ssl
import sys
import threading
import warnings

from aiosmtpd.smtp import SMTP, AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
folder, port, encryption = sys.argv[1], int(sys.argv[2]), sys.argv[3]
behaviour = "accept"


def certificate():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    with open(f"{folder}/ca.pem", "wb") as file:
        file.write(made.public_bytes(serialization.Encoding.PEM))
    with open(f"{folder}/key.pem", "wb") as file:
        form = serialization.PrivateFormat.PKCS8
        file.write(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


class Handler:
    async def handle_DATA(self, server, session, envelope):
        if behaviour == "refuse":
            return "550 not here"
        if behaviour == "stall":
            print("stalling", flush=True)
        while behaviour == "stall":
            await asyncio.sleep(0.05)
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        text = message.get_body(("plain",)).get_content()
        mail = {
            "from": str(message["From"]),
            "to": envelope.rcpt_tos,
            "subject": str(message["Subject"]),
            "auto_submitted": str(message["Auto-Submitted"]),
            "text": text,
            "tls": server.transport.get_extra_info("ssl_object") is not None,
            "user": session.auth_data.login.decode() if session.authenticated else None,
        }
        print(json.dumps(mail), flush=True)
        return "250 taken"


def authenticate(server, session, envelope, mechanism, data):
    right = data.login == b"authgate" and data.password == b"a password for the mail server"
    return AuthResult(success=right, handled=False, auth_data=data)


async def serve():
    options, listening = {}, {}
    if encryption != "plain":
        certificate()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(f"{folder}/ca.pem", f"{folder}/key.pem")
        starttls = encryption == "starttls"
        options = {"authenticator": authenticate, "auth_required": True, "auth_require_tls": starttls}
        if starttls:
            options |= {"tls_context": context, "require_starttls": True}
        else:
            listening = {"ssl": context}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(Handler(), loop=loop, **options), host="127.0.0.1", port=port, reuse_address=True, **listening
    )
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


def obey():
    global behaviour
    for line in sys.stdin:
        behaviour = line.strip()
        print("now", behaviour, flush=True)


threading.Thread(target=obey, daemon=True).start()
asyncio.run(serve())
