//! Fields and targets that a file writes into messages.

use ::http::{HeaderName, HeaderValue};

use super::super::problem::{Diagnostics, Problem, quote};
use super::super::read::{Bounds, FromNode, FromText, KeyContext, ValueError};
use super::super::yaml::{Node, Value};

/// The name of a field that is set, added or removed.
#[derive(Debug, Clone)]
pub(in super::super) struct ChangedField {
    pub(in super::super) name: HeaderName,
    pub(in super::super) typed: String,
}

impl PartialEq for ChangedField {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// Fields that say where a message ends, or that are about one connection.
const OF_THE_CONNECTION: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-authorization",
];

/// Fields that Weir writes itself, and that others act on.
const OF_OURS: [&str; 10] = [
    "client-cert",
    "client-cert-chain",
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

impl FromText for ChangedField {
    const EXPECTED: &'static str = "the name of a field";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_invalid| {
            ValueError::new(format!("{} is not a header name", quote(text)))
                .help("letters, digits and `-`: for example `X-Version`")
        })?;
        let wrong = |what: &str| ValueError::new(format!("the header {} {what}", quote(text)));
        if OF_THE_CONNECTION.contains(&name.as_str()) {
            return Err(wrong("cannot be changed")
                .help("it frames the message, or belongs to one connection"));
        }
        let certificate = name.as_str().starts_with("x-client-cert");
        if certificate || OF_OURS.contains(&name.as_str()) {
            return Err(wrong("cannot be changed")
                .help("Weir sets it; `trusted_proxies` decides which proxies are trusted"));
        }
        if name == ::http::header::HOST {
            return Err(wrong("cannot be changed here").help("write `rewrite: {host: …}`"));
        }
        Ok(Self { name, typed: text.to_owned() })
    }

    fn to_text(&self) -> String {
        self.typed.clone()
    }
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct FieldValue(pub(in super::super) HeaderValue);

impl FromText for FieldValue {
    const EXPECTED: &'static str = "text";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        if text.trim_matches([' ', '\t']) != text {
            return Err(ValueError::new(format!(
                "the value {} starts or ends with a space",
                quote(text)
            ))
            .help("remove the space: HTTP ignores it"));
        }
        let value = HeaderValue::from_str(text).ok().filter(|value| value.to_str().is_ok());
        value.map(Self).ok_or_else(|| {
            let what = format!("{} is not a header value", quote(text));
            ValueError::new(what).help("use visible ASCII characters, spaces and tabs")
        })
    }

    fn from_number(typed: &str) -> Option<ValueError> {
        Some(super::in_quotes(typed))
    }

    fn to_text(&self) -> String {
        String::from_utf8_lossy(self.0.as_bytes()).into_owned()
    }
}

/// What a body is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct ContentType(pub(in super::super) HeaderValue);

impl FromText for ContentType {
    const EXPECTED: &'static str = "a media type";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        let FieldValue(value) = FieldValue::from_text(text)?;
        let media = text.split(';').next().unwrap_or(text).trim();
        let token = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
        };
        if media.split_once('/').is_some_and(|(kind, sub)| token(kind) && token(sub)) {
            return Ok(Self(value));
        }
        Err(ValueError::new(format!("{} is not a media type", quote(text)))
            .help("for example `application/json`"))
    }

    fn to_text(&self) -> String {
        String::from_utf8_lossy(self.0.as_bytes()).into_owned()
    }
}

/// A path or a URL, with groups of a pattern in it, maybe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Target(pub(in super::super) String);

impl FromText for Target {
    const EXPECTED: &'static str = "a path or a URL";

    fn from_text(text: &str) -> Result<Self, ValueError> {
        let wrong = |what: &str| ValueError::new(format!("{} {what}", quote(text)));
        if !text.bytes().all(|b| b.is_ascii_graphic() && !b"\\\"<>^`|#".contains(&b)) {
            return Err(wrong("has a character that a URL cannot contain")
                .help("percent-encode such characters: a space is `%20`"));
        }
        if text.starts_with("//") {
            return Err(wrong("would lead to another host")
                .help("write a path with one `/`, or `https://` and the host"));
        }
        let url = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
        if text.starts_with('/') || url {
            return Ok(Self(text.to_owned()));
        }
        if text.contains("://") {
            return Err(wrong("has a scheme other than http and https")
                .help("write `https://` and the host, or a path"));
        }
        Err(wrong("is neither a path nor a URL").help(format!(
            "write {} or {}",
            quote(&format!("/{text}")),
            quote(&format!("https://{text}"))
        )))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

/// A status that redirects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct RedirectStatus(pub(in super::super) u16);

impl FromNode for RedirectStatus {
    fn expected(_bounds: Bounds) -> String {
        "301, 302, 303, 307 or 308".to_owned()
    }

    fn from_node(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        let Value::Whole(number) = node.value else {
            found.add(key.wrong_type(node, &Self::expected(Bounds::Any)));
            return None;
        };
        let status = [301, 302, 303, 307, 308].into_iter().find(|one| u64::from(*one) == number);
        if status.is_none() {
            let problem = Problem::new(node.at, format!("{number} is not a redirect status"));
            found.add(problem.help(format!("it can be {}", Self::expected(Bounds::Any))));
        }
        status.map(Self)
    }

    fn to_yaml(&self) -> String {
        self.0.to_string()
    }
}
