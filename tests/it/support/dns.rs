//! A scripted name server, over UDP and TCP. It encodes the messages by itself, so that a fault of the
//! codec under test is not its fault too.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const A: u16 = 1;
const SOA: u16 = 6;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const NXDOMAIN: u8 = 3;
const SERVFAIL: u8 = 2;

/// An SRV record.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) priority: u16,
    pub(crate) weight: u16,
    pub(crate) port: u16,
    pub(crate) target: String,
}

/// How the server responds to all questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mood {
    #[default]
    Responds,
    /// Over UDP only: the response is cut short.
    Truncates,
    Fails,
    IsSilent,
}

#[derive(Debug, Default)]
struct Zone {
    mood: Mood,
    ttl: u32,
    addresses: HashMap<String, Vec<IpAddr>>,
    services: HashMap<String, Vec<Service>>,
}

/// A running name server.
pub(crate) struct DnsServer {
    at: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    stop: Arc<AtomicBool>,
    by_udp: Arc<AtomicU64>,
    by_tcp: Arc<AtomicU64>,
}

impl DnsServer {
    /// Starts at this address.
    pub(crate) fn start(at: SocketAddr) -> Self {
        let server = Self {
            at,
            zone: Arc::default(),
            stop: Arc::default(),
            by_udp: Arc::default(),
            by_tcp: Arc::default(),
        };
        let udp = UdpSocket::bind(at).expect("binding UDP");
        udp.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let tcp = TcpListener::bind(at).expect("binding TCP");
        let (zone, stop, count) = server.parts(&server.by_udp);
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while !stop.load(Relaxed) {
                let Ok((length, from)) = udp.recv_from(&mut buffer) else { continue };
                count.fetch_add(1, Relaxed);
                if let Some(response) = zone.lock().unwrap().respond(&buffer[..length], true) {
                    drop(udp.send_to(&response, from));
                }
            }
        });
        let (zone, stop, count) = server.parts(&server.by_tcp);
        std::thread::spawn(move || {
            while !stop.load(Relaxed) {
                let Ok((mut stream, _)) = tcp.accept() else { continue };
                count.fetch_add(1, Relaxed);
                stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
                let mut length = [0; 2];
                if stream.read_exact(&mut length).is_err() {
                    continue;
                }
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                if stream.read_exact(&mut query).is_err() {
                    continue;
                }
                if let Some(response) = zone.lock().unwrap().respond(&query, false) {
                    let length = u16::try_from(response.len()).expect("a short response");
                    drop(stream.write_all(&[&length.to_be_bytes()[..], &response].concat()));
                }
            }
        });
        server
    }

    fn parts(&self, count: &Arc<AtomicU64>) -> (Arc<Mutex<Zone>>, Arc<AtomicBool>, Arc<AtomicU64>) {
        (Arc::clone(&self.zone), Arc::clone(&self.stop), Arc::clone(count))
    }

    /// The name has these addresses from now on; without any it does not exist.
    pub(crate) fn set(&self, name: &str, addresses: &[IpAddr]) {
        self.zone.lock().unwrap().addresses.insert(format!("{name}."), addresses.to_vec());
    }

    /// The service has these records from now on.
    pub(crate) fn set_service(&self, name: &str, services: &[Service]) {
        self.zone.lock().unwrap().services.insert(format!("{name}."), services.to_vec());
    }

    /// How it responds from now on.
    pub(crate) fn be(&self, mood: Mood) {
        self.zone.lock().unwrap().mood = mood;
    }

    /// How many queries came over UDP, and over TCP.
    pub(crate) fn queries(&self) -> (u64, u64) {
        (self.by_udp.load(Relaxed), self.by_tcp.load(Relaxed))
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.at));
    }
}

impl Zone {
    fn respond(&self, query: &[u8], is_udp: bool) -> Option<Vec<u8>> {
        let (name, end) = name(query, 12);
        let question = &query[12..end + 4];
        let kind = u16::from_be_bytes([query[end], query[end + 1]]);
        let answers: Vec<Vec<u8>> = match kind {
            A | AAAA => {
                let all = self.addresses.get(&name).into_iter().flatten();
                all.filter_map(|ip| match ip {
                    IpAddr::V4(ip) if kind == A => Some(ip.octets().to_vec()),
                    IpAddr::V6(ip) if kind == AAAA => Some(ip.octets().to_vec()),
                    IpAddr::V4(_) | IpAddr::V6(_) => None,
                })
                .collect()
            }
            SRV => self.services.get(&name).into_iter().flatten().map(Service::data).collect(),
            _ => Vec::new(),
        };
        let exists = self.addresses.get(&name).is_some_and(|all| !all.is_empty())
            || self.services.get(&name).is_some_and(|all| !all.is_empty());
        let (code, answers, truncated) = match self.mood {
            Mood::IsSilent => return None,
            Mood::Fails => (SERVFAIL, Vec::new(), 0),
            // A part of the answer, as real servers do.
            Mood::Truncates if is_udp => (0, answers[..answers.len().min(1)].to_vec(), 2),
            Mood::Truncates | Mood::Responds => (if exists { 0 } else { NXDOMAIN }, answers, 0),
        };
        let mut response = query[..2].to_vec();
        response.extend([0x81 | truncated, 0x80 | code, 0, 1]);
        response.extend(u16::try_from(answers.len()).unwrap().to_be_bytes());
        response.extend(u16::from(answers.is_empty() && code != SERVFAIL).to_be_bytes());
        response.extend([0, 0]);
        response.extend(question);
        let record = |kind: u16, data: &[u8]| {
            let mut record = vec![0xc0, 12];
            record.extend(kind.to_be_bytes());
            record.extend([0, 1]);
            record.extend(self.ttl.to_be_bytes());
            record.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            record.extend(data);
            record
        };
        answers.iter().for_each(|data| response.extend(record(kind, data)));
        if answers.is_empty() && code != SERVFAIL {
            response.extend(record(SOA, &[[0].as_slice(), &[0], &[0; 20]].concat()));
        }
        Some(response)
    }
}

impl Service {
    fn data(&self) -> Vec<u8> {
        let numbers = [self.priority, self.weight, self.port];
        let mut data: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        for label in self.target.split('.') {
            data.push(u8::try_from(label.len()).unwrap());
            data.extend(label.as_bytes());
        }
        data.push(0);
        data
    }
}

/// The name that begins at `at`, and where it ends.
fn name(message: &[u8], mut at: usize) -> (String, usize) {
    let mut name = String::new();
    while message[at] != 0 {
        let length = usize::from(message[at]);
        name.push_str(&String::from_utf8_lossy(&message[at + 1..=at + length]).to_lowercase());
        name.push('.');
        at += length + 1;
    }
    (name, at + 1)
}
