//! The query of a request: what it says beside its path.
//!
//! Invariant: a parameter that is not known is refused, so that a slip of the pen does not do
//! something else than was meant.

use crate::problem::Problem;

/// What a query says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// Whether the message is sent, so that nobody waits for its answer.
    pub(crate) is_sent: bool,
}

impl Query {
    pub(crate) fn of(query: &str) -> Result<Self, Problem> {
        let mut said = Self::default();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter {
                "mode=send" => said.is_sent = true,
                "mode=answer" => said.is_sent = false,
                _ => {
                    let text = "the query says something that there is not: `mode=send` and `mode=answer` can be said";
                    return Err(Problem::new("bad-query", text));
                }
            }
        }
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_refused() {
        assert_eq!(Query::of(""), Ok(Query { is_sent: false }));
        assert_eq!(Query::of("mode=send"), Ok(Query { is_sent: true }));
        assert_eq!(Query::of("mode=answer"), Ok(Query { is_sent: false }));
        for query in ["mode", "mode=", "mode=sent", "mod=send", "mode=send&x=1", "mode=%73end"] {
            assert_eq!(Query::of(query).map_err(|problem| problem.code()), Err("bad-query"), "{query}");
        }
    }
}
