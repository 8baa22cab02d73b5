//! The last good contents of files.
//!
//! A renewal may break a file, and a worker may die while it is broken. The next worker then
//! continues with the last good contents: it gets the bytes, and parses them like the files.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::config::FilePath;

/// The bytes of a file. They may contain a private key, so `Debug` does not show them.
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

/// Files that are read together, such as a certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    files: Vec<PathBuf>,
    contents: Vec<Contents>,
}

/// The last good contents of all files, for the next worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastGoodFiles(Vec<Group>);

impl LastGoodFiles {
    /// The contents of these files, if known.
    pub(super) fn find(&self, files: &[FilePath]) -> Option<&[Contents]> {
        let is_it = |group: &&Group| group.files.iter().eq(files.iter().map(|file| &file.path));
        self.0.iter().find(is_it).map(|group| group.contents.as_slice())
    }

    /// Records the contents of these files. Files whose names are not UTF-8 cannot be serialized
    /// and are left out.
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
    fn contents_are_found_only_for_the_same_group_of_files() {
        let pair = [file("a.crt"), file("a.key")];
        let contents = [Contents::new(vec![0xFF, 1]), Contents::new(vec![2])];
        let mut last_good = LastGoodFiles::default();
        last_good.note(&pair, &contents);
        let exported = serde_json::to_string(&last_good).unwrap();
        let imported: LastGoodFiles = serde_json::from_str(&exported).unwrap();
        assert_eq!(imported.find(&pair), Some(&contents[..]));
        assert_eq!(imported.find(&pair[..1]), None);
        assert_eq!(imported.find(&[file("a.crt"), file("b.key")]), None);
    }

    #[test]
    fn a_file_name_that_is_not_utf8_does_not_affect_other_files() {
        let mut last_good = LastGoodFiles::default();
        last_good.note(&[file(OsStr::from_bytes(b"\xFF.crt"))], &[Contents::new(vec![1])]);
        last_good.note(&[file("ca.crt")], &[Contents::new(vec![2])]);
        let imported: LastGoodFiles =
            serde_json::from_str(&serde_json::to_string(&last_good).unwrap()).unwrap();
        assert!(imported.find(&[file("ca.crt")]).is_some());
    }

    #[test]
    fn no_log_shows_the_contents() {
        let mut last_good = LastGoodFiles::default();
        last_good.note(&[file("a.key")], &[Contents::new(b"secret".to_vec())]);
        assert!(!format!("{last_good:?}").contains("secret"));
        assert!(!format!("{last_good:?}").contains("115"), "nor its bytes as numbers");
    }
}
