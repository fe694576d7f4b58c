//! Integration tests of statefn; see `tests/`.
