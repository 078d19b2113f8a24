//! A browser with many tabs before several gateways: whatever they do at the same time, nobody is signed out who should not be, and nobody
//! stays in who should not.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use crate::harness::{
    Dice, Gateway, PASSWORD, Response, Settings, Upstream,
    browser::{Browser, Form, forms, with_pages},
    claims_of, eventually, fleet,
    issuer::now,
    shared_database,
};

const GATEWAYS: usize = 3;
const TABS: usize = 8;
const ROUNDS: usize = 500;
/// Every so many rounds, all tabs come at once with a cookie that is to be signed anew.
const RENEWED_EVERY: usize = 50;
/// How long a gateway may go on without having heard of a sign-out at another one.
const BOUND: Duration = Duration::from_secs(10);
/// How long a cookie lives, in seconds.
const IDLE: i64 = 8;

/// A tab: its requests carry the cookies of the browser as they are, and change them as the responses say, in whatever order these come.
struct Tab<'a> {
    jar: &'a Mutex<Browser>,
    gateway: &'a Gateway,
    /// The session whose cookie the last request carried.
    session: Option<String>,
}

impl Tab<'_> {
    fn request(&mut self, send: impl FnOnce(&mut Browser) -> Response) -> Response {
        let mut own = self.jar.lock().unwrap().clone();
        let before = own.cookies.clone();
        self.session = own.session().map(session_of);
        let response = send(&mut own);
        let cookies = &mut self.jar.lock().unwrap().cookies;
        for (name, value) in own.cookies.iter().filter(|(name, value)| before.get(*name) != Some(value)) {
            cookies.insert(name.clone(), value.clone());
        }
        before
            .keys()
            .filter(|name| !own.cookies.contains_key(*name))
            .for_each(|name| drop(cookies.remove(name)));
        response
    }

    fn fetch(&mut self) -> Response {
        let gateway = self.gateway;
        self.request(|browser| browser.fetch(gateway, "GET", "/api/x"))
    }

    /// The form of a page, if the page has one by now.
    fn form(&mut self, path: &str) -> Option<Form> {
        let gateway = self.gateway;
        let page = self.request(|browser| browser.go(gateway, path));
        (page.status == 200).then(|| forms(&page)).filter(|forms| forms.len() == 1)?.pop()
    }

    fn submit(&mut self, path: &str, fields: &[(&str, &str)]) -> Option<Response> {
        let form = self.form(path)?;
        let gateway = self.gateway;
        Some(self.request(|browser| browser.submit(gateway, &form, fields)))
    }

    /// Signs in. Returns the response where that is refused, and none where there is no form.
    fn sign_in(&mut self) -> Result<(), Option<Response>> {
        match self.submit("/auth/ui/login", &[("username", "alice"), ("password", PASSWORD)]) {
            Some(response) if response.status == 303 => Ok(()),
            other => Err(other),
        }
    }

    fn prove(&mut self) {
        self.submit("/auth/ui/prove?return_to=%2Fapi%2Fx", &[("password", PASSWORD)]);
    }

    /// Signs out. Returns the cookie whose session has ended by that.
    fn sign_out(&mut self) -> Option<Browser> {
        let form = self.form("/auth/ui/logout")?;
        let (gateway, mut carried) = (self.gateway, Browser::default());
        let response = self.request(|browser| {
            carried = browser.clone();
            browser.submit(gateway, &form, &[])
        });
        (response.status == 200 && carried.session().is_some()).then_some(carried)
    }
}

fn session_of(cookie: &str) -> String {
    claims_of(cookie)["sid"].as_str().unwrap().to_owned()
}

/// Waits until the cookie is past half of its life.
fn age(cookie: &str) {
    let half = claims_of(cookie)["iat"].as_i64().unwrap() + IDLE / 2;
    eventually("the cookie is past half of its life", || (now() > half).then_some(()));
}

/// What a tab does in a round.
#[derive(Clone, Copy)]
enum Act {
    Fetch,
    SignIn,
    SignOut,
    Prove,
}

#[test]
#[ignore = "slow"]
fn many_tabs_before_three_gateways_are_signed_in_and_out_together() {
    let upstream = Upstream::start();
    let url = shared_database();
    let start = || {
        let Settings { auth, extra, store, .. } = fleet::settings(&url);
        let cheap = "  password: {argon2: {memory: 64KiB, iterations: 1}}\n";
        let pages = with_pages(&format!("cookies: {{idle: {IDLE}s, ttl: 10m}}\n"));
        // The proofs and logins of one account from one address.
        let auth = auth.replace(
            "throttle: {",
            "throttle: {account: {failures: 100000, per: 1m}, address: {failures: 100000, per: 1m}, ",
        );
        // Longer than a busy machine may stand still: then everybody would be refused.
        let extra = extra.replace("max_staleness: 2s", &format!("max_staleness: {}s", BOUND.as_secs()));
        let settings = Settings {
            auth: format!("{auth}{cheap}"),
            extra: format!("{extra}{pages}"),
            store,
            ..Settings::default()
        };
        Gateway::start(&upstream, settings)
    };
    let gateways: Vec<Gateway> = (0..GATEWAYS).map(|_| start()).collect();
    let jar = Mutex::new(Browser::register(&gateways[0], "alice"));
    let ended: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let (mut renewed, sign_outs, mut dice) = (0, AtomicUsize::new(0), Dice::new(11));
    let cookie_now = || jar.lock().unwrap().session().map(str::to_owned);
    for round in 0..ROUNDS {
        let old = (round % RENEWED_EVERY == RENEWED_EVERY - 1).then(cookie_now).flatten();
        old.as_deref().inspect(|cookie| age(cookie));
        let signs_out = dice.below(12) == 0 && old.is_none();
        let acts: Vec<(Act, usize)> = (0..TABS)
            .map(|tab| {
                let act = match (tab, dice.below(10)) {
                    _ if old.is_some() => Act::Fetch,
                    (0, _) if signs_out => Act::SignOut,
                    (_, 0) => Act::SignIn,
                    (_, 1) => Act::Prove,
                    _ => Act::Fetch,
                };
                (act, dice.below(GATEWAYS))
            })
            .collect();
        thread::scope(|scope| {
            for (act, at) in acts {
                let mut tab = Tab { jar: &jar, gateway: &gateways[at], session: None };
                let (gateways, ended, sign_outs) = (&gateways, &ended, &sign_outs);
                scope.spawn(move || match act {
                    Act::Fetch => {
                        let response = tab.fetch();
                        let is_ended = |session: &String| ended.lock().unwrap().contains(session);
                        // In a round in which somebody signs out, it may be before or after that.
                        if !signs_out && tab.session.as_ref().is_some_and(|session| !is_ended(session)) {
                            assert_eq!(response.status, 200, "round {round}: {response:?}");
                        }
                    }
                    Act::SignIn => {
                        let signed_in = tab.sign_in();
                        assert!(signed_in.is_ok() || signs_out, "round {round}: {signed_in:?}");
                    }
                    Act::Prove => tab.prove(),
                    Act::SignOut => {
                        let Some(mut carried) = tab.sign_out() else { return };
                        sign_outs.fetch_add(1, SeqCst);
                        ended.lock().unwrap().insert(session_of(carried.session().unwrap()));
                        let here = carried.clone().fetch(&gateways[at], "GET", "/api/x");
                        assert_eq!(here.status, 401, "round {round}: at once where it was");
                        let end = Instant::now() + BOUND;
                        for gateway in gateways {
                            while carried.clone().fetch(gateway, "GET", "/api/x").status != 401 {
                                assert!(Instant::now() < end, "round {round}: elsewhere within the bound");
                                thread::sleep(Duration::from_millis(1));
                            }
                        }
                        // Nor is it signed anew on the way.
                        assert!(carried.go(&gateways[at], "/auth/ui/account").status == 303);
                    }
                });
            }
        });
        let mut now = Tab { jar: &jar, gateway: &gateways[round % GATEWAYS], session: None };
        let status = now.fetch().status;
        match now.session.clone() {
            Some(session) if !ended.lock().unwrap().contains(&session) => {
                assert_eq!(status, 200, "round {round}: somebody is signed out who should not be");
                if let Some(old) = old {
                    let new = cookie_now().expect("nobody has signed out");
                    assert!(session_of(&new) == session_of(&old) && new != old, "round {round}: signed anew");
                    renewed += 1;
                }
            }
            session => {
                assert_eq!(status, 401, "round {round}: somebody stays in who should not; {session:?}");
                now.sign_in().unwrap_or_else(|refused| panic!("round {round}: {refused:?}"));
            }
        }
    }
    let sign_outs = sign_outs.into_inner();
    assert!(
        renewed == ROUNDS / RENEWED_EVERY && sign_outs > ROUNDS / 25,
        "{renewed} renewed, {sign_outs} signed out"
    );
}
