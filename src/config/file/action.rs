//! What a route does, as typed.

use super::super::read::Presence::{Default as Same, Otherwise, Required};
use super::super::read::{KeywordValue, List, Table, section};
use super::super::value::{
    ChangedField, ContentType, FieldValue, HostName, Path, RedirectStatus, Target, Text,
};
use crate::http::pattern::Pattern;
use crate::http::scheme::Scheme;

section! {
    /// A pool that gets a share of a route's requests. Shares are exact and evenly spread: with the weights
    /// 9 and 1, one of ten requests goes to the second pool. A request stays in its pool for all retries, also
    /// when every backend of that pool is down. A plain name is short for `{pool: …}`.
    Share at "routes[].pools[]" or pool: Text, later [];

    /// Name of the pool.
    pool: Text = Required, "web";
    /// Share of the requests, relative to the other pools. 0 to 1000.
    weight: u64 = Same("1"), "9";
}

section! {
    /// Changes the request before it goes to a backend. The query stays. The new path is built from the
    /// normalized path that routes are matched against, without `//` and dot segments. A plain path is short
    /// for `{to: …}`.
    Rewrite at "routes[].rewrite" or to: Target, later [];

    /// Replaces the prefix that the route's `path` matched: with `path: /old`, `/new` turns `/old/a` into `/new/a`.
    prefix: Path = Otherwise("the prefix stays"), "/new";
    /// The whole new path. With a `path_regex`, or the `regex` here, `$1` or `${name}` inserts a capture
    /// group, and `$$` a dollar sign.
    to: Target = Otherwise("the path stays"), "/new";
    /// Regular expression for the whole path, for `to`. A path that does not match stays as it is.
    regex: Pattern = Otherwise("the `path_regex` of the route"), "'/old/(.*)'";
    /// `Host` header for the backend. `X-Forwarded-Host` carries the one that the client sent.
    host: HostName = Otherwise("the one that the client sent"), "web.internal";
}

section! {
    /// Redirects the client. Parts of the URL that are not given stay as the client asked, including the
    /// query. A plain path or URL is short for `{to: …}`.
    ///
    /// `redirect: {scheme: https}` applies to http requests only; https requests go on to other routes.
    ///
    /// A redirect to itself is rejected: for every host that a route names, its own host and path are
    /// requested and the location is followed. Where `headers` decide, or the host only matches a `*.`
    /// wildcard, `weir check` warns. Redirects that lead to each other are not found.
    Redirect at "routes[].redirect" or to: Target, later [];

    /// A path, or a URL (`http://` or `https://` and a host, with an optional path and query). In the path,
    /// `$1` or `${name}` inserts a capture group of the `path_regex`.
    to: Target = Otherwise("the other keys decide"), "https://www.example.com/new";
    /// Replaces the prefix that the route's `path` matched.
    prefix: Path = Otherwise("the path stays"), "/new";
    /// New scheme: `http` or `https`.
    scheme: KeywordValue<Scheme> = Otherwise("the scheme stays"), "https";
    /// New host.
    host: HostName = Otherwise("the host stays"), "www.example.com";
    /// New port. 1 to 65535.
    port: u64 = Otherwise("the port stays if scheme and host stay; else the default port of the scheme"),
        "8443";
    /// Status of the redirect. `301`: permanent. `302`: temporary. `303`: the client continues with GET. `307`
    /// and `308` are like 302 and 301, but the client keeps the method.
    status: RedirectStatus = Same("301"), "308";
    /// Whether the query of the request is kept: `keep` or `drop`.
    query: KeywordValue<QueryFate> = Same("keep"), "drop";
}

section! {
    /// A fixed response without a backend. A plain status is short for `{status: …}`.
    Respond at "routes[].respond" or status: u64, later [];

    /// Status of the response. 200 to 599.
    status: u64 = Required, "403";
    /// Body of the response, at most 64 KiB. A HEAD request gets only its length; 204, 205 and 304 have no
    /// body.
    body: Text = Otherwise("no body"), "\"not here\"";
    /// `Content-Type` of the body.
    content_type: ContentType = Same("text/plain; charset=utf-8"), "application/json";
}

section! {
    /// Header changes: first the headers of `remove` are removed, then those of `set` replace all headers of
    /// that name, then those of `add` are added. Headers that frame a message, belong to one connection, or
    /// carry the client's identity cannot be changed.
    Fields at "routes[].request_headers", later [];

    /// Headers to set, each with its value.
    set: Table<ChangedField, FieldValue> = Same("{}"), "{X-Env: prod}";
    /// Headers to add, each with its value.
    add: Table<ChangedField, FieldValue> = Same("{}"), "{X-Via: edge}";
    /// Names of headers to remove.
    remove: List<ChangedField> = Same("[]"), "[X-Debug]";
}

/// Whether a redirect keeps the query of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum QueryFate {
    Keep,
    Drop,
}

impl super::super::read::Keyword for QueryFate {
    const NOUN: &'static str = "a choice for the query";
    const WORDS: &'static [(&'static str, Self)] = &[("keep", Self::Keep), ("drop", Self::Drop)];
}

impl super::super::read::Keyword for Scheme {
    const NOUN: &'static str = "a scheme";
    const WORDS: &'static [(&'static str, Self)] = &[("http", Self::Http), ("https", Self::Https)];
}
