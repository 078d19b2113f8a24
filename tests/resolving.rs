//! Names of servers that lead elsewhere while the gateway runs.

use std::{collections::HashSet, net::TcpListener, sync::Arc};

use crate::harness::{Gateway, Hosts, Settings, Upstream, eventually, ok};

#[test]
fn names_are_looked_up_again_and_one_that_is_gone_keeps_its_addresses() {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = first.local_addr().unwrap().port();
    // The name tells addresses, and the URL the port of each.
    let second = TcpListener::bind(("127.0.0.2", port)).unwrap();
    let (a, b) = (Upstream::on(first, |_| ok("a")), Upstream::on(second, |_| ok("b")));
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let hosts = Hosts::new(folder.path());
    hosts.set("127.0.0.1 shop.test\n");
    let settings = Settings {
        servers: format!("{{url: \"http://shop.test:{port}\"}}"),
        upstream: ", resolve: 1s, balance: round_robin".to_owned(),
        env: hosts.env(),
        ..Settings::default()
    };
    let gateway = Gateway::start_in(folder, a.address, settings);
    let served = || -> HashSet<String> { (0..20).map(|_| gateway.get("/public/x", None).text()).collect() };
    let by = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<HashSet<_>>();
    assert_eq!(served(), by(&["a"]));
    hosts.set("127.0.0.2 shop.test\n");
    eventually("the other server is used", || (served() == by(&["b"])).then_some(()));
    let before = a.seen().len();
    hosts.set("127.0.0.1 shop.test\n127.0.0.2 shop.test\n");
    eventually("each address is a server", || (served() == by(&["a", "b"])).then_some(()));
    assert!(a.seen().len() > before && b.connections() > 0);
    hosts.set("");
    eventually("the name is known to be gone", || {
        gateway.log().contains("a name is of no use").then_some(())
    });
    assert_eq!(served(), by(&["a", "b"]));
}
