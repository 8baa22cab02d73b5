//! Forwarding headers as written in the file.

use super::super::read::{Keyword, KeywordValue, section};
use super::super::terms::{ForwardingHeader, SentHeaders};

section! {
    /// Headers that carry the client's address from proxy to proxy. One rule holds for rate limits,
    /// `ip_hash`, logs and what backends receive. The peer is the address in the PROXY header where a listener
    /// accepts one, else the other end of the connection. If the peer is in `trusted_proxies`, the header
    /// chosen by `accept` is read from right to left; the first address that is not in `trusted_proxies` is the
    /// client. At most 32 addresses are read and forwarded.
    RawForwarding at "forwarded"
        means [Copy, Eq] Forwarding;

    /// Header that is trusted when it comes from a trusted proxy: `x_forwarded_for` (with
    /// `X-Forwarded-Proto` and `-Host`) or `forwarded` (RFC 7239, with its `proto` and `host`). The other
    /// header is removed: a proxy that sets one forwards the client's version of the other.
    accept: KeywordValue<ForwardingHeader> = default(ForwardingHeader::XForwardedFor), "forwarded";
    /// Headers that backends receive: `x_forwarded_for` (`X-Forwarded-For`, `-Proto`, `-Host`, `-Port`),
    /// `forwarded`, or `both`. `X-Real-IP` is always sent.
    send: KeywordValue<SentHeaders> = default(SentHeaders::XForwardedFor), "both";
}

impl Keyword for ForwardingHeader {
    const NOUN: &'static str = "a forwarding header";
    const WORDS: &'static [(&'static str, Self)] =
        &[("x_forwarded_for", Self::XForwardedFor), ("forwarded", Self::Forwarded)];
}

impl Keyword for SentHeaders {
    const NOUN: &'static str = "a choice of forwarding headers";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("x_forwarded_for", Self::XForwardedFor),
        ("forwarded", Self::Forwarded),
        ("both", Self::Both),
    ];
}
