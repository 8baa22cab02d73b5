//! Names that other load balancers use for keys that have another name in Weir.

/// The name, the section, and the key that it is in Weir.
pub(super) const WORDS: &[(&str, &str, &str)] = &[
    ("listen", "", "listeners"),
    ("bind", "", "listeners"),
    ("port", "", "listeners"),
    ("lb_port", "", "listeners"),
    ("frontends", "", "listeners"),
    ("entrypoints", "", "listeners"),
    ("upstream", "routes[]", "pool"),
    ("upstream", "", "pools"),
    ("upstreams", "", "pools"),
    ("cluster", "routes[]", "pool"),
    ("clusters", "", "pools"),
    ("services", "", "pools"),
    ("service", "routes[]", "pool"),
    ("backend", "routes[]", "pool"),
    ("proxy_pass", "routes[]", "pool"),
    ("target", "routes[]", "pool"),
    ("server", "pools[]", "backends"),
    ("servers", "pools[]", "backends"),
    ("endpoints", "pools[]", "backends"),
    ("targets", "pools[]", "backends"),
    ("nodes", "pools[]", "backends"),
    ("members", "pools[]", "backends"),
    ("circuit_breaker", "pools[]", "breaker"),
    ("outlier_detection", "pools[]", "breaker"),
    ("passive_health_check", "pools[]", "breaker"),
    ("max_fails", "pools[]", "breaker"),
    ("fail_timeout", "pools[]", "breaker"),
    ("slowstart", "pools[]", "slow_start"),
    ("slow_start_config", "pools[]", "slow_start"),
    ("location", "routes[]", "path"),
    ("locations", "", "routes"),
    ("rules", "", "routes"),
    ("path_prefix", "routes[]", "path"),
    ("prefix", "routes[]", "path"),
    ("hostname", "routes[]", "host"),
    ("server_name", "routes[]", "host"),
    ("domain", "routes[]", "host"),
    ("return", "routes[]", "respond"),
    ("ssl", "listeners[]", "tls"),
    ("tls", "listeners[]", "tls"),
    ("certs", "listeners[].tls", "certificates"),
    ("ssl_certificate", "listeners[].tls", "certificates"),
    ("uri", "pools[].backends[]", "url"),
    ("maxconn", "pools[].backends[]", "max_requests"),
    ("max_conns", "pools[].backends[]", "max_requests"),
    ("max_connections", "pools[].backends[]", "max_requests"),
    ("maxqueue", "pools[]", "queue"),
    ("address", "pools[].backends[]", "url"),
    ("addr", "pools[].backends[]", "url"),
    ("host", "pools[].backends[]", "url"),
    ("balance", "pools[]", "algorithm"),
    ("strategy", "pools[]", "algorithm"),
    ("policy", "pools[]", "algorithm"),
    ("lb_policy", "pools[]", "algorithm"),
    ("load_balancing", "pools[]", "algorithm"),
    ("timeout", "pools[]", "timeouts"),
    ("health", "pools[]", "health_check"),
    ("checks", "pools[]", "health_check"),
    ("inter", "pools[].health_check", "interval"),
    ("rise", "pools[].health_check", "healthy_after"),
    ("fall", "pools[].health_check", "unhealthy_after"),
    ("retries", "pools[]", "retry"),
    ("max_retries", "pools[].retry", "attempts"),
    ("tries", "pools[].retry", "attempts"),
    ("workers", "", "threads"),
    ("worker_processes", "", "threads"),
    ("nbthread", "", "threads"),
    ("set_real_ip_from", "", "trusted_proxies"),
    ("limit_req", "", "rate_limit"),
    ("maxconn", "limits", "connections"),
    ("max_connections", "limits", "connections"),
    ("client_max_body_size", "limits", "body"),
    ("log", "", "access_log"),
    ("logging", "", "access_log"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::SCHEMA;

    #[test]
    fn every_word_stands_for_a_key_that_there_is_and_is_none_itself() {
        let sections = SCHEMA.sections();
        for (word, path, key) in WORDS {
            let section = sections.iter().find(|section| section.path == *path).unwrap();
            assert!(section.keys.iter().any(|one| one.name == *key), "{path} {key}");
            let is_key = section.keys.iter().any(|one| one.name == *word);
            assert!(!is_key || word == key, "{path} has {word}");
        }
    }
}
