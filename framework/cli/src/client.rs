//! The client of the admin interface.

use std::{fmt, path::PathBuf, time::Duration};

use clap::Args;
use serde_json::Value;
use statefn_core::view::escape;
use ureq::Agent;

use crate::{Error, Source, command::key_bytes};

/// How long an answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// How large an answer may be: a page of messages.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// How a running app is reached.
#[derive(Debug, Clone, Default, Args)]
pub struct Connection {
    /// Ask the app that runs with its admin interface here, such as http://127.0.0.1:9090
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// The file with the token of the admin interface [default: the variable STATEFN_ADMIN_TOKEN; the app's own binary then takes its setting admin.token]
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Asks a running app.
pub struct Client {
    agent: Agent,
    url: String,
    token: Option<String>,
}

impl Client {
    /// A client for the app at a URL; the token is that of `token_file`, or else `token`.
    ///
    /// # Errors
    /// [`Error::Usage`] if the URL is none, or the file cannot be read.
    pub fn new(connection: &Connection, url: &str, token: Option<String>) -> Result<Self, Error> {
        let url = url.trim_end_matches('/');
        if !url.starts_with("http://") {
            return Err(Error::Usage(format!("`{url}` is no URL of an admin interface: write http://HOST:PORT")));
        }
        let token = match &connection.token_file {
            Some(path) => {
                let read = std::fs::read_to_string(path);
                let read = read.map_err(|error| Error::Usage(format!("`{}`: {error}", path.display())))?;
                Some(read.trim().to_owned())
            }
            None => token,
        };
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(ANSWER_TIME_MAX)).build();
        Ok(Self { agent: config.into(), url: url.to_owned(), token })
    }

    fn get(&self, path: &str) -> Result<String, Error> {
        let mut request = self.agent.get(format!("{}/admin/v1/{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.told(request.call())
    }

    fn document(&self, path: &str) -> Result<Value, Error> {
        self.read(&self.get(path)?)
    }

    fn read(&self, text: &str) -> Result<Value, Error> {
        serde_json::from_str(text).map_err(|error| self.unreachable(&format!("the answer is no JSON: {error}")))
    }

    fn told(&self, response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<String, Error> {
        let mut response = response.map_err(|error| self.unreachable(&error))?;
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        let body = body.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(body);
        }
        let problem: Value = serde_json::from_str(&body).unwrap_or_default();
        let text = |name: &str| problem[name].as_str().map(str::to_owned);
        match text("code") {
            Some(code) => Err(Error::Refused { code, detail: text("detail").unwrap_or_default() }),
            None => Err(self.unreachable(&format!("it answers with status {}", response.status()))),
        }
    }

    fn unreachable(&self, reason: &dyn fmt::Display) -> Error {
        Error::Unreachable { url: self.url.clone(), reason: reason.to_string() }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.url)
    }
}

/// A key as a part of a path.
pub(crate) fn key_path(key: &str) -> Result<String, Error> {
    key_bytes(key).map(|key| escape(&key))
}

impl Source for Client {
    fn status(&mut self) -> Result<Value, Error> {
        self.document("status")
    }

    fn functions(&mut self) -> Result<Value, Error> {
        self.document("functions")
    }

    fn graph(&mut self, notation: &str) -> Result<String, Error> {
        self.get(&format!("graph?format={notation}"))
    }

    fn keys(&mut self, function: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Value, Error> {
        let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
        self.document(&format!("keys/{function}?limit={limit}&prefix={}{after}", escape(prefix.as_bytes())))
    }

    fn state(&mut self, function: &str, key: &str) -> Result<Value, Error> {
        self.document(&format!("state/{function}/{}", key_path(key)?))
    }

    fn timers(&mut self, function: &str, key: &str) -> Result<Value, Error> {
        self.document(&format!("timers/{function}/{}?limit=1000", key_path(key)?))
    }

    fn parked(&mut self, after: Option<&str>) -> Result<Value, Error> {
        let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
        self.document(&format!("parked?limit=1000{after}"))
    }

    fn dead_letters(&mut self, after: Option<&str>) -> Result<Value, Error> {
        let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
        self.document(&format!("dead-letters?limit=1000{after}"))
    }

    fn check(&mut self) -> Result<Vec<String>, Error> {
        Err(Error::Usage(
            "a running app checks itself all the time: `check` reads a data directory, stop the app".into(),
        ))
    }

    fn change(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Value, Error> {
        let url = format!("{}/admin/v1/{path}", self.url);
        let mut request = if method == "PUT" { self.agent.put(url) } else { self.agent.post(url) };
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let told = self.told(request.send(body))?;
        self.read(&told)
    }
}
