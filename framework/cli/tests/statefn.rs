//! The command `statefn` as a process, against an app that runs and against the data that it leaves.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Output},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use statefn::{
    prelude::*,
    run::Running,
    settings::{AdminSettings, HttpSettings, Secret},
};

const TOKEN: &str = "open sesame";

#[derive(Debug, Default, Clone, Serialize, Deserialize, State)]
struct Till {
    cents: i64,
}

#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "sale")]
struct Sale {
    till: String,
    cents: i64,
}

#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "closing")]
struct Closing {}

static SUMS: Egress<Sum> = Egress::new("sums");

#[derive(Debug, Serialize, Deserialize, Message)]
#[message(name = "sum")]
struct Sum {
    cents: i64,
}

#[function(name = "shop/till", emits(SUMS))]
impl Till {
    #[on]
    fn sale(&mut self, sale: &Sale, ctx: &mut Context<Self>) -> Result<(), Fault> {
        if sale.cents == 13 {
            return Err(Fault::new("an unlucky number"));
        }
        self.cents += sale.cents;
        ctx.emit(&SUMS, &Sum { cents: self.cents });
        ctx.set_timer_as("closing", EventTime(4_000_000_000_000), Closing {});
        Ok(())
    }
    #[on_timer]
    fn closing(&mut self, _: &Closing) {}
}

fn app() -> App {
    let sales = (0..100).map(|number| Sale { till: format!("till-{}", number % 10), cents: 1 });
    let unlucky = [13, 7].map(|cents| Sale { till: "till-3".into(), cents });
    let sales = Arc::new(Mutex::new(sales.chain(unlucky).collect::<Vec<_>>()));
    let next = move |number: u64| {
        let sales = sales.lock().expect("nobody panics");
        sales.get(number as usize).map(|sale| Sale { till: sale.till.clone(), cents: sale.cents })
    };
    App::new("shop").function::<Till>().egress(&SUMS).ingress(
        Ingress::<Sale>::new("sales").generate(next).to::<Till>(),
        |sale, out| {
            out.send(Till::at(&sale.till), sale);
        },
    )
}

/// The app, which has read all sales, and the URL of its admin interface.
fn start(data: &Path) -> (Running, String) {
    let listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let admin = AdminSettings { listen, token: Some(Secret::new(TOKEN)) };
    let http = HttpSettings { listen, ..HttpSettings::default() };
    let settings = Settings { data: Some(data.into()), shards: Some(4), admin, http, ..Settings::default() };
    let running = app().settings(settings).start().expect("the app starts");
    let url = format!("http://{}", running.admin_address().expect("it listens"));
    while asked(&url, &["status"])["ingresses"][0]["partitions"][0]["is_ended"] != true {
        assert!(!running.is_finished(), "the app ends");
        std::thread::sleep(Duration::from_millis(5));
    }
    (running, url)
}

fn stop(running: Running) {
    running.stopper().stop();
    running.wait().expect("it stops");
}

fn statefn(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_statefn"));
    command.args(arguments).env("STATEFN_ADMIN_TOKEN", TOKEN);
    command.output().expect("it runs")
}

fn text(arguments: &[&str]) -> String {
    let output = statefn(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("is text")
}

fn error(arguments: &[&str]) -> String {
    let output = statefn(arguments);
    assert!(!output.status.success(), "{arguments:?} did not fail");
    String::from_utf8(output.stderr).expect("is text")
}

fn asked(url: &str, arguments: &[&str]) -> Value {
    let text = text(&[arguments, &["--url", url, "--output", "json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

const TILL: [&str; 4] = ["--function", "shop/till", "--key", "till-3"];

#[test]
fn a_running_app_and_its_data_answer_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let (running, url) = start(&data);
    let keys = asked(&url, &["keys", "--function", "shop/till"]);
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(10));
    assert_eq!(asked(&url, &[&["state"], &TILL[..]].concat())["state"], json!({ "cents": 10 }));
    let timers = asked(&url, &[&["timers"], &TILL[..]].concat());
    assert_eq!(
        (&timers["timers"][0]["name"], &timers["timers"][0]["due_ms"]),
        (&json!("closing"), &json!(4_000_000_000_000_i64))
    );
    let parked = asked(&url, &["parked", "list"]);
    assert_eq!(
        (&parked["parked"][0]["reason"], &parked["parked"][0]["queue"]),
        (&json!("an unlucky number"), &json!(2))
    );
    let status = text(&["status", "--url", &url]);
    assert!(
        status.starts_with("shop is ready") && status.contains("HELD BY") && status.contains("the clock"),
        "{status}"
    );
    assert!(text(&["graph", "--url", &url, "--format", "mermaid"]).contains("n0 --> n1"));
    assert_eq!(asked(&url, &["functions"])["functions"][0]["keys"], 10);
    // What runs holds the lock of its data.
    let data = data.to_str().expect("is text");
    assert!(error(&["keys", "--function", "shop/till", "--data", data]).contains("--url"));
    assert!(error(&["check", "--url", &url]).contains("reads a data directory"));
    stop(running);

    let read = |arguments: &[&str]| -> Value {
        let text = text(&[arguments, &["--data", data, "--output", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    };
    assert_eq!(read(&["keys", "--function", "shop/till"]), keys);
    assert_eq!(read(&["keys", "--function", "shop/till", "--limit", "3"])["keys"].as_array().map(Vec::len), Some(3));
    assert_eq!(read(&[&["state"], &TILL[..]].concat())["state"], json!({ "cents": 10 }));
    assert_eq!(read(&[&["timers"], &TILL[..]].concat())["timers"], timers["timers"]);
    assert_eq!(read(&["parked", "list"]), parked);
    assert_eq!(read(&["status"])["shards"].as_array().map(Vec::len), Some(4));
    assert_eq!(text(&["state", "--data", data]).lines().count(), 10);
    assert!(text(&["check", "--data", data]).ends_with("4 shards are whole\n"));
    assert!(error(&["graph", "--data", data]).contains("the binary of the app `shop`"));
    assert!(error(&["pause", "--ingress", "sales", "--data", data]).contains("a change needs the app"));
    assert!(error(&["state", "--function", "shop/till", "--key", "x", "--data", data]).contains("no-state"));
}

#[test]
fn parked_keys_and_pauses_are_changed_where_the_app_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    let (running, url) = start(&directory.path().join("data"));
    let changed = |arguments: &[&str]| asked(&url, arguments);
    assert_eq!(changed(&["parked", "retry", "--all"])["waiting"], 2, "what was broken still is");
    let message = r#"{"till":"till-3","cents":12}"#;
    let edit = [&["parked", "edit"], &TILL[..], &["--message", message]].concat();
    assert_eq!(changed(&edit)["waiting"], 0);
    assert_eq!(changed(&[&["state"], &TILL[..]].concat())["state"], json!({ "cents": 29 }));
    assert!(error(&[&["parked", "skip", "--url", &url], &TILL[..]].concat()).contains("key-not-parked"));
    assert_eq!(text(&["pause", "--function", "shop/till", "--url", &url]), "shop/till is paused\n");
    assert!(text(&["functions", "--url", &url]).contains("yes"));
    assert_eq!(text(&["resume", "--function", "shop/till", "--url", &url]), "shop/till goes on\n");
    assert!(error(&["pause", "--ingress", "nothing", "--url", &url]).contains("unknown-ingress"));
    assert!(error(&["pause", "--url", &url]).contains("--ingress"));
    stop(running);
}

#[test]
fn a_wrong_token_or_address_is_said_to_be() {
    let directory = tempfile::tempdir().expect("a directory");
    let (running, url) = start(&directory.path().join("data"));
    let file = directory.path().join("token");
    std::fs::write(&file, "wrong\n").expect("writes");
    let file = file.to_str().expect("is text");
    assert!(error(&["status", "--url", &url, "--token-file", file]).contains("unauthorized"));
    std::fs::write(file, format!("{TOKEN}\n")).expect("writes");
    text(&["status", "--url", &url, "--token-file", file]);
    stop(running);
    assert!(error(&["status", "--url", &url]).contains("cannot ask"));
    assert!(error(&["status", "--url", "ftp://nobody"]).contains("http://HOST:PORT"));
    assert!(error(&["status"]).contains("--url"));
    let nothing = directory.path().join("nothing");
    assert!(error(&["status", "--data", nothing.to_str().expect("is text")]).contains("holds no data of an app"));
    assert!(!nothing.exists(), "looking makes no data");
}

#[test]
fn a_directory_that_lost_something_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let (running, _) = start(&data);
    stop(running);
    let path = data.to_str().expect("is text");
    assert!(text(&["check", "--data", path]).ends_with("4 shards are whole\n"));
    let sums = data.join("sums.jsonl");
    assert!(sums.metadata().expect("is there").len() > 0);
    std::fs::write(&sums, "").expect("writes");
    assert!(error(&["check", "--data", path]).contains("were written and synced"));
}
