//! What can be wrong with a message.

/// One thing that the grammar has no place for, or that is more than there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A CR that no LF follows.
    BareReturn,
    /// An LF without its CR.
    BareNewline,
    /// More than one empty line before a request.
    EmptyLines,
    /// The first byte of a handshake: the client speaks TLS.
    Tls,
    /// A header of the PROXY protocol. One of version 2 is known only where a read brings the whole of
    /// its signature, as proxies write it; else it is [`Violation::EmptyLines`].
    ProxyHeader,
    /// The first line of HTTP/2.
    Http2Preface,
    /// A request of HTTP/2 whose authority, target or length is malformed, as Pingora sees it. That it
    /// was 400 or a reset is all that is known.
    Http2Malformed,
    /// The method is no token, or none, or longer than any.
    Method,
    /// A byte in the target that no URI has, or a form that does not fit the method.
    Target,
    /// The target is longer than it may be.
    TargetBytes,
    /// The authority of the target is no host and port.
    Authority,
    /// The request line does not end in `HTTP/1.0` or `HTTP/1.1`.
    Version,
    /// It ends in another version.
    OtherVersion,
    /// A field's name is no token, or there is none, or there is space before the colon.
    FieldName,
    /// A name with an underscore, where `limits.underscore_headers` is `refuse`.
    Underscore,
    /// A control character in a field's value.
    FieldValue,
    /// A line that begins with space: the continuation of the line before, once.
    Fold,
    /// More fields than there may be.
    Fields,
    /// The fields are longer than they may be.
    FieldBytes,
    /// An HTTP/1.1 request without `Host`.
    NoHost,
    /// `Host` twice.
    Hosts,
    /// `Host` is no host and port.
    Host,
    /// `Host` names another host than the target, or another port.
    HostDiffers,
    /// `Content-Length` is no number.
    Length,
    /// `Content-Length` twice.
    Lengths,
    /// A `Transfer-Encoding` other than one `chunked`.
    Coding,
    /// `Transfer-Encoding` in HTTP/1.0.
    OldCoding,
    /// `Content-Length` beside `Transfer-Encoding`.
    LengthAndCoding,
    /// The size of a chunk is no hexadecimal number, or one beyond all bounds.
    ChunkSize,
    /// A chunk's extension is malformed.
    ChunkExtension,
    /// The extensions of one body are longer than anybody needs.
    ChunkExtensionBytes,
    /// A chunk is longer than it said.
    ChunkEnd,
    /// A trailer that must be in the head.
    Trailer,
}

impl Violation {
    /// The status that says it (RFC 9110 §15).
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::TargetBytes => 414,
            Self::Fields | Self::FieldBytes => 431,
            Self::OtherVersion => 505,
            Self::BareReturn
            | Self::BareNewline
            | Self::EmptyLines
            | Self::Tls
            | Self::ProxyHeader
            | Self::Http2Preface
            | Self::Http2Malformed
            | Self::Method
            | Self::Target
            | Self::Authority
            | Self::Version
            | Self::FieldName
            | Self::Underscore
            | Self::FieldValue
            | Self::Fold
            | Self::NoHost
            | Self::Hosts
            | Self::Host
            | Self::HostDiffers
            | Self::Length
            | Self::Lengths
            | Self::Coding
            | Self::OldCoding
            | Self::LengthAndCoding
            | Self::ChunkSize
            | Self::ChunkExtension
            | Self::ChunkExtensionBytes
            | Self::ChunkEnd
            | Self::Trailer => 400,
        }
    }

    /// The stable code for the operator.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::BareReturn => "bare_cr",
            Self::BareNewline => "bare_lf",
            Self::EmptyLines => "empty_lines",
            Self::Tls => "tls",
            Self::ProxyHeader => "proxy_header",
            Self::Http2Preface => "http2_preface",
            Self::Http2Malformed => "http2_malformed",
            Self::Method => "method",
            Self::Target => "target",
            Self::TargetBytes => "target_bytes",
            Self::Authority => "authority",
            Self::Version => "version",
            Self::OtherVersion => "other_version",
            Self::FieldName => "field_name",
            Self::Underscore => "underscore",
            Self::FieldValue => "field_value",
            Self::Fold => "obs_fold",
            Self::Fields => "headers",
            Self::FieldBytes => "header_bytes",
            Self::NoHost => "no_host",
            Self::Hosts => "several_hosts",
            Self::Host => "host",
            Self::HostDiffers => "host_differs",
            Self::Length => "content_length",
            Self::Lengths => "several_content_lengths",
            Self::Coding => "transfer_encoding",
            Self::OldCoding => "transfer_encoding_in_http_1_0",
            Self::LengthAndCoding => "content_length_and_transfer_encoding",
            Self::ChunkSize => "chunk_size",
            Self::ChunkExtension => "chunk_extension",
            Self::ChunkExtensionBytes => "chunk_extension_bytes",
            Self::ChunkEnd => "chunk_end",
            Self::Trailer => "trailer",
        }
    }
}
