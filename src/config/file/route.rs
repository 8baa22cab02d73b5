//! Routes as written in the file.

use ::http::Method;

use super::super::read::{KeywordValue, List, Table, section};
use super::super::terms::HostPattern;
use super::super::value::{ExactPath, FieldName, Path, PathRegex, Text};
use super::action::{RawFields, RawRedirect, RawRespond, RawRewrite, RawShare};
use super::rate_limit::RawRateLimit;
use crate::http::pattern::Pattern;
use crate::http::scheme::Scheme;
use crate::name::RouteName;

section! {
    /// A route: which requests it matches, and one of `pool`, `pools`, `redirect` and `respond`. If several
    /// routes match a request, the most specific one is used:
    ///
    /// 1. a route with the `scheme` that the client used, before one without `scheme`;
    /// 2. then the most specific host: the exact name, then the longest `*.` suffix, then no `host`;
    /// 3. then the most specific path: `path_exact`, then `path_regex` (in the order of the file), then the
    ///    longest `path`;
    /// 4. then the most conditions: a route with `methods` before one without, then the one with more
    ///    `headers`, then the one with more of `query`;
    /// 5. then the first in the file.
    ///
    /// So the order of the file matters only between patterns, and between routes that are equally specific
    /// for one path. A route whose conditions are not met is skipped; the search goes on, also with a shorter
    /// path and a less specific host. A route that no request can reach, because another route always wins, is
    /// rejected; so is a pool without a route. `weir check --show` prints the routes in order of precedence.
    ///
    /// Paths are compared in normalized form: `%61` is `a`, `//` is `/`, `/a/../b` is `/b`, and `%2F` is not
    /// `/`. The backend gets the path as the client wrote it. A path that a backend may read as another
    /// route's is rejected: see `limits.ambiguous_paths`.
    RawRoute at "routes[]"
        named "route" by ["scheme", "host", "path", "path_exact", "path_regex", "methods", "headers", "query"];

    /// Name of the route in logs: letters, digits, `-`, `_` and `.`, at most 63 characters.
    name: RouteName = optional("the route has no name"), "login";
    /// Scheme that the client used: `http` or `https`, from a trusted proxy's `X-Forwarded-Proto` or from the
    /// listener. `{redirect: {scheme: https}}` redirects all http requests to https before any other route;
    /// `{scheme: http, path: /.well-known, pool: web}` makes an exception.
    scheme: KeywordValue<Scheme> = optional("both"), "https";
    /// Host name, or `"*.example.com"` (in quotes, because `*` has a meaning in YAML) for all names that end
    /// so.
    host: HostPattern = optional("every host"), "api.example.com";
    /// Path prefix, in whole segments: `/v1` matches `/v1` and `/v1/users`, but not `/v10`.
    path: Path = default(Path::root()) where has_no_other_path, "/v1";
    /// The exact path: `/v1` does not match `/v1/`. Instead of `path`.
    path_exact: ExactPath = optional("not used"), "/favicon.ico";
    /// Regular expression that must match the whole path, as with `^` and `$` around it. Instead of `path`.
    /// At most 1024 bytes; no back-references and look-around, so matching takes linear time. A file may have
    /// at most 1000 of them, because they are tried one after the other.
    path_regex: PathRegex = optional("not used"), "'/users/[0-9]+/photo'";
    /// Request methods, in upper case. `GET` includes `HEAD`.
    methods: List<Method> = optional("every method"), "[GET, POST]";
    /// Request headers that must match, each with a text, or with a map as below. Several headers with the
    /// same name are joined with a comma and a space first.
    headers: Table<FieldName, RawMatch> = optional("no condition"), "{X-Canary: \"1\"}";
    /// Query parameters that must match, each with a text, or with a map as below. Names and values are
    /// decoded as in forms; if a name occurs several times, the first one counts.
    query: Table<Text, RawMatch> = optional("no condition"), "{version: {prefix: beta}}";
    /// Name of the pool that serves the request.
    pool: Text = optional("not used"), "web";
    /// Pools that share the requests, by weight. Instead of `pool`.
    pools: List<RawShare> = optional("not used"), "[{pool: web, weight: 9}, {pool: canary}]";
    /// Changes the request before it goes to a backend.
    rewrite: RawRewrite = optional("the request is sent unchanged"), "{prefix: /new}";
    /// Redirects the client. Instead of a pool.
    redirect: RawRedirect = optional("not used"), "{scheme: https}";
    /// Returns a fixed response without a backend. Instead of a pool.
    respond: RawRespond = optional("not used"), "{status: 403, body: \"not here\"}";
    /// Header changes for the request to the backend, made after all others.
    request_headers: RawFields = optional("no change"), "{remove: [Cookie]}";
    /// Header changes for the response to the client, whether it comes from a backend or from Weir.
    response_headers: RawFields = optional("no change"), "{set: {Strict-Transport-Security: max-age=31536000}}";
    /// Rate limit for each client on this route, after the limit of the whole file.
    rate_limit: RawRateLimit = optional("no further limit"), "{requests_per_second: 5}";
}

section! {
    /// Condition on a header or a query parameter: exactly one of these keys. A plain text is short for `{exact: …}`.
    RawMatch at "routes[].headers"
        or (exact: Text);

    /// The value is equal to this text.
    exact: Text = optional("not used"), "beta";
    /// The value starts with this text.
    prefix: Text = optional("not used"), "beta-";
    /// Regular expression that must match the whole value.
    regex: Pattern = optional("not used"), "'v[12]'";
    /// `true`: it is present, with any value. `false`: it is absent.
    present: bool = optional("not used"), "false";
}

impl RawRoute {
    fn has_no_other_path(&self) -> bool {
        self.path_exact.is_none() && self.path_regex.is_none()
    }
}
