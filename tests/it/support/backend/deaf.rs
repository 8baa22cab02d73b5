//! An address where connecting never completes: the backlog is full and nothing accepts.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// Holds the backlog full until dropped. Its address is then free to be refused or bound.
pub(crate) struct Deaf {
    _listener: Socket,
    _waiting: Vec<Socket>,
}

impl Deaf {
    /// Takes `address`, which must be free.
    #[track_caller]
    pub(crate) fn on(address: SocketAddr) -> Self {
        let listener = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        listener.set_reuse_address(true).unwrap();
        listener.bind(&address.into()).unwrap();
        listener.listen(0).unwrap();
        let mut waiting = Vec::new();
        // A connection that is taken into the backlog is made at once; the first that is not
        // says that the backlog is full.
        loop {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
            if socket.connect_timeout(&address.into(), Duration::from_millis(100)).is_err() {
                return Self { _listener: listener, _waiting: waiting };
            }
            waiting.push(socket);
            assert!(waiting.len() < 64, "the backlog of {address} does not fill");
        }
    }
}
