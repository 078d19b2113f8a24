//! Descriptions of our builtin calls (OpenAPI 3.1.1), made from the types that read and write them.

use std::collections::BTreeMap;

use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::error::{Kind, Problem, ProblemBody, Statuses};

const JSON: &str = "application/json";

/// Whether a call wants a bearer token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearer {
    /// It does not look at one.
    None,
    /// It may be called with one.
    Optional,
    /// It is refused without one.
    Required,
}

/// Makes the schema of a type.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// A parameter of a query: its name, what it is, its schema.
pub type QueryParameter = (&'static str, &'static str, SchemaOf);

/// A call: how it is asked for, who answers it, and how it is described.
#[derive(Debug)]
pub struct Call<Handler> {
    /// The method.
    pub method: Method,
    /// The path below the mount, with `{name}` for a segment.
    pub path: &'static str,
    /// A unique name for generated clients.
    pub id: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// Whether it wants a token.
    pub bearer: Bearer,
    /// The schema of its body, and whether there must be one.
    pub body: Option<(SchemaOf, bool)>,
    /// Whether its body is a form, and its failures are those of RFC 6749, section 5.2.
    pub is_oauth: bool,
    /// Parameters of its query: name, what it is, schema.
    pub query: &'static [QueryParameter],
    /// Its response when all is well: status, media type, schema.
    pub response: (u16, &'static str, SchemaOf),
    /// How it fails, beside what every call may fail with.
    pub failures: &'static [Kind],
    /// What answers it.
    pub handler: Handler,
}

impl<Handler> Call<Handler> {
    /// The parameters in a path that is this call's; none for another path.
    pub fn captures<'a>(&self, path: &'a str) -> Option<Vec<&'a str>> {
        let (mut wanted, mut found) = (self.path.split('/'), path.split('/'));
        let mut parameters = Vec::new();
        loop {
            match (wanted.next(), found.next()) {
                (None, None) => return Some(parameters),
                (Some(name), Some(value)) if name.starts_with('{') => parameters.push(value),
                (Some(wanted), Some(found)) if wanted == found => {}
                _ => return None,
            }
        }
    }
}

/// What every call may fail with.
const COMMON: &[Kind] = &[
    Kind::BadRequest,
    Kind::RequestTimeout,
    Kind::BodyTooLarge,
    Kind::HeadersTooLarge,
    Kind::Internal,
    Kind::Unavailable,
];

/// The schema of a type.
pub fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// Describes an API. `cookie` is the name of the one that authenticates in place of a bearer token.
pub fn describe<Handler>(
    title: &str,
    about: &str,
    mount: &str,
    calls: &[Call<Handler>],
    statuses: &Statuses,
    cookie: Option<&str>,
) -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for call in calls {
        let operation = operation(call, statuses, cookie.is_some(), &mut generator);
        let methods = paths.entry(format!("{mount}{}", call.path)).or_default();
        methods.insert(call.method.as_str().to_ascii_lowercase(), operation);
    }
    let schemas = generator.take_definitions(true);
    let mut schemes = json!({"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}});
    if let Some(name) = cookie {
        schemes["cookie"] = json!({"type": "apiKey", "in": "cookie", "name": name});
    }
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": title,
            "description": about,
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": env!("CARGO_PKG_LICENSE")},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": schemes,
        },
    })
}

fn operation<Handler>(
    call: &Call<Handler>,
    statuses: &Statuses,
    has_cookie: bool,
    generator: &mut SchemaGenerator,
) -> Value {
    let mut operation = Map::new();
    operation.insert("operationId".into(), call.id.into());
    operation.insert("summary".into(), call.summary.into());
    let parameters = parameters(call, generator);
    if !parameters.is_empty() {
        operation.insert("parameters".into(), parameters.into());
    }
    if let Some((schema, required)) = call.body {
        let media_type = if call.is_oauth { "application/x-www-form-urlencoded" } else { JSON };
        let content = json!({media_type: {"schema": schema(generator)}});
        operation.insert("requestBody".into(), json!({"required": required, "content": content}));
    }
    let anonymous = (call.bearer == Bearer::Optional).then(|| json!({}));
    let by_cookie = has_cookie.then(|| json!({"cookie": []}));
    if call.bearer != Bearer::None {
        let security = anonymous.into_iter().chain([json!({"bearer": []})]).chain(by_cookie);
        operation.insert("security".into(), security.collect());
    }
    operation.insert("responses".into(), responses(call, statuses, generator).into());
    operation.into()
}

fn parameters<Handler>(call: &Call<Handler>, generator: &mut SchemaGenerator) -> Vec<Value> {
    let in_path = call.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = in_path
        .map(|name| {
            // Keys have ids of another kind.
            let schema = match name {
                "kid" | "key_id" | "name" => json!({"type": "string"}),
                _ => json!({"type": "string", "format": "uuid"}),
            };
            json!({"name": name, "in": "path", "required": true, "schema": schema})
        })
        .collect();
    for (name, about, schema) in call.query {
        parameters
            .push(json!({"name": name, "in": "query", "description": about, "schema": schema(generator)}));
    }
    parameters
}

fn responses<Handler>(
    call: &Call<Handler>,
    statuses: &Statuses,
    generator: &mut SchemaGenerator,
) -> Map<String, Value> {
    let mut responses = Map::new();
    let (status, media_type, schema) = call.response;
    let id = json!({"X-Request-Id": {"schema": {"type": "string"}}});
    responses.insert(
        status.to_string(),
        json!({"description": "Done", "headers": id, "content": {media_type: {"schema": schema(generator)}}}),
    );
    let mut failures: BTreeMap<u16, Vec<&'static str>> = BTreeMap::new();
    let body: &[Kind] =
        if call.body.is_some() && !call.is_oauth { &[Kind::UnsupportedMediaType] } else { &[] };
    let token: &[Kind] = if call.bearer == Bearer::None { &[] } else { &[Kind::Unauthenticated] };
    for &kind in COMMON.iter().chain(body).chain(token).chain(call.failures) {
        let messages = failures.entry(statuses.of(kind).as_u16()).or_default();
        if !messages.contains(&kind.message()) {
            messages.push(kind.message());
        }
    }
    let problem = generator.subschema_for::<ProblemBody<'static>>();
    let oauth = json!({"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}});
    for (status, messages) in failures {
        let mut headers = id.clone();
        if status == 401 {
            headers["WWW-Authenticate"] = json!({"schema": {"type": "string"}});
        }
        if [429, 503].contains(&status) {
            headers["Retry-After"] = json!({"schema": {"type": "integer", "minimum": 1}});
        }
        let mut content = json!({Problem::CONTENT_TYPE: {"schema": problem}});
        if call.is_oauth {
            content[JSON] = json!({"schema": oauth});
        }
        responses.insert(
            status.to_string(),
            json!({"description": messages.join("; "), "headers": headers, "content": content}),
        );
    }
    responses
}
