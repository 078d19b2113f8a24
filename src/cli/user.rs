//! `authgate user …`.

use std::{
    fmt::Write,
    io::{IsTerminal, Read},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use super::{
    Outcome, Refused,
    args::{PasswordSource, UserCommand},
    inspect::columns,
    load,
    operator::{operator_name, parse_roles},
    print, quiet_log, runtime,
};
use crate::{
    account::{InvitationRequest, NewAccount, Operator, Update},
    app::{self, LoadedGateway},
    clock::{SystemClock, rfc3339},
    config::Span,
    store::{SessionPage, User, UserFilter},
    types::{AttributeChanges, Secret},
};

/// Accounts that are read at a time.
const PAGE: u32 = 500;

pub(super) fn run(command: UserCommand) -> Outcome {
    match command {
        UserCommand::Add { name, roles, email, release, allow_similar, must_change, password, config } => {
            let loaded = load(&config.config)?;
            let roles = match roles.as_slice() {
                [] => loaded.config.auth.default_roles.clone(),
                named => parse_roles(named)?,
            };
            let (password, email) = (&read_password(&password)?, email.as_deref());
            add(
                &loaded,
                NewAccount {
                    name: &name,
                    email,
                    password,
                    must_change_password: must_change,
                    roles,
                    attributes: AttributeChanges::new(),
                    release,
                    allow_similar,
                },
            )
        }
        UserCommand::Invite { roles, uses, expires: Span(holds_for), config } => {
            let loaded = load(&config.config)?;
            let register = loaded.config.registration_page().ok_or_else(|| {
                Refused("an invitation is a link to a page: set `pages` and `public_url`".to_owned())
            })?;
            let request = InvitationRequest { roles: parse_roles(&roles)?, uses, holds_for };
            with(&loaded, async |operator| {
                let invited = operator.invite(&operator_name(), request).await?;
                print(&format!("{}\n", invited.link(&register)))
            })
        }
        UserCommand::ReleaseName { name, config } => with_config(&config.config, async |operator| {
            operator.release_name(&operator_name(), &name).await?;
            print("Released; the name may be given out again.\n")
        }),
        UserCommand::List { config } => with_config(&config.config, list),
        UserCommand::Show { name, config } => {
            with_config(&config.config, async |operator| show(operator, &name).await)
        }
        UserCommand::SetPassword { name, must_change, password, config } => {
            let loaded = load(&config.config)?;
            let password = read_password(&password)?;
            with(&loaded, async |operator| {
                let must_change_password = Some(must_change);
                let update = Update { password: Some(password), must_change_password, ..Update::default() };
                update_user(operator, &name, update).await?;
                print("Password set; the account's sessions have ended.\n")
            })
        }
        UserCommand::SetRoles { name, roles, config } => {
            let roles = parse_roles(&roles)?;
            with_config(&config.config, async |operator| {
                let update = Update { roles: Some(roles), ..Update::default() };
                update_user(operator, &name, update).await?;
                print("Roles set; the account's sessions have ended.\n")
            })
        }
        UserCommand::Disable { name, config } => with_config(&config.config, async |operator| {
            update_user(operator, &name, Update { disabled: Some(true), ..Update::default() }).await?;
            print("Disabled; the account's sessions have ended.\n")
        }),
        UserCommand::SetAttributes { name, attributes, config } => {
            with_config(&config.config, async |operator| {
                let attributes = attributes.into_iter().collect();
                update_user(operator, &name, Update { attributes, ..Update::default() }).await?;
                print("Set; the account's sessions have ended.\n")
            })
        }
        UserCommand::ResetFactors { name, config } => with_config(&config.config, async |operator| {
            operator.reset_factors(&operator_name(), &find(operator, &name).await?).await?;
            print("Removed; the account's sessions have ended.\n")
        }),
        UserCommand::ResetLink { name, expires: Span(holds_for), config } => {
            let loaded = load(&config.config)?;
            let page = loaded.config.reset_page().ok_or_else(|| {
                Refused("it is a link to a page: set `pages` and `public_url`, or `auth.email`".to_owned())
            })?;
            with(&loaded, async |operator| {
                let user = find(operator, &name).await?;
                let made = operator.reset_link(&operator_name(), &user, holds_for).await?;
                print(&format!("{}\n", made.link(&page)))
            })
        }
        UserCommand::Enable { name, config } => with_config(&config.config, async |operator| {
            update_user(operator, &name, Update { disabled: Some(false), ..Update::default() }).await?;
            print("Enabled.\n")
        }),
        UserCommand::Import(import) => super::import::run(&import),
        UserCommand::Delete { name, config } => with_config(&config.config, async |operator| {
            operator.delete(&operator_name(), &find(operator, &name).await?, None).await?;
            print("Deleted.\n")
        }),
    }
}

fn add(loaded: &LoadedGateway, account: NewAccount<'_>) -> Outcome {
    with(loaded, async |operator| {
        let user = operator.add(&operator_name(), account).await?;
        print(&format!("Added {} ({}).\n", user.name, user.id))
    })
}

pub(super) fn with_config(config: &Path, work: impl AsyncFnOnce(&Operator) -> Outcome) -> Outcome {
    with(&load(config)?, work)
}

pub(super) fn with(loaded: &LoadedGateway, work: impl AsyncFnOnce(&Operator) -> Outcome) -> Outcome {
    let _log = quiet_log();
    runtime()?.block_on(async {
        let (operator, _) = app::open_operator(&loaded.config, Arc::new(SystemClock)).await?;
        work(&operator).await
    })
}

async fn update_user(operator: &Operator, name: &str, update: Update) -> Result<(), Refused> {
    Ok(operator.update(&operator_name(), &find(operator, name).await?, update).await?)
}

pub(super) async fn find(operator: &Operator, name: &str) -> Result<User, Refused> {
    operator.find(name).await.map_err(|error| match error.kind() {
        crate::error::Kind::NotFound => Refused(format!("there is no user {name}")),
        _ => error.into(),
    })
}

/// Reads a password that is piped in, to the end of its line.
pub(super) fn password_from_stdin() -> Result<Secret, Refused> {
    let mut text = String::new();
    std::io::stdin().take(64 << 10).read_to_string(&mut text)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Secret::new(line.strip_suffix('\r').unwrap_or(line)))
}

/// From standard input; or twice from the terminal.
fn read_password(source: &PasswordSource) -> Result<Secret, Refused> {
    if source.password_stdin {
        return password_from_stdin();
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
    let mut filter = UserFilter { limit: PAGE, ..UserFilter::default() };
    loop {
        let page = operator.store.users(&filter).await?;
        let Some(last) = page.last() else { break };
        filter.after = Some(last.name.to_string());
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

/// How many sessions `show` lists.
const SHOWN_SESSIONS: u32 = 100;

async fn show(operator: &Operator, name: &str) -> Outcome {
    let user = find(operator, name).await?;
    let password = match &user.password_hash {
        None => "none",
        Some(_) if user.must_change_password => "must be changed",
        Some(_) => "set",
    };
    let attributes: Vec<String> =
        user.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let attributes = if attributes.is_empty() { vec!["none".to_owned()] } else { attributes };
    let mut text = columns(&[
        ["name".to_owned(), user.name.to_string()],
        ["id".to_owned(), user.id.to_string()],
        ["email".to_owned(), user.email.clone().unwrap_or_else(|| "none".to_owned())],
        ["email verified".to_owned(), if user.email_verified { "yes" } else { "no" }.to_owned()],
        ["external id".to_owned(), user.external_id.clone().unwrap_or_else(|| "none".to_owned())],
        ["password".to_owned(), password.to_owned()],
        ["roles".to_owned(), user.roles.to_string()],
        ["attributes".to_owned(), attributes.join(", ")],
        ["state".to_owned(), if user.disabled { "disabled" } else { "enabled" }.to_owned()],
        ["created".to_owned(), timestamp(user.created_at)],
        ["generation".to_owned(), user.generation.to_string()],
    ]);
    let page = SessionPage { limit: SHOWN_SESSIONS, after: None };
    let sessions = operator.store.sessions(user.id, page).await?;
    let more = if sessions.len() == SHOWN_SESSIONS as usize { " or more" } else { "" };
    let _ = writeln!(text, "sessions    {}{more}", sessions.len());
    for session in sessions {
        let (created, used) = (timestamp(session.created_at), timestamp(session.last_used_at));
        let _ = writeln!(text, "  {} since {created}, last used {used}", session.id);
    }
    print(&text).map(|_| ExitCode::SUCCESS)
}

/// RFC 3339, to the second.
pub(super) fn timestamp(millis: i64) -> String {
    rfc3339(millis - millis.rem_euclid(1_000))
}
