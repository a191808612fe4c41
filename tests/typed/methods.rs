//! What methods take and return: structs of their own and shared ones, defaults, and what stands beside methods in
//! an interface.

use std::collections::BTreeMap;

use capnp_threads::{Capability, Result};

use crate::generated::methods_capnp::*;
use crate::support::{offered, text, Setting, Soon};

in_each_setting!(
    params_and_results_can_be_structs,
    a_struct_serves_several_methods,
    params_are_set_from_a_reader,
    results_are_set_from_a_reader,
    structs_and_enums_of_an_interface,
    defaults_of_params_and_results,
    defaults_are_overwritten,
    a_method_without_anything,
);

struct Books(BTreeMap<String, String>);

impl Books {
    fn client() -> library::Client {
        let books = [("ant", "small"), ("bee", "busy"), ("cat", "lazy")];
        library::Client::new(Books(books.map(|(word, line)| (word.into(), line.into())).into()))
    }

    fn found(&self, query: query::Reader<'_>) -> Result<Vec<&str>> {
        let mut found = Vec::new();
        for word in query.get_words()? {
            found.extend(self.0.get(word?.to_str()?).map(String::as_str));
        }
        found.truncate(query.get_limit().into());
        Ok(found)
    }
}

impl library::Server for Books {
    fn find(&self, params: library::FindParams, mut results: library::FindResults<'_>) -> Result<()> {
        let found = self.found(params.get()?)?;
        let mut lines = results.get().init_lines(found.len() as u32);
        for (i, line) in found.into_iter().enumerate() {
            lines.set(i as u32, line);
        }
        Ok(())
    }

    fn count(&self, params: library::CountParams, mut results: library::CountResults<'_>) -> Result<()> {
        results.get().set_count(self.found(params.get()?)?.len() as u32);
        Ok(())
    }

    fn again(&self, params: library::AgainParams, mut results: library::AgainResults<'_>) -> Result<()> {
        // What another call returned is what this one returns.
        let times = params.get()?.get_times();
        let inner = Books::client().find(|params| {
            let mut words = params.init_words(times.into());
            (0..times).for_each(|i| words.set(i.into(), "bee"));
        });
        results.set(inner.wait()?.get()?)
    }

    fn locate(&self, params: library::LocateParams, mut results: library::LocateResults<'_>) -> Result<()> {
        let params = params.get()?;
        let (mark, order) = (params.get_mark()?, params.get_order()?);
        let mut results = results.get();
        results.set_mark(mark)?;
        results.set_order(mark.get_order()?);
        results.get_mark()?.set_order(order);
        Ok(())
    }

    fn defaults(
        &self,
        params: library::DefaultsParams,
        mut results: library::DefaultsResults<'_>,
    ) -> Result<()> {
        let params = params.get()?;
        if params.get_text()? == "left" {
            assert_eq!(params.get_number(), 17);
            assert!(params.get_flag());
            assert_eq!(params.get_query()?.get_limit(), 3);
            assert_eq!(params.get_query()?.get_hint()?, "deep");
            assert!(params.get_query()?.get_lenient());
            assert_eq!(params.get_bytes()?.iter().collect::<Vec<u8>>(), [1, 2, 3]);
            assert_eq!(params.get_order()?, library::Order::Falling);
            assert!(!params.has_library());
            assert!(params.get_library().is_err());
            assert_eq!(params.get_ratio(), 2.5);
            assert_eq!(params.get_data()?, [0, 0xff]);
            return Ok(());
        }
        let mut results = results.get();
        results.set_text(params.get_text()?);
        results.set_number(i32::try_from(params.get_number()).unwrap());
        results.set_order(params.get_order()?);
        results.set_query(params.get_query()?)?;
        Ok(())
    }

    fn nothing(&self, _: library::NothingParams, _: library::NothingResults<'_>) -> Result<()> {
        Ok(())
    }
}

fn lines_of(lines: lines::Reader<'_>) -> Vec<String> {
    lines.get_lines().unwrap().iter().map(text).collect()
}

fn ask_for(mut query: query::Builder<'_>, words: &[&str]) {
    let mut list = query.reborrow().init_words(words.len() as u32);
    for (i, word) in words.iter().enumerate() {
        list.set(i as u32, word);
    }
}

fn params_and_results_can_be_structs(setting: Setting) {
    offered(setting, Books::client(), |books| {
        let found = books.find(|query| ask_for(query, &["cat", "dog", "ant"])).soon().unwrap();
        assert_eq!(lines_of(found.get().unwrap()), ["lazy", "small"]);
        assert!(!found.get().unwrap().has_library());
        // A field's default holds in a struct of params too.
        let found = books.find(|query| ask_for(query, &["ant"; 9])).soon().unwrap();
        assert_eq!(lines_of(found.get().unwrap()), ["small"; 7]);
    });
}

fn a_struct_serves_several_methods(setting: Setting) {
    offered(setting, Books::client(), |books| {
        let counted = books.count(|query| ask_for(query, &["cat", "dog"])).soon().unwrap();
        assert_eq!(counted.get().unwrap().get_count(), 1);
        let again = books.again(|mut params| params.set_times(3)).soon().unwrap();
        assert_eq!(lines_of(again.get().unwrap()), ["busy"; 3]);
    });
}

fn params_are_set_from_a_reader(setting: Setting) {
    offered(setting, Books::client(), |books| {
        let mut message = capnp::message::Builder::new_default();
        let mut query = message.init_root::<query::Builder<'_>>();
        query.set_limit(2);
        ask_for(query.reborrow(), &["ant", "bee", "cat"]);
        let mut request = books.find_request();
        request.set(query.into_reader()).unwrap();
        let found = request.send().soon().unwrap();
        assert_eq!(lines_of(found.get().unwrap()), ["small", "busy"]);
        let mut request = books.count_request();
        request.set(library::WIDEST.get().unwrap()).unwrap();
        assert_eq!(request.send().soon().unwrap().get().unwrap().get_count(), 0);
    });
}

fn results_are_set_from_a_reader(setting: Setting) {
    offered(setting, Books::client(), |books| {
        let again = books.again(|mut params| params.set_times(0)).soon().unwrap();
        assert!(lines_of(again.get().unwrap()).is_empty());
        let mut request = books.again_request();
        request.get().set_times(8);
        let again = request.send().soon().unwrap();
        assert_eq!(lines_of(again.get().unwrap()).len(), 7);
    });
}

fn structs_and_enums_of_an_interface(setting: Setting) {
    offered(setting, Books::client(), |books| {
        let owner = Books::client();
        let located = books.locate(|mut params| {
            params.set_order(library::Order::AsFound);
            let mut mark = params.init_mark();
            mark.set_row(12);
            mark.set_order(library::Order::Falling);
            let mut shelf = mark.init_shelf();
            shelf.set_number(1 << 20);
            shelf.set_owner(owner.clone());
        });
        let located = located.soon().unwrap();
        let located = located.get().unwrap();
        assert_eq!(located.get_order().unwrap(), library::Order::Falling);
        let mark = located.get_mark().unwrap();
        assert_eq!((mark.get_row(), mark.get_order().unwrap()), (12, library::Order::AsFound));
        assert_eq!(mark.get_shelf().get_number(), 1 << 20);
        let shelf_owner = mark.get_shelf().get_owner().unwrap();
        assert_eq!(shelf_owner.resolve().unwrap(), owner);
        assert_eq!(mark.total_size().unwrap().cap_count, 1);
    });
}

fn defaults_of_params_and_results(setting: Setting) {
    offered(setting, Books::client(), |books| {
        let returned = books.defaults_request().send().soon().unwrap();
        let returned = returned.get().unwrap();
        assert_eq!(text(returned.get_text()), "right");
        assert_eq!(returned.get_number(), -9);
        assert_eq!(returned.get_order().unwrap(), library::Order::Falling);
        let query = returned.get_query().unwrap();
        assert_eq!(query.get_words().unwrap().iter().map(text).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(query.get_limit(), 7);
    });
}

fn defaults_are_overwritten(setting: Setting) {
    offered(setting, Books::client(), |books| {
        let returned = books.defaults(|mut params| {
            params.set_text("");
            params.set_number(0);
            params.set_order(library::Order::Rising);
            params.init_query().set_limit(0);
        });
        let returned = returned.soon().unwrap();
        let returned = returned.get().unwrap();
        assert_eq!(text(returned.get_text()), "");
        assert_eq!(returned.get_number(), 0);
        assert_eq!(returned.get_order().unwrap(), library::Order::Rising);
        let query = returned.get_query().unwrap();
        assert_eq!((query.get_limit(), query.get_words().unwrap().len()), (0, 0));
        assert_eq!(text(query.get_hint()), "none");
    });
}

fn a_method_without_anything(setting: Setting) {
    offered(setting, Books::client(), |books| {
        let nothing = books.nothing().soon().unwrap();
        assert_eq!(nothing.get().unwrap().total_size().unwrap().cap_count, 0);
        assert!(books.nothing_request().send().soon().is_ok());
    });
}

#[test]
fn constants_of_an_interface() {
    assert_eq!(library::CAPACITY, 4096);
    assert_eq!(library::MOTTO, "read twice");
    assert_eq!(library::BEST, library::Order::AsFound);
    let widest = library::WIDEST.get().unwrap();
    assert_eq!((widest.get_limit(), widest.get_words().unwrap().len()), (65535, 1));
    assert_eq!(library::ROWS.get().unwrap().iter().collect::<Vec<u16>>(), [1, 1, 2, 3]);
}
