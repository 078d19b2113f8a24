//! Routes that contradict each other: found at load, never decided by order.

use http::Method;

use super::{
    compiled::{Builtin, Route, takes},
    trie::Node,
};
use crate::config::{ConfigError, Segment};

/// Routes in the place of a call that the gateway answers itself.
pub(super) fn with_builtin_calls(routes: &[Route], builtins: &[Builtin]) -> Vec<ConfigError> {
    let same = |route: &Route, call: &Builtin| {
        let (a, b) = (&route.config.pattern, &call.pattern);
        let similar_user = |(x, y): (&Segment, &Segment)| x == y;
        !a.covers_below()
            && a.has_trailing_slash() == b.has_trailing_slash()
            && a.segments().len() == b.segments().len()
            && a.segments().iter().zip(b.segments()).all(similar_user)
    };
    let clash = |route: &Route| builtins.iter().any(|call| same(route, call));
    routes
        .iter()
        .filter(|route| clash(route))
        .map(|route| {
            route.config.source.error(
                "this is a call that authgate answers itself; choose another path, or another auth.path",
            )
        })
        .collect()
}

/// Routes of one trie that could both win, or that others leave nothing to.
pub(super) fn within(node: &Node<usize>, routes: &[Route], errors: &mut Vec<ConfigError>) {
    for ends in [&node.exact, &node.slash, &node.below] {
        for (position, &later) in ends.iter().enumerate() {
            for &earlier in &ends[..position] {
                if let Some(requests) = common_requests(&routes[earlier], &routes[later]) {
                    let other = &routes[earlier];
                    errors.push(routes[later].config.source.error(format!(
                        "could win for the same {requests} as `{}` on line {}",
                        other.label, other.config.source.line
                    )));
                }
            }
        }
    }
    for &index in &node.below {
        if is_covered(node, &routes[index], routes) {
            errors.push(
                routes[index]
                    .config
                    .source
                    .error("is never reached: more specific routes take everything that it covers"),
            );
        }
    }
    node.literals.values().for_each(|child| within(child, routes, errors));
    node.any.iter().for_each(|child| within(child, routes, errors));
}

/// A method that both take; `any` when both take all.
fn common_requests(a: &Route, b: &Route) -> Option<String> {
    let both = |method: &Method| a.takes(method) && b.takes(method);
    match (&a.config.methods, &b.config.methods) {
        (None, None) => Some("requests".to_owned()),
        (listed_a, listed_b) => listed_a
            .iter()
            .chain(listed_b)
            .flatten()
            .find(|method| both(method))
            .map(|method| format!("{method} requests")),
    }
}

/// Whether the path itself, the path with a slash, and all below it are taken for every method
/// that `route`, a `/**`, takes.
fn is_covered(node: &Node<usize>, route: &Route, routes: &[Route]) -> bool {
    let Some(any) = &node.any else { return false };
    // The path `/` is the shortest there is, so `/**` covers nothing without its slash.
    let root = route.config.pattern.segments().is_empty();
    let covers = |ends: &Vec<usize>| takes_all(ends, route, routes);
    (root || covers(&node.exact)) && covers(&node.slash) && covers(&any.below)
}

fn takes_all(ends: &[usize], route: &Route, routes: &[Route]) -> bool {
    let taken = |method: &Method| ends.iter().any(|&index| routes[index].takes(method));
    match &route.config.methods {
        // Only another route without a list takes every method there is.
        None => ends.iter().any(|&index| routes[index].config.methods.is_none()),
        Some(methods) => {
            methods.iter().all(taken) && (!takes(Some(methods), &Method::HEAD) || taken(&Method::HEAD))
        }
    }
}
