//! W3C Trace Context, as far as a request brings it: the header `traceparent`.
//!
//! Source: <https://www.w3.org/TR/trace-context/>, version 00. A header that is malformed counts as
//! none, as the standard says.
//!
//! Deliberately absent: `tracestate`, which belongs to other systems.

use actix_web::http::header::HeaderMap;
use statefn_core::envelope::Trace;

/// The place in a trace of the call that a request makes; none if the request is not sampled.
///
/// Where somebody has decided about the trace, that holds; else `share` of all requests begin one.
pub(crate) fn of(headers: &HeaderMap, share: f64) -> Option<Trace> {
    let (id, parent, is_sampled) = given(headers).unwrap_or_else(|| {
        let is_sampled = share > 0.0 && fastrand::f64() < share;
        (fastrand::u128(1..).to_be_bytes(), 0, is_sampled)
    });
    // Each request is a span of its own, also one that is repeated.
    is_sampled.then(|| Trace { id, span: fastrand::u64(1..), parent })
}

/// The trace, the parent and whether it is sampled, as the one header says.
fn given(headers: &HeaderMap) -> Option<([u8; 16], u64, bool)> {
    let mut given = headers.get_all("traceparent");
    let (first, second) = (given.next()?, given.next());
    parse(first.to_str().ok()?).filter(|_| second.is_none())
}

fn parse(header: &str) -> Option<([u8; 16], u64, bool)> {
    let mut parts = header.split('-');
    let mut part = |length: usize| {
        let is_hex =
            |part: &&str| part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        parts.next().filter(is_hex)
    };
    let (version, id, parent, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    let is_over = parts.next().is_none();
    let id = u128::from_str_radix(id, 16).ok().filter(|id| *id != 0)?;
    let parent = u64::from_str_radix(parent, 16).ok().filter(|parent| *parent != 0)?;
    let flags = u8::from_str_radix(flags, 16).ok()?;
    // A later version may say more behind the flags.
    let is_known = version != "ff" && (version != "00" || is_over);
    is_known.then_some((id.to_be_bytes(), parent, flags & 1 == 1))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderName;

    use super::*;

    #[test]
    fn the_example_of_the_standard_is_read() {
        let (id, parent, is_sampled) =
            parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").expect("is well formed");
        assert_eq!(u128::from_be_bytes(id), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((parent, is_sampled), (0x00f0_67aa_0ba9_02b7, true));
    }

    #[test]
    fn who_has_decided_about_a_trace_is_heeded_and_else_a_share_is_sampled() {
        let sampled_of = |headers: &[&str], share| {
            let mut map = HeaderMap::new();
            let name = || HeaderName::from_static("traceparent");
            headers.iter().for_each(|header| map.append(name(), header.parse().expect("a header")));
            of(&map, share)
        };
        let (sampled, unsampled) = (
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
        );
        let given = sampled_of(&[sampled], 0.0).expect("is sampled");
        assert_eq!((u128::from_be_bytes(given.id) >> 96, given.parent), (0x4bf9_2f35, 0x00f0_67aa_0ba9_02b7));
        assert_eq!(sampled_of(&[unsampled], 1.0), None);
        assert_eq!(
            (sampled_of(&[], 0.0), sampled_of(&["?"], 0.0), sampled_of(&[sampled, sampled], 0.0)),
            (None, None, None)
        );
        let (one, other) = (sampled_of(&[], 1.0).expect("is sampled"), sampled_of(&["?"], 1.0).expect("is sampled"));
        assert!(one.parent == 0 && one.id != other.id && one.span != other.span);
        let sampled = (0..1_000).filter(|_| sampled_of(&[], 0.5).is_some()).count();
        assert!((300..700).contains(&sampled), "{sampled} of 1000");
    }

    #[test]
    fn what_is_malformed_counts_as_none() {
        let well = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        assert_eq!(parse(well).map(|(_, _, is_sampled)| is_sampled), Some(false));
        assert!(parse(&well.replacen("00", "cc", 1)).is_some(), "a later version");
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
