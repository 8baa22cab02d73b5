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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn link() -> (Link, Arc<Link>) {
        let (supervisor, worker) = Link::pair().unwrap();
        (supervisor, Arc::new(Link::from(UnixStream::from(worker))))
    }

    #[test]
    fn orders_arrive_in_order_until_the_supervisor_is_gone() {
        let (supervisor, worker) = link();
        let mut orders = listen(&worker).unwrap();
        supervisor.send(&ToWorker::HandOver).unwrap();
        supervisor.send(&ToWorker::Drain).unwrap();
        drop(supervisor);
        assert!(matches!(orders.blocking_recv(), Some(ToWorker::HandOver)));
        assert!(matches!(orders.blocking_recv(), Some(ToWorker::Drain)));
        assert!(orders.blocking_recv().is_none());
    }

    #[test]
    fn an_order_that_is_not_understood_is_the_last() {
        let (supervisor, worker) = link();
        let mut orders = listen(&worker).unwrap();
        supervisor.send(&"Dance").unwrap();
        supervisor.send(&ToWorker::Drain).unwrap();
        assert!(orders.blocking_recv().is_none());
    }
}
