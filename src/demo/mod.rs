//! Embedded test servers, to use as backends.
//!
//! `weir demo` and `weir origin` need nothing but this binary. The servers run on Pingora too, but
//! share no code with the proxy: otherwise they could hide its faults.

pub mod origin;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::origin::OriginOptions;

/// Running test servers. Dropping this stops them.
#[derive(Debug)]
pub struct Origins {
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Origins {
    /// Their addresses, in the order of their names.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Origins {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread of the demo origins panicked");
        }
    }
}

/// Starts `count` servers, `origin-1` and so on, on free ports of 127.0.0.1.
///
/// They share one thread. Their sockets listen when this returns, so a client can connect at once.
///
/// # Errors
/// A socket cannot be bound, or the thread or its runtime cannot be created.
pub fn start(count: usize) -> io::Result<Origins> {
    let mut addresses = Vec::with_capacity(count);
    let mut bound = Vec::with_capacity(count);
    for number in 1..=count {
        let listener = origin::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        addresses.push(listener.local_addr()?);
        let name = format!("origin-{number}");
        bound.push((listener, OriginOptions { name, ..OriginOptions::default() }));
    }

    let (stop, stopped) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve_all = async move {
        let mut origins = JoinSet::new();
        for (listener, options) in bound {
            origins.spawn(origin::serve(listener, options, stopped.clone()));
        }
        origins.join_all().await;
    };
    let thread = thread::Builder::new()
        .name("demo-origins".to_owned())
        .spawn(move || runtime.block_on(serve_all))?;
    Ok(Origins { addresses, stop, thread: Some(thread) })
}

/// Runs one server until SIGTERM or SIGINT.
///
/// # Errors
/// The runtime or the signal handlers cannot be created.
pub fn run(listener: std::net::TcpListener, options: OriginOptions) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(origin::serve(listener, options, stopped));
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
        serving.await.map_err(io::Error::other)
    })
}

/// The configuration of a load balancer in front of these backends, with the main features enabled.
#[must_use]
pub fn configuration(listen: SocketAddr, admin: SocketAddr, backends: &[String]) -> String {
    let backends = backends.join(", ");
    format!(
        "listeners: [\"{listen}\"]\n\
         admin: {{address: \"{admin}\"}}\n\
         pools:\n\
         \x20 - name: demo\n\
         \x20   backends: [{backends}]\n\
         \x20   health_check: {{type: http, path: /health, interval: 2s, timeout: 1s}}\n\
         rate_limit: {{requests_per_second: 1000, burst: 2000}}\n\
         access_log: {{format: text}}\n"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn the_requested_number_of_origins_start_each_on_its_own_port() {
        let origins = start(3).unwrap();
        let ports: BTreeSet<u16> = origins.addresses().iter().map(SocketAddr::port).collect();
        assert_eq!(ports.len(), 3);
    }

    #[test]
    fn an_origin_accepts_connections_at_once() {
        let origins = start(1).unwrap();
        assert!(TcpStream::connect(origins.addresses()[0]).is_ok());
    }

    #[test]
    fn dropped_origins_no_longer_listen() {
        let origins = start(1).unwrap();
        let address = origins.addresses()[0];
        drop(origins);
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
