//! The header lines of a message (RFC 9113, section 8).

use std::borrow::Cow;

use http::{HeaderValue, Method, StatusCode, header};

use super::hpack::{Line, Name, Pseudo};
use crate::types::{fields::Fields, framing::HeadLimits};

/// Headers that belong to a connection of HTTP/1.1, and to no message here (RFC 9113, section 8.2.2).
const OF_CONNECTIONS: [&str; 5] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// What is wrong with a head that tells a length twice.
pub(super) const SEVERAL_LENGTHS: &str = "several lengths";

/// What a header block says.
#[derive(Debug, Default)]
pub struct Head {
    pseudo: [Option<HeaderValue>; 6],
    /// The field lines.
    pub fields: Fields,
    /// Whether there were more lines than are taken. None is there then.
    pub is_over: bool,
    size: usize,
    /// What is wrong with it.
    fault: Option<&'static str>,
}

/// The lines of most messages.
const LINES: usize = 12;

impl Head {
    /// Creates the value of a block without lines.
    pub(super) fn new() -> Self {
        Self { fields: Fields::with_capacity(LINES), ..Self::default() }
    }

    /// Adds a line, within limits of the whole list (RFC 9113, section 6.5.2).
    pub(super) fn add(&mut self, line: Cow<'_, Line>, limits: HeadLimits) {
        self.size += line.cost;
        if self.is_over || self.size > limits.bytes || self.fields.iter().len() >= limits.count {
            // A line may take more memory than it costs its sender.
            self.is_over = true;
            self.fields = Fields::default();
            return;
        }
        let line = line.into_owned();
        match line.name {
            Name::Pseudo(name) => {
                let place = &mut self.pseudo[name as usize];
                if place.is_some() || self.fields.iter().len() > 0 {
                    self.fault = Some("a pseudo-header twice or behind others");
                }
                *place = Some(line.value);
            }
            Name::Malformed => self.fault = Some("a line with a name or a value that cannot be one"),
            Name::Field(name) => {
                if OF_CONNECTIONS.contains(&name.as_str()) {
                    self.fault = Some("a header that belongs to a connection");
                } else if name == header::TE && line.value != "trailers" {
                    self.fault = Some("a transfer coding");
                }
                self.fields.append(name, line.value);
            }
        }
    }

    fn has(&self, name: Pseudo) -> bool {
        self.pseudo[name as usize].is_some()
    }

    fn take(&mut self, name: Pseudo) -> Option<HeaderValue> {
        self.pseudo[name as usize].take()
    }

    /// Takes out the method of a request.
    pub fn method(&mut self) -> Option<HeaderValue> {
        self.take(Pseudo::Method)
    }

    /// Takes out the authority of a request.
    pub fn authority(&mut self) -> Option<HeaderValue> {
        self.take(Pseudo::Authority)
    }

    /// Takes out the path of a request, with its query.
    pub fn path(&mut self) -> Option<HeaderValue> {
        self.take(Pseudo::Path)
    }

    /// Takes out the protocol that a request asks for (RFC 8441, section 4).
    pub fn protocol(&mut self) -> Option<HeaderValue> {
        self.take(Pseudo::Protocol)
    }

    /// Returns the status of a response.
    pub(super) fn status(&self) -> Option<StatusCode> {
        StatusCode::from_bytes(self.pseudo[Pseudo::Status as usize].as_ref()?.as_bytes()).ok()
    }

    /// Returns what is wrong with it as a request (RFC 9113, section 8.3.1).
    pub(super) fn fault_of_request(&self) -> Option<&'static str> {
        if self.fault.is_some() || self.is_over {
            // What lies behind the limit is not known.
            return self.fault;
        }
        let method = self.pseudo[Pseudo::Method as usize].as_ref().map(HeaderValue::as_bytes);
        let is_connect = method == Some(b"CONNECT");
        let has_target = match self.pseudo[Pseudo::Path as usize].as_ref().map(HeaderValue::as_bytes) {
            Some([b'/', ..]) => true,
            Some(b"*") => method == Some(b"OPTIONS"),
            _ => false,
        };
        let has_target = has_target && self.has(Pseudo::Scheme);
        let is_tunnel = is_connect && !self.has(Pseudo::Protocol);
        let is_right = method.is_some_and(|method| Method::from_bytes(method).is_ok())
            && !self.has(Pseudo::Status)
            && (is_connect || !self.has(Pseudo::Protocol))
            && if is_tunnel { !self.has(Pseudo::Path) && !self.has(Pseudo::Scheme) } else { has_target };
        (!is_right).then_some("not the pseudo-headers of a request")
    }

    /// Returns what is wrong with it as a response (RFC 9113, section 8.3.2).
    pub(super) fn fault_of_response(&self) -> Option<&'static str> {
        if self.is_over {
            return Some("a head that is too large");
        }
        let others = [Pseudo::Authority, Pseudo::Method, Pseudo::Path, Pseudo::Scheme, Pseudo::Protocol];
        let is_right = self.status().is_some() && !others.iter().any(|name| self.has(*name));
        self.fault.or((!is_right).then_some("not the pseudo-headers of a response"))
    }

    /// Returns what is wrong with it as trailers (RFC 9113, section 8.1).
    pub(super) fn fault_of_trailers(&self) -> Option<&'static str> {
        if self.is_over {
            return Some("trailers that are too large");
        }
        let has_pseudo = self.pseudo.iter().any(Option::is_some);
        self.fault.or(has_pseudo.then_some("a pseudo-header among trailers"))
    }

    /// Returns the length of the body, in bytes, if it is told.
    ///
    /// # Errors
    /// When that is no number, or told twice.
    pub(super) fn length(&self) -> Result<Option<u64>, &'static str> {
        let mut values = self.fields.get_all(&header::CONTENT_LENGTH);
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(SEVERAL_LENGTHS);
        }
        let is_number = value.as_bytes().iter().all(u8::is_ascii_digit);
        let length = value.to_str().ok().filter(|_| is_number).and_then(|value| value.parse().ok());
        length.map(Some).ok_or("a length that is no number")
    }
}
