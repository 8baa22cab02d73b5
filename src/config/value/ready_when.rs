//! Which pools make the balancer ready.

use super::super::problem::{Diagnostics, Problem, nearest, quote};
use super::super::read::{Bounds, FromNode, KeyContext, List};
use super::super::yaml::{Node, Value};
use super::Text;

const WORDS: [&str; 2] = ["any_pool", "all_pools"];
const EXPECTED: &str = "`any_pool`, `all_pools` or a list of pools";

/// Which pools make the balancer ready, as typed.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum ReadyWhen {
    AnyPool,
    AllPools,
    /// Each of these.
    Pools(List<Text>),
}

impl FromNode for ReadyWhen {
    fn expected(_bounds: Bounds) -> String {
        EXPECTED.to_owned()
    }

    fn from_node(node: &Node, key: KeyContext, found: &mut Diagnostics) -> Option<Self> {
        match (&node.value, node.text()) {
            (Value::List(_), _) => return List::from_node(node, key, found).map(Self::Pools),
            (_, Some("any_pool")) => return Some(Self::AnyPool),
            (_, Some("all_pools")) => return Some(Self::AllPools),
            (_, Some(typed)) if !typed.is_empty() => {
                let what = format!("{} is not {EXPECTED}", quote(typed));
                let help = nearest(typed, WORDS).map_or_else(
                    || format!("write pool names in brackets: `{}: [{typed}]`", key.name()),
                    |near| format!("did you mean `{near}`?"),
                );
                found.add(Problem::new(node.at, what).help(help));
            }
            _ => found.add(key.wrong_type(node, EXPECTED)),
        }
        None
    }

    fn to_yaml(&self) -> String {
        match self {
            Self::AnyPool => "any_pool".to_owned(),
            Self::AllPools => "all_pools".to_owned(),
            Self::Pools(pools) => pools.to_yaml(),
        }
    }
}
