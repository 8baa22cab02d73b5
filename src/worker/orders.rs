//! Reads the supervisor's orders from the link.

use std::io;
use std::sync::Arc;
use std::thread;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::link::{Link, ToWorker};

/// Every order from now on. The channel closes when the supervisor is gone.
pub(super) fn listen(link: &Arc<Link>) -> io::Result<UnboundedReceiver<ToWorker>> {
    let (orders, received) = unbounded_channel();
    let link = Arc::clone(link);
    let listen = move || loop {
        match link.receive() {
            Ok(Some(order)) => {
                if orders.send(order).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                log::error!("a message of the supervisor was not understood: error=\"{error}\"");
                return;
            }
        }
    };
    thread::Builder::new().name("orders".to_owned()).spawn(listen)?;
    Ok(received)
}
