//! How strict Weir is with what servers read in different ways, and with clients that may have left.

/// What becomes of a path that leads to different routes, depending on who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AmbiguousPaths {
    /// The request is rejected with 400.
    #[default]
    Refuse,
    /// It takes the route of our own reading.
    Pass,
}

/// What becomes of a request over HTTP/1 whose client closes its side of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HalfClosed {
    /// The client has left: the request is cancelled.
    #[default]
    Abort,
    /// The client waits for its response.
    Serve,
}

/// What becomes of request headers whose name has an underscore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnderscoreHeaders {
    /// Those that a backend may take for a header that Weir acts on are removed.
    #[default]
    Guard,
    /// All are removed.
    Drop,
    /// The request is rejected with 400.
    Refuse,
    /// They go on.
    Pass,
}
