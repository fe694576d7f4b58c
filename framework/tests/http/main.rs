//! An app as a service, over real sockets.

mod admin;
mod app;
mod client;
mod hostile;
mod metrics;
mod service;
mod traces;
