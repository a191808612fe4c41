//! Interfaces with type parameters, and methods with parameters of their own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Mutex;

use capnp::any_pointer::Owned as Any;
use capnp::data::Owned as Data;
use capnp::text::Owned as Text;
use capnp::traits::Owned;
use capnp_threads::{Capability, Client, ExceptionKind, Result, Stream};

use crate::generated::generics_capnp::*;
use crate::support::{hook, hooked, offered, text, Setting, Soon};

in_each_setting!(
    a_cell_of_text,
    a_cell_of_structs_of_lists,
    a_cell_of_clients,
    a_nested_interface_uses_the_outer_parameter,
    a_nested_interface_adds_a_parameter,
    generic_structs_are_params_and_results,
    calls_are_made_ahead_through_generic_structs,
    a_generic_interface_streams,
    parameters_that_are_left_out_are_any_pointers,
    a_method_has_a_parameter,
    a_method_takes_and_returns_generic_structs,
    a_generic_interface_has_a_generic_method,
    brands_are_results,
);

/// Keeps what it was set to, whatever that is. (Its own params are what it keeps it in.)
pub struct Kept<T: Owned + 'static> {
    params: Mutex<Option<cell::SetParams<T>>>,
    filled: AtomicU32,
}

impl<T: Owned + 'static> Kept<T> {
    pub fn empty() -> Self {
        Kept { params: Mutex::new(None), filled: AtomicU32::new(0) }
    }

    fn params(&self) -> Result<cell::SetParams<T>> {
        let params = self.params.lock().unwrap().clone();
        params.ok_or_else(|| capnp_threads::Error::failed("the cell is empty"))
    }
}

impl<T: Owned + 'static> cell::Server<T> for Kept<T> {
    fn get(&self, _: cell::GetParams<T>, mut results: cell::GetResults<'_, T>) -> Result<()> {
        Ok(results.get().set_value(self.params()?.get()?.get_value()?)?)
    }

    fn set(&self, params: cell::SetParams<T>, _: cell::SetResults<'_, T>) -> Result<()> {
        *self.params.lock().unwrap() = Some(params);
        Ok(())
    }

    fn swap(&self, params: cell::SwapParams<T>, mut results: cell::SwapResults<'_, T>) -> Result<()> {
        let mut results = results.get();
        results.set_first("swapped")?;
        results.set_second(params.get()?.get_first()?)?;
        Ok(())
    }

    fn watch(&self, params: cell::WatchParams<T>, _: cell::WatchResults<'_, T>) -> Result<()> {
        let kept = self.params()?;
        let watcher = params.get()?.get_watcher()?;
        let kept = kept.get()?.get_value()?;
        watcher.changed(|mut params| params.set_to(kept)).wait()?;
        Ok(())
    }

    fn tell(&self, params: cell::TellParams<T>, mut results: cell::TellResults<'_, T>) -> Result<()> {
        let kept = self.params()?;
        let reader = params.get()?.get_reader()?;
        let kept = kept.get()?.get_value()?;
        let read = reader.read(|mut params| params.set_value(kept)).wait()?;
        results.get().set_told(read.get()?.get_as()? == "understood");
        Ok(())
    }

    fn wrap(&self, _: cell::WrapParams<T>, mut results: cell::WrapResults<'_, T>) -> Result<()> {
        let kept = self.params()?;
        let copy = Kept { params: Mutex::new(Some(kept.clone())), filled: AtomicU32::new(0) };
        let copy = cell::Client::<T>::new(copy);
        let mut results = results.get();
        results.set_value(kept.get()?.get_value()?)?;
        results.set_cell(copy.clone());
        let mut wrapped = results.init_wrapped();
        wrapped.set_first(kept.get()?.get_value()?)?;
        wrapped.set_second(copy)?;
        Ok(())
    }

    fn fill(&self, _: cell::FillParams<T>, _: cell::FillResults<'_>) -> Result<()> {
        self.filled.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

fn kept<T: Owned + 'static>() -> cell::Client<T> {
    cell::Client::new(Kept::empty())
}

fn keeping(value: &str) -> cell::Client<Text> {
    let cell = kept::<Text>();
    cell.set(|mut params| params.set_value(value)).soon().unwrap();
    cell
}

fn text_in(cell: &cell::Client<Text>) -> String {
    text(cell.get().soon().unwrap().get().unwrap().get_value())
}

fn a_cell_of_text(setting: Setting) {
    offered(setting, kept::<Text>(), |cell| {
        let why = cell.get().soon().unwrap_err();
        assert!(why.to_string().contains("the cell is empty"), "{why}");
        cell.set(|mut params| params.set_value("some")).soon().unwrap();
        assert_eq!(text_in(&cell), "some");
        let mut request = cell.set_request();
        request.get().set_value("more").unwrap();
        request.send().soon().unwrap();
        assert_eq!(text_in(&cell.clone()), "more");
    });
}

fn a_cell_of_structs_of_lists(setting: Setting) {
    type Numbers = capnp::primitive_list::Owned<u32>;
    offered(setting, kept::<pair::Owned<Numbers, Text>>(), |cell| {
        let set = cell.set(|params| {
            let mut pair = params.init_value();
            pair.set_first(&[3, 1, 2])?;
            pair.set_second("three")
        });
        set.soon().unwrap();
        let got = cell.get().soon().unwrap();
        let pair = got.get().unwrap().get_value().unwrap();
        assert_eq!(pair.get_first().unwrap().iter().collect::<Vec<u32>>(), [3, 1, 2]);
        assert_eq!(text(pair.get_second()), "three");
    });
}

fn a_cell_of_clients(setting: Setting) {
    offered(setting, kept::<cell::Owned<Text>>(), |cell| {
        let inner = keeping("deep");
        cell.set(|mut params| params.set_value(inner.clone())).soon().unwrap();
        let got = cell.get();
        // The getter of the pipeline knows the type too.
        let ahead = got.pipeline.get().get_value().get();
        assert_eq!(text(ahead.soon().unwrap().get().unwrap().get_value()), "deep");
        let got = got.soon().unwrap().get().unwrap().get_value().unwrap();
        assert_eq!(got.resolve().unwrap(), inner);
        // The cell holds a client of ours.
        cell.set(|mut params| params.set_value(cell::Client::<Text>::null())).soon().unwrap();
        assert!(cell.get().soon().unwrap().get().unwrap().get_value().unwrap().is_null());
    });
}

fn a_nested_interface_uses_the_outer_parameter(setting: Setting) {
    struct Seen(Mutex<Vec<String>>);
    impl cell::watcher::Server<Text> for Seen {
        fn changed(
            &self,
            params: cell::watcher::ChangedParams<Text>,
            _: cell::watcher::ChangedResults<'_, Text>,
        ) -> Result<()> {
            self.0.lock().unwrap().push(params.get()?.get_to()?.to_string()?);
            Ok(())
        }
    }
    offered(setting, kept::<Text>(), |cell| {
        cell.set(|mut params| params.set_value("one")).soon().unwrap();
        let watcher = cell::watcher::Client::<Text>::new(Seen(Mutex::default()));
        for _ in 0..2 {
            cell.watch(|mut params| params.set_watcher(watcher.clone())).soon().unwrap();
        }
        let seen = watcher.wait_local_server::<Seen>().unwrap().unwrap();
        assert_eq!(*seen.0.lock().unwrap(), ["one", "one"]);
    });
}

fn a_nested_interface_adds_a_parameter(setting: Setting) {
    struct Reader;
    impl cell::reading::Server<Data, Text> for Reader {
        fn read(
            &self,
            params: cell::reading::ReadParams<Data, Text>,
            mut results: cell::reading::ReadResults<'_, Data, Text>,
        ) -> Result<()> {
            let known = params.get()?.get_value()? == [7];
            Ok(results.get().set_as(if known { "understood" } else { "what?" })?)
        }
    }
    offered(setting, kept::<Data>(), |cell| {
        for (value, told) in [(&[7][..], true), (&[8, 9][..], false)] {
            cell.set(|mut params| params.set_value(value)).soon().unwrap();
            let reader = cell::reading::Client::<Data, Text>::new(Reader);
            let answer = cell.tell(|mut params| params.set_reader(reader)).soon().unwrap();
            assert_eq!(answer.get().unwrap().get_told(), told);
        }
    });
}

fn generic_structs_are_params_and_results(setting: Setting) {
    offered(setting, kept::<Data>(), |cell| {
        let swapped = cell.swap(|mut pair| {
            pair.set_first(&[1, 2][..])?;
            pair.set_second(&[3][..])
        });
        let swapped = swapped.soon().unwrap();
        let swapped = swapped.get().unwrap();
        assert_eq!(text(swapped.get_first()), "swapped");
        assert_eq!(swapped.get_second().unwrap(), [1, 2]);
        cell.set(|mut params| params.set_value(&[5][..])).soon().unwrap();
        let wrapped = cell.wrap().soon().unwrap();
        let wrapped = wrapped.get().unwrap();
        assert_eq!(wrapped.get_value().unwrap(), [5]);
        let pair = wrapped.get_wrapped().unwrap();
        assert_eq!(pair.get_first().unwrap(), [5]);
        let inner = wrapped.get_cell().unwrap().get().soon().unwrap();
        assert_eq!(inner.get().unwrap().get_value().unwrap(), [5]);
        assert_eq!(pair.get_second().unwrap(), wrapped.get_cell().unwrap());
    });
}

fn calls_are_made_ahead_through_generic_structs(setting: Setting) {
    offered(setting, kept::<cell::Owned<Text>>(), |cell| {
        let inner = keeping("ahead");
        cell.set(|mut params| params.set_value(inner.clone())).soon().unwrap();
        let wrapped = cell.wrap().pipeline.get();
        let value = wrapped.get_cell().get().pipeline.get().get_value();
        let first = wrapped.get_wrapped().get_first();
        let second = wrapped.get_wrapped().get_second().get().pipeline.get().get_value();
        for cell in [wrapped.get_value(), value, first, second] {
            assert_eq!(text_in(&cell), "ahead");
            assert_eq!(cell.resolve().unwrap(), inner);
        }
        // So that the cell holds nothing of ours when the vats are looked at.
        cell.set(|mut params| params.set_value(cell::Client::<Text>::null())).soon().unwrap();
    });
}

fn a_generic_interface_streams(setting: Setting) {
    let object = kept::<Text>();
    let server = object.wait_local_server::<Kept<Text>>().unwrap().unwrap();
    offered(setting, object, |cell| {
        let stream = Stream::new();
        for _ in 0..5 {
            cell.fill(&stream, |mut params| params.set_value("drop")).unwrap();
        }
        let mut request = cell.fill_request();
        request.get().set_value("last").unwrap();
        request.send(&stream).unwrap();
        stream.finish().unwrap();
        assert_eq!(server.filled.load(Ordering::SeqCst), 6);
    });
}

struct Anything(Kept<Any>);

impl cell::Server<Any> for Anything {
    fn get(&self, params: cell::GetParams<Any>, results: cell::GetResults<'_, Any>) -> Result<()> {
        self.0.get(params, results)
    }

    fn set(&self, params: cell::SetParams<Any>, results: cell::SetResults<'_, Any>) -> Result<()> {
        self.0.set(params, results)
    }
}

impl any_cell::Server for Anything {
    fn clear(&self, _: any_cell::ClearParams, _: any_cell::ClearResults<'_>) -> Result<()> {
        *self.0.params.lock().unwrap() = None;
        Ok(())
    }
}

fn parameters_that_are_left_out_are_any_pointers(setting: Setting) {
    offered(setting, any_cell::Client::new(Anything(Kept::empty())), |any| {
        let cell = cell::Client::<Any>::from(any.clone());
        cell.set(|params| params.init_value().set_as("text")).soon().unwrap();
        let got = cell.get().soon().unwrap();
        let value = got.get().unwrap().get_value().unwrap();
        assert_eq!(text(value.get_as::<capnp::text::Reader<'_>>()), "text");
        let inner = keeping("inner");
        let set = cell.set(|params| params.init_value().set_as_capability(hook(&inner)));
        set.soon().unwrap();
        let got = cell.get();
        let ahead: cell::Client<Text> = hooked(got.pipeline.get().get_value().as_cap());
        assert_eq!(text_in(&ahead), "inner");
        let value = got.soon().unwrap();
        let value = value.get().unwrap().get_value().unwrap();
        let got: cell::Client<Text> = value.get_as_capability().unwrap();
        assert_eq!(got.resolve().unwrap(), inner);
        any.clear().soon().unwrap();
        assert!(cell.get().soon().is_err());
        assert_eq!(cell.wrap().soon().unwrap_err().kind(), ExceptionKind::Unimplemented);
    });
}

struct Anybody;

impl generic::Server for Anybody {
    fn same(&self, params: generic::SameParams, mut results: generic::SameResults<'_>) -> Result<()> {
        Ok(results.get().set_value(params.get()?.get_value()?)?)
    }

    fn turn(&self, params: generic::TurnParams, mut results: generic::TurnResults<'_>) -> Result<()> {
        let (params, mut results) = (params.get()?, results.get());
        results.set_first(params.get_second()?)?;
        results.set_second(params.get_first()?)?;
        Ok(())
    }

    fn empty(&self, params: generic::EmptyParams, mut results: generic::EmptyResults<'_>) -> Result<()> {
        let cell = params.get()?.get_cell()?;
        let mut results = results.get();
        results.set_value(cell.get().wait()?.get()?.get_value()?)?;
        results.set_cell(cell);
        Ok(())
    }
}

fn a_method_has_a_parameter(setting: Setting) {
    offered(setting, generic::Client::new(Anybody), |generic| {
        let same = generic.same(|params| params.init_value().set_as("any")).soon().unwrap();
        let value = same.get().unwrap().get_value().unwrap();
        assert_eq!(text(value.get_as::<capnp::text::Reader<'_>>()), "any");
        let mine = keeping("mine");
        let same = generic.same(|params| params.init_value().set_as_capability(hook(&mine)));
        let same = same.soon().unwrap();
        let value = same.get().unwrap().get_value().unwrap();
        let value: cell::Client<Text> = value.get_as_capability().unwrap();
        assert_eq!(value.resolve().unwrap(), mine);
    });
}

fn a_method_takes_and_returns_generic_structs(setting: Setting) {
    offered(setting, generic::Client::new(Anybody), |generic| {
        let turned = generic.turn(|mut pair| {
            pair.reborrow().init_first().set_as("one")?;
            pair.init_second().set_as::<Data>(&[2][..])
        });
        let turned = turned.soon().unwrap();
        let turned = turned.get().unwrap();
        assert_eq!(turned.get_first().unwrap().get_as::<capnp::data::Reader<'_>>().unwrap(), [2]);
        assert_eq!(text(turned.get_second().unwrap().get_as::<capnp::text::Reader<'_>>()), "one");
        let mine = keeping("held");
        let emptied = generic.empty(|mut params| params.set_cell(mine.clone().cast_to())).soon().unwrap();
        let emptied = emptied.get().unwrap();
        assert_eq!(text(emptied.get_value().unwrap().get_as::<capnp::text::Reader<'_>>()), "held");
        assert_eq!(emptied.get_cell().unwrap().cast_to::<cell::Client<Text>>().resolve().unwrap(), mine);
    });
}

struct Coupling;

impl generic_in::Server<Text> for Coupling {
    fn couple(
        &self,
        params: generic_in::CoupleParams<Text>,
        mut results: generic_in::CoupleResults<'_, Text>,
    ) -> Result<()> {
        let (params, mut results) = (params.get()?, results.get());
        results.set_first(params.get_outer()?)?;
        results.set_second(params.get_inner()?)?;
        Ok(())
    }

    fn cells(
        &self,
        _: generic_in::CellsParams<Text>,
        mut results: generic_in::CellsResults<'_, Text>,
    ) -> Result<()> {
        let mut results = results.get();
        results.set_texts(keeping("texts"));
        results.set_outers(keeping("outers"));
        let mut both = results.init_both();
        both.set_first(keeping("first"))?;
        both.set_second(keeping("second"))?;
        Ok(())
    }
}

fn a_generic_interface_has_a_generic_method(setting: Setting) {
    offered(setting, generic_in::Client::<Text>::new(Coupling), |object| {
        let coupled = object.couple(|mut params| {
            params.set_outer("outer")?;
            params.init_inner().set_as("inner")
        });
        let coupled = coupled.soon().unwrap();
        let coupled = coupled.get().unwrap();
        assert_eq!(text(coupled.get_first()), "outer");
        assert_eq!(text(coupled.get_second().unwrap().get_as::<capnp::text::Reader<'_>>()), "inner");
    });
}

fn brands_are_results(setting: Setting) {
    offered(setting, generic_in::Client::<Text>::new(Coupling), |object| {
        let cells = object.cells().soon().unwrap();
        let cells = cells.get().unwrap();
        assert_eq!(text_in(&cells.get_texts().unwrap()), "texts");
        assert_eq!(text_in(&cells.get_outers().unwrap()), "outers");
        let both = cells.get_both().unwrap();
        assert_eq!(text_in(&both.get_first().unwrap()), "first");
        assert_eq!(text_in(&both.get_second().unwrap()), "second");
        let untyped: Client = cells.get_texts().unwrap().into();
        assert_eq!(text_in(&untyped.into()), "texts");
    });
}
