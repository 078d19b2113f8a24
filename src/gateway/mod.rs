//! The public edge: sockets, HTTP/1.1, and the life of a request.
//!
//! ```text
//! accept → head → canonical path → route → identify → permit → limit → forward → upstream
//!            │                    │            │         │         │        │
//!       400 408 431              400        404 405     401       403      413     each refusal becomes a response in `refusal`
//! ```
//!
//! A worker is one thread: its sockets, its connections to upstreams and every request on them.
//! Nothing here waits for another worker; one of them accepts, and places connections on all.

mod accept;
mod acme_challenge;
mod activity;
mod builtin;
mod call;
mod client;
mod connection;
mod cookies;
mod cors;
mod deadline;
mod drain;
mod exchange;
mod ext_authz;
mod forward;
mod grpc;
mod handshake;
mod head;
mod headers;
mod http1;
mod http2;
mod http2_body;
mod ids;
mod inbound;
mod interim;
mod judged;
mod listener;
mod message;
mod method;
mod navigation;
mod own_cookies;
mod placement;
mod proxy_protocol;
mod rate_limits;
mod record;
mod refusal;
mod refusal_pages;
mod request_body;
mod request_head;
mod request_target;
mod respond;
mod response_body;
mod security_headers;
mod service;
mod snapshot;
mod state;
mod target;
mod thread_bound;
mod traces;
mod tunnel;
mod turn_budget;
mod turns;
mod verify;
mod view;
mod worker;

pub use builtin::{BuiltinCall, BuiltinCalls, Destinations};
pub use drain::Drain;
pub use listener::{Listener, Listening};
pub use placement::{Inbox, Placement};
pub use refusal_pages::RefusalPages;
pub use request_body::RequestBody;
pub use response_body::ResponseBody;
pub use snapshot::{Services, Snapshot, VERIFY};
pub use worker::Worker;
