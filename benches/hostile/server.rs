//! The server that is attacked: each connection gets an object that does what the attacks need of real programs.

use std::io;
use std::sync::Mutex;

use capnp_threads::{Call, Capability, Client, ClientFulfiller, Exception, Pool, Result, Server, Vat};

use crate::generated::bench_capnp::bench;
use crate::generated::bench_capnp::bench::callback_params as fields;

/// The interface of all objects here. Params and results of all methods are a struct of a capability (`target`) and of
/// data, either of which may be missing.
pub(crate) const INTERFACE: u64 = 0x0d15_ea5e_0d15_ea5e;

/// The methods.
#[derive(Clone, Copy)]
pub(crate) enum Method {
    /// Returns the data.
    Echo,
    /// Returns a new object, and as many bytes of data as the data says: a number of four bytes, little-endian.
    Make,
    /// Returns when it is canceled. Its thread waits.
    Block,
    /// Returns when it is canceled. No thread waits, and the params are not kept.
    Hang,
    /// Calls `Echo` of the capability with the data, and returns when that has.
    CallBack,
    /// Keeps the capability until the connection ends.
    Keep,
    /// Returns a promise for a capability.
    Promise,
    /// Fulfils all promises that were returned.
    Fulfil,
    /// Returns the capability.
    Identity,
    /// Returns an object like this one, whose methods run on the connection's threads.
    InPlace,
    /// Returns an object like this one, the same one to everybody.
    Shared,
    /// Fails, with the data as the reason.
    Fail,
}

const METHODS: [Method; 12] = [
    Method::Echo,
    Method::Make,
    Method::Block,
    Method::Hang,
    Method::CallBack,
    Method::Keep,
    Method::Promise,
    Method::Fulfil,
    Method::Identity,
    Method::InPlace,
    Method::Shared,
    Method::Fail,
];

/// An object that does anything for anybody.
struct Victim {
    shared: Option<Client>,
    kept: Mutex<Vec<bench::Client>>,
    promised: Mutex<Vec<ClientFulfiller<bench::Client>>>,
}

impl Victim {
    fn new(shared: Option<Client>) -> Self {
        Victim { shared, kept: Mutex::default(), promised: Mutex::default() }
    }
}

/// Serves until the standard input ends.
pub(crate) fn serve() -> crate::Result<()> {
    let shared = Client::new(Victim::new(None));
    let vat = Vat::new().bootstrap_with(move |_| Ok(Client::new(Victim::new(Some(shared.clone())))));
    let listener = vat.listen("127.0.0.1:0")?;
    println!("{}", listener.local_addr());
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

impl Server for Victim {
    fn dispatch(&self, call: &mut Call) -> Result<()> {
        let params = call.params().clone();
        let params: fields::Reader<'_> = params.get_as()?;
        let method = METHODS.get(usize::from(call.method_id()));
        match method.ok_or_else(|| Exception::unimplemented("no such method"))? {
            Method::Echo => call.init_results::<fields::Builder<'_>>().set_data(params.get_data()?),
            Method::Make => {
                let size = params.get_data()?.first_chunk().map_or(0, |size| u32::from_le_bytes(*size));
                let mut results: fields::Builder<'_> = call.init_results();
                results.set_target(Client::new(Victim::new(None)).into());
                // Memory that was never written to takes no room.
                results.init_data(size).fill(1);
            }
            Method::Block => return call.cancellation().wait(),
            Method::Hang => {
                let deferred = call.defer()?;
                let cancellation = deferred.cancellation().clone();
                cancellation.on_cancel(move || deferred.fail(Exception::failed("canceled")));
            }
            Method::CallBack => {
                let target: Client = params.get_target()?.into();
                let mut request = target.request(INTERFACE, Method::Echo as u16);
                request.get().init_as::<fields::Builder<'_>>().set_data(params.get_data()?);
                let echoed = request.send();
                let deferred = call.defer()?;
                echoed.on_ready(|response| deferred.answer(|_| response.map(drop)));
            }
            Method::Keep => self.kept.lock().expect("nothing panics").push(params.get_target()?),
            Method::Promise => {
                let (promise, fulfiller) = capnp_threads::Capability::promise();
                call.init_results::<fields::Builder<'_>>().set_target(promise);
                self.promised.lock().expect("nothing panics").push(fulfiller);
            }
            Method::Fulfil => {
                let promised = std::mem::take(&mut *self.promised.lock().expect("nothing panics"));
                promised.into_iter().for_each(|one| one.fulfill(Client::new(Victim::new(None)).into()));
            }
            Method::Identity => call.init_results::<fields::Builder<'_>>().set_target(params.get_target()?),
            Method::InPlace => {
                let object = Client::with_pool(Victim::new(None), Pool::in_place());
                call.init_results::<fields::Builder<'_>>().set_target(object.into());
            }
            Method::Shared => {
                let shared = self.shared.clone().ok_or_else(|| Exception::failed("it is shared"))?;
                call.init_results::<fields::Builder<'_>>().set_target(shared.into());
            }
            Method::Fail => return Err(Exception::failed(String::from_utf8_lossy(params.get_data()?)).into()),
        }
        Ok(())
    }
}
