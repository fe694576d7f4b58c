//! Statements to a webhook, from a process that is killed again and again: each comes, and what comes again
//! has the id that it had.

#![allow(clippy::unwrap_used, reason = "a test fails loudly where it stands")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

/// How long something may take to come.
const DEADLINE: Duration = Duration::from_secs(120);
const ORDERS: usize = 150;
/// How many posts come between two kills.
const POSTS_BETWEEN_KILLS: usize = 40;

/// What came: id and body, and whether it was taken.
type Posts = Arc<Mutex<Vec<(String, String, bool)>>>;

/// A receiver that now and then says that it cannot, or hangs up.
fn receiver() -> (Posts, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let posts = Posts::default();
    let known = Arc::clone(&posts);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let posts = Arc::clone(&known);
            // A client that dies in the middle ends its connection, and no more.
            thread::spawn(move || _ = serve(&stream.unwrap(), &posts));
        }
    });
    (posts, format!("http://{address}/statements"))
}

fn serve(stream: &TcpStream, posts: &Posts) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut id, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("idempotency-key") => id = value.to_owned(),
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
                None if line.trim_end().is_empty() => break,
                Some(_) | None => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let mut posts = posts.lock().unwrap();
        let number = posts.len();
        posts.push((id, String::from_utf8(body).unwrap(), number % 11 != 5));
        drop(posts);
        // As if somebody worked with it.
        thread::sleep(Duration::from_millis(1));
        match number {
            number if number % 11 == 5 => (&*stream).write_all(b"HTTP/1.1 503 no\r\nContent-Length: 0\r\n\r\n")?,
            // It was taken, and the client never learns it.
            number if number % 17 == 8 => return Ok(()),
            _ => (&*stream).write_all(b"HTTP/1.1 200 ok\r\nContent-Length: 2\r\n\r\nok")?,
        }
    }
}

/// Dropping it kills it.
struct Bank(Child);

impl Drop for Bank {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bank(directory: &Path, settings: &[&str]) -> Bank {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bank"));
    command.current_dir(directory).env_remove("RUST_LOG").args(["--set", "ingress.orders.path=orders.jsonl"]);
    settings.iter().for_each(|setting| _ = command.args(["--set", setting]));
    Bank(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

fn write_orders(directory: &Path) {
    let order = |number: usize| {
        let account = format!("account-{}", number % 7);
        let action = match number {
            0..7 => r#"{"pay-in":{"cents":10000}}"#.to_owned(),
            _ => format!(r#"{{"transfer":{{"to":"account-{}","cents":{}}}}}"#, number * 5 % 7, number % 90 + 1),
        };
        format!(r#"{{"at_ms":{},"account":"{account}","action":{action}}}"#, number * 1_000) + "\n"
    };
    fs::write(directory.join("orders.jsonl"), (0..ORDERS).map(order).collect::<String>()).unwrap();
}

/// What a run without kills writes to a file.
fn expected(directory: &Path) -> Vec<String> {
    assert!(bank(directory, &["data=undisturbed"]).0.wait().unwrap().success());
    let text = fs::read_to_string(directory.join("undisturbed/statements.jsonl")).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn kills_lose_no_statement_and_repeat_only_with_the_same_id() {
    let directory = tempfile::tempdir().unwrap();
    write_orders(directory.path());
    let expected = expected(directory.path());
    assert!(expected.len() >= ORDERS, "{} statements", expected.len());
    let (posts, url) = receiver();
    let settings = [format!("egress.statements.url={url}"), "egress.statements.retry_first=5ms".to_owned()];
    let settings: Vec<&str> = settings.iter().map(String::as_str).chain(["data=data"]).collect();
    let (mut kills, begun) = (0, Instant::now());
    loop {
        let before = posts.lock().unwrap().len();
        let mut bank = bank(directory.path(), &settings);
        let end = loop {
            if posts.lock().unwrap().len() >= before + POSTS_BETWEEN_KILLS && kills < 6 {
                break None;
            }
            if let Some(status) = bank.0.try_wait().unwrap() {
                break Some(status);
            }
            assert!(begun.elapsed() < DEADLINE, "it does not come to an end");
            thread::sleep(Duration::from_millis(1));
        };
        match end {
            None => kills += 1,
            Some(status) => {
                assert!(status.success());
                break;
            }
        }
    }
    let posts = posts.lock().unwrap();
    let mut ids = BTreeMap::new();
    for (id, body, is_taken) in posts.iter() {
        let before = ids.entry(id).or_insert((body, false));
        assert_eq!(before.0, body, "one id, one record");
        before.1 |= is_taken;
    }
    assert!(ids.values().all(|(_, is_taken)| *is_taken), "each was taken in the end");
    let mut bodies: Vec<String> = ids.values().map(|(body, _)| (*body).clone()).collect();
    bodies.sort();
    assert_eq!(bodies, expected, "each statement once, but for repeats of its id");
    println!("{kills} kills, {} posts of {} statements", posts.len(), bodies.len());
    assert!(kills == 6 && posts.len() > bodies.len(), "it was killed in the middle, and something came again");
}
