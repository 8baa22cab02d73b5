//! Independent decisions, one per file, each with its parameters and its state.
//!
//! Nothing here opens a socket, reads a clock or generates random numbers: `now` and `roll` are
//! arguments. So every decision can be tested without sleeping, replayed from a seed and
//! model-checked, and the simulation runs the code that ships.

pub mod backoff;
pub mod breaker;
pub mod bucket;
pub mod debits;
pub mod frame_budget;
pub mod hysteresis;
pub mod latency;
pub mod limiter;
pub mod log_throttle;
pub mod operator;
pub mod penalty;
pub mod refresh;
pub mod retry;
pub mod retry_budget;
pub mod select;
pub mod slow_start;
pub mod transfer_rate;
pub mod unread;
pub mod wait_queue;
pub mod watchdog;
