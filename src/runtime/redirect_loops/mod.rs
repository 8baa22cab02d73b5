//! Finds redirect loops in a configuration.
//!
//! Sample requests for each redirect are generated and followed through the real route table, as a
//! client would. This ends when no redirect matches, when they lead to another server, or after
//! more redirects than any client follows. The last case is an error, unless the outcome depends on
//! something unknown: request headers (a cookie set with the redirect ends many loops), or whether
//! a host that only matches a `*.` is served here. Then it is a warning. A host that is kept, or
//! that a route names, is served here. The possible schemes follow from listeners and
//! `trusted_proxies`.

mod sample;
mod walk;

use std::collections::BTreeMap;

use crate::config::{Action, Config, Draft, Problem};
use walk::{Hop, Walker};

pub use sample::Sample;

/// Clients give up after this many redirects.
pub const HOPS_MAX: usize = 20;
/// The limit for the cost of checking all redirects, in routes and patterns tried.
const CHECKS_MAX: usize = 5_000_000;

/// A redirect loop.
#[derive(Debug, Clone, PartialEq)]
pub struct Loop {
    /// The routes in the loop, in the order of the file.
    pub routes: Vec<usize>,
    /// The URLs of the loop: the first one, then each location.
    pub urls: Vec<String>,
    /// Whether the outcome depends only on the configuration.
    pub is_certain: bool,
    /// A request that enters the loop.
    pub sample: Sample,
}

/// Adds a problem for each redirect loop. Nothing is reported for a configuration with other
/// errors: a route that could not be parsed might end the loop.
pub fn report_loops(draft: &mut Draft) {
    if !draft.is_whole() {
        return;
    }
    let (loops, is_all) = find(draft.config());
    for one in loops {
        let problem = one.problem(draft.config());
        if one.is_certain { draft.refuse(problem) } else { draft.warn(problem) }
    }
    if !is_all {
        let what = "there are too many redirects to see whether all of them end".to_owned();
        draft.warn(Problem { at: None, what, help: None });
    }
}

/// The loops found, and whether every redirect was checked. Of several loops with the same routes
/// one is returned, a certain one if there is one.
#[must_use]
pub fn find(config: &Config) -> (Vec<Loop>, bool) {
    let mut walker = Walker::new(config);
    let schemes = walker.schemes();
    let redirects = config.routes.iter().filter(|it| matches!(it.action, Action::Redirect(_)));
    let mut of_routes = redirects.flat_map(|route| sample::samples(route, &schemes)).peekable();
    if of_routes.peek().is_none() {
        return (Vec::new(), true);
    }
    let mut loops: BTreeMap<Vec<usize>, Loop> = BTreeMap::new();
    for sample in of_routes.chain(sample::crossed(&config.routes, &schemes)) {
        if walker.checks() > CHECKS_MAX {
            return (loops.into_values().collect(), false);
        }
        let Some(new) = walker.walk(sample) else { continue };
        match loops.get(&new.routes) {
            Some(known) if known.is_certain || !new.is_certain => {}
            _ => drop(loops.insert(new.routes.clone(), new)),
        }
    }
    (loops.into_values().collect(), true)
}

impl Loop {
    /// The last hop leads back to the start of the first.
    fn of(hops: &[Hop], sample: Sample) -> Self {
        let mut routes: Vec<usize> = hops.iter().map(|hop| hop.route).collect();
        routes.sort_unstable();
        routes.dedup();
        let is_certain = hops.iter().all(|hop| hop.is_certain);
        Self { routes, urls: urls(hops), is_certain, sample }
    }

    /// No URL occurs twice. The first half may only lead to the loop.
    fn endless(hops: &[Hop], sample: Sample) -> Self {
        let (_, last) = hops.split_at(hops.len() / 2);
        let mut one = Self::of(last, sample);
        let begin = hops.iter().position(|hop| one.routes.contains(&hop.route));
        one.urls = urls(hops.split_at(begin.unwrap_or(0)).1);
        one
    }

    fn problem(&self, config: &Config) -> Problem {
        let at = |index: &usize| config.routes.get(*index).and_then(|route| route.written.0);
        let mut places = self.routes.iter().filter_map(at);
        let first = places.next();
        let others: Vec<String> = places.map(|position| position.to_string()).collect();
        let shown: Vec<String> = self.urls.iter().map(|url| shorten(url)).collect();
        let shown = shown.join(" -> ");
        let help = match (self.is_certain, others.is_empty()) {
            (false, _) => "it ends only if fields of the request change on the way, or another \
                           server has the host"
                .to_owned(),
            (true, true) => {
                "lead to a place that this route does not take, or write `path_exact` for one \
                 path alone"
                    .to_owned()
            }
            (true, false) => format!("it goes on at {}: lead elsewhere", others.join(", ")),
        };
        let ends = if self.is_certain { "never ends" } else { "may never end" };
        let what = format!("this redirect {ends}: {shown}");
        Problem { at: first, what, help: Some(help) }
    }
}

/// The URL of the first hop, then each location.
fn urls(hops: &[Hop]) -> Vec<String> {
    const SHOWN_MAX: usize = 4;
    let begin = hops.first().map(|Hop { from, location, .. }| {
        let (url, query) = (&from.url, from.url.query.as_ref());
        let query = query.map_or_else(String::new, |query| format!("?{query}"));
        match location.starts_with('/') {
            true => format!("{}{query}", url.path),
            false => format!("{}://{}{}{query}", url.scheme, url.host, url.path),
        }
    });
    let locations = hops.iter().map(|hop| hop.location.clone());
    let mut urls: Vec<String> = begin.into_iter().chain(locations).take(SHOWN_MAX).collect();
    if hops.len() >= SHOWN_MAX {
        urls.push("…".to_owned());
    }
    urls
}

fn shorten(url: &str) -> String {
    const LENGTH_MAX: usize = 60;
    let cut: String = url.chars().take(LENGTH_MAX).collect();
    match cut.len() < url.len() {
        true => format!("`{cut}…`"),
        false if url == "…" => cut,
        false => format!("`{cut}`"),
    }
}

#[cfg(test)]
mod tests;
