//! The rules that a message can break.

macro_rules! violations {
    ($($(#[$doc:meta])+ $name:ident = $status:literal, $code:literal;)+) => {
        /// A grammar rule that a message breaks, or a limit that it exceeds.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Violation {
            $($(#[$doc])+ $name,)+
        }

        impl Violation {
            /// The response status (RFC 9110 §15).
            #[must_use]
            pub const fn status(self) -> u16 {
                match self {
                    $(Self::$name => $status,)+
                }
            }

            /// The stable value of `detail` in the access log.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                }
            }
        }
    };
}

// Each violation with its status and its code.
violations! {
    /// A CR without an LF after it.
    BareReturn = 400, "bare_cr";
    /// An LF without a CR before it.
    BareNewline = 400, "bare_lf";
    /// More than one empty line before a request.
    EmptyLines = 400, "empty_lines";
    /// The first byte of a TLS handshake: the client uses TLS on a plaintext listener.
    Tls = 400, "tls";
    /// A PROXY protocol header. If the signature of version 2 arrives in two reads, the detail is
    /// [`Violation::EmptyLines`].
    ProxyHeader = 400, "proxy_header";
    /// The first line of the HTTP/2 preface.
    Http2Preface = 400, "http2_preface";
    /// An HTTP/2 request whose authority, target or length is malformed, as detected by Pingora. Pingora
    /// reports only that it sent a 400 or a reset.
    Http2Malformed = 400, "http2_malformed";
    /// The method is missing, not a token, or too long.
    Method = 400, "method";
    /// The target contains a byte that is not allowed in a URI, or its form does not fit the method.
    Target = 400, "target";
    /// The target is longer than the limit.
    TargetBytes = 414, "target_bytes";
    /// The authority of the target is not a host and port.
    Authority = 400, "authority";
    /// The request line does not end in `HTTP/1.0` or `HTTP/1.1`.
    Version = 400, "version";
    /// The request line ends in another HTTP version.
    OtherVersion = 505, "other_version";
    /// A header name is missing, not a token, or followed by space before the colon.
    FieldName = 400, "field_name";
    /// A header name contains an underscore, and `limits.underscore_headers` is `refuse`.
    Underscore = 400, "underscore";
    /// A header value contains a control character.
    FieldValue = 400, "field_value";
    /// A line begins with space, the obsolete way to continue the line before.
    Fold = 400, "obs_fold";
    /// There are more headers than the limit.
    Fields = 431, "headers";
    /// The headers are longer than the limit.
    FieldBytes = 431, "header_bytes";
    /// An HTTP/1.1 request has no `Host`.
    NoHost = 400, "no_host";
    /// There is more than one `Host`.
    Hosts = 400, "several_hosts";
    /// `Host` is not a host and port.
    Host = 400, "host";
    /// `Host` has a different host or port from the target.
    HostDiffers = 400, "host_differs";
    /// `Content-Length` is not a number.
    Length = 400, "content_length";
    /// There is more than one `Content-Length`.
    Lengths = 400, "several_content_lengths";
    /// `Transfer-Encoding` is not exactly one `chunked`.
    Coding = 400, "transfer_encoding";
    /// An HTTP/1.0 request has a `Transfer-Encoding`.
    OldCoding = 400, "transfer_encoding_in_http_1_0";
    /// A request has both `Content-Length` and `Transfer-Encoding`.
    LengthAndCoding = 400, "content_length_and_transfer_encoding";
    /// The size of a chunk is not a hexadecimal number, or too large.
    ChunkSize = 400, "chunk_size";
    /// A chunk extension is malformed.
    ChunkExtension = 400, "chunk_extension";
    /// The chunk extensions of one body are longer than the limit.
    ChunkExtensionBytes = 400, "chunk_extension_bytes";
    /// A chunk is longer than its size.
    ChunkEnd = 400, "chunk_end";
    /// A trailer has a name that is allowed in headers only.
    Trailer = 400, "trailer";
}
