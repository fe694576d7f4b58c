//! Topics, made by one request of Kafka's protocol: who only needs a topic needs no client for it.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// The request `CreateTopics`, in a version whose fields are those that every text of the protocol begins with.
const CREATE_TOPICS: i16 = 19;
const VERSION: i16 = 2;
/// How long the broker may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Makes a topic with one replica.
pub(crate) fn create(broker: SocketAddr, name: &str, partitions: i32) -> io::Result<()> {
    let mut connection = TcpStream::connect(broker)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(&request(name, partitions)?)?;
    let mut length = [0; 4];
    connection.read_exact(&mut length)?;
    let length = usize::try_from(i32::from_be_bytes(length)).ok().filter(|length| *length <= ANSWER_BYTES_MAX);
    let mut answer = vec![0; length.ok_or_else(garbled)?];
    connection.read_exact(&mut answer)?;
    check(Fields(&answer))
}

/// The request behind its length.
fn request(name: &str, partitions: i32) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    body.extend(CREATE_TOPICS.to_be_bytes());
    body.extend(VERSION.to_be_bytes());
    // A correlation, and no name of the client.
    body.extend(0_i32.to_be_bytes());
    body.extend((-1_i16).to_be_bytes());
    // One topic, and no choice of brokers.
    body.extend(1_i32.to_be_bytes());
    text(&mut body, name)?;
    body.extend(partitions.to_be_bytes());
    body.extend(1_i16.to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    text(&mut body, "retention.ms")?;
    text(&mut body, "-1")?;
    body.extend(i32::try_from(PATIENCE.as_millis()).unwrap_or(i32::MAX).to_be_bytes());
    // It is not only tried.
    body.push(0);
    let length = i32::try_from(body.len()).map_err(|_| garbled())?;
    Ok([&length.to_be_bytes()[..], &body].concat())
}

fn text(body: &mut Vec<u8>, text: &str) -> io::Result<()> {
    let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("the name has {} bytes", text.len()));
    body.extend(i16::try_from(text.len()).map_err(too_long)?.to_be_bytes());
    body.extend(text.as_bytes());
    Ok(())
}

/// Reads what the broker says of the one topic.
fn check(mut answer: Fields<'_>) -> io::Result<()> {
    // The correlation, how long clients are to wait, how many topics, and the name.
    answer.skip(12)?;
    answer.text()?;
    let code = answer.number()?;
    let why = answer.text()?;
    if code == 0 { Ok(()) } else { Err(io::Error::other(format!("the broker refuses it with code {code}: {why}"))) }
}

/// The fields of an answer that are not read yet.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn skip(&mut self, bytes: usize) -> io::Result<&[u8]> {
        let (field, rest) = self.0.split_at_checked(bytes).ok_or_else(garbled)?;
        self.0 = rest;
        Ok(field)
    }

    fn number(&mut self) -> io::Result<i16> {
        Ok(i16::from_be_bytes(self.skip(2)?.try_into().map_err(|_| garbled())?))
    }

    /// A text; one that is not there is empty.
    fn text(&mut self) -> io::Result<String> {
        let length = usize::try_from(self.number()?).unwrap_or_default();
        Ok(String::from_utf8_lossy(self.skip(length)?).into_owned())
    }
}

fn garbled() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the broker's answer cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_broker_refuses_is_told() {
        let answer = |code: i16, why: &[u8]| [&[0; 12], &[0, 1, b't'][..], &code.to_be_bytes(), why].concat();
        assert!(check(Fields(&answer(0, &[0xff, 0xff]))).is_ok());
        let refused = check(Fields(&answer(36, &[0, 3, b'w', b'h', b'y']))).expect_err("it is refused");
        assert_eq!(refused.to_string(), "the broker refuses it with code 36: why");
        for length in 0..answer(0, &[0xff, 0xff]).len() {
            assert!(check(Fields(&answer(0, &[0xff, 0xff])[..length])).is_err(), "{length} bytes");
        }
    }
}
