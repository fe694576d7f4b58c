//! The attribute and derive macros of statefn; use them through the `statefn` crate.
