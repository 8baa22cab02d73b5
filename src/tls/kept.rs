//! What was in files when they could be used last.
//!
//! A renewal may break a file, and a worker may die while it is broken. The next one then goes on
//! with what the last one had: it is given the bytes, and reads them as it would read the files.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::config::FilePath;

/// The bytes of a file. There may be a private key in them, so no log shows them.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Contents(Arc<[u8]>);

impl Contents {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::from(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Contents {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Contents({})", self.0.len())
    }
}

impl Serialize for Contents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Contents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text).map(Self::new).map_err(de::Error::custom)
    }
}

/// Files that were read together, such as a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    files: Vec<PathBuf>,
    contents: Vec<Contents>,
}

/// What was in all files, for the next worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept(Vec<Group>);

impl Kept {
    /// What was in these files, if it is known.
    pub(super) fn find(&self, files: &[FilePath]) -> Option<&[Contents]> {
        let is_it = |group: &&Group| group.files.iter().eq(files.iter().map(|file| &file.path));
        self.0.iter().find(is_it).map(|group| group.contents.as_slice())
    }

    /// Notes what was in these files. A name that is no text cannot be told, and is left out.
    pub(super) fn note(&mut self, files: &[FilePath], contents: &[Contents]) {
        let is_text = files.iter().all(|file| file.path.to_str().is_some());
        if is_text && self.find(files).is_none() {
            let files = files.iter().map(|file| file.path.clone()).collect();
            self.0.push(Group { files, contents: contents.to_vec() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    fn file(path: impl Into<PathBuf>) -> FilePath {
        FilePath { path: path.into(), at: None }
    }

    #[test]
    fn what_is_kept_is_told_for_these_files_together_and_for_no_others() {
        let pair = [file("a.crt"), file("a.key")];
        let contents = [Contents::new(vec![0xFF, 1]), Contents::new(vec![2])];
        let mut kept = Kept::default();
        kept.note(&pair, &contents);
        let told = serde_json::to_string(&kept).unwrap();
        let heard: Kept = serde_json::from_str(&told).unwrap();
        assert_eq!(heard.find(&pair), Some(&contents[..]));
        assert_eq!(heard.find(&pair[..1]), None);
        assert_eq!(heard.find(&[file("a.crt"), file("b.key")]), None);
    }

    #[test]
    fn a_name_that_is_no_text_keeps_nobody_from_telling_the_others() {
        let mut kept = Kept::default();
        kept.note(&[file(OsStr::from_bytes(b"\xFF.crt"))], &[Contents::new(vec![1])]);
        kept.note(&[file("ca.crt")], &[Contents::new(vec![2])]);
        let heard: Kept = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
        assert!(heard.find(&[file("ca.crt")]).is_some());
    }

    #[test]
    fn no_log_shows_what_is_kept() {
        let mut kept = Kept::default();
        kept.note(&[file("a.key")], &[Contents::new(b"secret".to_vec())]);
        assert!(!format!("{kept:?}").contains("secret"));
        assert!(!format!("{kept:?}").contains("115"), "nor its bytes as numbers");
    }
}
