//! The query of a request to the admin interface.
//!
//! Invariant: a parameter that the route does not have is refused, as is one that is said twice.

use std::collections::BTreeMap;

use crate::{path::unescape, problem::Problem};

/// What a query says, by name.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<String, Vec<u8>>);

impl Query {
    /// Reads a query that may have these parameters.
    pub(super) fn of(query: &str, known: &[&str]) -> Result<Self, Problem> {
        let mut said = BTreeMap::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if !known.contains(&name) {
                let can = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
                return Err(wrong(format!("the query says something that there is not: here it may say {can}")));
            }
            let value = unescape(value).map_err(|problem| wrong(problem.detail().to_owned()))?;
            if said.insert(name.to_owned(), value).is_some() {
                return Err(wrong(format!("the query says `{name}` twice")));
            }
        }
        Ok(Self(said))
    }

    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        let text = self.bytes(name).map(std::str::from_utf8).transpose();
        text.map_err(|_| wrong(format!("`{name}` in the query is no UTF-8")))
    }

    /// A number from 1 to `max`; `default` if it is not said.
    pub(super) fn number(&self, name: &str, default: u64, max: u64) -> Result<u64, Problem> {
        let Some(text) = self.text(name)? else { return Ok(default) };
        let number = text.parse().ok().filter(|number| (1..=max).contains(number));
        number.ok_or_else(|| wrong(format!("`{name}` in the query must be a number from 1 to {max}")))
    }
}

pub(super) fn wrong(detail: String) -> Problem {
    Problem::new("bad-query", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(query: &str) -> &'static str {
        let query = Query::of(query, &["after", "limit"]);
        let read = query.and_then(|query| query.text("after").and(query.number("limit", 7, 9)));
        read.map_or_else(|problem| problem.code(), |_| "none")
    }

    #[test]
    fn what_is_not_known_or_wrong_is_refused() {
        for query in ["", "limit=9", "after=a%2Fb&limit=1", "after="] {
            assert_eq!(code(query), "none", "{query}");
        }
        for query in
            ["x=1", "limit=0", "limit=10", "limit=-1", "limit=", "limit", "limit=1&limit=1", "after=%ff", "after=%f"]
        {
            assert_eq!(code(query), "bad-query", "{query}");
        }
        let query = Query::of("after=%ff", &["after"]).expect("is read");
        assert_eq!(query.bytes("after"), Some(&[0xff][..]));
    }
}
