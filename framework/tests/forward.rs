//! A record that is forwarded arrives as if it had been sent.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use statefn::prelude::*;

#[derive(Debug, Clone, Serialize, Deserialize, Message)]
#[message(name = "word")]
struct Word {
    text: String,
    #[serde(default)]
    times: u64,
}

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Count {
    count: u64,
}

static COUNTS: Egress<Word> = Egress::new("counts");

#[function(name = "words/count", emits(COUNTS))]
impl Count {
    #[on]
    fn word(&mut self, msg: &Word, ctx: &mut Context<Self>) {
        self.count += msg.times;
        ctx.emit(&COUNTS, &Word { text: ctx.key().clone(), times: self.count });
    }
}

#[derive(Debug, Serialize, Deserialize, Reject)]
#[reject(code = "too-many", status = 409)]
struct TooMany {
    times: u64,
}

#[derive(Default, Clone, Serialize, Deserialize, State)]
struct Few {
    count: u64,
}

#[function(name = "words/few")]
impl Few {
    #[on]
    fn word(&mut self, msg: Word) -> Result<(), TooMany> {
        self.count += msg.times;
        if msg.times > 5 { Err(TooMany { times: msg.times }) } else { Ok(()) }
    }
}

/// Runs the words through the app and returns its lines, and how many records were unreadable.
fn run(directory: &Path, words: &Path, forwards: bool) -> (Vec<String>, u64) {
    let router = move |word: Word, out: &mut Router<'_, (Count, ())>| match forwards {
        true => out.forward_unchanged(Count::at(&word.text), word),
        false => out.send(Count::at(&word.text), word),
    };
    let settings = Settings::new().data(directory).input("words", words);
    let app = App::new("words")
        .function::<Count>()
        .ingress(Ingress::<Word>::new("words").to::<Count>(), router)
        .egress(&COUNTS)
        .settings(settings);
    let summary = app.run().expect("runs to its end");
    let lines = fs::read_to_string(directory.join("counts.jsonl")).expect("is written");
    let mut lines: Vec<_> = lines.lines().map(str::to_owned).collect();
    lines.sort();
    (lines, summary.totals.unreadable)
}

fn check(name: &str, content: &str, expected: (&[&str], u64)) {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let words = directory.path().join(name);
    fs::write(&words, content).expect("can be written");
    for forwards in [false, true] {
        let (lines, unreadable) = run(&directory.path().join(forwards.to_string()), &words, forwards);
        assert_eq!(
            (lines.iter().map(String::as_str).collect::<Vec<_>>(), unreadable),
            (expected.0.to_vec(), expected.1)
        );
    }
}

#[test]
fn lines_of_json_are_forwarded_as_they_were_read() {
    // What one record leaves behind in the memory that the next is decoded into must not be seen.
    let content =
        "{\"text\":\"long\",\"times\":7}\n{ \"text\": \"a\" }\nno json\n{\"text\":\"a\",\"times\":2,\"more\":1}\n";
    let lines = [r#"{"text":"a","times":0}"#, r#"{"text":"a","times":2}"#, r#"{"text":"long","times":7}"#];
    check("words.jsonl", content, (&lines, 1));
}

#[test]
fn rows_have_no_bytes_to_forward_and_are_encoded() {
    check(
        "words.csv",
        "text,times\na,1\nb,5\na,2\n",
        (&[r#"{"text":"a","times":1}"#, r#"{"text":"a","times":3}"#, r#"{"text":"b","times":5}"#], 0),
    );
}

#[test]
fn what_a_handler_took_and_rejected_stands_in_the_dead_letters_as_it_was_read() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let words = directory.path().join("words.jsonl");
    let refused = r#"{ "text":"a", "times":7, "more":1 }"#;
    fs::write(&words, format!("{refused}\n{{\"text\":\"a\",\"times\":2}}\n")).expect("can be written");
    let data = directory.path().join("data");
    let app = App::new("words").function::<Few>().ingress(
        Ingress::<Word>::new("words").to::<Few>(),
        |word: Word, out: &mut Router<'_, _>| {
            out.forward_unchanged(Few::at(&word.text), word);
        },
    );
    let summary = app.settings(Settings::new().data(&data).input("words", &words)).run().expect("runs to its end");
    assert_eq!((summary.totals.shards.calls, summary.totals.shards.rejections), (2, 1));
    let letters = fs::read_to_string(data.join("dead-letters.jsonl")).expect("is written");
    let letter: serde_json::Value = serde_json::from_str(letters.trim()).expect("one letter");
    let text = serde_json::to_string(refused).expect("text");
    assert!(letter.to_string().contains(&text), "{letter}");
}
