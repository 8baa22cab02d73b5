//! One decision a file: its parameters, its state, and no knowledge of the others.
//!
//! Nothing here opens a socket, asks a clock or rolls dice: `now` and `roll` are arguments. So
//! every decision can be tested without sleeping, replayed from a seed and model-checked, and
//! the simulation runs the code that ships.

pub mod backoff;
pub mod bucket;
pub mod debits;
pub mod hysteresis;
pub mod limiter;
pub mod log_throttle;
pub mod pace;
pub mod retry;
pub mod select;
pub mod unread;
pub mod watchdog;
