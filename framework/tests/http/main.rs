//! An app as a service, over real sockets.

mod app;
mod client;
mod hostile;
mod service;
