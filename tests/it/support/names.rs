//! Host names that only one balancer knows: its `/etc/hosts` and `/etc/resolv.conf` are a test's.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};

use super::ports;
use super::weir::{BINARY, Directory, Ended, run_by};

/// The files, and the address of a name server.
pub(crate) struct Names {
    directory: Directory,
    server: SocketAddr,
    /// A name server that never responds.
    silent: std::cell::RefCell<Option<UdpSocket>>,
}

impl Names {
    /// Knows these names; a name server refuses all others at once. `None` if this machine lets
    /// no test mount files, which needs root.
    pub(crate) fn new(names: &[(&str, IpAddr)]) -> Option<Self> {
        let may = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
        if !may.is_ok_and(|status| status.success()) {
            eprintln!("skipped: nothing can be mounted here (unshare needs root)");
            return None;
        }
        let (directory, server) = (Directory::new(), ports::own_socket(53));
        // One try lasts longer than any test does.
        let settings = format!("nameserver {}\noptions timeout:30 attempts:5\n", server.ip());
        fs::write(directory.path("resolv.conf"), settings).expect("writing");
        let names_of_test = Self { directory, server, silent: None.into() };
        names_of_test.set(names);
        Some(names_of_test)
    }

    /// Knows these names from now on.
    pub(crate) fn set(&self, names: &[(&str, IpAddr)]) {
        let line = |(name, address): &(&str, IpAddr)| format!("{address} {name}\n");
        let text: String = names.iter().map(line).collect();
        // The same file: what is mounted is the file and not its name.
        fs::write(self.directory.path("hosts"), text).expect("writing");
    }

    /// The address of the name server, at which a test may start one.
    pub(crate) fn name_server(&self) -> SocketAddr {
        self.server
    }

    /// The name server takes questions from now on, and does not respond.
    pub(crate) fn be_silent(&self) {
        *self.silent.borrow_mut() = Some(UdpSocket::bind(self.server).expect("binding"));
    }

    /// `weir check` of this configuration where these names are known.
    #[track_caller]
    pub(crate) fn check(&self, config: &str) -> Ended {
        fs::write(self.directory.path("checked.yaml"), config).expect("writing");
        run_by(self.launcher(), &["check", &self.directory.name("checked.yaml")])
    }

    /// The binary, to be started where these names are known.
    pub(crate) fn launcher(&self) -> Command {
        let mount = "mount --bind \"$1\" /etc/hosts && mount --bind \"$2\" /etc/resolv.conf && \
                     shift 2 && exec \"$@\"";
        let mut launcher = Command::new("unshare");
        launcher.args(["--mount", "sh", "-c", mount, "sh"]);
        launcher.args([self.directory.path("hosts"), self.directory.path("resolv.conf")]);
        launcher.arg(BINARY);
        launcher
    }
}
