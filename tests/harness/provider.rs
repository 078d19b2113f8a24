//! A provider that says whatever a test wants.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    Seen, Upstream,
    issuer::{IssuerKey, now},
    ok,
};

struct State {
    key: IssuerKey,
    /// Beside what its OpenID configuration says anyway.
    metadata: Value,
    /// The claims of the next ID token, by the code that asks for it.
    claims: BTreeMap<String, Value>,
    /// The challenge that the verifier of a code must meet.
    challenges: BTreeMap<String, String>,
    /// What is told beside a token; the same person alone where that is nothing.
    userinfo: Option<Value>,
    last: Value,
    is_away: bool,
    typ: Value,
}

/// A provider.
pub struct Provider {
    pub url: String,
    state: Arc<Mutex<State>>,
}

fn form(seen: &Seen) -> BTreeMap<String, String> {
    let body = String::from_utf8(seen.body.clone()).unwrap();
    body.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), decoded(value)))
        .collect()
}

/// Decodes a value of a query or a form.
pub fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8().unwrap().into_owned()
}

fn refused(status: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
}

impl Provider {
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State {
            key: IssuerKey::p256("a"),
            metadata: json!({}),
            claims: BTreeMap::new(),
            challenges: BTreeMap::new(),
            userinfo: None,
            last: json!("nobody"),
            is_away: false,
            typ: json!("JWT"),
        }));
        let shared = state.clone();
        let server = Upstream::answering(move |seen: &Seen| {
            let state = shared.lock().unwrap();
            if state.is_away {
                return refused("503 Away");
            }
            let url = format!("http://{}", seen.header("host").unwrap_or_default());
            match seen.target.as_str() {
                "/.well-known/openid-configuration" => {
                    let mut document = json!({
                        "issuer": url, "authorization_endpoint": format!("{url}/authorize"),
                        "token_endpoint": format!("{url}/token"), "jwks_uri": format!("{url}/jwks"),
                        "userinfo_endpoint": format!("{url}/userinfo"),
                    });
                    for (name, value) in state.metadata.as_object().unwrap() {
                        document[name] = value.clone();
                    }
                    ok(&document.to_string())
                }
                "/jwks" => ok(&json!({"keys": [state.key.jwk]}).to_string()),
                "/userinfo" => {
                    let told = state.userinfo.clone().unwrap_or_else(|| json!({"sub": state.last}));
                    ok(&told.to_string())
                }
                "/token" => {
                    let form = form(seen);
                    let code = form.get("code").cloned().unwrap_or_default();
                    let verifier = form.get("code_verifier").cloned().unwrap_or_default();
                    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
                    if state.challenges.get(&code) != Some(&challenge) {
                        return refused("400 Bad Request");
                    }
                    let mut header = state.key.header();
                    header["typ"] = state.typ.clone();
                    let token = state.key.sign(&header, &state.claims[&code].to_string());
                    ok(&json!({"access_token": "theirs", "token_type": "Bearer", "id_token": token})
                        .to_string())
                }
                _ => refused("404 Not Found"),
            }
        });
        let url = format!("http://{}", server.address);
        Self { url, state }
    }

    /// Says more in its OpenID configuration.
    pub fn declare(&self, metadata: Value) {
        self.state.lock().unwrap().metadata = metadata;
    }

    /// What it tells of the person beside the token.
    pub fn tell(&self, userinfo: Value) {
        self.state.lock().unwrap().userinfo = Some(userinfo);
    }

    pub fn set_away(&self, is_away: bool) {
        self.state.lock().unwrap().is_away = is_away;
    }

    /// Says that its tokens are of this type.
    pub fn call_tokens(&self, typ: &str) {
        self.state.lock().unwrap().typ = json!(typ);
    }

    /// Signs with another key from now on.
    pub fn rotate(&self, kid: &str) {
        self.state.lock().unwrap().key = IssuerKey::ed25519(kid);
    }

    /// Gives a code for what a browser was sent with, and says these claims for it, beside those that belong there.
    pub fn code(&self, asked: &BTreeMap<String, String>, claims: &Value) -> String {
        let mut state = self.state.lock().unwrap();
        let code = format!("code-{}", state.claims.len());
        let mut all = json!({
            "iss": self.url, "aud": asked["client_id"], "sub": "anna", "nonce": asked["nonce"],
            "iat": now(), "exp": now() + 300,
        });
        for (name, value) in claims.as_object().unwrap() {
            all[name] = value.clone();
        }
        state.last = all["sub"].clone();
        state.claims.insert(code.clone(), all);
        state.challenges.insert(code.clone(), asked["code_challenge"].clone());
        code
    }
}
