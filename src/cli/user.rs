//! `authgate user …`.

use std::{
    fmt::Write,
    io::{IsTerminal, Read},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Outcome, Refused,
    args::{PasswordSource, UserCommand},
    inspect::columns,
    load, print, quiet_log, runtime,
};
use crate::{
    account::Operator,
    app::{self, LoadedGateway},
    clock::SystemClock,
    store::User,
    types::{Role, Roles, Secret},
};

/// Accounts that are read at a time.
const PAGE: u32 = 500;

pub(super) fn run(command: UserCommand) -> Outcome {
    match command {
        UserCommand::Add { name, roles, password, config } => {
            let loaded = load(&config.config)?;
            let roles = match roles.as_slice() {
                [] => loaded.config.auth.default_roles.clone(),
                named => parse_roles(named)?,
            };
            let password = read_password(&password)?;
            with(&loaded, async |operator| {
                let user = operator.add(&name, &password, roles).await?;
                print(&format!("Added {} ({}).\n", user.name, user.id))
            })
        }
        UserCommand::List { config } => with_config(&config.config, list),
        UserCommand::Show { name, config } => {
            with_config(&config.config, async |operator| show(operator, &name).await)
        }
        UserCommand::SetPassword { name, password, config } => {
            let loaded = load(&config.config)?;
            let password = read_password(&password)?;
            with(&loaded, async |operator| {
                operator.set_password(&find(operator, &name).await?, &password).await?;
                print("Password set; the account's sessions have ended.\n")
            })
        }
        UserCommand::SetRoles { name, roles, config } => {
            let roles = parse_roles(&roles)?;
            with_config(&config.config, async |operator| {
                operator.set_roles(&find(operator, &name).await?, roles).await?;
                print("Roles set; the account's sessions have ended.\n")
            })
        }
        UserCommand::Disable { name, config } => with_config(&config.config, async |operator| {
            operator.set_disabled(&find(operator, &name).await?, true).await?;
            print("Disabled; the account's sessions have ended.\n")
        }),
        UserCommand::Enable { name, config } => with_config(&config.config, async |operator| {
            operator.set_disabled(&find(operator, &name).await?, false).await?;
            print("Enabled.\n")
        }),
        UserCommand::Delete { name, config } => with_config(&config.config, async |operator| {
            operator.delete(&find(operator, &name).await?).await?;
            print("Deleted.\n")
        }),
    }
}

fn with_config(config: &Path, work: impl AsyncFnOnce(&Operator) -> Outcome) -> Outcome {
    with(&load(config)?, work)
}

fn with(loaded: &LoadedGateway, work: impl AsyncFnOnce(&Operator) -> Outcome) -> Outcome {
    let _log = quiet_log();
    runtime()?.block_on(async {
        let operator = app::open_operator(&loaded.config, Arc::new(SystemClock)).await?;
        work(&operator).await
    })
}

async fn find(operator: &Operator, name: &str) -> Result<User, Refused> {
    operator.find(name).await.map_err(|error| match error.kind() {
        crate::error::Kind::NotFound => Refused(format!("there is no user {name}")),
        _ => error.into(),
    })
}

fn parse_roles(texts: &[String]) -> Result<Roles, Refused> {
    let parse = |text: &String| text.parse::<Role>().map_err(|error| Refused(format!("{text}: {error}")));
    let roles: Roles = texts.iter().map(parse).collect::<Result<_, _>>()?;
    if roles.len() > Roles::MAX {
        return Err(Refused(format!("a user has at most {} roles", Roles::MAX)));
    }
    Ok(roles)
}

/// From standard input, to its end or the end of the line; or twice from the terminal.
fn read_password(source: &PasswordSource) -> Result<Secret, Refused> {
    if source.password_stdin {
        let mut text = String::new();
        std::io::stdin().take(64 << 10).read_to_string(&mut text)?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        return Ok(Secret::new(line.strip_suffix('\r').unwrap_or(line)));
    }
    if !std::io::stdin().is_terminal() {
        return Err(Refused("there is no terminal to ask for a password; use --password-stdin".to_owned()));
    }
    let password = Secret::new(rpassword::prompt_password("Password: ")?);
    let again = Secret::new(rpassword::prompt_password("Again: ")?);
    if password.expose() == again.expose() {
        Ok(password)
    } else {
        Err(Refused("the two passwords differ".to_owned()))
    }
}

async fn list(operator: &Operator) -> Outcome {
    let mut rows = vec![["NAME", "ID", "ROLES", "STATE", "CREATED"].map(str::to_owned)];
    let mut after: Option<String> = None;
    loop {
        let page = operator.store.users(after.as_deref(), PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.name.to_string());
        rows.extend(page.iter().map(|user| {
            let state = if user.disabled { "disabled" } else { "enabled" };
            [
                user.name.to_string(),
                user.id.to_string(),
                user.roles.to_string(),
                state.to_owned(),
                timestamp(user.created_at),
            ]
        }));
    }
    print(&columns(&rows))
}

async fn show(operator: &Operator, name: &str) -> Outcome {
    let user = find(operator, name).await?;
    let mut text = columns(&[
        ["name".to_owned(), user.name.to_string()],
        ["id".to_owned(), user.id.to_string()],
        ["email".to_owned(), user.email.clone().unwrap_or_else(|| "none".to_owned())],
        ["roles".to_owned(), user.roles.to_string()],
        ["state".to_owned(), if user.disabled { "disabled" } else { "enabled" }.to_owned()],
        ["created".to_owned(), timestamp(user.created_at)],
        ["generation".to_owned(), user.generation.to_string()],
    ]);
    let sessions = operator.store.sessions(user.id).await?;
    let _ = writeln!(text, "sessions    {}", sessions.len());
    for session in sessions {
        let (created, used) = (timestamp(session.created_at), timestamp(session.last_used_at));
        let _ = writeln!(text, "  {} since {created}, last used {used}", session.id);
    }
    print(&text).map(|_| ExitCode::SUCCESS)
}

/// RFC 3339, to the second.
pub(super) fn timestamp(millis: i64) -> String {
    OffsetDateTime::from_unix_timestamp(millis.div_euclid(1_000))
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}
