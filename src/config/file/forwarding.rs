//! Forwarding fields as typed.

use super::super::read::Presence::Default as Same;
use super::super::read::{Keyword, KeywordValue, section};
use super::super::{ForwardingHeader, SentHeaders};

section! {
    /// By which fields balancers tell who the client is. One rule holds for limits, `ip_hash`, logs
    /// and what backends are told: a PROXY header where a listener has one, else the connection's
    /// other end, is the peer; and if that is one of `trusted_proxies`, the field of `accept` is
    /// walked from the right, through all that are trusted, to the first that is not, or that is no
    /// address. At most 32 hops are looked at and passed on.
    Forwarding at "forwarded", later [];

    /// Which one is believed when a trusted proxy sends it: `x_forwarded_for` (with
    /// `X-Forwarded-Proto` and `-Host`) or `forwarded` (RFC 7239, with its `proto` and `host`). The
    /// other one is removed from every request, because a proxy that writes the one passes the other
    /// on as the client made it up.
    accept: KeywordValue<ForwardingHeader> = Same("x_forwarded_for"), "forwarded";
    /// What backends get: `x_forwarded_for` (`X-Forwarded-For`, `-Proto`, `-Host`, `-Port`),
    /// `forwarded` or `both`. `X-Real-IP` is sent in any case.
    send: KeywordValue<SentHeaders> = Same("x_forwarded_for"), "both";
}

impl Keyword for ForwardingHeader {
    const NOUN: &'static str = "a field that says who the client is";
    const WORDS: &'static [(&'static str, Self)] =
        &[("x_forwarded_for", Self::XForwardedFor), ("forwarded", Self::Forwarded)];
}

impl Keyword for SentHeaders {
    const NOUN: &'static str = "a choice of forwarding fields";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("x_forwarded_for", Self::XForwardedFor),
        ("forwarded", Self::Forwarded),
        ("both", Self::Both),
    ];
}
