//! The ports against a real broker, which all tests share but for those that hurt it. Each test has
//! an app of its own, named after it.

mod appender;
mod follower;
mod log;
mod membership;
mod topics;
mod world;
