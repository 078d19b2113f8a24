//! Which headers go on to an upstream, and which come back.
//!
//! The order is: strip what could be read as an identity or as a trusted proxy's word, strip what
//! belongs to this hop and what `Connection` nominates, then put in the gateway's own. So nothing
//! that a client nominates can take away what the gateway says.

use std::collections::HashSet;

use bytes::Bytes;
use foldhash::fast::RandomState;
use http::{HeaderName, HeaderValue, Version, header};

use super::{
    client::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, Forwarded},
    own_cookies,
    tunnel::{UPGRADE, WEBSOCKET},
};
use crate::{
    config::{IdentityHeaders, StripRule},
    token::Principal,
    types::{
        fields::Fields,
        hop_by_hop::{HOP_BY_HOP, is_hop_by_hop, nominated},
    },
};

pub(super) static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static CLIENT_SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");

const API_KEY: &str = "x-api-key";

/// The bytes of a name that are compared. No rule is longer.
const MAX_FOLDED: usize = 64;

/// Headers that the gateway handles itself.
const DEALT_WITH: &[&str] = &["expect", "http2-settings"];

/// What only a proxy in front of this gateway could know, and who says it: as names, or as beginnings of names.
const PROXY_NAMES: &[&str] = &[
    "forwarded-for",           // PHP programs
    "x-forwarded",             // PHP programs
    "proxy-client-ip",         // Java programs behind Apache
    "wl-proxy-client-ip",      // WebLogic
    "x-scheme",                // nginx, Flask
    "x-script-name",           // WSGI programs
    "x-client-cert",           // nginx, HAProxy
    "x-arr-clientcert",        // Azure App Service
    "x-middleware-subrequest", // Next.js
    "x-sendfile-type",         // Rack, nginx
    "forwarded",               // RFC 7239
    "via",                     // RFC 9110, section 7.6.3; said anew
    "x-real-ip",               // nginx
    "client-ip",               // PHP programs; Apache mod_remoteip
    "x-client-ip",             // Azure, Heroku
    "x-cluster-client-ip",     // Rackspace, Zeus
    "true-client-ip",          // Akamai, Cloudflare
    "cf-connecting-ip",        // Cloudflare
    "cf-connecting-ipv6",      // Cloudflare
    "fastly-client-ip",        // Fastly
    "fly-client-ip",           // Fly.io
    "x-appengine-user-ip",     // App Engine
    "x-rewrite-url",           // IIS
    "x-request-id",            // made here
    "x-url-scheme",            // WSGI and Rack programs
    "front-end-https",         // Outlook Web Access, Rack
    "proxy",                   // becomes HTTP_PROXY in CGI (httpoxy, CVE-2016-5385)
    "x-remote-user",           // programs behind Apache or nginx
    "x-authenticated-user",    // programs behind Apache
    "x-user-email",            // programs behind identity-aware proxies
    "x-ms-client-principal",   // Azure App Service
    "x-authgate-device",       // for this gateway alone
];
const PROXY_PREFIXES: &[&str] = &[
    "x-forwarded-",               // the de facto standard
    "x-original-",                // nginx, IIS, oauth2-proxy
    "ssl-client-",                // Apache mod_ssl by mod_headers
    "x-ssl-client-",              // nginx, HAProxy
    "x-client-cert-",             // this gateway, Traefik
    "x-envoy-",                   // Envoy
    "x-amzn-oidc-",               // AWS Application Load Balancer
    "x-goog-authenticated-user-", // Google Identity-Aware Proxy
    "cf-access-",                 // Cloudflare Access
    "x-authentik-",               // authentik
    "x-consumer-",                // Kong
    "x-accel-",                   // nginx
    "x-goog-iap-",                // Google Identity-Aware Proxy
    "x-ms-client-principal-",     // Azure App Service
];

/// Framing headers are written according to the body. With another spelling the client's would pass.
const CONTENT_LENGTH: &[u8] = b"content-length";

/// What makes some frameworks take a request for one of another method.
pub(super) const METHOD_OVERRIDES: &[&str] =
    &["x-http-method-override", "x-http-method", "x-method-override"];

/// Returns whether a header names another method, in whatever spelling.
pub(super) fn is_method_override(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let is_it = |known: &&str| {
        let mut bytes = name.iter().zip(known.bytes());
        name.len() == known.len() && bytes.all(|(byte, known)| IdentityHeaders::fold_byte(*byte) == known)
    };
    METHOD_OVERRIDES.iter().any(is_it)
}

/// The rules for headers on their way to upstreams.
pub(super) struct Headers {
    identity: IdentityHeaders,
    stripped: HashSet<Box<[u8]>, RandomState>,
    overrides: HashSet<Box<[u8]>, RandomState>,
    prefixes: Vec<Box<[u8]>>,
    /// For each first byte the lengths of all of these, one a bit, so that most names are let through by one look.
    lengths: [u64; 256],
}

/// The headers that a request gets from the gateway.
pub(super) struct Injected<'a> {
    pub(super) principal: Option<&'a Principal>,
    pub(super) forwarded: &'a Forwarded,
    pub(super) request_id: &'a HeaderValue,
    /// `X-Client-Cert-Subject`.
    pub(super) client_subject: Option<&'a HeaderValue>,
    /// `X-Forwarded-Host` where no trusted proxy said one.
    pub(super) host: Option<&'a HeaderValue>,
    /// Whether a WebSocket is asked for.
    pub(super) upgrade: bool,
    /// `Via`, this gateway last.
    pub(super) via: &'a HeaderValue,
    /// `Max-Forwards`, counted down.
    pub(super) max_forwards: Option<&'a HeaderValue>,
}

/// What this gateway calls itself in `Via`.
const VIA_HTTP_11: HeaderValue = HeaderValue::from_static("1.1 authgate");

/// `Via` with this gateway at its end (RFC 9110, section 7.6.3); a request of the version `received`.
pub(super) fn via(fields: &Fields, received: Version) -> HeaderValue {
    let mut before = fields.get_all(&header::VIA).peekable();
    if before.peek().is_none() && received == Version::HTTP_11 {
        return VIA_HTTP_11;
    }
    let mut chain = Vec::new();
    for value in before {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(match received {
        Version::HTTP_2 => b"2.0 authgate",
        Version::HTTP_10 => b"1.0 authgate",
        _ => b"1.1 authgate",
    });
    HeaderValue::from_maybe_shared(Bytes::from(chain)).unwrap_or(VIA_HTTP_11)
}

/// The most headers that the gateway adds.
const MAX_ADDED: usize = 13;

/// Returns the bit of a length; the last one is that of all that are longer.
fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

impl Headers {
    /// Creates the rules. With `has_key_header`, `X-Api-Key` is a credential.
    pub(super) fn new(identity: IdentityHeaders, has_key_header: bool) -> Self {
        let mut stripped: HashSet<Box<[u8]>, _> = IdentityHeaders::RESERVED
            .iter()
            .chain(HOP_BY_HOP)
            .chain(DEALT_WITH)
            .chain(PROXY_NAMES)
            .chain(has_key_header.then_some(&API_KEY))
            .copied()
            .chain(identity.names().map(HeaderName::as_str))
            .map(|name| name.as_bytes().into())
            .collect();
        let mut prefixes: Vec<Box<[u8]>> =
            PROXY_PREFIXES.iter().map(|prefix| prefix.as_bytes().into()).collect();
        for rule in &identity.strip {
            match rule {
                StripRule::Name(name) => drop(stripped.insert(name.as_bytes().into())),
                StripRule::Prefix(prefix) => prefixes.push(prefix.as_bytes().into()),
            }
        }
        let overrides: HashSet<Box<[u8]>, _> =
            METHOD_OVERRIDES.iter().map(|name| name.as_bytes().into()).collect();
        let mut lengths = [0; 256];
        let whole = stripped.iter().chain(&overrides).map(AsRef::as_ref).chain([CONTENT_LENGTH]);
        for name in whole {
            lengths[usize::from(name[0])] |= length_bit(name.len());
        }
        for prefix in &prefixes {
            // Whatever is as long or longer may begin with it.
            lengths[usize::from(prefix[0])] |= !(length_bit(prefix.len()) - 1);
        }
        Self { identity, stripped, overrides, prefixes, lengths }
    }

    /// Whether no client may send this header on, in this or any spelling that a backend could
    /// take for it: CGI, WSGI and PHP fold `-`, `_` and `.` into one.
    pub(super) fn is_stripped(&self, name: &HeaderName, keep_overrides: bool) -> bool {
        let name = name.as_str().as_bytes();
        if self.lengths[usize::from(name[0])] & length_bit(name.len()) == 0 {
            return false;
        }
        let mut folded = [0; MAX_FOLDED];
        for (to, from) in folded.iter_mut().zip(name) {
            *to = IdentityHeaders::fold_byte(*from);
        }
        let folded = &folded[..name.len().min(MAX_FOLDED)];
        if self.prefixes.iter().any(|prefix| folded.starts_with(prefix)) {
            return true;
        }
        if name.len() > MAX_FOLDED {
            return false;
        }
        self.stripped.contains(folded)
            // With another spelling the override would escape the decision about the method.
            || (self.overrides.contains(folded) && !(keep_overrides && name == folded))
            || (folded == CONTENT_LENGTH && name != CONTENT_LENGTH)
    }

    /// Takes out of a client's fields whatever an upstream could believe, and what belongs to the
    /// client's connection.
    pub(super) fn strip(&self, fields: &mut Fields, keep_token: bool, keep_overrides: bool) {
        let has_connection = fields.contains(&header::CONNECTION);
        let nominated = if has_connection { nominated(fields) } else { Vec::new() };
        let mut has_cookies = false;
        fields.retain(|name| {
            has_cookies |= *name == header::COOKIE;
            !self.is_stripped(name, keep_overrides) && (keep_token || *name != header::AUTHORIZATION)
        });
        fields.remove_all(&nominated);
        if has_cookies {
            own_cookies::strip(fields);
        }
    }

    /// The headers that tell who is calling, with what they say of a caller. Nothing is said of one that there is not.
    pub(super) fn identity<'a>(
        &'a self,
        principal: Option<&'a Principal>,
    ) -> impl Iterator<Item = (&'a HeaderName, Option<&'a HeaderValue>)> {
        let IdentityHeaders { id, name, roles, external_id, claims, .. } = &self.identity;
        let usual = [
            (id, principal.map(|principal| &principal.id_value)),
            (name, principal.map(|principal| &principal.name_value)),
            (roles, principal.map(|principal| &principal.roles_value)),
        ];
        let external = external_id.as_ref();
        let external =
            external.map(|name| (name, principal.and_then(|principal| principal.external_id_value.as_ref())));
        let values = principal.map_or(&[][..], |principal| &principal.claim_values);
        let claims = claims.iter().enumerate();
        let claims = claims.map(|(index, name)| (name, values.get(index).and_then(Option::as_ref)));
        usual.into_iter().chain(external).chain(claims)
    }

    /// The headers that the gateway adds. A client's own of these names were stripped, so each stands
    /// exactly once.
    pub(super) fn added<'a>(&'a self, injected: &Injected<'a>) -> Added<'a> {
        let mut added = Few { lines: [(&REQUEST_ID, injected.request_id); MAX_ADDED], count: 1 };
        added.push(&FORWARDED_FOR, &injected.forwarded.chain);
        added.push(&FORWARDED_PROTO, &injected.forwarded.proto);
        added.push(&header::VIA, injected.via);
        if let Some(hops) = injected.max_forwards {
            added.push(&header::MAX_FORWARDS, hops);
        }
        if let Some(host) = injected.forwarded.host.as_ref().or(injected.host) {
            added.push(&FORWARDED_HOST, host);
        }
        if let Some(subject) = injected.client_subject {
            added.push(&CLIENT_SUBJECT, subject);
        }
        if injected.upgrade {
            added.push(&header::CONNECTION, &UPGRADE);
            added.push(&header::UPGRADE, &WEBSOCKET);
        }
        if let Some(principal) = injected.principal {
            added.push(&self.identity.id, &principal.id_value);
            added.push(&self.identity.name, &principal.name_value);
            added.push(&self.identity.roles, &principal.roles_value);
            if let (Some(name), Some(id)) = (&self.identity.external_id, &principal.external_id_value) {
                added.push(name, id);
            }
            if !principal.claim_values.is_empty() {
                let told = self.identity.claims.iter().zip(&principal.claim_values);
                let claims = told.filter_map(|(name, value)| Some((name, value.as_ref()?)));
                return Added::WithClaims(added.lines().iter().copied().chain(claims).collect());
            }
        }
        Added::Few(added)
    }
}

type Line<'a> = (&'a HeaderName, &'a HeaderValue);

/// The headers that the gateway adds.
pub(super) enum Added<'a> {
    /// A few, without an allocation.
    Few(Few<'a>),
    /// With those of claims.
    WithClaims(Vec<Line<'a>>),
}

impl<'a> Added<'a> {
    pub(super) fn lines(&self) -> &[Line<'a>] {
        match self {
            Self::Few(few) => few.lines(),
            Self::WithClaims(lines) => lines,
        }
    }
}

/// The headers that every request may get.
pub(super) struct Few<'a> {
    lines: [Line<'a>; MAX_ADDED],
    count: usize,
}

impl<'a> Few<'a> {
    fn push(&mut self, name: &'a HeaderName, value: &'a HeaderValue) {
        self.lines[self.count] = (name, value);
        self.count += 1;
    }

    fn lines(&self) -> &[Line<'a>] {
        &self.lines[..self.count]
    }
}

/// Takes out of an upstream's response what belongs to the connection that it came on.
pub(super) fn clean_response(fields: &mut Fields) {
    let nominated = if fields.contains(&header::CONNECTION) { nominated(fields) } else { Vec::new() };
    let mut sets_cookies = false;
    fields.retain(|name| {
        sets_cookies |= *name == header::SET_COOKIE;
        !is_hop_by_hop(name.as_str())
    });
    fields.remove_all(&nominated);
    if sets_cookies {
        own_cookies::unset(fields);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(lines: &[(&'static str, &'static str)], trusted_peer: bool) -> Vec<String> {
        let mut headers = Fields::default();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static(value));
        }
        let identity = IdentityHeaders {
            id: HeaderName::from_static("x-user-id"),
            name: HeaderName::from_static("x-caller"),
            roles: HeaderName::from_static("x-user-roles"),
            external_id: None,
            claims: vec![HeaderName::from_static("x-team")],
            strip: vec![StripRule::Name("x-mine".to_owned()), StripRule::Prefix("x-corp-".to_owned())],
        };
        Headers::new(identity, false).strip(&mut headers, false, trusted_peer);
        let mut names: Vec<_> = headers.iter().map(|(name, _)| name.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn whatever_could_be_read_as_an_identity_is_gone() {
        let spoofed = [
            ("X-User-Id", "1"),
            ("X_User_Id", "1"),
            ("x.user.id", "1"),
            ("X-User_Name", "1"),
            ("X-Caller", "1"),
            ("x_caller", "1"),
            ("Remote_User", "1"),
            ("X-WEBAUTH-USER", "1"),
            ("X-Auth-Request-Groups", "1"),
            ("X-Forwarded-User", "1"),
            ("X_Forwarded_For", "1"),
            ("X-Original-URL", "1"),
            ("X-Rewrite-Url", "1"),
            ("Forwarded", "1"),
            ("True-Client-Ip", "1"),
            ("X-HTTP-Method-Override", "DELETE"),
            ("Authorization", "Bearer x"),
            ("Accept", "*/*"),
            ("X-Users", "1"),
            ("Content_Length", "5"),
            ("Content.Length", "5"),
            ("Transfer_Encoding", "chunked"),
            ("Keep_Alive", "1"),
            ("Proxy", "http://evil"),
            ("Client-IP", "1.1.1.1"),
            ("Fastly-Client-IP", "1.1.1.1"),
            ("X-Remote-User", "root"),
            ("X-Authenticated-User", "root"),
            ("X-User-Email", "root@example.com"),
            ("X-Url-Scheme", "https"),
            ("Front-End-Https", "on"),
            ("SSL-Client-Verify", "SUCCESS"),
            ("X-SSL-Client-DN", "CN=root"),
            ("X_Envoy_Original_Path", "/x"),
            ("Via", "1.1 other"),
            ("X-Mine", "1"),
            ("x_team", "1"),
            ("x_corp_user", "1"),
            ("X-Forwarded-A-Name-Of-More-Than-Sixty-Four-Bytes-Is-Stripped-By-The-Same-Rules", "1"),
            ("Content-Length", "0"),
        ];
        assert_eq!(prepared(&spoofed, false), ["accept", "content-length", "x-users"]);
    }

    #[test]
    fn connection_takes_away_what_it_nominates_and_itself() {
        let lines = [
            ("Connection", "close, X-Other, host, X-Forwarded-For"),
            ("X-Other", "1"),
            ("Host", "a"),
            ("TE", "trailers"),
            ("Upgrade", "h2c"),
            ("Keep-Alive", "5"),
        ];
        assert_eq!(prepared(&lines, false), ["host"]);
    }

    #[test]
    fn the_method_is_overridden_where_a_route_asks_for_it() {
        assert_eq!(prepared(&[("X-HTTP-Method-Override", "PUT")], true), ["x-http-method-override"]);
    }
}
