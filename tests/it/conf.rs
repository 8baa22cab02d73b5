//! Each file of `conf/` as it stands, but for addresses and certificates: started, and asked for what it
//! promises.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that finds something else fails the test, which is what a panic does"
)]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use http::Method;

use crate::support::backend::Backend;
use crate::support::client::Client;
use crate::support::h2::H2Backend;
use crate::support::http2::{Answer, Http2, request};
use crate::support::tls::{Authority, TlsConfig};
use crate::support::tls_front::TlsFront;
use crate::support::weir::{Directory, HERE, Weir, run_to_end};
use crate::support::{TIMEOUT, eventually};

/// An example whose servers and files are being made.
struct Example {
    text: String,
    authority: Authority,
}

impl Example {
    fn new(text: &str) -> Self {
        let addresses = [
            ("0.0.0.0:8080", 8080),
            ("0.0.0.0:443", 8443),
            ("0.0.0.0:80", 8080),
            ("127.0.0.1:9090", 9090),
        ];
        let text = addresses.into_iter().fold(text.to_owned(), |text, (written, port)| {
            text.replace(written, &format!("\"{HERE}:{port}\""))
        });
        Self { text, authority: Authority::new() }
    }

    /// The addresses behind `scheme` that the example names, each once.
    fn servers(&self, scheme: &str) -> Vec<String> {
        let behind = self.lines().flat_map(|line| {
            let urls = line.split(scheme).skip(1);
            urls.map(|url| url.split(|end: char| !":.".contains(end) && !end.is_ascii_digit()))
                .filter_map(|mut url| url.next())
                .filter(|url| url.starts_with("10."))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        });
        let mut servers: Vec<String> = behind.collect();
        servers.sort();
        servers.dedup();
        servers
    }

    /// Without comments.
    fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.lines().map(|line| line.split('#').next().unwrap_or_default())
    }

    /// Backends of HTTP/1 in the place of those that are named, by what they are called there.
    fn backends(&mut self) -> BTreeMap<String, Backend> {
        let mut backends = BTreeMap::new();
        for server in self.servers("http://") {
            let backend = Backend::start(&server);
            self.put(&server, backend.address());
            backends.insert(server, backend);
        }
        backends
    }

    fn put(&mut self, server: &str, at: SocketAddr) {
        self.text = self.text.replace(&format!("//{server}"), &format!("//{at}"));
    }

    /// A certificate in the place of `file.crt`, and its key.
    fn certificate(&mut self, file: &str, names: &[&str]) -> &mut Self {
        let identity = self.authority.identity(file, names);
        self.file(&format!("{file}.crt"), &identity.cert.display().to_string())
            .file(&format!("{file}.key"), &identity.key.display().to_string())
    }

    fn file(&mut self, name: &str, path: &str) -> &mut Self {
        self.text = self.text.replace(&format!(" {name}"), &format!(" {path}"));
        self
    }
}

fn get(weir: &Weir, path: &str) -> String {
    weir.get(path).text()
}

/// Both get their share of a few requests.
#[track_caller]
fn assert_served_by(weir: &Weir, path: &str, servers: &[&str]) {
    let mut found: Vec<String> = (0..servers.len() * 4).map(|_| get(weir, path)).collect();
    found.sort();
    found.dedup();
    assert_eq!(found, servers);
}

#[test]
fn every_example_passes_check_once_its_certificates_are_made() {
    let (directory, conf) = (Directory::new(), Path::new(env!("CARGO_MANIFEST_DIR")).join("conf"));
    let made = Command::new(conf.join("make-certificates.sh")).arg(directory.path("")).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut checked = 0;
    for entry in fs::read_dir(&conf).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let copy = directory.path("").join(file.file_name().unwrap());
        fs::copy(&file, &copy).unwrap();
        let ended = run_to_end(&["check", copy.to_str().unwrap()], &[], TIMEOUT);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", file.display());
        checked += 1;
    }
    assert!(checked >= 8, "looked in the wrong place");
}

const WEB: [&str; 2] = ["10.0.0.1:3000", "10.0.0.2:3000"];

#[test]
fn minimal_spreads_requests_over_both() {
    let mut example = Example::new(include_str!("../../conf/minimal.yaml"));
    let _backends = example.backends();
    assert_served_by(&Weir::start(&example.text), "/", &WEB);
}

#[test]
fn weir_yaml_serves_with_every_default_written_out() {
    let mut example = Example::new(include_str!("../../conf/weir.yaml"));
    let _backends = example.backends();
    let weir = Weir::start(&example.text);
    assert_served_by(&weir, "/any/path", &WEB);
    weir.until_logged("its line", |line| line["path"] == "/any/path");
}

#[test]
fn two_pools_are_told_apart_by_host_and_path() {
    let mut example = Example::new(include_str!("../../conf/two-pools.yaml"));
    let backends = example.backends();
    let weir = Weir::start(&example.text);
    let (api, site) = (["10.0.1.1:8000", "10.0.1.2:8000"], ["10.0.2.1:3000", "10.0.2.2:3000"]);
    // Between idle backends `least_conn` draws by weight.
    assert!(api.contains(&get(&weir, "/api/users").as_str()));
    assert_served_by(&weir, "/apis", &site);
    let answer = Client::connect(weir.address())
        .request("GET", "/", &[("Host", "api.example.com")], b"")
        .unwrap();
    assert!(api.contains(&answer.text().as_str()), "{}", answer.text());
    assert!(backends[site[0]].count_of("/") > 0, "it is probed by its own path");
}

#[test]
fn rate_limit_limits_logins_more_than_pages() {
    let mut example = Example::new(include_str!("../../conf/rate-limit.yaml"));
    let _backends = example.backends();
    let weir = Weir::start(&example.text);
    let of = |path: &str, count: usize| -> Vec<u16> {
        (0..count).map(|_| weir.get(path).status()).collect()
    };
    assert_eq!(of("/", 20), [200; 20]);
    // A token comes back every 2 s.
    let logins = of("/login", 20);
    assert_eq!(logins[..5], [200; 5]);
    assert!(logins.contains(&429), "{logins:?}");
    assert_eq!(of("/", 5), [200; 5]);
}

#[test]
fn https_serves_each_host_by_its_own_certificate() {
    let mut example = Example::new(include_str!("../../conf/https.yaml"));
    let _backends = example.backends();
    let (www, api) = ("www.example.com", "api.example.com");
    example.certificate(www, &[www]).certificate(api, &[api]);
    let weir = Weir::start(&example.text);
    let tls = SocketAddr::new(weir.address().ip(), 8443);
    for (host, servers) in [(www, &WEB[..]), (api, &["10.0.1.1:8000"])] {
        // It takes no other certificate than one for this name.
        let mut client = TlsConfig::new(&example.authority, None).connect(tls, host);
        let answer = client.get("/", &[("Host", host)]);
        assert!(servers.contains(&answer.text().as_str()), "{host}: {}", answer.text());
    }
    assert!(WEB.contains(&get(&weir, "/").as_str()), "in the clear, too");
}

#[test]
fn https_backends_are_reached_by_their_names_and_shown_who_we_are() {
    let mut example = Example::new(include_str!("../../conf/https-backends.yaml"));
    let servers = example.servers("https://");
    assert_eq!(servers, ["10.0.0.1:3443", "10.0.0.2:3443"]);
    let mut fronts = Vec::new();
    for (server, name) in servers.iter().zip(["web.internal", "b.internal"]) {
        let backend = Backend::start(server);
        let identity = example.authority.identity(name, &[name]);
        let behind = backend.address();
        let address = SocketAddr::new(behind.ip(), 3443);
        let clients = Some(&example.authority);
        let front = TlsFront::with(address, behind, &identity, clients, &["http/1.1"]);
        example.put(server, front.address());
        fronts.push((backend, front));
    }
    let ca = example.authority.ca().display().to_string();
    example.certificate("weir", &["weir.internal"]).file("backends-ca.crt", &ca);
    let weir = Weir::start(&example.text);
    eventually(TIMEOUT, "both are healthy", || {
        weir.metrics().sum("lb_healthy_backends", &[]) == 2.0
    });
    assert_served_by(&weir, "/", &["10.0.0.1:3443", "10.0.0.2:3443"]);
}

#[test]
fn grpc_probes_its_service_and_passes_calls_on() {
    let mut example = Example::new(include_str!("../../conf/grpc.yaml"));
    let backends: Vec<H2Backend> = example
        .servers("http://")
        .iter()
        .map(|server| {
            let backend = H2Backend::start();
            example.put(server, backend.address());
            backend
        })
        .collect();
    let weir = Weir::start(&example.text);
    let mut client = Http2::connect(weir.address());
    for _ in 0..4 {
        let fields = [("content-type", "application/grpc"), ("te", "trailers")];
        let mut stream = client.start(request(Method::POST, "/echo", &fields), true).unwrap();
        stream.send(b"\0\0\0\0\x02hi", true).unwrap();
        let answer = stream.answer().unwrap();
        assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
    }
    assert_eq!(backends.iter().map(|backend| backend.calls().len()).sum::<usize>(), 4);
    for backend in &backends {
        let checks = backend.checks();
        assert!(checks[0].body.ends_with(b"shop.Cart"), "{:?}", checks[0].body);
    }
}

/// Method, host and path, headers, and the expected result.
type Asked = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static str);

/// What `routing.yaml` does with each of these, by https.
#[rustfmt::skip]
const ROUTING: &[Asked] = &[
    ("GET", "api.example.com/", &[], "api"),
    ("GET", "www.example.com/", &[], "site"),
    ("GET", "example.com/", &[], "site"),
    ("GET", "example.com/healthz", &[], "api"),
    ("GET", "example.com/healthz/more", &[], "site"),
    ("GET", "example.com/users/7/photo", &[], "api"),
    ("GET", "example.com/users/me/photo", &[], "site"),
    ("GET", "example.com/api/x", &[], "api"),
    ("PUT", "example.com/api/x", &[], "writers"),
    ("GET", "example.com/api/x", &[("x-canary", "1")], "canary"),
    ("GET", "example.com/api/x", &[("x-canary", "2")], "api"),
    ("GET", "example.com/api/x", &[("user-agent", "a bot")], "site"),
    ("GET", "example.com/api/x", &[("user-agent", "a bot"), ("authorization", "a")], "api"),
    ("GET", "example.com/api/x?version=beta2", &[], "canary"),
    ("GET", "example.com/blog/a?b=c", &[], "301 https://blog.example.com/blog/a?b=c"),
    ("GET", "example.com/old/a?b=c", &[], "308 /new/a?b=c"),
    ("GET", "example.com/article/12/title", &[], "301 /articles/12"),
    ("GET", "example.com/admin", &[], "403"),
    ("GET", "example.com/robots.txt", &[], "200 User-agent: *\nDisallow:\n"),
    ("GET", "example.com/v1/a", &[], "api"),
    ("GET", "example.com/u/7/b", &[], "api"),
    ("GET", "example.com/shop", &[("x-debug", "1")], "site"),
];

/// What came of a request: who answered, or what Weir did.
fn outcome(answer: &Answer) -> String {
    let body = String::from_utf8(answer.body.clone()).unwrap();
    let location = answer.head.headers().get("location");
    let pools = [
        ("10.0.1.1:8000", "api"),
        ("10.0.1.2:8000", "api"),
        ("10.0.1.3:8000", "writers"),
        ("10.0.1.9:8000", "canary"),
        ("10.0.2.1:3000", "site"),
    ];
    let status = answer.status();
    match (location, pools.iter().find(|(server, _)| *server == body)) {
        (Some(location), _) => format!("{status} {}", location.to_str().unwrap()),
        (None, Some((_, pool))) => (*pool).to_owned(),
        (None, None) if status == 200 => format!("{status} {body}"),
        (None, None) => status.to_string(),
    }
}

#[test]
fn routing_does_what_it_says_of_each_route() {
    let mut example = Example::new(include_str!("../../conf/routing.yaml"));
    let backends = example.backends();
    example.certificate("example.com", &["example.com"]);
    let weir = Weir::start(&example.text);
    let tls = SocketAddr::new(weir.address().ip(), 8443);
    let config = TlsConfig::new(&example.authority, None).alpn(&["h2"]);
    let mut client = Http2::connect_tls(tls, config, "example.com");
    let mut ask = |method: &str, target: &str, fields: &[(&str, &str)]| {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = request(method, &format!("https://{target}"), fields);
        client.start(request, false).unwrap().answer().unwrap()
    };
    for (method, target, fields, expected) in ROUTING {
        let answer = ask(method, target, fields);
        assert_eq!(outcome(&answer), *expected, "{method} {target} {fields:?}");
        let hsts = answer.head.headers().get("strict-transport-security");
        assert_eq!(hsts.is_some(), target.ends_with("/shop"), "{target}");
    }
    let shares: Vec<String> =
        (0..40).map(|_| outcome(&ask("GET", "example.com/checkout", &[]))).collect();
    assert!(shares.iter().all(|pool| pool == "api" || pool == "canary"), "{shares:?}");

    let seen = |path: &str| {
        let mut all = backends.values().flat_map(Backend::requests);
        all.find(|one| one.target == path).unwrap_or_else(|| panic!("no backend got {path}"))
    };
    assert_eq!(seen("/api/v1/a").header("host"), Some("api.internal"));
    assert_eq!(seen("/users/7/b").header("host"), Some("example.com"));
    let shop = seen("/shop");
    assert_eq!((shop.header("x-env"), shop.header("x-debug")), (Some("prod"), None));
}

#[test]
fn routing_sends_who_comes_by_http_to_https_but_for_one_path() {
    let mut example = Example::new(include_str!("../../conf/routing.yaml"));
    let _backends = example.backends();
    example.certificate("example.com", &["example.com"]);
    let weir = Weir::start(&example.text);
    let mut client = Client::connect(weir.address());
    let fields = [("Host", "example.com")];
    let answer = client.request("GET", "/api/x?a=b", &fields, b"").unwrap();
    let location = answer.header("location");
    assert_eq!((answer.status(), location), (308, Some("https://example.com/api/x?a=b")));
    let challenge = "/.well-known/acme-challenge/token";
    let answer = client.request("GET", challenge, &fields, b"").unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "10.0.2.1:3000"));
}

#[test]
fn no_example_is_left_out() {
    let mut examples: Vec<String> = fs::read_dir("conf")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    examples.sort();
    let here = include_str!("conf.rs");
    for example in examples {
        assert!(here.contains(&format!("conf/{example}\"")), "{example} is driven by no test");
    }
}
