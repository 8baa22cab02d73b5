//! What a route does, as typed.

use super::super::read::Presence::{Default as Same, Otherwise, Required};
use super::super::read::{KeywordValue, List, Table, section};
use super::super::value::{
    ChangedField, ContentType, FieldValue, HostName, Path, RedirectStatus, Target, Text,
};
use crate::http::pattern::Pattern;
use crate::http::scheme::Scheme;

section! {
    /// One of the pools that share the requests of a route. The shares are exact and smooth: of ten
    /// requests with the weights 9 and 1, one goes to the second pool. A request stays in its pool,
    /// also when it is tried again, and when all backends of that pool are down. A bare name stands
    /// for `{pool: …}`.
    Share at "routes[].pools[]" or pool: Text, later [];

    /// The name of the pool.
    pool: Text = Required, "web";
    /// Its share relative to the other pools: 0 to 1000.
    weight: u64 = Same("1"), "9";
}

section! {
    /// How a request to a backend differs from the one that came. The query stays. New paths are made
    /// of the path as routes see it: in one spelling, without `//` and dots. A bare path stands for
    /// `{to: …}`.
    Rewrite at "routes[].rewrite" or to: Target, later [];

    /// In place of the route's `path`, before what lies below it: with `path: /old`, `/new` makes
    /// `/new/a` of `/old/a`.
    prefix: Path = Otherwise("the start stays"), "/new";
    /// The whole new path. With a `path_regex` or the `regex` here, `$1` or `${name}` is what a group
    /// took, and `$$` is a dollar sign.
    to: Target = Otherwise("the path stays"), "/new";
    /// A regular expression for the whole path, for `to`. A path that it does not take stays as it
    /// is.
    regex: Pattern = Otherwise("the `path_regex` of the route"), "'/old/(.*)'";
    /// The `Host` that the backend gets. `X-Forwarded-Host` has the one that the client wrote.
    host: HostName = Otherwise("as the client wrote it"), "web.internal";
}

section! {
    /// Where the client is sent. What is not written stays as it was asked for, the query included. A
    /// bare path or URL stands for `{to: …}`.
    ///
    /// `redirect: {scheme: https}` is for requests that came by http; those by https are left to
    /// other routes.
    ///
    /// A redirect that leads to itself is rejected: its own host and path are requested and the
    /// location followed, to every host that a route names. Where `headers` decide, or the host only
    /// matches a `*.`, `weir check` warns. Redirects that lead to each other are not found.
    Redirect at "routes[].redirect" or to: Target, later [];

    /// A path, or `http://` or `https://` and a host, with or without a path and a query. Groups of a
    /// `path_regex` can be used as `$1` or `${name}` in the path.
    to: Target = Otherwise("the other keys say it"), "https://www.example.com/new";
    /// In place of the route's `path`, before what lies below it.
    prefix: Path = Otherwise("the path stays"), "/new";
    /// `http` or `https`.
    scheme: KeywordValue<Scheme> = Otherwise("as the client came"), "https";
    /// Another host.
    host: HostName = Otherwise("the host that the client asked for"), "www.example.com";
    /// Another port.
    port: u64 = Otherwise("the one that the client wrote, if scheme and host stay; else the usual one"),
        "8443";
    /// `301`: moved for good. `302`: for now. `303`: come back with GET. `307` and `308` are like 302
    /// and 301, but the method stays.
    status: RedirectStatus = Same("301"), "308";
    /// `keep` or `drop` the query that the client wrote.
    query: KeywordValue<QueryFate> = Same("keep"), "drop";
}

section! {
    /// An answer without a backend. A bare status stands for `{status: …}`.
    Respond at "routes[].respond" or status: u64, later [];

    /// 200 to 599.
    status: u64 = Required, "403";
    /// At most 64 KiB. HEAD gets its length alone; 204, 205 and 304 have none.
    body: Text = Otherwise("no body"), "\"not here\"";
    /// What the body is.
    content_type: ContentType = Same("text/plain; charset=utf-8"), "application/json";
}

section! {
    /// Changes of fields. First the fields of `remove` are taken out, then those of `set` stand in
    /// place of all lines of their name, then those of `add` are put beside what is there. Fields that
    /// frame a message or belong to one connection cannot be changed, nor those by which balancers
    /// tell who the client is.
    Fields at "routes[].request_headers", later [];

    /// Each with its value.
    set: Table<ChangedField, FieldValue> = Same("{}"), "{X-Env: prod}";
    /// Each with its value.
    add: Table<ChangedField, FieldValue> = Same("{}"), "{X-Via: edge}";
    /// Names.
    remove: List<ChangedField> = Same("[]"), "[X-Debug]";
}

/// What becomes of the query of a redirected request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum QueryFate {
    Keep,
    Drop,
}

impl super::super::read::Keyword for QueryFate {
    const NOUN: &'static str = "what becomes of a query";
    const WORDS: &'static [(&'static str, Self)] = &[("keep", Self::Keep), ("drop", Self::Drop)];
}

impl super::super::read::Keyword for Scheme {
    const NOUN: &'static str = "a scheme";
    const WORDS: &'static [(&'static str, Self)] = &[("http", Self::Http), ("https", Self::Https)];
}
