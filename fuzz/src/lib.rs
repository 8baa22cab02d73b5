//! The targets of `cargo fuzz`. The corpus is replayed by `tests/simulation/corpus.rs` of Weir.

pub mod behind;
#[expect(dead_code, reason = "the simulation of Weir uses all of it")]
#[path = "../../tests/simulation/checker.rs"]
mod checker;
#[path = "../../tests/simulation/dice.rs"]
mod dice;
pub mod targets;
#[expect(dead_code, reason = "the simulation of Weir uses all of it")]
#[path = "../../tests/simulation/world.rs"]
mod world;
