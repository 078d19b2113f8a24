//! Calls below `auth.path`, on a runtime beside the workers.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Response};
use tokio::runtime::Handle;

use crate::{
    auth_api::{self, AuthApi},
    error::{Kind, Problem, Statuses},
    gateway::{BuiltinCall, BuiltinCalls, RefusalPages},
    limit::{CallGate, Prefix},
    pages::{PageRequest, Pages, Refusals},
};

/// Calls below `auth.path` run beside the workers, and to their end.
pub(super) struct BuiltinRunner {
    pub(super) api: Arc<AuthApi>,
    pub(super) pages: Option<Arc<Pages>>,
    pub(super) runtime: Handle,
    pub(super) gate: Arc<CallGate>,
}

impl BuiltinCalls for BuiltinRunner {
    fn max_body(&self) -> u64 {
        auth_api::MAX_BODY
    }

    fn call(&self, call: BuiltinCall) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send>> {
        let (api, pages) = (self.api.clone(), self.pages.clone());
        let id = call.request_id.clone();
        let Some(admitted) = self.gate.admit(Prefix::of(call.client)) else {
            let request_id = id.to_str().unwrap_or_default();
            let refused = Problem::from(Kind::Unavailable).response(request_id, &Statuses::default());
            return Box::pin(async { refused });
        };
        // A task of its own: dropping the handle, when the client hangs up, does not stop it.
        let task = self.runtime.spawn(async move {
            let _admitted = admitted;
            let request_id = call.request_id.to_str().unwrap_or_default();
            let Some(pages) = pages.filter(|pages| pages.has(call.request.uri().path())) else {
                return api.handle(call.request, call.client, request_id).await;
            };
            let is_routed = |host: &str, target: &str| call.destinations.takes(host, target);
            let request = PageRequest {
                request: &call.request,
                address: call.client,
                request_id,
                is_routed: &is_routed,
            };
            pages.handle(request).await
        });
        Box::pin(async move {
            task.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a call below auth.path ended without an answer");
                let id = id.to_str().unwrap_or_default();
                Problem::from(Kind::Internal).response(id, &Statuses::default())
            })
        })
    }
}

impl RefusalPages for Refusals {
    fn page(
        &self,
        kind: Kind,
        languages: Option<&HeaderValue>,
        request_id: &HeaderValue,
    ) -> Option<Response<Bytes>> {
        Refusals::page(self, kind, languages, request_id.to_str().unwrap_or_default())
    }

    fn login(&self, target: &str) -> Response<Bytes> {
        Refusals::login(self, target)
    }

    fn prove(&self, target: &str, needs_factors: bool) -> Response<Bytes> {
        Refusals::prove(self, target, needs_factors)
    }
}
