//! The rules that a message can break.

/// A grammar rule that a message breaks, or a limit that it exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Violation {
    /// A CR without an LF after it.
    BareReturn,
    /// An LF without a CR before it.
    BareNewline,
    /// More than one empty line before a request.
    EmptyLines,
    /// The first byte of a TLS handshake: the client uses TLS on a plaintext listener.
    Tls,
    /// A PROXY protocol header. Version 2 is recognized only if one read contains its whole signature,
    /// as proxies send it; otherwise it is [`Violation::EmptyLines`].
    ProxyHeader,
    /// The first line of the HTTP/2 preface.
    Http2Preface,
    /// An HTTP/2 request whose authority, target or length is malformed, as detected by Pingora. Pingora
    /// reports only that it sent a 400 or a reset.
    Http2Malformed,
    /// The method is missing, not a token, or too long.
    Method,
    /// The target contains a byte that is not allowed in a URI, or its form does not fit the method.
    Target,
    /// The target is longer than the limit.
    TargetBytes,
    /// The authority of the target is not a host and port.
    Authority,
    /// The request line does not end in `HTTP/1.0` or `HTTP/1.1`.
    Version,
    /// The request line ends in another HTTP version.
    OtherVersion,
    /// A header name is missing, not a token, or followed by space before the colon.
    FieldName,
    /// A header name contains an underscore, and `limits.underscore_headers` is `refuse`.
    Underscore,
    /// A header value contains a control character.
    FieldValue,
    /// A line begins with space, the obsolete way to continue the line before.
    Fold,
    /// There are more headers than the limit.
    Fields,
    /// The headers are longer than the limit.
    FieldBytes,
    /// An HTTP/1.1 request has no `Host`.
    NoHost,
    /// There is more than one `Host`.
    Hosts,
    /// `Host` is not a host and port.
    Host,
    /// `Host` has a different host or port from the target.
    HostDiffers,
    /// `Content-Length` is not a number.
    Length,
    /// There is more than one `Content-Length`.
    Lengths,
    /// `Transfer-Encoding` is not exactly one `chunked`.
    Coding,
    /// An HTTP/1.0 request has a `Transfer-Encoding`.
    OldCoding,
    /// A request has both `Content-Length` and `Transfer-Encoding`.
    LengthAndCoding,
    /// The size of a chunk is not a hexadecimal number, or too large.
    ChunkSize,
    /// A chunk extension is malformed.
    ChunkExtension,
    /// The chunk extensions of one body are longer than the limit.
    ChunkExtensionBytes,
    /// A chunk is longer than its size.
    ChunkEnd,
    /// A trailer is allowed only as a header.
    Trailer,
}

impl Violation {
    /// The response status (RFC 9110 §15).
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

    /// The stable value of `detail` in the access log.
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
