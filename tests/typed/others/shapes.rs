//! Generic structs and interfaces nested deeply, clients in data, and objects that are passed in and out.

use capnp::data::Owned as Data;
use capnp::text::Owned as Text;
use capnp_threads::{Capability, Result};
use crossbeam_channel::{unbounded, Sender};

use super::harbour::*;
use crate::support::{hook, offered, text, Setting, Soon};

in_each_setting!(
    a_generic_interface_nested_in_a_generic_struct,
    an_interface_nested_four_deep,
    methods_with_implied_parameters,
    a_generic_union_holds_a_client,
    clients_in_a_list_of_structs_are_passed_through,
    things_are_passed_in_and_out,
    a_call_that_waits_forever_is_given_up,
);

struct Deepsea;

impl deep::diver::Server<Cargos, Text, Data> for Deepsea {
    fn dive(
        &self,
        params: deep::diver::DiveParams<Cargos, Text>,
        mut results: deep::diver::DiveResults<'_, Cargos, Text, Data>,
    ) -> Result<()> {
        let params = params.get()?;
        let inner = params.get_inner()?;
        check(inner.get_foo()?);
        let mut results = results.get();
        results.set_baz(params.get_baz()?.as_bytes())?;
        let mut deep = results.init_deep();
        deep.set_foo(inner.get_foo()?)?;
        deep.set_bar(inner.get_bar()?)?;
        deep.reborrow().init_turned().set_foo("turned")?;
        fill(deep.reborrow().init_inners(1).get(0).init_foo());
        let mut some = deep.init_some();
        some.set_number(-3);
        some.init_foo().set_label("some");
        Ok(())
    }
}

type Cargos = cargo::Owned;

fn a_generic_interface_nested_in_a_generic_struct(setting: Setting) {
    offered(setting, deep::diver::Client::<Cargos, Text, Data>::new(Deepsea), |diver| {
        let dived = diver.dive(|mut params| {
            params.set_baz("baz")?;
            let mut inner = params.init_inner();
            fill(inner.reborrow().init_foo());
            inner.set_bar("bar")
        });
        let dived = dived.soon().unwrap();
        let dived = dived.get().unwrap();
        assert_eq!(dived.get_baz().unwrap(), b"baz");
        let deep = dived.get_deep().unwrap();
        check(deep.get_foo().unwrap());
        assert_eq!(text(deep.get_bar()), "bar");
        assert_eq!(text(deep.get_turned().unwrap().get_foo()), "turned");
        check(deep.get_inners().unwrap().get(0).get_foo().unwrap());
        let deep::Some(some) = deep.which().unwrap() else { panic!("another variant") };
        assert_eq!((some.get_number(), text(some.get_foo().unwrap().get_label())), (-3, "some".into()));
    });
}

struct Bottom;

impl deep::inner2::deeper::deepest::Server<Text, Data, Text, Data, Text> for Bottom {
    fn call(
        &self,
        params: deep::inner2::deeper::deepest::CallParams<Text, Data, Text, Data, Text>,
        mut results: deep::inner2::deeper::deepest::CallResults<'_, Text, Data, Text, Data, Text>,
    ) -> Result<()> {
        let bubble = params.get()?.get_bubble()?;
        let mut results = results.get();
        results.set_foo(bubble)?;
        results.init_deeper().set_qux("qux")?;
        Ok(())
    }
}

fn an_interface_nested_four_deep(setting: Setting) {
    type Deepest = deep::inner2::deeper::deepest::Client<Text, Data, Text, Data, Text>;
    offered(setting, Deepest::new(Bottom), |deepest| {
        let called = deepest.call(|mut params| params.set_bubble("down there")).soon().unwrap();
        let called = called.get().unwrap();
        assert_eq!(text(called.get_foo()), "down there");
        assert_eq!(text(called.get_deeper().unwrap().get_qux()), "qux");
    });
}

struct Implying;

impl implied::Server for Implying {
    fn call(&self, params: implied::CallParams, mut results: implied::CallResults<'_>) -> Result<()> {
        let (params, mut results) = (params.get()?, results.get());
        results.set_foo(params.get_first()?)?;
        results.set_bar(params.get_second()?)?;
        Ok(())
    }
}

impl implied_in::Server<Text> for Implying {
    fn call(
        &self,
        params: implied_in::CallParams<Text>,
        mut results: implied_in::CallResults<'_, Text>,
    ) -> Result<()> {
        let (params, mut results) = (params.get()?, results.get());
        results.set_foo(params.get_first()?)?;
        results.set_bar(params.get_second()?)?;
        Ok(())
    }
}

fn methods_with_implied_parameters(setting: Setting) {
    offered(setting, implied::Client::new(Implying), |implying| {
        let (mine, _) = boat();
        let called = implying.call(|mut params| {
            params.reborrow().init_first().set_as("text").unwrap();
            params.init_second().set_as_capability(hook(&mine));
        });
        let called = called.soon().unwrap();
        let called = called.get().unwrap();
        assert_eq!(text(called.get_foo().unwrap().get_as::<capnp::text::Reader<'_>>()), "text");
        let back: ship::Client = called.get_bar().unwrap().get_as_capability().unwrap();
        assert_eq!(back.resolve().unwrap(), mine);
    });
    offered(setting, implied_in::Client::<Text>::new(Implying), |implying| {
        let called = implying.call(|mut params| {
            fill(params.reborrow().init_first().init_as());
            params.set_second("second")
        });
        let called = called.soon().unwrap();
        let called = called.get().unwrap();
        check(called.get_foo().unwrap().get_as().unwrap());
        assert_eq!(text(called.get_bar()), "second");
    });
}

struct Crew;

impl sailors::Server for Crew {
    fn transfer(
        &self,
        params: sailors::TransferParams,
        mut results: sailors::TransferResults<'_>,
    ) -> Result<()> {
        // Each under the name of the one before it.
        let list = params.get()?.get_list()?;
        let mut moved = results.get().init_list(list.len());
        for i in 0..list.len() {
            let mut vessel = moved.reborrow().get(i);
            vessel.set_ship(list.get(i).get_ship()?);
            vessel.set_name(list.get((i + 1) % list.len()).get_name()?);
        }
        Ok(())
    }
}

fn a_generic_union_holds_a_client(setting: Setting) {
    offered(setting, implied::Client::new(Implying), |implying| {
        let (mine, _) = boat();
        let called = implying.call(|params| {
            let mut users: users::Builder<'_> = params.init_first().init_as();
            users.set_diver(Capability::new(Deepsea));
            users.reborrow().init_aliases().set_foo("alias")?;
            users.reborrow().init_aliases().init_inner().set_baz("inner")?;
            users.init_either().set_b(mine.clone())
        });
        let called = called.soon().unwrap();
        let users: users::Reader<'_> = called.get().unwrap().get_foo().unwrap().get_as().unwrap();
        match users.get_either().unwrap().which().unwrap() {
            either::B(ship) => assert_eq!(ship.unwrap().resolve().unwrap(), mine),
            either::A(_) => panic!("another variant"),
        }
        assert!(users
            .get_diver()
            .unwrap()
            .resolve()
            .unwrap()
            .wait_local_server::<Deepsea>()
            .unwrap()
            .is_some());
        assert_eq!(text(users.get_aliases().unwrap().get_inner().unwrap().get_baz()), "inner");
    });
}

fn clients_in_a_list_of_structs_are_passed_through(setting: Setting) {
    offered(setting, sailors::Client::new(Crew), |crew| {
        let mine: Vec<_> = (0..3).map(|_| boat()).collect();
        let moved = crew.transfer(|params| {
            let mut list = params.init_list(3);
            for (i, name) in (0..3).zip(["a", "b", "c"]) {
                let mut vessel = list.reborrow().get(i);
                vessel.set_name(name);
                vessel.set_ship(mine[i as usize].0.clone());
            }
        });
        let moved = moved.soon().unwrap();
        let list = moved.get().unwrap().get_list().unwrap();
        let names: Vec<_> = list.iter().map(|vessel| text(vessel.get_name())).collect();
        assert_eq!(names, ["b", "c", "a"]);
        for (vessel, (ship, books)) in list.iter().zip(&mine) {
            let back = vessel.get_ship().unwrap();
            assert_eq!(hail(&back).unwrap(), AYE);
            assert_eq!(books.calls(), 1);
            assert_eq!(back.resolve().unwrap(), *ship);
        }
    });
}

/// Chests of its own, and calls of others'.
struct Office(Sender<()>);

struct Case(&'static str);

impl customs::chest::Server for Case {
    fn pass(
        &self,
        _: customs::chest::PassParams,
        mut results: customs::chest::PassResults<'_>,
    ) -> Result<()> {
        results.get().set_text(self.0);
        Ok(())
    }

    fn search(
        &self,
        _: customs::chest::SearchParams,
        mut results: customs::chest::SearchResults<'_>,
    ) -> Result<()> {
        results.get().set_text(&*format!("{}: empty", self.0));
        Ok(())
    }
}

impl customs::Server for Office {
    fn make(&self, _: customs::MakeParams, mut results: customs::MakeResults<'_>) -> Result<()> {
        results.get().set_chest(Capability::new(Case("theirs")));
        Ok(())
    }

    fn pass(&self, params: customs::PassParams, mut results: customs::PassResults<'_>) -> Result<()> {
        let params = params.get()?;
        let request = params.get_chest()?.pass_request();
        if params.get_tail() {
            return results.tail_call(request);
        }
        results.set(request.send().wait()?.get()?)
    }

    fn search(&self, params: customs::SearchParams, mut results: customs::SearchResults<'_>) -> Result<()> {
        let params = params.get()?;
        let request = params.get_chest()?.search_request();
        if params.get_tail() {
            return results.tail_call(request);
        }
        results.set(request.send().wait()?.get()?)
    }

    fn back(&self, params: customs::BackParams, mut results: customs::BackResults<'_>) -> Result<()> {
        results.get().set_chest(params.get()?.get_chest()?);
        Ok(())
    }

    fn wait_forever(
        &self,
        _: customs::WaitForeverParams,
        results: customs::WaitForeverResults<'_>,
    ) -> Result<()> {
        self.0.send(()).unwrap();
        results.cancellation().wait()?;
        self.0.send(()).unwrap();
        Ok(())
    }
}

/// Has a chest called from here, and from the customs, in both ways.
fn call_all_ways(customs: &customs::Client, chest: &customs::chest::Client, whose: &str) {
    let searched = format!("{whose}: empty");
    let here = chest.pass().soon().unwrap();
    assert_eq!(text(here.get().unwrap().get_text()), whose);
    let here = chest.search().soon().unwrap();
    assert_eq!(text(here.get().unwrap().get_text()), searched);
    for tail in [false, true] {
        let passed = customs.pass(|mut params| {
            params.set_chest(chest.clone());
            params.set_tail(tail);
        });
        assert_eq!(text(passed.soon().unwrap().get().unwrap().get_text()), whose);
        let found = customs.search(|mut params| {
            params.set_chest(chest.clone());
            params.set_tail(tail);
        });
        assert_eq!(text(found.soon().unwrap().get().unwrap().get_text()), searched);
    }
}

fn things_are_passed_in_and_out(setting: Setting) {
    let (waiting, _told) = unbounded();
    offered(setting, customs::Client::new(Office(waiting)), |customs| {
        // Theirs, known and promised.
        let made = customs.make();
        call_all_ways(&customs, &made.pipeline.get().get_chest(), "theirs");
        let made = made.soon().unwrap().get().unwrap().get_chest().unwrap();
        call_all_ways(&customs, &made, "theirs");
        call_all_ways(&customs, &made.resolve().unwrap(), "theirs");
        // Ours, and ours that has been there.
        let mine = customs::chest::Client::new(Case("mine"));
        call_all_ways(&customs, &mine, "mine");
        let back = customs.back(|mut params| params.set_chest(mine.clone()));
        call_all_ways(&customs, &back.pipeline.get().get_chest(), "mine");
        let back = back.soon().unwrap().get().unwrap().get_chest().unwrap();
        call_all_ways(&customs, &back, "mine");
        assert_eq!(back.resolve().unwrap(), mine);
        // In data that is copied from one message to another.
        let mut message = capnp::message::Builder::new_default();
        let mut table = Vec::new();
        let mut hold: hold::Builder<'_> = message.init_root();
        capnp::traits::ImbueMut::imbue_mut(&mut hold, &mut table);
        hold.set_chest(mine.clone());
        hold.reborrow().init_chests(1).set(0, hook(&made));
        call_all_ways(&customs, &hold.reborrow().get_chest().unwrap(), "mine");
        call_all_ways(&customs, &hold.get_chests().unwrap().get(0).unwrap(), "theirs");
    });
}

fn a_call_that_waits_forever_is_given_up(setting: Setting) {
    let (waiting, told) = unbounded();
    offered(setting, customs::Client::new(Office(waiting)), |customs| {
        let call = customs.wait_forever();
        (&told).soon();
        assert!(!call.is_ready());
        drop(call);
        (&told).soon();
        // The object is there for the next.
        assert!(customs.make().soon().is_ok());
    });
}
