//! Methods and statuses as metric labels.
//!
//! Both come from untrusted peers: a client may invent a method, a backend a status. So each label
//! is one of a closed set with an index. Counters can be kept in an array that is allocated once,
//! and no peer can create a new time series.

use ::http::Method;

/// A request's method; methods that are not in RFC 9110 or RFC 5789 are `OTHER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MethodLabel {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// `CONNECT`
    Connect,
    /// `OPTIONS`
    Options,
    /// `TRACE`
    Trace,
    /// `PATCH`
    Patch,
    /// Any other, including these in another case: methods are case-sensitive.
    Other,
}

impl MethodLabel {
    /// All labels, each at its [`index`](Self::index).
    pub const ALL: [Self; Self::COUNT] = [
        Self::Get,
        Self::Head,
        Self::Post,
        Self::Put,
        Self::Delete,
        Self::Connect,
        Self::Options,
        Self::Trace,
        Self::Patch,
        Self::Other,
    ];

    /// The number of labels.
    pub const COUNT: usize = 10;

    /// Its index, below [`Self::COUNT`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Get => 0,
            Self::Head => 1,
            Self::Post => 2,
            Self::Put => 3,
            Self::Delete => 4,
            Self::Connect => 5,
            Self::Options => 6,
            Self::Trace => 7,
            Self::Patch => 8,
            Self::Other => 9,
        }
    }

    /// The label's text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other => "OTHER",
        }
    }
}

impl From<&Method> for MethodLabel {
    fn from(method: &Method) -> Self {
        match method.as_str() {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "CONNECT" => Self::Connect,
            "OPTIONS" => Self::Options,
            "TRACE" => Self::Trace,
            "PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }
}

/// A response's status: its number, if IANA has registered it or if it is Weir's own 499 (the
/// client disconnected); otherwise its class, such as `2xx`; below 100 or above 599, `other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatusLabel {
    index: usize,
}

/// Sorted for binary search; the classes follow it. 0: no response was sent.
const REGISTERED: [(u16, &str); 63] = [
    (0, "0"),
    (100, "100"),
    (101, "101"),
    (102, "102"),
    (103, "103"),
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (203, "203"),
    (204, "204"),
    (205, "205"),
    (206, "206"),
    (207, "207"),
    (208, "208"),
    (226, "226"),
    (300, "300"),
    (301, "301"),
    (302, "302"),
    (303, "303"),
    (304, "304"),
    (305, "305"),
    (307, "307"),
    (308, "308"),
    (400, "400"),
    (401, "401"),
    (402, "402"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (406, "406"),
    (407, "407"),
    (408, "408"),
    (409, "409"),
    (410, "410"),
    (411, "411"),
    (412, "412"),
    (413, "413"),
    (414, "414"),
    (415, "415"),
    (416, "416"),
    (417, "417"),
    (421, "421"),
    (422, "422"),
    (423, "423"),
    (424, "424"),
    (425, "425"),
    (426, "426"),
    (428, "428"),
    (429, "429"),
    (431, "431"),
    (451, "451"),
    (499, "499"),
    (500, "500"),
    (501, "501"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
    (505, "505"),
    (506, "506"),
    (507, "507"),
    (508, "508"),
    (510, "510"),
    (511, "511"),
];

const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl StatusLabel {
    /// The number of labels.
    pub const COUNT: usize = REGISTERED.len() + CLASSES.len();

    /// All labels, each at its [`index`](Self::index).
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        (0..Self::COUNT).map(|index| Self { index })
    }

    /// Its index, below [`Self::COUNT`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.index
    }

    /// The label's text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        let registered = REGISTERED.get(self.index).map(|&(_, text)| text);
        let class = || CLASSES.get(self.index.saturating_sub(REGISTERED.len())).copied();
        registered.or_else(class).unwrap_or("other")
    }
}

impl From<u16> for StatusLabel {
    fn from(status: u16) -> Self {
        let index = REGISTERED.binary_search_by_key(&status, |&(code, _)| code);
        let class = if (100..600).contains(&status) { status / 100 } else { 0 };
        Self { index: index.unwrap_or(REGISTERED.len() + usize::from(class)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(text: &str) -> &'static str {
        MethodLabel::from(&Method::from_bytes(text.as_bytes()).unwrap()).as_str()
    }

    fn status(code: u16) -> &'static str {
        StatusLabel::from(code).as_str()
    }

    #[test]
    fn a_known_method_is_its_own_label() {
        for label in &MethodLabel::ALL[..9] {
            assert_eq!(method(label.as_str()), label.as_str());
        }
    }

    #[test]
    fn a_method_that_a_client_invents_is_other() {
        assert_eq!(method("PROPFIND"), "OTHER");
        assert_eq!(method("get"), "OTHER");
    }

    #[test]
    fn every_method_has_its_own_index() {
        let places: Vec<usize> = MethodLabel::ALL.iter().map(|label| label.index()).collect();
        assert_eq!(places, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn a_registered_status_is_its_own_label() {
        assert_eq!(status(100), "100");
        assert_eq!(status(200), "200");
        assert_eq!(status(429), "429");
        assert_eq!(status(499), "499");
        assert_eq!(status(511), "511");
    }

    #[test]
    fn a_status_that_a_backend_invents_is_its_class() {
        assert_eq!(status(199), "1xx");
        assert_eq!(status(299), "2xx");
        assert_eq!(status(306), "3xx");
        assert_eq!(status(418), "4xx");
        assert_eq!(status(599), "5xx");
    }

    #[test]
    fn a_status_without_a_class_is_other() {
        assert_eq!(status(0), "0", "no response was sent");
        assert_eq!(status(99), "other");
        assert_eq!(status(600), "other");
        assert_eq!(status(u16::MAX), "other");
    }

    #[test]
    fn the_registered_statuses_are_sorted_and_match_their_numbers() {
        assert!(REGISTERED.is_sorted_by(|one, next| one.0 < next.0));
        assert!(REGISTERED.iter().all(|&(code, text)| text == code.to_string()));
    }

    #[test]
    fn every_status_label_has_its_own_text_and_index() {
        let texts: std::collections::BTreeSet<_> =
            StatusLabel::all().map(StatusLabel::as_str).collect();
        assert_eq!(texts.len(), StatusLabel::COUNT);
        assert!((0..=u16::MAX).all(|code| StatusLabel::from(code).index() < StatusLabel::COUNT));
    }
}
