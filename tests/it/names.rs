//! Backends that are written as host names: a name that cannot be looked up makes its backend
//! unavailable, and nothing else.

#![expect(
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails, which is what a panic does"
)]

use std::net::IpAddr;

use crate::support::backend::Backend;
use crate::support::names::Names;
use crate::support::weir::Weir;
use crate::support::{TIMEOUT, eventually};

/// Two pools: `/` goes to `web` by the name `web.test`, `/api` to `api` by the name `api.test`.
fn config(health_check: &str) -> String {
    let pool = |name: &str| {
        format!(
            "  - {{name: {name}, health_check: {health_check}, backends: [\"http://{name}.test:3000\"]}}\n"
        )
    };
    let routes = "routes: [{pool: web}, {path: /api, pool: api}]";
    format!("pools:\n{}{}{routes}\n", pool("web"), pool("api"))
}

const CHECKED: &str = "{interval: 200ms, timeout: 200ms}";

fn ip(backend: &Backend) -> IpAddr {
    backend.address().ip()
}

fn state(weir: &Weir, pool: &str) -> String {
    let status = weir.status();
    let backends = status["backends"].as_array().cloned().unwrap_or_default();
    let of_pool = backends.iter().find(|backend| backend["pool"] == pool);
    of_pool.map(|backend| backend["state"].to_string()).unwrap_or_default()
}

fn unresolved(weir: &Weir, pool: &str) -> f64 {
    weir.metrics().sum("lb_backend_unresolved", &[("pool", pool)])
}

fn starts_without_a_name(health_check: &str) {
    let (web, api) = (Backend::start("web"), Backend::start("api"));
    let Some(names) = Names::new(&[("web.test", ip(&web))]) else { return };
    let mut weir = Weir::spawn_by(names.launcher(), &config(health_check));
    weir.until_alive();
    eventually(TIMEOUT, "the other pool serves", || weir.get("/").status() == 200);
    assert_eq!(weir.get("/api").status(), 503);
    assert_eq!(
        (state(&weir, "web"), state(&weir, "api")),
        ("\"healthy\"".into(), "\"unresolved\"".into())
    );
    assert_eq!((unresolved(&weir, "web"), unresolved(&weir, "api")), (0.0, 1.0));
    let warnings =
        weir.stderr().matches("name lookup failed: pool=api backend=api.test:3000").count();
    assert_eq!(warnings, 1, "{}", weir.stderr());
    names.set(&[("web.test", ip(&web)), ("api.test", ip(&api))]);
    eventually(TIMEOUT, "the backend comes to life", || weir.get("/api").status() == 200);
    assert_eq!(weir.get("/api").text(), "api");
    eventually(TIMEOUT, "it is healthy", || state(&weir, "api") == "\"healthy\"");
    assert_eq!(unresolved(&weir, "api"), 0.0);
    weir.until_said("name resolved: pool=api backend=api.test:3000");
}

#[test]
fn a_name_that_cannot_be_looked_up_makes_its_backend_unavailable_until_it_can() {
    starts_without_a_name(CHECKED);
}

#[test]
fn a_backend_without_health_checks_comes_to_life_when_its_name_resolves() {
    starts_without_a_name("off");
}

#[test]
fn a_worker_that_dies_is_replaced_by_one_that_knows_the_last_addresses() {
    let (web, api) = (Backend::start("web"), Backend::start("api"));
    let Some(names) = Names::new(&[("web.test", ip(&web)), ("api.test", ip(&api))]) else { return };
    let weir = Weir::start_by(names.launcher(), &config(CHECKED));
    names.set(&[("web.test", ip(&web))]);
    // The second one has never looked the name up with success.
    for _ in 0..2 {
        weir.replace_by_kill();
        assert_eq!((weir.get("/").text(), weir.get("/api").text()), ("web".into(), "api".into()));
    }
    weir.until_said("its last known address is used");
}

#[test]
fn a_name_server_that_does_not_respond_keeps_no_worker_from_being_replaced() {
    let (web, api) = (Backend::start("web"), Backend::start("api"));
    let Some(names) = Names::new(&[("web.test", ip(&web)), ("api.test", ip(&api))]) else { return };
    let weir = Weir::start_by(names.launcher(), &config(CHECKED));
    names.set(&[]);
    names.be_silent();
    weir.replace_by_kill();
    assert_eq!((weir.get("/").text(), weir.get("/api").text()), ("web".into(), "api".into()));
}

#[test]
fn a_name_server_that_does_not_respond_keeps_no_pool_from_serving() {
    let web = Backend::start("web");
    let Some(names) = Names::new(&[("web.test", ip(&web))]) else { return };
    names.be_silent();
    let mut weir = Weir::spawn_by(names.launcher(), &config(CHECKED));
    weir.until_alive();
    eventually(TIMEOUT, "the other pool serves", || weir.get("/").status() == 200);
    assert_eq!(weir.get("/api").status(), 503);
}

#[test]
fn a_reload_goes_on_with_a_warning_where_a_name_cannot_be_looked_up() {
    let (web, api) = (Backend::start("web"), Backend::start("api"));
    let Some(names) = Names::new(&[("web.test", ip(&web)), ("api.test", ip(&api))]) else { return };
    let weir = Weir::start_by(names.launcher(), &config(CHECKED));
    names.set(&[]);
    let said = weir.reload();
    assert!(
        said.contains("pool api: backend api.test:3000 keeps its last known address"),
        "{said}"
    );
    assert_eq!((weir.get("/").text(), weir.get("/api").text()), ("web".into(), "api".into()));
    weir.write_config(&config(CHECKED).replace("api.test", "new.test"));
    let said = weir.reload();
    let warning = "warning: pool api: backend new.test:3000 takes no requests until its name";
    assert!(said.contains(warning), "{said}");
    assert_eq!((weir.get("/").status(), weir.get("/api").status()), (200, 503));
}

#[test]
fn a_reload_reports_an_address_that_has_changed() {
    let (web, first, second) =
        (Backend::start("web"), Backend::start("first"), Backend::start("second"));
    let Some(names) = Names::new(&[("web.test", ip(&web)), ("api.test", ip(&first))]) else {
        return;
    };
    let weir = Weir::start_by(names.launcher(), &config(CHECKED));
    assert_eq!(weir.get("/api").text(), "first");
    names.set(&[("web.test", ip(&web)), ("api.test", ip(&second))]);
    let (said, from, to) = (weir.reload(), first.address(), second.address());
    let line = format!("pool api: backend api.test:3000 address: {from} → {to}");
    assert!(said.contains(&line) && !said.contains("nothing changed"), "{said}");
    assert!(!said.contains("web.test"), "{said}");
    // For a moment the worker before accepts as well.
    eventually(TIMEOUT, "the new address is used", || weir.get("/api").text() == "second");
    assert!(weir.reload().contains("nothing changed"));
}

#[test]
fn check_warns_of_a_name_that_cannot_be_looked_up() {
    let Some(names) = Names::new(&[("web.test", IpAddr::from([127, 0, 0, 1]))]) else { return };
    let said = names.check(&config(CHECKED));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stderr.contains(":3:"), "with its place: {said:?}");
    let warning = "warning: the name of the backend `api.test:3000` could not be resolved: ";
    assert!(said.stderr.contains(warning) && !said.stderr.contains("web.test"), "{said:?}");
}
