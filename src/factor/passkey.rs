//! Passkeys: the relying party's side of Web Authentication (W3C, level 3).
//!
//! Attestation is `none` (section 8.7): the maker of an authenticator is not verified.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ciborium::Value as Cbor;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use super::cose::{ALGORITHMS, PublicKey};
use crate::types::hash::sha256;

/// The time that a browser gives its user, in milliseconds.
const TIMEOUT: u32 = 300_000;

/// The longest id of a credential (section 7.1).
const LONGEST_ID: usize = 1_023;

/// Bits of the authenticator's data (section 6.1).
const USER_PRESENT: u8 = 1;
const USER_VERIFIED: u8 = 1 << 2;
const MAY_BE_BACKED_UP: u8 = 1 << 3;
const IS_BACKED_UP: u8 = 1 << 4;
const HAS_CREDENTIAL: u8 = 1 << 6;
const HAS_EXTENSIONS: u8 = 1 << 7;

/// The reason why a passkey is rejected. The text is for the log.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum PasskeyError {
    /// The response is malformed.
    #[error("the credential is malformed: {0}")]
    Malformed(&'static str),
    /// The challenge is another.
    #[error("the challenge is another")]
    Challenge,
    /// The origin is another.
    #[error("the origin is another")]
    Origin,
    /// The relying party is another.
    #[error("the relying party is another")]
    RelyingParty,
    /// The user was not present.
    #[error("the user was not present")]
    NotPresent,
    /// The user was not verified.
    #[error("the user was not verified")]
    NotVerified,
    /// The algorithm was not offered.
    #[error("the algorithm of the key was not offered")]
    Algorithm,
    /// The signature is wrong.
    #[error("the signature is wrong")]
    Signature,
}

use PasskeyError::Malformed;

/// The relying party: a host and its one origin (section 4).
#[derive(Debug, Clone)]
pub struct RelyingParty {
    /// The host.
    pub id: String,
    /// The origin.
    pub origin: String,
    /// The name that browsers display.
    pub name: String,
}

/// A registration response (`RegistrationResponseJSON`, section 5.1).
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "RegistrationResponse")]
pub struct Attestation {
    /// The id of the credential, in base64url.
    pub id: String,
    /// `public-key`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The authenticator's response.
    pub response: AttestationResponse,
}

/// The authenticator's response to a registration.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttestationResponse {
    /// The client data, in base64url.
    #[serde(rename = "clientDataJSON")]
    pub client_data: String,
    /// The attestation object, in base64url.
    pub attestation_object: String,
}

/// An authentication response (`AuthenticationResponseJSON`, section 5.1).
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "AuthenticationResponse")]
pub struct Assertion {
    /// The id of the credential, in base64url.
    pub id: String,
    /// `public-key`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The authenticator's response.
    pub response: AssertionResponse,
}

/// The authenticator's response to an authentication.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssertionResponse {
    /// The client data, in base64url.
    #[serde(rename = "clientDataJSON")]
    pub client_data: String,
    /// The authenticator data, in base64url.
    pub authenticator_data: String,
    /// The signature of both, in base64url.
    pub signature: String,
    /// The user handle, in base64url.
    #[serde(default)]
    pub user_handle: Option<String>,
}

/// A registered passkey.
#[derive(Debug, PartialEq, Eq)]
pub struct Registered {
    /// The id of its credential.
    pub credential: Vec<u8>,
    /// Its public key in COSE form.
    pub public_key: Vec<u8>,
    /// Its signature counter.
    pub counter: u32,
    /// Whether its device verified the user.
    pub is_verified: bool,
}

/// The result of an authentication.
#[derive(Debug, PartialEq, Eq)]
pub struct Asserted {
    /// Its signature counter.
    pub counter: u32,
    /// Whether its device verified the user.
    pub is_verified: bool,
}

/// The client data (section 5.8.1).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientData {
    #[serde(rename = "type")]
    kind: String,
    challenge: String,
    origin: String,
    #[serde(default)]
    cross_origin: bool,
    /// The origin of an embedding page.
    #[serde(default)]
    top_origin: Option<String>,
}

/// The authenticator data (section 6.1).
struct DeviceData<'a> {
    flags: u8,
    counter: u32,
    /// The id of the credential, and its encoded key.
    credential: Option<(&'a [u8], &'a [u8])>,
}

fn decode(text: &str, what: &'static str) -> Result<Vec<u8>, PasskeyError> {
    // Some browsers' libraries pad it.
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| Malformed(what))
}

impl Assertion {
    /// Returns the id of the credential.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn credential(&self) -> Result<Vec<u8>, PasskeyError> {
        decode(&self.id, "id").and_then(checked_id)
    }

    /// Returns the user handle.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn user_handle(&self) -> Result<Option<Vec<u8>>, PasskeyError> {
        let given = self.response.user_handle.as_deref().filter(|handle| !handle.is_empty());
        given.map(|handle| decode(handle, "userHandle")).transpose()
    }
}

fn checked_id(id: Vec<u8>) -> Result<Vec<u8>, PasskeyError> {
    if id.is_empty() || id.len() > LONGEST_ID { Err(Malformed("id")) } else { Ok(id) }
}

impl RelyingParty {
    /// Returns the options to create a passkey (`PublicKeyCredentialCreationOptionsJSON`). `user` is the id of the account, `known`
    /// the credentials that it has.
    pub fn creation_options(&self, challenge: &[u8], user: &[u8], name: &str, known: &[Vec<u8>]) -> Value {
        let algorithms = ALGORITHMS.map(|algorithm| json!({"type": "public-key", "alg": algorithm}));
        json!({
            "rp": {"id": self.id, "name": self.name},
            "user": {"id": URL_SAFE_NO_PAD.encode(user), "name": name, "displayName": name},
            "challenge": URL_SAFE_NO_PAD.encode(challenge),
            "pubKeyCredParams": algorithms,
            "timeout": TIMEOUT,
            "excludeCredentials": descriptors(known),
            "authenticatorSelection": {"residentKey": "preferred", "userVerification": "preferred"},
            "attestation": "none",
        })
    }

    /// Returns the options to authenticate (`PublicKeyCredentialRequestOptionsJSON`) by one of `known`, or by any passkey that verifies its
    /// user.
    pub fn request_options(&self, challenge: &[u8], known: Option<&[Vec<u8>]>) -> Value {
        json!({
            "rpId": self.id,
            "challenge": URL_SAFE_NO_PAD.encode(challenge),
            "timeout": TIMEOUT,
            "allowCredentials": descriptors(known.unwrap_or_default()),
            "userVerification": if known.is_some() { "preferred" } else { "required" },
        })
    }

    /// Verifies a registration (section 7.1).
    ///
    /// # Errors
    /// [`PasskeyError`].
    pub fn register(&self, challenge: &[u8], made: &Attestation) -> Result<Registered, PasskeyError> {
        self.check_client(challenge, &made.response.client_data, "webauthn.create", &made.kind)?;
        let object = decode(&made.response.attestation_object, "attestationObject")?;
        let object: Cbor = ciborium::from_reader(&object[..]).map_err(|_| Malformed("attestationObject"))?;
        let entries = object.as_map().ok_or(Malformed("attestationObject"))?;
        let data = entries.iter().find(|(key, _)| key.as_text() == Some("authData"));
        let data = data.and_then(|(_, value)| value.as_bytes()).ok_or(Malformed("authData"))?;
        let data = self.device_data(data)?;
        let (credential, key) = data.credential.ok_or(Malformed("authData without a credential"))?;
        PublicKey::decode(key).ok_or(PasskeyError::Algorithm)?;
        let credential = checked_id(credential.to_vec())?;
        if decode(&made.id, "id")? != credential {
            return Err(Malformed("id"));
        }
        Ok(Registered {
            credential,
            public_key: key.to_vec(),
            counter: data.counter,
            is_verified: data.flags & USER_VERIFIED != 0,
        })
    }

    /// Verifies an authentication (section 7.2).
    ///
    /// # Errors
    /// [`PasskeyError`].
    pub fn authenticate(
        &self,
        challenge: &[u8],
        public_key: &[u8],
        shown: &Assertion,
    ) -> Result<Asserted, PasskeyError> {
        let client =
            self.check_client(challenge, &shown.response.client_data, "webauthn.get", &shown.kind)?;
        let raw = decode(&shown.response.authenticator_data, "authenticatorData")?;
        let signature = decode(&shown.response.signature, "signature")?;
        let data = self.device_data(&raw)?;
        let signed = [&raw[..], &sha256(&client)].concat();
        let key = PublicKey::decode(public_key).ok_or(PasskeyError::Algorithm)?;
        if !key.has_signed(&signed, &signature) {
            return Err(PasskeyError::Signature);
        }
        Ok(Asserted { counter: data.counter, is_verified: data.flags & USER_VERIFIED != 0 })
    }

    /// Verifies the client data, and returns it decoded.
    fn check_client(
        &self,
        challenge: &[u8],
        client: &str,
        expected: &str,
        kind: &str,
    ) -> Result<Vec<u8>, PasskeyError> {
        let client = decode(client, "clientDataJSON")?;
        let said: ClientData = serde_json::from_slice(&client).map_err(|_| Malformed("clientDataJSON"))?;
        if kind != "public-key" || said.kind != expected {
            return Err(Malformed("type"));
        }
        if decode(&said.challenge, "challenge")? != challenge {
            return Err(PasskeyError::Challenge);
        }
        if said.origin != self.origin || said.cross_origin || said.top_origin.is_some() {
            return Err(PasskeyError::Origin);
        }
        Ok(client)
    }

    fn device_data<'a>(&self, data: &'a [u8]) -> Result<DeviceData<'a>, PasskeyError> {
        let short = || Malformed("authenticatorData");
        let (party, rest) = data.split_at_checked(32).ok_or_else(short)?;
        let (&[flags, a, b, c, d], mut rest) = rest.split_first_chunk::<5>().ok_or_else(short)?;
        if party != sha256(self.id.as_bytes()) {
            return Err(PasskeyError::RelyingParty);
        }
        if flags & USER_PRESENT == 0 {
            return Err(PasskeyError::NotPresent);
        }
        if flags & IS_BACKED_UP != 0 && flags & MAY_BE_BACKED_UP == 0 {
            return Err(short());
        }
        let mut credential = None;
        if flags & HAS_CREDENTIAL != 0 {
            // The AAGUID, the model of the authenticator.
            let (_, after) = rest.split_at_checked(16).ok_or_else(short)?;
            let (&[high, low], after) = after.split_first_chunk::<2>().ok_or_else(short)?;
            let length = usize::from(u16::from_be_bytes([high, low]));
            let (id, after) = after.split_at_checked(length).ok_or_else(short)?;
            rest = skip_cbor(after).ok_or_else(short)?;
            let (key, _) = after.split_at(after.len() - rest.len());
            credential = Some((id, key));
        }
        if flags & HAS_EXTENSIONS != 0 {
            rest = skip_cbor(rest).ok_or_else(short)?;
        }
        if !rest.is_empty() {
            return Err(short());
        }
        Ok(DeviceData { flags, counter: u32::from_be_bytes([a, b, c, d]), credential })
    }
}

/// Returns what is behind one value.
fn skip_cbor(mut bytes: &[u8]) -> Option<&[u8]> {
    ciborium::from_reader::<Cbor, _>(&mut bytes).ok()?;
    Some(bytes)
}

fn descriptors(credentials: &[Vec<u8>]) -> Vec<Value> {
    let described = |id: &Vec<u8>| json!({"type": "public-key", "id": URL_SAFE_NO_PAD.encode(id)});
    credentials.iter().map(described).collect()
}
