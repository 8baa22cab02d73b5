//! Routes as a file would have them.

use super::super::action::{Action, Header, HeaderChanges, Respond, Rewrite, Share};
use super::super::meaning::Config;
use super::yaml::{Map, list, text};
use crate::http::redirect::Redirect;
use crate::http::rewrite::NewPath;

/// What a route does, in its own keys.
pub(in super::super) fn action(config: &Config, action: &Action, map: &mut Map) {
    let name = |pool: usize| config.pools.get(pool).map_or("", |pool| pool.name.as_str());
    match action {
        Action::Forward(forward) => {
            match forward.pools.as_slice() {
                [Share { pool, .. }] => map.text("pool", name(*pool)),
                pools => map.raw(
                    "pools",
                    list(pools.iter().map(|share| {
                        let mut one = Map::default();
                        one.text("pool", name(share.pool)).raw("weight", share.weight).line()
                    })),
                ),
            };
            let rewrite = rewrite(&forward.rewrite);
            map.maybe("rewrite", (!rewrite.is_empty()).then(|| rewrite.line()));
        }
        Action::Redirect(redirect) => {
            map.raw("redirect", self::redirect(redirect));
        }
        Action::Respond(respond) => {
            map.raw("respond", self::respond(respond));
        }
    }
}

fn rewrite(rewrite: &Rewrite) -> Map {
    let mut map = Map::default();
    match &rewrite.path {
        Some(NewPath::Whole(path)) => {
            map.text("to", path);
        }
        Some(NewPath::Prefix { new, .. }) => {
            map.text("prefix", new);
        }
        Some(NewPath::Pattern(pattern, template)) => {
            map.text("regex", pattern.source()).text("to", template.source());
        }
        None => {}
    }
    map.maybe("host", rewrite.host.as_deref().map(text));
    map
}

fn redirect(redirect: &Redirect) -> String {
    let mut map = Map::default();
    let query = redirect.query.as_ref().map_or_else(String::new, |query| format!("?{query}"));
    let path = match &redirect.path {
        Some(NewPath::Whole(path)) => Some(path.as_str()),
        Some(NewPath::Pattern(_, template)) => Some(template.source()),
        Some(NewPath::Prefix { .. }) | None => None,
    };
    let mut in_url = false;
    match (path, &redirect.host) {
        (Some(path), _) => {
            map.text("to", &format!("{path}{query}"));
        }
        // A query without a path can only be written behind a host.
        (None, Some(host)) if !query.is_empty() => {
            in_url = true;
            let scheme = redirect.scheme.map_or("https", |scheme| scheme.as_str());
            let port = redirect.port.map_or_else(String::new, |port| format!(":{port}"));
            map.text("to", &format!("{scheme}://{host}{port}{query}"));
        }
        (None, _) => {}
    }
    if let Some(NewPath::Prefix { new, .. }) = &redirect.path {
        map.text("prefix", new);
    }
    if !in_url {
        map.maybe("scheme", redirect.scheme);
        map.maybe("host", redirect.host.as_deref().map(text));
        map.maybe("port", redirect.port);
    }
    map.raw("status", redirect.status);
    map.raw("query", if redirect.keep_query { "keep" } else { "drop" });
    map.line()
}

fn respond(respond: &Respond) -> String {
    let mut map = Map::default();
    map.raw("status", respond.status);
    if !respond.body.is_empty() {
        map.text("body", &respond.body);
    }
    map.text("content_type", &String::from_utf8_lossy(respond.content_type.as_bytes()));
    map.line()
}

/// Changes of fields.
pub(in super::super) fn fields(changes: &HeaderChanges) -> String {
    let table = |fields: &[Header]| {
        let mut map = Map::default();
        for Header { name, value } in fields {
            map.raw(&text(name), text(&String::from_utf8_lossy(value.as_bytes())));
        }
        map.line()
    };
    let mut map = Map::default();
    map.raw("set", table(&changes.set));
    map.raw("add", table(&changes.add));
    map.raw("remove", list(changes.remove.iter().map(|name| text(name.as_str()))));
    map.line()
}
