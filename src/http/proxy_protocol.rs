//! The PROXY protocol: the client of the proxy in front of Weir (haproxy.org, proxy-protocol.txt).
//!
//! Version 1 is a line of text, version 2 is binary; either comes once, before anything else. A
//! header can only be trusted as far as its sender, so the edge reads one from listed networks
//! only, and requires it there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header that is accepted. Addresses take 36 bytes, or 216 for Unix sockets; the rest
/// is room for TLVs after them.
pub const LENGTH_MAX: usize = 4096;

/// The longest line of version 1 (§2.1).
const LINE_MAX: usize = 107;

/// The start of a version 2 header. To an HTTP parser it looks like two empty lines.
pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const PREFIX: &[u8] = b"PROXY ";
const VERSION: u8 = 0x20;
const COMMAND_LOCAL: u8 = 0x00;
const COMMAND_PROXY: u8 = 0x01;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;
const IPV4_BYTES: usize = 12;
const IPV6_BYTES: usize = 36;
const UNIX_BYTES: usize = 216;
const TLV_CRC32C: u8 = 0x03;

/// A complete header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Its length in bytes.
    pub length: usize,
    /// The client's addresses; `None` if the proxy connects on its own behalf (a health check), or
    /// for a client without an IP address.
    pub addresses: Option<Addresses>,
}

/// Both addresses of the client's connection to the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// The address it connected to.
    pub destination: SocketAddr,
}

/// Why bytes are not a valid header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// They begin like neither version.
    #[error("no PROXY header")]
    Missing,
    /// The header exceeds its maximum length.
    #[error("a PROXY header that is too long")]
    TooLong,
    /// Not a valid version 1 line.
    #[error("a PROXY line that cannot be read")]
    Line,
    /// An unknown version or command.
    #[error("a PROXY command that is not known")]
    Command,
    /// The parts do not fit into the length.
    #[error("a PROXY header whose parts do not fit its length")]
    Length,
    /// The checksum is wrong.
    #[error("a PROXY header with a wrong checksum")]
    Checksum,
}

/// Parses the header at the start of `bytes`; `None` if it is incomplete.
///
/// # Errors
/// [`Invalid`], as soon as it is certain.
pub fn parse(bytes: &[u8]) -> Result<Option<ProxyHeader>, Invalid> {
    let starts_like = |start: &[u8]| bytes.iter().zip(start).all(|(byte, start)| byte == start);
    if starts_like(&SIGNATURE) {
        version_2(bytes)
    } else if starts_like(PREFIX) {
        version_1(bytes)
    } else {
        Err(Invalid::Missing)
    }
}

fn version_1(bytes: &[u8]) -> Result<Option<ProxyHeader>, Invalid> {
    let Some(end) = bytes.iter().take(LINE_MAX).position(|byte| *byte == b'\n') else {
        return if bytes.len() < LINE_MAX { Ok(None) } else { Err(Invalid::TooLong) };
    };
    let line = bytes.get(PREFIX.len()..end).and_then(|line| line.strip_suffix(b"\r"));
    let line = line.and_then(|line| std::str::from_utf8(line).ok()).ok_or(Invalid::Line)?;
    Ok(Some(ProxyHeader { length: end + 1, addresses: line_addresses(line)? }))
}

fn line_addresses(line: &str) -> Result<Option<Addresses>, Invalid> {
    let mut words = line.split(' ');
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(None); // what follows must be ignored (§2.1)
    }
    let mut word = || words.next().ok_or(Invalid::Line);
    let (source, destination) = (word()?, word()?);
    let (source_port, destination_port) = (port(word()?)?, port(word()?)?);
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            Some("TCP4") => text.parse().ok().map(IpAddr::V4),
            Some("TCP6") => text.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let source = address(source).ok_or(Invalid::Line)?;
    let destination = address(destination).ok_or(Invalid::Line)?;
    if words.next().is_some() {
        return Err(Invalid::Line);
    }
    Ok(Some(Addresses {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    }))
}

/// A port without sign and leading zeros.
fn port(text: &str) -> Result<u16, Invalid> {
    let port: u16 = text.parse().map_err(|_not_a_number| Invalid::Line)?;
    if port.to_string() == text { Ok(port) } else { Err(Invalid::Line) }
}

fn version_2(bytes: &[u8]) -> Result<Option<ProxyHeader>, Invalid> {
    let Some((_, rest)) = bytes.split_at_checked(SIGNATURE.len()) else { return Ok(None) };
    let Some((&[command, family, high, low], rest)) = rest.split_first_chunk() else {
        return Ok(None);
    };
    if command & 0xf0 != VERSION || command & 0x0f > COMMAND_PROXY {
        return Err(Invalid::Command);
    }
    let body_length = usize::from(u16::from_be_bytes([high, low]));
    let length = bytes.len() - rest.len() + body_length;
    if length > LENGTH_MAX {
        return Err(Invalid::TooLong);
    }
    let (Some(body), Some(whole)) = (rest.get(..body_length), bytes.get(..length)) else {
        return Ok(None);
    };
    if command & 0x0f == COMMAND_LOCAL {
        return Ok(Some(ProxyHeader { length, addresses: None })); // the rest must be skipped (§2.2)
    }
    let size = match family {
        TCP_OVER_IPV4 => IPV4_BYTES,
        TCP_OVER_IPV6 => IPV6_BYTES,
        UNIX_STREAM => UNIX_BYTES,
        // Another family has no usable address, and the start of its TLVs is unknown.
        _ => return Ok(Some(ProxyHeader { length, addresses: None })),
    };
    let (addresses, tlvs) = body.split_at_checked(size).ok_or(Invalid::Length)?;
    check_tlvs(tlvs, whole)?;
    let addresses = match family {
        TCP_OVER_IPV4 => pair::<4>(addresses),
        TCP_OVER_IPV6 => pair::<16>(addresses),
        _ => None,
    };
    Ok(Some(ProxyHeader { length, addresses }))
}

/// Two addresses of `N` bytes, then their ports.
fn pair<const N: usize>(bytes: &[u8]) -> Option<Addresses>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = bytes.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let &[a, b, c, d] = rest else { return None };
    Some(Addresses {
        source: SocketAddr::new(IpAddr::from(*source), u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(IpAddr::from(*destination), u16::from_be_bytes([c, d])),
    })
}

/// Checks the TLVs: each has a type, a length and a value. Only the checksum is used.
fn check_tlvs(mut tlvs: &[u8], whole: &[u8]) -> Result<(), Invalid> {
    while let Some((&[kind, high, low], rest)) = tlvs.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, rest) = rest.split_at_checked(length).ok_or(Invalid::Length)?;
        if kind == TLV_CRC32C {
            let expected = value.try_into().map_err(|_size| Invalid::Length)?;
            let at = whole.len() - rest.len() - length;
            if crc32c(whole, at..at + length) != u32::from_be_bytes(expected) {
                return Err(Invalid::Checksum);
            }
        }
        tlvs = rest;
    }
    if tlvs.is_empty() { Ok(()) } else { Err(Invalid::Length) }
}

/// CRC-32C of `bytes`, with those in `zeroed` counted as 0. Headers are short and rare, so a table
/// would not pay off.
fn crc32c(bytes: &[u8], zeroed: std::ops::Range<usize>) -> u32 {
    let mut crc = u32::MAX;
    for (index, byte) in bytes.iter().enumerate() {
        crc ^= if zeroed.contains(&index) { 0 } else { u32::from(*byte) };
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// Builds a version 2 header for a client, or for the sender itself.
#[must_use]
pub fn version_2_header(of: Option<Addresses>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let Some(Addresses { source, destination }) = of else {
        header.extend([VERSION | COMMAND_LOCAL, 0, 0, 0]);
        return header;
    };
    header.push(VERSION | COMMAND_PROXY);
    match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.extend([TCP_OVER_IPV4, 0, 12]);
            header.extend(source.octets());
            header.extend(destination.octets());
        }
        // Both addresses must have the same family.
        (source, destination) => {
            header.extend([TCP_OVER_IPV6, 0, 36]);
            header.extend(wide(source).octets());
            header.extend(wide(destination).octets());
        }
    }
    header.extend(source.port().to_be_bytes());
    header.extend(destination.port().to_be_bytes());
    header
}

fn wide(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::to_ipv6_mapped(&address),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\nGET / HTTP/1.1\r\n";

    fn addresses(source: &str, destination: &str) -> Addresses {
        Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    /// A version 2 header with these TLVs after IPv4 addresses.
    fn with_tlvs(tlvs: &[u8]) -> Vec<u8> {
        let mut header = version_2_header(Some(addresses("192.0.2.1:4711", "198.51.100.2:443")));
        header.extend(tlvs);
        let length = u16::try_from(header.len() - 16).unwrap();
        header[14..16].copy_from_slice(&length.to_be_bytes());
        header
    }

    fn with_checksum(change: u32) -> Vec<u8> {
        let mut header = with_tlvs(&[0x04, 0, 2, b'n', b'o', TLV_CRC32C, 0, 4, 0, 0, 0, 0]);
        let at = header.len() - 4;
        let sum = crc32c(&header, at..at + 4) ^ change;
        header[at..].copy_from_slice(&sum.to_be_bytes());
        header
    }

    #[test]
    fn a_version_1_line_has_both_addresses_and_ends_at_its_newline() {
        let header = parse(LINE).unwrap().unwrap();
        assert_eq!(&LINE[header.length..], b"GET / HTTP/1.1\r\n");
        let expected = addresses("192.0.2.1:4711", "198.51.100.2:443");
        assert_eq!(header.addresses, Some(expected));
        let line = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n";
        let expected = addresses("[2001:db8::1]:1", "[2001:db8::2]:65535");
        assert_eq!(parse(line), Ok(Some(ProxyHeader { length: 44, addresses: Some(expected) })));
    }

    #[test]
    fn a_line_of_an_unknown_client_has_no_address() {
        for line in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN ffff::1 what 4 ever\r\n"] {
            assert_eq!(parse(line), Ok(Some(ProxyHeader { length: line.len(), addresses: None })));
        }
    }

    #[test]
    fn an_inexact_line_is_rejected() {
        for line in [
            "PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 4711\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 4711 443 \r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.2 4711 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 +4711 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 04711 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n",
            "PROXY TCP4 2001:db8::1 198.51.100.2 4711 443\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.2 4711 443\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.2 4711 443\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.2 4711 443\r\n",
            "PROXY \r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\r\n",
        ] {
            assert_eq!(parse(line.as_bytes()), Err(Invalid::Line), "{line:?}");
        }
    }

    #[test]
    fn other_bytes_are_rejected_at_the_first_byte_that_differs() {
        assert_eq!(parse(b"G"), Err(Invalid::Missing));
        assert_eq!(parse(b"PROXX"), Err(Invalid::Missing));
        assert_eq!(parse(b"\r\n\r\n\0\r\nQUIT\r"), Err(Invalid::Missing));
        assert_eq!(parse(b""), Ok(None));
    }

    #[test]
    fn an_endless_line_is_rejected_after_107_bytes() {
        let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
        assert_eq!(parse(&endless[..106]), Ok(None));
        assert_eq!(parse(&endless[..107]), Err(Invalid::TooLong));
    }

    #[test]
    fn a_version_2_header_is_read_back() {
        for (source, destination) in
            [("192.0.2.1:4711", "198.51.100.2:443"), ("[2001:db8::1]:1", "[2001:db8::2]:65535")]
        {
            let written = version_2_header(Some(addresses(source, destination)));
            let read = parse(&written).unwrap().unwrap();
            assert_eq!(read.addresses, Some(addresses(source, destination)));
            assert_eq!(read.length, written.len());
        }
        let mixed = version_2_header(Some(addresses("192.0.2.1:1", "[2001:db8::2]:2")));
        let expected = addresses("[::ffff:192.0.2.1]:1", "[2001:db8::2]:2");
        assert_eq!(parse(&mixed).unwrap().unwrap().addresses, Some(expected));
    }

    #[test]
    fn a_header_for_the_proxy_itself_has_no_address() {
        let local = version_2_header(None);
        assert_eq!(parse(&local), Ok(Some(ProxyHeader { length: 16, addresses: None })));
        // It is skipped whatever it contains.
        let mut with_more = with_tlvs(&[0xff, 0xff]);
        with_more[12] = VERSION | COMMAND_LOCAL;
        assert_eq!(parse(&with_more).unwrap().unwrap().addresses, None);
    }

    #[test]
    fn families_without_an_ip_address_are_skipped() {
        let mut unix = version_2_header(None);
        unix[12..16].copy_from_slice(&[VERSION | COMMAND_PROXY, UNIX_STREAM, 0, 216]);
        unix.extend([7; 216]);
        assert_eq!(parse(&unix), Ok(Some(ProxyHeader { length: 232, addresses: None })));
        for family in [0x00, 0x12, 0x22, 0x32, 0xff] {
            let mut other = with_tlvs(&[]);
            other[13] = family;
            let expected = ProxyHeader { length: 28, addresses: None };
            assert_eq!(parse(&other), Ok(Some(expected)), "{family:#x}");
        }
    }

    #[test]
    fn future_commands_and_versions_are_rejected() {
        for command in [0x22, 0x2f, 0x11, 0x31, 0x00] {
            let mut header = with_tlvs(&[]);
            header[12] = command;
            assert_eq!(parse(&header), Err(Invalid::Command), "{command:#x}");
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_rejected() {
        let mut short = with_tlvs(&[]);
        short[15] = 11;
        assert_eq!(parse(&short), Err(Invalid::Length));
        assert_eq!(parse(&with_tlvs(&[0x04])), Err(Invalid::Length));
        assert_eq!(parse(&with_tlvs(&[0x04, 0, 3, 1, 2])), Err(Invalid::Length));
        assert_eq!(parse(&with_tlvs(&[TLV_CRC32C, 0, 3, 1, 2, 3])), Err(Invalid::Length));
        let mut huge = with_tlvs(&[]);
        huge[14..16].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(parse(&huge), Err(Invalid::TooLong), "before its bytes are there");
    }

    #[test]
    fn tlvs_are_skipped_and_a_checksum_is_checked() {
        assert!(parse(&with_tlvs(&[0x04, 0, 0, 0x30, 0, 1, b'x'])).unwrap().is_some());
        assert!(parse(&with_checksum(0)).unwrap().is_some());
        assert_eq!(parse(&with_checksum(1)), Err(Invalid::Checksum));
        assert_eq!(crc32c(b"123456789", 0..0), 0xe306_9283, "the check value of CRC-32C");
    }

    #[test]
    fn a_header_in_pieces_is_incomplete_until_its_last_byte() {
        for whole in [LINE[..44].to_vec(), with_checksum(0)] {
            for length in 0..whole.len() {
                assert_eq!(parse(&whole[..length]), Ok(None), "{length} bytes");
            }
            assert_eq!(parse(&whole).unwrap().unwrap().length, whole.len());
        }
    }
}
