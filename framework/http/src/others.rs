//! What a server does for the other workers of a fleet; nothing in an app that is alone.
//!
//! Deliberately absent: how (`peers`), which is a feature.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};
use statefn_core::ports::peers::{Peers, Worker};

#[cfg(feature = "peers")]
use crate::peers::Internal;

/// The other workers of a fleet, and what is done for them; by default there are none.
#[derive(Clone, Default)]
pub struct Others {
    /// Who they are.
    pub peers: Option<Arc<dyn Peers>>,
    /// What is done for them.
    #[cfg(feature = "peers")]
    pub internal: Option<Arc<Internal>>,
}

impl Others {
    /// All workers of the fleet.
    pub(crate) fn workers(&self) -> Vec<Worker> {
        self.peers.as_ref().map(|peers| peers.workers()).unwrap_or_default()
    }

    /// Whether a path is for them alone.
    #[cfg(feature = "peers")]
    pub(crate) fn is_meant(&self, path: &str) -> bool {
        self.internal.is_some() && Internal::is_meant(path)
    }

    #[cfg(not(feature = "peers"))]
    pub(crate) fn is_meant(&self, _path: &str) -> bool {
        false
    }

    #[cfg(feature = "peers")]
    pub(crate) async fn answer(&self, request: &HttpRequest, payload: web::Payload) -> HttpResponse {
        let Some(internal) = &self.internal else { return HttpResponse::NotFound().finish() };
        let mut response = internal.answer(request, payload).await.unwrap_or_else(|problem| problem.response());
        if !crate::body::was_read(request) {
            // What stands behind a body that nobody has read is not looked for.
            response.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
        }
        response
    }

    #[cfg(not(feature = "peers"))]
    pub(crate) async fn answer(&self, _request: &HttpRequest, _payload: web::Payload) -> HttpResponse {
        HttpResponse::NotFound().finish()
    }
}

impl std::fmt::Debug for Others {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Others({} workers)", self.workers().len())
    }
}
