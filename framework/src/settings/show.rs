//! What people are told of settings: the table of all that there are, and what an app runs with.

use std::collections::BTreeMap;

use serde_json::json;
use toml::Value;

use super::{
    Settings,
    layers::{Names, Origin, Origins, option_of, text_of, variable_of, written},
    table::{ANY, Field, Row},
};

/// What stands for the names that an app has.
const NAME: &str = "NAME";

/// All settings that there are.
pub(crate) fn rows() -> Vec<Row> {
    Settings::rows(Row::default())
}

/// What `--help-settings` says, line by line.
pub(crate) fn help(names: &Names) -> Vec<String> {
    let mut lines: Vec<String> = [
        "Every setting of this app. Each of these says more than the one before: the default, the program,",
        "the file (statefn.toml, or the one of --settings), the environment, the command line (options, or",
        "--set NAME=VALUE). The command `settings` shows what holds, and why.",
    ]
    .map(str::to_owned)
    .into();
    for row in rows() {
        let name = name_of(&row);
        let option = if name.len() == 1 { option_of(&name[0]) } else { format!("--set {}", written(&name)) };
        lines.push(String::new());
        lines.push(written(&name));
        lines.push(format!("    {}", row.meaning));
        lines.push(format!("    value: {}; default: {}", row.kind, row.default));
        lines.push(format!("    {}, {option}", variable_of(&name)));
    }
    lines.push(String::new());
    for (kind, names) in [("ingress", &names.ingresses), ("egress", &names.egresses)] {
        let names = if names.is_empty() { "there is none".to_owned() } else { names.join(", ") };
        lines.push(format!("{NAME} of an {kind} of this app: {names}"));
    }
    lines
}

/// The table of the docs, in Markdown.
#[cfg(test)]
fn table() -> String {
    let mut table = String::from("| setting | variable | value | default | meaning |\n|---|---|---|---|---|\n");
    for row in rows() {
        let name = name_of(&row);
        table += &format!(
            "| `{}` | `{}` | {} | {} | {} |\n",
            written(&name),
            variable_of(&name),
            row.kind,
            row.default,
            row.meaning
        );
    }
    table
}

/// The name of a row, with words where an app has names.
fn name_of(row: &Row) -> Vec<String> {
    row.name.iter().map(|&part| if part == ANY { NAME } else { part }.to_owned()).collect()
}

/// A setting as an app runs with it.
#[derive(Debug, PartialEq)]
pub(crate) struct Effective {
    name: String,
    /// None where there is nothing to say.
    value: Option<Value>,
    origin: Origin,
}

/// Every setting that an app of these names runs with.
pub(crate) fn effective(settings: &Settings, origins: &Origins, names: &Names) -> Vec<Effective> {
    let (mut said, mut filled) = (BTreeMap::new(), BTreeMap::new());
    settings.list(&[], &mut said);
    settings.filled(names).list(&[], &mut filled);
    let rows = rows();
    let group = |row: &Row| rows.iter().position(|first| first.name[0] == row.name[0]);
    let of_row = |row| {
        let settings = names.settings_of(row).into_iter();
        settings.map(move |name| ((group(row), row.name.contains(&ANY).then(|| name[1].clone())), name))
    };
    let mut known: Vec<_> = rows.iter().flat_map(of_row).collect();
    // What an app has a name for stands together.
    known.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut setting = |name: Vec<String>| Effective {
        origin: origins.of(&name, said.contains_key(&name)),
        value: filled.remove(&name),
        name: written(&name),
    };
    known.into_iter().map(|(_, name)| setting(name)).collect()
}

/// The settings as a table, line by line.
pub(crate) fn lines(settings: &[Effective]) -> Vec<String> {
    let value = |setting: &Effective| setting.value.as_ref().map_or_else(|| "-".to_owned(), text_of);
    let mut cells = vec![["SETTING", "VALUE", "FROM"].map(str::to_owned)];
    cells.extend(settings.iter().map(|setting| [setting.name.clone(), value(setting), setting.origin.to_string()]));
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let (first, second) = (width(0), width(1));
    cells.iter().map(|[name, value, origin]| format!("{name:first$}  {value:second$}  {origin}")).collect()
}

/// The settings as one JSON document.
pub(crate) fn document(settings: &[Effective]) -> serde_json::Value {
    let setting = |setting: &Effective| {
        json!({
            "name": setting.name,
            "value": setting.value,
            "layer": setting.origin.layer(),
            "origin": setting.origin.to_string(),
        })
    };
    settings.iter().map(setting).collect()
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::PathBuf};

    use super::*;
    use crate::settings::{IngressSettings, layers::Layers};

    /// What stands around the table in the docs.
    const MARKS: [&str; 2] = ["<!-- the table of settings -->\n", "<!-- its end -->\n"];

    fn names() -> Names {
        Names { ingresses: vec!["sales".into()], egresses: vec!["dead-letters".into(), "sums".into()] }
    }

    #[test]
    fn the_docs_have_the_table() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/SETTINGS.md");
        let text = fs::read_to_string(&path).expect("the docs are there");
        let (before, rest) = text.split_once(MARKS[0]).expect("the table begins");
        let (found, after) = rest.split_once(MARKS[1]).expect("the table ends");
        if env::var_os("STATEFN_WRITE_DOCS").is_some() {
            fs::write(&path, [before, MARKS[0], &table(), MARKS[1], after].concat()).expect("the docs are written");
            return;
        }
        assert!(
            found == table(),
            "`docs/SETTINGS.md` is not the table: write it by `STATEFN_WRITE_DOCS=1 cargo test -p statefn --lib the_docs_have_the_table`"
        );
    }

    #[test]
    fn every_row_says_everything_and_is_in_the_help() {
        let help = help(&names()).join("\n");
        for row in rows() {
            let name = name_of(&row);
            for said in [&row.kind, &row.default, &row.meaning] {
                assert!(!said.is_empty() && !said.contains(['|', '\n']), "{row:?}");
                assert!(help.contains(said), "{row:?}");
            }
            assert!(help.contains(&format!("\n{}\n", written(&name))) && help.contains(&variable_of(&name)), "{row:?}");
        }
        assert!(
            help.ends_with("NAME of an ingress of this app: sales\nNAME of an egress of this app: dead-letters, sums")
        );
    }

    /// What is written of defaults is what holds where nobody says anything.
    #[test]
    fn defaults_are_what_the_table_says() {
        let shown = effective(&Settings::new(), &Origins::default(), &names());
        let value = |name: &str| shown.iter().find(|setting| setting.name == name).expect(name).value.as_ref();
        let mut as_written = 0;
        for row in
            rows().into_iter().filter(|row| row.name.len() == 1 || matches!(row.name[0], "http" | "parked" | "trace"))
        {
            let mut settings = Settings::new();
            let name = name_of(&row);
            if settings.put(&name, &Value::from(row.default.trim_matches('`'))).is_ok() && row.default.starts_with('`')
            {
                let mut listed = BTreeMap::new();
                settings.list(&[], &mut listed);
                assert_eq!(value(&written(&name)), listed.get(&name), "{row:?}");
                as_written += 1;
            }
        }
        assert_eq!(as_written, 18, "6 of one name, 8 of `http`, 3 of `parked`, and 1 of `trace`");
    }

    #[test]
    fn what_holds_is_shown_with_where_it_came_from() {
        let mut program = Settings::new().data("data/shop").input("sales", "sales.csv.gz");
        program.ingress.insert("more".into(), IngressSettings::default());
        let mut layers = Layers::new(program, names());
        layers.toml("shards = 8\n\nsegment_bytes = \"1MiB\"", |line| Origin::File { path: "s.toml".into(), line });
        layers.environment([("STATEFN_COMMIT_INTERVAL".into(), "10ms".into())].into_iter());
        layers.assignment("egress.dead-letters.to=console");
        let (settings, origins) = layers.finish().expect("is right");
        let shown = effective(&settings, &origins, &names());
        let lines: Vec<String> =
            lines(&shown).iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let threads = settings.threads();
        assert_eq!(
            lines,
            [
                "SETTING VALUE FROM",
                "data data/shop the program",
                "log - the default",
                "snapshots - the default",
                "worker - the default",
                "shards 8 `s.toml`, line 1",
                &format!("threads {threads} the default"),
                "commit_interval 10ms the variable `STATEFN_COMMIT_INTERVAL`",
                "snapshot_tail_bytes 1MiB the default",
                "segment_bytes 1MiB `s.toml`, line 3",
                "handler_time_limit 30s the default",
                "egress_backlog_bytes_max 256MiB the default",
                "parked.key_bytes_max 16MiB the default",
                "parked.shard_bytes_max 64MiB the default",
                "parked.overflow dead-letter the default",
                "kafka.replication - the default",
                "kafka.min_insync_replicas - the default",
                "kafka.message_timeout - the default",
                "kafka.session_timeout - the default",
                "kafka.heartbeat_interval - the default",
                "kafka.delivery - the default",
                "kafka.properties - the default",
                "http.listen - the default",
                "http.advertised_url - the default",
                "http.body_bytes_max 1MiB the default",
                "http.connections_max 10000 the default",
                "http.head_time_max 5s the default",
                "http.body_time_max 10s the default",
                "http.idle_time_max 30s the default",
                "http.answer_time_max 30s the default",
                "http.answers_kept 1h the default",
                "http.threads 1 the default",
                "http.event_time_field - the default",
                "admin.listen - the default",
                "admin.token - the default",
                "trace.endpoint - the default",
                "trace.sample 0.0 the default",
                "trace.headers - the default",
                "ingress.sales.path sales.csv.gz the program",
                "ingress.sales.paths - the default",
                "ingress.sales.format csv the default",
                "ingress.sales.topic - the default",
                "ingress.sales.start - the default",
                "ingress.sales.until - the default",
                "ingress.sales.records_per_second - the default",
                "egress.dead-letters.to console the option `--set egress.dead-letters.to`",
                "egress.dead-letters.topic - the default",
                "egress.dead-letters.path - the default",
                "egress.dead-letters.url - the default",
                "egress.dead-letters.authorization - the default",
                "egress.dead-letters.parallel - the default",
                "egress.dead-letters.time_max - the default",
                "egress.dead-letters.retry_first - the default",
                "egress.dead-letters.retry_longest - the default",
                "egress.sums.to file the default",
                "egress.sums.topic - the default",
                "egress.sums.path data/shop/sums.jsonl the default",
                "egress.sums.url - the default",
                "egress.sums.authorization - the default",
                "egress.sums.parallel - the default",
                "egress.sums.time_max - the default",
                "egress.sums.retry_first - the default",
                "egress.sums.retry_longest - the default",
            ]
        );
        let json = document(&shown);
        let at =
            |place: usize| (&json[place]["name"], &json[place]["value"], &json[place]["layer"], &json[place]["origin"]);
        assert_eq!(at(4), (&json!("shards"), &json!(8), &json!("file"), &json!("`s.toml`, line 1")));
        assert_eq!(at(5).2, "default");
        assert_eq!(
            at(6),
            (
                &json!("commit_interval"),
                &json!("10ms"),
                &json!("environment"),
                &json!("the variable `STATEFN_COMMIT_INTERVAL`")
            )
        );
        assert_eq!(at(38).1, &serde_json::Value::Null);
        assert_eq!((at(0).2, at(44).2), (&json!("program"), &json!("command line")));
    }
}
