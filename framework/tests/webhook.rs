//! Which settings of a webhook are refused before anything is opened, and what a run posts.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::mpsc,
    thread,
};

use serde::{Deserialize, Serialize};
use statefn::prelude::*;

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Counter {
    count: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "word")]
struct Word {
    text: String,
}

static COUNTED: Egress<Word> = Egress::new("counted");

#[function(name = "words/counter", emits(COUNTED))]
impl Counter {
    #[on]
    fn word(&mut self, word: &Word, ctx: &mut Context<Self>) {
        self.count += 1;
        ctx.emit(&COUNTED, word);
    }
}

fn app() -> App {
    let words = Ingress::<Word>::new("words").generate(|number| (number < 1).then(|| Word { text: "hello".into() }));
    App::new("words")
        .function::<Counter>()
        .egress(&COUNTED)
        .ingress(words.to::<Counter>(), |word, out| out.send(Counter::at(&word.text), word))
}

#[test]
fn settings_that_no_webhook_can_have_are_refused() {
    for (settings, expected) in [
        (&["egress.counted.to=webhook"][..], "a webhook needs a URL: set `egress.counted.url`"),
        (&["egress.dead-letters.url=http://127.0.0.1:1/"], "dead letters need a place that takes all of them"),
        (&["egress.counted.url=http://127.0.0.1:1/", "egress.counted.to=console"], "this egress calls no webhook"),
        (&["egress.counted.url=http://127.0.0.1:1/", "egress.counted.path=x"], "this egress writes no file"),
        (&["egress.counted.url=http://"], "the egress `counted` cannot post to `http://`"),
        (&["egress.counted.url=https://example.org/"], "build it with the feature `webhook-tls`"),
    ] {
        let given = settings.iter().try_fold(Settings::new(), |all, setting| all.with(setting)).expect("is read");
        let error = app().settings(given).run().expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = Settings::new().with("egress.counted.url=example.org").expect_err("no URL").to_string();
    assert!(error.contains("it must be a URL, such as `https://example.org/hook`"), "{error}");
}

/// A run whose input ends does so once its receiver has all.
#[test]
fn a_run_ends_when_its_receiver_has_all() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    let (sender, posts) = mpsc::channel();
    let receiver = thread::spawn(move || {
        // The first one is not answered, so that it comes again.
        for answer in ["", "HTTP/1.1 200 ok\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"] {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut post = Vec::new();
            while !post.ends_with(b"}") {
                let mut part = [0; 1024];
                let length = stream.read(&mut part).expect("a post");
                post.extend_from_slice(&part[..length]);
            }
            sender.send(String::from_utf8(post).expect("text")).expect("the test waits");
            stream.write_all(answer.as_bytes()).expect("a client");
        }
    });
    let settings = Settings::new().with(&format!("egress.counted.url={url}")).expect("is right");
    let summary = app().settings(settings).run().expect("runs");
    assert_eq!(summary.end, statefn::run::End::Finished);
    receiver.join().expect("two posts");
    let posts: Vec<String> = posts.iter().collect();
    assert_eq!(posts.len(), 2);
    assert!(posts.iter().all(|post| post.ends_with(r#"{"text":"hello"}"#)), "{posts:?}");
    let id = |post: &str| {
        let lower = post.to_lowercase();
        lower.lines().find_map(|line| line.strip_prefix("idempotency-key: ").map(str::to_owned)).expect("an id")
    };
    assert_eq!(id(&posts[0]), id(&posts[1]));
}
