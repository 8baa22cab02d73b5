//! How strict Weir is with what servers read in different ways.

/// What becomes of a path that leads to different routes, depending on who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AmbiguousPaths {
    /// The request is rejected with 400.
    #[default]
    Refuse,
    /// It takes the route of our own reading.
    Pass,
}
