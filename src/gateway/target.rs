//! The target of a request, for every protocol.

use std::{borrow::Cow, net::IpAddr};

use http::{HeaderValue, Method, Uri, uri::PathAndQuery};

use crate::{
    access::Place,
    error::Kind,
    route::{Match, Table},
    types::{host::name_of, path::Canonical},
};

/// The scheme that a client uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Nothing lies between the socket and HTTP.
    Http,
    /// TLS does.
    Https,
}

impl Scheme {
    /// As URIs have it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// As `X-Forwarded-Proto` has it.
    pub(super) fn as_value(self) -> HeaderValue {
        HeaderValue::from_static(self.as_str())
    }
}

/// The checked target of a request: one host, and a path that has one reading.
#[derive(Debug)]
pub(super) struct Target<'a> {
    /// The host with its port, if one was named.
    pub(super) host: Option<&'a str>,
    /// The path.
    pub(super) path: Canonical<'a>,
    /// The query, without its question mark.
    pub(super) query: Option<&'a str>,
    /// All readings of a path that has several. Then one route must take them all.
    pub(super) readings: Vec<String>,
}

impl<'a> Target<'a> {
    /// What takes a request for this target by a method.
    ///
    /// # Errors
    /// When the path has several readings, and no route that keeps what is encoded takes all of them.
    pub(super) fn find<'t>(&self, routes: &'t Table, method: &Method) -> Result<Match<'t>, Kind> {
        let host = self.host.filter(|_| routes.knows_hosts()).map(name_of);
        if self.readings.is_empty() {
            return Ok(routes.find(host.as_deref(), method, &self.path.decoded));
        }
        let found = routes.find_kept(host.as_deref(), method, &self.readings);
        found.map(Match::Route).ok_or(Kind::BadRequest)
    }

    /// Returns the place that a request from `client` goes to.
    pub(super) fn place(&self, client: Option<IpAddr>) -> Place<'_> {
        Place { path: &self.path.decoded, readings: &self.readings, client }
    }

    /// Path and query as an upstream is asked for them; nothing where that is how they came, as `came`.
    ///
    /// # Errors
    /// When a query holds what no request line can.
    pub(super) fn forwarded(&self, came: &Uri) -> Result<Option<Uri>, Kind> {
        let is_plain = self.query.is_none_or(str::is_ascii);
        if came.authority().is_none() && self.path.wire == came.path() && is_plain {
            return Ok(None);
        }
        let target = match self.query {
            Some(query) => format!("{}?{}", self.path.wire, encoded(query)),
            None => self.path.wire.to_string(),
        };
        Ok(Some(PathAndQuery::try_from(target).map_err(|_| Kind::BadRequest)?.into()))
    }

    /// The same host, path and query by https.
    ///
    /// # Errors
    /// When no host is named.
    pub(super) fn by_https(&self, port: u16) -> Result<String, Kind> {
        let host = name_of(self.host.ok_or(Kind::BadRequest)?);
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        let query = self.query.map(|query| format!("?{}", encoded(query))).unwrap_or_default();
        Ok(format!("https://{host}{port}{}{query}", self.path.wire))
    }

    /// Path and query as our builtin calls read them: the path is the decoded one.
    ///
    /// # Errors
    /// When it is none of theirs: their paths are plain.
    pub(super) fn decoded(&self) -> Result<Uri, Kind> {
        let target = match self.query {
            Some(query) => format!("{}?{query}", self.path.decoded),
            None => self.path.decoded.to_string(),
        };
        Ok(PathAndQuery::try_from(target).map_err(|_| Kind::NotFound)?.into())
    }
}

/// Returns a query as it is forwarded: characters beyond ASCII are percent-encoded (RFC 3986, section 2.5).
fn encoded(query: &str) -> Cow<'_, str> {
    if query.is_ascii() {
        return Cow::Borrowed(query);
    }
    let mut encoded = String::with_capacity(query.len() * 2);
    for byte in query.bytes() {
        if byte.is_ascii() {
            encoded.push(byte as char);
        } else {
            let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble & 15)] as char;
            encoded.extend(['%', digit(byte >> 4), digit(byte)]);
        }
    }
    Cow::Owned(encoded)
}
