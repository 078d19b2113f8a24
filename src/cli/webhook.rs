//! `authgate webhook …`.

use super::{
    Outcome, Refused,
    args::WebhookCommand,
    inspect::columns,
    print,
    user::{timestamp, with_config},
};
use crate::{account::Operator, config::Span, store::WebhookState};

pub(super) fn run(command: WebhookCommand) -> Outcome {
    match command {
        WebhookCommand::List { config } => with_config(&config.config, list),
        WebhookCommand::Replay { url, since: Span(since), config } => {
            with_config(&config.config, async |operator| {
                let since = operator.clock.wall().saturating_sub_unsigned(since.as_millis() as u64);
                let told = operator.store.replay_webhook(&url, since).await?;
                print(&format!("{} messages are sent again.\n", told.ok_or_else(|| unknown(&url))?))
            })
        }
        WebhookCommand::Enable { url, config } => with_config(&config.config, async |operator| {
            if !operator.store.enable_webhook(&url).await? {
                return Err(unknown(&url));
            }
            print("Enabled; what waits for it is sent within an hour or so.\n")
        }),
    }
}

fn unknown(url: &str) -> Refused {
    Refused(format!(
        "no gateway serves with a receiver {url}; `authgate webhook list` has those that there are"
    ))
}

async fn list(operator: &Operator) -> Outcome {
    let mut rows = vec![["URL", "STATE", "SINCE", "WAITING"].map(str::to_owned)];
    rows.extend(operator.store.webhook_states().await?.into_iter().map(|state| {
        let WebhookState { url, failing_since, disabled_at, waiting } = state;
        let (word, since) = match (disabled_at, failing_since) {
            (Some(at), _) => ("disabled", timestamp(at)),
            (None, Some(at)) => ("failing", timestamp(at)),
            (None, None) => ("enabled", String::new()),
        };
        [url, word.to_owned(), since, waiting.to_string()]
    }));
    print(&columns(&rows))
}
