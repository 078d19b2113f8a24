//! The store's contract, on both databases.

use std::{sync::Arc, time::Duration};

use authgate::{
    clock::{Clock, SystemClock},
    config::{PostgresUrl, Store as Config, StoreLocation},
    store::{
        AccountChange, AuditFilter, Beat, BegunOrder, Challenge, Change, Cursor, Ends, Event, ImportOutcome,
        ImportedUser, KeyRevocation, LogEntry, MailLease, MailTtls, NewInvitation, NewMail, NewResetLink,
        NewSession, NewUser, OrderEnd, Place, Purpose, Rekey, Revoked, Rewrap, Rewrapped, Rotation,
        RotationRequest, Sent, SessionKind, SessionPage, SharedBucket, Spend, StepUp, Store, StoredKey,
        StoredVault, Ttls, UserFilter, open,
    },
    token::RootSecret,
    types::{KeyId, OsRandom, Proof, Proofs, Pseudonyms, Roles, Secret, SessionId, UserId, Username},
};
use tokio::runtime::Runtime;

use crate::harness::{Cluster, Proxy, SqlSession, shared_database, shared_sql};

const TTLS: Ttls = Ttls {
    access: Duration::from_secs(900),
    refresh: Duration::from_secs(3_600),
    session: Duration::from_secs(7_200),
};

fn postgres(url: String) -> StoreLocation {
    let location = PostgresUrl::parse(&Secret::new(url), std::path::Path::new("."));
    StoreLocation::Postgres(location.unwrap())
}

/// Runs `test` on a fresh store of each kind.
fn on_both(test: impl AsyncFn(Arc<dyn Store>)) {
    let folder = tempfile::tempdir().unwrap();
    let locations = [StoreLocation::Sqlite(folder.path().join("store.db")), postgres(shared_database())];
    locations.into_iter().for_each(|location| on(location, &test));
}

/// The same for what only several gateways can meet; with the database's connection string.
fn on_postgres(test: impl AsyncFn(Arc<dyn Store>, &str)) {
    let url = shared_database();
    on(postgres(url.clone()), &async |store| test(store, &url).await);
}

fn on(location: StoreLocation, test: &impl AsyncFn(Arc<dyn Store>)) {
    let config = Config { location, pool_size: 8, timeout: Duration::from_secs(10), migrate: true };
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let store = open(&config, Arc::new(SystemClock)).unwrap();
        assert!(store.check_schema().await.is_err());
        store.migrate().await.unwrap();
        store.migrate().await.unwrap();
        store.check_schema().await.unwrap();
        store.unlock(pseudonyms());
        test(store).await;
    });
}

fn pseudonyms() -> Pseudonyms {
    RootSecret::new(b"tests", Arc::new(OsRandom)).pseudonyms()
}

/// The rows behind a cursor and the cursor behind them, as a poll reads them.
async fn log(store: &Arc<dyn Store>, cursor: Option<&Cursor>) -> (Vec<LogEntry>, Cursor) {
    let mut entries = Vec::new();
    let beat = Beat { gateway: uuid::Uuid::nil(), number: 1, furthest: cursor.cloned(), max_staleness: 0 };
    let read = store.read_log(cursor, &beat, &mut |entry| entries.push(entry)).await.unwrap();
    (entries, read.cursor)
}

/// The same, as a hint has them read.
async fn glance(store: &Arc<dyn Store>, cursor: &Cursor) -> (Vec<LogEntry>, Cursor) {
    let mut entries = Vec::new();
    let read = store.glance_at_log(cursor, &mut |entry| entries.push(entry)).await.unwrap();
    (entries, read.cursor)
}

fn user(name: &str, roles: &str) -> NewUser {
    let id = UserId::generate(1_700_000_000_000, &OsRandom);
    let (account, roles) = (Username::new(name).unwrap(), Roles::parse_joined(roles).unwrap());
    let email = Some(format!("{name}@example.com"));
    NewUser { email, password_hash: Some("hash".to_owned()), ..NewUser::new(id, account, roles) }
}

fn session(token: u8) -> NewSession {
    NewSession {
        id: SessionId::generate(&OsRandom),
        kind: SessionKind::Token,
        proofs: Proofs::PASSWORD,
        is_remembered: false,
        place: Place::default(),
        refresh_hash: [token; 32],
        nonce: [token; 16],
        ttls: TTLS,
        most: 100,
    }
}

/// The generation of an account that was not changed yet.
const FIRST: i64 = 1;

/// A page that holds all that the tests make.
const PAGE: SessionPage = SessionPage { limit: 10_000, after: None };

fn rotation(session: &NewSession, presented: u8, successor: u8) -> RotationRequest {
    RotationRequest {
        session: session.id,
        presented: [presented; 32],
        successor: [successor; 32],
        nonce: [successor; 16],
        grace: Duration::from_secs(30),
        ttls: TTLS,
        replayed: Event { action: "session.replay", ..login() },
    }
}

/// A line of the trail that an account writes of itself.
fn login() -> Event {
    Event {
        actor_id: None,
        actor: String::new(),
        address: Some("192.0.2.7".to_owned()),
        action: "user.login",
        detail: String::new(),
    }
}

const KEEP_AUDIT: Duration = Duration::from_secs(400 * 86_400);

#[test]
fn accounts_are_kept_as_they_were_made() {
    on_both(async |store| {
        let new = user("alice", "b,a");
        let opened = store.create_user(&new, Some(&session(1))).await.unwrap().unwrap();
        assert_eq!(opened.grant.unwrap().user, opened.user);
        let found = store.user_by_name(&new.name).await.unwrap().unwrap();
        assert_eq!(found, opened.user);
        assert_eq!((found.id, found.generation, found.roles.to_string().as_str()), (new.id, 1, "a,b"));
        assert_eq!(store.user(new.id).await.unwrap(), Some(found));
        assert!(store.create_user(&user("alice", ""), None).await.unwrap().is_none());
        assert!(store.create_user(&user("\u{430}lice", ""), None).await.unwrap().is_none());
        store.create_user(&user("bob", ""), None).await.unwrap().unwrap();
        let names: Vec<_> = store
            .users(&UserFilter { limit: 10, ..UserFilter::default() })
            .await
            .unwrap()
            .into_iter()
            .map(|user| user.name.to_string())
            .collect();
        assert_eq!(names, ["alice", "bob"]);
        assert_eq!(
            store
                .users(&UserFilter { after: Some("alice".into()), limit: 10, ..UserFilter::default() })
                .await
                .unwrap()
                .len(),
            1
        );
    });
}

#[test]
fn a_login_that_races_a_logout_of_all_leaves_no_session_that_outlives_it() {
    on_both(async |store| {
        let new = user("alice", "");
        store.create_user(&new, None).await.unwrap();
        for round in 0..60_u8 {
            let own = session(round);
            let id = new.id;
            let generation = store.user(id).await.unwrap().unwrap().generation;
            let (opening, opened) = (store.clone(), own.clone());
            let login = tokio::spawn(async move {
                opening.open_session(id, generation, &opened, &login()).await.unwrap()
            });
            let Change::Done(..) = store.change_user(id, &AccountChange::default()).await.unwrap() else {
                panic!()
            };
            // Whichever came first: there was no session, or it is dead.
            if let Some(grant) = login.await.unwrap() {
                assert_eq!(grant.user.generation, generation, "round {round}");
            }
            let refreshed = store.rotate_session(&rotation(&own, round, round + 100)).await.unwrap();
            assert!(matches!(refreshed, Rotation::Refused), "round {round}");
            assert!(store.session(own.id).await.unwrap().is_none(), "round {round}");
            store.end_session(id, own.id, None).await.unwrap();
        }
    });
}

#[test]
fn a_session_of_an_older_generation_refreshes_nothing() {
    on_postgres(async |store, url| {
        let (new, own) = (user("alice", ""), session(1));
        store.create_user(&new, Some(&own)).await.unwrap();
        shared_sql(url, "UPDATE users SET generation = generation + 1");
        assert!(matches!(store.rotate_session(&rotation(&own, 1, 2)).await.unwrap(), Rotation::Refused));
    });
}

#[test]
fn a_session_opens_only_in_the_generation_in_which_the_proof_was_checked() {
    on_both(async |store| {
        let new = user("alice", "");
        store.create_user(&new, None).await.unwrap();
        let open = async |generation| {
            store.open_session(new.id, generation, &session(1), &login()).await.unwrap().is_some()
        };
        assert!(!open(FIRST + 1).await);
        assert!(open(FIRST).await);
        // A better hash of the same password is no other proof.
        store.rehash(new.id, "another hash", "worse").await.unwrap();
        store.rehash(new.id, "hash", "better").await.unwrap();
        assert_eq!(store.user(new.id).await.unwrap().unwrap().password_hash.as_deref(), Some("better"));
        assert!(open(FIRST).await);
        let another = AccountChange { password_hash: Some("of another".into()), ..AccountChange::default() };
        store.change_user(new.id, &another).await.unwrap();
        assert!(!open(FIRST).await);
        assert!(open(FIRST + 1).await);
        let disable = AccountChange { disabled: Some(true), ..AccountChange::default() };
        store.change_user(new.id, &disable).await.unwrap();
        assert!(!open(FIRST + 2).await);
    });
}

#[test]
fn a_session_whose_holder_shows_anew_who_they_are_goes_on_with_that_time() {
    on_both(async |store| {
        let alice = user("alice", "user");
        let opened = session(1);
        store.create_user(&alice, Some(&opened)).await.unwrap().unwrap();
        let before = store.session(opened.id).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let step_up = StepUp { session: opened.id, proof: Proof::Password, ttls: TTLS, refresh: None };
        let long = StepUp { ttls: Ttls { access: Duration::from_secs(90_000), ..TTLS }, ..step_up.clone() };
        let again = store.reauthenticate_session(alice.id, FIRST, &long, &login()).await.unwrap();
        let grant = again.unwrap();
        let after = store.session(opened.id).await.unwrap().unwrap();
        assert!(after.authenticated_at > before.authenticated_at);
        assert_eq!((grant.authenticated_at, grant.session_ends_at), (after.authenticated_at, before.ends_at));
        // Its refresh token is as it was, and tells the same time.
        assert_eq!(after.current_hash, before.current_hash);
        match store.rotate_session(&rotation(&opened, 1, 2)).await.unwrap() {
            Rotation::Rotated(grant) => assert_eq!(grant.authenticated_at, after.authenticated_at),
            other => panic!("{other:?}"),
        }
        // Of another account, another generation, or once it has ended, nobody shows anything.
        let bob = user("bob", "user");
        store.create_user(&bob, None).await.unwrap().unwrap();
        let prove = async |who: UserId, generation| {
            store.reauthenticate_session(who, generation, &step_up, &login()).await.unwrap().is_some()
        };
        assert!(
            !prove(bob.id, FIRST).await && !prove(alice.id, FIRST + 1).await && prove(alice.id, FIRST).await
        );
        // What revokes the session outlives the token that was issued for the proof.
        let entry = store.end_session(alice.id, opened.id, None).await.unwrap().unwrap();
        assert!(entry.expires_at >= grant.issued_at + 90_000_000);
        assert!(!prove(alice.id, FIRST).await);
    });
}

#[test]
fn an_invitation_is_used_as_often_as_it_says_whoever_comes_at_once() {
    on_both(async |store| {
        let new = |hash: u8, uses, holds_for| NewInvitation {
            id: uuid::Builder::from_random_bytes([hash; 16]).into_uuid(),
            token_hash: [hash; 32],
            roles: Roles::parse_joined("staff").unwrap(),
            uses,
            holds_for,
        };
        let expires_at = store.add_invitation(&new(1, 3, 60_000), &login()).await.unwrap();
        assert!(expires_at > SystemClock.wall());
        let found = store.invitation(&[1; 32]).await.unwrap().unwrap();
        assert_eq!(found.roles.to_string(), "staff");
        let come = (0..8).map(|number| {
            let (store, name) = (store.clone(), format!("guest{number}"));
            tokio::spawn(async move {
                let guest = NewUser { invitation: Some([1; 32]), ..user(&name, "user") };
                store.create_user(&guest, None).await.unwrap().is_some()
            })
        });
        let mut made = 0;
        for guest in come.collect::<Vec<_>>() {
            made += usize::from(guest.await.unwrap());
        }
        assert_eq!(made, 3);
        assert_eq!(store.invitation(&[1; 32]).await.unwrap(), None);
        // Who is turned away leaves nothing behind: the name is free.
        let mut taken = 0;
        for number in 0..8 {
            let name = Username::new(&format!("guest{number}")).unwrap();
            taken += usize::from(store.user_by_name(&name).await.unwrap().is_some());
        }
        assert_eq!(taken, 3);
        // A name that is taken uses nothing up.
        store.add_invitation(&new(2, 1, 60_000), &login()).await.unwrap();
        store.create_user(&user("alice", "user"), None).await.unwrap().unwrap();
        let again = NewUser { invitation: Some([2; 32]), ..user("alice", "user") };
        assert!(store.create_user(&again, None).await.unwrap().is_none());
        assert!(store.invitation(&[2; 32]).await.unwrap().is_some());
        // One that has expired, and one that never was.
        store.add_invitation(&new(3, 1, -1), &login()).await.unwrap();
        for hash in [3, 4] {
            assert_eq!(store.invitation(&[hash; 32]).await.unwrap(), None);
            let late = NewUser { invitation: Some([hash; 32]), ..user("late", "user") };
            assert!(store.create_user(&late, None).await.unwrap().is_none());
        }
        store.prune(SystemClock.wall(), Duration::from_secs(86_400)).await.unwrap();
        assert!(store.invitation(&[2; 32]).await.unwrap().is_some());
    });
}

#[test]
fn a_refresh_token_rotates_once_replays_alike_and_then_ends_the_session() {
    on_both(async |store| {
        let (new, own) = (user("alice", ""), session(1));
        store.create_user(&new, Some(&own)).await.unwrap();
        assert!(matches!(store.rotate_session(&rotation(&own, 1, 2)).await.unwrap(), Rotation::Rotated(_)));
        let Rotation::Replayed(_, nonce) = store.rotate_session(&rotation(&own, 1, 9)).await.unwrap() else {
            panic!()
        };
        assert_eq!(nonce, [2; 16]);
        assert!(matches!(store.rotate_session(&rotation(&own, 2, 3)).await.unwrap(), Rotation::Rotated(_)));
        let Rotation::Ended(entry) = store.rotate_session(&rotation(&own, 1, 4)).await.unwrap() else {
            panic!()
        };
        assert_eq!((entry.revoked, entry.generation), (Revoked::Session(own.id), LogEntry::ALL));
        assert!(matches!(store.rotate_session(&rotation(&own, 3, 5)).await.unwrap(), Rotation::Refused));
        assert!(log(&store, None).await.0.contains(&entry));
    });
}

#[test]
fn an_entry_outlives_every_token_of_its_session() {
    on_both(async |store| {
        let (new, own) = (user("alice", ""), session(1));
        let opened = store.create_user(&new, Some(&own)).await.unwrap().unwrap();
        // A later refresh with a shorter life must not shorten what an earlier token needs.
        let mut shorter = rotation(&own, 1, 2);
        shorter.ttls.access = Duration::from_secs(1);
        store.rotate_session(&shorter).await.unwrap();
        let entry = store.end_session(new.id, own.id, None).await.unwrap().unwrap();
        assert!(entry.expires_at >= opened.grant.unwrap().issued_at + 900_000 + 600_000);
        assert!(store.end_session(new.id, own.id, None).await.unwrap().is_none());
        store.prune(SystemClock.wall(), KEEP_AUDIT).await.unwrap();
        assert!(log(&store, None).await.0.contains(&entry));
    });
}

#[test]
fn every_change_raises_the_generation_and_ends_the_other_sessions() {
    on_both(async |store| {
        let (new, own, other) = (user("alice", "user"), session(1), session(2));
        store.create_user(&new, Some(&own)).await.unwrap();
        store.open_session(new.id, FIRST, &other, &login()).await.unwrap().unwrap();
        let moved = NewSession { id: own.id, ..session(7) };
        let change = AccountChange {
            password_hash: Some("new".to_owned()),
            expected_generation: Some(FIRST),
            ends: Ends::Others(Box::new(Rekey { session: moved.clone(), authenticated: true })),
            ..AccountChange::default()
        };
        let Change::Done(Some(entry), Some(grant)) = store.change_user(new.id, &change).await.unwrap() else {
            panic!()
        };
        assert_eq!((entry.revoked, entry.generation, grant.user.generation), (Revoked::User(new.id), 2, 2));
        assert!(matches!(store.change_user(new.id, &change).await.unwrap(), Change::Conflict));
        assert!(matches!(store.rotate_session(&rotation(&other, 2, 3)).await.unwrap(), Rotation::Refused));
        assert!(matches!(store.rotate_session(&rotation(&own, 1, 3)).await.unwrap(), Rotation::Refused));
        assert_eq!(
            store.sessions(new.id, PAGE).await.unwrap().len(),
            1,
            "within the grace it is an accident"
        );
        assert!(matches!(store.rotate_session(&rotation(&moved, 7, 3)).await.unwrap(), Rotation::Rotated(_)));
        assert!(matches!(store.rotate_session(&rotation(&own, 1, 3)).await.unwrap(), Rotation::Ended(_)));
        assert!(store.sessions(new.id, PAGE).await.unwrap().is_empty());
    });
}

#[test]
fn an_account_has_so_many_sessions_and_the_one_used_longest_ago_ends() {
    on_both(async |store| {
        let (new, cursor) = (user("alice", ""), log(&store, None).await.1);
        let few = |token| NewSession { most: 3, ..session(token) };
        let opened: Vec<NewSession> = (1..=3).map(few).collect();
        store.create_user(&new, Some(&opened[0])).await.unwrap();
        for session in &opened[1..] {
            tokio::time::sleep(Duration::from_millis(3)).await;
            assert!(
                store.open_session(new.id, FIRST, session, &login()).await.unwrap().unwrap().ended.is_empty()
            );
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
        // The first was used again since.
        store.rotate_session(&rotation(&opened[0], 1, 9)).await.unwrap();
        let grant = store.open_session(new.id, FIRST, &few(4), &login()).await.unwrap().unwrap();
        let ended: Vec<_> = grant.ended.iter().map(|entry| entry.revoked).collect();
        assert_eq!(ended, [Revoked::Session(opened[1].id)]);
        assert_eq!(log(&store, Some(&cursor)).await.0, grant.ended);
        assert_eq!(store.sessions(new.id, PAGE).await.unwrap().len(), 3);
        let refused = store.rotate_session(&rotation(&opened[1], 2, 8)).await.unwrap();
        assert!(matches!(refused, Rotation::Refused));
    });
}

#[test]
fn sessions_are_listed_by_the_page() {
    on_both(async |store| {
        let new = user("alice", "");
        store.create_user(&new, None).await.unwrap();
        for token in 0..25 {
            store.open_session(new.id, FIRST, &session(token), &login()).await.unwrap();
        }
        let all: Vec<_> = store.sessions(new.id, PAGE).await.unwrap();
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = store.sessions(new.id, SessionPage { limit: 4, after }).await.unwrap();
            let Some(last) = page.last() else { break };
            after = SessionPage::parse(&SessionPage::cursor(last));
            paged.extend(page);
        }
        assert_eq!((paged.len(), &paged), (25, &all));
    });
}

#[test]
#[ignore = "slow"]
fn any_number_of_sessions_end_at_once_and_their_rows_go_later() {
    on_both(async |store| {
        let (alice, bob) = (user("alice", ""), user("bob", ""));
        store.create_user(&alice, None).await.unwrap();
        store.create_user(&bob, None).await.unwrap();
        let many = |token: usize| NewSession { most: 10_000, ..session(token as u8) };
        let opened: Vec<NewSession> = (0..1_200).map(many).collect();
        for session in &opened {
            store.open_session(alice.id, FIRST, session, &login()).await.unwrap();
        }
        store.open_session(bob.id, FIRST, &session(1), &login()).await.unwrap();
        assert!(matches!(
            store.change_user(alice.id, &AccountChange::default()).await.unwrap(),
            Change::Done(..)
        ));
        assert!(store.sessions(alice.id, PAGE).await.unwrap().is_empty());
        for session in &opened {
            assert!(store.session(session.id).await.unwrap().is_none());
        }
        // One whose row is still there is as dead as the others.
        for (token, session) in
            opened.iter().enumerate().take(50).chain(opened.iter().enumerate().skip(1_150))
        {
            let rotated = store.rotate_session(&rotation(session, token as u8, 7)).await.unwrap();
            assert!(matches!(rotated, Rotation::Refused));
        }
        let delete = AccountChange { delete: true, ..AccountChange::default() };
        store.open_session(bob.id, FIRST, &session(2), &login()).await.unwrap();
        assert!(matches!(store.change_user(bob.id, &delete).await.unwrap(), Change::Done(..)));
        store.prune(SystemClock.wall(), KEEP_AUDIT).await.unwrap();
        let ended: Vec<_> = opened
            .iter()
            .map(|session| LogEntry {
                revoked: Revoked::Session(session.id),
                generation: LogEntry::ALL,
                expires_at: i64::MAX / 2,
            })
            .collect();
        // No row is left: what settles the end of one finds none to end, and none comes back.
        store.restore_log(&ended[..3]).await.unwrap();
        assert!(store.end_session(alice.id, opened[0].id, None).await.unwrap().is_none());
        assert!(store.end_session(alice.id, opened[1_199].id, None).await.unwrap().is_none());
    });
}

#[test]
fn a_former_name_is_kept_for_its_holder() {
    on_both(async |store| {
        let (alice, bob) = (user("alice", ""), user("bob", ""));
        store.create_user(&alice, None).await.unwrap();
        store.create_user(&bob, None).await.unwrap();
        let rename = async |id, name: &str| {
            let name = Some(Username::new(name).unwrap());
            store.change_user(id, &AccountChange { name, ..AccountChange::default() }).await.unwrap()
        };
        assert!(matches!(rename(alice.id, "anna").await, Change::Done(..)));
        assert!(matches!(rename(bob.id, "alice").await, Change::NameTaken));
        assert!(store.create_user(&user("alice", ""), None).await.unwrap().is_none());
        assert!(matches!(rename(alice.id, "alice").await, Change::Done(..)));
        assert!(matches!(rename(bob.id, "anna").await, Change::NameTaken));
        assert!(matches!(rename(alice.id, "anna").await, Change::Done(..)));
        let delete = AccountChange { delete: true, ..AccountChange::default() };
        store.change_user(alice.id, &delete).await.unwrap();
        assert!(matches!(rename(bob.id, "alice").await, Change::NameTaken));
        assert!(matches!(rename(bob.id, "anna").await, Change::NameTaken));
    });
}

#[test]
fn a_look_alike_inherits_nothing_of_the_name_that_it_looks_like() {
    on_both(async |store| {
        let alice = user("paypal", "");
        let other = NewUser { similar: true, ..user("p\u{430}ypal", "") };
        store.create_user(&alice, None).await.unwrap().unwrap();
        store.create_user(&other, None).await.unwrap().unwrap();
        let rename = async |id, name: &str| {
            let name = Some(Username::new(name).unwrap());
            store.change_user(id, &AccountChange { name, ..AccountChange::default() }).await.unwrap()
        };
        assert!(matches!(rename(other.id, "bob").await, Change::Done(..)));
        assert!(matches!(rename(alice.id, "anna").await, Change::Done(..)));
        assert!(matches!(rename(other.id, "paypal").await, Change::NameTaken));
        assert!(matches!(rename(alice.id, "paypal").await, Change::Done(..)));
        let delete = AccountChange { delete: true, ..AccountChange::default() };
        store.change_user(alice.id, &delete).await.unwrap();
        assert!(matches!(rename(other.id, "paypal").await, Change::NameTaken));
        // What was not made has released nothing.
        let again = NewUser { release: true, ..user("bob", "") };
        assert!(store.create_user(&again, None).await.unwrap().is_none());
        assert!(store.create_user(&user("paypal", ""), None).await.unwrap().is_none());
        let released = NewUser { release: true, ..user("paypal", "") };
        assert!(store.create_user(&released, None).await.unwrap().is_some());
    });
}

#[test]
fn all_keys_are_revoked_beside_whoever_reads_the_sessions_for_long() {
    on_postgres(async |store, url| {
        let (new, own) = (user("alice", ""), session(1));
        store.create_user(&new, Some(&own)).await.unwrap();
        store.create_key_if_none(&key("a"), Duration::ZERO).await.unwrap();
        let mut dump = SqlSession::open(url);
        dump.run("BEGIN; SELECT count(*) FROM sessions");
        let begun = std::time::Instant::now();
        assert!(store.revoke_keys(&revocation(None, "b")).await.unwrap().is_some());
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        dump.run("COMMIT");
        assert!(store.session(own.id).await.unwrap().is_none());
    });
}

#[test]
fn names_are_not_given_out_twice_and_the_last_administrator_stays() {
    on_both(async |store| {
        let (alice, bob) = (user("alice", "admin"), user("bob", "user"));
        store.create_user(&alice, None).await.unwrap();
        store.create_user(&bob, None).await.unwrap();
        let rename = |name: &str| AccountChange {
            name: Some(Username::new(name).unwrap()),
            ..AccountChange::default()
        };
        assert!(matches!(store.change_user(bob.id, &rename("alice")).await.unwrap(), Change::NameTaken));
        assert_eq!(store.user(bob.id).await.unwrap().unwrap().generation, 1);
        assert!(matches!(store.change_user(bob.id, &rename("robert")).await.unwrap(), Change::Done(..)));
        assert!(store.create_user(&user("bob", ""), None).await.unwrap().is_none());
        let delete = AccountChange { delete: true, keep_last_admin: true, ..AccountChange::default() };
        assert!(matches!(store.change_user(alice.id, &delete).await.unwrap(), Change::LastAdmin));
        assert!(matches!(store.change_user(bob.id, &delete).await.unwrap(), Change::Done(..)));
        assert!(store.create_user(&user("robert", ""), None).await.unwrap().is_none());
        let second = user("carol", "admin");
        store.create_user(&second, None).await.unwrap();
        assert!(matches!(store.change_user(alice.id, &delete).await.unwrap(), Change::Done(..)));
        assert!(store.user(alice.id).await.unwrap().is_none());
    });
}

#[test]
fn the_log_is_followed_without_a_gap_under_concurrent_writers() {
    on_both(async |store| {
        let (_, begin) = log(&store, None).await;
        let mut writers = Vec::new();
        for writer in 0..8_u8 {
            // One each: writers of one user would wait for each other.
            let new = user(&format!("user-{writer}"), "");
            store.create_user(&new, None).await.unwrap();
            let store = store.clone();
            writers.push(tokio::spawn(async move {
                let mut ended = Vec::new();
                for _ in 0..10 {
                    let own = session(writer);
                    store.open_session(new.id, FIRST, &own, &login()).await.unwrap().unwrap();
                    ended.push(store.end_session(new.id, own.id, None).await.unwrap().unwrap());
                }
                ended
            }));
        }
        let (mut polled, mut glanced) = (Vec::new(), Vec::new());
        let (mut cursor, mut quick) = (begin.clone(), begin);
        let mut ended = false;
        while !ended {
            ended = writers.iter().all(|writer| writer.is_finished());
            let (entries, end) = log(&store, Some(&cursor)).await;
            polled.extend(entries);
            cursor = end;
            let (entries, end) = glance(&store, &quick).await;
            glanced.extend(entries);
            quick = end;
        }
        for writer in writers {
            for entry in writer.await.unwrap() {
                assert!(polled.contains(&entry) && glanced.contains(&entry));
            }
        }
    });
}

#[test]
fn a_row_that_commits_behind_later_ones_is_not_passed_over() {
    on_postgres(async |store, url| {
        let new = user("alice", "");
        store.create_user(&new, None).await.unwrap();
        let (_, begin) = log(&store, None).await;
        let late = SessionId::generate(&OsRandom);
        let mut other = SqlSession::open(url);
        other.run(&format!(
            "BEGIN; INSERT INTO revocations (kind, id, generation, expires_at) VALUES (1, '{}', 9, {})",
            late.uuid(),
            i64::MAX / 2
        ));
        let logout = async || {
            let own = session(1);
            store.open_session(new.id, FIRST, &own, &login()).await.unwrap().unwrap();
            store.end_session(new.id, own.id, None).await.unwrap().unwrap()
        };
        let (mut cursor, mut quick) = (begin.clone(), begin);
        for _ in 0..4 {
            let entry = logout().await;
            let (polled, end) = log(&store, Some(&cursor)).await;
            let (glanced, quick_end) = glance(&store, &quick).await;
            assert_eq!((polled.as_slice(), glanced.as_slice()), ([entry].as_slice(), [entry].as_slice()));
            (cursor, quick) = (end, quick_end);
        }
        other.run("COMMIT");
        logout().await;
        for (entries, _) in [log(&store, Some(&cursor)).await, glance(&store, &quick).await] {
            assert_eq!(entries.len(), 2);
            assert!(entries.iter().any(|entry| entry.revoked == Revoked::Session(late)), "{entries:?}");
        }
    });
}

#[test]
fn what_a_reading_missed_is_known_by_the_count_of_the_server() {
    let url = shared_database();
    let proxy = Proxy::before(&url);
    on(postgres(proxy.url(&url)), &async |store| {
        let (new, own) = (user("alice", ""), session(1));
        store.create_user(&new, Some(&own)).await.unwrap();
        let entry = store.end_session(new.id, own.id, None).await.unwrap().unwrap();
        proxy.lose_rows(1);
        let beat = Beat { gateway: uuid::Uuid::nil(), number: 1, furthest: None, max_staleness: 0 };
        let lost = store.read_log(None, &beat, &mut |_| {}).await.unwrap_err();
        assert!(lost.to_string().contains("rows were lost"), "{lost}");
        assert_eq!(log(&store, None).await.0, [entry]);
    });
}

#[test]
fn what_has_expired_is_removed_by_the_clock_that_is_behind_and_in_pieces() {
    on_both(async |store| {
        let (new, own) = (user("alice", ""), session(1));
        store.create_user(&new, Some(&own)).await.unwrap();
        let ended = store.end_session(new.id, own.id, None).await.unwrap().unwrap();
        // A gateway whose clock runs ahead is not believed where the database has one of its own.
        let later = ended.expires_at + 3_600_000;
        store.prune(later, KEEP_AUDIT).await.unwrap();
        let has_clock = store.hints().await.unwrap().is_some();
        let left = if has_clock { vec![ended] } else { Vec::new() };
        assert_eq!(log(&store, None).await.0, left);
    });
    on_postgres(async |store, url| {
        store.create_user(&user("alice", ""), None).await.unwrap();
        shared_sql(
            url,
            "INSERT INTO revocations (kind, id, generation, expires_at) \
             SELECT 1, gen_random_uuid(), 1, 1 FROM generate_series(1, 12000)",
        );
        store.prune(SystemClock.wall(), KEEP_AUDIT).await.unwrap();
        let left = SqlSession::open(url).run("SELECT count(*) FROM revocations");
        assert_eq!(left, ["0"]);
    });
}

#[test]
fn an_entry_of_a_user_or_a_key_outlives_every_token_that_it_concerns() {
    on_both(async |store| {
        let (new, own) = (user("alice", ""), session(1));
        let opened = store.create_user(&new, Some(&own)).await.unwrap().unwrap();
        let last = opened.grant.unwrap().issued_at + 900_000 + 600_000;
        store.create_key_if_none(&key("a"), Duration::ZERO).await.unwrap();
        // The present setting is shorter than that of the time when the token was issued.
        let shorter = KeyRevocation { access_ttl: Duration::from_secs(1), ..revocation(Some("a"), "b") };
        let revoked = store.revoke_keys(&shorter).await.unwrap().unwrap();
        assert!(revoked.entries[0].expires_at >= last);
        let Change::Done(Some(entry), _) =
            store.change_user(new.id, &AccountChange::default()).await.unwrap()
        else {
            panic!()
        };
        assert!(entry.expires_at >= last);
    });
}

#[test]
fn the_end_of_a_session_whose_tokens_have_long_expired_is_remembered_for_a_while() {
    on_both(async |store| {
        let new = user("alice", "");
        store.create_user(&new, None).await.unwrap();
        let short = Ttls { access: Duration::ZERO, ..TTLS };
        let own = NewSession { ttls: short, ..session(1) };
        let opened = store.open_session(new.id, FIRST, &own, &login()).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let entry = store.end_session(new.id, own.id, None).await.unwrap().unwrap();
        assert!(entry.expires_at >= opened.issued_at + 600_000 + 50);
    });
}

#[test]
fn two_that_make_the_first_key_at_once_make_one() {
    on_postgres(async |store, url| {
        // Another gateway has made its key and not committed.
        let mut other = SqlSession::open(url);
        other.run(
            "BEGIN; SELECT pg_advisory_xact_lock(hashtext('authgate signing keys')); \
             INSERT INTO signing_keys VALUES ('theirs', 'EdDSA', '', '', 1, 1)",
        );
        let making = {
            let store = store.clone();
            tokio::spawn(async move { store.create_key_if_none(&key("ours"), Duration::ZERO).await })
        };
        let mut watcher = SqlSession::open(url);
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = \
             (SELECT oid FROM pg_database WHERE datname = current_database())";
        while !making.is_finished() && watcher.run(waiting) != ["1"] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        other.run("COMMIT");
        making.await.unwrap().unwrap();
        let kids: Vec<String> = store.signing_keys().await.unwrap().into_iter().map(|key| key.kid).collect();
        assert_eq!(kids, ["theirs"]);
    });
}

#[test]
fn a_new_key_signs_when_the_gateway_with_the_greatest_bound_must_have_read_it() {
    on_postgres(async |store, url| {
        let ttl = Duration::from_secs(900);
        let delay = Duration::from_secs(3);
        let rotated = store.rotate_key(&key("a"), delay, ttl, None).await.unwrap();
        assert_eq!(rotated.signs_at, rotated.created_at + 3_000);
        let beat =
            Beat { gateway: uuid::Uuid::from_u128(1), number: 1, furthest: None, max_staleness: 30_000 };
        store.read_log(None, &beat, &mut |_| {}).await.unwrap();
        let rotated = store.rotate_key(&key("b"), delay, ttl, None).await.unwrap();
        assert_eq!(rotated.signs_at, rotated.created_at + 31_000);
        // Also one that is made at a start, where it is the first of its kind.
        let first = StoredKey { algorithm: "ES256".to_owned(), ..key("first") };
        store.create_key_if_none(&first, Duration::ZERO).await.unwrap();
        let keys = store.signing_keys().await.unwrap();
        let first = keys.iter().find(|key| key.kid == "first").unwrap();
        assert_eq!(first.signs_at, first.created_at + 31_000);
        // One that was not seen for longer denies, and counts no more.
        shared_sql(url, "UPDATE gateways SET seen_at = seen_at - 31000");
        let rotated = store.rotate_key(&key("c"), delay, ttl, None).await.unwrap();
        assert_eq!(rotated.signs_at, rotated.created_at + 3_000);
    });
}

#[test]
fn keys_and_the_vault_are_begun_once() {
    on_both(async |store| {
        let vault = |name: &str| StoredVault { fingerprint: name.into(), wrapped_root: name.into() };
        assert_eq!(store.vault().await.unwrap(), None);
        assert_eq!(store.begin_vault(&vault("one")).await.unwrap(), vault("one"));
        let again = StoredVault { wrapped_root: b"another".to_vec(), ..vault("one") };
        assert_eq!(store.begin_vault(&again).await.unwrap(), vault("one"));
        assert_eq!(store.begin_vault(&vault("two")).await.unwrap(), vault("one"));
        assert_eq!(store.vault().await.unwrap(), Some(vault("one")));
        store.create_key_if_none(&key("a"), Duration::ZERO).await.unwrap();
        store.create_key_if_none(&key("b"), Duration::ZERO).await.unwrap();
        assert_eq!(store.signing_keys().await.unwrap().len(), 1);
        let rotated = store
            .rotate_key(&key("c"), Duration::from_secs(6), Duration::from_secs(900), None)
            .await
            .unwrap();
        let keys = store.signing_keys().await.unwrap();
        assert_eq!(keys.iter().map(|key| key.kid.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert!(keys[0].expires_at.unwrap() >= rotated.signs_at + 900_000);
        store.prune(SystemClock.wall(), KEEP_AUDIT).await.unwrap();
        assert_eq!(store.signing_keys().await.unwrap().len(), 2);
    });
}

fn key(kid: &str) -> StoredKey {
    StoredKey {
        kid: kid.to_owned(),
        algorithm: "EdDSA".to_owned(),
        public_key: vec![1; 32],
        wrapped_key: vec![2; 60],
        created_at: 0,
        signs_at: 0,
        expires_at: None,
    }
}

fn revocation(kid: Option<&str>, successor: &str) -> KeyRevocation {
    KeyRevocation {
        kid: kid.map(str::to_owned),
        successor: Some(key(successor)),
        delay: Duration::from_secs(6),
        access_ttl: Duration::from_secs(900),
        event: Some(event("key.revoke")),
    }
}

#[test]
fn a_revoked_key_is_gone_and_in_the_log_and_another_takes_over() {
    on_both(async |store| {
        let (new, own) = (user("alice", ""), session(1));
        let opened = store.create_user(&new, Some(&own)).await.unwrap().unwrap();
        store.create_key_if_none(&key("a"), Duration::ZERO).await.unwrap();
        assert!(store.revoke_keys(&revocation(Some("b"), "c")).await.unwrap().is_none());
        store.rotate_key(&key("b"), Duration::ZERO, Duration::from_secs(900), None).await.unwrap();
        // One that was replaced: nothing need take over.
        let revoked = store.revoke_keys(&revocation(Some("a"), "c")).await.unwrap().unwrap();
        assert!(revoked.successor.is_none());
        let revoked = store.revoke_keys(&revocation(Some("b"), "c")).await.unwrap().unwrap();
        let [entry] = revoked.entries[..] else { panic!("{revoked:?}") };
        assert_eq!((entry.revoked, entry.generation), (Revoked::Key(KeyId::of("b")), LogEntry::ALL));
        assert!(entry.expires_at >= opened.grant.unwrap().issued_at + 900_000 + 600_000);
        assert!(log(&store, None).await.0.contains(&entry));
        let successor = revoked.successor.unwrap();
        assert_eq!(successor.signs_at, successor.created_at + 6_000);
        assert_eq!(store.signing_keys().await.unwrap(), [successor]);
        assert!(store.session(own.id).await.unwrap().is_some(), "a key ends tokens, not sessions");
        let all = store.revoke_keys(&revocation(None, "d")).await.unwrap().unwrap();
        assert_eq!(all.kids, ["c"]);
        assert!(store.session(own.id).await.unwrap().is_none());
        assert_eq!(store.signing_keys().await.unwrap()[0].kid, "d");
        let trail = store.audit(&AuditFilter { limit: 10, ..AuditFilter::default() }).await.unwrap();
        assert_eq!(trail.iter().map(|line| line.subject.as_str()).collect::<Vec<_>>(), ["c", "b", "a"]);
    });
}

#[test]
fn a_log_that_has_lost_entries_takes_them_back_with_what_they_stand_for() {
    on_postgres(async |store, _| {
        let (alice, bob, carol) = (user("alice", ""), user("bob", ""), user("carol", ""));
        let (ended, of_bob, kept) = (session(1), session(2), session(3));
        store.create_user(&alice, Some(&ended)).await.unwrap();
        store.create_user(&bob, Some(&of_bob)).await.unwrap();
        store.create_user(&carol, Some(&kept)).await.unwrap();
        store.create_key_if_none(&key("a"), Duration::ZERO).await.unwrap();
        let kinds = [
            (Revoked::Session(ended.id), LogEntry::ALL),
            (Revoked::User(bob.id), 4),
            (Revoked::Key(KeyId::of("a")), LogEntry::ALL),
        ];
        let entries =
            kinds.map(|(revoked, generation)| LogEntry { revoked, generation, expires_at: i64::MAX / 2 });
        for _ in 0..2 {
            store.restore_log(&entries).await.unwrap();
        }
        let mut there = log(&store, None).await.0;
        there.sort_by_key(|entry| entries.iter().position(|lost| lost == entry));
        assert_eq!(there, entries, "each once");
        assert_eq!(store.user(bob.id).await.unwrap().unwrap().generation, 4);
        assert!(store.sessions(bob.id, PAGE).await.unwrap().is_empty());
        assert!(store.session(ended.id).await.unwrap().is_none());
        assert!(store.signing_keys().await.unwrap().is_empty());
        assert!(store.session(kept.id).await.unwrap().is_some());
        // A generation is never lowered.
        store.restore_log(&[LogEntry { generation: 2, ..entries[1] }]).await.unwrap();
        assert_eq!(store.user(bob.id).await.unwrap().unwrap().generation, 4);
    });
}

#[test]
fn what_may_not_have_happened_is_settled_once() {
    on_both(async |store| {
        let (alice, bob, carol) = (user("alice", ""), user("bob", ""), user("carol", ""));
        let (ended, of_bob, kept) = (session(1), session(2), session(3));
        let opened = store.create_user(&alice, Some(&ended)).await.unwrap().unwrap();
        store.create_user(&bob, Some(&of_bob)).await.unwrap();
        store.create_user(&carol, Some(&kept)).await.unwrap().unwrap();
        store.create_key_if_none(&key("a"), Duration::ZERO).await.unwrap();
        let issued_at = opened.grant.unwrap().issued_at;
        let entries = [
            (Revoked::Session(ended.id), LogEntry::ALL),
            (Revoked::User(bob.id), 2),
            (Revoked::Key(KeyId::of("a")), LogEntry::ALL),
        ]
        .map(|(revoked, generation)| LogEntry {
            revoked,
            generation,
            // As one would say who knows only that tokens live for a moment by now.
            expires_at: issued_at + 60_000,
        });
        for _ in 0..2 {
            for entry in &entries {
                store.settle(entry).await.unwrap();
            }
        }
        let settled = log(&store, None).await.0;
        let said = |entries: &[LogEntry]| -> Vec<(Revoked, i64)> {
            entries.iter().map(|entry| (entry.revoked, entry.generation)).collect()
        };
        assert_eq!(said(&settled), said(&entries), "each once");
        for entry in &settled[..2] {
            assert!(entry.expires_at >= issued_at + 900_000 + 600_000, "{entry:?}");
        }
        assert!(store.session(ended.id).await.unwrap().is_none());
        assert!(store.session(of_bob.id).await.unwrap().is_none());
        assert_eq!(store.user(bob.id).await.unwrap().unwrap().generation, 2);
        assert!(store.signing_keys().await.unwrap().is_empty());
        assert!(store.session(kept.id).await.unwrap().is_some());
        // What did happen is not done again.
        let entry = store.end_session(carol.id, kept.id, None).await.unwrap().unwrap();
        store.settle(&LogEntry { expires_at: entry.expires_at + 60_000, ..entry }).await.unwrap();
        assert_eq!(log(&store, None).await.0.len(), 4);
    });
}

#[test]
fn an_entry_that_was_lost_outlives_what_was_issued_since() {
    on_postgres(async |store, _| {
        let (new, own) = (user("alice", ""), session(1));
        let issued_at = store.create_user(&new, Some(&own)).await.unwrap().unwrap().grant.unwrap().issued_at;
        // It was ended when its last token had little time left, and came back with an older state.
        let lost = LogEntry {
            revoked: Revoked::Session(own.id),
            generation: LogEntry::ALL,
            expires_at: issued_at + 650_000,
        };
        let of_user = LogEntry { revoked: Revoked::User(new.id), generation: 2, ..lost };
        store.restore_log(&[lost, of_user]).await.unwrap();
        for entry in log(&store, None).await.0 {
            assert!(entry.expires_at >= issued_at + 900_000 + 600_000, "{entry:?}");
        }
    });
}

#[test]
fn a_log_that_has_lost_the_revocation_of_all_keys_ends_the_sessions_of_that_time_again() {
    on_postgres(async |store, _| {
        let new = user("alice", "");
        let (before, after) = (session(1), session(2));
        store.create_user(&new, Some(&before)).await.unwrap();
        store.create_key_if_none(&key("a"), Duration::ZERO).await.unwrap();
        let revoked = store.revoke_keys(&revocation(None, "b")).await.unwrap().unwrap();
        assert_ne!(revoked.entries[0].generation, LogEntry::ALL);
        // A database that knows nothing of it: the session is there again. Another was opened meanwhile.
        let opened = store.open_session(new.id, FIRST, &before, &login()).await.unwrap().unwrap();
        let entry = LogEntry { generation: opened.issued_at, ..revoked.entries[0] };
        tokio::time::sleep(Duration::from_millis(5)).await;
        store.open_session(new.id, FIRST, &after, &login()).await.unwrap();
        store.restore_log(&[entry]).await.unwrap();
        let left: Vec<_> =
            store.sessions(new.id, PAGE).await.unwrap().iter().map(|session| session.id).collect();
        assert_eq!(left, [after.id]);
    });
}

#[test]
fn rows_that_came_out_of_a_dump_are_read_once() {
    on_postgres(async |store, url| {
        let (new, own) = (user("alice", ""), session(1));
        store.create_user(&new, Some(&own)).await.unwrap();
        let entry = store.end_session(new.id, own.id, None).await.unwrap().unwrap();
        shared_sql(url, "UPDATE revocations SET xid = '1000000000'");
        let (entries, cursor) = log(&store, None).await;
        assert_eq!(entries, [entry]);
        // Its own change of the row is the last that is seen of it.
        let (_, cursor) = log(&store, Some(&cursor)).await;
        assert!(log(&store, Some(&cursor)).await.0.is_empty());
    });
}

#[test]
#[ignore = "slow"]
fn a_server_that_counts_from_a_lower_number_than_was_seen_is_rewound() {
    let beat = |furthest: Option<&Cursor>| Beat {
        gateway: uuid::Uuid::from_u128(1),
        number: 1,
        furthest: furthest.cloned(),
        max_staleness: 0,
    };
    let newer = Cluster::start();
    for _ in 0..3 {
        newer.sql("postgres", "DO $$ BEGIN FOR i IN 1..2000 LOOP BEGIN CREATE TEMP TABLE t (); DROP TABLE t; EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$");
    }
    let mut seen = None;
    let at = |url: String| postgres(url);
    let seen_there = std::sync::Mutex::new(&mut seen);
    on(at(newer.database()), &async |store| {
        **seen_there.lock().unwrap() = Some(log(&store, None).await.1);
    });
    let older = Cluster::start();
    on(at(older.database()), &async |store| {
        let history = async |furthest| {
            store.read_log(None, &beat(furthest), &mut |_| {}).await.unwrap().history.unwrap()
        };
        assert!(!history(None).await.rewound);
        let own = log(&store, None).await.1;
        assert!(!history(Some(&own)).await.rewound);
        assert!(history(seen.as_ref()).await.rewound);
    });
}

#[test]
fn a_reading_shows_the_beat_before_and_the_lineage() {
    on_postgres(async |store, _| {
        let gateway = uuid::Uuid::from_u128(1);
        let read = async |number, furthest: Option<&Cursor>| {
            let beat = Beat { gateway, number, furthest: furthest.cloned(), max_staleness: 0 };
            store.read_log(None, &beat, &mut |_| {}).await.unwrap()
        };
        let first = read(1, None).await;
        let history = first.history.unwrap();
        assert_eq!((history.found, history.rewound), (None, false));
        let second = read(2, Some(&first.cursor)).await.history.unwrap();
        assert_eq!((second.found, second.rewound), (Some(1), false));
        assert_eq!(second.lineage, history.lineage);
        assert!(second.lineage.ends_with(" 00000001"), "{second:?}");
    });
}

const LEASE: MailLease =
    MailLease { hold: 60_000, ttls: MailTtls { verify: 60_000, reset: 60_000, code: 60_000 } };

fn mail(user: &NewUser, purpose: Purpose, token: u8) -> NewMail {
    let id = uuid::Builder::from_random_bytes([token; 16]).into_uuid();
    NewMail {
        id,
        user: user.id,
        purpose,
        recipient: None,
        token_hash: [token; 32],
        most_live: 2,
        most_live_to_address: 10,
    }
}

/// The change that a token of a mail to verify an address allows.
fn verification(token: u8) -> AccountChange {
    AccountChange {
        spends: Some(Spend { purpose: Purpose::VerifyEmail, token_hash: [token; 32] }),
        ends: Ends::Nothing,
        ..AccountChange::default()
    }
}

/// An account whose mail to verify its address is on its way.
async fn asked_to_verify(store: &Arc<dyn Store>, name: &str, email: &str, token: u8) -> NewUser {
    let new = NewUser { email: Some(email.to_owned()), ..user(name, "user") };
    store.create_user(&new, None).await.unwrap();
    assert!(store.enqueue_mail(&mail(&new, Purpose::VerifyEmail, token)).await.unwrap());
    store.claim_mail(&LEASE).await.unwrap().unwrap();
    new
}

#[test]
fn verifying_an_address_ends_nothing() {
    on_both(async |store| {
        let new = asked_to_verify(&store, "alice", "a@example.com", 1).await;
        let own = session(1);
        store.open_session(new.id, FIRST, &own, &login()).await.unwrap().unwrap();
        let before = log(&store, None).await.0.len();
        assert!(matches!(
            store.change_user(new.id, &verification(1)).await.unwrap(),
            Change::Done(None, None)
        ));
        let found = store.user(new.id).await.unwrap().unwrap();
        assert!(found.email_verified && found.generation == FIRST);
        assert_eq!(log(&store, None).await.0.len(), before);
        assert!(matches!(store.rotate_session(&rotation(&own, 1, 2)).await.unwrap(), Rotation::Rotated(_)));
    });
}

#[test]
fn an_address_is_shown_to_be_one_accounts_and_no_others() {
    on_both(async |store| {
        let first = asked_to_verify(&store, "alice", "both@example.com", 1).await;
        let second = asked_to_verify(&store, "bob", "BOTH@example.com", 2).await;
        assert!(matches!(store.change_user(first.id, &verification(1)).await.unwrap(), Change::Done(..)));
        let taken = store.change_user(second.id, &verification(2)).await.unwrap();
        assert!(matches!(taken, Change::AddressTaken));
        assert!(!store.user(second.id).await.unwrap().unwrap().email_verified);
        assert_eq!(store.user_by_verified_email("both@example.com").await.unwrap().unwrap().id, first.id);
        // Given up by the one, it can be shown to be the other's: the token was not used up.
        let gives_up = AccountChange { email: Some(None), ..AccountChange::default() };
        store.change_user(first.id, &gives_up).await.unwrap();
        assert!(matches!(store.change_user(second.id, &verification(2)).await.unwrap(), Change::Done(..)));
        assert_eq!(store.user_by_verified_email("both@example.com").await.unwrap().unwrap().id, second.id);
    });
}

#[test]
fn an_address_that_a_disabled_account_has_verified_can_be_verified_for_another() {
    on_both(async |store| {
        let first = asked_to_verify(&store, "alice", "both@example.com", 1).await;
        let second = asked_to_verify(&store, "bob", "both@example.com", 2).await;
        store.change_user(first.id, &verification(1)).await.unwrap();
        let disable = AccountChange { disabled: Some(true), ..AccountChange::default() };
        store.change_user(first.id, &disable).await.unwrap();
        assert!(matches!(store.change_user(second.id, &verification(2)).await.unwrap(), Change::Done(..)));
        assert_eq!(store.user_by_verified_email("both@example.com").await.unwrap().unwrap().id, second.id);
        assert!(!store.user(first.id).await.unwrap().unwrap().email_verified);
    });
}

#[test]
fn of_several_accounts_that_show_an_address_at_once_one_has_it() {
    on_both(async |store| {
        let mut all = Vec::new();
        for (name, token) in [("alice", 1), ("bob", 2), ("carol", 3), ("dave", 4)] {
            all.push((asked_to_verify(&store, name, "all@example.com", token).await.id, token));
        }
        let attempts = all.iter().map(|&(id, token)| {
            let store = store.clone();
            tokio::spawn(async move { store.change_user(id, &verification(token)).await.unwrap() })
        });
        let mut done = 0;
        for attempt in attempts.collect::<Vec<_>>() {
            match attempt.await.unwrap() {
                Change::Done(..) => done += 1,
                Change::AddressTaken => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(done, 1);
    });
}

#[test]
fn of_many_made_with_one_verified_address_at_once_one_has_it() {
    on_both(async |store| {
        for round in 0..8 {
            let come = (0..6).map(|number| {
                let (store, name) = (store.clone(), format!("guest{round}-{number}"));
                let email = Some(format!("guest{round}@example.com"));
                let guest = NewUser { email, email_verified: Some(true), ..user(&name, "user") };
                tokio::spawn(async move { store.create_user(&guest, None).await.unwrap() })
            });
            let mut verified = 0;
            for guest in come.collect::<Vec<_>>() {
                // Who comes too late has no account, or one whose address is not verified.
                verified += usize::from(guest.await.unwrap().is_some_and(|made| made.user.email_verified));
            }
            assert_eq!(verified, 1);
        }
    });
}

#[test]
fn an_imported_address_is_verified_for_the_first_who_brings_it() {
    on_both(async |store| {
        let with = |id, name, email: &str, verified| ImportedUser {
            email: Some(email.to_owned()),
            email_verified: verified,
            ..imported(id, name)
        };
        let batch = vec![
            with("1", "alice", "a@example.com", false),
            with("2", "bob", "A@example.com", true),
            with("3", "carol", "a@example.com", true),
            with("4", "dave", "d@example.com", true),
        ];
        let outcomes = store.import_users(batch, &event("user.import"), true).await.unwrap();
        use ImportOutcome::{Imported, Unverified};
        assert_eq!(outcomes, [Imported, Imported, Unverified, Imported]);
        let later = vec![with("5", "erin", "d@example.com", true)];
        assert_eq!(store.import_users(later, &event("user.import"), true).await.unwrap(), [Unverified]);
        let mut verified = Vec::new();
        for id in ["1", "2", "3", "4", "5"] {
            let found = store.user_by_external_id(id).await.unwrap().unwrap();
            assert!(found.email.is_some());
            if found.email_verified {
                verified.push(id);
            }
        }
        assert_eq!(verified, ["2", "4"]);
        // A disabled one does not keep its address from an active one.
        let disabled = ImportedUser { disabled: true, ..with("6", "frank", "f@example.com", true) };
        let batch = vec![disabled, with("7", "grace", "f@example.com", true)];
        store.import_users(batch, &event("user.import"), true).await.unwrap();
        let found = store.user_by_verified_email("f@example.com").await.unwrap().unwrap();
        assert_eq!(found.external_id.as_deref(), Some("7"));
    });
}

#[test]
fn a_mail_is_claimed_by_one_and_its_token_spent_once() {
    on_both(async |store| {
        let new = user("alice", "user");
        store.create_user(&new, None).await.unwrap();
        let verify = mail(&new, Purpose::VerifyEmail, 1);
        assert!(store.enqueue_mail(&verify).await.unwrap());
        assert!(store.mail_owner(Purpose::VerifyEmail, &[1; 32]).await.unwrap().is_none(), "not sent yet");
        let claimed = store.claim_mail(&LEASE).await.unwrap().unwrap();
        assert_eq!((claimed.id, claimed.purpose, claimed.attempts), (verify.id, Purpose::VerifyEmail, 1));
        assert_eq!(claimed.user.id, new.id);
        assert!(store.claim_mail(&LEASE).await.unwrap().is_none(), "it is on its way");
        store.mail_sent(verify.id, Sent::Again(0)).await.unwrap();
        assert_eq!(store.claim_mail(&LEASE).await.unwrap().unwrap().attempts, 2);
        store.mail_sent(verify.id, Sent::Done).await.unwrap();
        assert!(store.claim_mail(&LEASE).await.unwrap().is_none());
        assert!(store.mail_owner(Purpose::ResetPassword, &[1; 32]).await.unwrap().is_none());
        assert!(store.mail_owner(Purpose::VerifyEmail, &[1; 32]).await.unwrap().is_some());
        assert!(store.user_by_verified_email("alice@example.com").await.unwrap().is_none());
        assert!(matches!(
            store.change_user(new.id, &verification(1)).await.unwrap(),
            Change::Done(None, None)
        ));
        assert!(matches!(store.change_user(new.id, &verification(1)).await.unwrap(), Change::Gone));
        assert_eq!(store.user_by_verified_email("ALICE@example.com").await.unwrap().unwrap().id, new.id);
        // Two that hold are enough; one that was used up does not count.
        assert!(store.enqueue_mail(&mail(&new, Purpose::VerifyEmail, 2)).await.unwrap());
        assert!(store.enqueue_mail(&mail(&new, Purpose::VerifyEmail, 5)).await.unwrap());
        assert!(!store.enqueue_mail(&mail(&new, Purpose::VerifyEmail, 3)).await.unwrap());
        assert!(store.enqueue_mail(&mail(&new, Purpose::ResetPassword, 4)).await.unwrap());
    });
}

#[test]
fn a_reset_is_spent_with_the_change_that_it_allows_or_not_at_all() {
    on_both(async |store| {
        let new = user("alice", "user");
        store.create_user(&new, None).await.unwrap();
        store.enqueue_mail(&mail(&new, Purpose::ResetPassword, 1)).await.unwrap();
        store.claim_mail(&LEASE).await.unwrap().unwrap();
        let change = |hash: &str| AccountChange {
            password_hash: Some(hash.to_owned()),
            spends: Some(Spend { purpose: Purpose::ResetPassword, token_hash: [1; 32] }),
            ..AccountChange::default()
        };
        assert!(matches!(store.change_user(new.id, &change("second")).await.unwrap(), Change::Done(..)));
        assert!(matches!(store.change_user(new.id, &change("third")).await.unwrap(), Change::Gone));
        assert_eq!(store.user(new.id).await.unwrap().unwrap().password_hash.as_deref(), Some("second"));
        // One that was asked for before another change is bound to the password that it was about.
        store.enqueue_mail(&mail(&new, Purpose::ResetPassword, 2)).await.unwrap();
        store.claim_mail(&LEASE).await.unwrap().unwrap();
        let other = AccountChange { password_hash: Some("fourth".to_owned()), ..AccountChange::default() };
        store.change_user(new.id, &other).await.unwrap();
        let late = AccountChange {
            spends: Some(Spend { purpose: Purpose::ResetPassword, token_hash: [2; 32] }),
            ..change("fifth")
        };
        assert!(matches!(store.change_user(new.id, &late).await.unwrap(), Change::Gone));
        assert!(store.mail_owner(Purpose::ResetPassword, &[2; 32]).await.unwrap().is_none());
    });
}

#[test]
fn a_link_to_set_a_password_holds_once_and_only_the_newest() {
    on_both(async |store| {
        let new = user("alice", "user");
        store.create_user(&new, None).await.unwrap();
        let link = |hash: u8, holds_for| NewResetLink {
            generation: None,
            id: uuid::Builder::from_random_bytes([hash; 16]).into_uuid(),
            user: new.id,
            token_hash: [hash; 32],
            holds_for,
        };
        let change = |hash: u8| AccountChange {
            password_hash: Some(format!("set by {hash}")),
            spends: Some(Spend { purpose: Purpose::ResetLink, token_hash: [hash; 32] }),
            ..AccountChange::default()
        };
        let made = async |hash, holds_for| {
            store.add_reset_link(&link(hash, holds_for), &event("user.reset-link")).await.unwrap()
        };
        let is_live = async |hash| {
            let owner = store.mail_owner(Purpose::ResetLink, &[hash; 32]).await.unwrap();
            owner.is_some_and(|owner| owner.id == new.id)
        };
        assert!(made(1, 60_000).await.unwrap() > SystemClock.wall());
        assert!(is_live(1).await && store.claim_mail(&LEASE).await.unwrap().is_none(), "nothing is sent");
        made(2, 60_000).await.unwrap();
        assert!(!is_live(1).await && is_live(2).await);
        assert!(store.mail_owner(Purpose::ResetPassword, &[2; 32]).await.unwrap().is_none());
        assert!(matches!(store.change_user(new.id, &change(1)).await.unwrap(), Change::Gone));
        assert!(matches!(store.change_user(new.id, &change(2)).await.unwrap(), Change::Done(..)));
        assert!(matches!(store.change_user(new.id, &change(2)).await.unwrap(), Change::Gone));
        let found = store.user(new.id).await.unwrap().unwrap();
        assert_eq!(found.password_hash.as_deref(), Some("set by 2"));
        assert!(!found.password_by_mail);
        // Not beyond its time, nor a password that was set otherwise.
        made(3, 0).await.unwrap();
        assert!(!is_live(3).await);
        made(4, 60_000).await.unwrap();
        let other = AccountChange { password_hash: Some("other".to_owned()), ..AccountChange::default() };
        store.change_user(new.id, &other).await.unwrap();
        assert!(!is_live(4).await);
        // Nor for whoever has shown a password that was another one by then.
        let now = store.user(new.id).await.unwrap().unwrap().generation;
        for (generation, holds) in [(now - 1, false), (now, true)] {
            let link = NewResetLink { generation: Some(generation), ..link(6, 60_000) };
            let made = store.add_reset_link(&link, &event("user.must-change-password")).await.unwrap();
            assert_eq!(made.is_some(), holds);
        }
        let disabled = AccountChange { disabled: Some(true), ..AccountChange::default() };
        store.change_user(new.id, &disabled).await.unwrap();
        assert!(made(5, 60_000).await.is_none());
    });
}

fn event(action: &'static str) -> Event {
    Event { actor_id: None, actor: "tests".to_owned(), address: None, action, detail: String::new() }
}

fn imported(id: &str, name: &str) -> ImportedUser {
    ImportedUser {
        id: UserId::generate(1_700_000_000_000, &OsRandom),
        external_id: id.to_owned(),
        name: Username::new(name).unwrap(),
        email: None,
        email_verified: false,
        password_hash: "pbkdf2:sha256:1000$salt$00".to_owned(),
        foreign_scheme: Some("pbkdf2:sha256:1000".to_owned()),
        roles: Roles::parse_joined("user").unwrap(),
        disabled: false,
        similar: false,
    }
}

#[test]
fn an_import_tells_what_became_of_each_and_can_be_undone() {
    on_both(async |store| {
        store.create_user(&user("taken", "user"), None).await.unwrap();
        let batch = || {
            vec![
                imported("1", "alice"),
                imported("2", "taken"),
                imported("3", "\u{430}lice"),
                imported("1", "bob"),
                imported("4", "carol"),
            ]
        };
        let expected = [
            ImportOutcome::Imported,
            ImportOutcome::NameTaken,
            ImportOutcome::LooksLike("alice".to_owned()),
            ImportOutcome::IdTaken("alice".to_owned()),
            ImportOutcome::Imported,
        ];
        assert_eq!(store.import_users(batch(), &event("user.import"), false).await.unwrap(), expected);
        assert!(store.foreign_schemes().await.unwrap().is_empty());
        assert_eq!(store.import_users(batch(), &event("user.import"), true).await.unwrap(), expected);
        assert_eq!(store.foreign_schemes().await.unwrap(), ["pbkdf2:sha256:1000"]);
        let filter = AuditFilter { limit: 10, ..AuditFilter::default() };
        let trail = store.audit(&filter).await.unwrap();
        assert_eq!(trail.len(), 2, "what was undone or refused is not in the trail");
        assert!(trail[0].detail.contains("roles: user"), "{trail:?}");
        let again =
            store.import_users(vec![imported("1", "alice")], &event("user.import"), true).await.unwrap();
        assert_eq!(again, [ImportOutcome::AlreadyThere]);
        for id in ["1", "4"] {
            let found = store.user_by_external_id(id).await.unwrap().unwrap();
            store.rehash(found.id, found.password_hash.as_deref().unwrap(), "new").await.unwrap();
        }
        assert!(store.foreign_schemes().await.unwrap().is_empty(), "all are renewed");
        store.note_own_scheme("$argon2id$v=19$m=8,t=1,p=1").await.unwrap();
        store.note_own_scheme("$argon2id$v=19$m=8,t=1,p=1").await.unwrap();
        assert_eq!(store.foreign_schemes().await.unwrap(), ["$argon2id$v=19$m=8,t=1,p=1"]);
    });
}

#[test]
fn the_audit_trail_is_written_with_the_change() {
    on_both(async |store| {
        let new = NewUser { event: Some(event("user.add")), ..user("alice", "user") };
        store.create_user(&new, None).await.unwrap();
        assert!(store.create_user(&new, None).await.unwrap().is_none());
        let change = AccountChange {
            event: Some(event("user.disable")),
            disabled: Some(true),
            ..AccountChange::default()
        };
        store.change_user(new.id, &change).await.unwrap();
        let refused = AccountChange { expected_generation: Some(99), ..change };
        store.change_user(new.id, &refused).await.unwrap();
        let filter = AuditFilter { limit: 10, ..AuditFilter::default() };
        let trail = store.audit(&filter).await.unwrap();
        let actions: Vec<&str> = trail.iter().map(|entry| entry.action.as_str()).collect();
        assert_eq!(actions, ["user.disable", "user.add"], "what did not happen is not in it");
        assert_eq!(trail[0].subject, "alice");
    });
}

#[test]
fn shared_attempts_come_back_evenly_and_two_never_take_the_last() {
    on_both(async |store| {
        let Some(shared) = store.shared_counters() else { return };
        let bucket = SharedBucket { key: [7; 16], count: 3, per: Duration::from_secs(3) };
        let other = SharedBucket { key: [8; 16], count: 100, per: Duration::from_secs(100) };
        let both = [other.clone(), bucket.clone()];
        for _ in 0..3 {
            assert_eq!(shared.take(&both).await.unwrap(), None);
        }
        let (index, after) = shared.take(&both).await.unwrap().unwrap();
        assert_eq!(index, 1);
        assert!(after <= Duration::from_secs(1) && after > Duration::from_millis(500), "{after:?}");
        // What was taken from the first bucket was given back.
        for _ in 0..97 {
            assert_eq!(shared.take(std::slice::from_ref(&other)).await.unwrap(), None);
        }
        assert!(shared.take(std::slice::from_ref(&other)).await.unwrap().is_some());
        shared.give_back(std::slice::from_ref(&bucket)).await.unwrap();
        assert_eq!(shared.take(std::slice::from_ref(&bucket)).await.unwrap(), None);
        assert!(!shared.is_known(&[9; 16]).await.unwrap());
        shared.note(&SharedBucket { key: [9; 16], count: 1, per: Duration::from_secs(60) }).await.unwrap();
        store.prune(SystemClock.wall(), KEEP_AUDIT).await.unwrap();
        assert!(shared.is_known(&[9; 16]).await.unwrap());
    });
}

#[test]
fn all_secrets_are_wrapped_anew_or_none() {
    on_both(async |store| {
        let vault = StoredVault { fingerprint: b"old".to_vec(), wrapped_root: b"old root".to_vec() };
        store.begin_vault(&vault).await.unwrap();
        store.create_key_if_none(&key("a"), Duration::ZERO).await.unwrap();
        store.rotate_key(&key("b"), Duration::ZERO, Duration::from_secs(900), None).await.unwrap();
        store.add_acme_account("https://acme.example/dir", b"account", None).await.unwrap();
        let order = store.lease_order(&names(&["a.example"]), 60_000).await.unwrap().unwrap();
        store.end_order(&order, &issued("chain"), 0).await.unwrap();
        let order = store.lease_order(&names(&["a.example"]), 60_000).await.unwrap().unwrap();
        store.order_begun(&order, &begun("https://acme.example/1")).await.unwrap();
        let before = store.signing_keys().await.unwrap();
        let some: Rewrap = Arc::new(|_, id, wrapped| (id != "b").then(|| [b"new ", wrapped].concat()));
        let refused = store.rewrap(b"new", &some, &login()).await.unwrap();
        assert_eq!(refused, Rewrapped::Unreadable("signing key b".to_owned()));
        assert_eq!(store.signing_keys().await.unwrap(), before);
        assert_eq!(store.vault().await.unwrap(), Some(vault));
        let all: Rewrap = Arc::new(|purpose, id, wrapped| {
            Some([purpose.as_bytes(), b"/", id.as_bytes(), b"/", wrapped].concat())
        });
        assert_eq!(store.rewrap(b"new", &all, &login()).await.unwrap(), Rewrapped::Done(6));
        let vault = StoredVault { fingerprint: b"new".to_vec(), wrapped_root: b"root//old root".to_vec() };
        assert_eq!(store.vault().await.unwrap(), Some(vault));
        for (old, new) in before.iter().zip(store.signing_keys().await.unwrap()) {
            let expected = [b"signing key/", old.kid.as_bytes(), b"/", old.wrapped_key.as_slice()].concat();
            assert_eq!(new.wrapped_key, expected);
        }
        let account = store.acme_account("https://acme.example/dir").await.unwrap().unwrap();
        assert_eq!(account, b"acme account/https://acme.example/dir/account");
        let certificate = store.certificate("a.example").await.unwrap().unwrap();
        assert_eq!(certificate.wrapped_key, b"certificate key/a.example/key");
        store.end_order(&order, &OrderEnd::Failed { keeps_order: true }, 0).await.unwrap();
        let order = store.lease_order(&names(&["a.example"]), 60_000).await.unwrap().unwrap();
        assert_eq!(order.begun.unwrap().wrapped_key, b"order key/a.example/order");
    });
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn issued(chain: &str) -> OrderEnd {
    let (chain, directory) = (chain.to_owned(), "https://acme.example/dir".to_owned());
    OrderEnd::Obtained { chain, wrapped_key: b"key".to_vec(), directory, is_short: false }
}

fn begun(url: &str) -> BegunOrder {
    let directory = "https://acme.example/dir".to_owned();
    BegunOrder { url: url.to_owned(), wrapped_key: b"order".to_vec(), directory }
}

fn challenge(name: &str, token: &str) -> Challenge {
    let key_authorization = format!("{token}.x");
    Challenge { name: name.to_owned(), token: token.to_owned(), key_authorization }
}

#[test]
fn an_order_is_one_gateways_until_its_lease_ends() {
    on_both(async |store| {
        let both = names(&["a.example", "b.example"]);
        let first = store.lease_order(&both, 60_000).await.unwrap().unwrap();
        let second = store.lease_order(&both, 60_000).await.unwrap().unwrap();
        assert_ne!(first.name, second.name);
        assert!(store.lease_order(&both, 60_000).await.unwrap().is_none(), "both are leased");
        assert!(store.lease_order(&names(&["c.example"]), 0).await.unwrap().is_some(), "a name that is new");
        // A lease that ends at once is another's next.
        assert!(store.extend_lease(&first, 0).await.unwrap());
        assert!(store.order_begun(&first, &begun("https://acme.example/1")).await.unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
        let next = store.lease_order(&both, 60_000).await.unwrap().unwrap();
        assert_eq!((&next.name, next.fence), (&first.name, first.fence + 1));
        assert_eq!(next.begun, Some(begun("https://acme.example/1")));
        // Whoever had it before changes nothing any more.
        assert!(!store.extend_lease(&first, 60_000).await.unwrap());
        assert!(!store.order_begun(&first, &begun("https://acme.example/2")).await.unwrap());
        assert!(!store.add_challenge(&first, &challenge(&first.name, "t")).await.unwrap());
        assert!(!store.end_order(&first, &issued("stale"), 0).await.unwrap());
        assert_eq!(store.certificate(&first.name).await.unwrap(), None);
        assert!(store.challenges().await.unwrap().is_empty());
    });
}

#[test]
fn a_certificate_is_there_with_the_end_of_its_order_and_its_challenge_gone() {
    on_both(async |store| {
        let name = names(&["a.example"]);
        let order = store.lease_order(&name, 60_000).await.unwrap().unwrap();
        assert_eq!((order.failures, &order.current), (0, &None));
        assert!(store.add_challenge(&order, &challenge("a.example", "one")).await.unwrap());
        assert!(store.add_challenge(&order, &challenge("a.example", "two")).await.unwrap());
        assert_eq!(store.challenges().await.unwrap(), [challenge("a.example", "two")]);
        assert!(store.end_order(&order, &OrderEnd::Failed { keeps_order: false }, 0).await.unwrap());
        assert!(store.challenges().await.unwrap().is_empty());
        assert!(store.certificate_versions().await.unwrap().is_empty());

        let order = store.lease_order(&name, 60_000).await.unwrap().unwrap();
        assert_eq!((order.failures, &order.begun), (1, &None));
        assert!(store.end_order(&order, &issued("first"), 0).await.unwrap());
        let order = store.lease_order(&name, 60_000).await.unwrap().unwrap();
        assert_eq!(order.failures, 0);
        let first = order.current.clone().unwrap();
        assert_eq!((first.version, first.chain.as_str()), (1, "first"));
        // Not due, and not in the past either.
        assert!(store.end_order(&order, &OrderEnd::NotDue, SystemClock.wall() + 60_000).await.unwrap());
        assert!(store.lease_order(&name, 60_000).await.unwrap().is_none());
        assert_eq!(store.certificate_versions().await.unwrap(), [("a.example".to_owned(), 1)]);
        assert_eq!(store.certificate("a.example").await.unwrap(), Some(first));
        assert_eq!(store.certificate("b.example").await.unwrap(), None);
        // That of another authority is due at once.
        store.expect_directory("https://acme.example/dir").await.unwrap();
        assert!(store.lease_order(&name, 60_000).await.unwrap().is_none());
        store.expect_directory("https://other.example/dir").await.unwrap();
        let order = store.lease_order(&name, 60_000).await.unwrap().unwrap();
        // One that is to be renewed at once counts as a failure.
        let OrderEnd::Obtained { chain, wrapped_key, directory, .. } = issued("second") else {
            unreachable!()
        };
        let short = OrderEnd::Obtained { chain, wrapped_key, directory, is_short: true };
        assert!(store.end_order(&order, &short, 0).await.unwrap());
        let order = store.lease_order(&name, 60_000).await.unwrap().unwrap();
        assert_eq!((order.failures, order.current.as_ref().unwrap().version), (1, 2));
        assert!(store.end_order(&order, &OrderEnd::NotDue, 0).await.unwrap());
        let order = store.lease_order(&name, 60_000).await.unwrap().unwrap();
        assert_eq!(order.failures, 0);
        // What was written while a clock was years ahead stops nothing.
        let ahead = SystemClock.wall() + 366 * 86_400_000;
        assert!(store.end_order(&order, &OrderEnd::NotDue, ahead).await.unwrap());
        assert!(store.lease_order(&name, 60_000).await.unwrap().is_some());
        // Of two accounts the first is the one, unless it is replaced.
        assert_eq!(store.add_acme_account("d", b"one", None).await.unwrap(), b"one");
        assert_eq!(store.add_acme_account("d", b"two", None).await.unwrap(), b"one");
        assert_eq!(store.add_acme_account("d", b"two", Some(b"zero")).await.unwrap(), b"one");
        assert_eq!(store.add_acme_account("d", b"two", Some(b"one")).await.unwrap(), b"two");
        assert_eq!(store.acme_account("e").await.unwrap(), None);
    });
}

#[test]
fn the_names_and_addresses_of_a_deleted_account_become_pseudonyms() {
    on_both(async |store| {
        let (alice, bob) = (user("alice", ""), user("bob", ""));
        store.create_user(&bob, None).await.unwrap().unwrap();
        store.create_user(&alice, None).await.unwrap().unwrap();
        let own = Event { actor_id: Some(alice.id), ..login() };
        store.open_session(alice.id, FIRST, &session(1), &own).await.unwrap().unwrap();
        store
            .open_session(bob.id, FIRST, &session(2), &Event { actor_id: Some(bob.id), ..login() })
            .await
            .unwrap();
        // A stranger's failure, what an operator does to it, and what it does to another.
        store.record(Some(alice.id), &Event { action: "user.login-failed", ..login() }).await.unwrap();
        let by_root = Event { actor: "root".to_owned(), address: None, ..login() };
        let rename = AccountChange {
            name: Some(Username::new("alina").unwrap()),
            event: Some(by_root.clone()),
            ..AccountChange::default()
        };
        store.change_user(alice.id, &rename).await.unwrap();
        let by_alice = Event { actor: "alina".to_owned(), ..own.clone() };
        store.record(Some(bob.id), &by_alice).await.unwrap();
        let delete = AccountChange { delete: true, event: Some(by_root), ..AccountChange::default() };
        store.change_user(alice.id, &delete).await.unwrap();
        store.prune(SystemClock.wall(), KEEP_AUDIT).await.unwrap();

        let of = |text: &str| pseudonyms().of(text);
        let trail = store.audit(&AuditFilter { limit: 10, ..AuditFilter::default() }).await.unwrap();
        let lines: Vec<_> = trail
            .iter()
            .rev()
            .map(|line| (line.actor.as_str(), line.address.as_deref().unwrap_or("-"), line.subject.as_str()))
            .collect();
        let (alice_was, alina_was, address) = (&*of("alice"), &*of("alina"), &*of("192.0.2.7"));
        assert_eq!(
            lines,
            [
                (alice_was, address, alice_was),
                ("bob", "192.0.2.7", "bob"),
                ("", address, alice_was),
                ("root", "-", alice_was),
                (alina_was, address, "bob"),
                ("root", "-", alina_was),
            ]
        );
        // Nothing is noted of an account that is gone.
        store.record(Some(alice.id), &login()).await.unwrap();
        assert_eq!(store.audit(&AuditFilter { limit: 10, ..AuditFilter::default() }).await.unwrap().len(), 6);
        // Both names stay reserved, until the operator says otherwise.
        for name in ["alice", "alina"] {
            assert!(store.create_user(&user(name, ""), None).await.unwrap().is_none(), "{name}");
            let rename =
                AccountChange { name: Some(Username::new(name).unwrap()), ..AccountChange::default() };
            assert!(matches!(store.change_user(bob.id, &rename).await.unwrap(), Change::NameTaken), "{name}");
        }
        let name = Username::new("alice").unwrap();
        assert!(store.release_name(&name, &login()).await.unwrap());
        assert!(!store.release_name(&name, &login()).await.unwrap());
        assert!(store.create_user(&user("alice", ""), None).await.unwrap().is_some());
        let given = NewUser { release: true, ..user("alina", "") };
        assert!(store.create_user(&given, None).await.unwrap().is_some());
        // Deleted again, a name that was kept as a pseudonym is reserved once more.
        let gone = AccountChange { delete: true, ..AccountChange::default() };
        store.change_user(given.id, &gone).await.unwrap();
        store.prune(SystemClock.wall(), KEEP_AUDIT).await.unwrap();
        assert!(store.create_user(&user("alina", ""), None).await.unwrap().is_none());
    });
}

#[test]
fn lines_of_the_trail_are_kept_as_long_as_is_said() {
    on_both(async |store| {
        let alice = user("alice", "");
        store.create_user(&alice, None).await.unwrap().unwrap();
        store.record(Some(alice.id), &login()).await.unwrap();
        let lines =
            async || store.audit(&AuditFilter { limit: 10, ..AuditFilter::default() }).await.unwrap().len();
        store.prune(SystemClock.wall(), Duration::from_secs(60)).await.unwrap();
        assert_eq!(lines().await, 1);
        tokio::time::sleep(Duration::from_millis(20)).await;
        store.prune(SystemClock.wall(), Duration::from_millis(5)).await.unwrap();
        assert_eq!(lines().await, 0);
    });
}
