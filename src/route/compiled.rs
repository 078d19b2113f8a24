//! What takes requests: routes, and calls of the gateway's own.

use http::Method;

use crate::config::{self, Pattern};

/// A call that the gateway answers itself, such as `POST /auth/login`.
#[derive(Debug, Clone)]
pub struct Builtin {
    /// Its method.
    pub method: Method,
    /// Its path, the mount included.
    pub pattern: Pattern,
}

/// A route as it is matched.
#[derive(Debug)]
pub struct Route {
    /// What the config says of it.
    pub config: config::Route,
    /// Its number, from 0 in the order of the file.
    pub index: u32,
    /// Its name in metrics and logs: host and pattern.
    pub label: String,
}

impl Route {
    /// Whether it takes a method; GET implies HEAD.
    pub fn takes(&self, method: &Method) -> bool {
        takes(self.config.methods.as_deref(), method)
    }
}

pub(super) fn takes(methods: Option<&[Method]>, method: &Method) -> bool {
    match methods {
        Some(methods) => {
            methods.contains(method) || (method == Method::HEAD && methods.contains(&Method::GET))
        }
        // A response to TRACE shows the headers that were added on the way, so a route must name the method.
        None => method != Method::TRACE,
    }
}
