//! An authenticator app, and a device with passkeys, in software.

use std::process::Command;

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ciborium::Value as Cbor;
use serde_json::{Value, json};

/// Returns the code of a secret at a time, in seconds, as another program makes it.
#[track_caller]
pub fn totp(secret: &str, seconds: i64) -> String {
    let output = Command::new("oathtool")
        .args(["--totp", "--base32", &format!("--now=@{seconds}"), secret])
        .output()
        .expect("oathtool is missing; `./run setup` installs it");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A passkey, and what is said beside it: a test alters that.
pub struct Passkey {
    pub key: EcdsaKeyPair,
    pub id: Vec<u8>,
    pub user: Vec<u8>,
    pub origin: String,
    pub party: String,
    pub counter: u32,
    pub is_verified: bool,
    pub is_present: bool,
    pub cross_origin: bool,
}

fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    bytes
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

impl Passkey {
    /// Makes one as a page of `origin` asks, and returns it with what the browser gives back.
    pub fn create(options: &Value, origin: &str) -> (Self, Value) {
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).unwrap();
        let passkey = Self {
            key,
            id: random(32),
            user: URL_SAFE_NO_PAD.decode(text(&options["user"]["id"])).unwrap(),
            origin: origin.to_owned(),
            party: text(&options["rp"]["id"]).to_owned(),
            counter: 0,
            is_verified: true,
            is_present: true,
            cross_origin: false,
        };
        let made = passkey.attest(options);
        (passkey, made)
    }

    /// What the browser gives back for a passkey that is made.
    pub fn attest(&self, options: &Value) -> Value {
        let point = self.key.public_key().as_ref();
        let number = |number: i64| Cbor::Integer(number.into());
        let cose = Cbor::Map(vec![
            (number(1), number(2)),
            (number(3), number(-7)),
            (number(-1), number(1)),
            (number(-2), Cbor::Bytes(point[1..33].to_vec())),
            (number(-3), Cbor::Bytes(point[33..].to_vec())),
        ]);
        let mut data = self.data(1 << 6);
        data.extend([0; 16]);
        data.extend(u16::try_from(self.id.len()).unwrap().to_be_bytes());
        data.extend(&self.id);
        ciborium::into_writer(&cose, &mut data).unwrap();
        let object = Cbor::Map(vec![
            (Cbor::Text("fmt".to_owned()), Cbor::Text("none".to_owned())),
            (Cbor::Text("attStmt".to_owned()), Cbor::Map(Vec::new())),
            (Cbor::Text("authData".to_owned()), Cbor::Bytes(data)),
        ]);
        let mut encoded = Vec::new();
        ciborium::into_writer(&object, &mut encoded).unwrap();
        let id = URL_SAFE_NO_PAD.encode(&self.id);
        json!({
            "id": id, "rawId": id, "type": "public-key", "clientExtensionResults": {},
            "response": {
                "clientDataJSON": URL_SAFE_NO_PAD.encode(self.client("webauthn.create", options)),
                "attestationObject": URL_SAFE_NO_PAD.encode(encoded),
                "transports": ["internal"],
            },
        })
    }

    /// What the browser gives back for a passkey that is shown.
    pub fn assert(&self, options: &Value) -> Value {
        let (client, data) = (self.client("webauthn.get", options), self.data(0));
        let signed = [&data[..], digest(&SHA256, &client).as_ref()].concat();
        let signature = self.key.sign(&SystemRandom::new(), &signed).unwrap();
        let id = URL_SAFE_NO_PAD.encode(&self.id);
        json!({
            "id": id, "rawId": id, "type": "public-key", "clientExtensionResults": {},
            "response": {
                "clientDataJSON": URL_SAFE_NO_PAD.encode(client),
                "authenticatorData": URL_SAFE_NO_PAD.encode(data),
                "signature": URL_SAFE_NO_PAD.encode(signature),
                "userHandle": URL_SAFE_NO_PAD.encode(&self.user),
            },
        })
    }

    fn client(&self, kind: &str, options: &Value) -> Vec<u8> {
        let said = json!({
            "type": kind, "challenge": options["challenge"], "origin": self.origin, "crossOrigin": self.cross_origin,
        });
        said.to_string().into_bytes()
    }

    fn data(&self, more: u8) -> Vec<u8> {
        let flags = u8::from(self.is_present) | u8::from(self.is_verified) << 2 | more;
        let mut data = digest(&SHA256, self.party.as_bytes()).as_ref().to_vec();
        data.push(flags);
        data.extend(self.counter.to_be_bytes());
        data
    }
}
