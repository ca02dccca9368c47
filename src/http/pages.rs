//! The pages of the lists that answer with a bare array: the parameters `limit` and `after`, and
//! the header that names the next page. The array itself has no place for a token, so `after`
//! names the last item of the page before.

use std::collections::BTreeMap;

use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::Serialize;

use super::reply::{Problem, json};
use crate::signature::{self, percent_encoded};

/// The default and the most items of a page: an ordinary list comes whole.
pub(super) const MOST: usize = 1000;

/// The parameters of a query, each at most once.
pub(super) fn parameters(query: &str) -> Result<BTreeMap<String, String>, Problem> {
    let pairs = signature::pairs(query)
        .ok_or_else(|| Problem::malformed("the query is not valid percent-encoded UTF-8"))?;
    let mut parameters = BTreeMap::new();
    for (name, value) in pairs {
        if value.is_empty() {
            return Err(Problem::malformed(format!("{name} is empty; leave it out")));
        }
        if parameters.contains_key(&name) {
            return Err(Problem::malformed(format!(
                "{name} is given more than once"
            )));
        }
        parameters.insert(name, value);
    }
    Ok(parameters)
}

pub(super) fn limit(value: &str, most: usize) -> Result<usize, Problem> {
    let limit = value.parse().ok();
    limit
        .filter(|limit| (1..=most).contains(limit))
        .ok_or_else(|| Problem::malformed(format!("limit must be 1 to {most}, not {value:?}")))
}

/// The page that a call asks for.
#[derive(Debug)]
pub(super) struct PageQuery {
    limit: usize,
    pub after: Option<String>,
    /// The other parameters, which the next page needs as well.
    pub others: BTreeMap<String, String>,
}

impl PageQuery {
    pub fn of(query: &str) -> Result<Self, Problem> {
        let mut others = parameters(query)?;
        let asked = others.remove("limit");
        let asked = asked.map(|value| limit(&value, MOST)).transpose()?;
        Ok(Self {
            limit: asked.unwrap_or(MOST),
            after: others.remove("after"),
            others,
        })
    }

    /// Refuses what is neither `limit` nor `after`.
    pub fn alone(query: &str) -> Result<Self, Problem> {
        let page = Self::of(query)?;
        match page.others.keys().next() {
            None => Ok(page),
            Some(name) => Err(Problem::malformed(format!(
                "{name} is not a parameter here; use limit and after"
            ))),
        }
    }

    /// One item more than asked for shows whether there is a next page.
    pub fn with_one_more(&self) -> usize {
        self.limit + 1
    }

    /// The answer with the items of this page. The header `Link` has the query of the next page,
    /// if there is one.
    pub fn answer<T: Serialize>(
        &self,
        mut found: Vec<T>,
        place: impl Fn(&T) -> String,
    ) -> Response {
        let is_more = found.len() > self.limit;
        found.truncate(self.limit);
        let mut response = json(200, &found);
        if let Some(last) = found.last().filter(|_| is_more) {
            let link = format!("<?{}>; rel=\"next\"", self.next(place(last)));
            // Everything in it is percent-encoded, so it can stand in a header.
            if let Ok(link) = HeaderValue::try_from(link) {
                response.headers_mut().insert(header::LINK, link);
            }
        }
        response
    }

    fn next(&self, after: String) -> String {
        let mut parameters = self.others.clone();
        parameters.insert("after".into(), after);
        parameters.insert("limit".into(), self.limit.to_string());
        let pairs = parameters.iter();
        let pairs = pairs.map(|(name, value)| format!("{name}={}", percent_encoded(value)));
        pairs.collect::<Vec<_>>().join("&")
    }
}
