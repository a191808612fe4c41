//! Promises that a thread can wait for, and the cancellation of the work behind them.

mod blocking;
pub(crate) mod cancel;
mod cell;
mod reading;
mod wait_error;

pub(crate) use blocking::{
    count_sleep, enter_blocking, enter_wait, slept, with_blocking, Blocking, Observer, Sleeper,
};
pub use cancel::Cancel;
pub(crate) use cancel::{Cancelable, Token};
pub use cell::Promise;
pub(crate) use cell::{promise, Attachment, Cell, Fulfiller, HoldsCell};
pub(crate) use reading::{Interest, InterestCounted, Interrupt, Reading, Waiter};
pub use wait_error::WaitError;
