//! Types of other files and other crates: ours, and one whose code the stock generator made.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Mutex;

use capnp::schema_capnp::{node, ElementSize};
use capnp::text::Owned as Text;
use capnp_threads::{Capability, Error, Exception, Result, Stream};
use imported::postal_capnp::{bag, office, parcel, store, Stamp};

use crate::generated::abroad_capnp::{courier, depot, parcel_depot, van};
use crate::generated::elsewhere::annotated_capnp::friendly;
use crate::generated::generics_capnp::cell;
use crate::generated::inherit_capnp::{living, named};
use crate::support::{offered, text, Setting, Soon};

in_each_setting!(
    an_interface_of_another_crate_is_extended,
    an_interface_of_another_file_is_extended,
    structs_of_another_crate_are_params_and_results,
    types_of_another_file_are_results,
    annotated_types_are_imported,
    data_of_a_stock_crate_is_params_and_results,
    generic_structs_of_another_crate_have_other_brands,
    generic_interfaces_of_another_crate_are_extended,
    an_interface_of_another_crate_is_served,
);

#[derive(Default)]
struct Runner {
    flooded: AtomicU32,
}

impl office::Server for Runner {
    fn send(&self, params: office::SendParams, mut results: office::SendResults<'_>) -> Result<()> {
        let heavy = params.get()?.get_parcel()?.get_weight() > 5;
        let stamp = if heavy { Stamp::Red } else { Stamp::Blue };
        results.get().set_receipt(Capability::new(Receipt(stamp)));
        Ok(())
    }

    fn flood(&self, params: office::FloodParams, _: office::FloodResults<'_>) -> Result<()> {
        self.flooded.fetch_add(params.get()?.get_parcel()?.get_weight(), Ordering::SeqCst);
        Ok(())
    }
}

struct Receipt(Stamp);

impl office::receipt::Server for Receipt {
    fn stamp(
        &self,
        _: office::receipt::StampParams,
        mut results: office::receipt::StampResults<'_>,
    ) -> Result<()> {
        results.get().set_stamp(self.0);
        Ok(())
    }
}

impl living::Server for Runner {}

impl named::Server for Runner {
    fn name(&self, _: named::NameParams, mut results: named::NameResults<'_>) -> Result<()> {
        results.get().set_name("runner");
        Ok(())
    }
}

impl courier::Server for Runner {
    fn carry(&self, params: courier::CarryParams, mut results: courier::CarryResults<'_>) -> Result<()> {
        let params = params.get()?;
        let mut results = results.get();
        results.set_parcel(params.get_parcel()?)?;
        results.get_parcel()?.set_sender(params.get_to()?);
        Ok(())
    }

    fn pond(&self, _: courier::PondParams, mut results: courier::PondResults<'_>) -> Result<()> {
        let mut results = results.get();
        results.set_pond(Capability::null());
        results.set_duck(Capability::broken(Exception::failed("no duck")));
        Ok(())
    }

    fn pretty(&self, params: courier::PrettyParams, mut results: courier::PrettyResults<'_>) -> Result<()> {
        let params = params.get()?;
        let mut results = results.get();
        results.set_surly(params.get_plain()?);
        results.set_ugly(params)?;
        Ok(())
    }

    fn describe(
        &self,
        params: courier::DescribeParams,
        mut results: courier::DescribeResults<'_>,
    ) -> Result<()> {
        let node = params.get()?.get_node()?;
        let mut results = results.get();
        if let node::Struct(described) = node.which()? {
            results.set_kind(described.get_preferred_list_encoding()?);
        }
        results.set_node(node)?;
        Ok(())
    }

    fn bag(&self, params: courier::BagParams, mut results: courier::BagResults<'_>) -> Result<()> {
        let params = params.get()?;
        let mut results = results.get();
        results.reborrow().init_content().set_to(params.get_content()?);
        results.set_office(params.get_office()?);
        Ok(())
    }
}

fn runner() -> courier::Client {
    courier::Client::new(Runner::default())
}

fn an_interface_of_another_crate_is_extended(setting: Setting) {
    let object = runner();
    let server = object.wait_local_server::<Runner>().unwrap().unwrap();
    offered(setting, object, |courier| {
        let office = office::Client::from(courier.clone());
        for (weight, stamp) in [(5, Stamp::Blue), (6, Stamp::Red)] {
            let sent = office.send(|params| params.init_parcel().set_weight(weight));
            let stamped = sent.pipeline.get().get_receipt().stamp().soon().unwrap();
            assert_eq!(stamped.get().unwrap().get_stamp().unwrap(), stamp);
        }
        let stream = Stream::new();
        for _ in 0..3 {
            // A parcel weighs 5 if nothing else is said.
            office.flood(&stream, |_| ()).unwrap();
        }
        stream.finish().unwrap();
        assert_eq!(server.flooded.load(Ordering::SeqCst), 15);
        assert_eq!(office, courier.into());
    });
}

fn an_interface_of_another_file_is_extended(setting: Setting) {
    offered(setting, runner(), |courier| {
        let named = named::Client::from(courier.clone());
        assert_eq!(text(named.name().soon().unwrap().get().unwrap().get_name()), "runner");
        assert!(living::Client::from(courier.clone()).age().soon().is_err());
        assert_eq!(living::Client::from(named), living::Client::from(courier));
    });
}

fn structs_of_another_crate_are_params_and_results(setting: Setting) {
    offered(setting, runner(), |courier| {
        let mine = office::Client::new(Runner::default());
        let carried = courier.carry(|mut params| {
            params.reborrow().init_parcel().set_to("you");
            params.set_to(mine.clone());
        });
        let ahead = carried.pipeline.get().get_parcel().get_sender();
        let carried = carried.soon().unwrap();
        let parcel: parcel::Reader<'_> = carried.get().unwrap().get_parcel().unwrap();
        assert_eq!((text(parcel.get_to()), parcel.get_weight()), ("you".into(), 5));
        assert_eq!(parcel.get_sender().unwrap().resolve().unwrap(), mine);
        assert_eq!(ahead.resolve().unwrap(), mine);
        let mut message = capnp::message::Builder::new_default();
        let van: van::Builder<'_> = message.init_root();
        assert_eq!(van.get_stamp().unwrap(), Stamp::Blue);
    });
}

fn types_of_another_file_are_results(setting: Setting) {
    offered(setting, runner(), |courier| {
        let pond = courier.pond().soon().unwrap();
        let pond = pond.get().unwrap();
        assert!(pond.get_pond().unwrap().is_null());
        let quacked = pond.get_duck().unwrap().quack(|_| ()).soon().unwrap_err();
        assert!(quacked.to_string().contains("no duck"), "{quacked}");
    });
}

fn annotated_types_are_imported(setting: Setting) {
    struct Surly;
    impl friendly::Server for Surly {}
    offered(setting, runner(), |courier| {
        let surly = friendly::Client::new(Surly);
        let pretty = courier.pretty(|mut pretty| {
            pretty.set_good("imported");
            pretty.set_plain(surly.clone());
        });
        let pretty = pretty.soon().unwrap();
        let pretty = pretty.get().unwrap();
        assert_eq!(pretty.get_ugly().unwrap().get_good().unwrap().unwrap(), "imported");
        assert_eq!(pretty.get_surly().unwrap().resolve().unwrap(), surly);
    });
}

fn data_of_a_stock_crate_is_params_and_results(setting: Setting) {
    offered(setting, runner(), |courier| {
        let described = courier.describe(|params| {
            let mut node = params.init_node();
            node.set_display_name("a node");
            node.set_id(99);
            node.init_struct().set_preferred_list_encoding(ElementSize::Pointer);
        });
        let described = described.soon().unwrap();
        let described = described.get().unwrap();
        assert_eq!(described.get_kind().unwrap(), ElementSize::Pointer);
        let node = described.get_node().unwrap();
        assert_eq!((node.get_id(), text(node.get_display_name())), (99, "a node".into()));
        assert!(matches!(node.which().unwrap(), node::Struct(_)));
    });
}

fn generic_structs_of_another_crate_have_other_brands(setting: Setting) {
    offered(setting, runner(), |courier| {
        let mine = office::Client::new(Runner::default());
        let packed = courier.bag(|mut bag| {
            bag.set_content("to whom").unwrap();
            bag.set_office(mine.clone());
        });
        let ahead = packed.pipeline.get().get_office();
        let packed = packed.soon().unwrap();
        let bag: bag::Reader<'_, parcel::Owned> = packed.get().unwrap();
        assert_eq!(text(bag.get_content().unwrap().get_to()), "to whom");
        assert_eq!(bag.get_office().unwrap().resolve().unwrap(), mine);
        assert_eq!(ahead.resolve().unwrap(), mine);
    });
}

/// Stores parcels, and is a cell of a parcel too.
#[derive(Default)]
struct Room {
    kept: Mutex<Vec<String>>,
}

impl store::Server<parcel::Owned> for Room {
    fn keep(
        &self,
        params: store::KeepParams<parcel::Owned>,
        mut results: store::KeepResults<'_, parcel::Owned>,
    ) -> Result<()> {
        let mut kept = self.kept.lock().unwrap();
        kept.push(params.get()?.get_thing()?.get_to()?.to_string()?);
        results.get().set_kept(kept.len() as u32);
        Ok(())
    }

    fn bring(
        &self,
        _: store::BringParams<parcel::Owned>,
        mut results: store::BringResults<'_, parcel::Owned>,
    ) -> Result<()> {
        let last = self.kept.lock().unwrap().pop();
        let last = last.ok_or_else(|| Error::failed("nothing left"))?;
        results.get().init_content().set_to(&*last);
        Ok(())
    }
}

impl cell::Server<parcel::Owned> for Room {
    fn get(
        &self,
        _: cell::GetParams<parcel::Owned>,
        mut results: cell::GetResults<'_, parcel::Owned>,
    ) -> Result<()> {
        results.get().init_value().set_weight(self.kept.lock().unwrap().len() as u32);
        Ok(())
    }
}

impl depot::Server<parcel::Owned> for Room {}
impl parcel_depot::Server for Room {}

fn generic_interfaces_of_another_crate_are_extended(setting: Setting) {
    offered(setting, parcel_depot::Client::new(Room::default()), |room| {
        let store = store::Client::<parcel::Owned>::from(room.clone());
        for (kept, to) in [(1, "a"), (2, "b")] {
            let stored = store.keep(|params| params.init_thing().set_to(to)).soon().unwrap();
            assert_eq!(stored.get().unwrap().get_kept(), kept);
        }
        let cell = cell::Client::<parcel::Owned>::from(room.clone());
        let got = cell.get().soon().unwrap();
        assert_eq!(got.get().unwrap().get_value().unwrap().get_weight(), 2);
        let brought = store.bring().soon().unwrap();
        assert_eq!(text(brought.get().unwrap().get_content().unwrap().get_to()), "b");
        let depot = depot::Client::<parcel::Owned>::from(room);
        assert_eq!(store::Client::from(depot.clone()), store);
        assert_eq!(cell::Client::<parcel::Owned>::from(depot), cell);
    });
}

fn an_interface_of_another_crate_is_served(setting: Setting) {
    struct Words;
    impl store::Server<Text> for Words {
        fn bring(
            &self,
            _: store::BringParams<Text>,
            mut results: store::BringResults<'_, Text>,
        ) -> Result<()> {
            results.get().set_office(runner().into());
            Ok(results.get().set_content("a word")?)
        }
    }
    offered(setting, store::Client::<Text>::new(Words), |words| {
        let brought = words.bring();
        let sent = brought.pipeline.get().get_office().send(|_| ()).soon();
        assert!(sent.is_ok());
        assert_eq!(text(brought.soon().unwrap().get().unwrap().get_content()), "a word");
    });
}
