//! Traced requests as messages of the protocol, with the attributes of OpenTelemetry's semantic conventions for HTTP (1.23 and later).

use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode},
};
use prost::Message;

use crate::telemetry::{RequestTrace, TraceTry};

/// `flags` of a span: the sampled flag, and that it is known whether the parent is remote.
const SAMPLED: u32 = 0x01;
const PARENT_IS_KNOWN: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;

/// Encodes the spans of requests. `instance` tells this process from others of its name.
pub(super) fn encode(traces: &[RequestTrace], service_name: &str, instance: &str) -> Bytes {
    let resource = Resource {
        attributes: vec![
            text("service.name", service_name),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.instance.id", instance),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "authgate".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let spans = traces.iter().flat_map(spans).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let resource_spans =
        vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
}

/// Returns how many spans a receiver has rejected, and why, by its response.
pub(super) fn rejected(response: &[u8]) -> Option<(u64, String)> {
    let partial = ExportTraceServiceResponse::decode(response).ok()?.partial_success?;
    let count = u64::try_from(partial.rejected_spans).ok().filter(|count| *count > 0)?;
    Some((count, partial.error_message))
}

fn spans(trace: &RequestTrace) -> Vec<Span> {
    let begun = at(trace, Duration::ZERO);
    let mut attributes = vec![
        text("http.request.method", trace.method),
        text("url.scheme", trace.scheme),
        text("url.path", &trace.path),
        text("http.route", &trace.route),
        number("http.response.status_code", trace.status.into()),
        text("network.protocol.name", "http"),
        text("network.protocol.version", trace.version),
        text("client.address", &trace.client),
        number("http.request.body.size", trace.request_bytes),
        number("http.response.body.size", trace.response_bytes),
        text("authgate.request.id", &trace.request_id),
    ];
    let known = [
        ("server.address", &trace.host),
        ("user_agent.original", &trace.user_agent),
        ("user.id", &trace.user),
        ("authgate.upstream", &trace.upstream),
    ];
    attributes.extend(known.iter().filter_map(|(name, value)| Some(text(name, value.as_ref()?))));
    let has_failed = trace.status >= 500 || trace.aborted;
    if has_failed {
        attributes.push(error_type(trace.aborted, trace.status));
    }
    let request = Span {
        trace_id: trace.context.trace_id.to_vec(),
        span_id: trace.context.parent_id.to_vec(),
        parent_span_id: trace.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        trace_state: trace.state.clone().unwrap_or_default(),
        flags: SAMPLED | PARENT_IS_KNOWN | if trace.parent.is_some() { PARENT_IS_REMOTE } else { 0 },
        name: format!("{} {}", trace.method, trace.route),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: begun,
        end_time_unix_nano: at(trace, trace.duration),
        attributes,
        status: status(has_failed),
        ..Span::default()
    };
    let decision = match (trace.denied, trace.decided_after) {
        (Some(reason), _) => reason,
        (None, Some(_)) => "allowed",
        // The client has left before, or nothing was to be decided.
        (None, None) => "none",
    };
    let decision = Span {
        name: "decide".to_owned(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: begun,
        end_time_unix_nano: at(trace, trace.decided_after.unwrap_or(trace.duration)),
        attributes: vec![text("authgate.decision", decision)],
        ..child(trace, 1)
    };
    let last = trace.tries.len().saturating_sub(1);
    let tries = trace.tries.iter().enumerate().map(|(index, one)| try_span(trace, one, index, index == last));
    [request, decision].into_iter().chain(tries).collect()
}

fn try_span(trace: &RequestTrace, one: &TraceTry, index: usize, is_last: bool) -> Span {
    let mut attributes = vec![text("http.request.method", trace.method)];
    attributes.extend(trace.upstream.as_ref().map(|upstream| text("authgate.upstream", upstream)));
    attributes.extend(one.server.as_ref().map(|server| text("server.address", server)));
    if index > 0 {
        attributes.push(number("http.request.resend_count", index as u64));
    }
    // What comes after a try says that it has failed.
    let has_failed = !is_last || !one.placed || trace.status >= 500 || trace.aborted;
    if is_last && one.placed {
        attributes.push(number("http.response.status_code", trace.status.into()));
    }
    if has_failed {
        attributes.push(match (is_last, one.placed) {
            (_, false) => text("error.type", "connect"),
            (false, true) => text("error.type", "retried"),
            (true, true) => error_type(trace.aborted, trace.status),
        });
    }
    Span {
        name: trace.method.to_owned(),
        kind: SpanKind::Client.into(),
        start_time_unix_nano: at(trace, one.begun),
        end_time_unix_nano: at(trace, one.ended),
        attributes,
        status: status(has_failed),
        ..child(trace, index as u64 + 2)
    }
}

/// A span below that of the request; `number` tells it from the others.
fn child(trace: &RequestTrace, number: u64) -> Span {
    let own = u64::from_be_bytes(trace.context.parent_id);
    let id = own.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).max(1);
    Span {
        trace_id: trace.context.trace_id.to_vec(),
        span_id: id.to_be_bytes().to_vec(),
        parent_span_id: trace.context.parent_id.to_vec(),
        trace_state: trace.state.clone().unwrap_or_default(),
        flags: SAMPLED | PARENT_IS_KNOWN,
        ..Span::default()
    }
}

/// A moment after the begin of a request, in nanoseconds since the Unix epoch.
fn at(trace: &RequestTrace, after: Duration) -> u64 {
    let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let ended = u64::try_from(trace.ended_at).unwrap_or_default().saturating_mul(1_000);
    ended.saturating_sub(nanos(trace.duration)).saturating_add(nanos(after.min(trace.duration)))
}

fn status(has_failed: bool) -> Option<Status> {
    has_failed.then(|| Status { code: StatusCode::Error.into(), ..Status::default() })
}

fn error_type(aborted: bool, status: u16) -> KeyValue {
    if aborted { text("error.type", "aborted") } else { text("error.type", &status.to_string()) }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: u64) -> KeyValue {
    attribute(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
