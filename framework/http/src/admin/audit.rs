//! The audit log: a line of JSON for each change that somebody asked for, and one for what came of it.
//!
//! Invariants: the first line is durable before the change is begun, so there is no change without a
//! line; a change that cannot be written down is refused. Lines are only ever added.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use actix_web::web;
use serde_json::{Value, json};

use crate::problem::Problem;

/// The name of the log in the data directory.
pub const FILE_NAME: &str = "audit.jsonl";

/// Who asks for a change, and for what.
#[derive(Debug, Clone)]
pub(super) struct Change {
    /// The number of the change since the log was opened, which both of its lines have.
    number: u64,
    remote: Option<SocketAddr>,
    has_token: bool,
    what: String,
}

/// Where changes are written down.
pub(super) struct Audit {
    path: Option<PathBuf>,
    /// None until the first change, and after an error.
    open: Mutex<(Option<File>, u64)>,
}

impl Audit {
    /// The log in a directory; without one changes are told to the logs of the process only.
    pub(super) fn new(directory: Option<&Path>) -> Self {
        Self { path: directory.map(|directory| directory.join(FILE_NAME)), open: Mutex::new((None, 0)) }
    }

    /// Writes down that a change is asked for.
    pub(super) async fn begin(
        self: &Arc<Self>,
        remote: Option<SocketAddr>,
        has_token: bool,
        what: String,
    ) -> Result<Change, Problem> {
        let number = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.1 += 1;
            open.1
        };
        let change = Change { number, remote, has_token, what };
        self.note(&change, "asked").await.map_err(|error| {
            Problem::new("audit-failed", format!("the audit log cannot be written, so nothing was done: {error}"))
        })?;
        Ok(change)
    }

    /// Writes down what came of a change, which nothing can undo any more.
    pub(super) async fn end(self: &Arc<Self>, change: &Change, outcome: &str) {
        if let Err(error) = self.note(change, outcome).await {
            tracing::error!("the audit log lacks the outcome `{outcome}` of `{}`: {error}", change.what);
        }
    }

    async fn note(self: &Arc<Self>, change: &Change, outcome: &str) -> io::Result<()> {
        tracing::info!(remote = ?change.remote, what = change.what, outcome, "a change by the admin interface");
        let line = line(change, outcome, SystemTime::now());
        let audit = Arc::clone(self);
        web::block(move || audit.write(&line)).await.map_err(io::Error::other)?
    }

    fn write(&self, line: &Value) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = match open.0.take() {
            Some(file) => file,
            None => open_at_line(path)?,
        };
        file.write_all(format!("{line}\n").as_bytes()).and_then(|()| file.sync_data())?;
        open.0 = Some(file);
        Ok(())
    }
}

/// Opens the log for more lines. A line that a crash or a full disk cut short is ended first.
fn open_at_line(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    if file.metadata()?.len() > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    Ok(file)
}

fn line(Change { number, remote, has_token, what }: &Change, outcome: &str, at: SystemTime) -> Value {
    json!({
        "time": humantime::format_rfc3339_millis(at).to_string(),
        "number": number,
        "remote": remote.map(|remote| remote.to_string()),
        "token": has_token.then_some("admin.token"),
        "what": what,
        "outcome": outcome,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_short_spoils_no_other() {
        let directory = std::env::temp_dir().join(format!("statefn-audit-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let path = directory.join(FILE_NAME);
        std::fs::write(&path, "{\"half").expect("writes");
        let change = Change { number: 1, remote: None, has_token: true, what: "pause ingress a".into() };
        let audit = Audit::new(Some(&directory));
        let lines = ["asked", "done"].map(|outcome| line(&change, outcome, SystemTime::UNIX_EPOCH));
        lines.iter().for_each(|line| audit.write(line).expect("writes"));
        let text = std::fs::read_to_string(&path).expect("reads");
        std::fs::remove_dir_all(&directory).expect("is removed");
        let read: Vec<&str> = text.lines().collect();
        assert_eq!(read, ["{\"half", &lines[0].to_string(), &lines[1].to_string()]);
        assert_eq!(lines[0]["time"], "1970-01-01T00:00:00.000Z");
    }
}
