//! Names that a configuration gives to things, so that one kind cannot be mistaken for another.

use std::fmt;
use std::sync::Arc;

/// The longest name, in bytes: what a DNS label may have.
pub const LENGTH_MAX: usize = 63;

/// Why a text cannot be a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was written.
    #[error("a name cannot be empty")]
    Empty,
    /// It would not be readable as a metric's label or in a log line.
    #[error("a name is made of letters, digits, `-`, `_` and `.`, but this has {0:?}")]
    Character(char),
    /// Longer than [`LENGTH_MAX`].
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
            /// Checks that `text` can be a name.
            ///
            /// # Errors
            /// [`NameError`] says what is wrong with it.
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
    fn a_name_reads_as_it_was_written() {
        assert_eq!(PoolName::new("web-1.a_b").unwrap().as_str(), "web-1.a_b");
    }

    #[test]
    fn a_name_that_a_log_line_could_not_carry_is_refused() {
        assert_eq!(PoolName::new(""), Err(NameError::Empty));
        assert_eq!(PoolName::new("a b"), Err(NameError::Character(' ')));
        assert_eq!(PoolName::new(&"x".repeat(64)), Err(NameError::Long));
    }
}
