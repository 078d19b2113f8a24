//! `authgate user import`.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Read, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
    thread,
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    Outcome, Refused,
    args::{Import, ImportSource},
    load,
    operator::{operator_name, parse_roles},
    print, quiet_log, runtime,
};
use crate::{
    account::{Candidate, Importer, Rejection, Taken},
    app,
    clock::SystemClock,
    config::PostgresUrl,
    store::{self, Row, Rows, TableSource},
    types::{OsRandom, Secret},
};

/// Rows of a file that are handed over at a time.
const BATCH: usize = 500;

/// The longest line of a file of JSON lines.
const MAX_LINE: u64 = 1 << 20;

pub(super) fn run(args: &Import) -> Outcome {
    let loaded = load(&args.config.config)?;
    let _log = quiet_log();
    runtime()?.block_on(async {
        let (operator, _) = app::open_operator(&loaded.config, Arc::new(SystemClock)).await?;
        let importer = Importer {
            store: operator.store.clone(),
            clock: Arc::new(SystemClock),
            random: Arc::new(OsRandom),
            default_roles: match args.default_roles.as_slice() {
                [] => loaded.config.auth.default_roles.clone(),
                named => parse_roles(named)?,
            },
            email_verified: args.email_verified,
            allow_similar: args.allow_similar,
            usernames: loaded.config.auth.username.clone(),
            by: operator_name(),
        };
        let columns = Columns::of(args);
        let (total, rows) = open(&args.source, &args.table, &columns.wanted).await?;
        import(args, &importer, &columns, total, rows).await
    })
}

/// The columns that are read, and which of them is what.
struct Columns {
    wanted: Vec<String>,
    id: usize,
    email: Option<usize>,
    roles: Option<usize>,
    disabled: Option<usize>,
}

const NAME: usize = 0;
const HASH: usize = 1;

impl Columns {
    fn of(args: &Import) -> Self {
        let mut wanted = vec![args.name.clone(), args.hash.clone()];
        let mut add = |column: &Option<String>| {
            column.as_ref().map(|column| {
                wanted.push(column.clone());
                wanted.len() - 1
            })
        };
        let (id, email) = (add(&args.id).unwrap_or(NAME), add(&args.email));
        let (roles, disabled) = (add(&args.roles), add(&args.disabled));
        Self { wanted, id, email, roles, disabled }
    }

    fn candidate(&self, row: &Row) -> Candidate {
        let text = |column: usize| row.get(column).cloned().flatten().unwrap_or_default();
        let optional = |column: Option<usize>| column.map(text).filter(|text| !text.trim().is_empty());
        Candidate {
            id: text(self.id),
            name: text(NAME),
            hash: text(HASH),
            email: optional(self.email),
            roles: optional(self.roles).map(|roles| {
                roles.split([',', ' ']).filter(|role| !role.is_empty()).map(str::to_lowercase).collect()
            }),
            disabled: optional(self.disabled),
        }
    }
}

async fn open(source: &ImportSource, table: &str, wanted: &[String]) -> Result<(Option<u64>, Rows), Refused> {
    if let Some(url) = &source.postgres {
        // A password in an argument is seen by every user of the machine.
        let url = if url.contains("://") {
            url.clone()
        } else {
            std::env::var(url).map_err(|_| Refused(format!("the environment variable {url} is not set")))?
        };
        let location = PostgresUrl::parse(&Secret::new(url), Path::new("."));
        let location = location.map_err(|problem| Refused(format!("--postgres: {problem}")))?;
        let (total, rows) = store::read_table(TableSource::Postgres(location), table, wanted).await?;
        return Ok((Some(total), rows));
    }
    if let Some(path) = &source.sqlite {
        let (total, rows) = store::read_table(TableSource::Sqlite(path.clone()), table, wanted).await?;
        return Ok((Some(total), rows));
    }
    let (sender, rows) = mpsc::channel(4);
    let wanted = wanted.to_vec();
    if let Some(path) = &source.csv {
        let input = reader(path)?;
        thread::spawn(move || finish(&sender, read_csv(input, &wanted, &sender)));
    } else if let Some(path) = &source.jsonl {
        let input = reader(path)?;
        thread::spawn(move || finish(&sender, read_json_lines(input, &wanted, &sender)));
    }
    Ok((None, rows))
}

type Sender = mpsc::Sender<Result<Vec<Row>, String>>;

fn finish(sender: &Sender, read: Result<(), String>) {
    if let Err(problem) = read {
        drop(sender.blocking_send(Err(problem)));
    }
}

fn reader(path: &Path) -> Result<Box<dyn Read + Send>, Refused> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    let file = File::open(path).map_err(|error| Refused(format!("{}: {error}", path.display())))?;
    Ok(Box::new(file))
}

fn read_csv(input: impl Read, wanted: &[String], sender: &Sender) -> Result<(), String> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(input);
    let names = reader.headers().map_err(|error| error.to_string())?.clone();
    let find = |column: &String| {
        // Excel writes a byte order mark before the first name.
        names.iter().position(|name| name.trim_start_matches('\u{feff}').trim() == column).ok_or_else(|| {
            format!(
                "there is no column `{column}`; there are: {}",
                names.iter().collect::<Vec<_>>().join(", ")
            )
        })
    };
    let places: Vec<usize> = wanted.iter().map(find).collect::<Result<_, _>>()?;
    let mut batch = Vec::with_capacity(BATCH);
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        batch.push(places.iter().map(|&place| record.get(place).map(str::to_owned)).collect());
        if batch.len() == BATCH && sender.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
            return Ok(());
        }
    }
    drop(sender.blocking_send(Ok(batch)));
    Ok(())
}

fn read_json_lines(input: impl Read, wanted: &[String], sender: &Sender) -> Result<(), String> {
    let mut reader = BufReader::new(input);
    let mut batch = Vec::with_capacity(BATCH);
    for number in 1_u64.. {
        let mut line = String::new();
        let read = reader.by_ref().take(MAX_LINE).read_line(&mut line);
        if read.map_err(|error| format!("line {number}: {error}"))? == 0 {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        let object: BTreeMap<String, Value> =
            serde_json::from_str(&line).map_err(|error| format!("line {number}: {error}"))?;
        batch.push(wanted.iter().map(|column| object.get(column).and_then(text)).collect());
        if batch.len() == BATCH && sender.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
            return Ok(());
        }
    }
    drop(sender.blocking_send(Ok(batch)));
    Ok(())
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => Some(items.iter().filter_map(text).collect::<Vec<_>>().join(",")),
        other => Some(other.to_string()),
    }
}

/// How it went.
#[derive(Default)]
struct Tally {
    new: u64,
    before: u64,
    refused: u64,
    /// Names beyond the rules for chosen names.
    beyond: u64,
    /// Addresses that another account has verified.
    unverified: u64,
}

async fn import(
    args: &Import,
    importer: &Importer,
    columns: &Columns,
    total: Option<u64>,
    mut rows: Rows,
) -> Outcome {
    let mut report = Report::open(args.report.as_deref())?;
    let bar = progress_bar(total);
    let mut tally = Tally::default();
    let mut seen = HashSet::new();
    while let Some(batch) = rows.recv().await {
        let batch = batch.map_err(Refused)?;
        bar.inc(batch.len() as u64);
        let mut users = Vec::with_capacity(batch.len());
        let mut checked = Vec::with_capacity(batch.len());
        for row in &batch {
            let candidate = columns.candidate(row);
            match importer.check(&candidate) {
                Ok(user) => {
                    tally.beyond += u64::from(importer.is_beyond(&user));
                    users.push(user);
                    checked.push(candidate);
                }
                Err(refusal) => {
                    tally.refused += 1;
                    report.refused(&candidate, &refusal)?;
                }
            }
        }
        let outcomes = if args.dry_run {
            importer.try_out(users, &mut seen).await?
        } else {
            importer.take(users).await?
        };
        for (candidate, outcome) in checked.iter().zip(outcomes) {
            match outcome {
                Ok(Taken::New) => tally.new += 1,
                Ok(Taken::Unverified) => {
                    tally.new += 1;
                    tally.unverified += 1;
                }
                Ok(Taken::Before) => tally.before += 1,
                Err(refusal) => {
                    tally.refused += 1;
                    report.refused(candidate, &refusal)?;
                }
            }
        }
    }
    bar.finish_and_clear();
    report.close()?;
    if tally.beyond > 0 {
        tracing::warn!(names = tally.beyond, "names beyond auth.username, as older services gave them");
    }
    if tally.unverified > 0 {
        tracing::warn!(
            addresses = tally.unverified,
            "addresses not taken as verified: another account has verified them"
        );
    }
    let verb = if args.dry_run { "would be imported" } else { "imported" };
    print(&format!("{} {verb}, {} were here before, {} refused\n", tally.new, tally.before, tally.refused))?;
    Ok(ExitCode::SUCCESS)
}

/// On a terminal only: in a log it would be noise.
fn progress_bar(total: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, form) = match total {
        Some(total) => (ProgressBar::new(total), "{bar:40} {human_pos}/{human_len} {per_sec} {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {human_pos} {per_sec}"),
    };
    match ProgressStyle::with_template(form) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// What was refused, and why: lines of CSV.
struct Report {
    writer: csv::Writer<Box<dyn Write>>,
    begun: bool,
}

impl Report {
    fn open(path: Option<&Path>) -> Result<Self, Refused> {
        let output: Box<dyn Write> = match path {
            Some(path) => {
                Box::new(File::create(path).map_err(|error| Refused(format!("{}: {error}", path.display())))?)
            }
            None => Box::new(io::stdout()),
        };
        Ok(Self { writer: csv::Writer::from_writer(output), begun: path.is_none() })
    }

    fn refused(&mut self, candidate: &Candidate, refusal: &Rejection) -> Result<(), Refused> {
        if !std::mem::replace(&mut self.begun, true) {
            self.writer.write_record(["id", "name", "reason"])?;
        }
        Ok(self.writer.write_record([&candidate.id, &candidate.name, &refusal.to_string()])?)
    }

    fn close(mut self) -> Result<(), Refused> {
        Ok(self.writer.flush()?)
    }
}
