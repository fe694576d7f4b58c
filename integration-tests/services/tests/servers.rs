//! The servers start, can be killed, stopped, frozen and restarted, and end with their parent.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, test_kill_process};
use services::{Error, kafka::Broker, s3::Server};

const LIMIT: Duration = Duration::from_secs(60);

/// A request that any Kafka broker answers: `ApiVersions` version 0, correlation 7, no client id.
const API_VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun_at = Instant::now();
    while !is_so() {
        assert!(begun_at.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn runs(id: u32) -> bool {
    test_kill_process(Pid::from_raw(id.try_into().expect("a process id")).expect("not 0")).is_ok()
}

/// The first bytes of the answer to a request; none if there is no answer.
fn ask(address: &str, request: &[u8], answer: &mut [u8], limit: Duration) -> bool {
    let Ok(mut connection) = TcpStream::connect(address) else { return false };
    connection.set_read_timeout(Some(limit)).expect("a limit can be set");
    connection.write_all(request).and_then(|()| connection.read_exact(answer)).is_ok()
}

fn broker_answers(broker: &Broker, limit: Duration) -> bool {
    let mut answer = [0; 10];
    let is_answered = ask(broker.bootstrap(), &API_VERSIONS, &mut answer, limit);
    // The correlation and no error.
    is_answered && answer[4..] == [0, 0, 0, 7, 0, 0]
}

fn s3_answers(server: &Server, limit: Duration) -> bool {
    let mut answer = [0; 9];
    let request = format!("GET /{} HTTP/1.1\r\nHost: s3\r\nConnection: close\r\n\r\n", server.bucket());
    let address = server.endpoint().strip_prefix("http://").expect("without TLS");
    ask(address, request.as_bytes(), &mut answer, limit) && answer == *b"HTTP/1.1 "
}

fn is_refused(address: &str) -> bool {
    TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[test]
fn a_shared_broker_is_one() {
    let Some(broker) = Broker::shared() else { return };
    assert!(broker_answers(broker, LIMIT));
    assert!(std::ptr::eq(broker, Broker::shared().unwrap()));
}

#[test]
fn a_topic_is_made_once() {
    let Some(broker) = Broker::shared() else { return };
    broker.create_topic("made-once", 3).unwrap();
    let again = broker.create_topic("made-once", 3).unwrap_err().to_string();
    assert!(again.starts_with("cannot make the topic `made-once`: the broker refuses it with code 36: "), "{again}");
}

#[test]
fn a_broker_survives_a_kill_on_its_port() {
    if Broker::shared().is_none() {
        return;
    }
    let mut broker = Broker::start().unwrap();
    assert!(broker_answers(&broker, LIMIT));
    let (address, before) = (broker.bootstrap().to_owned(), broker.process_id().unwrap());
    assert!(runs(before));

    broker.kill().unwrap();
    assert!(!runs(before));
    assert!(is_refused(&address));
    assert_eq!(broker.process_id(), None);
    broker.kill().unwrap();
    // While it is down the system gives its port to nobody, not even to a client that wants it.
    let port = address.parse::<SocketAddr>().unwrap().port();
    for _ in 0..1_000 {
        assert_ne!(TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(), port);
        assert!(is_refused(&address));
    }

    broker.restart().unwrap();
    assert_eq!(broker.bootstrap(), address);
    assert_ne!(broker.process_id(), Some(before));
    assert!(broker_answers(&broker, LIMIT));
    let directory = broker.directory().to_owned();
    drop(broker);
    assert!(!directory.exists());
}

#[test]
fn a_broker_can_be_stopped_and_frozen() {
    if Broker::shared().is_none() {
        return;
    }
    let mut broker = Broker::start().unwrap();
    broker.pause().unwrap();
    let id = broker.process_id().unwrap();
    // The system still takes the connection, nobody answers.
    assert!(!broker_answers(&broker, Duration::from_millis(200)));
    broker.resume().unwrap();
    assert!(broker_answers(&broker, LIMIT));

    // One that is frozen can be killed as well.
    broker.pause().unwrap();
    broker.kill().unwrap();
    assert!(!runs(id));
    assert!(matches!(broker.resume(), Err(Error::Stopped { .. })));

    broker.restart().unwrap();
    broker.stop().unwrap();
    assert!(is_refused(broker.bootstrap()));
}

#[test]
fn an_s3_server_can_be_killed_stopped_and_frozen() {
    let Some(shared) = Server::shared() else { return };
    assert!(s3_answers(shared, LIMIT));
    let mut server = Server::start().unwrap();
    assert_ne!(server.endpoint(), shared.endpoint());
    let (endpoint, address) = (server.endpoint().to_owned(), server.endpoint().replace("http://", ""));
    assert!(server.directory().join(server.bucket()).is_dir());

    server.kill().unwrap();
    assert!(is_refused(&address));
    server.restart().unwrap();
    assert_eq!(server.endpoint(), endpoint);
    assert!(s3_answers(&server, LIMIT));

    server.pause().unwrap();
    assert!(!s3_answers(&server, Duration::from_millis(200)));
    server.resume().unwrap();
    assert!(s3_answers(&server, LIMIT));

    server.stop().unwrap();
    assert!(is_refused(&address));
    assert!(matches!(server.pause(), Err(Error::Stopped { .. })));
    server.restart().unwrap();
    assert!(s3_answers(&server, LIMIT));
}

fn ends_with_its_parent(name: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_start-and-abort")).arg(name).output().expect("it was built");
    assert!(!output.status.success(), "it aborts");
    let line = String::from_utf8(output.stdout).expect("text");
    let (id, directory) = line.trim().split_once(' ').unwrap_or_else(|| {
        panic!("it says where the server is: `{line}`, {}", String::from_utf8_lossy(&output.stderr))
    });
    let id = id.parse().expect("a number");
    wait_until("the server ends", || !runs(id));
    wait_until("its files are removed", || !Path::new(directory).exists());
}

#[test]
fn a_broker_ends_with_a_parent_that_aborts() {
    if Broker::shared().is_some() {
        ends_with_its_parent("kafka");
    }
}

#[test]
fn an_s3_server_ends_with_a_parent_that_aborts() {
    if Server::shared().is_some() {
        ends_with_its_parent("s3");
    }
}
