//! Passkeys: the relying party's side of Web Authentication (W3C, level 3).
//!
//! What signs is trusted for what it proves, not for who made it: attestation is `none` (section 8.7), and what comes is not looked at.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ciborium::Value as Cbor;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use super::cose::{ALGORITHMS, PublicKey};
use crate::types::hash::sha256;

/// How long a browser waits for its user, in milliseconds.
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

/// Why a passkey is not accepted. The text is for the log.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum PasskeyError {
    /// It is not in the form that browsers give.
    #[error("the credential is malformed: {0}")]
    Malformed(&'static str),
    /// It answers another question.
    #[error("the credential answers another challenge")]
    Challenge,
    /// Another site has asked for it.
    #[error("the credential was asked for by another origin")]
    Origin,
    /// It is of another relying party.
    #[error("the credential is of another relying party")]
    RelyingParty,
    /// Nobody has touched it.
    #[error("nobody was present")]
    NotPresent,
    /// Its device does not know whose hand it is in.
    #[error("the user was not verified")]
    NotVerified,
    /// It is of an algorithm that was not offered.
    #[error("the algorithm of the key was not offered")]
    Algorithm,
    /// The signature is wrong.
    #[error("the signature is wrong")]
    Signature,
}

use PasskeyError::Malformed;

/// Whom passkeys are for: a host and the one origin there (section 4).
#[derive(Debug, Clone)]
pub struct RelyingParty {
    /// The host.
    pub id: String,
    /// The origin.
    pub origin: String,
    /// What people call it.
    pub name: String,
}

/// A new passkey, as a browser gives it (`RegistrationResponseJSON`, section 5.1).
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "RegistrationResponse")]
pub struct Attestation {
    /// The id of the credential, in base64url.
    pub id: String,
    /// `public-key`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the device says.
    pub response: AttestationResponse,
}

/// What a device says of a new passkey.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttestationResponse {
    /// What the browser was asked, in base64url.
    #[serde(rename = "clientDataJSON")]
    pub client_data: String,
    /// The new key, in base64url.
    pub attestation_object: String,
}

/// A passkey that is shown, as a browser gives it (`AuthenticationResponseJSON`, section 5.1).
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "AuthenticationResponse")]
pub struct Assertion {
    /// The id of the credential, in base64url.
    pub id: String,
    /// `public-key`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the device says.
    pub response: AssertionResponse,
}

/// What a device says of a passkey that is shown.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssertionResponse {
    /// What the browser was asked, in base64url.
    #[serde(rename = "clientDataJSON")]
    pub client_data: String,
    /// What the device has seen, in base64url.
    pub authenticator_data: String,
    /// Of both, in base64url.
    pub signature: String,
    /// Whose it is, in base64url.
    #[serde(default)]
    pub user_handle: Option<String>,
}

/// A passkey that was made.
#[derive(Debug, PartialEq, Eq)]
pub struct Registered {
    /// The id of its credential.
    pub credential: Vec<u8>,
    /// Its public key, as COSE has it.
    pub public_key: Vec<u8>,
    /// What it counts so far.
    pub counter: u32,
    /// Whether its device knows whose hand it is in.
    pub is_verified: bool,
}

/// A passkey that was shown.
#[derive(Debug, PartialEq, Eq)]
pub struct Asserted {
    /// What it counts so far.
    pub counter: u32,
    /// Whether its device knows whose hand it is in.
    pub is_verified: bool,
}

/// What a browser was asked (section 5.8.1).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientData {
    #[serde(rename = "type")]
    kind: String,
    challenge: String,
    origin: String,
    #[serde(default)]
    cross_origin: bool,
    /// Of a page that has ours within it.
    #[serde(default)]
    top_origin: Option<String>,
}

/// What a device has seen (section 6.1).
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
    /// The id of the credential.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn credential(&self) -> Result<Vec<u8>, PasskeyError> {
        decode(&self.id, "id").and_then(checked_id)
    }

    /// Whose it says to be.
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
    /// What a browser is asked to make a passkey with (`PublicKeyCredentialCreationOptionsJSON`). `user` is the id of the account, `known`
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

    /// What a browser is asked to show a passkey with (`PublicKeyCredentialRequestOptionsJSON`): one of these, or any of a verified user's.
    pub fn request_options(&self, challenge: &[u8], known: Option<&[Vec<u8>]>) -> Value {
        json!({
            "rpId": self.id,
            "challenge": URL_SAFE_NO_PAD.encode(challenge),
            "timeout": TIMEOUT,
            "allowCredentials": descriptors(known.unwrap_or_default()),
            "userVerification": if known.is_some() { "preferred" } else { "required" },
        })
    }

    /// Reads a passkey that was made for a challenge (section 7.1).
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

    /// Checks a passkey that is shown for a challenge, by its public key (section 7.2).
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

    /// Returns what the browser was asked, which must be this.
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
            // The model of the device, which is not asked for.
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
