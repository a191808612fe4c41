//! The objects that those tests call: ships, and what there is in a harbour.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use capnp_threads::{Cancel, Capability, Error, Exception, Result};
use crossbeam_channel::{unbounded, Receiver, Sender};

pub use crate::generated::others_capnp::*;
use crate::support::{text, Soon};

/// What is counted for all objects of a harbour, and who hears of calls that do not end.
pub struct Books {
    calls: AtomicU32,
    ropes: AtomicU32,
    waiting: Sender<Cancel>,
    /// The cancellations of calls that do not end.
    pub told: Receiver<Cancel>,
}

impl Books {
    pub fn new() -> Arc<Self> {
        let (waiting, told) = unbounded();
        Arc::new(Books { calls: AtomicU32::new(0), ropes: AtomicU32::new(0), waiting, told })
    }

    /// How many calls there were.
    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    /// How many ropes there are.
    pub fn ropes(&self) -> u32 {
        self.ropes.load(Ordering::SeqCst)
    }

    /// Counts a call. The number of those before.
    fn call(&self) -> u32 {
        self.calls.fetch_add(1, Ordering::SeqCst)
    }
}

/// A ship, which gives access to all the others.
pub struct Boat(pub Arc<Books>);

/// A ship, and the books.
pub fn boat() -> (ship::Client, Arc<Books>) {
    let books = Books::new();
    (ship::Client::new(Boat(books.clone())), books)
}

/// What a boat is hailed with.
pub fn hail(ship: &ship::Client) -> Result<String> {
    let reply = ship.hail(|mut params| {
        params.set_number(7);
        params.set_loud(true);
    });
    reply.soon().map(|reply| text(reply.get().unwrap().get_reply()))
}

/// What the boat answers then.
pub const AYE: &str = "aye aye";

impl ship::Server for Boat {
    fn hail(&self, params: ship::HailParams, mut results: ship::HailResults<'_>) -> Result<()> {
        let (sequence, params) = (self.0.call(), params.get()?);
        if let Ok(expected) = u32::try_from(params.get_call()) {
            assert_eq!(sequence, expected);
        }
        assert_eq!((params.get_number(), params.get_loud()), (7, true));
        results.get().set_reply(AYE);
        Ok(())
    }

    fn load(&self, params: ship::LoadParams, _: ship::LoadResults<'_>) -> Result<()> {
        self.0.call();
        check(params.get()?.get_cargo()?);
        Ok(())
    }

    fn pilot(&self, _: ship::PilotParams, mut results: ship::PilotResults<'_>) -> Result<()> {
        results.get().set_pilot(Capability::new(Guide(self.0.clone())));
        Ok(())
    }

    fn clerk(&self, _: ship::ClerkParams, mut results: ship::ClerkResults<'_>) -> Result<()> {
        results.get().set_clerk(Capability::new(Filing(self.0.clone())));
        Ok(())
    }

    fn agent(&self, _: ship::AgentParams, mut results: ship::AgentResults<'_>) -> Result<()> {
        results.get().set_agent(Capability::new(Broker(self.0.clone())));
        Ok(())
    }

    fn harbour(&self, _: ship::HarbourParams, mut results: ship::HarbourResults<'_>) -> Result<()> {
        let port = Port { books: self.0.clone(), moored: ship::Client::null().into() };
        results.get().set_harbour(Capability::new(port));
        Ok(())
    }
}

/// A ship that extends ships.
pub struct Tug(pub Arc<Books>);

/// Hails a tug, which wants to be hailed otherwise.
pub fn whisper(ship: &ship::Client) -> Result<String> {
    let reply = ship.hail(|mut params| params.set_number(8));
    reply.soon().map(|reply| text(reply.get().unwrap().get_reply()))
}

/// What the tug answers then.
pub const TOOT: &str = "toot";

impl ship::Server for Tug {
    fn hail(&self, params: ship::HailParams, mut results: ship::HailResults<'_>) -> Result<()> {
        self.0.call();
        let params = params.get()?;
        assert_eq!((params.get_number(), params.get_loud()), (8, false));
        results.get().set_reply(TOOT);
        Ok(())
    }
}

impl steamer::Server for Tug {
    fn whistle(&self, _: steamer::WhistleParams, _: steamer::WhistleResults<'_>) -> Result<()> {
        self.0.call();
        Ok(())
    }

    fn stow(&self, params: steamer::StowParams, _: steamer::StowResults<'_>) -> Result<()> {
        self.0.call();
        check(params.get()?);
        Ok(())
    }

    fn unload(&self, _: steamer::UnloadParams, mut results: steamer::UnloadResults<'_>) -> Result<()> {
        self.0.call();
        fill(results.get());
        Ok(())
    }
}

impl liner::Server for Tug {}

struct Guide(Arc<Books>);

impl Guide {
    fn tug<C: Capability + From<steamer::Client>>(&self) -> C {
        steamer::Client::new(Tug(self.0.clone())).into()
    }
}

impl pilot::Server for Guide {
    fn guide(&self, params: pilot::GuideParams, mut results: pilot::GuideResults<'_>) -> Result<()> {
        self.0.call();
        let params = params.get()?;
        assert_eq!(params.get_number(), 99);
        assert_eq!(hail(&params.get_ship()?)?, AYE);
        let mut results = results.get();
        results.set_note("guided");
        results.init_berth().set_ship(self.tug());
        Ok(())
    }

    fn guide_any(
        &self,
        params: pilot::GuideAnyParams,
        mut results: pilot::GuideAnyResults<'_>,
    ) -> Result<()> {
        self.0.call();
        let ship: ship::Client = params.get()?.get_ship()?.cast_to();
        assert_eq!(hail(&ship)?, AYE);
        let mut results = results.get();
        results.set_note("guided");
        results.init_berth().set_ship(self.tug::<ship::Client>());
        Ok(())
    }

    fn guide_ahead(
        &self,
        _: pilot::GuideAheadParams,
        mut results: pilot::GuideAheadResults<'_>,
    ) -> Result<()> {
        self.0.call();
        results.get().init_berth().set_ship(self.tug());
        results.set_pipeline()?;
        results.cancellation().wait()
    }

    fn point(&self, params: pilot::PointParams, _: pilot::PointResults<'_>) -> Result<()> {
        self.0.call();
        let params = params.get()?;
        assert_eq!(hail(&params.get_ship()?)?, AYE);
        assert_eq!(hail(&params.get_thing().get_as_capability()?)?, AYE);
        for ship in params.get_fleet()?.iter() {
            assert_eq!(hail(&ship?)?, AYE);
        }
        Ok(())
    }
}

/// Counts calls.
#[derive(Default)]
pub struct Turnstile(AtomicU32);

impl Turnstile {
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

impl counter::Server for Turnstile {
    fn count(&self, _: counter::CountParams, mut results: counter::CountResults<'_>) -> Result<()> {
        results.get().set_number(self.0.fetch_add(1, Ordering::SeqCst));
        Ok(())
    }
}

struct Filing(Arc<Books>);

/// A clerk of one's own.
pub fn clerk(books: &Arc<Books>) -> clerk::Client {
    clerk::Client::new(Filing(books.clone()))
}

impl clerk::Server for Filing {
    fn file(&self, params: clerk::FileParams, mut results: clerk::FileResults<'_>) -> Result<()> {
        self.0.call();
        let params = params.get()?;
        let mut results = results.get();
        results.set_number(params.get_number().unsigned_abs());
        results.set_note(params.get_note()?);
        results.set_counter(Capability::new(Turnstile::default()));
        Ok(())
    }
}

struct Broker(Arc<Books>);

impl agent::Server for Broker {
    fn file(&self, params: agent::FileParams, results: agent::FileResults<'_>) -> Result<()> {
        self.0.call();
        let params = params.get()?;
        let mut request = params.get_clerk()?.file_request();
        request.get().set_number(params.get_number());
        request.get().set_note("by the agent");
        results.tail_call(request)
    }
}

struct Port {
    books: Arc<Books>,
    moored: Mutex<ship::Client>,
}

/// Takes notice of when it is gone.
struct Line(Arc<Books>);

impl rope::Server for Line {}

impl Drop for Line {
    fn drop(&mut self) {
        self.0.ropes.fetch_sub(1, Ordering::SeqCst);
    }
}

impl counter::Server for Port {
    fn count(&self, _: counter::CountParams, mut results: counter::CountResults<'_>) -> Result<()> {
        results.get().set_number(self.books.call());
        Ok(())
    }
}

impl harbour::Server for Port {
    fn hail_from(
        &self,
        params: harbour::HailFromParams,
        mut results: harbour::HailFromResults<'_>,
    ) -> Result<()> {
        self.books.call();
        // Others are served while a ship is waited for.
        results.allow_next();
        assert_eq!(hail(&params.get()?.get_ship()?)?, AYE);
        results.get().set_note("hailed");
        Ok(())
    }

    fn hail_when_resolved(
        &self,
        params: harbour::HailWhenResolvedParams,
        mut results: harbour::HailWhenResolvedResults<'_>,
    ) -> Result<()> {
        self.books.call();
        results.allow_next();
        let ship = params.get()?.get_ship()?.resolve()?;
        assert!(!ship.is_promise());
        assert_eq!(hail(&ship)?, AYE);
        results.get().set_note("hailed");
        Ok(())
    }

    fn never_return(
        &self,
        params: harbour::NeverReturnParams,
        mut results: harbour::NeverReturnResults<'_>,
    ) -> Result<()> {
        self.books.call();
        results.allow_next();
        results.get().set_copy(params.get()?.get_ship()?);
        self.books.waiting.send(results.cancellation().clone()).expect("somebody listens");
        results.cancellation().wait()
    }

    fn moor(&self, params: harbour::MoorParams, _: harbour::MoorResults<'_>) -> Result<()> {
        self.books.call();
        *self.moored.lock().unwrap() = params.get()?.get_ship()?;
        Ok(())
    }

    fn hail_moored(
        &self,
        params: harbour::HailMooredParams,
        mut results: harbour::HailMooredResults<'_>,
    ) -> Result<()> {
        self.books.call();
        results.allow_next();
        let moored = self.moored.lock().unwrap().clone();
        let call = params.get()?.get_call();
        let reply = moored.hail(|mut params| {
            params.set_number(7);
            params.set_loud(true);
            params.set_call(call);
        });
        assert_eq!(reply.wait()?.get()?.get_reply()?, AYE);
        results.get().set_note("hailed");
        Ok(())
    }

    fn moored(&self, _: harbour::MooredParams, mut results: harbour::MooredResults<'_>) -> Result<()> {
        self.books.call();
        results.get().set_ship(self.moored.lock().unwrap().clone());
        Ok(())
    }

    fn echo(&self, params: harbour::EchoParams, mut results: harbour::EchoResults<'_>) -> Result<()> {
        self.books.call();
        results.get().set_counter(params.get()?.get_counter()?);
        Ok(())
    }

    fn until_canceled(
        &self,
        params: harbour::UntilCanceledParams,
        mut results: harbour::UntilCanceledResults<'_>,
    ) -> Result<()> {
        results.allow_next();
        let _held = params.get()?.get_ship()?;
        self.books.waiting.send(results.cancellation().clone()).expect("somebody listens");
        results.cancellation().wait()
    }

    fn with_defaults(
        &self,
        params: harbour::WithDefaultsParams,
        mut results: harbour::WithDefaultsResults<'_>,
    ) -> Result<()> {
        let params = params.get()?;
        let all =
            [params.get_a()?.to_str()?, &params.get_b().to_string(), params.get_c()?.to_str()?].join(" ");
        results.get().set_d(&*all);
        Ok(())
    }

    fn with_null_default(
        &self,
        params: harbour::WithNullDefaultParams,
        mut results: harbour::WithNullDefaultResults<'_>,
    ) -> Result<()> {
        results.get().set_given(params.get()?.has_b());
        Ok(())
    }

    fn rope(&self, _: harbour::RopeParams, mut results: harbour::RopeResults<'_>) -> Result<()> {
        self.books.ropes.fetch_add(1, Ordering::SeqCst);
        results.get().set_rope(Capability::new(Line(self.books.clone())));
        Ok(())
    }

    fn nowhere(&self, _: harbour::NowhereParams, _: harbour::NowhereResults<'_>) -> Result<()> {
        Ok(())
    }

    fn wreck(&self, _: harbour::WreckParams, _: harbour::WreckResults<'_>) -> Result<()> {
        Err(Error::failed("on the rocks"))
    }

    fn wreck_of(&self, params: harbour::WreckOfParams, _: harbour::WreckOfResults<'_>) -> Result<()> {
        // What another object's call failed with, passed on.
        params.get()?.get_ship()?.scuttle().wait()?;
        Ok(())
    }

    fn wreck_with_detail(
        &self,
        _: harbour::WreckWithDetailParams,
        _: harbour::WreckWithDetailResults<'_>,
    ) -> Result<()> {
        let wreck =
            Exception::overloaded("on the rocks").with_detail(5, *b"north").with_trace("rock by rock");
        Err(wreck.into())
    }
}

/// Fills in a bit of everything.
pub fn fill(mut cargo: cargo::Builder<'_>) {
    cargo.set_flag(true);
    cargo.set_tiny(-8);
    cargo.set_large(i64::MIN);
    cargo.set_ratio(0.125);
    cargo.set_label("top");
    cargo.set_bytes(&[0, 1, 255]);
    let mut inside = cargo.reborrow().init_inside();
    inside.set_label("inside");
    inside.init_inside().set_tiny(1);
    cargo.set_numbers(&[-1, 0, i32::MAX]).unwrap();
    let mut labels = cargo.reborrow().init_labels(2);
    labels.set(0, "one");
    labels.set(1, "");
    let mut more = cargo.init_more(2);
    more.reborrow().get(0).set_label("first");
    more.get(1).set_flag(true);
}

/// Asserts that what was filled in is there.
#[track_caller]
pub fn check(cargo: cargo::Reader<'_>) {
    assert_eq!((cargo.get_flag(), cargo.get_tiny(), cargo.get_large()), (true, -8, i64::MIN));
    assert_eq!((cargo.get_ratio(), text(cargo.get_label())), (0.125, "top".to_owned()));
    assert_eq!(cargo.get_bytes().unwrap(), [0, 1, 255]);
    let inside = cargo.get_inside().unwrap();
    assert_eq!((text(inside.get_label()), inside.get_inside().unwrap().get_tiny()), ("inside".to_owned(), 1));
    assert_eq!(cargo.get_numbers().unwrap().iter().collect::<Vec<i32>>(), [-1, 0, i32::MAX]);
    assert_eq!(cargo.get_labels().unwrap().iter().map(text).collect::<Vec<_>>(), ["one", ""]);
    let more = cargo.get_more().unwrap();
    assert_eq!((text(more.get(0).get_label()), more.get(1).get_flag()), ("first".to_owned(), true));
}
