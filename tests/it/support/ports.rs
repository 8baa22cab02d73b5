//! An address for each test, instead of free ports.
//!
//! On Linux the whole of 127.0.0.0/8 is local. Each test takes an address that no other test has
//! and uses whatever ports it likes there, so there is no race between finding a free port and
//! binding it. A client can be many clients in the same way.
//!
//! Ports must be below 32768: above, the kernel hands them out to outgoing connections.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// The second octets that processes of these tests share out among themselves.
const BLOCKS: Range<u8> = 64..250;
/// The port on a block's last address that says the block is taken.
const CLAIM_PORT: u16 = 9999;

/// 127.`octet`.0.0/16, held by this process until it ends.
struct Block {
    octet: u8,
    _claim: UdpSocket,
}

impl Block {
    /// The process id says where to look first; the claim makes it certain that two processes
    /// never share a block.
    fn claim() -> Self {
        let first = usize::try_from(std::process::id()).expect("fits") % BLOCKS.len();
        BLOCKS
            .cycle()
            .skip(first)
            .take(BLOCKS.len())
            .find_map(|octet| {
                let claim = UdpSocket::bind((Ipv4Addr::new(127, octet, 255, 254), CLAIM_PORT));
                claim.ok().map(|claim| Self { octet, _claim: claim })
            })
            .expect("no block of loopback addresses is free")
    }
}

/// An address that no other test has.
pub(crate) fn own_address() -> Ipv4Addr {
    static BLOCK: OnceLock<Block> = OnceLock::new();
    static TAKEN: AtomicU16 = AtomicU16::new(0);

    // The first of each 256 and the last are left out: they look like broadcast addresses.
    let number = TAKEN.fetch_add(1, Ordering::Relaxed);
    let third = u8::try_from(number / 254).expect("a process has 65,024 addresses");
    let fourth = u8::try_from(number % 254 + 1).expect("at most 254");
    Ipv4Addr::new(127, BLOCK.get_or_init(Block::claim).octet, third, fourth)
}

/// A socket address whose IP address no other test has.
pub(crate) fn own_socket(port: u16) -> SocketAddr {
    SocketAddr::from((own_address(), port))
}

/// `count` addresses, to be as many clients.
pub(crate) fn own_addresses(count: usize) -> Vec<Ipv4Addr> {
    std::iter::repeat_with(own_address).take(count).collect()
}
