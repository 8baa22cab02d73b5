//! Routes as typed.

use ::http::Method;

use super::super::HostPattern;
use super::super::read::Presence::{Default as Same, Otherwise, Required};
use super::super::read::{List, Table, section};
use super::super::value::{ExactPath, FieldName, Path, PathRegex, Text};
use super::RateLimit;
use crate::http::pattern::Pattern;

section! {
    /// Which requests go to which pool. Of several routes that match a request, the one is taken
    /// that says the most about it:
    ///
    /// 1. the most specific host: the name itself, then the longest `*.` suffix, then no `host`;
    /// 2. then the most specific path: `path_exact`, then `path_regex` (the first in the file that
    ///    matches), then the longest `path`;
    /// 3. then the most conditions: a route with `methods` before one without, then the one with more
    ///    `headers`, then the one with more of `query`;
    /// 4. then the first in the file.
    ///
    /// So the order of the file counts only between patterns, and between routes that say equally
    /// much about one path. A route whose conditions are not met is passed over, and the search goes
    /// on, also to a shorter path and a less specific host. A route that no request could reach, because another
    /// one always wins, is refused; so is a pool without a route. `weir check --show` prints the
    /// routes in the order in which they are asked.
    ///
    /// Paths are compared in one spelling: `%61` is `a`, `//` is `/`, `/a/../b` is `/b`, and `%2F` is
    /// no `/`. The backend gets the path as the client wrote it.
    Route at "routes[]", later ["redirect"];

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
    pool: Text = Required, "web";
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
