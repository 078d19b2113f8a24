//! Another issuer: its keys, the documents that it serves, and the tokens that it signs.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::{Seen, Upstream, ok};

/// A key pair of an issuer.
#[derive(Clone)]
pub struct IssuerKey {
    pub kid: String,
    pub jwk: Value,
    algorithm: Algorithm,
    key: EncodingKey,
    /// The key pair (PKCS #8).
    document: Vec<u8>,
}

impl IssuerKey {
    pub fn ed25519(kid: &str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64.encode(pair.public_key()), "kid": kid, "use": "sig"});
        let key = EncodingKey::from_ed_der(document.as_ref());
        Self {
            kid: kid.to_owned(),
            jwk,
            algorithm: Algorithm::EdDSA,
            key,
            document: document.as_ref().to_vec(),
        }
    }

    pub fn p256(kid: &str) -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document =
            EcdsaKeyPair::generate_pkcs8(algorithm, &aws_lc_rs::rand::SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref()).unwrap();
        let point = pair.public_key().as_ref()[1..].to_vec();
        let (x, y) = point.split_at(32);
        let jwk =
            json!({"kty": "EC", "crv": "P-256", "x": BASE64.encode(x), "y": BASE64.encode(y), "kid": kid});
        let key = EncodingKey::from_ec_der(document.as_ref());
        Self {
            kid: kid.to_owned(),
            jwk,
            algorithm: Algorithm::ES256,
            key,
            document: document.as_ref().to_vec(),
        }
    }

    /// The key pair in PEM.
    pub fn pem(&self) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(&self.document);
        format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
    }

    /// Signs claims under a header.
    pub fn sign(&self, header: &Value, claims: &str) -> String {
        let message = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }

    /// The header of an access token by this key.
    pub fn header(&self) -> Value {
        json!({"alg": format!("{:?}", self.algorithm), "typ": "at+jwt", "kid": self.kid})
    }
}

struct State {
    keys: Vec<IssuerKey>,
    /// The response to a question about a token.
    said: Value,
    issuer: Option<String>,
}

/// An issuer that serves its OpenID configuration at `/`, its keys at `/jwks`, and its word on tokens at `/introspect`.
pub struct Issuer {
    pub server: Upstream,
    state: Arc<Mutex<State>>,
    is_away: Arc<AtomicBool>,
    fetches: Arc<AtomicUsize>,
    pub url: String,
}

impl Issuer {
    pub fn start(keys: &[&IssuerKey]) -> Self {
        let keys = keys.iter().map(|key| (*key).clone()).collect();
        let state = Arc::new(Mutex::new(State { keys, said: json!({"active": false}), issuer: None }));
        let (is_away, fetches) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (served, away, counted) = (state.clone(), is_away.clone(), fetches.clone());
        let server = Upstream::answering(move |seen: &Seen| {
            if away.load(SeqCst) {
                return b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec();
            }
            let state = served.lock().unwrap();
            let host = seen.header("host").unwrap_or_default();
            let url = format!("http://{host}");
            let document = match seen.target.as_str() {
                "/.well-known/openid-configuration" => {
                    let issuer = state.issuer.clone().unwrap_or_else(|| url.clone());
                    json!({"issuer": issuer, "jwks_uri": format!("{url}/jwks")})
                }
                "/jwks" => {
                    counted.fetch_add(1, SeqCst);
                    json!({"keys": state.keys.iter().map(|key| &key.jwk).collect::<Vec<_>>()})
                }
                "/introspect" => state.said.clone(),
                "/redirect" => {
                    let to =
                        format!("HTTP/1.1 302 Found\r\nLocation: {url}/jwks\r\nContent-Length: 0\r\n\r\n");
                    return to.into_bytes();
                }
                _ => return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
            };
            ok(&document.to_string())
        });
        let url = format!("http://{}", server.address);
        Self { server, state, is_away, fetches, url }
    }

    /// Exchanges the keys.
    pub fn serve(&self, keys: &[&IssuerKey]) {
        self.state.lock().unwrap().keys = keys.iter().map(|key| (*key).clone()).collect();
    }

    /// What it says of any token.
    pub fn say(&self, said: Value) {
        self.state.lock().unwrap().said = said;
    }

    /// What its OpenID configuration says that its name is.
    pub fn pretend(&self, issuer: &str) {
        self.state.lock().unwrap().issuer = Some(issuer.to_owned());
    }

    pub fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, SeqCst);
    }

    /// How often the keys were fetched.
    pub fn fetches(&self) -> usize {
        self.fetches.load(SeqCst)
    }

    /// The claims of a token for `orders`, which is good for ten minutes.
    pub fn claims(&self, sub: &str) -> Value {
        let now = now();
        json!({
            "iss": self.url, "aud": ["orders", "other"], "sub": sub, "exp": now + 600, "iat": now - 60,
            "preferred_username": format!("{sub} name"), "sid": format!("session of {sub}"),
            "jti": format!("token of {sub}"), "realm_access": {"roles": ["staff", "admin", "Strange Role"]},
        })
    }

    /// A token by a key.
    pub fn token(&self, key: &IssuerKey, sub: &str) -> String {
        key.sign(&key.header(), &self.claims(sub).to_string())
    }
}

/// The Unix second.
pub fn now() -> i64 {
    use authgate::clock::{Clock, SystemClock};
    SystemClock.wall() / 1_000
}
