//! Traces: `telemetry`.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};

use super::Check;
use crate::{
    config::{HttpUrl, Otlp, Telemetry, UpstreamTls, raw, units::Share},
    types::{Secret, hop_by_hop::is_hop_by_hop},
};

/// Headers that an export has of its own.
const OF_EXPORTS: [&str; 4] = ["host", "content-length", "content-type", "te"];

impl Check<'_> {
    pub(super) fn telemetry(&mut self, raw: raw::Telemetry) -> Telemetry {
        let traceparent = raw.traceparent.is_none_or(|traceparent| traceparent.0);
        if !traceparent && raw.otlp.is_some() {
            self.error(
                "telemetry.traceparent",
                "expected true beside `otlp`: a trace goes on at the upstream",
            );
        }
        Telemetry { traceparent, otlp: raw.otlp.and_then(|otlp| self.otlp(otlp)) }
    }

    fn otlp(&mut self, raw: raw::Otlp) -> Option<Otlp> {
        let service_name = raw.service_name.unwrap_or_else(|| "authgate".to_owned());
        if service_name.is_empty() || service_name.len() > 128 || service_name.contains(char::is_control) {
            self.error("telemetry.otlp.service_name", "expected 1 to 128 characters");
        }
        let endpoint = HttpUrl::parse_any(&raw.endpoint).filter(|url| !url.target.contains('?'));
        if endpoint.is_none() {
            self.error(
                "telemetry.otlp.endpoint",
                "expected an address such as http://collector:4317, without user, query or fragment",
            );
        }
        Some(Otlp {
            endpoint: endpoint?,
            protocol: raw.protocol,
            headers: self.export_headers(raw.headers),
            sample: raw.sample.map_or(0.01, |Share(share)| share),
            service_name,
            tls: UpstreamTls {
                ca: raw.ca.map(|ca| self.document.folder.join(ca)),
                beside_system: false,
                name: None,
                own: None,
                source: self.document.source("telemetry.otlp.ca"),
            },
        })
    }

    fn export_headers(&mut self, raw: BTreeMap<String, Secret>) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        for (name, value) in raw {
            let key = format!("telemetry.otlp.headers.{name}");
            match (HeaderName::try_from(&name), HeaderValue::try_from(value.expose())) {
                (Ok(name), _) if is_hop_by_hop(name.as_str()) || OF_EXPORTS.contains(&name.as_str()) => {
                    self.error(&key, "this header belongs to the export itself");
                }
                (Ok(name), Ok(mut value)) => {
                    value.set_sensitive(true);
                    headers.push((name, value));
                }
                (Err(_), _) => self.error(&key, "expected a header name"),
                (_, Err(_)) => self.error(&key, "expected a header value: visible characters"),
            }
        }
        headers
    }
}
