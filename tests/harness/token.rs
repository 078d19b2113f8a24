//! Tokens that a test makes itself, with the secret of an HS256 gateway.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::Value;

/// The secret of gateways whose tokens are forged.
pub const SECRET: &str = "kX9vQ2mZ7rT4wB8nL1pC6dF3hJ5gS0aE-tests";

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).expect("three parts");
    serde_json::from_slice(&BASE64.decode(part).expect("base64url")).expect("JSON")
}

pub fn header_of(token: &str) -> Value {
    part(token, 0)
}

pub fn claims_of(token: &str) -> Value {
    part(token, 1)
}

/// Signs `header.payload` with a secret.
pub fn sign(message: &str, secret: &[u8]) -> String {
    jsonwebtoken::crypto::sign(message.as_bytes(), &EncodingKey::from_secret(secret), Algorithm::HS256)
        .unwrap()
}

/// A token of any header and payload text, signed with the gateway's secret.
pub fn forge_raw(header: &str, payload: &str) -> String {
    let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(payload));
    let signature = sign(&message, SECRET.as_bytes());
    format!("{message}.{signature}")
}

/// The same from JSON.
pub fn forge(header: &Value, claims: &Value) -> String {
    forge_raw(&header.to_string(), &claims.to_string())
}
