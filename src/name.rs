//! Names in the configuration. Each kind has its own type, so that they cannot be confused.

use std::fmt;
use std::sync::Arc;

/// The maximum length, in bytes: that of a DNS label.
pub const LENGTH_MAX: usize = 63;

/// Why a text is not a valid name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a name cannot be empty")]
    Empty,
    /// The character would not be readable in a metric label or in a log line.
    #[error("a name consists of letters, digits, `-`, `_` and `.`, but this one contains {0:?}")]
    Character(char),
    /// The text is longer than [`LENGTH_MAX`].
    #[error("a name has at most {LENGTH_MAX} characters")]
    Long,
}

fn checked(text: &str) -> Result<Arc<str>, NameError> {
    let odd = |c: &char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if let Some(character) = text.chars().find(odd) {
        return Err(NameError::Character(character));
    }
    if text.len() > LENGTH_MAX {
        return Err(NameError::Long);
    }
    Ok(text.into())
}

macro_rules! name {
    ($(#[doc = $doc:literal])+ $name:ident) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks that `text` is a valid name.
            ///
            /// # Errors
            /// It is not.
            pub fn new(text: &str) -> Result<Self, NameError> {
                checked(text).map(Self)
            }

            /// The name as written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The name of a pool, as written in the file. Cheap to clone.
    PoolName
}

name! {
    /// The name of a route, as written in the file. Cheap to clone.
    RouteName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_as_written() {
        assert_eq!(PoolName::new("web-1.a_b").unwrap().as_str(), "web-1.a_b");
    }

    #[test]
    fn a_name_that_does_not_fit_into_a_log_line_is_rejected() {
        assert_eq!(PoolName::new(""), Err(NameError::Empty));
        assert_eq!(PoolName::new("a b"), Err(NameError::Character(' ')));
        assert_eq!(PoolName::new(&"x".repeat(64)), Err(NameError::Long));
    }
}
