//! Actions of routes, as written in the file.

use std::num::NonZeroU16;

use ::http::HeaderValue;

use super::super::read::{Keyword, KeywordValue, List, Table, section, whole};
use super::super::value::{
    ChangedField, ContentType, FieldValue, HostName, Path, RedirectStatus, Target, Text,
};
use crate::http::pattern::Pattern;
use crate::http::scheme::Scheme;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

section! {
    /// A pool that gets a share of a route's requests. Shares are exact and evenly spread: with the weights
    /// 9 and 1, one of ten requests goes to the second pool. A request stays in its pool for all retries, also
    /// when every backend of that pool is down. A plain name is short for `{pool: …}`.
    RawShare at "routes[].pools[]"
        or (pool: Text);

    /// Name of the pool.
    pool: Text = required, "web";
    /// Share of the requests, relative to the other pools.
    weight: u32 [whole(0, 1000)] = default(1), "9";
}

section! {
    /// Changes the request before it goes to a backend. The query stays. The new path is built from the
    /// normalized path that routes are matched against, without `//` and dot segments. A plain path is short
    /// for `{to: …}`.
    RawRewrite at "routes[].rewrite"
        or (to: Target);

    /// Replaces the prefix that the route's `path` matched: with `path: /old`, `/new` turns `/old/a` into `/new/a`.
    prefix: Path = optional("the prefix stays"), "/new";
    /// The whole new path. With a `path_regex`, or the `regex` here, `$1` or `${name}` inserts a capture
    /// group, and `$$` a dollar sign.
    to: Target = optional("the path stays"), "/new";
    /// Regular expression for the whole path, for `to`. A path that does not match stays as it is.
    regex: Pattern = optional("the `path_regex` of the route"), "'/old/(.*)'";
    /// `Host` header for the backend. `X-Forwarded-Host` carries the one that the client sent.
    host: HostName = optional("the one that the client sent"), "web.internal";
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
    RawRedirect at "routes[].redirect"
        or (to: Target);

    /// A path, or a URL (`http://` or `https://` and a host, with an optional path and query). In the path,
    /// `$1` or `${name}` inserts a capture group of the `path_regex`.
    to: Target = optional("the other keys decide"), "https://www.example.com/new";
    /// Replaces the prefix that the route's `path` matched.
    prefix: Path = optional("the path stays"), "/new";
    /// New scheme: `http` or `https`.
    scheme: KeywordValue<Scheme> = optional("the scheme stays"), "https";
    /// New host.
    host: HostName = optional("the host stays"), "www.example.com";
    /// New port.
    port: NonZeroU16 [whole(1, 65_535)] = optional("the port stays if scheme and host stay; else the default port of the scheme"), "8443";
    /// Status of the redirect. `301`: permanent. `302`: temporary. `303`: the client continues with GET. `307`
    /// and `308` are like 302 and 301, but the client keeps the method.
    status: RedirectStatus = default(RedirectStatus(301)), "308";
    /// Whether the query of the request is kept: `keep` or `drop`.
    query: KeywordValue<QueryFate> = default(QueryFate::Keep), "drop";
}

section! {
    /// A fixed response without a backend. A plain status is short for `{status: …}`.
    RawRespond at "routes[].respond"
        or (status: u16);

    /// Status of the response.
    status: u16 [whole(200, 599)] = required, "403";
    /// Body of the response, at most 64 KiB. A HEAD request gets only its length; 204, 205 and 304 have no
    /// body.
    body: Text = optional("no body"), "\"not here\"";
    /// `Content-Type` of the body.
    content_type: ContentType = default(ContentType(TEXT)), "application/json";
}

section! {
    /// Header changes: first the headers of `remove` are removed, then those of `set` replace all headers of
    /// that name, then those of `add` are added. Headers that frame a message, belong to one connection, or
    /// carry the client's identity cannot be changed.
    RawFields at "routes[].request_headers";

    /// Headers to set, each with its value.
    set: Table<ChangedField, FieldValue> = default(Table::empty()), "{X-Env: prod}";
    /// Headers to add, each with its value.
    add: Table<ChangedField, FieldValue> = default(Table::empty()), "{X-Via: edge}";
    /// Names of headers to remove.
    remove: List<ChangedField> = default(List::empty()), "[X-Debug]";
}

/// Whether a redirect keeps the query of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum QueryFate {
    Keep,
    Drop,
}

impl Keyword for QueryFate {
    const NOUN: &'static str = "a choice for the query";
    const WORDS: &'static [(&'static str, Self)] = &[("keep", Self::Keep), ("drop", Self::Drop)];
}

impl Keyword for Scheme {
    const NOUN: &'static str = "a scheme";
    const WORDS: &'static [(&'static str, Self)] = &[("http", Self::Http), ("https", Self::Https)];
}
