//! Records to a webhook, against a little server that fails in every way that servers do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, http::StatusCode, rt, web};
use statefn_core::{Encoding, ports::egress::Egresses};
use statefn_runtime::egress::{FileEgress, Place, SinkSpec, WebhookSpec};

/// How long something may take to come.
const DEADLINE: Duration = Duration::from_secs(60);
const SHARDS: u32 = 4;
const HOOK: usize = 0;
const FILE: usize = 1;

/// What came to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Post {
    id: String,
    content_type: String,
    authorization: Option<String>,
    body: String,
    /// How it was answered; none if it was not.
    status: Option<u16>,
}

impl Post {
    fn is_taken(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    /// The shard, as its id has it.
    fn shard(&self) -> u32 {
        self.id.split('/').nth(1).and_then(|shard| shard.parse().ok()).expect("an id has a shard")
    }
}

/// What the server does with a post; `before` is what has come already.
type Behaviour = Box<dyn Fn(&Post, &[Post]) -> Answer + Send + Sync>;

enum Answer {
    Status(u16),
    /// Asks for so many seconds of patience.
    Busy(u64),
    /// Answers when its client has given up.
    Slow(Duration),
}

struct Inside {
    posts: Mutex<Vec<Post>>,
    behaviour: Behaviour,
}

impl Inside {
    fn posts(&self) -> MutexGuard<'_, Vec<Post>> {
        self.posts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(inside: web::Data<Self>, request: HttpRequest, body: web::Bytes) -> HttpResponse {
        let header = |name: &str| request.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
        let mut post = Post {
            id: header("Idempotency-Key").expect("each record has an id"),
            content_type: header("Content-Type").unwrap_or_default(),
            authorization: header("Authorization"),
            body: String::from_utf8_lossy(&body).into_owned(),
            status: None,
        };
        let answer = (inside.behaviour)(&post, &inside.posts());
        let mut retry_after = None;
        post.status = match answer {
            Answer::Status(status) => Some(status),
            Answer::Busy(seconds) => {
                retry_after = Some(seconds);
                Some(503)
            }
            Answer::Slow(_) => None,
        };
        let status = post.status;
        inside.posts().push(post);
        if let Answer::Slow(time) = answer {
            rt::time::sleep(time).await;
        }
        let mut response = HttpResponse::build(StatusCode::from_u16(status.unwrap_or(200)).expect("a status"));
        retry_after.into_iter().for_each(|seconds| _ = response.insert_header(("Retry-After", seconds.to_string())));
        response.body("because")
    }
}

/// A server; dropped, it is down.
struct Receiver {
    inside: Arc<Inside>,
    address: SocketAddr,
    handle: ServerHandle,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Receiver {
    fn start(behaviour: impl Fn(&Post, &[Post]) -> Answer + Send + Sync + 'static) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let posts = Mutex::new(Vec::new());
        Self::start_at(address, Arc::new(Inside { posts, behaviour: Box::new(behaviour) }))
    }

    fn start_at(address: SocketAddr, inside: Arc<Inside>) -> Self {
        let (sender, started) = std::sync::mpsc::channel();
        let data = web::Data::from(Arc::clone(&inside));
        let thread = std::thread::spawn(move || {
            rt::System::new().block_on(async move {
                let app = move || App::new().app_data(data.clone()).default_service(web::to(Inside::answer));
                let server = HttpServer::new(app).workers(1).disable_signals().bind(address).expect("a port");
                let address = server.addrs()[0];
                let server = server.run();
                sender.send((address, server.handle())).expect("the test waits");
                server.await.expect("a server");
            });
        });
        let (address, handle) = started.recv().expect("the server starts");
        Self { inside, address, handle, thread: Some(thread) }
    }

    fn posts(&self) -> Vec<Post> {
        self.inside.posts().clone()
    }

    fn taken(&self) -> Vec<Post> {
        self.posts().into_iter().filter(Post::is_taken).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        rt::System::new().block_on(self.handle.stop(false));
        self.thread.take().into_iter().for_each(|thread| thread.join().expect("the server ends"));
    }
}

/// Always the same answer.
fn says(status: u16) -> impl Fn(&Post, &[Post]) -> Answer {
    move |_, _| Answer::Status(status)
}

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Egresses with a webhook at this address, a file, and dead letters.
    fn open(&self, address: SocketAddr) -> FileEgress {
        self.open_with(spec(address), Encoding::Json)
    }

    fn open_with(&self, webhook: WebhookSpec, encoding: Encoding) -> FileEgress {
        let file = |name: &str| {
            let place = Place::File(self.path(&format!("{name}.jsonl")));
            SinkSpec { name: name.into(), encoding: Encoding::Json, place }
        };
        let hook = SinkSpec { name: "hook".into(), encoding, place: Place::Webhook(webhook) };
        let sinks = vec![hook, file("file"), file("dead-letters")];
        FileEgress::open(&self.path("data"), sinks, SHARDS).expect("opens")
    }

    fn lines(&self, name: &str) -> Vec<String> {
        lines(&self.path(&format!("{name}.jsonl")))
    }
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).expect("is there").lines().map(str::to_owned).collect()
}

fn spec(address: SocketAddr) -> WebhookSpec {
    WebhookSpec {
        retry_first: Duration::from_millis(5),
        retry_longest: Duration::from_millis(50),
        ..WebhookSpec::new(format!("http://{address}/hook?of=app"))
    }
}

fn write(egress: &mut FileEgress, shard: u32, epoch: u64, records: &[(usize, &str)]) {
    egress.write_epoch(shard, epoch, records.iter().map(|(sink, record)| (*sink, record.as_bytes())));
}

/// Marks what is delivered until this holds.
fn until(egress: &mut FileEgress, what: &str, mut holds: impl FnMut(&mut FileEgress) -> bool) {
    let begun = Instant::now();
    loop {
        egress.sync().expect("a receiver is no reason for a sync to fail");
        if holds(egress) {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn until_taken(egress: &mut FileEgress) {
    until(egress, "all is taken", |egress| !egress.is_behind());
}

/// Whether records of each shard came in their order, each once but for repeats of it; returns the bodies.
fn in_order(posts: &[Post]) -> BTreeMap<u32, Vec<String>> {
    let mut shards = BTreeMap::<u32, Vec<String>>::new();
    let mut ids = BTreeMap::<&str, &str>::new();
    for post in posts {
        let bodies = shards.entry(post.shard()).or_default();
        assert!(ids.insert(&post.id, &post.body).is_none_or(|before| before == post.body), "one id, one record");
        if bodies.last() != Some(&post.body) {
            assert!(!bodies.contains(&post.body), "{} comes behind a later one of its shard: {posts:?}", post.body);
            bodies.push(post.body.clone());
        }
    }
    shards
}

#[test]
fn each_record_is_posted_once_with_an_id_and_its_type() {
    let receiver = Receiver::start(says(200));
    let directory = Directory::new();
    let spec = WebhookSpec { authorization: Some("Bearer sesame".into()), ..spec(receiver.address) };
    let mut egress = directory.open_with(spec.clone(), Encoding::Json);
    assert_eq!(format!("{spec:?}").find("sesame"), None, "what is secret is not shown");
    write(&mut egress, 0, 1, &[(HOOK, r#"{"a":1}"#), (FILE, "x"), (HOOK, r#"{"a":2}"#)]);
    write(&mut egress, 3, 1, &[]);
    write(&mut egress, 3, 2, &[(HOOK, r#"{"a":3}"#)]);
    until_taken(&mut egress);
    assert_eq!((egress.taken(0), egress.taken(3), egress.written(HOOK).records), (1, 2, 3));
    let mut posts = receiver.posts();
    posts.sort_by_key(|post| post.body.clone());
    let bodies: Vec<&str> = posts.iter().map(|post| &*post.body).collect();
    assert_eq!(bodies, [r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":3}"#]);
    let incarnation = posts[0].id.split('/').next().expect("an id").to_owned();
    let ids: Vec<String> = posts.iter().map(|post| post.id.replace(&incarnation, "")).collect();
    assert_eq!((ids, incarnation.len()), (["/0/1/0", "/0/1/1", "/3/2/0"].map(str::to_owned).to_vec(), 16));
    assert!(posts.iter().all(|post| post.content_type == "application/json"));
    assert!(posts.iter().all(|post| post.authorization.as_deref() == Some("Bearer sesame")));
    drop(egress);

    let other = Directory::new();
    let mut egress = other.open_with(WebhookSpec { authorization: None, ..spec }, Encoding::Protobuf);
    write(&mut egress, 0, 1, &[(HOOK, "\u{8}\u{3}")]);
    until_taken(&mut egress);
    let post = receiver.posts().pop().expect("it came");
    assert_eq!((&*post.content_type, &*post.body, post.authorization), ("application/x-protobuf", "\u{8}\u{3}", None));
    assert!(!post.id.starts_with(&incarnation), "another app's records have other ids");
}

#[test]
fn what_fails_comes_again_with_its_id_and_in_order() {
    // Every attempt but each third fails, in another way each time.
    let receiver = Receiver::start(|post, before| {
        let attempts = before.iter().filter(|other| other.id == post.id).count();
        match (attempts, before.len() % 5) {
            (2.., _) => Answer::Status(204),
            (_, 0) => Answer::Status(500),
            (_, 1) => Answer::Status(429),
            (_, 2) => Answer::Status(302),
            (_, 3) => Answer::Busy(0),
            _ => Answer::Slow(Duration::from_millis(300)),
        }
    });
    let directory = Directory::new();
    let spec = WebhookSpec { time_max: Duration::from_millis(150), ..spec(receiver.address) };
    let mut egress = directory.open_with(spec, Encoding::Json);
    let mut expected = BTreeMap::<u32, Vec<String>>::new();
    for epoch in 1..=5 {
        for shard in 0..SHARDS {
            let records = [0, 1].map(|number| format!("{shard}-{epoch}-{number}"));
            write(&mut egress, shard, epoch, &[(HOOK, &records[0]), (HOOK, &records[1])]);
            expected.entry(shard).or_default().extend(records);
        }
    }
    until_taken(&mut egress);
    let posts = receiver.posts();
    assert_eq!(in_order(&posts), expected);
    assert_eq!(receiver.taken().len(), 40);
    assert!(posts.len() >= 120, "each was tried three times");
    assert_eq!(directory.lines("dead-letters"), Vec::<String>::new());
}

#[test]
fn a_record_that_fails_stops_its_shard_alone() {
    let receiver = Receiver::start(|post, before| {
        let is_last = before.iter().filter(|other| other.is_taken()).count() == 6;
        Answer::Status(if post.body == "stuck" && !is_last { 503 } else { 200 })
    });
    let directory = Directory::new();
    let mut egress = directory.open(receiver.address);
    write(&mut egress, 1, 1, &[(HOOK, "stuck"), (HOOK, "behind")]);
    for shard in [0, 2, 3] {
        write(&mut egress, shard, 1, &[(HOOK, "a"), (HOOK, "b"), (FILE, "line")]);
    }
    until_taken(&mut egress);
    let taken: Vec<String> = receiver.taken().into_iter().map(|post| post.body).collect();
    assert_eq!(taken[6..], ["stuck", "behind"], "all others came before");
    assert_eq!(directory.lines("file").len(), 3);
}

#[test]
fn a_receiver_that_is_down_keeps_nothing_else_up() {
    let inside = Arc::new(Inside { posts: Mutex::new(Vec::new()), behaviour: Box::new(says(200)) });
    let address = Receiver::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), Arc::clone(&inside)).address;
    // It is down now.
    let directory = Directory::new();
    let mut egress = directory.open(address);
    write(&mut egress, 0, 1, &[(HOOK, "hook"), (FILE, "line")]);
    write(&mut egress, 2, 1, &[(FILE, "line")]);
    until(&mut egress, "others do not wait", |egress| egress.taken(2) == 1);
    assert_eq!(directory.lines("file").len(), 2, "files do not wait");
    assert_eq!((egress.taken(0), egress.is_delivering(), egress.delivering_bytes()), (0, true, 4));
    let receiver = Receiver::start_at(address, inside);
    until_taken(&mut egress);
    assert_eq!(receiver.taken().len(), 1);
    assert!(!egress.is_delivering() && egress.delivering_bytes() == 0);
}

/// Reads a little of each request and hangs up.
#[test]
fn a_receiver_that_hangs_up_is_asked_again() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let rude = std::thread::spawn(move || {
        for _ in 0..5 {
            let (mut stream, _) = listener.accept().expect("a client");
            _ = stream.read(&mut [0; 20]);
        }
        // Dropped with what it has not read: the client sees a reset.
    });
    let directory = Directory::new();
    let mut egress = directory.open(address);
    write(&mut egress, 0, 1, &[(HOOK, "hook")]);
    rude.join().expect("five times");
    let receiver =
        Receiver::start_at(address, Arc::new(Inside { posts: Mutex::new(Vec::new()), behaviour: Box::new(says(200)) }));
    until_taken(&mut egress);
    assert_eq!(receiver.taken().len(), 1);
}

#[test]
fn what_is_refused_is_a_dead_letter_and_the_next_one_goes_on() {
    let receiver = Receiver::start(|post, _| Answer::Status(if post.body.contains("bad") { 422 } else { 200 }));
    let directory = Directory::new();
    let mut egress = directory.open(receiver.address);
    write(&mut egress, 0, 1, &[(HOOK, "good"), (HOOK, "bad"), (HOOK, "better")]);
    // A process that dies before the mark has the letter again, and the file has it once.
    let begun = Instant::now();
    while egress.is_delivering() {
        assert!(begun.elapsed() < DEADLINE, "all is taken");
        std::thread::sleep(Duration::from_millis(2));
    }
    drop(egress);
    let mut egress = directory.open(receiver.address);
    assert_eq!(egress.taken(0), 0);
    write(&mut egress, 0, 1, &[(HOOK, "good"), (HOOK, "bad"), (HOOK, "better")]);
    until_taken(&mut egress);
    let bodies: Vec<String> = receiver.posts().into_iter().map(|post| post.body).collect();
    assert_eq!(bodies, ["good", "bad", "better", "good", "bad", "better"]);
    let ids: BTreeSet<String> = receiver.posts().into_iter().map(|post| post.id).collect();
    assert_eq!(ids.len(), 3, "repeats have the same ids");
    let letters = directory.lines("dead-letters");
    let [letter] = &letters[..] else { panic!("one letter: {letters:?}") };
    let letter: serde_json::Value = serde_json::from_str(letter).expect("JSON");
    assert_eq!(
        (&letter["reason"], &letter["egress"], &letter["text"]),
        (&"refused".into(), &"hook".into(), &"bad".into())
    );
    assert_eq!(letter["error"], "the receiver answered 422 Unprocessable Entity: because");
    assert!(letter["position"].as_str().is_some_and(|id| id.ends_with("/0/1/1")), "{letter}");
    drop(egress);
    let egress = directory.open(receiver.address);
    assert_eq!((egress.taken(0), directory.lines("dead-letters").len()), (1, 1), "what a mark covers is not repeated");
}

/// The process dies at any moment, again and again: nothing is lost, and what comes again has its id.
#[test]
fn deaths_lose_nothing_and_repeat_only_with_the_same_id() {
    let receiver = Receiver::start(|_, before| Answer::Status(if before.len() % 7 == 3 { 500 } else { 200 }));
    let directory = Directory::new();
    let record = |shard: u32, epoch: u64| format!("{shard}-{epoch}");
    let mut deaths = 0;
    let last = 30;
    while deaths < 25 {
        let mut egress = directory.open(receiver.address);
        // As recovery does: what no mark covers is given again.
        for shard in 0..SHARDS {
            for epoch in egress.taken(shard) + 1..=(egress.taken(shard) + 4).min(last) {
                write(&mut egress, shard, epoch, &[(HOOK, &record(shard, epoch))]);
            }
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(deaths % 5) {
            egress.sync().expect("syncs");
        }
        deaths += 1;
    }
    let mut egress = directory.open(receiver.address);
    for shard in 0..SHARDS {
        for epoch in egress.taken(shard) + 1..=last {
            write(&mut egress, shard, epoch, &[(HOOK, &record(shard, epoch))]);
        }
    }
    until_taken(&mut egress);
    let taken = receiver.taken();
    let ids: BTreeMap<String, String> = taken.iter().map(|post| (post.id.clone(), post.body.clone())).collect();
    let bodies: BTreeSet<&String> = ids.values().collect();
    let expected: Vec<String> =
        (0..SHARDS).flat_map(|shard| (1..=last).map(move |epoch| record(shard, epoch))).collect();
    assert_eq!(bodies, expected.iter().collect(), "each record came");
    assert_eq!(ids.len(), expected.len(), "and has one id");
    assert!(taken.len() > expected.len(), "some came again");
}

#[test]
fn a_webhook_that_cannot_be_called_is_said_at_the_start() {
    let directory = Directory::new();
    for (url, reason) in [
        ("hook.example.org", "it must begin with `http://` or `https://` and name a host"),
        ("ftp://hook.example.org/", "it must begin with"),
    ] {
        let hook =
            SinkSpec { name: "hook".into(), encoding: Encoding::Json, place: Place::Webhook(WebhookSpec::new(url)) };
        let error = FileEgress::open(&directory.path("data"), vec![hook], 1).expect_err("is refused").to_string();
        assert!(error.starts_with(&format!("the egress `hook` cannot post to `{url}`: {reason}")), "{error}");
    }
}
