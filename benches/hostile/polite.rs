//! A polite connection: one small call at a time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use capnp_threads::{Client, Connection, Vat, WaitError};

use crate::generated::bench_capnp::bench::callback_params as fields;
use crate::server::{Method, INTERFACE};
use crate::Result;

/// How long it does nothing between two calls.
const PAUSE: Duration = Duration::from_millis(1);
/// A call that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Polite {
    object: Client,
    /// Keeps the connection open.
    _connection: Connection,
}

/// What its calls took, in microseconds.
pub(crate) struct Felt {
    pub(crate) median: f64,
    pub(crate) p99: f64,
}

/// It makes calls until it is stopped.
pub(crate) struct Measured {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Duration>>>,
}

impl Polite {
    pub(crate) fn new(address: SocketAddr) -> Result<Self> {
        let connection = Vat::new().connect(address)?;
        Ok(Polite { object: connection.bootstrap(), _connection: connection })
    }

    /// One that calls the object that all connections share.
    pub(crate) fn of_shared(address: SocketAddr) -> Result<Self> {
        let Polite { object, _connection } = Self::new(address)?;
        Ok(Polite { object: Self::shared_of(&object)?, _connection })
    }

    /// The object that all connections share.
    pub(crate) fn shared_of(object: &Client) -> Result<Client> {
        let mut request = object.request(INTERFACE, Method::Shared as u16);
        request.get().init_as::<fields::Builder<'_>>();
        let response = request.send().wait()?;
        Ok(response.get_as::<fields::Reader<'_>>()?.get_target()?.into())
    }

    /// Makes calls, so that what they need once is there.
    pub(crate) fn warm_up(&self) -> Result<()> {
        (0..200).try_for_each(|_| call(&self.object).map(drop))
    }

    pub(crate) fn start(&self) -> Measured {
        let (object, over) = (self.object.clone(), Arc::new(AtomicBool::new(false)));
        let until = over.clone();
        let thread = std::thread::spawn(move || {
            let mut times = Vec::new();
            while !until.load(Ordering::Relaxed) {
                times.push(call(&object)?);
                std::thread::sleep(PAUSE);
            }
            Ok(times)
        });
        Measured { over, thread }
    }
}

impl Measured {
    pub(crate) fn stop(self) -> Result<Felt> {
        self.over.store(true, Ordering::Relaxed);
        let mut times = self.thread.join().map_err(|_| "the polite connection panicked")??;
        times.sort_unstable();
        let at = |share: f64| {
            let at = (times.len() as f64 * share) as usize;
            times.get(at.min(times.len().saturating_sub(1))).map_or(f64::NAN, |t| t.as_secs_f64() * 1e6)
        };
        Ok(Felt { median: at(0.5), p99: at(0.99) })
    }
}

/// Calls once; how long that took.
fn call(object: &Client) -> Result<Duration> {
    let begun = Instant::now();
    let mut request = object.request(INTERFACE, Method::Echo as u16);
    request.get().init_as::<fields::Builder<'_>>().set_data(&[0; 16]);
    match request.send().wait_timeout(PATIENCE) {
        Ok(_) => {}
        Err(WaitError::Failed(why)) => return Err(why.into()),
        Err(WaitError::Pending(_)) => {
            return Err(format!("a polite call was not answered within {PATIENCE:?}").into())
        }
    }
    Ok(begun.elapsed())
}
