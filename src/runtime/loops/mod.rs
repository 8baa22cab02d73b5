//! Redirects that never end.
//!
//! Requests that a redirect is for are made up, and followed through the table that serves, as a
//! client would: until no redirect takes them, or they lead away from here, or they have been sent
//! on more often than any client goes along with. The last is a problem, unless something decides
//! that nobody can know: fields of a request (a cookie that comes with the redirect ends many a
//! loop), or whether a host that only a `*.` is for is served here at all. That is a warning. A
//! host that is kept, or that a route names, is served here; by which schemes clients come,
//! listeners and `trusted_proxies` say.

mod sample;
mod walk;

use std::collections::BTreeMap;

use crate::config::{Action, Config, Draft, Problem};
use walk::{Hop, Walker};

pub use sample::Sample;

/// Clients give up after so many redirects.
pub const HOPS_MAX: usize = 20;
/// What a look at all redirects may cost, in routes and patterns that are asked.
const LOOKS_MAX: usize = 5_000_000;

/// A loop of redirects.
#[derive(Debug, Clone, PartialEq)]
pub struct Loop {
    /// The routes that make it, in the order of the file.
    pub routes: Vec<usize>,
    /// Where a client comes through it: where it begins, then what it is sent.
    pub urls: Vec<String>,
    /// Whether nothing but the file decides.
    pub is_certain: bool,
    /// A request that gets into it.
    pub sample: Sample,
}

/// Looks for redirects that never end, and adds what it finds. Nothing is said of a file in which
/// something else is wrong: a route that could not be read might end the loop.
pub fn look_for_loops(draft: &mut Draft) {
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

/// The loops that were found, and whether every redirect was looked at. Of several that the same
/// routes make one is told, a certain one if there is one.
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
        if walker.looks() > LOOKS_MAX {
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
    /// The last hop leads to where the first began.
    fn of(hops: &[Hop], sample: Sample) -> Self {
        let mut routes: Vec<usize> = hops.iter().map(|hop| hop.route).collect();
        routes.sort_unstable();
        routes.dedup();
        let is_certain = hops.iter().all(|hop| hop.is_certain);
        Self { routes, urls: urls(hops), is_certain, sample }
    }

    /// No place comes twice. What comes in the first half may only lead to the loop.
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
        let told: Vec<String> = self.urls.iter().map(|url| told(url)).collect();
        let told = told.join(" -> ");
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
        let what = format!("this redirect {ends}: {told}");
        Problem { at: first, what, help: Some(help) }
    }
}

/// Where the first hop begins, then what each says.
fn urls(hops: &[Hop]) -> Vec<String> {
    const TOLD_MAX: usize = 4;
    let begin = hops.first().map(|Hop { from, location, .. }| {
        let (url, query) = (&from.url, from.url.query.as_ref());
        let query = query.map_or_else(String::new, |query| format!("?{query}"));
        match location.starts_with('/') {
            true => format!("{}{query}", url.path),
            false => format!("{}://{}{}{query}", url.scheme, url.host, url.path),
        }
    });
    let locations = hops.iter().map(|hop| hop.location.clone());
    let mut urls: Vec<String> = begin.into_iter().chain(locations).take(TOLD_MAX).collect();
    if hops.len() >= TOLD_MAX {
        urls.push("…".to_owned());
    }
    urls
}

fn told(url: &str) -> String {
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
