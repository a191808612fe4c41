//! The settings that scenarios run in, and waits that end.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use capnp::capability::{DynClientHook, FromClientHook};
use capnp_threads::transport::Transport;
use capnp_threads::{Capability, Client, Limits, Promise, RemotePromise, Response, Result, Snapshot, Vat};
use crossbeam_channel::Receiver;

/// Turns a hang into a failure.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Where the object is that a scenario calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// In another vat, over TCP.
    Tcp,
    /// In another vat, over memory.
    Memory,
    /// In the same vat: there is no connection at all.
    Local,
}

impl Setting {
    /// Whether calls go over a connection.
    pub fn is_remote(self) -> bool {
        self != Setting::Local
    }

    fn transports(self) -> Option<(Transport, Transport)> {
        match self {
            Setting::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let there = listener.accept().unwrap().0;
                let limits = Limits::default();
                Some((Transport::tcp(here, &limits).unwrap(), Transport::tcp(there, &limits).unwrap()))
            }
            Setting::Memory => Some(Transport::in_memory()),
            Setting::Local => None,
        }
    }
}

/// Runs a scenario with a client of `object`, which is where the setting says. Afterwards nothing may be left in
/// the tables of either vat.
#[track_caller]
pub fn offered<C: Capability>(setting: Setting, object: C, scenario: impl FnOnce(C)) {
    let Some((here, there)) = setting.transports() else {
        return scenario(object);
    };
    let there = Vat::new().bootstrap(object).over(there).unwrap();
    let here = Vat::new().over(here).unwrap();
    scenario(here.bootstrap());
    for connection in [&here, &there] {
        let empty = connection.wait_until(Instant::now() + DEADLINE, Snapshot::is_empty);
        assert!(empty, "{}", connection.snapshot());
    }
}

/// Makes a test of each scenario in each setting.
macro_rules! in_each_setting {
    ($($scenario:ident),* $(,)?) => {
        $(
            mod $scenario {
                use crate::support::Setting;

                #[test]
                fn over_tcp() {
                    super::$scenario(Setting::Tcp);
                }

                #[test]
                fn over_memory() {
                    super::$scenario(Setting::Memory);
                }

                #[test]
                fn in_one_vat() {
                    super::$scenario(Setting::Local);
                }
            }
        )*
    };
}

/// Waiting for what will come, and failing if it does not.
pub trait Soon {
    type Output;
    #[track_caller]
    fn soon(self) -> Self::Output;
}

impl<T: Send + 'static> Soon for Promise<T> {
    type Output = Result<T>;
    fn soon(self) -> Result<T> {
        self.wait_timeout(DEADLINE).map_err(|why| why.into_failed().expect("an answer in time"))
    }
}

impl<R: 'static> Soon for RemotePromise<R> {
    type Output = Result<Response<R>>;
    fn soon(self) -> Result<Response<R>> {
        self.wait_timeout(DEADLINE).map_err(|why| why.into_failed().expect("an answer in time"))
    }
}

impl<T> Soon for &Receiver<T> {
    type Output = T;
    fn soon(self) -> T {
        self.recv_timeout(DEADLINE).unwrap_or_else(|e| panic!("nothing came: {e}"))
    }
}

/// The error, as text.
#[track_caller]
pub fn why<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(e) => e.to_string(),
    }
}

/// A client as lists and pointers of any kind take it.
pub fn hook(client: &impl AsRef<Client>) -> Box<DynClientHook> {
    client.as_ref().clone().into_hook()
}

/// A client that comes as its hook.
pub fn hooked<C: Capability>(hook: Box<DynClientHook>) -> C {
    <Client as FromClientHook>::new(hook).into()
}

/// Text as a string of its own.
#[track_caller]
pub fn text(text: capnp::Result<capnp::text::Reader<'_>>) -> String {
    text.unwrap().to_string().unwrap()
}
