//! Random histories on two gateways, compared with a simple model of what a token may still do.
//!
//! The model knows for each token when it expires and when, and by which gateway, its end was answered. From
//! that it says of each request: it must not succeed (its end was answered here, or so long ago that the bound
//! has passed), it must succeed (nothing has ended it, and the gateway has the database), or either.
//!
//! `AUTHGATE_MODEL_SEED` and `AUTHGATE_MODEL_STEPS` repeat a history or run longer ones.

use std::time::{Duration, Instant};

use authgate::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::harness::{Cluster, Dice, Gateway, Proxy, Settings, claims_of, header_of};

const BOUND: Duration = Duration::from_secs(3);
const ACCESS_TTL: Duration = Duration::from_secs(6);
/// Tokens carry whole seconds.
const GRAIN: Duration = Duration::from_millis(1_100);
/// After this time a gateway that has the database again has polled.
const SETTLES: Duration = Duration::from_secs(4);

struct User {
    id: String,
    name: String,
    password: String,
    roles: Vec<String>,
    disabled: bool,
    deleted: bool,
}

struct Session {
    user: usize,
    /// The refresh token that is live, and those before it.
    refresh: String,
    older: Vec<String>,
    ended: bool,
}

struct Token {
    text: String,
    session: usize,
    kid: String,
    expires: Instant,
    end: Option<End>,
}

/// When something that ends a token was answered, and by which gateway; the command line is none.
#[derive(Clone, Copy)]
struct End {
    answered: Instant,
    by: Option<usize>,
}

struct Node {
    gateway: Option<Gateway>,
    proxy: Proxy,
    reachable: bool,
    /// When it last had the database back.
    since: Instant,
}

impl Node {
    fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().unwrap()
    }

    fn is_settled(&self) -> bool {
        self.reachable && self.since.elapsed() > SETTLES
    }
}

struct World {
    dice: Dice,
    cluster: Cluster,
    frozen: bool,
    /// The keys that were revoked, and when.
    revoked: Vec<(String, Instant)>,
    nodes: Vec<Node>,
    users: Vec<User>,
    sessions: Vec<Session>,
    tokens: Vec<Token>,
    admin: usize,
    history: Vec<String>,
    successes: usize,
    refusals: usize,
}

impl World {
    fn say(&mut self, line: String) {
        self.history.push(line);
    }

    #[track_caller]
    fn expect(&self, holds: bool, what: &str) {
        assert!(holds, "{what}\nafter\n  {}", self.history.join("\n  "));
    }

    fn opened(&mut self, user: usize, response: &Value) -> usize {
        self.sessions.push(Session { user, refresh: String::new(), older: Vec::new(), ended: false });
        let session = self.sessions.len() - 1;
        self.issued(session, response);
        session
    }

    fn issued(&mut self, session: usize, response: &Value) {
        let text = response["access_token"].as_str().unwrap().to_owned();
        let claims = claims_of(&text);
        let roles: Vec<&str> = claims["roles"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let user = &self.users[self.sessions[session].user];
        self.expect(
            roles == user.roles && claims["name"] == *user.name,
            "the token says what the account is",
        );
        let life = claims["exp"].as_i64().unwrap() * 1_000 - SystemClock.wall();
        let life = Duration::from_millis(u64::try_from(life).unwrap_or(0));
        self.expect(life <= ACCESS_TTL, "the token lives as long as was set");
        let kid = header_of(&text)["kid"].as_str().unwrap().to_owned();
        // By a key that was revoked elsewhere a moment ago: it ends with that.
        let end = self.revoked.iter().find(|(revoked, _)| *revoked == kid);
        let end = end.map(|(_, answered)| End { answered: *answered, by: None });
        self.tokens.push(Token { text, session, kid, expires: Instant::now() + life, end });
        let refresh = response["refresh_token"].as_str().unwrap().to_owned();
        let session = &mut self.sessions[session];
        let before = std::mem::replace(&mut session.refresh, refresh);
        session.older.push(before);
    }

    /// Something was answered that ends these sessions and their tokens.
    fn end(&mut self, by: Option<usize>, concerns: impl Fn(usize, &Session) -> bool) {
        let answered = Instant::now();
        for (index, session) in self.sessions.iter_mut().enumerate() {
            if session.ended || !concerns(index, session) {
                continue;
            }
            session.ended = true;
            for token in self.tokens.iter_mut().filter(|token| token.session == index) {
                token.end.get_or_insert(End { answered, by });
            }
        }
    }

    fn any_node(&mut self) -> usize {
        self.dice.below(self.nodes.len())
    }

    fn any_user(&mut self) -> Option<usize> {
        let users: Vec<usize> =
            (0..self.users.len()).filter(|&user| user != self.admin && !self.users[user].deleted).collect();
        if users.is_empty() { None } else { Some(users[self.dice.below(users.len())]) }
    }

    fn any_session(&mut self) -> Option<usize> {
        let live: Vec<usize> =
            (0..self.sessions.len()).filter(|&session| !self.sessions[session].ended).collect();
        if live.is_empty() { None } else { Some(live[self.dice.below(live.len())]) }
    }

    /// A token that the gateways still take, of a session that has not ended.
    fn live_token(&self, session: usize) -> Option<String> {
        let fresh = |token: &&Token| {
            token.session == session && token.end.is_none() && Instant::now() + GRAIN < token.expires
        };
        self.tokens.iter().rev().find(fresh).map(|token| token.text.clone())
    }

    /// Without the database a call changes nothing and says so.
    #[track_caller]
    fn done(&mut self, node: usize, wanted: u16, status: u16, what: &str) -> bool {
        let reachable = self.nodes[node].reachable;
        // Reconnecting may take a moment.
        let settled = self.nodes[node].is_settled();
        self.expect(
            status == wanted || (status == 503 && !settled),
            &format!("{what} on {node}: {status}, reachable: {reachable}"),
        );
        status == wanted
    }

    fn step(&mut self) {
        let node = self.any_node();
        match self.dice.below(26) {
            0 | 1 => self.register(node),
            2..=4 => self.login(node),
            5..=7 => self.refresh(node),
            8 | 9 => self.logout(node),
            10 => self.logout_all(node),
            11 => self.steal(node),
            12 => self.change_password(node),
            13 => self.set_roles(node),
            14 => self.switch(node),
            15 => self.by_command(),
            16 => self.crash(node),
            17 | 18 => self.partition(node),
            19 => self.heal(node),
            22 => self.deafen(node),
            23 => self.freeze(),
            24 => self.revoke_key(),
            _ => {
                let wait = Duration::from_millis(100 + self.dice.below(600) as u64);
                self.say(format!("{wait:?} pass"));
                std::thread::sleep(wait);
            }
        }
        for _ in 0..8 {
            self.probe();
        }
    }

    /// Asks a gateway with some token, and compares.
    fn probe(&mut self) {
        let node = self.any_node();
        // Mostly the younger ones: the others have expired.
        let count = self.tokens.len().min(40);
        let index = self.tokens.len() - 1 - self.dice.below(count);
        let token = &self.tokens[index];
        let begun = Instant::now();
        let status = self.nodes[node].gateway().get("/api/x", Some(&token.text)).status;
        let over = Instant::now();
        let expired = begun > token.expires + GRAIN;
        let ended = token.end.is_some_and(|end| end.by == Some(node) || begun > end.answered + BOUND);
        let settled = self.nodes[node].is_settled();
        let what = format!("token {index} of session {} on {node}: {status}", token.session);
        if ended || expired {
            self.expect(status == 401 || (status == 503 && !settled), &format!("{what}; it has ended"));
            self.refusals += 1;
        } else if token.end.is_none() && over + GRAIN < token.expires {
            self.expect(
                status == 200 || (status == 503 && !settled),
                &format!("{what}; nothing has ended it"),
            );
            self.successes += 1;
        }
    }

    fn register(&mut self, node: usize) {
        let name = format!("user-{}", self.users.len());
        let password = "a password for the tests".to_owned();
        let response = self.nodes[node]
            .gateway()
            .post("/auth/register", &json!({"username": name, "password": password}));
        self.say(format!("register {name} on {node}: {}", response.status));
        if self.done(node, 201, response.status, "register") {
            let response = response.json();
            let id = response["user_id"].as_str().unwrap().to_owned();
            let roles = vec!["user".to_owned()];
            self.users.push(User { id, name, password, roles, disabled: false, deleted: false });
            let session = self.opened(self.users.len() - 1, &response);
            self.say(format!("  session {session}"));
        }
    }

    fn login(&mut self, node: usize) {
        let Some(user) = self.any_user() else { return };
        let (name, password) = (self.users[user].name.clone(), self.users[user].password.clone());
        let response = self.nodes[node].gateway().try_login(&name, &password);
        self.say(format!("login {name} on {node}: {}", response.status));
        let wanted = if self.users[user].disabled { 401 } else { 200 };
        if self.done(node, wanted, response.status, "login") && wanted == 200 {
            let session = self.opened(user, &response.json());
            self.say(format!("  session {session}"));
        }
    }

    fn refresh(&mut self, node: usize) {
        let session = self.dice.below(self.sessions.len());
        let token = self.sessions[session].refresh.clone();
        let response = self.nodes[node].gateway().refresh(&token);
        self.say(format!("refresh session {session} on {node}: {}", response.status));
        let wanted = if self.sessions[session].ended { 401 } else { 200 };
        if self.done(node, wanted, response.status, "refresh") && wanted == 200 {
            self.issued(session, &response.json());
        }
    }

    /// Somebody comes with a refresh token that was used long ago: its session ends.
    fn steal(&mut self, node: usize) {
        let Some(session) = self.any_session() else { return };
        let Some(old) = self.sessions[session].older.get(1).cloned() else { return };
        if self.sessions[session].older.len() < 3 {
            return;
        }
        let status = self.nodes[node].gateway().refresh(&old).status;
        self.say(format!("an old refresh token of session {session} on {node}: {status}"));
        if self.done(node, 401, status, "an old refresh token") {
            self.end(Some(node), |index, _| index == session);
        }
    }

    fn logout(&mut self, node: usize) {
        let Some(session) = self.any_session() else { return };
        let Some(token) = self.live_token(session) else { return };
        let status = self.nodes[node].gateway().logout(&token).status;
        self.say(format!("logout of session {session} on {node}: {status}"));
        if self.done(node, 200, status, "logout") {
            self.end(Some(node), |index, _| index == session);
        }
    }

    fn logout_all(&mut self, node: usize) {
        let Some(session) = self.any_session() else { return };
        let Some(token) = self.live_token(session) else { return };
        let user = self.sessions[session].user;
        if user == self.admin {
            return;
        }
        let status = self.nodes[node].gateway().send("POST", "/auth/logout-all", Some(&token), None).status;
        self.say(format!("logout of all sessions of {} on {node}: {status}", self.users[user].name));
        if self.done(node, 200, status, "logout-all") {
            self.end(Some(node), |_, session| session.user == user);
        }
    }

    fn change_password(&mut self, node: usize) {
        let Some(session) = self.any_session() else { return };
        let Some(token) = self.live_token(session) else { return };
        let user = self.sessions[session].user;
        if user == self.admin {
            return;
        }
        let password = format!("another password, number {}", self.history.len());
        let body = json!({"current_password": self.users[user].password, "new_password": password});
        let response = self.nodes[node].gateway().send("POST", "/auth/change", Some(&token), Some(&body));
        self.say(format!("change by session {session} on {node}: {}", response.status));
        if self.done(node, 200, response.status, "change") {
            self.users[user].password = password;
            self.end(Some(node), |_, session| session.user == user);
            // The caller's session goes on with a new pair.
            self.sessions[session].ended = false;
            self.issued(session, &response.json());
        }
    }

    fn admin_token(&mut self, node: usize) -> Option<String> {
        let (name, password) = (self.users[self.admin].name.clone(), self.users[self.admin].password.clone());
        let response = self.nodes[node].gateway().try_login(&name, &password);
        if !self.done(node, 200, response.status, "the administrator's login") {
            return None;
        }
        self.opened(self.admin, &response.json());
        self.tokens.last().filter(|token| token.end.is_none()).map(|token| token.text.clone())
    }

    fn update(&mut self, node: usize, user: usize, change: &Value) -> bool {
        let Some(admin) = self.admin_token(node) else { return false };
        let path = format!("/api/users/{}", self.users[user].id);
        let status = self.nodes[node].gateway().admin("PATCH", &path, Some(&admin), Some(change)).status;
        self.say(format!("{} becomes {change} on {node}: {status}", self.users[user].name));
        let done = self.done(node, 200, status, "an administrator's change");
        if done {
            self.end(Some(node), |_, session| session.user == user);
        }
        done
    }

    fn set_roles(&mut self, node: usize) {
        let Some(user) = self.any_user() else { return };
        let roles: Vec<String> =
            ["staff", "user"].iter().take(1 + self.dice.below(2)).map(|role| (*role).to_owned()).collect();
        if self.update(node, user, &json!({"roles": roles})) {
            self.users[user].roles = roles;
        }
    }

    fn switch(&mut self, node: usize) {
        let Some(user) = self.any_user() else { return };
        let disabled = !self.users[user].disabled;
        if self.update(node, user, &json!({"disabled": disabled})) {
            self.users[user].disabled = disabled;
        }
    }

    /// The command line is nobody's gateway: only the bound holds.
    fn by_command(&mut self) {
        let Some(user) = self.any_user() else { return };
        let Some(node) = (0..self.nodes.len()).find(|&node| self.nodes[node].is_settled()) else { return };
        let name = self.users[user].name.clone();
        self.nodes[node].gateway().run(&["user", "delete", &name], "");
        self.say(format!("{name} is deleted from the command line"));
        self.users[user].deleted = true;
        self.end(None, |_, session| session.user == user);
    }

    fn crash(&mut self, node: usize) {
        if self.frozen {
            // One that starts would wait for it.
            self.thaw();
        }
        self.say(format!("{node} crashes"));
        let own = &mut self.nodes[node];
        let mut gateway = own.gateway.take().unwrap();
        gateway.kill();
        // It would not start where no notification arrives.
        own.proxy.lose_notifications(false);
        if !own.reachable {
            own.proxy.open();
            own.reachable = true;
        }
        own.gateway = Some(gateway.restart());
        own.since = Instant::now();
    }

    fn partition(&mut self, node: usize) {
        let blocked = self.dice.below(2) == 0;
        let own = &mut self.nodes[node];
        if !own.reachable {
            return;
        }
        if blocked {
            own.proxy.block()
        } else {
            own.proxy.cut()
        }
        own.reachable = false;
        self.say(format!("{node} loses the database; blocked: {blocked}"));
    }

    /// Hints get lost on their way to a gateway, or arrive again.
    fn deafen(&mut self, node: usize) {
        let lost = self.dice.below(2) == 0;
        self.nodes[node].proxy.lose_notifications(lost);
        self.say(format!("{node} hears notifications: {}", !lost));
    }

    /// The database answers nobody.
    fn freeze(&mut self) {
        if self.frozen {
            return;
        }
        self.say("the database freezes".to_owned());
        self.cluster.freeze();
        self.frozen = true;
        self.nodes.iter_mut().for_each(|node| node.reachable = false);
    }

    fn thaw(&mut self) {
        self.say("the database goes on".to_owned());
        self.cluster.thaw();
        self.frozen = false;
        for node in &mut self.nodes {
            // What was sent meanwhile goes no further.
            node.proxy.open();
            node.reachable = true;
            node.since = Instant::now();
        }
    }

    /// Ends every token that the key has signed, and no session.
    fn revoke_key(&mut self) {
        let Some(node) = (0..self.nodes.len()).find(|&node| self.nodes[node].is_settled()) else { return };
        let Some(kid) =
            self.tokens.iter().rev().find(|token| token.end.is_none()).map(|token| token.kid.clone())
        else {
            return;
        };
        let said = self.nodes[node].gateway().command(&["key", "revoke", &kid], "");
        self.say(format!("key {kid} is revoked: {}", said.status));
        let answered = Instant::now();
        self.revoked.push((kid.clone(), answered));
        for token in self.tokens.iter_mut().filter(|token| token.kid == kid) {
            token.end.get_or_insert(End { answered, by: None });
        }
    }

    fn heal(&mut self, node: usize) {
        if self.frozen {
            return self.thaw();
        }
        let own = &mut self.nodes[node];
        if own.reachable {
            return;
        }
        own.proxy.open();
        own.reachable = true;
        own.since = Instant::now();
        self.say(format!("{node} has the database again"));
    }
}

fn run(seed: u64, steps: usize) {
    let cluster = Cluster::start();
    let url = cluster.database();
    let nodes: Vec<Node> = (0..2)
        .map(|_| {
            let proxy = Proxy::before(&url);
            let settings = Settings {
                store: format!("{{url: \"{}\", timeout: 1s}}", proxy.url(&url)),
                ..Settings::default()
            };
            let settings = settings
                .auth("  master_key: tests-share-Hq7vK2xR9mB4wZ8nD5cF\n  access_token_ttl: 6s\n")
                .auth("  throttle: {registrations: {requests: 10000, per: 1s}, account: {failures: 10000, per: 1s}, address: {failures: 10000, per: 1s}}\n")
                .extra("revocation: {max_staleness: 3s}\n");
            Node { gateway: Some(Gateway::alone(settings)), proxy, reachable: true, since: Instant::now() }
        })
        .collect();
    let mut world = World {
        dice: Dice::new(seed),
        cluster,
        frozen: false,
        revoked: Vec::new(),
        nodes,
        users: Vec::new(),
        sessions: Vec::new(),
        tokens: Vec::new(),
        admin: 0,
        history: vec![format!("seed {seed}")],
        successes: 0,
        refusals: 0,
    };
    let password = "a password for the tests".to_owned();
    world.nodes[0].gateway().run(&["user", "add", "root", "--role", "admin", "--password-stdin"], &password);
    let roles = vec!["admin".to_owned()];
    world.users.push(User {
        id: String::new(),
        name: "root".to_owned(),
        password,
        roles,
        disabled: false,
        deleted: false,
    });
    world.admin_token(0);
    for _ in 0..2 {
        world.register(0);
    }
    for _ in 0..steps {
        world.step();
    }
    let (yes, no) = (world.successes, world.refusals);
    assert!(yes > steps / 2 && no > steps / 2, "{yes} successes and {no} refusals were compared");
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
#[ignore = "slow"]
fn random_histories_on_two_gateways_agree_with_the_model() {
    let steps = setting("AUTHGATE_MODEL_STEPS").unwrap_or(90) as usize;
    match setting("AUTHGATE_MODEL_SEED") {
        Some(seed) => run(seed, steps),
        None => {
            let runs: Vec<_> = [11, 12, 13].map(|seed| std::thread::spawn(move || run(seed, steps))).into();
            for (index, run) in runs.into_iter().enumerate() {
                assert!(run.join().is_ok(), "history {index}");
            }
        }
    }
}
