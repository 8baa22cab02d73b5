//! DNS queries and responses as bytes. The encoding is that of the crate `domain`.

use std::net::IpAddr;
use std::time::Duration;

use domain::base::iana::{Class, Rcode};
use domain::base::message::Message;
use domain::base::message_builder::MessageBuilder;
use domain::base::name::{Name, ToName as _};
use domain::base::{Rtype, Ttl};
use domain::rdata::{A, Aaaa, Srv};

/// The TTL of a response without any record.
const NO_TTL: Duration = Duration::ZERO;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum RecordType {
    A,
    Aaaa,
    Srv,
}

impl RecordType {
    const fn rtype(self) -> Rtype {
        match self {
            Self::A => Rtype::A,
            Self::Aaaa => Rtype::AAAA,
            Self::Srv => Rtype::SRV,
        }
    }
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RecordValue {
    Address(IpAddr),
    Server { priority: u16, weight: u16, port: u16, target: String },
}

/// A response that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DnsResponse {
    /// These records, valid for this long.
    Records(Vec<RecordValue>, Duration),
    /// The name does not exist, or has no such record.
    Empty,
    /// It was truncated: ask again over TCP.
    Truncated,
    /// The server failed or refused; its code.
    Failed(String),
}

/// A query.
pub(super) struct Query {
    message: Message<Vec<u8>>,
    of: RecordType,
}

impl Query {
    /// `None` if DNS cannot have this name. `id` is random.
    pub(super) fn new(name: &str, of: RecordType, id: u16) -> Option<Self> {
        let name: Name<Vec<u8>> = name.parse().ok()?;
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(id);
        builder.header_mut().set_rd(true);
        let mut builder = builder.question();
        builder.push((name, of.rtype(), Class::IN)).ok()?;
        Some(Self { message: builder.into_message(), of })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.message.as_slice()
    }

    /// The same with its length in front, for TCP.
    pub(super) fn framed(&self) -> Vec<u8> {
        let length = u16::try_from(self.bytes().len()).unwrap_or(u16::MAX);
        [&length.to_be_bytes(), self.bytes()].concat()
    }

    /// Reads a response; `None` if it does not belong to this query.
    pub(super) fn read(&self, bytes: &[u8]) -> Option<DnsResponse> {
        let message = Message::from_slice(bytes).ok()?;
        if !message.is_answer(&self.message) {
            return None;
        }
        if message.header().tc() {
            return Some(DnsResponse::Truncated);
        }
        Some(match message.header().rcode() {
            Rcode::NOERROR => self.records(message),
            Rcode::NXDOMAIN => DnsResponse::Empty,
            other => DnsResponse::Failed(other.to_string()),
        })
    }

    fn records(&self, message: &Message<[u8]>) -> DnsResponse {
        let broken = || DnsResponse::Failed("the response cannot be read".to_owned());
        let Some((name, section)) = message.canonical_name().zip(message.answer().ok()) else {
            return broken();
        };
        let mut ttl: Option<Ttl> = None;
        let mut records = Vec::new();
        for record in section {
            let Ok(record) = record else { return broken() };
            let is_own = record.owner().name_eq(&name);
            let value = match self.of {
                RecordType::A => record
                    .to_record::<A>()
                    .map(|it| it.map(|it| RecordValue::Address(it.data().addr().into()))),
                RecordType::Aaaa => record
                    .to_record::<Aaaa>()
                    .map(|it| it.map(|it| RecordValue::Address(it.data().addr().into()))),
                RecordType::Srv => record.to_record::<Srv<_>>().map(|it| {
                    it.map(|it| RecordValue::Server {
                        priority: it.data().priority(),
                        weight: it.data().weight(),
                        port: it.data().port(),
                        target: it.data().target().to_string(),
                    })
                }),
            };
            let Ok(value) = value else { return broken() };
            let is_alias = record.rtype() == Rtype::CNAME;
            if let Some(value) = value.filter(|_| is_own) {
                records.push(value);
            } else if !is_alias {
                continue;
            }
            ttl = Some(ttl.map_or(record.ttl(), |ttl| ttl.min(record.ttl())));
        }
        if records.is_empty() {
            return DnsResponse::Empty;
        }
        DnsResponse::Records(
            records,
            ttl.map_or(NO_TTL, |ttl| Duration::from_secs(ttl.as_secs().into())),
        )
    }
}

#[cfg(test)]
mod tests {
    use domain::base::message_builder::AnswerBuilder;

    use super::*;

    fn name(text: &str) -> Name<Vec<u8>> {
        text.parse().unwrap()
    }

    /// A response to `query` with this code, and what `fill` adds.
    fn response(
        query: &Query,
        rcode: Rcode,
        fill: impl FnOnce(&mut AnswerBuilder<Vec<u8>>),
    ) -> Vec<u8> {
        let mut answer = MessageBuilder::new_vec().start_answer(&query.message, rcode).unwrap();
        fill(&mut answer);
        answer.finish()
    }

    fn query() -> Query {
        Query::new("web.test.", RecordType::A, 7).unwrap()
    }

    #[test]
    fn the_addresses_behind_an_alias_are_read_with_the_smallest_ttl() {
        let query = query();
        let bytes = response(&query, Rcode::NOERROR, |answer| {
            let alias = domain::rdata::Cname::new(name("real.test."));
            answer.push((name("web.test."), 5, alias)).unwrap();
            answer.push((name("real.test."), 60, A::from_octets(10, 0, 0, 1))).unwrap();
            answer.push((name("other.test."), 1, A::from_octets(10, 0, 0, 9))).unwrap();
        });
        let address = RecordValue::Address([10, 0, 0, 1].into());
        let expected = DnsResponse::Records(vec![address], Duration::from_secs(5));
        assert_eq!(query.read(&bytes), Some(expected));
    }

    #[test]
    fn a_name_without_records_is_empty_and_a_failure_is_none() {
        let query = query();
        let read = |rcode| query.read(&response(&query, rcode, |_| {}));
        assert_eq!(read(Rcode::NOERROR), Some(DnsResponse::Empty));
        assert_eq!(read(Rcode::NXDOMAIN), Some(DnsResponse::Empty));
        assert_eq!(read(Rcode::SERVFAIL), Some(DnsResponse::Failed("SERVFAIL".to_owned())));
        assert_eq!(read(Rcode::REFUSED), Some(DnsResponse::Failed("REFUSED".to_owned())));
    }

    #[test]
    fn a_response_to_another_query_is_ignored() {
        let query = query();
        for other in [
            Query::new("web.test.", RecordType::A, 8),
            Query::new("api.test.", RecordType::A, 7),
            Query::new("web.test.", RecordType::Aaaa, 7),
        ] {
            assert_eq!(query.read(&response(&other.unwrap(), Rcode::NOERROR, |_| {})), None);
        }
        assert_eq!(query.read(query.bytes()), None, "a query is no response");
    }

    #[test]
    fn a_truncated_response_is_not_used() {
        let query = query();
        let bytes = response(&query, Rcode::NOERROR, |answer| {
            answer.header_mut().set_tc(true);
            answer.push((name("web.test."), 5, A::from_octets(10, 0, 0, 1))).unwrap();
        });
        assert_eq!(query.read(&bytes), Some(DnsResponse::Truncated));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_it(
            noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600),
            cut in 0_usize..200,
        ) {
            let query = query();
            query.read(&noise);
            let mut bytes = response(&query, Rcode::NOERROR, |answer| {
                answer.push((name("web.test."), 5, A::from_octets(10, 0, 0, 1))).unwrap();
            });
            bytes.truncate(cut.max(12));
            bytes.extend(&noise);
            query.read(&bytes);
        }
    }
}
