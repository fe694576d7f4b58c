//! The query of a request: what it says beside its path.
//!
//! Invariant: a parameter that is not known is refused, so that a slip of the pen does not do
//! something else than was meant.

use std::time::Duration;

use crate::problem::Problem;

/// The longest delay: what is to happen later than in a year belongs into a state.
const DELAY_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// What a query says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// Whether the message is sent, so that nobody waits for its answer.
    pub(crate) is_sent: bool,
    /// How long a message that is sent waits before it is handled.
    pub(crate) delay: Duration,
}

impl Query {
    pub(crate) fn of(query: &str) -> Result<Self, Problem> {
        let mut said = Self::default();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter {
                "mode=send" => said.is_sent = true,
                "mode=answer" => said.is_sent = false,
                _ => match parameter.strip_prefix("delay=") {
                    Some(delay) => said.delay = delay_of(delay)?,
                    None => {
                        let text = "the query says something that there is not: `mode=send`, `mode=answer` and \
                                    `delay=30s` can be said";
                        return Err(Problem::new("bad-query", text));
                    }
                },
            }
        }
        if !said.is_sent && !said.delay.is_zero() {
            let text = "nobody waits for the answer of a message that is delayed: add `mode=send`";
            return Err(Problem::new("bad-query", text));
        }
        Ok(said)
    }
}

fn delay_of(text: &str) -> Result<Duration, Problem> {
    let delay = humantime::parse_duration(text).map_err(|error| format!("{error}"));
    let delay =
        delay.and_then(|delay| if delay <= DELAY_MAX { Ok(delay) } else { Err("it is longer than a year".into()) });
    delay.map_err(|error| {
        Problem::new(
            "bad-query",
            format!("`delay={text}` is no delay: {error}; write it like `delay=30s` or `delay=2h`"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_refused() {
        let delay = Duration::ZERO;
        assert_eq!(Query::of(""), Ok(Query { is_sent: false, delay }));
        assert_eq!(Query::of("mode=send"), Ok(Query { is_sent: true, delay }));
        assert_eq!(Query::of("mode=answer"), Ok(Query { is_sent: false, delay }));
        assert_eq!(Query::of("delay=2m&mode=send"), Ok(Query { is_sent: true, delay: Duration::from_secs(120) }));
        for query in [
            "mode",
            "mode=",
            "mode=sent",
            "mod=send",
            "mode=send&x=1",
            "mode=%73end",
            "delay=1s",
            "delay=1s&mode=answer",
            "mode=send&delay=",
            "mode=send&delay=5",
            "mode=send&delay=-1s",
            "mode=send&delay=2years",
        ] {
            assert_eq!(Query::of(query).map_err(|problem| problem.code()), Err("bad-query"), "{query}");
        }
    }
}
