//! The public edge: sockets, HTTP/1.1, and the life of a request.
//!
//! ```text
//! accept → guard → hyper → canonical path → route → identify → permit → limit → forward → upstream
//!            │                    │            │         │         │        │
//!       400 408 431              400        404 405     401       403      413     each refusal becomes an answer in `refusal`
//! ```
//!
//! A worker is one thread: its sockets, its connections to upstreams and every request on them.
//! Nothing here waits for another worker.

mod body;
mod client;
mod connection;
mod cors;
mod exchange;
mod forward;
mod guard;
mod headers;
mod method;
mod own;
mod record;
mod refusal;
mod request_target;
mod respond;
mod service;
mod snapshot;
mod target;
mod tunnel;
mod turns;
mod view;
mod worker;

pub use body::{AnswerBody, RequestBody};
pub use own::{OwnCall, OwnCalls};
pub use snapshot::{Services, Snapshot};
pub use worker::{Drain, Listening, Worker};
