//! Ingress and egress with a real broker; one broker for the tests that do not harm it.

mod egress;
mod faults;
mod ingress;
mod support;
