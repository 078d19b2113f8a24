//! What the command line works on: the store of a config, without a gateway.

use std::{sync::Arc, time::Duration};

use super::{
    error::StartError,
    foundation::prepare_schema,
    vault::{Vault, open_vault},
};
use crate::{
    account::{Operator, Revoker},
    clock::Clock,
    config::{self, Config},
    password::{BreachedFile, HashError, Hasher, Rules},
    store::{self, Store},
    telemetry::Metrics,
    types::{OsRandom, Random},
};

/// For a hash that an operator asks for.
const OPERATOR_PATIENCE: Duration = Duration::from_secs(300);

/// Opens the store of a config, its schema up to date.
///
/// # Errors
/// [`StartError`].
pub async fn open_store(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StartError> {
    let store = store::open(&config.store, clock)?;
    prepare_schema(config, &*store).await?;
    Ok(store)
}

/// What the command line does to accounts and keys, and what the master key opens for that.
///
/// # Errors
/// [`StartError`].
pub async fn open_operator(config: &Config, clock: Arc<dyn Clock>) -> Result<(Operator, Vault), StartError> {
    let store = open_store(config, clock.clone()).await?;
    let random: Arc<dyn Random> = Arc::new(OsRandom);
    let vault = open_vault(&config.auth, &*store, random.clone()).await?;
    let metrics = Metrics::new().map_err(|error| HashError::Failed(error.to_string()))?;
    let password = &config.auth.password;
    // The command line hashes one password at a time, with a long timeout for busy machines.
    let own = config::Password { workers: 1, queue_timeout: OPERATOR_PATIENCE, ..password.clone() };
    // Most commands need none.
    let list = password.breached.as_ref().map(|list| BreachedFile::new(&list.path));
    let revoker = Revoker { store: store.clone(), clock: clock.clone(), gateway: None };
    let operator = Operator {
        store,
        hasher: Arc::new(Hasher::start(&own, list.map(Arc::new), random.clone(), Arc::new(metrics))?),
        rules: Rules { min_length: password.min_length },
        usernames: config.auth.username.clone(),
        clock,
        random,
        revoker,
        has_mail: config.auth.email.is_some(),
        attributes: config.auth.attributes.clone(),
    };
    Ok((operator, vault))
}
