//! One canonical path is matched and forwarded; what has two readings is 400.

use crate::harness::protocol::by_each_protocol;
use crate::harness::{Gateway, Settings, Upstream};

#[test]
fn paths_with_two_readings_are_400_and_reach_nobody() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    for path in [
        "/public/../admin/x",
        "/public/..",
        "/public/./x",
        "/./admin/x",
        "/public/%2e%2e/admin/x",
        "/public/%2E./admin/x",
        "/public/.%2e/admin",
        "/public%2f..%2fadmin",
        "/public/%2fadmin",
        "/public%2Fx",
        "/public/%5c..%5cadmin",
        "/public/..\\admin",
        "/public\\x",
        "/public/x;jsessionid=1",
        "/public;/../admin",
        "/public/..;/admin/x",
        "//admin/x",
        "/public//x",
        "///",
        "/public/%00",
        "/public/x%00.html",
        "/public/%0d%0aX-User-Id:1",
        "/public/%09",
        "/public/%252e%252e/admin",
        "/public/%25%32%65",
        "/public/%252f",
        "/public/%2",
        "/public/%",
        "/public/%zz",
        "/public/%u002e",
        "/%61dmin/x",
        "/publi%63/x",
        "/public/%7e",
        "/public/%c0%ae%c0%ae/admin",
        "/public/%ff",
        "/public/x%3Bb",
        "/public/x%3Fy",
        "/public/x%23y",
        "/public/x%7F",
    ] {
        let response = gateway.get(path, None);
        assert_eq!((response.status, response.message().as_str()), (400, "Bad request"), "{path}");
        assert_eq!(gateway.command(&["explain", "GET", path], "").status.code(), Some(1), "{path}");
    }
    assert_eq!(upstream.bytes(), 0);
}

#[test]
fn ordinary_paths_are_forwarded_as_they_came() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    for path in [
        "/public/x",
        "/public/",
        "/public",
        "/public/a.b/..c/...",
        "/public/caf%C3%A9",
        "/public/a%20b",
        "/public/a@b:c,d;e".trim_end_matches(";e"),
        "/public/bob%40example.com",
        "/public/100%25",
        "/public/x?a=../..&b=%2e%2e%2f;//\\",
        "/public/x?",
        "/public/[0]",
    ] {
        assert_eq!(gateway.get(path, None).text(), path);
    }
    assert_eq!(gateway.get("/public/caf%c3%a9", None).text(), "/public/caf%C3%A9");
}

#[test]
fn a_prefix_covers_whole_segments_and_the_query_takes_no_part() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    assert_eq!(gateway.get("/publicity", None).status, 404);
    assert_eq!(gateway.get("/public.html", None).status, 404);
    for path in ["/admin/x?/public/x", "/admin/x?path=/public/", "/api/x?url=/public/x", "/api/public/x"] {
        assert_eq!(gateway.get(path, None).status, 401, "{path}");
    }
    assert_eq!(upstream.bytes(), 0);
}

#[test]
fn an_encoded_character_does_not_lead_around_a_route() {
    let upstream = Upstream::start();
    let routes = "  - {path: /files/**, auth: none, upstream: backend}\n  - {path: \"/files/@private/**\", roles: {any: [admin]}, upstream: backend}\n";
    let gateway = Gateway::start(&upstream, Settings::routes(routes));
    for path in ["/files/@private/x", "/files/%40private/x"] {
        assert_eq!(gateway.get(path, None).status, 401, "{path}");
    }
    assert_eq!(gateway.get("/files/other/x", None).status, 200);
}

#[test]
fn what_is_encoded_goes_on_where_every_reading_belongs_to_the_same_route() {
    let routes = "  - {path: /files/**, auth: none, upstream: backend, encoded: keep}\n  - {path: \"/files/{id}\", roles: {any: [admin]}, upstream: backend}\n  - {path: \"/files/{id}/q/b\", roles: {any: [admin]}, upstream: backend}\n  - {path: /files/admin/**, roles: {any: [admin]}, upstream: backend}\n  - {path: /plain/**, auth: none, upstream: backend}\n";
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::routes(routes));
    for path in
        ["/files/x/a%2fb", "/files/x/y/a%2Fb;v=1/c?d=%2F", "/files/x/y/a;admin/b", "/files/x/a%3A%2Fb"]
    {
        assert_eq!(gateway.get(path, None).status, 200, "{path}");
        assert_eq!(upstream.last().target, path, "as it came");
    }
    for path in [
        "/files/7;/x",
        "/files/7;a/x",
        "/files/7%2Fq;y/z",
        "/files/7%2Fx",
        "/files/a;x%2Fq/b;y%2Fz",
        "/files/x/a;;;;;;;;;b",
        "/files/admin%2Fx",
        "/files/admin;x/y",
        "/files%2Fadmin/x",
        "/files;x/admin/y",
        "/files/x%2F..%2Fadmin/y",
        "/files/..;x/plain",
        "/files/.%2Fx",
        "/files/a%2F%2Fb",
        "/files/;x/b",
        "/files/%2e%2e%2Fplain",
        "/files/a%252Fb",
        "/files/a%2Fb%00",
        "/plain/a%2Fb",
        "/plain/a;b",
        "/files%2F..%2Fplain",
        "/auth%2Flogin",
        "/nowhere/a%2Fb",
    ] {
        assert_eq!(gateway.get(path, None).status, 400, "{path}");
    }
    assert_eq!(gateway.get("/files/admin/x", None).status, 401);
}

by_each_protocol!(
    paths_with_two_readings_are_400_and_reach_nobody,
    ordinary_paths_are_forwarded_as_they_came,
    a_prefix_covers_whole_segments_and_the_query_takes_no_part,
    an_encoded_character_does_not_lead_around_a_route,
    what_is_encoded_goes_on_where_every_reading_belongs_to_the_same_route,
);
