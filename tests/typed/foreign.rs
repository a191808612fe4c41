//! Capabilities of other implementations, put into our messages through the `capnp` crate's own setters.

use capnp::any_pointer;
use capnp::capability::{self, DynClientHook, Promise, Request};
use capnp::private::capability::{ClientHook, ParamsHook, ResultsHook};
use capnp::MessageSize;
use capnp_threads::{Capability, Client, ExceptionKind, Result};

use crate::generated::places_capnp::{depot, holder, item};
use crate::support::{hook, hooked, offered, why, Setting, Soon};

in_each_setting!(
    params_with_a_foreign_capability_are_not_sent,
    results_with_a_foreign_capability_are_an_error,
    a_foreign_capability_becomes_a_broken_client,
);

/// A hook that is not ours, though it holds one of ours, lies where that lies, and answers what that answers.
struct Foreign<H>(H);

/// What a foreign hook holds.
trait Held: 'static {
    fn hook(&self) -> &DynClientHook;
    fn copy(&self) -> Self;
}

impl Held for Client {
    fn hook(&self) -> &DynClientHook {
        self
    }

    fn copy(&self) -> Self {
        self.clone()
    }
}

impl Held for Box<DynClientHook> {
    fn hook(&self) -> &DynClientHook {
        &**self
    }

    fn copy(&self) -> Self {
        self.add_ref()
    }
}

impl<H: Held> ClientHook for Foreign<H> {
    fn add_ref(&self) -> Box<dyn ClientHook> {
        Box::new(Foreign(self.0.copy()))
    }

    fn new_call(
        &self,
        interface: u64,
        method: u16,
        size: Option<MessageSize>,
    ) -> Request<any_pointer::Owned, any_pointer::Owned> {
        self.0.hook().new_call(interface, method, size)
    }

    fn call(
        &self,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> Promise<(), capnp::Error> {
        self.0.hook().call(interface, method, params, results)
    }

    fn get_brand(&self) -> usize {
        self.0.hook().get_brand()
    }

    fn get_ptr(&self) -> usize {
        self.0.hook().get_ptr()
    }

    fn get_resolved(&self) -> Option<Box<dyn ClientHook>> {
        None
    }

    fn when_more_resolved(&self) -> Option<Promise<Box<dyn ClientHook>, capnp::Error>> {
        None
    }

    fn when_resolved(&self) -> Promise<(), capnp::Error> {
        Promise::ok(())
    }
}

fn foreign() -> Box<DynClientHook> {
    Box::new(Foreign(Client::from(item::Client::new(Named))))
}

/// One more around it.
fn twice_foreign() -> Box<DynClientHook> {
    Box::new(Foreign(foreign()))
}

/// Around one of ours in a box of its own.
fn boxed() -> Box<DynClientHook> {
    Box::new(Foreign(hook(&item::Client::new(Named))))
}

struct Named;

impl item::Server for Named {
    fn label(&self, _: item::LabelParams, mut results: item::LabelResults<'_>) -> Result<()> {
        results.get().set_label("ours");
        Ok(())
    }
}

/// Answers with foreign capabilities, but for single items, which it gives back.
struct Smuggler;

impl depot::Server for Smuggler {
    fn item(&self, params: depot::ItemParams, mut results: depot::ItemResults<'_>) -> Result<()> {
        results.get().set_item(params.get()?.get_item()?);
        Ok(())
    }

    fn items(&self, _: depot::ItemsParams, mut results: depot::ItemsResults<'_>) -> Result<()> {
        let mut items = results.get().init_items(2);
        items.set(0, hook(&item::Client::new(Named)));
        items.set(1, foreign());
        Ok(())
    }

    fn list(&self, _: depot::ListParams, results: depot::ListResults<'_>) -> Result<()> {
        let deferred = results.defer()?;
        deferred.answer(|results| {
            let list = results.init_list();
            list.initn_as::<capnp::capability_list::Builder<'_, item::Client>>(1).set(0, foreign());
            Ok(())
        });
        Ok(())
    }

    fn pointer(&self, _: depot::PointerParams, mut results: depot::PointerResults<'_>) -> Result<()> {
        results.get().init_pointer().set_as_capability(foreign());
        let refused = why(results.set_pipeline());
        assert!(refused.contains("another Cap'n Proto implementation"), "{refused}");
        Ok(())
    }
}

#[track_caller]
fn assert_refused<T>(outcome: Result<T>) {
    let Err(error) = outcome else { panic!("it was not refused") };
    assert_eq!(error.kind(), ExceptionKind::Failed);
    assert!(error.to_string().contains("another Cap'n Proto implementation"), "{error}");
}

#[track_caller]
fn assert_at_work(depot: &depot::Client) {
    let given = depot.item(|mut params| params.set_item(item::Client::new(Named))).soon().unwrap();
    let item = given.get().unwrap().get_item().unwrap();
    assert_eq!(item.label().soon().unwrap().get().unwrap().get_label().unwrap(), "ours");
}

fn params_with_a_foreign_capability_are_not_sent(setting: Setting) {
    offered(setting, depot::Client::new(Smuggler), |depot| {
        assert_refused(depot.items(|params| params.init_items(1).set(0, foreign())).soon());
        for hook in [foreign(), twice_foreign(), boxed()] {
            assert_refused(depot.pointer(|params| params.init_pointer().set_as_capability(hook)).soon());
        }
        let given = depot.struct_(|params| {
            let list = params.init_struct().init_as::<holder::Builder<'_>>().init_inner();
            list.init_inner().set_item(item::Client::new(Named));
        });
        assert_eq!(given.soon().unwrap_err().kind(), ExceptionKind::Unimplemented);
        assert_at_work(&depot);
    });
}

fn results_with_a_foreign_capability_are_an_error(setting: Setting) {
    offered(setting, depot::Client::new(Smuggler), |depot| {
        assert_refused(depot.items(|_| ()).soon());
        assert_refused(depot.list(|_| ()).soon());
        assert_refused(depot.pointer(|_| ()).soon());
        // What is called ahead on such results fails too.
        let ahead: item::Client = hooked(depot.pointer(|_| ()).pipeline.get().get_pointer().as_cap());
        assert_refused(ahead.label().soon());
        assert_at_work(&depot);
    });
}

fn a_foreign_capability_becomes_a_broken_client(setting: Setting) {
    offered(setting, depot::Client::new(Smuggler), |depot| {
        let broken: item::Client = capability::FromClientHook::new(foreign());
        assert!(broken.broken_reason().is_some());
        assert_refused(broken.label().soon());
        for hook in [twice_foreign(), boxed()] {
            assert_refused(hooked::<item::Client>(hook).label().soon());
        }
        // As such it travels.
        let given = depot.item(|mut params| params.set_item(broken)).soon().unwrap();
        assert_refused(given.get().unwrap().get_item().unwrap().label().soon());
        // One of ours that went through the hook is ours.
        let mine = item::Client::new(Named);
        let back: item::Client = capability::FromClientHook::new(hook(&mine));
        assert_eq!(back, mine);
        assert!(back.wait_local_server::<Named>().unwrap().is_some());
        assert_at_work(&depot);
    });
}
