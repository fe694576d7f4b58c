//! A client that speaks just enough HTTP for tests and benchmarks: one connection, one request at a
//! time, JSON.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection.
pub(crate) struct Client(BufReader<TcpStream>);

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::connect_with(address, PATIENCE)
    }

    /// Connects to a server whose answers may take no longer than `patience`.
    pub(crate) fn connect_with(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        Ok(Self(BufReader::new(stream)))
    }

    pub(crate) fn get(&mut self, path: &str) -> io::Result<Response> {
        self.exchange(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
    }

    /// Posts a JSON body; `once` is its idempotency key.
    pub(crate) fn post(&mut self, path: &str, once: Option<&str>, body: &str) -> io::Result<Response> {
        let once = once.map_or_else(String::new, |once| format!("idempotency-key: {once}\r\n"));
        let length = body.len();
        self.exchange(format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{once}content-length: {length}\r\n\r\n{body}"
        ))
    }

    fn exchange(&mut self, request: String) -> io::Result<Response> {
        self.0.get_mut().write_all(request.as_bytes())?;
        let wrong = |text: &str| io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP: {text}"));
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| wrong(&status))?;
        let mut length = 0;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(given) = line.strip_prefix("content-length:") {
                length = given.trim().parse().map_err(|_| wrong(&line))?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        let body = String::from_utf8(body).map_err(|_| wrong("a body that is no text"))?;
        Ok(Response { status, body })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}
