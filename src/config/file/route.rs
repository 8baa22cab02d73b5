//! Routes as typed.

use ::http::Method;

use super::super::read::Presence::{Default as Same, Otherwise};
use super::super::read::{KeywordValue, List, Table, section};
use super::super::value::{ExactPath, FieldName, Path, PathRegex, Text};
use super::super::{HostPattern, RouteName};
use super::RateLimit;
use super::action::{Fields, Redirect, Respond, Rewrite, Share};
use crate::http::pattern::Pattern;
use crate::http::scheme::Scheme;

section! {
    /// Which requests it is for, and one of `pool`, `pools`, `redirect` and `respond`. Of several
    /// routes that match a request, the one is taken that says the most about it:
    ///
    /// 1. those with the `scheme` by which the client came, before those without;
    /// 2. then the most specific host: the name itself, then the longest `*.` suffix, then no `host`;
    /// 3. then the most specific path: `path_exact`, then `path_regex` (the first in the file that
    ///    matches), then the longest `path`;
    /// 4. then the most conditions: a route with `methods` before one without, then the one with more
    ///    `headers`, then the one with more of `query`;
    /// 5. then the first in the file.
    ///
    /// So the order of the file counts only between patterns, and between routes that say equally
    /// much about one path. A route whose conditions are not met is passed over, and the search goes
    /// on, also to a shorter path and a less specific host. A route that no request could reach, because another
    /// one always wins, is refused; so is a pool without a route. `weir check --show` prints the
    /// routes in the order in which they are asked.
    ///
    /// Paths are compared in one spelling: `%61` is `a`, `//` is `/`, `/a/../b` is `/b`, and `%2F` is
    /// no `/`. The backend gets the path as the client wrote it. A path that a backend may read as
    /// another route's is rejected: see `limits.ambiguous_paths`.
    Route at "routes[]", later [];

    /// What logs call it: letters, digits, `-`, `_` and `.`, at most 63.
    name: RouteName = Otherwise("it has none"), "login";
    /// `http` or `https`: how the client came, by a trusted proxy's `X-Forwarded-Proto` or by the
    /// listener. `{redirect: {scheme: https}}` sends all who came by http to https, whatever else
    /// routes say; `{scheme: http, path: /.well-known, pool: web}` makes an exception.
    scheme: KeywordValue<Scheme> = Otherwise("either"), "https";
    /// A host name, or `"*.example.com"` (in quotes, as YAML gives `*` a meaning) for every name
    /// that ends so.
    host: HostPattern = Otherwise("every host"), "api.example.com";
    /// The start of the path, whole segments: `/v1` is for `/v1` and `/v1/users`, not for `/v10`.
    path: Path = Same("/"), "/v1";
    /// The whole path: `/v1` is not for `/v1/` then. In place of `path`.
    path_exact: ExactPath = Otherwise("`path` says it"), "/favicon.ico";
    /// A regular expression for the whole path, as if it had `^` in front and `$` behind; in place of
    /// `path`. At most 1024 bytes; without back-references and look-around, so that it takes linear
    /// time. Patterns are tried one after the other, so a file has at most 1000 of them.
    path_regex: PathRegex = Otherwise("`path` says it"), "'/users/[0-9]+/photo'";
    /// The methods, in upper case. `GET` is for `HEAD`, too, which asks for the same without its
    /// body.
    methods: List<Method> = Otherwise("every method"), "[GET, POST]";
    /// Fields that the request must have, each with what it must be: a text, or a map as below.
    /// Several lines of one field are taken as one, joined by a comma and a space.
    headers: Table<FieldName, Match> = Otherwise("any"), "{X-Canary: \"1\"}";
    /// Parameters that the query must have, each with what it must be: a text, or a map as below.
    /// Names and values are decoded as those of forms; of several with one name the first counts.
    query: Table<Text, Match> = Otherwise("any"), "{version: {prefix: beta}}";
    /// The name of the pool that answers.
    pool: Text = Otherwise("another key says what to do"), "web";
    /// Pools that share the requests. In place of `pool`.
    pools: List<Share> = Otherwise("`pool` says it"), "[{pool: web, weight: 9}, {pool: canary}]";
    /// How a request to a pool is changed.
    rewrite: Rewrite = Otherwise("it is sent as it came"), "{prefix: /new}";
    /// Sends the client elsewhere. In place of a pool.
    redirect: Redirect = Otherwise("nobody is sent elsewhere"), "{scheme: https}";
    /// Answers without a backend. In place of a pool.
    respond: Respond = Otherwise("a backend answers"), "{status: 403, body: \"not here\"}";
    /// Changes of the fields that a backend gets, after all others.
    request_headers: Fields = Otherwise("no change"), "{remove: [Cookie]}";
    /// Changes of the fields that the client gets, whoever answers.
    response_headers: Fields = Otherwise("no change"),
        "{set: {Strict-Transport-Security: max-age=31536000}}";
    /// How much one client may ask of this route, after the limit of the whole file.
    rate_limit: RateLimit = Otherwise("no further limit"), "{requests_per_second: 5}";
}

section! {
    /// What a field or a parameter must be: one of these. A bare text stands for `{exact: …}`.
    Match at "routes[].headers" or exact: Text, later [];

    /// This text.
    exact: Text = Otherwise("another key says it"), "beta";
    /// The start of the text.
    prefix: Text = Otherwise("another key says it"), "beta-";
    /// A regular expression for the whole text.
    regex: Pattern = Otherwise("another key says it"), "'v[12]'";
    /// `true`: it is there, whatever it says. `false`: it is not there.
    present: bool = Otherwise("another key says it"), "false";
}
