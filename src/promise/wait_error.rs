//! How a wait with an end of its own can fail.

use std::error::Error as StdError;
use std::fmt;

use crate::error::{Error, Exception};

/// Why a promise has not given its value: the result of [`wait_timeout`](super::Promise::wait_timeout),
/// [`wait_until`](super::Promise::wait_until) and [`try_take`](super::Promise::try_take).
///
/// `P` is the promise. Where it is not needed any more, `?` turns this into an [`Error`]: one of kind `overloaded` for which
/// [`is_timeout`](Error::is_timeout) says true, and the promise is dropped, which cancels the call.
///
/// ```
/// # use std::time::Duration;
/// # use capnp_threads::{Capability, Client, Result, WaitError};
/// # fn main() -> Result<()> {
/// let (client, _fulfiller) = Client::promise();
/// let promise = client.request(1, 2).send();
/// let promise = match promise.wait_timeout(Duration::ZERO) {
///     Ok(_) => unreachable!("the object is not known"),
///     Err(WaitError::Failed(why)) => return Err(why),
///     Err(WaitError::Pending(promise)) => promise,
/// };
/// # let mut wait = || -> Result<()> {
/// # let (client, _fulfiller) = Client::promise();
/// # let promise = client.request(1, 2).send();
/// promise.wait_timeout(Duration::ZERO)?;
/// # Ok(())
/// # };
/// # assert!(wait().unwrap_err().is_timeout());
/// # drop(promise);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub enum WaitError<P> {
    /// The value has not come by then, and may still: the promise.
    Pending(P),
    /// No value will come, or this thread may not wait for it: as [`wait`](super::Promise::wait) fails.
    Failed(Error),
}

impl<P> WaitError<P> {
    /// The same with another promise, which `f` makes of the one that is pending.
    pub(crate) fn map_pending<Q>(self, f: impl FnOnce(P) -> Q) -> WaitError<Q> {
        match self {
            WaitError::Pending(promise) => WaitError::Pending(f(promise)),
            WaitError::Failed(why) => WaitError::Failed(why),
        }
    }

    /// The promise, if it is pending.
    pub fn into_pending(self) -> Option<P> {
        match self {
            WaitError::Pending(promise) => Some(promise),
            WaitError::Failed(_) => None,
        }
    }

    /// Why no value will come, if so.
    pub fn into_failed(self) -> Option<Error> {
        match self {
            WaitError::Pending(_) => None,
            WaitError::Failed(why) => Some(why),
        }
    }
}

fn pending() -> Exception {
    Exception::timed_out("the answer has not come in the time of the wait")
}

impl<P> From<WaitError<P>> for Error {
    fn from(e: WaitError<P>) -> Self {
        e.into_failed().unwrap_or_else(|| pending().into())
    }
}

impl<P> From<WaitError<P>> for Exception {
    fn from(e: WaitError<P>) -> Self {
        Error::from(e).into()
    }
}

impl<P> fmt::Display for WaitError<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitError::Pending(_) => pending().fmt(f),
            WaitError::Failed(why) => why.fmt(f),
        }
    }
}

impl<P: fmt::Debug> StdError for WaitError<P> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            WaitError::Pending(_) => None,
            WaitError::Failed(why) => why.source(),
        }
    }
}
