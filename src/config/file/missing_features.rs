//! Features of other load balancers that Weir does not have.

const ANY: &str = "*";
const NO_BOUND: (&str, &str) = (
    "bound on the requests of a whole pool",
    "`max_requests` of a backend bounds those at that backend",
);
const NO_SWITCH: (&str, &str) =
    ("key that takes a backend out", "`weir disable` does it; or remove it and run `weir reload`");
const NO_STICKY: (&str, &str) = (
    "sticky sessions by a cookie",
    "`algorithm: ip_hash` sends the same client address to the same backend",
);
const NO_CACHE: (&str, &str) = ("cache", "put one in front of it, or behind it");
const NO_COMPRESSION: (&str, &str) = ("compression", "let the backends compress");
const NO_USERS: (&str, &str) = (
    "passwords or tokens of users",
    "`client_ca` of a listener's `tls` asks clients for certificates",
);
const NO_INCLUDE: (&str, &str) =
    ("includes", "it reads one file; YAML anchors can repeat a part of it");
const NO_DISCOVERY: (&str, &str) =
    ("other service discovery", "a backend may be `{dns: …}`, `{srv: …}` or `{file: …}`");
const NO_FILES: (&str, &str) = ("files to serve", "`respond` gives a fixed response");
const NO_ACME: (&str, &str) =
    ("ACME", "let a client such as certbot renew the files: they are read again without a reload");
const NO_STREAM: (&str, &str) = ("TCP or UDP proxying", "it balances HTTP requests");

/// A name, the section (`*` is any), the missing feature, and what to do without it.
pub(super) const WORDS: &[(&str, &str, (&str, &str))] = &[
    ("maxconn", "pools[]", NO_BOUND),
    ("max_connections", "pools[]", NO_BOUND),
    ("down", "pools[].backends[]", NO_SWITCH),
    ("disabled", "pools[].backends[]", NO_SWITCH),
    ("enabled", "pools[].backends[]", NO_SWITCH),
    ("drain", "pools[].backends[]", NO_SWITCH),
    ("backup", ANY, ("backup backends", "list it as a backend like the others")),
    ("sticky", ANY, NO_STICKY),
    ("sticky_session", ANY, NO_STICKY),
    ("sticky_sessions", ANY, NO_STICKY),
    ("session_affinity", ANY, NO_STICKY),
    ("cookie", ANY, NO_STICKY),
    ("cache", ANY, NO_CACHE),
    ("caching", ANY, NO_CACHE),
    ("proxy_cache", ANY, NO_CACHE),
    ("gzip", ANY, NO_COMPRESSION),
    ("brotli", ANY, NO_COMPRESSION),
    ("compress", ANY, NO_COMPRESSION),
    ("compression", ANY, NO_COMPRESSION),
    ("auth", ANY, NO_USERS),
    ("auth_basic", ANY, NO_USERS),
    ("basic_auth", ANY, NO_USERS),
    ("jwt", ANY, NO_USERS),
    ("include", ANY, NO_INCLUDE),
    ("includes", ANY, NO_INCLUDE),
    ("import", ANY, NO_INCLUDE),
    ("discovery", ANY, NO_DISCOVERY),
    ("service_discovery", ANY, NO_DISCOVERY),
    ("resolver", ANY, NO_DISCOVERY),
    ("resolvers", ANY, NO_DISCOVERY),
    ("consul", ANY, NO_DISCOVERY),
    ("mirror", ANY, ("mirrored requests", "`pools` of a route share its requests by weight")),
    ("root", ANY, NO_FILES),
    ("static", ANY, NO_FILES),
    ("acme", ANY, NO_ACME),
    ("letsencrypt", ANY, NO_ACME),
    ("tcp", "", NO_STREAM),
    ("udp", "", NO_STREAM),
    ("stream", "", NO_STREAM),
    ("mode", ANY, NO_STREAM),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::SCHEMA;
    use crate::config::read::Section;

    #[test]
    fn what_weir_does_not_have_is_no_key_of_the_section() {
        let all = SCHEMA.sections();
        for (word, path, _) in WORDS {
            let meant = |section: &&&'static Section| *path == ANY || section.path == *path;
            let sections: Vec<_> = all.iter().filter(meant).collect();
            assert!(!sections.is_empty(), "{path}");
            for section in sections {
                assert!(section.keys.iter().all(|key| key.name != *word), "{path} has {word}");
            }
        }
    }
}
