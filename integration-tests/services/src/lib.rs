//! Real servers for tests and developer tasks: a Kafka broker and an S3 server.
//!
//! ```no_run
//! # fn main() -> Result<(), services::Error> {
//! services::install()?; // once for each machine; `cargo xtask setup` does it
//! let mut broker = services::kafka::Broker::start()?;
//! println!("{}", broker.bootstrap()); // 127.0.0.1:..
//! broker.kill()?; // as `kill -9`: what was not written is lost
//! broker.restart()?; // the same data, the same port
//! # Ok(()) }
//! ```
//!
//! Tests that do not hurt the server share one for each test binary, `Broker::shared()` and
//! `Server::shared()`. Where it is not installed they return `None` and say once what could not be
//! tested and how to get it; where the variable `CI` is set they panic instead, so that nothing is
//! skipped unseen.
//!
//! What is installed stands in one directory for all clones: `STATEFN_SERVICES`, else
//! `statefn/services` below `XDG_CACHE_HOME` or `~/.cache`. All of it may be deleted.
//!
//! Invariants: a server listens on the loopback interface only, on ports that nobody else is given
//! while its handle lives; it ends with the process that started it, however that ends, and its
//! data go with it. A directory in the cache is there whole or not at all.
//!
//! Deliberately absent: containers, and servers that somebody else has started.

pub mod kafka;
pub mod s3;

mod cache;
mod error;
mod install;
mod ports;
mod process;
mod shared;
mod topics;

pub use error::Error;
pub use install::install;
pub use ports::Reserved;
